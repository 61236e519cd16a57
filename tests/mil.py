"""Core ML packages of one operation, written where a test wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnrp.testing.formats.coreml import Package, Var, kind_of


def one(folder: Path, kind: str, inputs: Mapping[str, np.ndarray[Any, Any]], others: Mapping[str, Any], expected: Sequence[np.ndarray[Any, Any]]) -> Path:
    """Write a package of one operation: inputs that are given at run time, others that are constants or tuples of inputs, and what to expect."""
    given = {name: (kind_of(array), array.shape) for name, array in inputs.items()}
    bound = {name: Var(name) for name in inputs if not any(isinstance(told, tuple) and Var(name) in told for told in others.values())}
    outputs = {f"y{index}": (kind_of(array), array.shape) for index, array in enumerate(expected)}
    return Package(given, [(kind, {**bound, **others}, outputs)], list(outputs)).save(folder)
