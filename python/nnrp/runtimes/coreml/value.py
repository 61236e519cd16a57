"""Types and constants of a MIL program, and what a name in it stands for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnrp.errors import NotOffered
from nnrp.runtimes.coreml.package import Package, bad

#: MIL's number of an element type → its name.
KINDS = {
    1: "bool",
    2: "string",
    10: "fp16",
    11: "fp32",
    12: "fp64",
    13: "bf16",
    21: "int8",
    22: "int16",
    23: "int32",
    24: "int64",
    25: "int4",
    31: "uint8",
    32: "uint16",
    33: "uint32",
    34: "uint64",
    35: "uint4",
    36: "uint2",
    37: "uint1",
    38: "uint6",
    39: "uint3",
    40: "fp8e4m3fn",
    41: "fp8e5m2",
}
#: Element type → NumPy's, ONNX's number and our datatype, of those that tensors of a translated program have.
TYPES: dict[str, tuple[str, int, str]] = {
    "bool": ("bool", 9, "BOOL"),
    "string": ("object", 8, "BYTES"),
    "fp16": ("float16", 10, "FP16"),
    "fp32": ("float32", 1, "FP32"),
    "fp64": ("float64", 11, "FP64"),
    "int8": ("int8", 3, "INT8"),
    "int16": ("int16", 5, "INT16"),
    "int32": ("int32", 6, "INT32"),
    "int64": ("int64", 7, "INT64"),
    "uint8": ("uint8", 2, "UINT8"),
    "uint16": ("uint16", 4, "UINT16"),
    "uint32": ("uint32", 12, "UINT32"),
    "uint64": ("uint64", 13, "UINT64"),
}
#: Element types of less than a byte: bits, and whether they have a sign. They are unpacked into INT8 or UINT8.
NARROW = {"uint1": (1, False), "uint2": (2, False), "uint3": (3, False), "uint4": (4, False), "uint6": (6, False), "int4": (4, True)}
MOST_DIMENSIONS = 64
#: How many elements of less than a byte are unpacked at once, which takes as many bytes as they have bits.
_UNPACKED = 1 << 20
#: Most bytes that all constants take: what a message of ONNX holds.
CONSTANTS_LIMIT = (1 << 31) - (1 << 24)


@dataclass(frozen=True)
class Type:
    """A tensor's element type, and its shape: -1 for any size, None for any rank."""

    kind: str
    shape: tuple[int, ...] | None

    @property
    def known(self) -> bool:
        """Whether every dimension is a number."""
        return self.shape is not None and -1 not in self.shape


@dataclass(frozen=True)
class Value:
    """What a name of the program stands for: a tensor of the graph, and its elements where they are known.

    Attributes:
        name: the tensor's name in the graph; empty where it is not in it yet.
        type: element type and shape.
        elements: of a constant; an array of objects for texts.
    """

    name: str
    type: Type
    elements: np.ndarray[Any, Any] | None = None


def type_of(message: Any, where: str) -> Type:
    """Read a tensor's type.

    Raises:
        NotOffered: lists, dictionaries, states, and element types that no tensor here has.
        InvalidModel.
    """
    if not message.HasField("tensorType"):
        kind = next((field.name.removesuffix("Type") for field, _ in message.ListFields()), "nothing")
        raise NotOffered(f"model file: {where} is of type {kind}: coreml offers tensors, where it translates", runtime="coreml")
    told = message.tensorType
    kind = KINDS.get(told.dataType, "")
    if kind not in TYPES and kind not in NARROW:
        raise NotOffered(f"model file: {where} has elements of type {kind or told.dataType}, which coreml does not offer", runtime="coreml")
    if len(told.dimensions) > MOST_DIMENSIONS:
        raise bad(f"{where}: expected at most {MOST_DIMENSIONS} dimensions, got {len(told.dimensions)}")
    if any(one.unknown.variadic for one in told.dimensions):
        return Type(kind, None)
    shape = tuple(one.constant.size if one.HasField("constant") else -1 for one in told.dimensions)
    if any(dim > 2**31 - 1 for dim in shape):
        raise bad(f"{where}: expected dimensions below 2^31, got {list(shape)}")
    return Type(kind, shape)


class Constants:
    """Reads constants, each weight once, and keeps the account of how many bytes they are."""

    def __init__(self, package: Package) -> None:
        self._package = package
        self._read: dict[tuple[str, int, Type], np.ndarray[Any, Any]] = {}
        self._left = CONSTANTS_LIMIT

    def reserve(self, byte_size: int) -> None:
        """Account for a constant before its memory is asked for.

        Raises:
            NotOffered: together they are more than a graph holds.
        """
        self._left -= byte_size
        if self._left < 0:
            raise NotOffered(f"model file: expected constants of at most {CONSTANTS_LIMIT} bytes, unpacked, got more", runtime="coreml")

    def read(self, message: Any, where: str) -> tuple[Type, np.ndarray[Any, Any]]:
        """Read a constant: its type, and its elements in its shape."""
        if message.type.HasField("listType"):
            return self._texts(message, where)
        type = type_of(message.type, where)
        if not type.known:
            raise bad(f"{where}: expected a constant of known shape, got {type.shape}")
        if not message.HasField("blobFileValue"):
            return type, self._elements(message, type, where)
        key = (message.blobFileValue.fileName, message.blobFileValue.offset, type)
        if key not in self._read:
            self._read[key] = self._elements(message, type, where)
        return type, self._read[key]

    def _elements(self, message: Any, type: Type, where: str) -> np.ndarray[Any, Any]:
        count = math.prod(type.shape or ())
        bits, signed = NARROW.get(type.kind, (0, False))
        width = 1 if bits else max(1, np.dtype(TYPES[type.kind][0]).itemsize)
        self.reserve(count * width)
        raw: bytes | np.ndarray[Any, Any]
        if message.HasField("blobFileValue"):
            kind, raw = self._package.weight(message.blobFileValue.fileName, message.blobFileValue.offset)
            if kind != type.kind and (kind, type.kind) != ("uint8", "bool"):
                raise bad(f"{where}: expected weights of {type.kind}, got {kind}")
        else:
            raw = _immediate(message.immediateValue.tensor, type, where)
        if isinstance(raw, bytes):
            expected = (count * bits + 7) // 8 if bits else count * width
            if len(raw) < expected or len(raw) > expected + 63:
                raise bad(f"{where}: expected {expected} bytes of {type.kind} {list(type.shape or ())}, got {len(raw)}")
            elements = unpack(raw, bits, signed, count) if bits else np.frombuffer(raw, TYPES[type.kind][0], count)
        else:
            elements = raw
        if elements.size != count:
            raise bad(f"{where}: expected {count} elements for the shape {list(type.shape or ())}, got {elements.size}")
        return elements.reshape(type.shape or ())

    def _texts(self, message: Any, where: str) -> tuple[Type, np.ndarray[Any, Any]]:
        values = message.immediateValue.list.values
        parts = [self.read(one, where) for one in values if one.type.HasField("tensorType")]
        if not parts or len(parts) != len(values) or any(type != Type("string", ()) for type, _ in parts):
            raise NotOffered(f"model file: {where} is a list of something else than texts, which coreml does not offer", runtime="coreml")
        return Type("string", (len(parts),)), np.array([part.item() for _, part in parts], object)


def _immediate(tensor: Any, type: Type, where: str) -> bytes | np.ndarray[Any, Any]:
    """The elements that a message has in itself: a row of them, or the bytes."""
    dtype = TYPES.get(type.kind, ("uint8",))[0]
    fields = {"floats": "fp32 fp16 fp64", "doubles": "fp64", "bools": "bool", "strings": "string", "longInts": "int64 uint64"}
    fields["ints"] = "int32 int16 int8 uint8 uint16 uint32 int64 uint64"
    for field, kinds in fields.items():
        if tensor.HasField(field):
            if type.kind not in kinds.split():
                break
            try:
                values = np.array(getattr(tensor, field).values, np.int64 if field == "ints" else dtype)
            except OverflowError as error:
                raise bad(f"{where}: a number does not fit {type.kind}") from error
            return values.astype(dtype)
    if tensor.HasField("bytes"):
        raw: bytes = tensor.bytes.values
        return raw
    if not tensor.ListFields() or math.prod(type.shape or ()) == 0:
        return np.zeros(0, dtype)
    raise bad(f"{where}: expected elements of {type.kind}, got others")


def unpack(raw: bytes, bits: int, signed: bool, count: int) -> np.ndarray[Any, Any]:
    """Unpack elements of a few bits each, the least significant first."""
    values = np.empty(count, np.uint8)
    for start in range(0, count, _UNPACKED):
        some = min(_UNPACKED, count - start)
        packed = np.frombuffer(raw, np.uint8, (some * bits + 7) // 8, start * bits // 8)
        stream = np.unpackbits(packed, bitorder="little", count=some * bits).reshape(some, bits)
        values[start : start + some] = np.packbits(stream, axis=1, bitorder="little")[:, 0]
    if not signed:
        return values
    shift = 8 - bits
    signs: np.ndarray[Any, Any] = np.right_shift(np.left_shift(values, np.uint8(shift)).view(np.int8), np.int8(shift))
    return signs
