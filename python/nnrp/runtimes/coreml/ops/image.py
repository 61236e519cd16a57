"""Resizes and samples of images, where ONNX computes the same; the rest is refused."""

from __future__ import annotations

import math

import numpy as np

from nnrp.runtimes.coreml.program import Op, Translate
from nnrp.runtimes.coreml.value import TYPES

#: How Core ML places its samples → ONNX's word.
_SAMPLES = {"DEFAULT": "asymmetric", "STRICT_ALIGN_CORNERS": "align_corners", "ALIGN_CORNERS": "align_corners", "UNALIGN_CORNERS": "half_pixel"}


def _resized(op: Op, mode: str, where: str, sizes: list[int]) -> str:
    """The last two dimensions at other sizes. Linear ones go through four dimensions, the only number that ONNX Runtime has them for."""
    rank = op.rank("x")
    if rank < 2:
        raise op.refused(f"a tensor of rank {rank}")
    x = op.ref("x")
    if mode == "linear" and rank != 4:
        x = op.add("Reshape", x, op.add("Concat", op.whole(1, -1), op.add("Slice", op.sizes(x), op.whole(-2), op.whole(rank)), axis=0))
    whole = op.sizes(x)
    wanted = op.add("Concat", op.add("Slice", whole, op.whole(0), op.whole(-2)), op.whole(*sizes), axis=0)
    answer = op.add("Resize", x, "", "", wanted, mode=mode, coordinate_transformation_mode=where, nearest_mode="floor" if mode == "nearest" else None)
    if mode == "linear" and rank != 4:
        ahead = op.add("Slice", op.sizes(op.ref("x")), op.whole(0), op.whole(-2))
        return op.add("Reshape", answer, op.add("Concat", ahead, op.whole(*sizes), axis=0))
    return answer


def _sizes(op: Op, mode: str) -> list[int]:
    """What the sizes are, once they are multiplied."""
    found = []
    for side, dim in zip(("height", "width"), op.shape("x")[-2:], strict=False):
        if dim < 0:
            raise op.refused("sizes that are not known")
        found.append(math.floor(dim * op.item(f"scale_factor_{side}", 1) + 1e-6))
    return found


def _upsample_nearest(op: Op) -> str:
    return _resized(op, "nearest", "asymmetric", _sizes(op, "nearest"))


def _targets(op: Op) -> list[int]:
    return [int(op.item(f"target_size_{side}", 1)) for side in ("height", "width")]


def _resize_nearest(op: Op) -> str:
    return _resized(op, "nearest", "asymmetric", _targets(op))


def _upsample_bilinear(op: Op) -> str:
    align = bool(op.item("align_corners", True))
    half = bool(op.item("half_pixel_centers", not align))
    if align and half:
        raise op.refused("align_corners with half_pixel_centers")
    return _resized(op, "linear", "align_corners" if align else "half_pixel" if half else "asymmetric", _sizes(op, "linear"))


def _placed(op: Op, sizes: list[int]) -> str:
    mode = op.item("sampling_mode", "DEFAULT")
    if mode not in _SAMPLES or (mode == "ALIGN_CORNERS" and 1 in sizes):
        raise op.refused(f"sampling_mode '{str(mode)[:96]}'")
    return _SAMPLES[mode]


def _resize_bilinear(op: Op) -> str:
    sizes = _targets(op)
    return _resized(op, "linear", _placed(op, sizes), sizes)


def _resize(op: Op) -> str:
    """The last dimensions; a size of zero leaves one as it is."""
    count, wanted, shape = int(op.item("resized_dims")), op.row("shape"), op.shape("x")
    if not 1 <= count <= 2 or count > len(wanted) or len(shape) < 2:
        raise op.refused(f"resized_dims {count}")
    sizes = [size or dim for size, dim in zip(wanted[-count:], shape[-count:], strict=True)]
    sizes = [shape[-2], *sizes] if count == 1 else sizes
    if min(sizes) < 1:
        raise op.refused("sizes that are not known")
    mode = op.item("interpolation_mode", "LINEAR")
    where = _placed(op, sizes)
    if mode not in ("LINEAR", "NEAREST_NEIGHBOR") or (mode != "LINEAR" and where != "asymmetric") or op.kind_of("x") == "int32":
        raise op.refused(f"interpolation_mode '{str(mode)[:96]}' of {op.kind_of('x')}, placed {where}")
    return _resized(op, "linear" if mode == "LINEAR" else "nearest", where, sizes)


def _crop(op: Op) -> str:
    cuts = [op.row(f"crop_{side}") for side in ("height", "width")]
    if any(len(cut) != 2 for cut in cuts):
        raise op.refused("crops that are no pairs")
    ends = [-cut[1] if cut[1] else np.iinfo(np.int64).max for cut in cuts]
    return op.add("Slice", op.ref("x"), op.whole(*(cut[0] for cut in cuts)), op.whole(*ends), op.whole(-2, -1))


def _resample(op: Op) -> str:
    """Coordinates go from -1 to 1 in ONNX."""
    align, mode, padding = bool(op.item("align_corners")), op.item("sampling_mode"), op.item("padding_mode")
    modes = {"bilinear": "linear", "nearest": "nearest"}
    paddings = {"constant": "zeros", "border": "border", "reflection" if align else "symmetric": "reflection"}
    height, width = op.shape("x")[-2:]
    kind, axis = op.kind_of("x"), op.item("coordinates_mode")
    grid = op.ref("coordinates") if op.kind_of("coordinates") == kind else op.cast(op.ref("coordinates"), kind)
    if mode not in modes or padding not in paddings or kind not in TYPES or (padding == "constant" and op.item("padding_value", 0)):
        raise op.refused(f"sampling_mode '{str(mode)[:96]}', padding_mode '{str(padding)[:96]}', or a padding_value")
    if axis == "unnormalized" and min(height, width) > 1:
        align = True
        grid = op.add("Sub", op.add("Mul", grid, op.const([2 / (width - 1), 2 / (height - 1)], kind)), op.const(1, kind))
        if padding == "symmetric":
            raise op.refused("padding_mode 'symmetric' of unnormalized coordinates")
    elif axis == "normalized_zero_to_one":
        grid = op.add("Sub", op.add("Mul", grid, op.const(2, kind)), op.const(1, kind))
    elif axis != "normalized_minus_one_to_one":
        raise op.refused(f"coordinates_mode '{str(axis)[:96]}'")
    return op.add("GridSample", op.ref("x"), grid, align_corners=align, mode=modes[mode], padding_mode=paddings[padding])


TABLE: dict[str, Translate] = {
    "upsample_nearest_neighbor": _upsample_nearest,
    "resize_nearest_neighbor": _resize_nearest,
    "upsample_bilinear": _upsample_bilinear,
    "resize_bilinear": _resize_bilinear,
    "resize": _resize,
    "crop": _crop,
    "resample": _resample,
}
