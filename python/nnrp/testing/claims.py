"""What a check is, and how it says what it found."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nnrp.errors import InvalidOption, NnrpError

if TYPE_CHECKING:
    from nnrp.testing.subject import Subject

    Run = Callable[[Subject], str | None]

#: In the order in which their checks run: those that may leave a run behind come last.
GROUPS = ("contract", "datatypes", "shapes", "requests", "numerics", "concurrency", "leaks", "errors", "streams", "cancellation")
#: Every check by its id.
CHECKS: dict[str, Check] = {}
#: A path from the root of two names or more; what stands in a URL is none.
_PATH = re.compile(r"(?<![\w.:/])/[\w.-]+/[\w.-]+|(?<!\w)[A-Za-z]:\\\w|\.py\b|Traceback")
_SHOWN = 160


@dataclass(frozen=True)
class Check:
    """One claim about a runtime.

    Attributes:
        id: the group and the name in it: "contract.info".
        spec: the clause that it proves.
        claim: what holds of a runtime that passes.
        run: raises Failed or NotApplicable; tells what was seen, if that is worth a word.
    """

    id: str
    spec: str
    claim: str
    run: Run


class Failed(Exception):
    """The claim does not hold."""

    def __init__(self, expected: object, got: object) -> None:
        super().__init__(f"expected {expected}, got {got}")
        self.expected, self.got = str(expected), str(got)


class NotApplicable(Exception):
    """There is nothing to check here: why."""


def check(id: str, spec: str, claim: str) -> Callable[[Run], Run]:
    """Add a function to the checks."""

    def add(run: Run) -> Run:
        CHECKS[id] = Check(id, spec, claim, run)
        return run

    return add


def chosen(only: Collection[str]) -> list[str]:
    """List the checks of these ids and groups; all where none is named.

    Raises:
        InvalidOption: there is no such check.
    """
    for name in only:
        if name not in CHECKS and name not in GROUPS:
            raise InvalidOption(f"check '{name[:96]}': expected a check, or a group: {', '.join(GROUPS)}")
    wanted = [id for id in CHECKS if not only or id in only or _group(id) in only]
    return sorted(wanted, key=lambda check: GROUPS.index(_group(check)))


def _group(id: str) -> str:
    return id.partition(".")[0]


def told(error: BaseException) -> str:
    """Write an error in a line."""
    text = f"{error.reason}: {error.message}" if isinstance(error, NnrpError) else f"{type(error).__name__}: {error}"
    line = " ".join(text.split())
    return line[:_SHOWN] + "…" * (len(line) > _SHOWN)


def refused(reasons: Sequence[str], call: Callable[[], Any]) -> NnrpError:
    """Give the error that a call ends with.

    Raises:
        Failed: it gave something, or another error, or one that tells a path or a traceback.
    """
    expected = " or ".join(reasons)
    try:
        answer = call()
    except NnrpError as error:
        if error.reason not in reasons:
            raise Failed(expected, told(error)) from error
        typed(error)
        return error
    raise Failed(expected, f"{answer!r:.{_SHOWN}}")


def typed(error: NnrpError) -> None:
    """Refuse an error that is our defect, or that tells a path or a traceback."""
    if error.code == "INTERNAL":
        raise Failed("a typed error", told(error))
    if _PATH.search(f"{error.message} {error.details}"):
        raise Failed("an error without paths and tracebacks", told(error))
