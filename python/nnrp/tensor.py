"""The slow side of inputs and outputs: types that NumPy lacks, strings, lists, and arrays that do not lie in order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from nnrp import _nnrp
from nnrp.errors import DatatypeMismatch, Malformed, NotOffered, ShapeMismatch, ValueOutOfRange

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


class Tensor(_nnrp.Tensor):
    r"""A datatype, a shape and bytes, for types that NumPy lacks: BF16, FP8, INT4, and BYTES.

    Args:
        datatype: a name of the Open Inference Protocol, such as "BF16" or "BYTES".
        shape: dimensions, none negative.
        data: the elements, row-major and little-endian, as anything with the buffer protocol; not copied. For BYTES also a flat sequence of
            str and bytes. INT4 and UINT4 lie two to a byte, the first in the low half.

    Raises:
        UnknownDatatype, ByteSizeMismatch.

    Example:
        >>> nnrp.Tensor("BF16", [2], b"\x80\x3f\x00\x40")
        nnrp.Tensor('BF16', (2,))
    """

    __slots__ = ()

    def __new__(cls, datatype: str, shape: Sequence[int], data: Any) -> Self:
        return super().__new__(cls, datatype, [int(dim) for dim in shape], list(data) if isinstance(data, tuple) else data)

    @property
    def datatype(self) -> str:
        """The element type, as the Open Inference Protocol names it."""
        return self._about()[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The dimensions."""
        return tuple(self._about()[1])

    def numpy(self) -> np.ndarray[Any, Any]:
        """Give the elements as an array that cannot be written to.

        Nothing is copied, except BYTES, which become an array of bytes objects, and four-bit types, which take one byte an element.

        Raises:
            NotOffered: the type is one of the package ml_dtypes, which is not installed.
        """
        return _as_numpy(self.datatype, self.shape, self._plain())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __dlpack__(
        self,
        *,
        stream: None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        if stream is not None:
            raise BufferError("a tensor in CPU memory has no stream")
        return self._dlpack(max_version, dl_device, copy)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __repr__(self) -> str:
        return f"nnrp.Tensor('{self.datatype}', {self.shape})"


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
    if isinstance(value, np.ma.MaskedArray):
        value = _unmasked(value, name, datatype)
    array = np.asarray(value if isinstance(value, (np.ndarray, np.generic)) else _collect(value, name, datatype))
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


def _unmasked(value: np.ma.MaskedArray[Any, Any], name: str, datatype: str | None) -> np.ndarray[Any, Any]:
    hidden = int(np.count_nonzero(np.ma.getmaskarray(value)))
    if hidden:
        message = f"input '{name}': expected elements that all count, got an array of which {hidden} are masked: .filled(value) says what to take for them"
        raise DatatypeMismatch(message, input=name, expected=datatype)
    return np.asarray(value.data)


def _collect(value: Any, name: str, datatype: str | None) -> np.ndarray[Any, Any]:
    if datatype == "BYTES" and isinstance(value, (str, bytes, bytearray)):
        value = bytes(value) if isinstance(value, bytearray) else value
        return _objects([value], ())
    if hasattr(value, "__dlpack__"):
        return np.from_dlpack(value)
    if hasattr(value, "__array__"):
        return np.asarray(value)
    if datatype != "BYTES" and not isinstance(value, (list, tuple, int, float, str)):
        return _buffer(value, name, datatype)
    try:
        natural = np.asarray(value, dtype=object if datatype == "BYTES" else None)
    except ValueError as error:
        raise ShapeMismatch(f"input '{name}': expected a list that is even in every dimension", input=name) from error
    if natural.dtype == object and datatype != "BYTES" and natural.size and all(isinstance(item, int) for item in natural.flat):
        raise ValueOutOfRange(f"input '{name}': a value does not fit {datatype or 'any datatype'}", input=name, expected=datatype)
    if datatype is None or datatype == "BYTES" or natural.dtype.kind in "OSU":
        return natural
    wanted = numpy_type(datatype)
    if natural.size and natural.dtype.kind != wanted.kind and wanted.kind not in _EXACT.get(natural.dtype.kind, "") and "." not in NAMES[datatype]:
        raise DatatypeMismatch(f"input '{name}': expected {datatype}, got values of type {natural.dtype}", input=name, expected=datatype)
    return _fit(value, natural, wanted, name, datatype)


def _buffer(value: Any, name: str, datatype: str | None) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(memoryview(value))
    except (TypeError, ValueError) as error:
        message = f"input '{name}': expected an array, __dlpack__, a buffer or a list, got {type(value).__name__}"
        raise DatatypeMismatch(message, input=name, expected=datatype) from error


def _fit(value: Any, natural: np.ndarray[Any, Any], wanted: np.dtype[Any], name: str, datatype: str) -> np.ndarray[Any, Any]:
    try:
        with np.errstate(over="raise"):
            return np.asarray(value, dtype=wanted)
    except (OverflowError, FloatingPointError) as error:
        raise ValueOutOfRange(f"input '{name}': a value does not fit {datatype}", input=name, expected=datatype) from error


def _strings(array: np.ndarray[Any, Any], name: str) -> Tensor:
    elements = array.ravel().tolist()
    odd = [type(element).__name__ for element in elements if not isinstance(element, (str, bytes))]
    if odd:
        raise DatatypeMismatch(f"input '{name}': expected elements of type str or bytes, got {odd[0]}", input=name)
    try:
        return Tensor("BYTES", array.shape, elements)
    except UnicodeEncodeError as error:
        raise Malformed(f"input '{name}': expected text that UTF-8 can say, got a lone surrogate", input=name) from error


def _pack(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    halves = np.zeros(array.size + array.size % 2, np.uint8)
    halves[: array.size] = array.reshape(-1).astype(np.int8).view(np.uint8) & 0xF
    return halves[0::2] | (halves[1::2] << 4)


def _objects(elements: list[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)


def _as_numpy(datatype: str, shape: tuple[int, ...], plain: Any) -> np.ndarray[Any, Any]:
    if datatype == "BYTES":
        return _objects(plain, shape)
    wanted = numpy_type(datatype)
    array: np.ndarray[Any, Any] = plain
    if datatype in ("INT4", "UINT4"):
        halves = np.stack([array & 0xF, array >> 4], axis=-1).reshape(-1)[: math.prod(shape)]
        return ((halves.astype(np.int8) ^ 8) - 8 if datatype == "INT4" else halves).astype(wanted).reshape(shape)
    return array.view(wanted).reshape(shape)


def present(datatype: str, shape: Sequence[int], plain: Any) -> np.ndarray[Any, Any] | Tensor:
    """Give an output that NumPy has no type for: as an array, or as a tensor where no installed package has its type either."""
    try:
        return _as_numpy(datatype, tuple(shape), plain)
    except NotOffered:
        return Tensor(datatype, shape, plain)
