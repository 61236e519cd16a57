"""What the suite found."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

#: Verdict → what people read.
VERDICTS = {"pass": "pass", "fail": "FAIL", "quirk": "quirk", "na": "n/a"}
_STYLES = {"pass": "green", "fail": "bold red", "quirk": "yellow", "na": "dim"}
_AS_LONG_AS_IT_MUST_BE = 10_000


@dataclass(frozen=True)
class Outcome:
    """What came of one check.

    Attributes:
        id: the group and the name: "contract.info".
        spec: the clause that it proves.
        claim: what holds of a runtime that passes.
        verdict: `pass`, `fail`, `quirk` (fails, and is declared), `na` (there is nothing to check).
        text: what was seen; why not; of a quirk what was declared.
        expected: of a failure.
        got: of a failure.
        seconds: how long it took.
    """

    id: str
    spec: str
    claim: str
    verdict: str
    text: str = ""
    expected: str = ""
    got: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Report:
    """What came of every check of one runtime."""

    runtime: str
    version: str
    outcomes: tuple[Outcome, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing failed but what was declared."""
        return not self.failures

    @property
    def status(self) -> int:
        """The status for scripts: 0 or 1."""
        return 0 if self.passed else 1

    @property
    def failures(self) -> dict[str, Outcome]:
        """The checks that failed, by id."""
        return {one.id: one for one in self.outcomes if one.verdict == "fail"}

    @property
    def counts(self) -> dict[str, int]:
        """How many checks have each verdict."""
        found = Counter(one.verdict for one in self.outcomes)
        return {verdict: found[verdict] for verdict in VERDICTS}

    def to_json(self) -> dict[str, Any]:
        """Give it as one JSON document."""
        told = {"runtime": self.runtime, "version": self.version, "passed": self.passed, "counts": self.counts}
        return told | {"checks": [asdict(one) for one in self.outcomes]}

    def table(self, color: bool = False, width: int | None = None) -> str:
        """Write it for people, with color where a terminal has it; without a width each line is as long as it must be."""
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console(width=width or _AS_LONG_AS_IT_MUST_BE, markup=False, highlight=False, force_terminal=color, no_color=None if color else True)
        grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for column in ("check", "verdict", "spec", "claim, and what was seen"):
            grid.add_column(column, overflow="fold", no_wrap=column != "claim, and what was seen")
        for one in self.outcomes:
            style = _STYLES[one.verdict]
            grid.add_row(Text(one.id), Text(VERDICTS[one.verdict], style), Text(f"§{one.spec}"), Text("\n".join(_lines(one))))
        with console.capture() as shown:
            console.print(grid)
            console.print(Text(self._summary(), "bold"))
        return "\n".join(line.rstrip() for line in shown.get().splitlines()).strip("\n")

    def _summary(self) -> str:
        counts = ", ".join(f"{count} {VERDICTS[verdict]}" for verdict, count in self.counts.items() if count)
        return f"{self.runtime} {self.version}: {counts}; " + ("conforms" if self.passed else "does not conform")


def _lines(one: Outcome) -> list[str]:
    if one.verdict in ("fail", "quirk"):
        said = [f"  expected {one.expected}", f"  got {one.got}"]
        return [one.claim, *said, *([f"  declared: {one.text}"] if one.verdict == "quirk" else [])]
    return [f"{one.claim} · {one.text}" if one.text else one.claim]
