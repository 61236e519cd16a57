"""Carrying the suite out, here or in a process of its own."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnrp.errors import InvalidOption
from nnrp.testing import contract, costs, datatypes, requests, running, shapes, streams, zoo
from nnrp.testing.claims import CHECKS, Check, Failed, NotApplicable, chosen, told
from nnrp.testing.report import Outcome, Report
from nnrp.testing.subject import Subject

if TYPE_CHECKING:
    from nnrp.engine import Isolation
    from nnrp.runtimes.contract import Runtime
    from nnrp.testing.subject import Source
    from nnrp.testing.zoo import Writer

#: Their import adds their checks.
MODULES = (contract, costs, datatypes, requests, running, shapes, streams)
LOADS, THOROUGH = 100, 1000
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Plan:
    """What to check, as one JSON document can say it unless the runtime or a model is an object."""

    runtime: str | Runtime
    plugins: Sequence[str] = ()
    models: Mapping[str, Source] = field(default_factory=dict)
    writer: str | Writer | None = None
    tolerance: float | None = None
    reference: str | None = None
    loads: int = LOADS
    isolation: Isolation = "none"

    def words(self) -> dict[str, Any]:
        """Give everything but the runtime by name."""
        return {name: getattr(self, name) for name in ("plugins", "models", "writer", "tolerance", "reference", "loads", "isolation")}

    def document(self, checks: Sequence[str]) -> str:
        """Write it down for another process.

        Raises:
            InvalidOption: it has objects that only this process has.
        """
        if not isinstance(self.runtime, str):
            raise InvalidOption("isolate: expected the name of a runtime, got an object, which only this process has")
        try:
            return json.dumps({"runtime": self.runtime, "words": self.words(), "checks": list(checks)}, default=os.fspath)
        except TypeError as error:
            raise InvalidOption("models and writer: expected what JSON can say, or isolate=False") from error


def check_runtime(
    runtime: str | Runtime,
    *,
    models: Mapping[str, Source] | None = None,
    writer: str | Writer | None = None,
    quirks: Mapping[str, str] | None = None,
    tolerance: float | None = None,
    plugins: Sequence[str | os.PathLike[str]] = (),
    reference: str | None = None,
    only: Collection[str] = (),
    loads: int = LOADS,
    isolate: bool = False,
    isolation: Isolation = "none",
    timeout: float = 300.0,
    progress: Progress | None = None,
) -> Report:
    """Check that a runtime keeps the contract (spec §8).

    Args:
        runtime: a runtime, or the name of one that is there or that an installed package brings.
        models: role → what plays it: a path, or a dict of what `Engine.load` takes, and `ask`, `then` and `expected`. The roles are `affine`,
            `batch`, `positions`, `slow`, `failing`, `numerics`, `stream`, `stream_failing`, `rank_0` … `rank_6`, and `identity_fp32` and so on.
        writer: makes those not given, in a format that the runtime reads: a function of a `nnrp.testing.zoo.Graph` and a folder, or its ``module:function``;
            default: what the runtime's package brings through the entry-point group `nnrp.zoo`, else, for a runtime that reads ONNX, ONNX files.
        quirks: id of a check → why the runtime is known not to pass it.
        tolerance: largest error of the numbers, relative to the largest of the reference's; default: the datatype's.
        plugins: shared libraries that bring the runtime.
        reference: the runtime that the numbers are compared with; default: ONNX Runtime, else the evaluator of the onnx package.
        only: groups, such as "contract", and checks, such as "datatypes.fp64"; default: all.
        loads: how many loads must leave nothing behind.
        isolation: "process" gives every model under test a process of its own, as `Engine.load` does.
        isolate: run in a process of its own, so that a crash is the failure of the check that ran; needs the name of a runtime.
        timeout: seconds after which a check that runs in a process of its own is ended.
        progress: is told which check runs, and which share of all is done.

    Raises:
        RuntimeNotInstalled: there is no such runtime.
        InvalidOption: there is no such check, no such role, or no runtime.
    """
    quirks = quirks or {}
    unknown = [id for id in quirks if id not in CHECKS]
    if unknown:
        raise InvalidOption(f"quirk '{unknown[0][:96]}': there is no such check")
    zoo.check_roles(models or ())
    if not isinstance(getattr(runtime, "name", runtime), str):
        raise InvalidOption(f"runtime: expected a name, or an object with one, got {runtime!r:.96}")
    plan = Plan(runtime, [os.fspath(plugin) for plugin in plugins], models or {}, writer, tolerance, reference, loads, isolation)
    ids = chosen(only)
    about: dict[str, Any] = {}

    def tell(check: str) -> None:
        if progress:
            progress(check, ids.index(check) / len(ids))

    if isolate:
        from nnrp.testing.child import carry_out_elsewhere

        found = tuple(carry_out_elsewhere(plan, ids, timeout, about, tell))
    else:
        found = tuple(carry_out(plan, ids, about, tell))
    name = runtime if isinstance(runtime, str) else runtime.name
    return Report(name, str(about.get("version", "")), tuple(_excused(outcome, quirks) for outcome in found))


def _excused(outcome: Outcome, quirks: Mapping[str, str]) -> Outcome:
    if outcome.id not in quirks:
        return outcome
    if outcome.verdict == "fail":
        return replace(outcome, verdict="quirk", text=quirks[outcome.id])
    return replace(outcome, text=f"declared as a quirk, which it is not here: {quirks[outcome.id]}")


def carry_out(plan: Plan, ids: Iterable[str], about: dict[str, Any], tell: Callable[[str], None]) -> Iterator[Outcome]:
    """Run the checks in this process, one by one; none hides another.

    What the runtime tells of itself is put into `about` before the first outcome; `tell` is told which check begins.
    """
    with tempfile.TemporaryDirectory(prefix="nnrp-conform-") as folder:
        subject = Subject(plan.runtime, Path(folder), **plan.words())
        about.update(subject.about)
        for id in ids:
            tell(id)
            yield _outcome(CHECKS[id], subject)


def _outcome(check: Check, subject: Subject) -> Outcome:
    begun = time.perf_counter()

    def made(verdict: str, **words: str) -> Outcome:
        return Outcome(check.id, check.spec, check.claim, verdict, seconds=round(time.perf_counter() - begun, 3), **words)

    try:
        return made("pass", text=check.run(subject) or "")
    except NotApplicable as why:
        return made("na", text=str(why))
    except Failed as failed:
        return made("fail", expected=failed.expected, got=failed.got)
    except Exception as error:  # noqa: BLE001 - whatever a runtime raises is what its check found
        return made("fail", expected="no error", got=told(error))
