"""Processes that try something: none goes on when its time is over, or when whoever asked for it is gone."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest
import zoo

import nnrp
from nnrp import errors
from nnrp.runtimes import tract, trial

#: Reads a pipe that nobody writes to; whoever opened its other end sees when the reader is gone.
READ = "import sys\nwith open(sys.argv[1], 'rb') as pipe:\n    pipe.read()\n"
ASK = "import sys\nfrom nnrp.runtimes import trial\ntrial.run(sys.argv[1], [sys.argv[2]], seconds=600)\n"


def test_it_tells_what_the_program_said_and_how_it_ended() -> None:
    done = trial.run("import sys\nprint(sys.argv[1:], sys.stdin.read())\nsys.exit(7)\n", ["a", "b"], "asked", seconds=120)
    assert (done.stdout, done.returncode) == ("['a', 'b'] asked\n", 7)


def test_it_ends_when_its_time_is_over(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    other = os.open(pipe, os.O_RDWR)
    with pytest.raises(subprocess.TimeoutExpired):
        trial.run(READ, [str(pipe)], seconds=0.1)
    os.close(other)


def test_it_ends_with_whoever_asked_for_it(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    with subprocess.Popen([sys.executable, "-c", ASK, READ, str(pipe)]) as asks, pipe.open("wb") as writes:
        asks.kill()
        gone = select.poll()
        gone.register(writes, 0)
        assert gone.poll(60_000) == [(writes.fileno(), select.POLLERR)]


def test_a_load_of_tracts_that_takes_too_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tract, "TRY_S", 0)
    with pytest.raises(errors.LoadFailed, match="took more than 0 s"):
        nnrp.load(zoo.two_by_two(tmp_path / "two.onnx"), runtime="tract")
