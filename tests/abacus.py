"""A runtime in Python whose models are the sessions that a test puts on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import nnrp
from nnrp.runtimes import Control, ModelSpec

Run = Callable[[dict[str, Any], Sequence[str], Control], Any]
X = np.float32([[1, 2], [3, 4]])


class Session:
    """What a test says it is; y = x unless it says otherwise."""

    inputs: Sequence[Any] = [("x", "FP32", (-1, 2))]
    outputs: Sequence[Any] = [("y", "FP32", (-1, 2))]

    def __init__(self, run: Run, **told: Any) -> None:
        self.run = run
        for name, value in told.items():
            setattr(self, name, value)


class Abacus:
    """A runtime whose models are the sessions that a test puts on it."""

    name = "abacus"
    formats = ()

    def __init__(self, **sessions: Session) -> None:
        self.sessions = sessions
        self.specs: list[ModelSpec] = []

    def info(self) -> dict[str, Any]:
        options = {"properties": {"beads": {"type": "integer", "minimum": 1}, "rods": {"items": {"type": "string"}}}}
        return {"version": "3", "formats": ["beads"], "devices": ["wood"], "options": options}

    def load(self, spec: ModelSpec) -> Session:
        self.specs.append(spec)
        return self.sessions[spec.name]


def engine_of(**sessions: Session) -> nnrp.Engine:
    engine = nnrp.Engine()
    engine.add_runtime(Abacus(**sessions))
    for name in sessions:
        engine.load(f"abacus:{name}", runtime="abacus")
    return engine


def model_of(run: Run, **told: Any) -> nnrp.Model:
    return engine_of(model=Session(run, **told)).model("model")


def gives(value: Any) -> Run:
    return lambda inputs, outputs, control: value


class Raises:
    """A run that raises."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, *_: Any) -> Any:
        raise self.error
