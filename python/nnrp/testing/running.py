"""Checks of runs beside each other, of runs that nobody waits for, and of runs that fail."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from nnrp.errors import DeadlineExceeded, NnrpError
from nnrp.model import Model
from nnrp.testing.claims import Failed, NotApplicable, check, told, typed
from nnrp.testing.shapes import affine, answer
from nnrp.testing.subject import Subject

_THREADS, _CALLS = 4, 60
#: When nobody waits for the slow run any more; how long the answer, and the end of the run, may take from then on; in seconds.
_TIMEOUT, SOON, _LOOK = 0.1, 2.0, 0.01


@check("concurrency.threads", "8.2", f"{_THREADS} threads × {_CALLS} calls with different inputs are all answered right")
def _threads(subject: Subject) -> str:
    model = subject.load("affine")
    session: Any = model.session

    def ask(thread: int) -> list[str]:
        odd = []
        for turn in range(_CALLS):
            x = np.full(64 + turn, 1000 * thread + turn, np.float32)
            try:
                if not np.array_equal(answer(model, x), affine(x)):
                    odd.append("a wrong answer")
            except NnrpError as error:
                odd.append(told(error))
        return odd

    with ThreadPoolExecutor(_THREADS) as pool:
        odd = [one for each in pool.map(ask, range(_THREADS)) for one in each]
    declared = "one call at a time" if session.exclusive else "any number of calls at once"
    if odd:
        raise Failed(f"{_THREADS * _CALLS} right answers ({declared})", f"{len(odd)} that were not; the first: {odd[0]}")
    return declared


@check("cancellation.deadline", "7.4", f"a run is answered DEADLINE within {SOON:g} s of its deadline")
def _deadline(subject: Subject) -> str:
    model, inputs = _slow(subject)
    late = _out_of_time(model, inputs)
    return f"{late:.2f} s late"


@check("cancellation.stops", "8.2", f"a run that says it can be stopped ends within {SOON:g} s of its deadline")
def _stops(subject: Subject) -> str:
    model, inputs = _stoppable(subject)
    _out_of_time(model, inputs)
    return f"{ends(model):.2f} s"


@check("cancellation.withdrawn", "8.2", f"a run that says it can be stopped ends within {SOON:g} s of being withdrawn")
def _withdrawn(subject: Subject) -> str:
    model, inputs = _stoppable(subject)

    async def withdraw() -> None:
        task = asyncio.create_task(model.infer_async(inputs))
        done, _ = await asyncio.wait([task], timeout=_TIMEOUT)
        if done:
            raise NotApplicable(f"its 'slow' took less than {_TIMEOUT} s")
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(withdraw())
    return f"{ends(model):.2f} s"


@check("cancellation.after", "8.2", "a session whose run was stopped answers the next one")
def _after(subject: Subject) -> None:
    model, inputs = _stoppable(subject)
    for _ in range(2):
        _out_of_time(model, inputs)
        ends(model)
    again = subject.inputs("slow", "then", model)
    if again is not None:
        model.infer(again, timeout=60)


def _slow(subject: Subject) -> tuple[Model, dict[str, Any]]:
    model = subject.load_or_skip("slow")
    ask = subject.inputs("slow", model=model)
    return model, ask or {spec.name: np.ones([1 if dim < 0 else dim for dim in spec.shape], np.float32) for spec in model.inputs}


def _stoppable(subject: Subject) -> tuple[Model, dict[str, Any]]:
    model, inputs = _slow(subject)
    session: Any = model.session
    if not session.cancellable:
        raise NotApplicable("its sessions say that a run cannot be stopped")
    return model, inputs


def _out_of_time(model: Model, inputs: dict[str, Any]) -> float:
    """Ask what is not answered in time, and give by how many seconds the answer is late."""
    begun = time.monotonic()
    try:
        asyncio.run(model.infer_async(inputs, timeout=_TIMEOUT))
    except DeadlineExceeded:
        late = time.monotonic() - begun - _TIMEOUT
        if late > SOON:
            raise Failed(f"DEADLINE within {SOON:g} s", f"DEADLINE after {late:.2f} s") from None
        return late
    raise NotApplicable(f"its 'slow' was answered within {_TIMEOUT} s or did not look at the clock")


def ends(model: Model) -> float:
    """Wait until the engine has counted every run of the model, which it does when they end."""
    begun, pause = time.monotonic(), threading.Event()
    while not _counted(model):
        if time.monotonic() - begun > SOON:
            raise Failed(f"the run's end within {SOON:g} s", "a run that goes on")
        pause.wait(_LOOK)
    return time.monotonic() - begun


def _counted(model: Model) -> bool:
    told = model.statistics()
    return bool(told["success_count"] + sum(told["failures"].values()))


@check("errors.run", "8.5", "a run that fails is RUN_FAILED with the runtime's text")
def _run(subject: Subject) -> str:
    error = _failure(subject)
    if error.reason != "RUN_FAILED" or len(error.message) < len("runtime x: y"):
        raise Failed("RUN_FAILED with a text", told(error))
    return told(error)


@check("errors.private", "5.5", "a run that fails tells no path and no traceback")
def _private(subject: Subject) -> None:
    typed(_failure(subject))


@check("errors.lives", "7.7", "a session whose run failed answers the next request")
def _lives(subject: Subject) -> None:
    model = subject.load_or_skip("failing")
    good = subject.inputs("failing", "then", model)
    if good is None:
        raise NotApplicable("the role 'failing' has no 'then'")
    model.infer(good)
    for _ in range(3):
        _fail(model, subject)
        model.infer(good)


@check("errors.reasons", "5.1", "every error of a load is one of the table, and never our defect")
def _reasons(subject: Subject) -> None:
    tries: list[Callable[[], Any]] = [
        lambda: subject.load("affine", format="no_such_format"),
        lambda: subject.load("affine", precision="exact"),
        lambda: subject.load("affine", device=""),
    ]
    for call in tries:
        try:
            call()
        except NnrpError as error:
            typed(error)


def _failure(subject: Subject) -> NnrpError:
    return _fail(subject.load_or_skip("failing"), subject)


def _fail(model: Model, subject: Subject) -> NnrpError:
    try:
        answered = model.infer(subject.inputs("failing", model=model) or {})
    except NnrpError as error:
        return error
    raise Failed("RUN_FAILED", f"{list(answered)}")
