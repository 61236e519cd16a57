"""The child process: loads one candidate, answers its cases, and measures itself. Started by `nnrp.compare.child`."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import nnrp
from nnrp.compare.memory import resident
from nnrp.compare.wire import Wire, raw_of
from nnrp.errors import NnrpError
from nnrp.runtimes.trial import end_with
from nnrp.tensor import NAMES

_WARM_UPS, _LEAST = 2, 3
#: Most bytes of inputs that are kept to be timed with; at least one case is.
_KEPT = 64 << 20


def main() -> None:
    """Do what the other end asks, until it is gone."""
    # What a library prints goes to the log and not between the messages.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    wire = Wire(sys.stdin.buffer, answers)
    end_with(sys.stdin.fileno())
    try:
        asked, _ = wire.receive()
        if "load" in asked:
            _measure(wire, asked["load"])
        else:
            wire.send({"runtimes": nnrp.Engine().runtimes()})
    except NnrpError as error:
        wire.send({"error": {"code": error.code, "reason": error.reason, "message": error.message, "details": json.dumps(error.details)}})
    except (EOFError, BrokenPipeError):
        pass


def _measure(wire: Wire, load: dict[str, Any]) -> None:
    before = resident()
    started = time.perf_counter()
    # Files of any name may be compared; a model's name may not be any.
    model = nnrp.load(load.pop("path"), "candidate", **load)
    load_s = time.perf_counter() - started
    session: Any = model.session
    told = {**session._asdict(), "load_s": load_s, "memory_bytes": _grown(before, 0)}
    wire.send({"loaded": told, "inputs": [spec._asdict() for spec in model.inputs], "outputs": [spec._asdict() for spec in model.outputs]})
    cases: list[list[Any]] = []
    first, held, full = "", 0, False
    while "time" not in (asked := wire.receive())[0]:
        tensors = asked[1]
        case = [_value(tensors[spec.name]) if spec.name in tensors else None for spec in model.inputs]
        size = 0 if full else sum(len(raw_of(value)[2]) for value in tensors.values())
        full = full or (bool(cases) and held + size > _KEPT)
        if not full:
            cases.append(case)
            held += size
        outputs = model(*case)
        first = first or _digest(outputs)
        wire.send({"answered": True}, outputs)
    latencies = _time(model, cases, **asked[0]["time"])
    wire.send({"timed": {"latencies_ns": latencies, "memory_bytes": _grown(before, held), "repeatable": first == _digest(model(*cases[0]))}})


def _value(tensor: nnrp.Tensor) -> Any:
    plain = tensor.datatype != "BYTES" and "." not in NAMES[tensor.datatype]
    return tensor.numpy() if plain else tensor


def _time(model: nnrp.Model, cases: Sequence[Sequence[Any]], seconds: float, most: int) -> list[int]:
    for turn in range(_WARM_UPS):
        model(*cases[turn % len(cases)])
    taken: list[int] = []
    end = time.perf_counter() + seconds
    while len(taken) < _LEAST or (len(taken) < most and time.perf_counter() < end):
        case = cases[len(taken) % len(cases)]
        started = time.perf_counter_ns()
        model(*case)
        taken.append(time.perf_counter_ns() - started)
    return taken


def _digest(outputs: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for value in outputs.values():
        digest.update(raw_of(value)[2])
    return digest.hexdigest()


def _grown(before: int | None, held: int) -> int | None:
    now = resident()
    return None if before is None or now is None else max(0, now - before - held)


if __name__ == "__main__":
    main()
