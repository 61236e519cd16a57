"""Cases of operations that move, pick, sort, sum up or resize."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mil_truth as truth
import numpy as np
from mil_case import WHOLE, Array, P, X, case, noise, whole

from nnrp.testing.formats.coreml import Var

# Shapes


def _shapes() -> None:
    case("reshape", X.reshape(4, 6), {"x": X}, shape=[4, -1])
    case("reshape", X.reshape(2, 1, 12), {"x": X}, "kept", shape=[0, 1, 12], since=15)
    case("expand_dims", X[:, None, :, :, None], {"x": X}, axes=[1, -1])
    thin = noise(2, 1, 3, 1)
    case("squeeze", thin[:, 0], {"x": thin}, "one", axes=[1])
    case("squeeze", thin[:, 0, :, 0], {"x": thin}, "all")
    case("transpose", X.transpose(2, 0, 1), {"x": X}, perm=[-1, 0, 1])
    case("concat", np.concatenate([X, 2 * X], 1), {"a": X, "b": 2 * X}, values=(Var("a"), Var("b")), axis=-2)
    woven = np.stack([X, 2 * X], 2).reshape(2, 6, 4)
    case("concat", woven, {"a": X, "b": 2 * X}, "interleaved", values=(Var("a"), Var("b")), axis=1, interleave=True)
    case("stack", np.stack([X, 2 * X], -1), {"a": X, "b": 2 * X}, values=(Var("a"), Var("b")), axis=-1)
    case("split", (X[..., :2], X[..., 2:]), {"x": X}, "even", num_splits=2, axis=-1)
    case("split", (X[..., :1], X[..., 1:]), {"x": X}, "uneven", split_sizes=[1, 3], axis=-1)
    case("pad", truth.padded(X, [1, 0, 2, 3], 7), {"x": X}, "constant", pad=[1, 0, 2, 3], mode="constant", constant_val=7.0)
    pairs = ((0, 0), (1, 2), (2, 3))
    case("pad", np.pad(X, pairs, "reflect"), {"x": X}, "reflect", pad=[1, 2, 2, 3], mode="reflect")
    case("pad", np.pad(X, pairs, "edge"), {"x": X}, "replicate", pad=[1, 2, 2, 3], mode="replicate")
    case("tile", np.tile(X, (1, 2, 3)), {"x": X}, reps=[1, 2, 3])
    case("flatten2d", X.reshape(2, 12), {"x": X}, axis=1)
    case("flatten2d", X.reshape(6, 4), {"x": X}, "last", axis=-1)
    case("reverse", X[::-1, :, ::-1], {"x": X}, axes=[0, 2])
    rows = np.stack([np.concatenate([row[:n][::-1], row[n:]]) for row, n in zip(X, (2, 3), strict=True)])
    case("reverse_sequence", rows, {"x": X}, lengths=[2, 3], seq_axis=1, batch_axis=0)
    case("sliding_windows", np.stack([X[:, :, at : at + 2] for at in (0, 2)], 2), {"x": X}, axis=2, size=2, stride=2)


def _parts() -> None:
    square = noise(2, 5, 5)
    for lower, upper in ((0, -1), (-1, 0), (1, 2)):
        m, n = np.indices((5, 5))
        band = ((lower < 0) | (m - n <= lower)) & ((upper < 0) | (n - m <= upper))
        case("band_part", square * band, {"x": square}, f"{lower},{upper}", lower=lower, upper=upper)
    deep = noise(1, 8, 2, 3)
    parts = deep.reshape(1, 2, 2, 2, 2, 3).transpose(0, 3, 4, 1, 5, 2).reshape(1, 2, 4, 6)
    case("depth_to_space", parts, {"x": deep}, block_size=2)
    case("space_to_depth", deep, {"x": parts}, block_size=2)
    shuffled = deep.reshape(1, 2, 2, 2, 2, 3).transpose(0, 1, 4, 2, 5, 3).reshape(1, 2, 4, 6)
    case("pixel_shuffle", shuffled, {"x": deep}, upscale_factor=2)
    case("pixel_unshuffle", deep, {"x": shuffled}, downscale_factor=np.uint32(2))
    case("cumsum", np.cumsum(X, 1), {"x": X}, axis=1)
    back = np.cumsum(X[:, ::-1], 1)[:, ::-1] - X
    case("cumsum", back, {"x": X}, "exclusive-reverse", axis=1, exclusive=True, reverse=True)
    case("fill_like", np.full(X.shape, 3.0), {"ref_tensor": X}, value=3.0)


def _slices() -> None:
    case("slice_by_index", X[0:1, 1:3, ::2], {"x": X}, begin=[0, 1, 0], end=[1, 3, 4], stride=[1, 1, 2])
    masks = {"begin_mask": [True, False, False], "end_mask": [False, False, True]}
    case("slice_by_index", X[:1, -2:-1, 1:], {"x": X}, "masks", begin=[7, -2, 1], end=[1, -1, 0], stride=[1, 1, 1], **masks)
    squeezed = {"squeeze_mask": [False, True, True], "end_mask": [True, False, False]}
    case("slice_by_index", X[:, -1, 2], {"x": X}, "squeezed", begin=[0, -1, 2], end=[0, 0, 0], **squeezed)
    back = {"begin_mask": [True, True, True], "end_mask": [True, True, True]}
    case("slice_by_index", X[:, ::-1, ::-2], {"x": X}, "backwards", begin=[0, 0, 0], end=[0, 0, 0], stride=[1, -1, -2], **back)
    case("slice_by_size", X[1:2, 1:, 1:3], {"x": X}, begin=[1, 1, 1], size=[1, -1, 2])


# Indices


def _indices() -> None:
    at = np.array([[2, 0], [1, 1]], np.int32)
    case("gather", np.take(X, at, 1), {"x": X, "indices": at}, axis=1)
    case("gather", np.stack([row[:, places] for row, places in zip(X, at, strict=True)]), {"x": X, "indices": at}, "batch", axis=2, batch_dims=1)
    case("gather", np.stack([row[places] for row, places in zip(X, at, strict=True)]), {"x": X, "indices": at}, "batch-first", axis=1, batch_dims=1)
    along = whole(0, 3, 2, 2, 4)
    case("gather_along_axis", np.take_along_axis(X, along, 1), {"x": X, "indices": along}, axis=1)
    pairs = np.array([[0, 2], [1, 1], [1, 0]], np.int32)
    case("gather_nd", X[tuple(pairs.T)], {"x": X, "indices": pairs})
    ones = np.array([[[1], [0]], [[2], [2]]], np.int32)
    case("gather_nd", np.stack([X[0, [1, 0]], X[1, [2, 2]]]), {"x": X, "indices": ones}, "batch", batch_dims=1)
    updates, rows = noise(2, 2, 4), np.array([2, 0], np.int32)
    for mode in ("update", "add", "sub", "mul", "div", "max", "min"):
        wanted = X.copy()
        for place, row in enumerate(rows):
            wanted[:, row] = _put(mode, wanted[:, row], updates[:, place])
        case("scatter", wanted, {"data": X, "indices": rows, "updates": updates}, mode, axis=1, mode=mode)
    places = np.array([[[2, 1, 0, 1], [0, 0, 1, 2]]] * 2, np.int32)
    wanted = X.copy()
    np.put_along_axis(wanted, places, updates, 1)
    case("scatter_along_axis", wanted, {"data": X, "indices": places, "updates": updates}, axis=1, mode="update")
    wanted, new = X.copy(), noise(3, 4)
    np.add.at(wanted, tuple(pairs.T), new)
    case("scatter_nd", wanted, {"data": X, "indices": pairs, "updates": new}, mode="add")


def _put(mode: str, old: Array, new: Array) -> Any:
    ways: dict[str, Callable[..., Any]] = {"update": lambda _, b: b, "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}
    return (ways | {"max": np.maximum, "min": np.minimum})[mode](old, new)


def _sorts() -> None:
    order = np.argsort(-X, axis=-1, kind="stable").astype(np.int32)
    top = np.take_along_axis(X, order[..., :2], -1)
    case("topk", (top, order[..., :2]), {"x": X}, k=2, axis=-1)
    up = np.argsort(X, axis=1, kind="stable").astype(np.int32)[:, :2]
    case("topk", (np.take_along_axis(X, up, 1), up), {"x": X}, "ascending", k=2, axis=1, ascending=True)
    case("argsort", order, {"x": X}, axis=-1)
    case("argsort", np.argsort(X, axis=0).astype(np.int32), {"x": X}, "ascending", axis=0, ascending=True)
    case("reduce_argmax", X.argmax(1).astype(np.int32), {"x": X}, axis=1)
    case("reduce_argmin", X.argmin(-1, keepdims=True).astype(np.int32), {"x": X}, axis=-1, keep_dims=True)
    some = np.where(X > 0.5, X, 0).astype(np.float32)
    case("non_zero", np.argwhere(some).astype(np.int32), {"x": some})
    at = np.array([[2, 0], [1, 3]], np.int32)
    hot = (at[..., None] == np.arange(4)).astype(np.int32)
    case("one_hot", 5 * hot - 1, {"indices": at}, one_hot_vector_size=4, on_value=4, off_value=-1)
    case("one_hot", np.moveaxis(hot, -1, 1), {"indices": at}, "axis", one_hot_vector_size=4, axis=1)


def _reductions() -> None:
    x = X.astype(np.float64)
    kinds: dict[str, Callable[..., Any]] = {
        "l1_norm": lambda x, **k: np.abs(x).sum(**k),
        "l2_norm": lambda x, **k: np.sqrt((x**2).sum(**k)),
        "log_sum": lambda x, **k: np.log(x.sum(**k)),
        "log_sum_exp": lambda x, **k: np.log(np.exp(x).sum(**k)),
        "max": np.max,
        "mean": np.mean,
        "min": np.min,
        "prod": np.prod,
        "sum": np.sum,
        "sum_square": lambda x, **k: (x**2).sum(**k),
    }
    for kind, function in kinds.items():
        source = P.astype(np.float64) if kind == "log_sum" else x
        case(f"reduce_{kind}", function(source, axis=(0, 2)), {"x": source}, axes=[0, -1])
        case(f"reduce_{kind}", function(source, axis=1, keepdims=True), {"x": source}, "kept", axes=[1], keep_dims=True)
    case("reduce_sum", WHOLE.sum(1).astype(np.int32), {"x": WHOLE}, "int32", axes=[1])


# Images


def _images() -> None:
    x = noise(1, 2, 4, 5)
    case("upsample_nearest_neighbor", x.repeat(2, 2).repeat(3, 3), {"x": x}, scale_factor_height=2, scale_factor_width=3)
    case("resize_nearest_neighbor", truth.nearest(x, 7, 3), {"x": x}, target_size_height=7, target_size_width=3)
    for align in (True, False):
        how = "STRICT_ALIGN_CORNERS" if align else "UNALIGN_CORNERS"
        case("upsample_bilinear", truth.bilinear(x, 8, 15, how), {"x": x}, how, scale_factor_height=2, scale_factor_width=3, align_corners=align)
    case(
        "upsample_bilinear",
        truth.bilinear(x, 8, 15, "DEFAULT"),
        {"x": x},
        "asymmetric",
        scale_factor_height=2,
        scale_factor_width=3,
        align_corners=False,
        half_pixel_centers=False,
    )
    for how in ("DEFAULT", "STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "UNALIGN_CORNERS"):
        told = {"target_size_height": 7, "target_size_width": 3, "sampling_mode": how}
        case("resize_bilinear", truth.bilinear(x, 7, 3, how), {"x": x}, how, **told)
        told = {"shape": [7, 3], "resized_dims": np.uint32(2), "interpolation_mode": "LINEAR", "sampling_mode": how}
        case("resize", truth.bilinear(x[0], 7, 3, how), {"x": x[0]}, how, **told)
    told = {"shape": [1, 0, 10], "resized_dims": np.uint32(2), "interpolation_mode": "NEAREST_NEIGHBOR", "sampling_mode": "DEFAULT"}
    case("resize", truth.nearest(x, 4, 10), {"x": x}, "nearest", **told)
    case("crop", x[:, :, 1:-1, 0:-2], {"x": x}, crop_height=[1, 1], crop_width=[0, 2])
    places = np.array([[[[0.5, 0], [1, 2.5]], [[4, 3], [2.25, 1.5]]]], np.float32)
    wanted = np.empty((1, 2, 2, 2))
    for i, j in np.ndindex(2, 2):
        across, down = places[0, i, j]
        left, top = int(across), int(down)
        right, below = min(left + 1, 4), min(top + 1, 3)
        over, under = (x[0, :, row, left] * (1 - across + left) + x[0, :, row, right] * (across - left) for row in (top, below))
        wanted[0, :, i, j] = over * (1 - down + top) + under * (down - top)
    common: dict[str, Any] = {"sampling_mode": "bilinear", "padding_mode": "border", "padding_value": 0.0, "align_corners": True}
    case("resample", wanted, {"x": x, "coordinates": places}, coordinates_mode="unnormalized", **common)
    unit = places / np.array([4, 3], np.float32)
    case("resample", wanted, {"x": x, "coordinates": unit}, "zero-one", coordinates_mode="normalized_zero_to_one", **common)
    case("resample", wanted, {"x": x, "coordinates": 2 * unit - 1}, "minus-one", coordinates_mode="normalized_minus_one_to_one", **common)


def add() -> None:
    """Add them all."""
    for some in (_shapes, _parts, _slices, _indices, _sorts, _reductions, _images):
        some()
