"""What a case of an operation of Core ML is, and the numbers that cases share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Case:
    """An operation: inputs that are given at run time, others that are in the model, and what it gives.

    Attributes:
        since: the iOS whose operation it is.
        tolerance: largest error, absolute and relative.
    """

    name: str
    kind: str
    inputs: dict[str, Array]
    others: dict[str, Any]
    expected: tuple[Array, ...]
    since: int = 17
    tolerance: float = 1e-5


CASES: list[Case] = []


def case(kind: str, expected: Any, inputs: dict[str, Any], name: str = "", **others: Any) -> None:
    """Add a case; numbers of Python are FP32 or INT32."""
    since = others.pop("since", 17)
    tolerance = others.pop("tolerance", 1e-5)
    wanted = expected if isinstance(expected, tuple) else (expected,)
    outputs = tuple(np.asarray(one, np.float32 if np.asarray(one).dtype == np.float64 else None) for one in wanted)
    arrays = {key: value.astype(np.float32) if value.dtype == np.float64 else value for key, value in inputs.items()}
    CASES.append(Case(f"{kind}{'-' + name if name else ''}", kind, arrays, others, outputs, since, tolerance))


RANDOM = np.random.default_rng(7)


def noise(*shape: int) -> Array:
    """Numbers around zero."""
    return RANDOM.normal(size=shape).astype(np.float32)


def whole(low: int, high: int, *shape: int) -> Array:
    return RANDOM.integers(low, high, shape).astype(np.int32)


X, Y = noise(2, 3, 4), noise(3, 1)
P = np.abs(X) + np.float32(0.5)
WHOLE, DIVISORS = whole(-9, 9, 2, 3), np.array([[3, -3, 2]], np.int32)
