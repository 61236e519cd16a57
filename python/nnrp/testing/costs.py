"""Checks of what loads leave behind, and of the numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nnrp.compare import invent, tolerance
from nnrp.compare.difference import Tally, datatype_of
from nnrp.compare.memory import resident
from nnrp.compare.signature import Port
from nnrp.errors import NnrpError
from nnrp.model import Model
from nnrp.testing.claims import Failed, NotApplicable, check
from nnrp.testing.shapes import affine, answer, expect
from nnrp.testing.subject import NAME, Subject

#: What loads may leave behind: a part for pools that fill up, and a part for each load; in bytes.
_POOLS, _EACH = 4 << 20, 4 << 10
#: The share of the loads that comes first and is not measured.
_WARM_UP = 0.25
#: How often too much must stay behind.
_ROUNDS = 3
_CASES = 8
_ROUNDING = 1e-6


@check("leaks.loads", "8.1", f"loads, runs and unloads leave at most {_POOLS >> 20} MiB and {_EACH >> 10} KiB a load behind")
def _loads(subject: Subject) -> str:
    engine, x = subject.engine(), np.arange(256, dtype=np.float32)

    def load() -> None:
        expect(affine(x), answer(subject.load("affine", engine), x))
        engine.unload(NAME)

    return grown(subject, load, "loads")


def grown(subject: Subject, work: Callable[[], None], what: str) -> str:
    """Do it as often as the suite loads models, and tell what stays behind.

    Raises:
        Failed: too much does, each time.
    """
    for _ in range(max(10, int(subject.loads * _WARM_UP))):
        work()
    # What leaks grows each time; what an allocator or a runtime's pool takes at once and keeps does not.
    for _ in range(_ROUNDS):
        before = _resident()
        for _ in range(subject.loads):
            work()
        kept, bound = max(0, _resident() - before), _POOLS + _EACH * subject.loads
        if kept <= bound:
            return f"{kept >> 10:,} KiB after {subject.loads} {what}"
    raise Failed(f"at most {bound >> 10:,} KiB after {subject.loads} {what}", f"{kept >> 10:,} KiB, and too much each time")


def _resident() -> int:
    told = resident()
    if told is None:
        raise NotApplicable("this system does not tell a process's memory")
    return told


@check("leaks.again", "8.1", "a model that was unloaded can be loaded again, and twice at once")
def _again(subject: Subject) -> None:
    x = np.array([1, 2], np.float32)
    engines = [subject.engine() for _ in range(2)]
    models = [subject.load("affine", engine) for engine in engines]
    expect(affine(x), answer(models[0], x))
    engines[0].unload(NAME)
    expect(affine(x), answer(models[1], x))
    expect(affine(x), answer(subject.load("affine", engines[0]), x))


@check("numerics.affine", "8.4", f"2x + 1 is right to {_ROUNDING:g} for numbers of every size")
def _affine(subject: Subject) -> None:
    generator = np.random.default_rng(0)
    x = (generator.standard_normal(4096) * 10.0 ** generator.integers(-20, 20, 4096)).astype(np.float32)
    expected, got = affine(x), answer(subject.load("affine"), x)
    off = np.abs(got.astype(np.float64) - expected) / np.maximum(np.abs(expected), 1)
    if not off.max() <= _ROUNDING:
        raise Failed(f"{expected[off.argmax()]}", f"{got[off.argmax()]}")


@check("numerics.reference", "8.4", "the numbers are the reference's, within the tolerance")
def _reference(subject: Subject) -> str:
    spec = subject.role("numerics")
    model = subject.load_or_skip("numerics")
    if spec.get("expected") is not None:
        case = subject.inputs("numerics", "expected") or {}
        inputs, expected = ([{port.name: case[port.name] for port in side if port.name in case}] for side in (model.inputs, model.outputs))
        if not any(expected):
            raise Failed(f"an output of {', '.join(port.name for port in model.outputs)} in the file", "none")
        right = "what was given"
    else:
        other = _other(subject)
        session: Any = other.session
        right = f"{session.runtime} {session.version}"
        inputs = [dict(case.inputs) for case in _invented(model)]
        # By place, because a format may lose their names.
        asked = [{port.name: case[own.name] for port, own in zip(other.inputs, model.inputs, strict=True)} for case in inputs]
        told = [other.infer(case) for case in asked]
        expected = [{own.name: case[port.name] for port, own in zip(other.outputs, model.outputs, strict=True)} for case in told]
    said = [_compare(subject, model, wanted, model.infer(given), right) for given, wanted in zip(inputs, expected, strict=True)]
    return max(said)


def _invented(model: Model) -> Any:
    ports = [Port(port.name, port.datatype, port.shape, port.optional) for port in model.inputs]
    return invent.random(_CASES, 0, ports)


def _other(subject: Subject) -> Model:
    """Load the same model with the runtime that is right."""
    said = []
    for runtime in [subject.reference] if subject.reference else ["onnxruntime", "reference"]:
        if runtime == subject.name:
            continue
        try:
            return subject.load_elsewhere("numerics", runtime)
        except NnrpError as error:
            if subject.reference:
                raise
            said.append(f"{runtime}: {error.reason}")
    raise NotApplicable(f"no reference but itself ({', '.join(said) or 'none reads it'}): give expected outputs")


def _compare(subject: Subject, model: Model, expected: Mapping[str, Any], got: Mapping[str, Any], right: str) -> str:
    session: Any = model.session
    worst = 0.0
    for name, wanted in expected.items():
        tally = Tally(name)
        tally.add("0", wanted, got[name])
        precision = str(session.settings.get("precision", "strict"))
        bound = tolerance.of(name, tally.datatypes, [precision], {} if subject.tolerance is None else {"": subject.tolerance})
        found = tally.result(bound, datatype_of(got[name]))
        if found.verdict == "differs":
            where = f" at {list(found.where.index)}: {found.where.got} for {found.where.reference}" if found.where else ""
            raise Failed(f"'{name}' within {bound:g} of {right}", found.note or f"an error of {found.max_rel or float('inf'):.2g}{where}")
        worst = max(worst, found.max_rel or 0.0)
    return f"{worst:.1e} from {right}" if worst else f"equal to {right}"
