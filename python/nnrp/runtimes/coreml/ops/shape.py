"""Operations that move elements and leave them as they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnrp.runtimes.coreml.ops.slices import TABLE as SLICES
from nnrp.runtimes.coreml.program import Op, Translate


def _reshape(op: Op) -> str:
    """A zero stands for the dimension of the input that is as far from the end; in ONNX, for the one that is as far from the beginning."""
    x, wanted = op.shape("x"), op.value("shape")
    if wanted.elements is None:
        return op.add("Reshape", op.ref("x"), op.wide("shape"))
    sizes = op.row("shape")
    ahead = len(sizes) - len(x)
    for index, size in enumerate(sizes):
        if size == 0 and ahead:
            sizes[index] = x[index - ahead] if index >= ahead else 1
    if ahead and sum(size == -1 for size in sizes) > 1:
        raise op.refused("a dimension that is kept is not known")
    return op.add("Reshape", op.ref("x"), op.whole(*sizes))


def _expand_dims(op: Op) -> str:
    return op.add("Unsqueeze", op.ref("x"), op.whole(*op.row("axes")))


def _squeeze(op: Op) -> str:
    """Leaves dimensions that are not 1, as PyTorch does."""
    shape = op.shape("x")
    axes = [axis % max(len(shape), 1) for axis in op.row("axes", [axis for axis, dim in enumerate(shape) if dim == 1])]
    axes = [axis for axis in axes if shape[axis] in (1, -1)]
    return op.add("Squeeze", op.ref("x"), op.whole(*axes)) if axes else op.add("Identity", op.ref("x"))


def _transpose(op: Op) -> str:
    rank = op.rank("x")
    return op.add("Transpose", op.ref("x"), perm=[axis % max(rank, 1) for axis in op.row("perm")]) if rank else op.add("Identity", op.ref("x"))


def _stacked(op: Op, names: Sequence[str], axis: int) -> str:
    return op.add("Concat", *(op.add("Unsqueeze", name, op.whole(axis)) for name in names), axis=axis)


def _concat(op: Op) -> str:
    # A scalar among them is a row of one.
    values = [(op.program.ref(value), value.type.shape) for value in op.values("values")]
    names = [op.add("Reshape", name, op.whole(1)) if shape == () else name for name, shape in values]
    shape = values[0][1] or (1,) if values[0][1] is not None else None
    axis = op.axis(rank=None if shape is None else len(shape)) if shape is not None else int(op.item("axis"))
    if not op.item("interleave", False):
        return op.add("Concat", *names, axis=axis)
    rest = (shape or ())[axis + 1 :]
    if shape is None or sum(dim == -1 for dim in rest) > 0:
        raise op.refused("interleaved tensors whose dimensions are not known")
    return op.add("Reshape", _stacked(op, names, axis + 1), op.whole(*([0] * axis), -1, *rest))


def _stack(op: Op) -> str:
    shape = op.values("values")[0].type.shape
    if shape is None:
        raise op.refused("tensors of any rank")
    return _stacked(op, op.refs("values"), op.axis(rank=len(shape) + 1))


def _split(op: Op) -> list[str]:
    count = len(op.outputs)
    if op.has("split_sizes"):
        sizes = op.whole(*op.row("split_sizes"))
        return op.many("Split", [op.ref("x"), sizes], count, axis=op.axis())
    return op.many("Split", [op.ref("x")], count, axis=op.axis(), num_outputs=count)


_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


def _pad(op: Op) -> str:
    """Pairs for the last dimensions, before and after each; ONNX has all before and then all after."""
    mode = op.item("mode", "constant")
    if mode not in _MODES:
        raise op.refused(f"mode '{str(mode)[:96]}'")
    value = op.maybe("constant_val") if mode == "constant" else ""
    rank = op.rank("x")
    if op.value("pad").elements is None:
        pairs = op.add("Reshape", op.wide("pad"), op.whole(-1, 2))
        return op.add("Pad", op.ref("x"), op.add("Reshape", op.add("Transpose", pairs, perm=[1, 0]), op.whole(-1)), value, mode=_MODES[mode])
    pads = op.row("pad")
    axes = op.whole(*range(rank - len(pads) // 2, rank))
    return op.add("Pad", op.ref("x"), op.whole(*pads[::2], *pads[1::2]), value, axes, mode=_MODES[mode])


def _tile(op: Op) -> str:
    return op.add("Tile", op.ref("x"), op.wide("reps"))


def _shape(op: Op) -> str:
    return op.cast(op.sizes(op.ref("x")), op.types[0].kind)


def _filled(op: Op, sizes: str) -> str:
    value = op.ref("value") if op.has("value") else op.const(0, op.types[0].kind)
    return op.add("Expand", value, sizes)


def _fill(op: Op) -> str:
    return _filled(op, op.wide("shape"))


def _fill_like(op: Op) -> str:
    return _filled(op, op.sizes(op.ref("ref_tensor")))


def _range(op: Op) -> str:
    return op.add("Range", op.ref("start"), op.ref("end"), op.ref("step"))


def _flatten(op: Op) -> str:
    return op.add("Flatten", op.ref("x"), axis=int(op.item("axis", 1)))


def _depth_to_space(op: Op) -> str:
    return op.add("DepthToSpace", op.ref("x"), blocksize=int(op.item("block_size")), mode="DCR")


def _pixel_shuffle(op: Op) -> str:
    return op.add("DepthToSpace", op.ref("x"), blocksize=int(op.item("upscale_factor")), mode="CRD")


def _space_to_depth(op: Op) -> str:
    return op.add("SpaceToDepth", op.ref("x"), blocksize=int(op.item("block_size")))


def _pixel_unshuffle(op: Op) -> str:
    by = int(op.item("downscale_factor"))
    channels, height, width = op.shape("x")[1:] if op.rank("x") == 4 else (-1, -1, -1)
    if by < 1 or -1 in (channels, height, width):
        raise op.refused("dimensions that are not known")
    parts = op.add("Reshape", op.ref("x"), op.whole(0, channels, height // by, by, width // by, by))
    moved = op.add("Transpose", parts, perm=[0, 1, 3, 5, 2, 4])
    return op.add("Reshape", moved, op.whole(0, channels * by * by, height // by, width // by))


def _reverse(op: Op) -> str:
    axes = op.row("axes", range(op.rank("x")))
    ends = [np.iinfo(np.int64).min] * len(axes)
    return op.add("Slice", op.ref("x"), op.whole(*[-1] * len(axes)), op.whole(*ends), op.whole(*axes), op.whole(*[-1] * len(axes)))


def _reverse_sequence(op: Op) -> str:
    """ONNX has time and batch among the first two dimensions."""
    along, batch = op.axis("seq_axis", 0), op.axis("batch_axis", 0)
    if along == batch:
        raise op.refused("seq_axis is batch_axis")
    order = [along, batch, *(axis for axis in range(op.rank("x")) if axis not in (along, batch))]
    moved = op.add("Transpose", op.ref("x"), perm=order)
    turned = op.add("ReverseSequence", moved, op.wide("lengths"), time_axis=0, batch_axis=1)
    return op.add("Transpose", turned, perm=[order.index(axis) for axis in range(len(order))])


def _band_part(op: Op) -> str:
    lower, upper = int(op.item("lower", -1)), int(op.item("upper", -1))
    answer, kind = op.ref("x"), op.kind_of("x")
    for keep, bound in ((0, upper), (1, -lower)):
        if bound * (1 - 2 * keep) >= 0:
            answer = op.add("Trilu", answer, op.whole(bound), upper=keep) if kind != "bool" else _banded(op, answer, keep, bound)
    return answer


def _banded(op: Op, name: str, keep: int, bound: int) -> str:
    return op.cast(op.add("Trilu", op.cast(name, "int64"), op.whole(bound), upper=keep), "bool")


def _one_hot(op: Op) -> str:
    """An index that is out of range is no element's; ONNX would count it from the end."""
    rank, kind = op.rank("indices"), op.types[0].kind
    axis = op.axis("axis", -1, rank + 1)
    size = op.wide("one_hot_vector_size")
    every = op.add("Range", op.graph.constant(np.array(0, np.int64)), op.add("Reshape", size, op.whole()), op.graph.constant(np.array(1, np.int64)))
    beside = op.add("Reshape", every, op.whole(-1, *[1] * (rank - axis)))
    found = op.add("Equal", op.add("Unsqueeze", op.wide("indices"), op.whole(axis)), beside)
    on, off = (op.ref(key) if op.has(key) else op.const(default, kind) for key, default in (("on_value", 1), ("off_value", 0)))
    return op.add("Where", found, on, off)


def _windows(op: Op) -> str:
    axis, size, stride = op.axis(), int(op.item("size")), int(op.item("stride", 1))
    whole = op.shape("x")[axis]
    if whole < size or size < 1 or stride < 1:
        raise op.refused("windows over a dimension that is not known")
    op.program.constants.reserve((whole - size + stride) // stride * size * 8)
    starts = np.arange(0, whole - size + 1, stride)
    return op.add("Gather", op.ref("x"), op.graph.constant(starts[:, None] + np.arange(size)), axis=axis)


TABLE: dict[str, Translate] = {
    **SLICES,
    "reshape": _reshape,
    "expand_dims": _expand_dims,
    "squeeze": _squeeze,
    "transpose": _transpose,
    "concat": _concat,
    "stack": _stack,
    "split": _split,
    "pad": _pad,
    "tile": _tile,
    "shape": _shape,
    "fill": _fill,
    "fill_like": _fill_like,
    "range_1d": _range,
    "flatten2d": _flatten,
    "depth_to_space": _depth_to_space,
    "space_to_depth": _space_to_depth,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "reverse": _reverse,
    "reverse_sequence": _reverse_sequence,
    "band_part": _band_part,
    "one_hot": _one_hot,
    "sliding_windows": _windows,
}
