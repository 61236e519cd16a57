"""Where the bench keeps its things, how long it measures, and how it says what it is doing."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
PEERS = BENCH / ".peers"  # downloaded once by peers/setup.sh
WORK = BENCH / ".work"  # written anew by each run: models, bodies, compiled floors, logs

OURS = f"{ROOT}/.venv/bin/nnrp serve {{repository}} --http-port {{http}} --grpc-port {{grpc}}"

_started = time.monotonic()


class BenchFailure(Exception):
    """Something cannot be measured honestly; the run ends with this message."""


@dataclass(frozen=True)
class Options:
    """How much is measured.

    Args:
        seconds: length of one load.
        rounds: loads or blocks of calls of each contender, in turn; medians are taken over them.
        calls: small in-process calls in one block; large ones are a tenth.
        models: models loaded in the growth case.
        idle_connections: idle connections in the growth case.
        triton: whether Triton is measured.
        ours: command that starts our server; {repository}, {http} and {grpc} are filled in.
    """

    seconds: int = 4
    rounds: int = 3
    calls: int = 10_000
    models: int = 1_000
    idle_connections: int = 5_000
    triton: bool = True
    ours: str = OURS

    def quick(self) -> Options:
        """Give the same measurements in seconds instead of minutes: a check that they work, not a result."""
        return replace(self, seconds=1, rounds=1, calls=500)


def progress(what: str) -> None:
    """Say on standard error what is being done, with the time since the start."""
    spent = int(time.monotonic() - _started)
    print(f"[{spent // 60:2}:{spent % 60:02}] {what}", file=sys.stderr, flush=True)
