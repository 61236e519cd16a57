"""Any number of answers to one request, in this process: generators, sessions that stream, and who reads them (spec §7.11)."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from abacus import Abacus

import nnrp
from nnrp.errors import ClientCancelled, Deadline, NotOffered, QueueFull, RunFailed, ShapeMismatch, WrongState
from nnrp.runtimes import Control

LINE: dict[str, Any] = {"inputs": {"x": ("FP32", [-1])}, "outputs": {"y": ("FP32", [-1])}}
X = np.float32([1, 2, 3])
# How many answers a model may be ahead of its reader: those that wait, and the one that it holds.
AHEAD = 8 + 1


class Source:
    """Generators over x that tell how far they came and that they were left."""

    def __init__(self) -> None:
        self.given, self.left = 0, threading.Event()

    def each(self, x: Any) -> Iterator[Any]:
        try:
            for value in x:
                self.given += 1
                yield np.float32([value * 2])
        finally:
            self.left.set()

    async def later(self, x: Any) -> AsyncIterator[Any]:
        try:
            for value in x:
                await asyncio.sleep(0)
                self.given += 1
                yield {"y": np.float32([value * 2])}
        finally:
            self.left.set()


KINDS = ["each", "later"]


@pytest.fixture(params=KINDS)
def source(request: pytest.FixtureRequest) -> tuple[Source, nnrp.Model]:
    source = Source()
    return source, nnrp.load(getattr(source, request.param), **LINE)


def values(answers: Any) -> list[float]:
    return [float(answer["y"][0]) for answer in answers]


def test_a_generator_gives_each_answer_in_order(source: tuple[Source, nnrp.Model]) -> None:
    told, model = source
    assert values(model.stream(x=X)) == [2, 4, 6]
    assert values(model.stream({"x": X}, outputs=["y"], timeout=60, id="seven")) == [2, 4, 6]
    assert values(model.stream(x=X[:0])) == []
    assert told.left.is_set()
    statistics = model.statistics()
    assert (statistics["success_count"], statistics["streams"]["count"], statistics["streams"]["answer_count"]) == (3, 3, 6)


@pytest.mark.asyncio
async def test_a_generator_gives_each_answer_to_an_event_loop(source: tuple[Source, nnrp.Model]) -> None:
    _, model = source
    assert [float(answer["y"][0]) async for answer in model.stream_async(x=X)] == [2, 4, 6]


@pytest.mark.asyncio
async def test_an_event_loop_reads_many_streams_at_once() -> None:
    arrived: list[int] = []

    async def together(x: Any) -> AsyncIterator[Any]:
        for _ in range(3):
            arrived.append(1)
            turn = -(-len(arrived) // 8) * 8
            while len(arrived) < turn:
                await asyncio.sleep(0.001)
            yield x

    model = nnrp.load(together, **LINE)

    async def read() -> int:
        return len([answer async for answer in model.stream_async(x=X)])

    assert await asyncio.gather(*(read() for _ in range(8))) == [3] * 8


def test_a_model_that_streams_says_so_and_is_not_asked_for_one_answer(source: tuple[Source, nnrp.Model]) -> None:
    told, model = source
    assert model.session is not None
    assert model.session.streams
    assert model.metadata()["properties"] == {"decoupled": "true"}
    for ask in (lambda: model(X), lambda: model.infer({"x": X}), lambda: asyncio.run(model.infer_async({"x": X}))):
        with pytest.raises(NotOffered, match="any number of answers"):
            ask()
    assert told.given == 0


def test_a_model_with_one_answer_gives_it_as_a_stream() -> None:
    model = nnrp.load(lambda x: x * 2, name="double", **LINE)
    assert [answer["y"].tolist() for answer in model.stream(x=X)] == [[2, 4, 6]]
    assert model.session is not None
    assert not model.session.streams
    assert "properties" not in model.metadata()


def test_what_is_wrong_with_a_request_is_told_before_the_first_answer(source: tuple[Source, nnrp.Model]) -> None:
    told, model = source
    for start in (model.stream, model.stream_async):
        with pytest.raises(ShapeMismatch):
            start(x=np.float32([[1]]))
        with pytest.raises(nnrp.errors.UnknownOutput):
            start({"x": X}, ["z"])
    assert told.given == 0


# Leaving


def brk(model: nnrp.Model, x: Any) -> None:
    for answer in model.stream(x=x):
        assert answer["y"].tolist() == [0]
        break


def close(model: nnrp.Model, x: Any) -> None:
    with model.stream(x=x) as answers:
        next(answers)
    assert list(answers) == []


def drop(model: nnrp.Model, x: Any) -> None:
    answers = model.stream(x=x)
    del answers


def abreak(model: nnrp.Model, x: Any) -> None:
    async def leave() -> None:
        async for answer in model.stream_async(x=x):
            assert answer["y"].tolist() == [0]
            break

    asyncio.run(leave())


def aclose(model: nnrp.Model, x: Any) -> None:
    async def leave() -> None:
        async with model.stream_async(x=x) as answers:
            await anext(answers)
        assert [answer async for answer in answers] == []

    asyncio.run(leave())


@pytest.mark.parametrize("leave", [brk, close, drop, abreak, aclose])
def test_whoever_leaves_stops_the_generator(source: tuple[Source, nnrp.Model], leave: Callable[[nnrp.Model, Any], None]) -> None:
    told, model = source
    x = np.zeros(100_000, np.float32)
    leave(model, x)
    if leave is not drop:
        assert told.left.wait(60)
    # The turn of a generator that takes one call at a time is free again.
    assert values(model.stream(x=X)) == [2, 4, 6]
    assert told.given < len(x)


@pytest.mark.asyncio
async def test_cancelling_the_task_that_waits_stops_the_generator() -> None:
    left, waits = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def patient(x: Any) -> AsyncIterator[Any]:
        try:
            yield x
            loop.call_soon_threadsafe(waits.set)
            await asyncio.sleep(1000)
        finally:
            left.set()

    model = nnrp.load(patient, **LINE)

    async def read() -> None:
        async for _ in model.stream_async(x=X):
            pass

    task = asyncio.create_task(read())
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(left.wait, 60)


def test_a_thread_that_waits_for_an_answer_is_let_go_when_another_closes_the_stream() -> None:
    going, ended = threading.Event(), list[Exception | None]()

    def patient(x: Any) -> Iterator[Any]:
        going.wait()
        yield x

    answers = nnrp.load(patient, **LINE).stream(x=X)

    def read() -> None:
        try:
            ended.append(None if list(answers) == [] else RuntimeError("an answer"))
        except ClientCancelled as error:
            ended.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    answers.close()
    going.set()
    reader.join(60)
    assert [type(error) for error in ended] in ([ClientCancelled], [type(None)])


def test_a_slow_reader_holds_the_generator_back(source: tuple[Source, nnrp.Model]) -> None:
    told, model = source
    for read, answer in enumerate(model.stream(x=np.arange(200, dtype=np.float32)), 1):
        assert answer["y"].tolist() == [2 * (read - 1)]
        assert told.given <= read + AHEAD
    assert read == told.given == 200


def test_a_stream_ends_at_its_deadline(source: tuple[Source, nnrp.Model]) -> None:
    told, model = source
    # Long enough for a worker to begin with it, however busy the machine is.
    answers = model.stream(x=np.zeros(100_000, np.float32), timeout=2)
    assert told.left.wait(60), "the reader does not read, and the generator ends all the same"
    with pytest.raises(Deadline):
        list(answers)
    assert list(answers) == []


# What goes wrong


def test_what_a_generator_raises_ends_its_stream_after_what_it_gave() -> None:
    for error, kind in ((ValueError("no more beads"), RunFailed), (QueueFull("come again"), QueueFull)):

        def each(x: Any, error: Exception = error) -> Iterator[Any]:
            yield x
            raise error

        async def later(x: Any, error: Exception = error) -> AsyncIterator[Any]:
            yield x
            raise error

        for function in (each, later):
            answers = nnrp.load(function, "model", inputs=LINE["inputs"], outputs=LINE["outputs"]).stream(x=X)
            assert next(answers)["y"].tolist() == X.tolist()
            with pytest.raises(kind, match=str(error.args[0])):
                next(answers)
            assert list(answers) == []


class Streaming:
    """A session that streams what a test says."""

    inputs = (("x", "FP32", (-1,)),)
    outputs = (("y", "FP32", (-1,)), ("z", "FP32", (-1,)))

    def __init__(self, stream: Callable[[dict[str, Any], Sequence[str], Control], Any], **told: Any) -> None:
        self.stream = stream
        for name, value in told.items():
            setattr(self, name, value)


def model_of(stream: Callable[..., Any], **told: Any) -> nnrp.Model:
    engine = nnrp.Engine()
    session: Any = Streaming(stream, **told)
    engine.add_runtime(Abacus(model=session))
    return engine.load("abacus:model", runtime="abacus")


def test_a_session_streams_what_iterates_and_each_answer_is_checked() -> None:
    assert [answer["z"].tolist() for answer in model_of(lambda *_: [(X, X * 2), {"y": X, "z": X * 3}]).stream(x=X)] == [[2, 4, 6], [3, 6, 9]]
    model = model_of(lambda *_: iter([(X, X), (X, X.astype(np.float64)), (X, X)]))
    answers = model.stream(x=X)
    assert next(answers)["y"].tolist() == X.tolist()
    with pytest.raises(RunFailed, match="output 'z': expected datatype FP32, got FP64"):
        next(answers)
    assert list(answers) == []
    with pytest.raises(RunFailed, match="expected 2 outputs, got 1"):
        list(model_of(lambda *_: [(X,)]).stream(x=X))
    with pytest.raises(RunFailed, match="TypeError"):
        list(model_of(lambda *_: 5).stream(x=X))


def test_only_the_outputs_asked_for_are_given() -> None:
    def two(x: Any) -> Iterator[Any]:
        yield x, x * 2
        yield {"y": x, "z": x * 3}

    told: dict[str, Any] = {"inputs": LINE["inputs"], "outputs": {"y": ("FP32", [-1]), "z": ("FP32", [-1])}}
    answers = list(nnrp.load(two, **told).stream({"x": X}, ["z"]))
    assert [{name: value.tolist() for name, value in answer.items()} for answer in answers] == [{"z": [2, 4, 6]}, {"z": [3, 6, 9]}]


def test_an_array_that_the_generator_writes_to_again_is_copied() -> None:
    def count(x: Any) -> Iterator[Any]:
        kept = np.zeros(1, np.float32)
        for _ in x:
            kept += 1
            yield kept

    assert values(nnrp.load(count, **LINE).stream(x=X)) == [1, 2, 3]


def test_a_streaming_session_sees_its_deadline_and_that_nobody_waits() -> None:
    seen: list[float | None] = []
    left = threading.Event()

    def stream(inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Iterator[Any]:
        seen.append(control.deadline)
        yield inputs["x"], inputs["x"]
        while not control.stopped:
            left.wait(0.001)
        left.set()

    with model_of(stream).stream(x=X, timeout=600) as answers:
        next(answers)
    assert left.wait(60)
    assert seen[0] is not None


def test_a_session_whose_stream_is_none_gives_one_answer() -> None:
    session: Any = Streaming(None, run=lambda inputs, *_: (inputs["x"], inputs["x"]))  # type: ignore[arg-type]
    engine = nnrp.Engine()
    engine.add_runtime(Abacus(model=session))
    assert engine.load("abacus:model", runtime="abacus")(X)["y"].tolist() == X.tolist()


def test_a_generator_may_ask_other_models_and_not_itself() -> None:
    model: nnrp.Model
    double = nnrp.load(lambda x: x * 2, name="double", **LINE)

    def twice(x: Any) -> Iterator[Any]:
        yield double(x)["y"]
        yield from (answer["y"] for answer in double.stream(x=x))
        yield from (answer["y"] for answer in model.stream(x=x))

    model = nnrp.load(twice, **LINE)
    answers = model.stream(x=X)
    assert [next(answers)["y"].tolist() for _ in range(2)] == [[2, 4, 6]] * 2
    with pytest.raises(WrongState, match="called itself"):
        next(answers)


ENDLESS = """
import itertools
import numpy as np, nnrp

def forever(x):
    for _ in itertools.count():
        yield x

async def later(x):
    for _ in itertools.count():
        yield x

LINE = {"inputs": {"x": ("FP32", [-1])}, "outputs": {"y": ("FP32", [-1])}}
kept = [nnrp.load(function, **LINE).stream(x=np.float32([5])) for function in (forever, later)]
print([float(next(answers)["y"][0]) for answers in kept])
"""


def test_an_interpreter_ends_cleanly_in_the_middle_of_a_stream() -> None:
    done = subprocess.run([sys.executable, "-c", ENDLESS], capture_output=True, text=True, timeout=60, check=False, cwd=Path(__file__).parent)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[5.0, 5.0]\n", "")
