"""Checks of requests that do not fit: each is the same typed error on every runtime, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from nnrp.model import Model
from nnrp.testing.claims import check, refused
from nnrp.testing.shapes import affine, answer, expect
from nnrp.testing.subject import Subject

Call = Callable[[Model, str], Any]
X = np.array([1, 2, 3], np.float32)

_CALLS: Sequence[tuple[str, str, str, str, Call]] = (
    ("float64", "FP64 for FP32", "7.1", "DATATYPE_MISMATCH", lambda model, x: model.infer({x: X.astype(np.float64)})),
    ("whole_numbers", "INT64 for FP32", "7.1", "DATATYPE_MISMATCH", lambda model, x: model.infer({x: X.astype(np.int64)})),
    ("rank", "another rank", "7.1", "SHAPE_MISMATCH", lambda model, x: model.infer({x: X.reshape(1, 3)})),
    ("missing_input", "an input that is missing", "7.1", "MISSING_INPUT", lambda model, x: model.infer({})),
    ("unknown_input", "an input of no such name", "7.1", "UNKNOWN_INPUT", lambda model, x: model.infer({x: X, f"not_{x}": X})),
    ("unknown_output", "an output of no such name", "7.1", "UNKNOWN_OUTPUT", lambda model, x: model.infer({x: X}, outputs=["no_output"])),
)


def _ask(reason: str, call: Call, subject: Subject) -> None:
    model = subject.load("affine")
    # A run that went well before must not lend its input to one that has none.
    expect(affine(X), answer(model, X))
    refused([reason], lambda: call(model, model.inputs[0].name))
    expect(affine(X + 1), answer(model, X + 1))


for _name, _what, _spec, _reason, _call in _CALLS:
    check(f"requests.{_name}", _spec, f"{_what} is {_reason}, and the next request is answered")(partial(_ask, _reason, _call))


@check("requests.dimension", "7.1", "another size of a fixed dimension is SHAPE_MISMATCH, and the next request is answered")
def _dimension(subject: Subject) -> None:
    model = subject.load_or_skip("batch")
    refused(["SHAPE_MISMATCH"], lambda: answer(model, np.ones((1, 3), np.float32)))
    x = np.ones((2, 4), np.float32)
    expect(affine(x), answer(model, x))
