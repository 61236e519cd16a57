"""What operations of Core ML give, in NumPy, by the letter of their documentation and without haste."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def padded(x: Array, pads: Sequence[int], value: float = 0) -> Array:
    """Pairs of padding for the last dimensions."""
    pairs = [(0, 0)] * (x.ndim - len(pads) // 2) + list(zip(pads[::2], pads[1::2], strict=True))
    return np.pad(x, pairs, constant_values=value)


def same(space: Sequence[int], reach: Sequence[int], strides: Sequence[int], lower: bool = False) -> list[int]:
    """The padding that gives ceil(size / stride), as TensorFlow splits it."""
    pads = []
    for size, far, stride in zip(space, reach, strides, strict=True):
        total = max(0, (math.ceil(size / stride) - 1) * stride + far - size)
        pads += [total - total // 2, total // 2] if lower else [total // 2, total - total // 2]
    return pads


def windows(x: Array, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Array:
    """Every window of the padded `x` [n, c, …]: [n, c, windows …, kernel …]."""
    counts = [(size - (k - 1) * d - 1) // s + 1 for size, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True)]
    out = np.empty((*x.shape[:2], *counts, *kernel), x.dtype)
    for at in itertools.product(*map(range, counts)):
        place = tuple(slice(i * s, i * s + (k - 1) * d + 1, d) for i, s, k, d in zip(at, strides, kernel, dilations, strict=True))
        out[(slice(None), slice(None), *at)] = x[(slice(None), slice(None), *place)]
    return out


def conv(x: Array, w: Array, pads: Sequence[int], strides: Sequence[int], dilations: Sequence[int], groups: int = 1, bias: Array | None = None) -> Array:
    """A convolution."""
    rank = x.ndim - 2
    parts = []
    for xs, ws in zip(np.split(padded(x, pads), groups, 1), np.split(w, groups), strict=True):
        seen = windows(xs, w.shape[2:], strides, dilations)
        parts.append(np.tensordot(seen, ws, ([1, *range(2 + rank, 2 + 2 * rank)], [1, *range(2, 2 + rank)])))
    answer = np.moveaxis(np.concatenate(parts, -1), -1, 1)
    return answer if bias is None else answer + bias.reshape(-1, *[1] * rank)


def conv_transpose(x: Array, w: Array, pads: Sequence[int], strides: Sequence[int], groups: int = 1, further: Sequence[int] = ()) -> Array:
    """Every element of `x` puts a kernel into the answer, of which the padding is cut off; w: [c_in, c_out / groups, …]."""
    rank = x.ndim - 2
    per = w.shape[1]
    sizes = [(d - 1) * s + k + f for d, s, k, f in zip(x.shape[2:], strides, w.shape[2:], further or [0] * rank, strict=True)]
    out = np.zeros((x.shape[0], per * groups, *sizes), np.float64)
    for at in itertools.product(*map(range, x.shape[2:])):
        place = tuple(slice(i * s, i * s + k) for i, s, k in zip(at, strides, w.shape[2:], strict=True))
        for group, (xs, ws) in enumerate(zip(np.split(x, groups, 1), np.split(w, groups), strict=True)):
            out[(slice(None), slice(group * per, (group + 1) * per), *place)] += np.tensordot(xs[(slice(None), slice(None), *at)], ws, (1, 0))
    cut = tuple(slice(before, size - after) for before, after, size in zip(pads[::2], pads[1::2], sizes, strict=True))
    return out[(slice(None), slice(None), *cut)].astype(x.dtype)


def pool(x: Array, kind: str, kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int], ceil: bool = False, counted: bool = True) -> Array:
    """A pool, as PyTorch has it; `counted`: padding counts in a mean."""
    rank = x.ndim - 2
    counts = []
    for size, k, s, before, after in zip(x.shape[2:], kernel, strides, pads[::2], pads[1::2], strict=True):
        room = size + before + after - k
        count = (math.ceil(room / s) if ceil else room // s) + 1
        counts.append(count - (ceil and (count - 1) * s >= size + before and before + after > 0))
    out = np.empty((*x.shape[:2], *counts), np.float64)
    for at in itertools.product(*map(range, counts)):
        starts = [i * s - before for i, s, before in zip(at, strides, pads[::2], strict=True)]
        ends = [min(start + k, size + after) for start, k, size, after in zip(starts, kernel, x.shape[2:], pads[1::2], strict=True)]
        place = tuple(slice(max(0, start), min(end, size)) for start, end, size in zip(starts, ends, x.shape[2:], strict=True))
        seen = x[(slice(None), slice(None), *place)].astype(np.float64)
        axes = tuple(range(2, 2 + rank))
        if kind == "max":
            got = seen.max(axes)
        elif kind == "l2":
            got = np.sqrt((seen**2).sum(axes))
        else:
            whole = math.prod(end - start for start, end in zip(starts, ends, strict=True))
            got = seen.sum(axes) / (whole if counted else math.prod(seen.shape[2:]))
        out[(slice(None), slice(None), *at)] = got
    return out.astype(x.dtype)


def lines(x: Array, size: int, axis: int, how: str) -> Array:
    """Linear interpolation along an axis, with the samples where Core ML's documentation puts them."""
    count = x.shape[axis]
    at = np.arange(size, dtype=np.float64)
    if how in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        points = at * ((count - 1) / (size - 1) if size > 1 else 0)
    elif how == "DEFAULT":
        points = at * ((count - count / size) / (size - 1) if size > 1 else 0)
    else:
        points = (at + 0.5) * count / size - 0.5
    points = np.clip(points, 0, count - 1)
    low = np.floor(points).astype(int)
    high = np.minimum(low + 1, count - 1)
    part = (points - low).reshape([-1 if one == axis % x.ndim else 1 for one in range(x.ndim)])
    return (np.take(x, low, axis) * (1 - part) + np.take(x, high, axis) * part).astype(x.dtype)


def bilinear(x: Array, height: int, width: int, how: str) -> Array:
    return lines(lines(x, height, -2, how), width, -1, how)


def nearest(x: Array, height: int, width: int) -> Array:
    rows, columns = (np.floor(np.arange(size) * count / size).astype(int) for size, count in ((height, x.shape[-2]), (width, x.shape[-1])))
    return x[..., rows[:, None], columns]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def lstm(x: Array, h: Array, c: Array, wi: Array, wh: Array, b: Array, reverse: bool = False) -> tuple[Array, Array, Array]:
    """One direction: every step, the last state and the last cell; the gates are input, forget, output, cell."""
    steps = []
    for at in x[::-1] if reverse else x:
        i, f, o, z = np.split(at @ wi.T + h @ wh.T + b, 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(z)
        h = sigmoid(o) * np.tanh(c)
        steps.append(h)
    return np.stack(steps[::-1] if reverse else steps), h, c


def gru(x: Array, h: Array, wi: Array, wh: Array, b: Array) -> tuple[Array, Array]:
    """The gates are reset, new, update."""
    size, steps = h.shape[-1], []
    for at in x:
        i, s = at @ wi.T + b, h @ wh.T
        r, z = sigmoid(i[:, :size] + s[:, :size]), sigmoid(i[:, 2 * size :] + s[:, 2 * size :])
        o = np.tanh(i[:, size : 2 * size] + r * s[:, size : 2 * size])
        h = (1 - z) * o + z * h
        steps.append(h)
    return np.stack(steps), h


def rnn(x: Array, h: Array, wi: Array, wh: Array, b: Array) -> tuple[Array, Array]:
    steps = []
    for at in x:
        h = np.tanh(at @ wi.T + h @ wh.T + b)
        steps.append(h)
    return np.stack(steps), h
