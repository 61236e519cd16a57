"""What a GGUF file says of itself, read without a library: every length is checked against the file before anything is taken from it."""

from __future__ import annotations

import math
import os
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from nnrp.errors import FileNotFound, InvalidModel, LoadFailed

#: Most values and tensors that a file may have, elements of one of its lists, characters of a text that is told, and dimensions of a tensor.
MOST_VALUES, MOST_TENSORS, MOST_ELEMENTS, MOST_TOKENS, MOST_TEXT, MOST_RANK = 1 << 16, 1 << 18, 1 << 24, 1 << 20, 1 << 16, 4
#: Longest key, and longest name of a tensor.
_KEY, _NAME = 1 << 12, 63
_ALIGNMENT = 32
#: What is read rather than passed over, because that is quicker.
_NEAR = 1 << 12
#: Kind of a value → how Python's struct reads it. Texts and lists are kinds of their own.
_KINDS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_TEXT, _LIST = 8, 9
#: The most that sizes of an architecture may be, none of which is 0: llama.cpp ends the process on what can be none.
_SIZES = {"block_count": 512, "context_length": 1 << 31, "embedding_length": 1 << 24, "attention.head_count": 1 << 16}
#: Sizes of an architecture that are within another one.
_WITHIN = {"expert_used_count": "expert_count", "nextn_predict_layers": "block_count"}
_EPSILONS = ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon")
_TOKENS = "tokenizer.ggml.tokens"
#: Ways to make one vector of many: none, mean, the first, the last, a rank.
_POOLING = (0, 1, 2, 3, 4)
#: Number of a tensor's datatype → its name, how many elements a block of it has, and how many bytes.
TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}


class Elements(NamedTuple):
    """A list in a file: the kind of its elements, and how many there are."""

    kind: int
    size: int


@dataclass
class Header:
    """What stands before the weights.

    Attributes:
        version: of the format.
        values: key → a number, a text, or what a list has.
        parameters: datatype → how many elements the tensors of it have.
        tensors: how many there are.
    """

    version: int
    values: dict[str, Any] = field(default_factory=dict)
    parameters: Counter[str] = field(default_factory=Counter)
    tensors: int = 0

    def number(self, key: str) -> int | None:
        """A whole number of the model's architecture: `context_length`."""
        told = self.values.get(f"{self.values.get('general.architecture')}.{key}")
        return told if isinstance(told, int) and not isinstance(told, bool) else None

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        told = self.values.get(_TOKENS)
        return told.size if isinstance(told, Elements) else 0


def read(path: str | os.PathLike[str]) -> Header:
    """Read what stands before the weights, and check that they lie within the file.

    Raises:
        FileNotFound, LoadFailed: it cannot be opened or read.
        InvalidModel: it is cut off, or says what cannot be.
    """
    try:
        with Path(path).open("rb") as file:
            return _Reader(file).header()
    except FileNotFoundError as error:
        raise FileNotFound("model file: no such file") from error
    except OSError as error:
        raise LoadFailed(f"model file: cannot be read: {error.strerror}") from error


def facts(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Tell what `nnrp inspect` shows of a file.

    Raises:
        As `read`.
    """
    header = read(path)
    total = sum(header.parameters.values())
    shares = {kind: count / total for kind, count in header.parameters.most_common()} if total else {}
    told = {
        "version": header.version,
        "architecture": header.values.get("general.architecture"),
        "name": header.values.get("general.name"),
        "parameters": total,
        "quantisation": next(iter(shares), None),
        "datatypes": {kind: round(share, 4) for kind, share in shares.items()},
        "tensors": header.tensors,
        "tokenizer": header.values.get("tokenizer.ggml.model"),
        "vocabulary": header.vocabulary,
        "context": header.number("context_length"),
        "embedding": header.number("embedding_length"),
        "layers": header.number("block_count"),
    }
    return {key: value for key, value in told.items() if value is not None}


class _Reader:
    def __init__(self, file: BinaryIO) -> None:
        self._file, self._size = file, file.seek(0, 2)
        file.seek(0)

    def header(self) -> Header:
        if self._take(4) != b"GGUF":
            raise _wrong("expected GGUF, got something else")
        header = Header(version=self._number("<I"))
        if header.version not in (2, 3):
            raise _wrong(f"expected GGUF of version 2 or 3, got {header.version}: of an older one, or of a machine with another order of bytes")
        header.tensors = self._count("tensors", MOST_TENSORS)
        for _ in range(self._count("values", MOST_VALUES)):
            key = self._text("a key", _KEY)
            if key in header.values:
                raise _wrong(f"'{key[:96]}' is there twice")
            header.values[key] = self._value(key)
        _check_sizes(header)
        self._tensors(header)
        return header

    def _tensors(self, header: Header) -> None:
        """The names, shapes and places of the weights, each of which must lie within the file."""
        alignment = header.values.get("general.alignment", _ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 8 or alignment > 1 << 20 or alignment & (alignment - 1):
            raise _wrong(f"general.alignment: expected a power of 2, got {alignment!r:.32}")
        ends, names = 0, set()
        for _ in range(header.tensors):
            name, kind, elements, byte_size, offset = self._tensor()
            if name in names:
                raise _wrong(f"tensor '{name}' is there twice")
            if offset % alignment:
                raise _wrong(f"tensor '{name}': expected a place that is a multiple of {alignment}, got {offset}")
            names.add(name)
            header.parameters[kind] += elements
            ends = max(ends, offset + byte_size)
        there = self._size - -(-self._file.tell() // alignment) * alignment
        if ends > there:
            raise _wrong(f"cut off: expected {ends} bytes of weights, got {max(there, 0)}", expected=ends, got=max(there, 0))

    def _tensor(self) -> tuple[str, str, int, int, int]:
        name = self._text("a tensor's name", _NAME)
        shape = [self._number("<Q") for _ in range(self._count("dimensions", MOST_RANK, "<I"))]
        number, offset = self._number("<I"), self._number("<Q")
        kind, block, block_bytes = TYPES.get(number, (f"type {number}", 1, 0))
        elements = math.prod(shape)
        if not all(shape) or elements >= 1 << 63:
            raise _wrong(f"tensor '{name}': expected dimensions from 1 whose product is a number of 63 bits, got {shape}")
        if shape and shape[0] % block:
            raise _wrong(f"tensor '{name}': expected rows of a multiple of {block} elements, as {kind} has them, got {shape[0]}")
        return name, kind, elements, elements // block * block_bytes, offset

    def _value(self, key: str) -> Any:
        kind = self._number("<I")
        if kind in _KINDS:
            return self._number(_KINDS[kind])
        if kind == _TEXT:
            size = self._number("<Q")
            text = self._take(min(size, MOST_TEXT)).decode("utf-8", "replace")
            self._skip(size - min(size, MOST_TEXT))
            return text
        if kind != _LIST:
            raise _wrong(f"'{key[:96]}': expected a value of a known kind, got kind {kind}")
        elements = Elements(self._number("<I"), self._count(f"elements in '{key[:96]}'", MOST_TOKENS if key == _TOKENS else MOST_ELEMENTS))
        if elements.kind == _TEXT and key == _TOKENS:
            if len({self._bytes("a token", _NEAR) for _ in range(elements.size)}) < elements.size:
                raise _wrong(f"'{_TOKENS}': expected tokens that differ, got one twice")
        elif elements.kind == _TEXT:
            for _ in range(elements.size):
                self._skip(self._number("<Q"))
        elif elements.kind in _KINDS:
            self._skip(struct.calcsize(_KINDS[elements.kind]) * elements.size)
        else:
            raise _wrong(f"'{key[:96]}': expected a list of numbers or texts, got one of kind {elements.kind}")
        return elements

    def _count(self, what: str, most: int, layout: str = "<Q") -> int:
        count: int = self._number(layout)
        if count > most:
            raise _wrong(f"expected at most {most} {what}, got {count}")
        return count

    def _text(self, what: str, most: int) -> str:
        return self._bytes(what, most).decode("utf-8", "replace")

    def _bytes(self, what: str, most: int) -> bytes:
        size = self._number("<Q")
        if size > most:
            raise _wrong(f"{what}: expected at most {most} bytes, got {size}")
        return self._take(size)

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _take(self, size: int) -> bytes:
        found = self._file.read(size)
        if len(found) < size:
            raise _wrong("cut off before its weights")
        return found

    def _skip(self, size: int) -> None:
        if size <= _NEAR:
            self._take(size)
        elif size > self._size - self._file.tell():
            raise _wrong("cut off before its weights")
        else:
            self._file.seek(size, 1)


def _check_sizes(header: Header) -> None:
    architecture = header.values.get("general.architecture", "")
    if not isinstance(architecture, str):
        raise _wrong(f"'general.architecture': expected a text, got {str(architecture)[:64]}")
    for key, most in _SIZES.items():
        told = header.values.get(f"{architecture}.{key}", 1)
        if isinstance(told, int | float) and not 1 <= told <= most:
            raise _wrong(f"'{architecture:.64}.{key}': expected a number from 1 to {most}, got {told}")
    for key, other in _WITHIN.items():
        told, most = header.number(key) or 0, header.number(other) or 0
        if not (key == "expert_used_count" and most > 0) <= told <= most:
            raise _wrong(f"'{architecture:.64}.{key}': expected a number within the {most} of '{other}', got {told}")
    pooling = header.number("pooling_type") or 0
    if pooling not in _POOLING:
        raise _wrong(f"'{architecture:.64}.pooling_type': expected one of {_POOLING}, got {pooling}")
    for key in _EPSILONS:
        told = header.values.get(f"{architecture}.{key}", 0.0)
        if isinstance(told, int | float) and not 0 <= told <= 1:
            raise _wrong(f"'{architecture:.64}.{key}': expected a number from 0 to 1, got {told}")


def _wrong(what: str, **details: Any) -> InvalidModel:
    return InvalidModel(f"model file: {what}", format="gguf", **details)
