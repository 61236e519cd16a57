"""Tensors as a model for Triton's Python back end sees them, and the names of their types."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

import numpy as np

from nnrp.errors import NotOffered
from nnrp.runtimes.triton_python.fields import ENUMS

#: Triton's names of the element types, by their numbers.
TYPES = ENUMS["DataType"].split()
_NUMPY = ["", *["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "object", "bfloat16"]]
#: Number of a type → NumPy's.
TRITON_TO_NUMPY_TYPE: dict[int, Any] = {number: np.dtype(name).type for number, name in enumerate(_NUMPY) if name and name != "bfloat16"}
#: NumPy's type → its number; texts are objects.
NUMPY_TO_TRITON_TYPE: dict[Any, int] = {kind: number for number, kind in TRITON_TO_NUMPY_TYPE.items()} | {np.bytes_: TYPES.index("TYPE_STRING")}
#: Name of a type → NumPy's.
TRITON_STRING_TO_NUMPY: dict[str, Any] = {TYPES[number]: kind for number, kind in TRITON_TO_NUMPY_TYPE.items()}

_CPU = 1


class TritonModelException(Exception):
    """What a model raises, or is raised to it, with a sentence for people."""


def triton_to_numpy_type(data_type: int) -> Any:
    """Give NumPy's type for the number of a type."""
    return _bfloat16() if data_type == TYPES.index("TYPE_BF16") else TRITON_TO_NUMPY_TYPE[data_type]


def numpy_to_triton_type(data_type: Any) -> int:
    """Give the number of a type for NumPy's."""
    kind = np.dtype(data_type)
    return TYPES.index("TYPE_BF16") if kind.name == "bfloat16" else NUMPY_TO_TRITON_TYPE[kind.type]


def triton_string_to_numpy(triton_type_string: str) -> Any:
    """Give NumPy's type for the name of a type, such as TYPE_FP32."""
    return _bfloat16() if triton_type_string == "TYPE_BF16" else TRITON_STRING_TO_NUMPY[triton_type_string]


def _bfloat16() -> Any:
    try:
        import ml_dtypes
    except ImportError as error:
        raise TritonModelException("TYPE_BF16 needs the package ml_dtypes: pip install nnrp[ml-dtypes]") from error
    return ml_dtypes.bfloat16


def serialize_byte_tensor(input_tensor: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """Write texts down one after another, each after its length in four bytes; None where there are none."""
    if not input_tensor.size:
        return None
    texts = [_bytes(text) for text in input_tensor.reshape(-1)]
    return np.asarray(b"".join(struct.pack("<I", len(text)) + text for text in texts), object)


def deserialize_bytes_tensor(encoded_tensor: bytes) -> np.ndarray[Any, Any]:
    """Read what `serialize_byte_tensor` wrote."""
    texts, place = list[bytes](), 0
    while place < len(encoded_tensor):
        (length,) = struct.unpack_from("<I", encoded_tensor, place)
        texts.append(bytes(encoded_tensor[place + 4 : place + 4 + length]))
        place += 4 + length
    return np.array(texts, object)


def _bytes(text: Any) -> bytes:
    return bytes(text) if isinstance(text, bytes | bytearray | memoryview) else str(text).encode()


class Tensor:
    """A name and elements, on the CPU or wherever a DLPack producer has them.

    Args:
        name: as the configuration calls it.
        numpy_array: the elements; texts as bytes or str objects.
    """

    def __init__(self, name: str, numpy_array: Any) -> None:
        array = numpy_array if hasattr(numpy_array, "dtype") else np.asarray(numpy_array)
        if array.dtype.kind in "US":
            array = array.astype(object)
        self._hold(name, array)

    def _hold(self, name: str, value: Any = None, foreign: Any = None, read_only: bool = False) -> Tensor:
        self._name, self._value, self._foreign, self._read_only = name, value, foreign, read_only
        return self

    @classmethod
    def _lent(cls, name: str, array: Any, read_only: bool = False) -> Tensor:
        """Take what a caller or another model gave as it is."""
        return cls.__new__(cls)._hold(name, array, read_only=read_only)

    def name(self) -> str:
        """Tell its name."""
        return self._name

    def as_numpy(self) -> Any:
        """Give the elements as an array that may be written to; it is copied once, where it is the caller's memory."""
        if self._value is None:
            if not self.is_cpu():
                raise TritonModelException(f"tensor '{self._name}' lies on a device: as_numpy gives what lies in CPU memory")
            self._value = np.from_dlpack(self._foreign)
        if isinstance(self._value, np.ndarray) and not (self._read_only or self._value.flags.writeable):
            self._value = self._value.copy()
        return self._value

    def shape(self) -> tuple[int, ...]:
        """Tell the dimensions."""
        return tuple(int(dim) for dim in (self._foreign if self._value is None else self._value).shape)

    def triton_dtype(self) -> int:
        """Tell the number of its type."""
        return numpy_to_triton_type(self.as_numpy().dtype)

    def is_cpu(self) -> bool:
        """Tell whether the elements lie in memory that the CPU reads."""
        return self._foreign is None or self._foreign.__dlpack_device__()[0] == _CPU

    @staticmethod
    def from_dlpack(name: str, dlpack: Any) -> Tensor:
        """Take a tensor of PyTorch, CuPy …, or a capsule, without a copy."""
        foreign = dlpack if hasattr(dlpack, "__dlpack__") else _Capsule(dlpack)
        self = Tensor.__new__(Tensor)._hold(name, foreign=foreign)
        if self.is_cpu() and not hasattr(foreign, "shape"):
            self._value = np.from_dlpack(foreign)
        return self

    def to_dlpack(self) -> Any:
        """Give a capsule, for what takes DLPack; without a copy."""
        return self.__dlpack__()

    def __dlpack__(self, **words: Any) -> Any:
        return (self.as_numpy() if self.is_cpu() else self._foreign).__dlpack__(**words)

    def __dlpack_device__(self) -> tuple[int, int]:
        device: tuple[int, int] = (_CPU, 0) if self.is_cpu() else self._foreign.__dlpack_device__()
        return device

    def _output(self) -> Any:
        """Give the elements as the engine takes them."""
        if not self.is_cpu():
            kind, number = self._foreign.__dlpack_device__()
            raise NotOffered(f"output '{self._name}': expected it in CPU memory, got DLPack device {kind}:{number}", output=self._name)
        return self._foreign if self._value is None else self._value


class _Capsule:
    """A DLPack capsule, as an object that gives it."""

    def __init__(self, capsule: Any) -> None:
        get = ctypes.pythonapi.PyCapsule_GetPointer
        get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        try:
            place = get(capsule, b"dltensor")
        except (ValueError, ctypes.ArgumentError) as error:
            raise TritonModelException(f"from_dlpack: expected a tensor or a DLPack capsule, got {type(capsule).__name__}") from error
        # A DLTensor begins with its data, and then its device: kind and number.
        kind, number = struct.unpack_from("<ii", ctypes.string_at(place, 16), 8)
        self._capsule, self._device = capsule, (kind, number)

    def __dlpack__(self, **_: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device
