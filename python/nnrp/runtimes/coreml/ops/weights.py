"""Packed weights, unpacked once when the model is loaded."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from nnrp.runtimes.coreml.package import bad
from nnrp.runtimes.coreml.program import Op, Translate
from nnrp.runtimes.coreml.value import TYPES, unpack

Array: TypeAlias = np.ndarray[Any, Any]


def _const(op: Op) -> Array:
    found: Array = op.elements("val")
    return found


def _reserved(op: Op, shape: tuple[int, ...], kind: Any) -> None:
    op.program.constants.reserve(math.prod(shape) * np.dtype(kind).itemsize)


def _fits(op: Op, small: tuple[int, ...], shape: tuple[int, ...]) -> list[int]:
    """How many elements of each dimension share one of the small tensor's."""
    if len(small) != len(shape) or any(one < 1 or dim % one for one, dim in zip(small, shape, strict=True)):
        raise bad(f"{op.where}: blocks of {list(small)} do not fit {list(shape)}")
    return [dim // one for one, dim in zip(small, shape, strict=True)]


def _spread(op: Op, small: Array, shape: tuple[int, ...]) -> Array:
    """Repeat each element for its block."""
    for axis, times in enumerate(_fits(op, small.shape, shape)):
        small = np.repeat(small, times, axis) if times > 1 and small.shape[axis] > 1 else small
    return np.broadcast_to(small, shape)


def _affine(op: Op) -> Array:
    data, scale, zero = (op.elements(key) for key in ("quantized_data", "scale", "zero_point"))
    _reserved(op, data.shape, scale.dtype)
    shape = [1] * data.ndim
    shape[op.axis("axis", rank=data.ndim)] = -1
    scale, zero = (one.reshape(shape) if one.ndim else one for one in (scale, zero))
    return _linear(op, data, scale, zero)


def _linear(op: Op, data: Array, scale: Array, offset: Array | None) -> Array:
    """`scale * (data - offset)`, computed in FP32 and kept in the scale's type."""
    try:
        whole = data.astype(np.float32) if offset is None else data.astype(np.float32) - offset.astype(np.float32)
        answer: Array = (scale.astype(np.float32) * whole).astype(scale.dtype)
    except ValueError as error:
        raise bad(f"{op.where}: scale and offset do not fit {list(data.shape)}") from error
    return answer


def _blockwise(op: Op) -> Array:
    data, scale = op.elements("data"), op.elements("scale")
    _reserved(op, data.shape, scale.dtype)
    offset = _spread(op, op.elements("offset"), data.shape) if op.has("offset") else None
    return _linear(op, data, _spread(op, scale, data.shape), offset)


def _sizes(op: Op) -> tuple[int, ...]:
    shape = tuple(op.row("shape"))
    if any(dim < 0 for dim in shape):
        raise bad(f"{op.where}: expected a shape, got {list(shape)}")
    return shape


def _table_to_dense(op: Op) -> Array:
    """Look indices up: of one table and packed in bytes (iOS 16), or of a table for each block (iOS 18)."""
    indices, table = op.elements("indices"), op.elements("lut")
    if not op.has("shape"):
        return _looked_up(op, indices, table)
    shape, bits = _sizes(op), (table.size - 1).bit_length()
    count = math.prod(shape)
    if table.ndim != 1 or table.size != 1 << bits or not 1 <= bits <= 8 or indices.size < (count * bits + 7) // 8:
        raise bad(f"{op.where}: a table of {table.size} and {indices.size} bytes of indices do not fit {list(shape)}")
    _reserved(op, shape, table.dtype)
    found: Array = table[unpack(indices.astype(np.uint8).tobytes(), bits, False, count)].reshape(shape)
    return found


def _looked_up(op: Op, indices: Array, table: Array) -> Array:
    """Vectors lie along an axis, one after the other."""
    if table.ndim != indices.ndim + 2 or (indices.size and indices.max() >= table.shape[-2]):
        raise bad(f"{op.where}: a table of {list(table.shape)} does not fit indices of {list(indices.shape)}")
    size = table.shape[-1]
    axis = op.axis("vector_axis", 0 if size == 1 else -1, indices.ndim) if indices.ndim else 0
    _reserved(op, (*indices.shape, size), table.dtype)
    blocks = _fits(op, table.shape[:-2], indices.shape)
    places = np.ix_(*(np.arange(dim) // block for dim, block in zip(indices.shape, blocks, strict=True))) if indices.ndim else ()
    vectors = np.moveaxis(table[(*places, indices)], -1, axis + 1) if indices.ndim else table[indices]
    shape = [dim * (size if at == axis else 1) for at, dim in enumerate(indices.shape)]
    found: Array = vectors.reshape(shape)
    return found


def _filled(op: Op, mask: Array, values: Array, kind: Any) -> Array:
    """Put values where the mask is set, zero elsewhere."""
    if np.count_nonzero(mask) != values.size:
        raise bad(f"{op.where}: expected {np.count_nonzero(mask)} elements for the mask, got {values.size}")
    dense = np.zeros(mask.shape, kind)
    dense[mask != 0] = values.reshape(-1)
    return dense


def _sparse_to_dense(op: Op) -> Array:
    values, mask = op.elements("nonzero_data"), op.elements("mask")
    if op.has("shape"):
        shape = _sizes(op)
        count = math.prod(shape)
        if mask.size < (count + 7) // 8:
            raise bad(f"{op.where}: a mask of {mask.size} bytes does not fit {list(shape)}")
        op.program.constants.reserve(count)
        mask = unpack(mask.astype(np.uint8).tobytes(), 1, False, count).reshape(shape)
    _reserved(op, mask.shape, values.dtype)
    return _filled(op, mask, values, values.dtype)


def _table_to_sparse(op: Op) -> tuple[Array, Array]:
    mask, table = op.elements("indices_mask"), op.elements("lut")
    dense = _looked_up(op, _filled(op, mask, op.elements("indices_nonzero_data"), np.uint8), table)
    for axis, (dim, whole) in enumerate(zip(mask.shape, dense.shape, strict=True)):
        mask = np.repeat(mask, whole // dim, axis) if whole != dim else mask
    return mask, dense[mask != 0]


def _sparse_blockwise(op: Op) -> tuple[Array, Array]:
    mask, values, scale = (op.elements(key) for key in ("data_mask", "nonzero_data", "scale"))
    _reserved(op, mask.shape, scale.dtype)
    offset = _spread(op, op.elements("offset"), mask.shape) if op.has("offset") else None
    dense = _linear(op, _filled(op, mask, values, values.dtype), _spread(op, scale, mask.shape), offset)
    return mask, dense[mask != 0]


def _cast(op: Op) -> Array:
    source, kind = op.elements("source_val"), op.item("output_dtype")
    if kind not in TYPES:
        raise op.refused(f"output_dtype '{str(kind)[:96]}'")
    _reserved(op, source.shape, TYPES[kind][0])
    found: Array = source.astype(TYPES[kind][0])
    return found


_ALL: dict[str, Callable[[Op], Any]] = {
    "const": _const,
    "constexpr_affine_dequantize": _affine,
    "constexpr_blockwise_shift_scale": _blockwise,
    "constexpr_cast": _cast,
    "constexpr_lut_to_dense": _table_to_dense,
    "constexpr_lut_to_sparse": _table_to_sparse,
    "constexpr_sparse_blockwise_shift_scale": _sparse_blockwise,
    "constexpr_sparse_to_dense": _sparse_to_dense,
}
TABLE: dict[str, Translate] = dict(_ALL)
