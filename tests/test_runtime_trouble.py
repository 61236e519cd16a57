"""Runtimes in Python that break the contract, wait, or call back, in process and behind a server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from abacus import Abacus, Raises, Session, X, engine_of, gives, model_of

import nnrp
from nnrp.errors import Deadline, QueueFull, RunFailed, WrongState
from nnrp.runtimes import Control
from nnrp.runtimes.package import without_paths

# What a run must not give

TROUBLE: Mapping[str, tuple[Any, str]] = {
    "nothing": (None, "output 'y': expected"),
    "too_few": ([], "expected 1 outputs, got 0"),
    "too_many": ([X, X], "expected 1 outputs, got 2"),
    "no_name": ({"z": X}, "output 'y': expected FP32 [-1, 2], got none"),
    "wrong_datatype": ({"y": X.astype(np.float64)}, "output 'y': expected datatype FP32, got FP64"),
    "wrong_rank": ({"y": X[0]}, "output 'y': expected shape [-1, 2], got [2]"),
    "wrong_dimension": ({"y": X[:, :1].copy()}, "output 'y': expected shape [-1, 2], got [2, 1]"),
    "uneven": ({"y": [[1.0, 2.0], [3.0]]}, "output 'y': expected a list that is even in every dimension"),
    "not_numbers": ({"y": object()}, "output 'y': expected"),
    "complex": ({"y": X.astype(np.complex64)}, "output 'y': expected FP32"),
    "too_large": ({"y": np.broadcast_to(np.float32(1), (1 << 45, 2))}, "runtime abacus: MemoryError: "),
}


RAISED: Mapping[str, tuple[BaseException, str, type[nnrp.NnrpError]]] = {
    "value": (ValueError("one is\nnot two"), "runtime abacus: ValueError: one is not two", RunFailed),
    "nothing_to_say": (KeyError(), "runtime abacus: KeyError", RunFailed),
    "path": (FileNotFoundError(2, "No such file or directory", "/srv/secret/weights.bin"), "FileNotFoundError: No such file", RunFailed),
    "path_in_text": (RuntimeError("cannot open /srv/secret/weights.bin"), "cannot open …", RunFailed),
    "memory": (MemoryError("out of beads"), "MemoryError: out of beads", RunFailed),
    "exit": (SystemExit(3), "SystemExit: 3", RunFailed),
    "stop": (GeneratorExit(), "GeneratorExit", RunFailed),
    "our_defect": (nnrp.errors.Bug("not mine"), "runtime abacus: Bug: not mine", RunFailed),
    "typed": (QueueFull("come again", beads=5), "come again", QueueFull),
    "of_a_code_alone": (nnrp.NotFound("no such bead"), "no such bead", nnrp.NotFound),
    "of_two_codes": (nnrp.NotFound("no such bead", reason="RUN_FAILED"), "no such bead", nnrp.NotFound),
    "failure": (nnrp.RuntimeFailure("worn out"), "worn out", RunFailed),
    "colours": (ValueError("\x1b[31mred\x1b[0m\r\u202eback"), "ValueError:  [31mred [0m back", RunFailed),
}

FORMS = ["here", "rest", "grpc"]


@pytest.fixture(scope="module")
def troubled() -> Iterator[dict[str, Callable[[str], nnrp.Model]]]:
    """Every trouble as a model, by the form in which it is asked."""
    sessions = {name: Session(gives(value)) for name, (value, _) in TROUBLE.items()}
    sessions |= {f"raises_{name}": Session(Raises(error)) for name, (error, _, _) in RAISED.items()}
    sessions["interrupt"] = Session(Raises(KeyboardInterrupt()))
    sessions["good"] = Session(lambda inputs, outputs, control: inputs["x"] * 2)
    engine = engine_of(**sessions)
    with nnrp.serve(engine, http_port=0, grpc_port=0) as server:
        yield {
            "here": engine.model,
            "rest": lambda name: nnrp.connect(server.http_url or "", name),
            "grpc": lambda name: nnrp.connect(server.grpc_url or "", name),
        }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("trouble", TROUBLE)
def test_a_wrong_answer_is_the_runtimes_failure_and_names_the_output(troubled: Any, form: str, trouble: str) -> None:
    with pytest.raises(RunFailed) as raised:
        troubled[form](trouble)(X)
    assert raised.value.message.startswith("runtime abacus: ")
    assert raised.value.message.count("abacus") == 1
    assert TROUBLE[trouble][1] in raised.value.message
    assert raised.value.details["runtime"] == "abacus"
    assert np.array_equal(troubled[form]("good")(X)["y"], X * 2)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", RAISED)
def test_what_a_run_raises_is_told_without_traceback_or_path(troubled: Any, form: str, case: str) -> None:
    _, says, kind = RAISED[case]
    with pytest.raises(kind) as raised:
        troubled[form](f"raises_{case}")(X)
    told = f"{raised.value.message} {raised.value.details}"
    assert says in raised.value.message
    assert (raised.value.reason == "UNSPECIFIED") is (kind is nnrp.NotFound)
    assert "/srv" not in told
    assert ".py" not in told
    assert "Traceback" not in told
    assert np.array_equal(troubled[form]("good")(X)["y"], X * 2)


@pytest.mark.parametrize("form", ["rest", "grpc"])
def test_an_interrupt_in_a_run_leaves_the_server_alone(troubled: Any, form: str) -> None:
    with pytest.raises(RunFailed, match="KeyboardInterrupt"):
        troubled[form]("interrupt")(X)
    assert np.array_equal(troubled[form]("good")(X)["y"], X * 2)


def test_ctrl_c_in_a_run_in_this_process_reaches_the_caller(troubled: Any) -> None:
    model = troubled["here"]("interrupt")
    with pytest.raises(KeyboardInterrupt):
        model(X)


@pytest.mark.parametrize("form", FORMS)
def test_a_wrong_input_never_reaches_the_runtime(troubled: Any, form: str) -> None:
    model = troubled[form]("raises_memory")
    for wrong, kind in ((X.astype(np.float64), nnrp.errors.DatatypeMismatch), (X[0], nnrp.errors.ShapeMismatch)):
        with pytest.raises(kind):
            model(wrong)


# Turns, deadlines, cancelling


class Gate:
    """A run that waits until the test lets it go."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Semaphore(0), threading.Event()
        self.threads: set[int] = set()

    def __call__(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Any:
        self.threads.add(threading.get_ident())
        self.entered.release()
        self.open.wait()
        return inputs["x"]


@pytest.mark.parametrize("form", FORMS)
def test_a_run_that_never_ends_holds_only_its_own_model_and_deadlines_are_kept(form: str) -> None:
    gate = Gate()
    engine = engine_of(stuck=Session(gate), good=Session(lambda inputs, outputs, control: inputs["x"]))
    with nnrp.serve(engine, http_port=0, grpc_port=0) as server:
        home = {"here": engine, "rest": nnrp.Client(server.http_url or ""), "grpc": nnrp.Client(server.grpc_url or "")}[form]
        try:
            for _ in range(2):
                with pytest.raises(Deadline):
                    home.model("stuck").infer({"x": X}, timeout=0.05)
                assert np.array_equal(home.model("good").infer({"x": X}, timeout=30)["y"], X)
        finally:
            gate.open.set()


@pytest.mark.parametrize("form", FORMS)
def test_a_session_that_says_nothing_gets_one_call_at_a_time_and_a_shared_one_several(form: str) -> None:
    alone, shared = Gate(), Gate()
    engine = engine_of(alone=Session(alone), shared=Session(shared, exclusive=False, workers=4))
    assert [model.session.exclusive for model in engine.models() if model.session] == [True, False]
    with nnrp.serve(engine, http_port=0, grpc_port=0) as server:
        home = {"here": engine, "rest": nnrp.Client(server.http_url or ""), "grpc": nnrp.Client(server.grpc_url or "")}[form]
        calls = [threading.Thread(target=home.model(name), args=(X,)) for name in ("alone", "shared") for _ in range(4)]
        for call in calls:
            call.start()
        assert all(shared.entered.acquire(timeout=30) for _ in range(4))
        assert alone.entered.acquire(timeout=30)
        assert not alone.entered.acquire(blocking=False)
        for gate in (alone, shared):
            gate.open.set()
        for call in calls:
            call.join()
        assert (len(alone.threads) >= 1, len(shared.threads)) == (True, 4)


@pytest.mark.parametrize("form", FORMS)
def test_a_cancellable_session_sees_its_deadline_and_that_nobody_waits(form: str) -> None:
    seen: list[tuple[bool, float | None]] = []
    done = threading.Event()

    def run(inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Any:
        seen.append((control.stopped, control.deadline))
        while not control.stopped:
            done.wait(0.001)
        done.set()
        return inputs["x"]

    engine = engine_of(patient=Session(run, cancellable=True))
    with nnrp.serve(engine, http_port=0, grpc_port=0) as server:
        home = {"here": engine, "rest": nnrp.Client(server.http_url or ""), "grpc": nnrp.Client(server.grpc_url or "")}[form]
        with pytest.raises(Deadline):
            home.model("patient").infer({"x": X}, timeout=1)
        assert done.wait(30)
    ((stopped, deadline),) = seen
    assert not stopped
    assert deadline is not None
    assert deadline - time.monotonic() < 1


def test_a_control_that_nobody_can_stop_says_so() -> None:
    control = Control()
    assert (control.stopped, control.stoppable, control.deadline) == (False, False, None)


@pytest.mark.asyncio
async def test_cancelling_a_task_stops_its_run() -> None:
    import asyncio

    loop, entered, ended = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def run(inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Any:
        loop.call_soon_threadsafe(entered.set)
        while not control.stopped:
            ended.wait(0.001)
        ended.set()

    task = asyncio.create_task(model_of(run, cancellable=True).infer_async({"x": X}))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.wait(30)


# Calling back into the engine


@pytest.mark.parametrize("form", FORMS)
def test_a_session_may_call_another_model_and_not_itself(form: str) -> None:
    engine = nnrp.Engine()

    def twice(inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Any:
        return engine.model("good")(engine.model("good")(inputs["x"])["y"])

    def itself(inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Any:
        return engine.model("itself")(inputs["x"])

    def circle(inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Any:
        return engine.model("through")(inputs["x"])

    def through(inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Any:
        return engine.model("circle")(inputs["x"])

    sessions = {"good": lambda inputs, *_: inputs["x"] * 2, "twice": twice, "itself": itself, "circle": circle, "through": through}
    engine.add_runtime(Abacus(**{name: Session(run) for name, run in sessions.items()}))
    for name in sessions:
        engine.load(f"abacus:{name}", runtime="abacus")
    with nnrp.serve(engine, http_port=0, grpc_port=0) as server:
        home = {"here": engine, "rest": nnrp.Client(server.http_url or ""), "grpc": nnrp.Client(server.grpc_url or "")}[form]
        assert np.array_equal(home.model("twice")(X)["y"], X * 4)
        for name in ("itself", "circle"):
            with pytest.raises(WrongState, match="called itself"):
                home.model(name)(X)


def test_a_shared_session_may_call_itself() -> None:
    model: nnrp.Model

    def factorial(inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Any:
        n = inputs["x"]
        return n if n[0, 0] <= 1 else n * model(n - 1)["y"]

    model = model_of(factorial, exclusive=False)
    assert model(np.float32([[5, 5]]))["y"].tolist() == [[120, 120]]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("cannot open /srv/secret/weights.bin: gone", "cannot open … gone"),
        (r"cannot open C:\secret\weights.bin", "cannot open …"),
        ("in ~/secret/a.onnx, line 3", "in …, line 3"),
        ("convert/ways.py:12 failed, see model.py", "…:12 failed, see …"),
        (FileNotFoundError(2, "No such file or directory", "/srv/secret dir/weights.bin"), "No such file or directory"),
        ("3/4 of NCHW/NHWC at https://example.org/x", "3/4 of NCHW/NHWC at https:…"),
        ("x" * 100, "x" * 60 + "…"),
    ],
)
def test_what_others_say_is_told_without_paths(said: str | OSError, told: str) -> None:
    assert without_paths(said, 60) == told
