"""The comparison itself: each candidate in its own process, one after another, the same inputs for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from nnrp.errors import InvalidOption, LoadFailed, NnrpError

from . import candidate as candidates
from . import cases as made
from . import invent, tolerance
from .candidate import Candidate, Choice
from .cases import Case, Cases
from .child import Child, Lost
from .judge import Hear, Judge, Kept
from .report import Failure, Latency, Report, Result
from .signature import Signature, pair, read

MOST_RUNS = 2_000
Progress = Callable[[str, float], object]


@dataclass(frozen=True)
class Plan:
    """What to compare; `nnrp.compare.compare` says what each is."""

    paths: tuple[Path, ...]
    choices: tuple[Choice, ...]
    precisions: tuple[str, ...]
    inputs: Path | None = None
    random: int = 4
    seed: int = 0
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    tolerances: Mapping[str, float] = field(default_factory=dict)
    reference: str | None = None
    seconds: float = 2.0
    timeout_s: float = 600.0
    fixed: tuple[Candidate, ...] = ()


def run(plan: Plan, progress: Progress) -> Report:
    """Compare.

    Args:
        plan: what.
        progress: is told what happens now, and the share that is done.
    """
    everyone, notes = candidates.plan(plan.paths, plan.choices, plan.precisions, _offered(plan), plan.fixed)
    reference = candidates.reference(everyone, plan.reference)
    paths = dict.fromkeys(one.path for one in (reference, *everyone))
    signature, *others = [_signature(path, everyone, plan) for path in paths]
    if signature is not None:
        tolerance.check(plan.tolerances, [port.name for port in signature.outputs])
        _check_names(plan.names, signature)
    cases = _cases(plan, signature, [other for other in others if other is not None])
    results, seen = {}, set[str]()
    with closing(Kept()) as kept_answers:
        for index, one in enumerate([reference, *(one for one in everyone if one is not reference)]):
            judge = None if one is reference else Judge(kept_answers, signature, plan.names)
            hear = kept_answers.hear if judge is None else judge.hear
            result, there = _ask(one, plan, cases, signature, hear, partial(_part, progress, index, len(everyone)))
            results[one.name] = replace(result, is_reference=True) if judge is None else judge.result(result, plan.tolerances)
            kept_answers.result = kept_answers.result or result
            seen |= _names(there)
    kept, left_out = _without_refusals([results[one.name] for one in everyone])
    left_out += [f"name {there}={here}: no file has an input or output '{there}'" for there, here in plan.names.items() if there not in seen]
    origin = {**cases.origin, "sha256": cases.digest()}
    return Report(tuple(kept), reference.name, origin, (cases.about, *cases.inputs), plan.tolerances, plan.names, notes=(*notes, *left_out))


def _names(signature: Signature | None) -> set[str]:
    return {port.name for port in (*signature.inputs, *signature.outputs)} if signature else set()


def _check_names(names: Mapping[str, str], signature: Signature) -> None:
    for there, here in names.items():
        if here not in _names(signature):
            known = ", ".join(port.name for port in (*signature.inputs, *signature.outputs))
            raise InvalidOption(f"name {there}={here}: expected one of {known}, which the reference's file has, got {here}")


def _offered(plan: Plan) -> list[dict[str, Any]]:
    """What the runtimes of this machine tell of themselves, in a process that they may take with them."""
    try:
        with Child(plan.timeout_s) as child:
            offered: list[dict[str, Any]] = child.ask({"runtimes": True})[0]["runtimes"]
            return offered
    except Lost as lost:
        if plan.choices:
            return []
        raise LoadFailed(f"looking for runtimes: {lost.how}; name those to compare") from lost


def _part(progress: Progress, index: int, of: int, what: str, share: float) -> None:
    progress(what, (index + share) / of)


def _signature(path: Path, everyone: Sequence[Candidate], plan: Plan) -> Signature | None:
    """What a file takes and gives: from the file itself, else from the first candidate that loads it."""
    import nnrp

    with suppress(NnrpError):
        if told := nnrp.inspect(path)["signature"]:
            return read(told)
    for one in everyone:
        if one.path == path:
            try:
                with Child(plan.timeout_s) as child:
                    return read(child.ask({"load": {"path": str(path)} | one.settings()})[0])
            except (NnrpError, Lost):
                continue
    return None


def _cases(plan: Plan, signature: Signature | None, others: Sequence[Signature]) -> Cases:
    if signature is None:
        return Cases(0, lambda: iter(()), {"kind": "none"}, "no cases: the reference's model could not be read")
    if plan.inputs is not None:
        return made.from_files(plan.inputs, signature.inputs)
    twins = []
    for other in others:
        try:
            known, _ = pair(signature.inputs, other.inputs, plan.names, "inputs")
        except NnrpError:
            continue  # Its row will say so.
        ports = {port.name: port for port in other.inputs}
        twins.append([ports[known[port.name]] for port in signature.inputs])
    return invent.random(plan.random, plan.seed, signature.inputs, twins, plan.shapes, plan.ranges)


def _ask(one: Candidate, plan: Plan, cases: Cases, wanted: Signature | None, hear: Hear, progress: Progress) -> tuple[Result, Signature | None]:
    """Load a candidate and get its answers and its times; what goes wrong is its result. Give also what it takes and gives."""
    stage, result, there = "loading", Result(one), None
    try:
        with Child(plan.timeout_s + plan.seconds) as child:
            progress(f"{one.name}: loading", 0.0)
            loaded, _ = child.ask({"load": {"path": str(one.path)} | one.settings()})
            session = loaded["loaded"]
            load_s, memory = session.pop("load_s"), session.pop("memory_bytes")
            result, there = Result(one, session, load_s=load_s, memory_bytes=memory), read(loaded)
            stage = "inputs"
            put, note = _putter(there, wanted, cases, plan.names)
            for index, case in enumerate(cases):
                stage = "inputs"
                inputs = put(case)
                stage = f"case {case.name}"
                progress(f"{one.name}: {stage}", 0.1 + 0.6 * index / len(cases))
                hear(there, case.name, child.ask({"run": True}, inputs)[1])
            stage = "timing"
            progress(f"{one.name}: {stage}", 0.7)
            timed = child.ask({"time": {"seconds": plan.seconds, "most": MOST_RUNS}})[0]["timed"]
    except NnrpError as error:
        return replace(result, failure=Failure(stage, error.reason, error.message)), there
    except Lost as lost:
        return replace(result, failure=Failure(stage, "LOST", lost.how, lost.log)), there
    latency = Latency(tuple(taken / 1e6 for taken in timed["latencies_ns"]))
    notes = (note,) if note else ()
    return replace(result, latency=latency, memory_bytes=timed["memory_bytes"], repeatable=timed["repeatable"], notes=notes), there


def _putter(there: Signature, wanted: Signature | None, cases: Cases, names: Mapping[str, str]) -> tuple[Callable[[Case], dict[str, Any]], str]:
    """What gives a case under a candidate's own names, in its own datatypes."""
    if wanted is None or not len(cases):
        raise InvalidOption("expected cases, and the reference's model could not be read, so there are none")
    known, note = pair(wanted.inputs, there.inputs, names, "inputs")
    datatypes = {port.name: port.datatype for port in there.inputs}

    def put(case: Case) -> dict[str, Any]:
        return {known[name]: made.exact(value, datatypes[known[name]], name) for name, value in case.inputs.items()}

    cast = [f"{port.name} as {datatypes[known[port.name]]}" for port in wanted.inputs if datatypes[known[port.name]] != port.datatype]
    return put, "; ".join([note] * bool(note) + [f"inputs given without loss: {', '.join(cast)}"] * bool(cast))


def _without_refusals(results: Sequence[Result]) -> tuple[list[Result], list[str]]:
    """Leave out what a runtime does not offer at one precision, where it takes part at another."""
    kept, notes = [], []
    works = [(result.candidate.path, result.candidate.choice) for result in results if result.failure is None]
    for result in results:
        one, failure = result.candidate, result.failure
        refused = failure is not None and failure.reason == "NOT_OFFERED" and failure.stage == "loading" and not result.is_reference
        if refused and (one.path, one.choice) in works:
            notes.append(f"{one.name} was left out: {failure.message if failure else ''}")
        else:
            kept.append(result)
    return kept, notes
