"""The slow side of inputs and outputs: types that NumPy lacks, strings, lists, and arrays that do not lie in order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nnrp._nnrp import Tensor
from nnrp.errors import DatatypeMismatch, NotOffered, ShapeMismatch, ValueOutOfRange

#: Datatype → NumPy's name for it, or the name that the package ml_dtypes gives it.
NAMES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BF16": "ml_dtypes.bfloat16",
    "BYTES": "object",
    "FP8_E4M3": "ml_dtypes.float8_e4m3fn",
    "FP8_E5M2": "ml_dtypes.float8_e5m2",
    "INT4": "ml_dtypes.int4",
    "UINT4": "ml_dtypes.uint4",
}
_FOREIGN = {name.partition(".")[2]: datatype for datatype, name in NAMES.items() if "." in name}
_EXACT = {"b": "biufc", "u": "iuf", "i": "iuf", "f": "f"}


def numpy_type(datatype: str) -> np.dtype[Any]:
    """Give the NumPy type of a datatype.

    Raises:
        NotOffered: it is one of the package ml_dtypes, which is not installed.
    """
    package, _, name = NAMES[datatype].rpartition(".")
    if not package:
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError as error:
        raise NotOffered(f"{datatype}: NumPy has no such type; expected the package ml_dtypes, which is not installed", datatype=datatype) from error
    dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
    return dtype


def adapt(value: Any, name: str, datatype: str | None) -> np.ndarray[Any, Any] | Tensor:
    """Turn a value that cannot be read in place into one that can.

    Args:
        value: an array that is strided, big-endian or of a foreign type; a list, number, string or bytes.
        name: the input's, for errors.
        datatype: the signature's, which lists and numbers take when every value fits it; arrays keep their own.
    """
    array = value if isinstance(value, (np.ndarray, np.generic)) else _collect(value, name, datatype)
    array = np.asarray(array)
    foreign = _FOREIGN.get(array.dtype.name)
    if array.dtype.kind in "OSUT":
        return _strings(array, name)
    if foreign in ("INT4", "UINT4"):
        return Tensor(foreign, array.shape, _pack(array))
    if foreign is not None:
        return Tensor(foreign, array.shape, np.require(array, requirements=["C", "A"]).reshape(-1).view(np.uint8))
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise DatatypeMismatch(f"input '{name}': expected {datatype or 'a datatype'}, got NumPy's {array.dtype}", input=name, expected=datatype)
    return np.require(array, array.dtype.newbyteorder("="), ["C", "A"])


def _collect(value: Any, name: str, datatype: str | None) -> np.ndarray[Any, Any]:
    if datatype == "BYTES" and isinstance(value, (str, bytes, bytearray)):
        value = bytes(value) if isinstance(value, bytearray) else value
        return _objects([value], ())
    if hasattr(value, "__dlpack__"):
        return np.from_dlpack(value)
    try:
        natural = np.asarray(value, dtype=object if datatype == "BYTES" else None)
    except ValueError as error:
        raise ShapeMismatch(f"input '{name}': expected a list that is even in every dimension", input=name) from error
    if datatype is None or datatype == "BYTES" or natural.dtype.kind in "OSU":
        return natural
    wanted = numpy_type(datatype)
    if natural.size and natural.dtype.kind != wanted.kind and wanted.kind not in _EXACT.get(natural.dtype.kind, "") and "." not in NAMES[datatype]:
        raise DatatypeMismatch(f"input '{name}': expected {datatype}, got values of type {natural.dtype}", input=name, expected=datatype)
    return _fit(value, natural, wanted, name, datatype)


def _fit(value: Any, natural: np.ndarray[Any, Any], wanted: np.dtype[Any], name: str, datatype: str) -> np.ndarray[Any, Any]:
    try:
        with np.errstate(over="raise"):
            return np.asarray(value, dtype=wanted)
    except (OverflowError, FloatingPointError) as error:
        raise ValueOutOfRange(f"input '{name}': a value does not fit {datatype}", input=name, expected=datatype) from error


def _strings(array: np.ndarray[Any, Any], name: str) -> Tensor:
    elements = array.ravel().tolist()
    odd = next((element for element in elements if not isinstance(element, (str, bytes))), None)
    if odd is not None:
        raise DatatypeMismatch(f"input '{name}': expected elements of type str or bytes, got {type(odd).__name__}", input=name)
    return Tensor("BYTES", array.shape, elements)


def _pack(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    halves = np.zeros(array.size + array.size % 2, np.uint8)
    halves[: array.size] = array.reshape(-1).astype(np.int8).view(np.uint8) & 0xF
    return halves[0::2] | (halves[1::2] << 4)


def _objects(elements: list[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)


def as_numpy(tensor: Tensor, plain: Any) -> np.ndarray[Any, Any]:
    """Give a tensor of a type that NumPy lacks as an array; `plain` is its bytes, or its BYTES elements."""
    if tensor.datatype == "BYTES":
        return _objects(plain, tensor.shape)
    wanted = numpy_type(tensor.datatype)
    if tensor.datatype not in ("INT4", "UINT4"):
        array: np.ndarray[Any, Any] = plain.view(wanted).reshape(tensor.shape)
        return array
    halves = np.stack([plain & 0xF, plain >> 4], axis=-1).reshape(-1)[: math.prod(tensor.shape)]
    signed = (halves.astype(np.int8) ^ 8) - 8 if tensor.datatype == "INT4" else halves
    return signed.astype(wanted).reshape(tensor.shape)


def present(tensor: Tensor) -> np.ndarray[Any, Any] | Tensor:
    """Give an output as an array, or as it is where no installed package has its type."""
    try:
        return tensor.numpy()
    except NotOffered:
        return tensor
