"""The suite in a process of its own: both ends. A crash is the failure of the check that ran; the rest go on in a new process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any, cast

from nnrp.errors import NnrpError, from_core
from nnrp.runtimes.trial import end_with, surroundings
from nnrp.testing.claims import CHECKS
from nnrp.testing.report import Outcome

if TYPE_CHECKING:
    from nnrp.testing.run import Plan


def carry_out_elsewhere(plan: Plan, ids: Sequence[str], timeout: float, about: dict[str, Any], tell: Callable[[str], None]) -> Iterator[Outcome]:
    """Run the checks in other processes, as many as crashes make necessary; else as `carry_out` does.

    Raises:
        NnrpError: the runtime is not there.
    """
    left = list(ids)
    while left:
        with _Process(plan.document(left), timeout) as process:
            for line in process.lines():
                if "error" in line:
                    raise from_core(**line["error"])
                if "begins" in line:
                    about["version"] = line["version"]
                    tell(line["begins"])
                    continue
                left.remove(line["outcome"]["id"])
                yield Outcome(**line["outcome"])
        if left:
            check = CHECKS[left.pop(0)]
            yield Outcome(check.id, check.spec, check.claim, "fail", expected="a process that lives on", got=process.ended())


class _Process:
    """A fresh Python process that runs checks, and is ended with the block."""

    def __init__(self, document: str, timeout: float) -> None:
        self._timeout, self._late = timeout, False
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        command = [sys.executable, "-P", "-m", "nnrp.testing.child"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=surroundings())
        # It stays open: where it is gone, so are we.
        self._asks = cast(IO[str], self._process.stdin)
        with suppress(BrokenPipeError):
            self._asks.write(document + "\n")
            self._asks.flush()

    def lines(self) -> Iterator[dict[str, Any]]:
        """Hear what it says, until it ends or is silent for too long."""
        says = cast(IO[str], self._process.stdout)
        while True:
            timer = threading.Timer(self._timeout, self._end)
            timer.start()
            try:
                line = says.readline()
            finally:
                timer.cancel()
            if not line.endswith("\n"):
                return
            yield json.loads(line)

    def ended(self) -> str:
        """Say how it came to its end."""
        status = self._process.returncode
        if self._late:
            return f"no end after {self._timeout:g} s"
        if status < 0:
            with suppress(ValueError):
                return f"{signal.Signals(-status).name}, which ended it"
        return f"its end with {status}: {self._words}" if self._words else f"its end with {status}"

    def _end(self) -> None:
        self._late = True
        self._process.kill()

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        # Who has said its last word may still be busy with what a check left running.
        cast(IO[str], self._process.stdout).close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with suppress(BrokenPipeError):
            self._asks.close()
        self._log.seek(0)
        said = self._log.read().decode("utf-8", "replace").strip().splitlines()
        self._words = said[-1][:200] if said else ""
        self._log.close()


def main() -> None:
    """Run the checks that the other end asks for, and tell each."""
    from nnrp.testing.run import Plan, carry_out

    # What a library prints goes to the log and not between the lines.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    asked = json.loads(sys.stdin.readline())
    end_with(sys.stdin.fileno())
    about: dict[str, Any] = {}

    def say(**line: object) -> None:
        print(json.dumps(line), file=answers, flush=True)

    try:
        for outcome in carry_out(
            Plan(asked["runtime"], **asked["words"]), asked["checks"], about, lambda check: say(begins=check, version=about.get("version", ""))
        ):
            say(outcome=asdict(outcome))
    except NnrpError as error:
        say(error={"code": error.code, "reason": error.reason, "message": error.message, "details": json.dumps(error.details, default=str)})
    # Not through the interpreter's end, which would wait for runs that nobody can stop.
    os._exit(0)


if __name__ == "__main__":
    main()
