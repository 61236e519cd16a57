"""The Python form, in process: threads, the interpreter lock, memory, and event loops."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zoo

import nnrp
from nnrp import errors

X = np.array([[1, 2, 3, 4]], np.float32)
DOUBLED = [[2, 4, 6, 8]]


# Threads, the interpreter lock, memory


def test_many_threads_at_once_get_their_own_answers(double: nnrp.Model) -> None:
    def work(seed: int) -> int:
        x = np.full((1, 4), seed, np.float32)
        return sum(not (double(x)["y"] == 2 * seed).all() for _ in range(5_000))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == 0
    assert double.statistics()["success_count"] == 20_000


def test_a_slow_run_lets_other_threads_work(slow_file: Path) -> None:
    model = nnrp.load(slow_file)
    started, counted = threading.Event(), 0

    def run() -> None:
        started.set()
        model(np.array(300, np.int64))

    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    while thread.is_alive():
        counted += 1
    assert counted > 1_000


def test_calls_leak_neither_objects_nor_memory(double: nnrp.Model) -> None:
    x, name = np.ones((256, 4), np.float32), "x"
    wrong = x.astype(np.float64)

    def calls(count: int) -> None:
        for _ in range(count):
            double(x)
            double.infer({name: x}, id="i", parameters={"p": 1})
        for _ in range(count // 20):
            with pytest.raises(errors.DatatypeMismatch):
                double(wrong)

    calls(1_000)
    before = sys.getrefcount(x), sys.getrefcount(wrong), sys.getrefcount(name), _resident()
    calls(20_000)
    after = sys.getrefcount(x), sys.getrefcount(wrong), sys.getrefcount(name), _resident()
    assert after[:3] == before[:3]
    assert after[3] - before[3] < 16 << 20


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if sys.platform == "linux" else 0


def test_a_model_is_freed_with_its_last_reference(double_file: Path) -> None:
    model = nnrp.load(double_file)
    gone = weakref.ref(model)
    model(X)
    del model
    gc.collect()
    assert gone() is None


def test_an_unloaded_model_is_freed_though_somebody_still_has_it(models: Path) -> None:
    # A process of its own: in this one another test's memory may serve the model.
    told = subprocess.run([sys.executable, "-c", UNLOADED, zoo.heavy(models / "heavy.onnx")], capture_output=True, text=True, timeout=120, check=True).stdout
    loaded, unloaded = map(int, told.split())
    assert loaded > zoo.HEAVY // 2
    assert unloaded < zoo.HEAVY // 2


#: Prints the bytes that a loaded model takes, and those that are still taken once it is unloaded.
UNLOADED = """
import os, sys
from pathlib import Path
import numpy as np
import nnrp

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

engine = nnrp.Engine()
engine.load(sys.argv[1])
engine.unload("heavy")
before = resident()
model = engine.load(sys.argv[1])
loaded = resident()
engine.unload("heavy")
unloaded = resident()
try:
    model(np.zeros(1, np.float32))
except nnrp.errors.ModelNotFound:
    print(loaded - before, unloaded - before)
"""


# Event loops


async def late(x: Any) -> Any:
    await asyncio.sleep(0)
    return x if x[0] else [][0]


async def late_stream(x: Any) -> AsyncIterator[Any]:
    yield await late(x)
    yield await late(x - x[0])


async def _infer(model: nnrp.Model, x: Any) -> None:
    await model.infer_async({"x": x})


async def _stream(model: nnrp.Model, x: Any) -> None:
    async for _ in model.stream_async(x=x):
        pass


@pytest.mark.parametrize(("function", "ask"), [(late, _infer), (late_stream, _stream)])
def test_an_error_that_comes_to_the_event_loop_leaves_nothing_for_the_collector(function: Any, ask: Any, caplog: pytest.LogCaptureFixture) -> None:
    # A log that is kept keeps the errors.
    caplog.set_level(logging.CRITICAL, "nnrp.runtimes")
    model, x = nnrp.load(function, inputs={"x": ("FP32", [-1])}, outputs={"y": ("FP32", [-1])}), np.zeros(2, np.float32)
    held = [weakref.ref(model), weakref.ref(model.engine), weakref.ref(x)]

    async def main(model: nnrp.Model, x: Any) -> None:
        with pytest.raises(errors.RunFailed):
            await ask(model, x)
        x[0] = 1
        with contextlib.suppress(errors.RunFailed):
            await ask(model, x)

    gc.collect()
    gc.disable()
    try:
        asyncio.run(main(model, x))
        del model, x
        # The thread that brings answers may still be about to let go.
        pause = threading.Event()
        assert any(not any(one() is not None for one in held) or pause.wait(0.01) for _ in range(6_000))
    finally:
        gc.enable()


def test_answers_come_to_the_event_loop_side_by_side(double: nnrp.Model, slow_file: Path) -> None:
    slow = nnrp.load(slow_file)

    async def main() -> None:
        waiting = asyncio.create_task(slow.infer_async({"n": np.array(300, np.int64)}))
        answers = await asyncio.gather(*(double.infer_async({"x": X * n}) for n in range(50)))
        assert not waiting.done()
        assert [answer["y"][0, 0] for answer in answers] == [2 * n for n in range(50)]
        assert list(await waiting) == ["y"]

    asyncio.run(main())


def test_inputs_are_kept_until_the_answer_is_there(slow_file: Path) -> None:
    slow = nnrp.load(slow_file)

    async def main() -> None:
        n = np.array(100, np.int64)
        held = weakref.ref(n)
        task = asyncio.create_task(slow.infer_async({"n": n}))
        del n
        await asyncio.sleep(0)
        assert held() is not None
        await task

    asyncio.run(main())


def test_cancelling_the_task_cancels_the_request(slow_file: Path) -> None:
    slow = nnrp.load(slow_file)

    async def main() -> None:
        task = asyncio.create_task(slow.infer_async({"n": np.array(600_000, np.int64)}))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # Were the run still going on, this one would wait ten minutes behind it or beside it.
        assert list(await slow.infer_async({"n": np.array(1, np.int64)}, timeout=60)) == ["y"]
        async with asyncio.timeout(60):
            while "CLIENT_CANCELLED" not in slow.statistics()["failures"]:
                await asyncio.sleep(0)

    asyncio.run(main())


def test_a_deadline_ends_a_run(slow_file: Path) -> None:
    slow = nnrp.load(slow_file)
    n = {"n": np.array(600_000, np.int64)}
    with pytest.raises(TimeoutError) as raised:
        slow.infer(n, timeout=0.5)
    assert isinstance(raised.value, nnrp.DeadlineExceeded)
    with pytest.raises(nnrp.DeadlineExceeded):
        asyncio.run(slow.infer_async(n, timeout=0.5))


def test_an_error_reaches_the_task_that_asked(double: nnrp.Model, models: Path) -> None:
    failing = nnrp.load(zoo.failing(models / "failing.onnx"))

    async def main() -> None:
        with pytest.raises(errors.ShapeMismatch):
            await double.infer_async({"x": X[0]}, id="a")
        with pytest.raises(errors.RunFailed) as raised:
            await failing.infer_async({"shape": np.array([4, 5])}, id="b")
        assert raised.value.request_id == "b"

    asyncio.run(main())
