"""Streams of models in processes of their own: the same answers, a process that waits for its reader, and what ends one."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_conform
from test_isolation import gone, kill, load, load_into, patiently, process, shared, within_a_minute
from test_runtime_plugin import compiled
from test_runtime_triton_python_decoupled import DECOUPLED, SOURCES, put
from triton_models import LINE

import nnrp
from nnrp.errors import ClientCancelled, Deadline, NnrpError, NotOffered, RunFailed, RuntimeCrashed
from nnrp.testing import check_runtime

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a process for a model needs Linux")

X = np.float32([3, 1, 2])
LONG = np.zeros(100_000, np.float32)
NOTES: dict[str, Any] = {"inputs": {"x": ["BYTES", [1]]}}
# How many answers a model may be ahead of its reader: those that wait here and the one that is held here, and likewise there.
AHEAD = 8 + 1 + 8 + 1


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("runtime_sample.c", tmp_path_factory.mktemp("plugins"))


def model_of(kind: str, isolation: Any, folder: Path, sample: Path) -> nnrp.Model:
    """A model that streams, of one of the ways to do so."""
    if kind in SOURCES:
        path = folder / "repeat"
        if not path.exists():
            put(folder, "repeat", SOURCES[kind], LINE if kind == "threads" else DECOUPLED)
        return nnrp.load(path, isolation=isolation)
    if kind == "plug-in":
        (folder / "line.sample").write_text("nnrp-sample\n")
        return nnrp.load(folder / "line.sample", runtime="sample", plugins=[sample], options={"stream": True}, isolation=isolation)
    options = {"inputs": {"x": ["FP32", [-1]]}, "outputs": {"y": ["FP32", [-1]]}}
    return nnrp.load(f"prone:{kind}", "model", runtime="callable", options=options, isolation=isolation)


def values(answers: Any) -> list[float]:
    return [float(answer["y"][0]) for answer in answers]


def told_before(answers: Any) -> tuple[list[float], NnrpError | None]:
    """What a stream gave, and the error that ended it."""
    given = list[float]()
    try:
        for answer in answers:
            given.append(float(answer["y"][0]))
    except NnrpError as error:
        return given, error
    return given, None


# The same answers


@pytest.mark.parametrize("kind", ["each", "later", "threads", "within", "plug-in"])
def test_a_stream_gives_the_same_answers_in_order_in_a_process_of_its_own(kind: str, tmp_path: Path, sample: Path) -> None:
    here, there = (model_of(kind, isolation, tmp_path, sample) for isolation in ("none", "process"))
    session: Any = there.session
    assert session.streams
    assert session.settings["isolation"] == "process"
    for x in (X, X[:0] if kind != "within" else X, X[:1], np.arange(1000, dtype=np.float32)):
        assert values(there.stream(x=x)) == values(here.stream(x=x))
    with pytest.raises(NotOffered, match="any number of answers"):
        there(X)
    assert there.statistics()["streams"]["count"] == 4


def test_streams_keep_the_contract_in_processes_of_their_own(tmp_path: Path, sample: Path) -> None:
    (tmp_path / "line.sample").write_text("nnrp-sample\n")
    line = {"path": tmp_path / "line.sample"}
    plugged = {"affine": line, "slow": line | {"options": {"delay_ms": 600_000}}, "stream": line | {"options": {"stream": True}}}
    runtimes: dict[str, dict[str, Any]] = {
        "callable": {"models": test_conform.FUNCTIONS},
        "triton-python": {},
        "sample": {"models": plugged, "plugins": [sample]},
    }
    for runtime, words in runtimes.items():
        report = check_runtime(runtime, isolation="process", only=["streams", "concurrency"], loads=40, **words)
        assert report.passed, report.table()
        streams = {one.id for one in report.outcomes if one.id.startswith("streams.") and one.verdict != "pass"}
        assert streams <= ({"streams.fails"} if runtime != "callable" else set()), report.table()


def test_answers_over_64_kb_are_read_where_they_were_written_and_outlive_the_process() -> None:
    model = load("sized")
    answers = model.stream(x=np.float32([1 << 20, 1 << 10, 1 << 19]))
    large, small, other = (next(answers)["y"] for _ in range(3))
    assert [shared(one) for one in (large, small, other)] == [True, False, True]
    with pytest.raises(RunFailed, match="no more beads"):
        next(answers)
    kill(model)
    assert patiently(lambda: next(model.stream(x=np.float32([5])))["y"].sum()) == 5
    assert [one.sum() for one in (large, small, other)] == [1 << 20, 1 << 10, 1 << 19]


def test_answers_that_are_read_or_left_give_their_memory_back() -> None:
    model = load("sized")
    # More than the process has places for large answers.
    for _ in range(150):
        assert sum(answer["y"][0] for answer in left(model, np.full(40, 20_000, np.float32), 30)) == 30
    assert shared(next(model.stream(x=np.float32([20_000])))["y"])


def left(model: nnrp.Model, x: Any, count: int) -> Any:
    """So many answers of a stream that gives more."""
    with model.stream(x=x) as answers:
        for _ in range(count):
            yield next(answers)


def slowly(answers: Any) -> Any:
    """Answers with a pause behind each."""
    for answer in answers:
        yield answer
        threading.Event().wait(0.01)


def test_many_streams_at_once_have_their_own_answers() -> None:
    model = load("later")

    def ask(number: int) -> bool:
        x = np.arange(number, 3 * number, dtype=np.float32)
        if number % 3 == 0:
            with model.stream(x=x) as answers:
                return bool(next(answers)["y"][0] == 2 * number)
        return values(model.stream(x=x)) == [2 * value for value in x]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(1, 100)))


# A slow reader


def test_a_process_waits_for_a_slow_reader_and_is_told_that_it_left(tmp_path: Path) -> None:
    model = load("noted", options=NOTES)
    for turn in range(3):
        notes = tmp_path / f"{turn}.notes"
        with model.stream(x=np.array([str(notes)], object)) as answers:
            for read in range(1, 60):
                assert next(answers)["y"][0] == read - 1
                assert notes.stat().st_size <= read + AHEAD
        assert within_a_minute(notes.with_suffix(".left").exists)
    assert process(model)["crashes"] == 0


def test_a_deadline_ends_a_stream_there_and_the_process_goes_on(tmp_path: Path) -> None:
    model, notes = load("noted", options=NOTES, stop_grace=1000.0), tmp_path / "late.notes"
    answers = model.stream(x=np.array([str(notes)], object), timeout=2)
    # Nobody reads, and it ends all the same.
    assert within_a_minute(notes.with_suffix(".left").exists)
    with pytest.raises(Deadline):
        list(answers)
    other = tmp_path / "other.notes"
    with model.stream(x=np.array([str(other)], object)) as answers:
        assert next(answers)["y"][0] == 0
    assert process(model)["crashes"] == 0


@pytest.mark.parametrize("kind", ["each", "later", "threads", "within", "plug-in"])
def test_whoever_leaves_frees_the_turn_there(kind: str, tmp_path: Path, sample: Path) -> None:
    model = model_of(kind, "process", tmp_path, sample)
    for count in (0, 1, 20):
        assert len(list(left(model, LONG, count))) == count
        assert len(values(model.stream(x=X))) == 3
    # Read too slowly to be over in time.
    assert isinstance(told_before(slowly(model.stream(x=LONG, timeout=0.05)))[1], Deadline)
    assert len(values(model.stream(x=X))) == 3
    assert process(model)["crashes"] == 0


def test_a_stream_that_never_ends_holds_only_its_own_turn(double_file: Path) -> None:
    engine = nnrp.Engine(stop_grace=0.2)
    options = {"workers": 2, "exclusive": False}
    model = load_into(engine, "stalling", **options)
    other = engine.load(double_file, "other", isolation="process")
    first = process(model)["id"]
    endless = model.stream(x=-X, timeout=3)
    assert next(endless)["y"].tolist() == (-X).tolist()
    for _ in range(50):
        assert [answer["y"].tolist() for answer in model.stream(x=X)] == [X.tolist()]
        assert other(np.ones((1, 4), np.float32))["y"].sum() == 8
    with pytest.raises(Deadline):
        next(endless)
    # It hears nothing: after a while the process is ended, and there is another.
    assert within_a_minute(lambda: bool(process(model)["restarts"]))
    assert gone(first)
    assert patiently(lambda: [answer["y"].tolist() for answer in model.stream(x=X)]) == [X.tolist()]
    assert process(other)["crashes"] == 0


# What goes wrong


@pytest.mark.parametrize("large", [False, True])
def test_what_goes_wrong_there_ends_the_stream_behind_what_it_gave(large: bool) -> None:
    engine = nnrp.Engine(max_output_bytes=1 << 20)
    model = load_into(engine, "sized")
    x = np.float32([1, 2, (1 << 18) + 1, 3] if large else [1, 2])
    for _ in range(20):
        given, error = told_before(model.stream(x=x))
        assert given == [1, 1]
        assert isinstance(error, RunFailed)
        assert ("expected at most the 1048576" if large else "no more beads") in error.message
    # The bound is each answer's.
    assert told_before(model.stream(x=np.full(10, 1 << 18, np.float32)))[0] == [1] * 10
    assert process(model)["crashes"] == 0


def fall(model: nnrp.Model, answers: Any) -> tuple[list[float], str]:
    """The process falls over the fifth element, far within what it may give ahead."""
    return [], "SIGSEGV"


def killed(model: nnrp.Model, answers: Any) -> tuple[list[float], str]:
    given = [float(next(answers)["y"][0]) for _ in range(3)]
    kill(model)
    return given, "SIGKILL"


@pytest.mark.parametrize("end", [fall, killed])
def test_a_crash_within_a_stream_is_one_retryable_error_behind_what_was_given(double_file: Path, end: Callable[..., tuple[list[float], str]]) -> None:
    engine = nnrp.Engine()
    model = load_into(engine, "each")
    other = engine.load(double_file, "other", isolation="process")
    first, x = process(model)["id"], np.arange(100_000, dtype=np.float32)
    x[4] = -1 if end is fall else 4

    answers = model.stream(x=x)
    given, exit = end(model, answers)
    more, error = told_before(answers)

    given += more
    assert given == [2 * value for value in range(len(given))]
    assert len(given) <= 4 if end is fall else len(given) >= 3
    assert isinstance(error, RuntimeCrashed)
    assert error.retryable
    assert (error.details["exit"], error.details["held"]) == (exit, True)
    assert list(answers) == []
    assert patiently(lambda: values(model.stream(x=X))) == [6, 2, 4]
    told = process(model)
    assert (told["restarts"], told["crashes"], told["last_exit"]) == (1, 1, exit)
    assert told["id"] != first
    assert model.statistics()["failures"]["RUNTIME_CRASHED"] >= 1
    assert (other(np.ones((1, 4), np.float32))["y"].sum(), process(other)["crashes"]) == (8, 0)


def test_killing_a_process_under_load_ends_each_stream_once(double_file: Path) -> None:
    engine = nnrp.Engine()
    model = load_into(engine, "later")
    clients, started = 4, threading.Barrier(5)
    with nnrp.serve(engine, http_port=None, grpc_port=0) as server:

        def read(client: int) -> tuple[list[float], NnrpError | None]:
            remote, x = nnrp.connect(server.grpc_url or "", "later"), np.arange(client, client + 1_000_000, dtype=np.float32)
            answers = remote.stream(x=x)
            given = [float(next(answers)["y"][0])]
            started.wait(60)
            more, error = told_before(answers)
            return given + more, error

        with ThreadPoolExecutor(clients) as pool:
            found = [pool.submit(read, client) for client in range(clients)]
            started.wait(60)
            kill(model)
            results = [one.result() for one in found]
        for client, (given, error) in enumerate(results):
            assert given == [2.0 * (client + index) for index in range(len(given))]
            assert isinstance(error, RuntimeCrashed)
            assert error.retryable
        again = nnrp.connect(server.grpc_url or "", "later")
        assert patiently(lambda: values(again.stream(x=X))) == [6, 2, 4]
    assert process(model)["restarts"] == 1


def test_a_model_is_unloaded_within_its_streams() -> None:
    engine = nnrp.Engine()
    model = load_into(engine, "hanging")
    first, answers = process(model)["id"], model.stream(x=-X)
    assert next(answers)["y"].tolist() == (-X).tolist()
    answers.close()
    assert all(isinstance(error, ClientCancelled) for error in [told_before(answers)[1]] if error)
    del model, answers
    gc.collect()
    engine.unload("hanging")
    assert within_a_minute(lambda: gone(first))
