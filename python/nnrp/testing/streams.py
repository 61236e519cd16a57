"""Checks of requests with any number of answers; a runtime that offers none is told so, and does not fail."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from nnrp.errors import DeadlineExceeded, NnrpError, NotOffered
from nnrp.model import Model
from nnrp.testing.claims import CHECKS, Failed, NotApplicable, check, refused, told, typed
from nnrp.testing.costs import grown
from nnrp.testing.running import SOON, ends
from nnrp.testing.shapes import affine, answer, expect
from nnrp.testing.subject import Subject

_THREADS = 4
#: Elements of the short streams, and of those that nobody reads to their end: far more than may wait for their reader.
_SHORT, _LONG = 20, 20_000
_TIMEOUT = 0.2

Answers = list[dict[str, Any]]


@check("streams.one_answer", "7.11", "asked for a stream, a session with one answer gives that one")
def _one_answer(subject: Subject) -> None:
    model, x = subject.load("affine"), np.arange(5, dtype=np.float32)
    answers = [*model.stream({model.inputs[0].name: x})]
    if len(answers) != 1:
        raise Failed("one answer", f"{len(answers)}")
    expect(affine(x), answers[0][model.outputs[0].name])
    expect(affine(x), answer(model, x))


@check("streams.order", "7.11", "answers come in order, each right, and then the end, each time")
def _order(subject: Subject) -> str:
    model = _streaming(subject)
    asked = _ask(subject, model)
    first = _read(subject, model, asked)
    for _ in range(2):
        _same(first, [*model.stream(asked)])
    return f"{len(first)} answers"


@check("streams.none", "7.11", "a stream without answers ends without an error")
def _none(subject: Subject) -> None:
    model = _streaming(subject)
    if _own(subject):
        raise NotApplicable("the role 'stream' says what it is asked")
    _read(subject, model, _elements(model, 0))


@check("streams.only", "7.11", "asked for one answer, a session that streams is NOT_OFFERED")
def _only(subject: Subject) -> None:
    model = _streaming(subject)
    refused(["NOT_OFFERED"], lambda: model.infer(_ask(subject, model)))


@check("streams.refused", "7.11", "what is wrong with a request is told before its first answer")
def _refused(subject: Subject) -> None:
    model = _streaming(subject)
    asked = _ask(subject, model)
    refused(["UNKNOWN_INPUT"], lambda: model.stream({**asked, "nnrp_conform_no_such_input": np.float32(1)}))
    refused(["UNKNOWN_OUTPUT"], lambda: model.stream(asked, outputs=["nnrp_conform_no_such_output"]))
    _read(subject, model, asked)


@check("streams.threads", "8.2", f"{_THREADS} streams at once each give their own answers")
def _threads(subject: Subject) -> None:
    model = _streaming(subject)

    def read(thread: int) -> tuple[Any, Answers]:
        asked = _ask(subject, model) if _own(subject) else _elements(model, _SHORT, 100 * thread)
        return asked, [*model.stream(asked)]

    with ThreadPoolExecutor(_THREADS) as pool:
        several = [*pool.map(read, range(_THREADS))]
    for asked, answers in several:
        _right(subject, model, asked, answers)
        _same([*model.stream(asked)], answers)


@check("streams.left", "8.13", f"a stream that is left ends within {SOON:g} s, and the next is answered")
def _left(subject: Subject) -> str:
    model = _streaming(subject)
    asked = _ask(subject, model)
    with model.stream(_ask(subject, model, _LONG)) as stream:
        next(stream, None)
    took = ends(model)
    _read(subject, model, asked)
    return f"{took:.2f} s"


@check("streams.deadline", "7.11", f"a stream is answered DEADLINE within {SOON:g} s of its deadline, and ends")
def _deadline(subject: Subject) -> str:
    model = _streaming(subject)
    stream, begun = model.stream(_ask(subject, model, _LONG), timeout=_TIMEOUT), time.monotonic()
    try:
        # Read too slowly, so that it cannot be over in time: a few answers wait for their reader, and no more.
        next(stream, None)
        threading.Event().wait(max(0.0, begun + _TIMEOUT - time.monotonic()))
        count = sum(1 for _ in stream)
    except DeadlineExceeded:
        late = time.monotonic() - begun - _TIMEOUT
        if late > SOON:
            raise Failed(f"DEADLINE within {SOON:g} s", f"DEADLINE after {late:.2f} s") from None
        ends(model)
        return f"{late:.2f} s late"
    if not _own(subject):
        raise Failed("DEADLINE", f"the end after {1 + count} answers")
    raise NotApplicable(f"its stream was over within {_TIMEOUT} s")


@check("streams.fails", "7.11", "a stream that fails ends with a typed error that tells no path, and the next is answered")
def _fails(subject: Subject) -> str:
    _streaming(subject)
    model = subject.load_or_skip("stream_failing")
    error = _failure(model, subject.inputs("stream_failing", model=model) or {})
    typed(error)
    if error.code == "CANCELLED":
        raise Failed("why it failed", told(error))
    good = subject.inputs("stream_failing", "then", model)
    if good is not None:
        _same([*model.stream(good)], [*model.stream(good)])
    return told(error)


@check("streams.leak", "8.13", "streams that are read, and that are left, leave nothing behind")
def _leak(subject: Subject) -> str:
    model = _streaming(subject)
    asked, long = _ask(subject, model), _ask(subject, model, _LONG)

    def read() -> None:
        for _ in model.stream(asked):
            pass
        with model.stream(long) as stream:
            next(stream, None)

    return grown(subject, read, "streams")


#: What a runtime whose sessions give one answer is not asked.
STREAMING = frozenset(id for id in CHECKS if id.startswith("streams.")) - {"streams.one_answer"}


def _streaming(subject: Subject) -> Model:
    try:
        model = subject.load_or_skip("stream")
    except (NotApplicable, NotOffered) as why:
        raise NotApplicable(f"not offered: {why}") from why
    session: Any = model.session
    if session.streams:
        return model
    if subject.gives("stream"):
        raise Failed("a session that streams, as the role 'stream' says", "one that gives one answer")
    raise NotApplicable("not offered: its sessions give one answer to a request")


def _own(subject: Subject) -> bool:
    """Whether whoever gives the model says what it is asked; then its answers are only known to be the same each time."""
    return subject.role("stream").get("ask") is not None


def _ask(subject: Subject, model: Model, count: int = _SHORT) -> dict[str, Any]:
    return subject.inputs("stream", model=model) or _elements(model, count)


def _elements(model: Model, count: int, first: int = 0) -> dict[str, Any]:
    return {model.inputs[0].name: np.arange(first, first + count, dtype=np.float32)}


def _read(subject: Subject, model: Model, asked: dict[str, Any]) -> Answers:
    answers = [*model.stream(asked)]
    _right(subject, model, asked, answers)
    return answers


def _right(subject: Subject, model: Model, asked: dict[str, Any], answers: Answers) -> None:
    if _own(subject):
        return
    expected = affine(asked[model.inputs[0].name])
    if len(answers) != len(expected):
        raise Failed(f"{len(expected)} answers", f"{len(answers)}")
    for element, one in zip(expected, answers, strict=True):
        expect(element.reshape(1), one[model.outputs[0].name])


def _same(first: Answers, again: Answers) -> None:
    if len(first) != len(again):
        raise Failed(f"{len(first)} answers, as before", f"{len(again)}")
    for one, other in zip(first, again, strict=True):
        for name, expected in one.items():
            expect(np.asarray(expected), np.asarray(other[name]))


def _failure(model: Model, asked: dict[str, Any]) -> NnrpError:
    count = 0
    try:
        for _ in model.stream(asked):
            count += 1
    except NnrpError as error:
        return error
    raise Failed("an error", f"the end after {count} answers")
