"""Checks of shapes: none, empty, many, growing, and those that only the data tells."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from nnrp.model import Model
from nnrp.testing.claims import Failed, check
from nnrp.testing.subject import Subject

_RANKS = 6
_DIMS = (1, 2, 3, 1, 2, 2)
_BATCHES = (1, 3, 8, 1, 0, 64)


def answer(model: Model, x: Any) -> Any:
    """Give the model's one output for its one input."""
    return model.infer({model.inputs[0].name: x})[model.outputs[0].name]


def expect(expected: np.ndarray[Any, Any], got: np.ndarray[Any, Any]) -> None:
    """Compare shape and numbers.

    Raises:
        Failed: they differ.
    """
    if expected.shape != got.shape:
        raise Failed(f"shape {list(expected.shape)}", list(got.shape))
    if not np.array_equal(expected, got):
        odd = tuple(int(axis[0]) for axis in np.nonzero(expected != got)) if expected.ndim else ()
        raise Failed(f"{expected[odd]} at {list(odd)}", got[odd])


def affine(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Say what the model of the role 'affine' is to answer."""
    return np.asarray(np.float32(2) * x + np.float32(1), np.float32)


def _rank(rank: int, subject: Subject) -> None:
    x = np.arange(np.prod(_DIMS[:rank], dtype=int), dtype=np.float32).reshape(_DIMS[:rank])
    expect(x, answer(subject.load_or_skip(f"rank_{rank}"), x))


for _number in range(_RANKS + 1):
    _claim = "a scalar comes back as one" if _number == 0 else f"a tensor of rank {_number} comes back with its shape"
    check(f"shapes.rank_{_number}", "3.6", _claim)(partial(_rank, _number))


@check("shapes.empty", "3.6", "a tensor without elements gives one without elements")
def _empty(subject: Subject) -> None:
    expect(np.zeros(0, np.float32), answer(subject.load("affine"), np.zeros(0, np.float32)))


@check("shapes.growing", "8.2", "one session answers for every size of an open dimension, one after the other")
def _growing(subject: Subject) -> None:
    model = subject.load("affine")
    for size in (1, 1000, 3, 100_000, 1):
        x = np.arange(size, dtype=np.float32)
        expect(affine(x), answer(model, x))


@check("shapes.batch", "8.2", "batches of every size are answered, and each row by itself")
def _batch(subject: Subject) -> None:
    model = subject.load_or_skip("batch")
    for rows in _BATCHES:
        x = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
        expect(affine(x), answer(model, x))


@check("shapes.from_data", "8.2", "an output whose size depends on the values has the right one")
def _from_data(subject: Subject) -> None:
    model = subject.load_or_skip("positions")
    for x in ([0, 5, 0, 7], [1, 1, 1, 1, 1], [0, 0], [3]):
        expect(np.flatnonzero(x).astype(np.int64), answer(model, np.array(x, np.float32)))
