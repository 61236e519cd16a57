"""A program in a process of its own, for what may crash or hang: it ends when its time is over, and with whoever asked for it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from collections.abc import Sequence

_FIRST = "import sys\nfrom nnrp.runtimes import trial\ntrial.end_with(int(sys.argv.pop(1)))\n"


def run(program: str, words: Sequence[str] = (), asked: str = "", *, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a program in Python, with the packages that are here, to its end.

    Args:
        program: its text.
        words: what it finds in `sys.argv`.
        asked: what it reads from its standard input.
        seconds: the longest that is waited for; then it is ended.

    Raises:
        subprocess.TimeoutExpired.
    """
    command = [sys.executable, "-P", "-c"]
    if not hasattr(select, "poll"):
        return _run([*command, program, *words], asked, seconds, ())
    reads, writes = os.pipe()
    try:
        return _run([*command, _FIRST + program, str(reads), *words], asked, seconds, (reads,))
    finally:
        os.close(reads)
        os.close(writes)


def _run(command: Sequence[str], asked: str, seconds: float, kept: Sequence[int]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=asked, text=True, capture_output=True, timeout=seconds, check=False, env=surroundings(), pass_fds=kept)


def surroundings() -> dict[str, str]:
    """Give the environment of such a process: the same packages as here, and not what happens to lie in the current folder."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(place for place in sys.path if place)}


def end_with(pipe: int) -> None:
    """End this process when the other end of a pipe is gone, also in the middle of a load or a run, which nobody waits for any more."""
    if not hasattr(select, "poll"):
        return

    def watch() -> None:
        gone = select.poll()
        # No data: only that the other end is gone.
        gone.register(pipe, 0)
        gone.poll()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
