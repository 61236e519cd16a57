"""Models in processes of their own that are away for a moment: who comes meanwhile waits for the next process, and how long."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zoo
from test_isolation import NOTHING, kill, load_into, process, within_a_minute

import nnrp
from nnrp.errors import Deadline, RuntimeCrashed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a process for a model needs Linux")

X = np.float32([[1, 2, 3, 4]])


def kill_and_wait(model: nnrp.Model) -> None:
    """Kill its process, and wait until the engine knows."""
    crashes = process(model)["crashes"]
    kill(model)
    assert within_a_minute(lambda: process(model)["crashes"] > crashes)


@pytest.fixture(params=["a library", "a function"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> nnrp.Model:
    """2x, which was quick so far."""
    engine = nnrp.Engine()
    if request.param == "a library":
        loaded = engine.load(zoo.scale(tmp_path / "double.onnx", 2.0), "double", isolation="process")
    else:
        loaded = load_into(engine, "crashing", inputs={"x": ["FP32", [-1, 4]]}, outputs={"y": ["FP32", [-1, 4]]})
    for _ in range(50):
        assert np.array_equal(loaded(X)["y"], 2 * X)
    return loaded


@pytest.mark.parametrize("door", ["a call", "infer", "infer_async", "stream", "rest", "grpc"])
def test_who_comes_while_a_process_is_away_waits_for_the_next(model: nnrp.Model, door: str) -> None:
    with nnrp.serve(model.engine, http_port=0, grpc_port=0) as server:
        place = {"rest": server.http_url, "grpc": server.grpc_url}.get(door)
        asked: Any = nnrp.connect(place, model.name) if place else model
        doors: dict[str, Callable[[], Any]] = {
            "infer": lambda: asked.infer({"x": X}, timeout=60),
            "infer_async": lambda: asyncio.run(asked.infer_async({"x": X})),
            "stream": lambda: [*asked.stream(x=X)].pop(),
        }
        for _ in range(2):
            kill_and_wait(model)
            assert np.array_equal(doors.get(door, lambda: asked(X))()["y"], 2 * X)
    told = process(model)
    assert (told["crashes"], told["restarts"]) == (2, 2)
    assert not model.statistics().get("failures")


def test_who_waits_for_a_process_keeps_its_deadline(model: nnrp.Model) -> None:
    kill_and_wait(model)
    with pytest.raises(Deadline):
        model.infer({"x": X}, timeout=0.02)
    assert np.array_equal(model(X)["y"], 2 * X)


def test_a_handler_of_python_ends_the_wait_of_its_main_thread(model: nnrp.Model) -> None:
    class Enough(Exception):
        """What the handler raises."""

    def enough(*_: object) -> None:
        raise Enough

    def call() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        model(X)

    before = signal.signal(signal.SIGALRM, enough)
    kill_and_wait(model)
    try:
        with pytest.raises(Enough):
            call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert np.array_equal(model(X)["y"], 2 * X)


def test_one_that_ends_again_and_again_is_waited_for_no_longer() -> None:
    model, held = load_into(nnrp.Engine(), "crashing"), list[bool]()
    while len(held) < 20 and all(held):
        with pytest.raises(RuntimeCrashed) as raised:
            model(NOTHING)
        held.append(raised.value.details["held"])
    # It is started again after 0.1, 0.2, 0.4, 0.8 s, and then after 1.6 s, through which nobody waits.
    assert held == [True] * 5 + [False]
    assert raised.value.details["retry_after_ms"] > 1000


def test_one_that_says_that_it_never_had_a_request_is_not_asked_again() -> None:
    model = load_into(nnrp.Engine(), "blaming")
    with pytest.raises(RuntimeCrashed, match="another model") as raised:
        model.infer({"x": NOTHING}, timeout=60)
    assert raised.value.details["held"]
    assert model.statistics()["failures"] == {"RUNTIME_CRASHED": 1}
    assert process(model)["crashes"] == 0


def test_one_that_cannot_be_loaded_again_is_waited_for_no_longer(tmp_path: Path) -> None:
    file = zoo.scale(tmp_path / "double.onnx", 2.0)
    model = nnrp.Engine().load(file, isolation="process")
    file.unlink()
    kill_and_wait(model)
    with pytest.raises(RuntimeCrashed, match="no such file") as raised:
        model(X)
    assert not raised.value.details["held"]


def test_one_that_is_started_again_is_the_same_model_wherever_the_program_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, factor in (("here", 2.0), ("there", 3.0)):
        (tmp_path / folder).mkdir()
        zoo.scale(tmp_path / folder / "model.onnx", factor)
    monkeypatch.chdir(tmp_path / "here")
    model = nnrp.load("model.onnx", isolation="process")
    monkeypatch.chdir(tmp_path / "there")
    (tmp_path / "here").rename(tmp_path / "moved")
    kill_and_wait(model)
    assert np.array_equal(model(X)["y"], 2 * X)
