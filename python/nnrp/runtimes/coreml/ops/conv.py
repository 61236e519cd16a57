"""Convolutions and pools, whose paddings are pairs, one for each dimension of space."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from nnrp.runtimes.coreml.program import Op, Translate


@dataclass
class Window:
    """What slides over space: kernel (with its dilation), stride, and padding before and after, in each dimension.

    Attributes:
        auto: ONNX's word for a padding that depends on sizes nobody knows; None where it is known.
    """

    space: list[int]
    reach: list[int]
    strides: list[int]
    before: list[int]
    after: list[int]
    auto: str | None = None

    @property
    def pads(self) -> list[int] | None:
        return None if self.auto else [*self.before, *self.after]


def _row(op: Op, key: str, count: int, default: int) -> list[int]:
    found = op.row(key, [default] * count)
    if len(found) != count:
        raise op.refused(f"'{key}': expected {count} numbers, got {len(found)}")
    return found


def _window(op: Op, kernel: list[int], dilations: list[int]) -> Window:
    """Read how it slides: as much padding as TensorFlow has with `same`, the odd one after, or before with `same_lower`."""
    space = list(op.shape("x")[2:])
    count, kind = len(space), op.item("pad_type", "valid")
    strides = _row(op, "strides", count, 1)
    if not count or len(kernel) != count or min(strides) < 1 or min(kernel) < 1 or min(dilations) < 1:
        raise op.refused(f"a kernel {kernel}, strides {strides} over {count} dimensions of space")
    reach = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    window = Window(space, reach, strides, [0] * count, [0] * count)
    if kind == "custom":
        pad = _row(op, "pad", 2 * count, 0)
        window.before, window.after = pad[::2], pad[1::2]
    elif kind in ("same", "same_lower"):
        if -1 in space:
            window.auto = "SAME_UPPER" if kind == "same" else "SAME_LOWER"
            return window
        for axis, (size, far, stride) in enumerate(zip(space, reach, strides, strict=True)):
            total = max(0, (math.ceil(size / stride) - 1) * stride + far - size)
            less, more = total // 2, total - total // 2
            window.before[axis], window.after[axis] = (less, more) if kind == "same" else (more, less)
    elif kind != "valid":
        raise op.refused(f"pad_type '{str(kind)[:96]}'")
    return window


def _conv(op: Op) -> str:
    kernel = list(op.shape("weight")[2:])
    dilations = _row(op, "dilations", len(kernel), 1)
    window = _window(op, kernel, dilations)
    return op.add(
        "Conv",
        op.ref("x"),
        op.ref("weight"),
        *([op.ref("bias")] if op.has("bias") else []),
        kernel_shape=kernel,
        strides=window.strides,
        dilations=dilations,
        group=int(op.item("groups", 1)),
        pads=window.pads,
        auto_pad=window.auto,
    )


def _conv_transpose(op: Op) -> str:
    kernel = list(op.shape("weight")[2:])
    dilations = _row(op, "dilations", len(kernel), 1)
    kind, space = op.item("pad_type", "valid"), op.shape("x")[2:]
    strides = _row(op, "strides", len(kernel), 1)
    reach = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    pad = _row(op, "pad", 2 * len(kernel), 0) if kind == "custom" else [0] * (2 * len(kernel))
    before, after, further = pad[::2], pad[1::2], [0] * len(kernel)
    if op.has("output_shape") or kind == "same":
        if kind == "same" and not op.has("output_shape"):
            totals = [far - stride for far, stride in zip(reach, strides, strict=True)]
        elif -1 in space or len(space) != len(kernel):
            raise op.refused("output_shape for sizes that are not known")
        else:
            wanted = op.row("output_shape")[-len(kernel) :]
            totals = [(size - 1) * stride + far - out for size, stride, far, out in zip(space, strides, reach, wanted, strict=True)]
        before = [max(0, total) // 2 for total in totals] if kind == "same" else before
        rest = [total - one for total, one in zip(totals, before, strict=True)]
        after, further = [max(0, one) for one in rest], [max(0, -one) for one in rest]
    return op.add(
        "ConvTranspose",
        op.ref("x"),
        op.ref("weight"),
        *([op.ref("bias")] if op.has("bias") else []),
        kernel_shape=kernel,
        strides=strides,
        dilations=dilations,
        group=int(op.item("groups", 1)),
        pads=[*before, *after],
        output_padding=further if any(further) else None,
    )


def _rounded_up(op: Op, window: Window) -> list[int]:
    """How much further a window that rounds up reaches, after the padding; the last one starts in the tensor or before it."""
    if -1 in window.space:
        raise op.refused("ceil_mode over sizes that are not known")
    extra = []
    for size, far, stride, before, after in zip(window.space, window.reach, window.strides, window.before, window.after, strict=True):
        padded = size + before + after
        count = (padded - far + stride - 1) // stride + 1
        count -= (count - 1) * stride >= size + before and before + after > 0
        extra.append(max(0, (count - 1) * stride + far - padded))
    return extra


def _padded(op: Op, window: Window, value: float) -> str:
    """The input with its padding, as elements of its own."""
    pads = op.whole(0, 0, *window.before, 0, 0, *window.after)
    window.before, window.after = [0] * len(window.before), [0] * len(window.after)
    return op.add("Pad", op.ref("x"), pads, op.like(value))


def _pool(kind: str, op: Op) -> str:
    kernel = op.row("kernel_sizes")
    window = _window(op, kernel, [1] * len(kernel))
    extra = _rounded_up(op, window) if op.item("ceil_mode", False) else [0] * len(kernel)
    counted = kind == "AveragePool" and not op.item("exclude_padding_from_average", False)
    x = op.ref("x")
    if any(extra):
        # What is beyond the padding counts for nothing, the padding for zeros: only one of them can be the pool's own.
        far = any(before >= size or after + more >= size for before, after, more, size in zip(window.before, window.after, extra, kernel, strict=True))
        if counted or far:
            x, counted = _padded(op, window, 0.0 if kind != "MaxPool" else float("-inf")), False
        if any(more >= size for more, size in zip(extra, kernel, strict=True)):
            raise op.refused("ceil_mode with windows beyond the tensor")
        window.after = [after + more for after, more in zip(window.after, extra, strict=True)]
    return op.add(
        kind,
        x,
        kernel_shape=kernel,
        strides=window.strides,
        pads=window.pads,
        auto_pad=window.auto,
        count_include_pad=int(counted) if kind == "AveragePool" else None,
        p=2 if kind == "LpPool" else None,
    )


TABLE: dict[str, Translate] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "avg_pool": partial(_pool, "AveragePool"),
    "max_pool": partial(_pool, "MaxPool"),
    "l2_pool": partial(_pool, "LpPool"),
}
