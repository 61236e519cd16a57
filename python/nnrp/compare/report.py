"""What a comparison found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .candidate import Candidate
from .difference import Difference

#: Verdict → what people read.
VERDICTS = {"reference": "reference", "same": "same", "within": "within tolerance", "differs": "differs", "failed": "failed"}


@dataclass(frozen=True)
class Failure:
    """Why a candidate gave no answers.

    Attributes:
        stage: what it was doing: "loading", "case NAME", "timing".
        reason: the error's reason; LOST when its process crashed or did not end.
        message: for people.
        log: the end of what a lost process printed.
    """

    stage: str
    reason: str
    message: str
    log: str = ""

    def __str__(self) -> str:
        return f"{self.stage}: {self.message}" + (f" ({self.reason})" if self.reason != "LOST" else "")


@dataclass(frozen=True)
class Latency:
    """How long answers took, one caller, after a warm-up."""

    samples_ms: tuple[float, ...]

    def at(self, percent: float) -> float:
        """Give a percentile in milliseconds."""
        return float(np.percentile(self.samples_ms, percent))

    def to_json(self) -> dict[str, Any]:
        """Tell the runs and what they came to."""
        shown = {"p50": self.at(50), "p99": self.at(99), "min": min(self.samples_ms), "mean": sum(self.samples_ms) / len(self.samples_ms)}
        return {"runs": len(self.samples_ms)} | {key: round(value, 6) for key, value in shown.items()}


@dataclass(frozen=True)
class Result:
    """One candidate: what it is, how it answered, what it took.

    Attributes:
        session: what the session tells of itself: runtime, version, format, device, settings …; empty when it could not be loaded.
        differences: one for each output; none for the reference and for what failed.
        load_s: from the call to the loaded model, the runtime's library included.
        memory_bytes: how much the process's resident memory grew by loading and running; None where the system does not tell.
        repeatable: whether the first case, asked again, got the same bits.
        notes: what people should know, such as how outputs of other names were matched.
    """

    candidate: Candidate
    session: Mapping[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    differences: tuple[Difference, ...] = ()
    is_reference: bool = False
    latency: Latency | None = None
    load_s: float | None = None
    memory_bytes: int | None = None
    repeatable: bool = True
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the candidate is called."""
        return self.candidate.name

    @property
    def precision(self) -> str:
        """How exact its numbers really are, as the session tells; else as was asked."""
        told: str = (self.session.get("settings") or {}).get("precision") or self.candidate.precision
        return told

    @property
    def verdict(self) -> str:
        """`reference`, `same`, `within` (the tolerance), `differs` or `failed`."""
        if self.failure is not None:
            return "failed"
        if self.is_reference:
            return "reference"
        return max((one.verdict for one in self.differences), key=list(VERDICTS).index, default="same")

    def worst(self) -> Difference | None:
        """Give the difference that decides: the first that is not within tolerance by the most, as a share of it."""
        return max(self.differences, key=_share, default=None)

    def largest(self, field: str) -> float | None:
        """Give the largest `max_abs`, `max_rel` or `mean_abs` of any output."""
        return max((value for one in self.differences if (value := getattr(one, field)) is not None), default=None)

    def to_json(self) -> dict[str, Any]:
        """Tell everything as plain values."""
        one = self.candidate
        told = {"name": one.name, "model": one.path.name, "verdict": self.verdict, "reason": None if self.failure is None else _plain(vars(self.failure))}
        asked = {"runtime": one.choice.runtime, "device": one.choice.device, "precision": one.precision, "options": dict(one.choice.options)}
        taken = {"load_s": self.load_s, "memory_bytes": self.memory_bytes, "latency_ms": None if self.latency is None else self.latency.to_json()}
        errors = {field: _plain(self.largest(field)) for field in ("max_abs", "max_rel", "mean_abs")}
        outputs = [_plain(vars(one) | {"where": one.where and vars(one.where), "verdict": one.verdict}) for one in self.differences]
        return (
            told
            | {"asked": asked, "session": dict(self.session) or None}
            | errors
            | taken
            | {"repeatable": self.repeatable, "outputs": outputs, "notes": list(self.notes)}
        )


def _share(one: Difference) -> float:
    if one.note or one.max_rel is None:
        return math.inf if one.verdict == "differs" else 0.0
    return one.max_rel / one.tolerance if one.tolerance else math.inf if one.differing else 0.0


@dataclass(frozen=True)
class Report:
    """A comparison's outcome: one result for each candidate, in the order asked for.

    Attributes:
        reference: the name of the candidate that the others were measured against.
        cases: where the inputs came from.
        about: the inputs, for people.
        tolerances: those that were given: output name → tolerance, "" for all.
        names: the names that were given: in another file → in the reference's.
        stale: what no longer is as it was when the comparison was pinned.
        notes: what was left out, and why.
    """

    results: tuple[Result, ...]
    reference: str
    cases: Mapping[str, Any]
    about: tuple[str, ...]
    tolerances: Mapping[str, float]
    names: Mapping[str, str]
    stale: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def status(self) -> int:
        """0: all the same or within tolerance; 1: one differs, or is not what was pinned; 2: one failed."""
        verdicts = {result.verdict for result in self.results}
        return 2 if "failed" in verdicts else 1 if "differs" in verdicts or self.stale else 0

    @property
    def fastest(self) -> Result | None:
        """The result with the lowest median latency."""
        timed = [result for result in self.results if result.latency is not None]
        return min(timed, key=lambda result: result.latency.at(50) if result.latency else math.inf, default=None)

    def to_json(self) -> dict[str, Any]:
        """Tell everything as plain values; a NaN or an infinity is text."""
        told = {"status": self.status, "reference": self.reference, "cases": dict(self.cases), "tolerances": dict(self.tolerances)}
        return told | {"results": [result.to_json() for result in self.results], "stale": list(self.stale), "notes": list(self.notes)}

    def table(self, color: bool = False, width: int | None = None) -> str:
        """Write it for a terminal, `width` columns wide; default: as wide as it must be."""
        from .table import write

        return write(self, color, width)

    def html(self) -> str:
        """Write it as one HTML document with its charts, which loads nothing."""
        from .html import write

        return write(self)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
