"""Slices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnrp.runtimes.coreml.program import Op, Translate

_FIRST, _LAST = np.iinfo(np.int64).min, np.iinfo(np.int64).max


def _masks(op: Op, rank: int) -> list[list[int]]:
    found = [op.row(key, [0] * rank) for key in ("begin_mask", "end_mask", "squeeze_mask")]
    if any(len(mask) != rank for mask in found):
        raise op.refused(f"masks that are not for {rank} dimensions")
    return found


def _where(op: Op, mask: Sequence[int], values: Sequence[int], name: str) -> str:
    """A row, with other numbers where the mask says so."""
    if not any(mask):
        return name
    return op.add("Where", op.graph.constant(np.array(mask, bool)), op.whole(*values), name)


def _by_index(op: Op) -> str:
    """As Python slices, and with a mask for what is left out or is one index."""
    rank = op.rank("x")
    strides = op.row("stride", [1] * rank)
    begin_mask, end_mask, squeeze_mask = _masks(op, rank)
    if len(strides) != rank:
        raise op.refused(f"strides that are not for {rank} dimensions")
    # One index is a slice of one element: the stride does not matter there.
    strides = [1 if squeezed else stride for stride, squeezed in zip(strides, squeeze_mask, strict=True)]
    begin = _where(op, begin_mask, [0 if stride > 0 else _LAST for stride in strides], op.wide("begin"))
    end = _where(op, end_mask, [_LAST if stride > 0 else _FIRST for stride in strides], op.wide("end"))
    if any(squeeze_mask):
        after = op.add("Add", begin, op.whole(1))
        # The last element is at -1, and the one after it not at 0.
        after = op.add("Where", op.add("Equal", begin, op.whole(-1)), op.whole(_LAST), after)
        end = op.add("Where", op.graph.constant(np.array(squeeze_mask, bool)), after, end)
    if not rank:
        return op.add("Identity", op.ref("x"))
    answer = op.add("Slice", op.ref("x"), begin, end, op.whole(*range(rank)), op.whole(*strides))
    gone = [axis for axis, squeezed in enumerate(squeeze_mask) if squeezed]
    return op.add("Squeeze", answer, op.whole(*gone)) if gone else answer


def _by_size(op: Op) -> str:
    """A size of -1 is all that is left."""
    rank, shape = op.rank("x"), op.shape("x")
    begin, size = op.value("begin"), op.value("size")
    axes = op.whole(*range(rank))
    if begin.elements is not None and size.elements is not None:
        starts, ends = op.row("begin"), []
        for axis, count in enumerate(op.row("size")):
            start = starts[axis] + shape[axis] if starts[axis] < 0 and shape[axis] >= 0 else starts[axis]
            ends.append(_LAST if count == -1 or (start < 0 and start + count >= 0) else start + count)
        return op.add("Slice", op.ref("x"), op.whole(*starts), op.whole(*ends), axes)
    starts_, count_ = op.wide("begin"), op.wide("size")
    ends_ = op.add("Where", op.add("Equal", count_, op.whole(-1)), op.whole(_LAST), op.add("Add", starts_, count_))
    return op.add("Slice", op.ref("x"), starts_, ends_, axes)


TABLE: dict[str, Translate] = {"slice_by_index": _by_index, "slice_by_size": _by_size}
