"""The event loops that runtimes in Python have for themselves: their ends, and what would end them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnrp
from nnrp.errors import RunFailed

X = np.float32([0])
LINE: dict[str, Any] = {"inputs": {"x": ("FP32", [-1])}, "outputs": {"y": ("FP32", [-1])}}

#: A program that has an async model, in a process that ends as it may.
PROGRAM = """
import asyncio, os, sys, threading
import numpy as np
import nnrp

async def quick(x):
    await asyncio.sleep(0)
    return x

async def endless(x):
    while True:
        await asyncio.sleep(0)
        yield x

async def blocking(x):
    begun.set()
    threading.Event().wait()

LINE = {"inputs": {"x": ("FP32", [-1])}, "outputs": {"y": ("FP32", [-1])}}
X, begun = np.float32([0]), threading.Event()
model = nnrp.load(quick, **LINE)
model(X)
"""
ENDS = {
    "with its model": "",
    "with its model in a cycle": "cycle = [model]; cycle.append(cycle); del model",
    "with its model where modules are let go of": "sys.kept = model",
    "in a fork": "child = os.fork()\nif child: assert os.waitpid(child, 0)[1] == 0",
    "within a stream": "stream = nnrp.load(endless, **LINE).stream(x=X); next(stream)",
    "within a run that blocks its loop": "threading.Thread(target=nnrp.load(blocking, **LINE), args=(X,), daemon=True).start(); begun.wait()",
}


@pytest.mark.parametrize("how", ENDS)
def test_a_program_with_an_async_model_ends_without_a_word(how: str) -> None:
    if how == "in a fork" and sys.platform == "win32":
        pytest.skip("Windows has no fork")
    # With -X dev Python tells what else was left behind.
    words = [sys.executable, "-X", "dev", "-c", PROGRAM + ENDS[how]]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, cwd=Path(__file__).parent)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_a_run_that_would_end_its_loop_fails_alone() -> None:
    async def ending(x: Any) -> Any:
        if x[0]:
            sys.exit(3)
        return x

    model = nnrp.load(ending, **LINE)
    for _ in range(2):
        with pytest.raises(RunFailed, match="SystemExit"):
            model.infer({"x": X + 1}, timeout=60)
        assert model.infer({"x": X}, timeout=60)["y"] == X
