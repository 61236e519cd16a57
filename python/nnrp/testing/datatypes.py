"""Checks of every datatype, at the edges of what it holds."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from nnrp.compare.wire import raw_of
from nnrp.errors import NnrpError
from nnrp.model import Model
from nnrp.tensor import NAMES, Tensor
from nnrp.testing.claims import Failed, check, told, typed
from nnrp.testing.subject import Subject

#: Zero, a small number, one and a half or so, the largest, the smallest, infinities and NaN, as bits, of types that NumPy may lack.
_BITS = {
    "FP16": (np.uint16, [0x0000, 0x8000, 0x0001, 0x3C00, 0xBE00, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00]),
    "FP32": (np.uint32, [0x0, 0x80000000, 0x1, 0x3F800000, 0xBFC00000, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000]),
    "FP64": (np.uint64, [0x0, 1 << 63, 0x1, 0x3FF0 << 48, 0xBFF8 << 48, 0x7FEFFFFFFFFFFFFF, 0xFFEFFFFFFFFFFFFF, 0x7FF0 << 48, 0xFFF0 << 48, 0x7FF8 << 48]),
    "BF16": (np.uint16, [0x0000, 0x8000, 0x0001, 0x3F80, 0xBFC0, 0x7F7F, 0xFF7F, 0x7F80, 0xFF80, 0x7FC0]),
    "FP8_E4M3": (np.uint8, [0x00, 0x80, 0x01, 0x38, 0xBC, 0x7E, 0xFE, 0x7F]),
    "FP8_E5M2": (np.uint8, [0x00, 0x80, 0x01, 0x3C, 0xBE, 0x7B, 0xFB, 0x7C, 0xFC, 0x7E]),
    "INT4": (np.uint8, [0x10, 0x78, 0x9F]),
    "UINT4": (np.uint8, [0x10, 0xF8, 0x7F]),
}
#: Bits of a NaN: those above a number's largest.
_NAN = {"FP16": 0x7C00, "FP32": 0x7F800000, "FP64": 0x7FF0 << 48, "BF16": 0x7F80, "FP8_E4M3": 0x7E, "FP8_E5M2": 0x7C}
_TEXTS = [b"", b"a", "ä€𝄞".encode(), b"\0x", b"\xff\xfe", b"long" * 25_000]


def edges(datatype: str) -> Tensor:
    """Give the values at the edges of a datatype, in a row."""
    if datatype == "BYTES":
        return Tensor(datatype, [len(_TEXTS)], _TEXTS)
    if datatype in _BITS:
        kind, bits = _BITS[datatype]
        count = len(bits) * (2 if datatype.endswith("INT4") else 1)
        return Tensor(datatype, [count], np.array(bits, kind).tobytes())
    if datatype == "BOOL":
        return Tensor(datatype, [3], b"\0\1\1")
    limits = np.iinfo(NAMES[datatype])
    values = np.array([0, 1, 100, limits.max, limits.max - 1, limits.min], NAMES[datatype])
    return Tensor(datatype, [len(values)], values.tobytes())


def _modest(datatype: str) -> Tensor:
    """Give the values that no runtime has a reason to refuse: the first few of the edges, or zero and one."""
    if datatype == "BYTES":
        return Tensor(datatype, [2], [b"a", b"bc"])
    whole = edges(datatype)
    size = len(whole.tobytes()) // whole.shape[0] if not datatype.endswith("INT4") else 0
    return Tensor(datatype, [2], whole.tobytes()[: 2 * size] if size else whole.tobytes()[:1])


def _identity(datatype: str, subject: Subject) -> str | None:
    try:
        model = subject.load(f"identity_{datatype.lower()}")
    except NnrpError as error:
        return _refusal(error)
    said = [refusal for tensor in (_modest(datatype), edges(datatype)) if (refusal := _ask(model, tensor))]
    return said[0] if said else None


def _ask(model: Model, tensor: Tensor) -> str | None:
    try:
        answer = model.infer({model.inputs[0].name: tensor})[model.outputs[0].name]
    except NnrpError as error:
        return _refusal(error)
    got, expected = raw_of(answer), raw_of(tensor)
    if got[:2] != expected[:2]:
        raise Failed(f"{expected[0]} {expected[1]}", f"{got[0]} {got[1]}")
    if not _same(tensor.datatype, expected[2], got[2]):
        raise Failed(_shown(tensor), _shown(Tensor(*got)))
    return None


def _refusal(error: NnrpError) -> str:
    typed(error)
    return f"refused: {told(error)}"


def _same(datatype: str, expected: bytes, got: bytes) -> bool:
    """Whether the bits are equal, or NaN on both sides."""
    if datatype not in _NAN:
        return expected == got
    kind: Any = _BITS[datatype][0]
    left, right = (np.frombuffer(raw, kind) for raw in (expected, got))
    sign = kind(1 << (np.dtype(kind).itemsize * 8 - 1))
    nans = [(bits & ~sign) > kind(_NAN[datatype]) for bits in (left, right)]
    return bool(np.array_equal(left[~nans[0]], right[~nans[0]]) and np.array_equal(*nans))


def _shown(tensor: Tensor) -> Any:
    if tensor.datatype == "BYTES":
        return [element[:16] for element in tensor.numpy().tolist()]
    return tensor.tobytes().hex(" ", -8)[:160]


for _datatype in NAMES:
    check(f"datatypes.{_datatype.lower()}", "3.1", f"{_datatype} comes back as it went in, or is refused with a typed error")(partial(_identity, _datatype))
