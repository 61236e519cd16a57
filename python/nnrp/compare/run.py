"""The comparison itself: each candidate in its own process, one after another, the same inputs for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from nnrp.errors import InvalidOption, LoadFailed, NnrpError

from . import candidate as candidates
from . import cases as made
from . import invent, tolerance
from .candidate import Candidate, Choice
from .cases import Cases
from .child import Child, Lost
from .difference import Tally, datatype_of
from .report import Failure, Latency, Report, Result
from .signature import Port, Signature, pair, read

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


@dataclass(frozen=True)
class _Answers:
    """What one candidate answered: one dict of outputs for each case, under its own names."""

    result: Result
    signature: Signature | None = None
    outputs: tuple[Mapping[str, Any], ...] = ()


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
    told, results, seen = _Answers(Result(reference)), {}, set[str]()
    for index, one in enumerate([reference, *(one for one in everyone if one is not reference)]):
        answers = _ask(one, plan, cases, signature, partial(_part, progress, index, len(everyone)))
        # Only the reference's answers are kept.
        told = answers if one is reference else told
        results[one.name] = _judge(answers, told, plan, cases, signature)
        seen |= _names(answers.signature)
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
        return Cases((), {"kind": "none"}, "no cases: the reference's model could not be read")
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


def _ask(one: Candidate, plan: Plan, cases: Cases, wanted: Signature | None, progress: Progress) -> _Answers:
    """Load a candidate and get its answers and its times; what goes wrong is its result."""
    stage, told, outputs = "loading", _Answers(Result(one)), []
    try:
        with Child(plan.timeout_s + plan.seconds) as child:
            progress(f"{one.name}: loading", 0.0)
            loaded, _ = child.ask({"load": {"path": str(one.path)} | one.settings()})
            session = loaded["loaded"]
            load_s, memory = session.pop("load_s"), session.pop("memory_bytes")
            told = _Answers(Result(one, session, load_s=load_s, memory_bytes=memory), read(loaded))
            stage = "inputs"
            requests, note = _requests(told.signature, wanted, cases, plan.names)
            for index, (case, inputs) in enumerate(zip(cases.cases, requests, strict=True)):
                stage = f"case {case.name}"
                progress(f"{one.name}: {stage}", 0.1 + 0.6 * index / len(requests))
                outputs.append(child.ask({"run": True}, inputs)[1])
            stage = "timing"
            progress(f"{one.name}: {stage}", 0.7)
            timed = child.ask({"time": {"seconds": plan.seconds, "most": MOST_RUNS}})[0]["timed"]
    except NnrpError as error:
        return replace(told, result=replace(told.result, failure=Failure(stage, error.reason, error.message)))
    except Lost as lost:
        return replace(told, result=replace(told.result, failure=Failure(stage, "LOST", lost.how, lost.log)))
    latency = Latency(tuple(taken / 1e6 for taken in timed["latencies_ns"]))
    notes = (note,) if note else ()
    result = replace(told.result, latency=latency, memory_bytes=timed["memory_bytes"], repeatable=timed["repeatable"], notes=notes)
    return replace(told, result=result, outputs=tuple(outputs))


def _requests(there: Signature | None, wanted: Signature | None, cases: Cases, names: Mapping[str, str]) -> tuple[list[dict[str, Any]], str]:
    """The cases under a candidate's own names, in its own datatypes."""
    if there is None or wanted is None or not cases.cases:
        raise InvalidOption("expected cases, and the reference's model could not be read, so there are none")
    known, note = pair(wanted.inputs, there.inputs, names, "inputs")
    datatypes = {port.name: port.datatype for port in there.inputs}
    requests = []
    for case in cases.cases:
        requests.append({known[name]: made.exact(value, datatypes[known[name]], name) for name, value in case.inputs.items()})
    cast = [f"{port.name} as {datatypes[known[port.name]]}" for port in wanted.inputs if datatypes[known[port.name]] != port.datatype]
    return requests, "; ".join([note] * bool(note) + [f"inputs given without loss: {', '.join(cast)}"] * bool(cast))


def _judge(answers: _Answers, reference: _Answers, plan: Plan, cases: Cases, wanted: Signature | None) -> Result:
    result = answers.result
    if answers is reference:
        return replace(result, is_reference=True)
    if result.failure is not None:
        return result
    if reference.result.failure is not None or wanted is None or answers.signature is None:
        message = f"nothing to measure against: the reference {reference.result.name} failed; choose another with reference"
        return replace(result, failure=Failure("comparing", "NO_REFERENCE", message))
    try:
        known = (reference.signature or wanted).outputs
        theirs, _ = pair(wanted.outputs, known, plan.names, "outputs")
        tensors = {port.name: port.tensor for port in known}
        # Of the shapes that a signature leaves open the answers tell more.
        expected = [_answered(port, reference.outputs[0][theirs[port.name]], tensors[theirs[port.name]]) for port in wanted.outputs]
        ours, note = pair(expected, [_answered(port, answers.outputs[0][port.name]) for port in answers.signature.outputs], plan.names, "outputs")
        differences = []
        for name in (port.name for port in wanted.outputs):
            tally = Tally(name)
            for case, left, right in zip(cases.cases, reference.outputs, answers.outputs, strict=True):
                tally.add(case.name, left[theirs[name]], right[ours[name]])
            limit = tolerance.of(name, tally.datatypes, (result.precision, reference.result.precision), plan.tolerances)
            differences.append(tally.result(limit, datatype_of(answers.outputs[0][ours[name]])))
    except NnrpError as error:
        return replace(result, failure=Failure("comparing", error.reason, error.message))
    empty = [one.output for one in differences if not one.elements]
    told = [note] * bool(note) + [f"nothing was compared: no elements in {', '.join(empty)}"] * bool(empty)
    return replace(result, differences=tuple(differences), notes=(*result.notes, *told))


def _answered(port: Port, value: Any, tensor: str = "") -> Port:
    """An output as it was answered."""
    return replace(port, datatype=datatype_of(value), shape=tuple(int(size) for size in value.shape), tensor=port.tensor or tensor)


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
