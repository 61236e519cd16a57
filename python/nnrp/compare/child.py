"""A child process seen from here: one candidate each, so that a runtime that crashes or hangs costs its own row and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

from nnrp.errors import from_core
from nnrp.runtimes.trial import surroundings
from nnrp.tensor import Tensor

from .wire import Wire

_LOG_BYTES, _ENDING_S = 2_000, 5


class Lost(Exception):
    """The child ended without an answer: how, and the end of what it printed."""

    def __init__(self, how: str, log: str) -> None:
        super().__init__(how)
        self.how, self.log = how, log


class Child:
    """A fresh Python process that loads and runs one candidate, and is ended with the block.

    Args:
        timeout_s: after which it is ended, whatever it does.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s, self._late = timeout_s, False
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        command = [sys.executable, "-P", "-m", "nnrp.compare.worker"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=surroundings())
        reads, writes = cast(BinaryIO, self._process.stdout), cast(BinaryIO, self._process.stdin)
        self._pipes, self._wire = (reads, writes), Wire(reads, writes)
        self._timer = threading.Timer(timeout_s, self._end)
        self._timer.daemon = True
        self._timer.start()

    def ask(self, message: Mapping[str, Any], tensors: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Say something and hear the answer.

        Raises:
            NnrpError: what the child raised.
            Lost: it crashed, or did not answer in time.
        """
        try:
            self._wire.send(message, tensors)
            answer, outputs = self._wire.receive()
        except (EOFError, BrokenPipeError, ValueError) as error:
            raise self._lost() from error
        if "error" in answer:
            told = answer["error"]
            raise from_core(told["code"], told["reason"], told["message"], told["details"])
        return answer, outputs

    def _lost(self) -> Lost:
        try:
            status = self._process.wait(timeout=_ENDING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - _LOG_BYTES))
        log = self._log.read().decode("utf-8", "replace").strip()
        if self._late:
            return Lost(f"no end after {self._timeout_s:g} s", log)
        if status < 0:
            return Lost(f"its process was ended by {_signal(-status)}", log)
        return Lost(f"its process ended with {status}", log)

    def _end(self) -> None:
        self._late = True
        self._process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._timer.cancel()
        self._process.kill()
        self._process.wait()
        for pipe in (*self._pipes, self._log):
            with suppress(BrokenPipeError):
                pipe.close()


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
