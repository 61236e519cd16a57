"""Runtimes written in Python: the contract, from loading to the end of the process."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from abacus import Abacus, Raises, Session, X, engine_of, gives, model_of

import nnrp
from nnrp.errors import AlreadyExists, DeviceNotFound, InvalidOption, LoadFailed, UnknownOption
from nnrp.runtimes import Control, ModelSpec

# What a run gives


@pytest.mark.parametrize(
    "value",
    [
        {"y": X},
        [X],
        (X,),
        X,
        X.tolist(),
        {"y": X.tolist()},
        {"y": np.asfortranarray(X)},
        {"y": X[::-1][::-1]},
        {"y": np.repeat(X, 2, axis=1)[:, ::2]},
        {"y": X.astype(">f4")},
        {"y": nnrp.Tensor("FP32", [2, 2], X.tobytes())},
        {"y": X, "extra": 5},
        {"y": np.frombuffer(b"\0" + X.tobytes(), np.float32, offset=1).reshape(2, 2)},
    ],
    ids=str,
)
def test_outputs_come_in_every_form_that_inputs_have(value: Any) -> None:
    if isinstance(value, list) and len(value) == 2:
        value = {"y": value}
    assert np.array_equal(model_of(gives(value))(X)["y"], X)


def test_texts_and_narrow_types_cross_both_ways() -> None:
    specs = [("s", "BYTES", (-1,)), ("b", "BF16", (-1,)), ("q", "INT4", (-1,))]
    seen: dict[str, Any] = {}

    def run(inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> dict[str, Any]:
        seen.update(inputs)
        return inputs

    model = model_of(run, inputs=specs, outputs=specs)
    given = {"s": ["ä", b"\xff"], "b": np.array([1.5, -2], ml_dtypes.bfloat16), "q": np.array([-8, 7, 1], ml_dtypes.int4)}
    answer = model.infer(given)
    assert seen["s"].tolist() == answer["s"].tolist() == ["ä".encode(), b"\xff"]
    assert seen["b"].dtype == answer["b"].dtype == ml_dtypes.bfloat16
    assert answer["b"].tolist() == [1.5, -2]
    assert seen["q"].dtype == answer["q"].dtype == ml_dtypes.int4
    assert answer["q"].tolist() == [-8, 7, 1]


def test_only_the_outputs_that_were_asked_for_are_asked_for() -> None:
    asked: list[tuple[str, ...]] = []

    def run(inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> list[Any]:
        asked.append(tuple(outputs))
        return [inputs["x"]] * len(outputs)

    model = model_of(run, outputs=[("y", "FP32", (-1, 2)), ("z", "FP32", (-1, 2))])
    assert list(model(X)) == ["y", "z"]
    assert list(model.infer({"x": X}, outputs=["z"])) == ["z"]
    assert list(model.infer({"x": X}, outputs=["z", "y"])) == ["z", "y"]
    assert asked == [("y", "z"), ("z",), ("z", "y")]


def test_inputs_are_read_in_place_and_cannot_be_written_to() -> None:
    seen: list[Any] = []
    model = model_of(lambda inputs, outputs, control: (seen.append(inputs["x"]), np.array(inputs["x"]))[1])
    x = np.ones((500, 2), np.float32)
    model(x)
    assert np.shares_memory(seen[0], x)
    assert not seen[0].flags.writeable


def test_an_array_that_the_session_keeps_is_copied_and_one_that_it_gives_away_is_not() -> None:
    kept = np.zeros((500, 2), np.float32)
    places: list[int] = []

    def fresh() -> Any:
        made = np.zeros((500, 2), np.float32)
        places.append(made.ctypes.data)
        return made

    for value in (kept, {"y": kept}, [kept], kept[:]):
        answer = model_of(gives(value))(X)["y"]
        assert not np.shares_memory(answer, kept)
        answer[:] = 7
        assert not kept.any()
    for run in (lambda *_: fresh(), lambda *_: {"y": fresh()}, lambda *_: (fresh(),)):
        assert model_of(run)(X)["y"].ctypes.data == places[-1]
    x = np.ones((500, 2), np.float32)
    same = model_of(lambda inputs, outputs, control: inputs["x"])(x)["y"]
    assert not np.shares_memory(same, x)


# Loading


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"outputs": []}, "outputs: expected 1"),
        ({"outputs": [("y", "FP31", [1])]}, "unknown datatype 'FP31'"),
        ({"outputs": [("y", "FP32", [-2])]}, "each -1 or more"),
        ({"outputs": [("y", "FP32")]}, r"expected \(name, datatype, shape\)"),
        ({"outputs": [5]}, r"expected \(name, datatype, shape\)"),
        ({"inputs": [("x", "FP32", [1]), ("x", "FP32", [1])]}, "'x' is told twice"),
        ({"inputs": None}, "TypeError"),
        ({"settings": {"beads": object()}}, "expected what JSON can say"),
        ({"workers": 0}, "expected a number from 1"),
        ({"device": 5}, "invalid type"),
    ],
)
def test_a_session_that_tells_nonsense_is_not_loaded_and_is_closed(told: dict[str, Any], says: str) -> None:
    closed: list[bool] = []
    with pytest.raises(LoadFailed, match=says):
        model_of(gives(X), close=lambda: closed.append(True), **told)
    assert closed == [True]


def test_what_load_and_info_raise_is_told(tmp_path: Path) -> None:
    class Broken(Abacus):
        def load(self, spec: ModelSpec) -> Session:
            raise OSError(2, "No such file or directory", str(tmp_path))

    class Mute(Abacus):
        def info(self) -> dict[str, Any]:
            raise ImportError("no beads")

    class Wrong(Abacus):
        def info(self) -> dict[str, Any]:
            return {"options": {"type": "objekt"}}

    for runtime, says in ((Broken(), "OSError|FileNotFoundError: No such"), (Mute(), "ImportError: no beads"), (Wrong(), "info: options: ")):
        engine = nnrp.Engine()
        engine.add_runtime(runtime)
        with pytest.raises(LoadFailed, match=says) as raised:
            engine.load("abacus:a", runtime="abacus")
        assert str(tmp_path) not in str(raised.value.details)
        assert "abacus" in [told["name"] for told in engine.runtimes()]


def test_options_are_checked_against_the_runtimes_schema() -> None:
    engine = nnrp.Engine()
    runtime = Abacus(a=Session(gives(X), device="wood"))
    engine.add_runtime(runtime)
    for options, kind, path in (
        ({"beams": 1}, UnknownOption, "options.beams"),
        ({"beads": 0}, InvalidOption, "options.beads"),
        ({"rods": ["a", 5]}, InvalidOption, "options.rods[1]"),
    ):
        with pytest.raises(kind) as raised:
            engine.load("abacus:a", runtime="abacus", options=options)
        assert raised.value.details["path"] == path
    assert runtime.specs == []
    engine.load("abacus:a", runtime="abacus", options={"beads": 3}, labels={"owner": "ada"}, device="wood")
    (spec,) = runtime.specs
    assert (spec.name, spec.path, spec.options, spec.labels, spec.device) == ("a", "abacus:a", {"beads": 3}, {"owner": "ada"}, "wood")


def test_a_device_or_precision_that_a_session_does_not_have_is_refused() -> None:
    engine = nnrp.Engine()
    engine.add_runtime(Abacus(a=Session(gives(X), device="wood", settings={"precision": "bf16"})))
    with pytest.raises(nnrp.NnrpError, match="device 'iron' is not there; runtime abacus took wood"):
        engine.load("abacus:a", runtime="abacus", device="iron", precision="bf16")
    with pytest.raises(nnrp.NnrpError, match="precision strict: runtime abacus computes in bf16"):
        engine.load("abacus:a", runtime="abacus")
    assert engine.load("abacus:a", runtime="abacus", device="wood", precision="fast").session is not None
    engine.add_runtime(Abacus(another=Session(gives(X), settings={"device": "iron"})))
    with pytest.raises(DeviceNotFound, match="device 'cpu' is not there; runtime abacus took iron"):
        engine.load("abacus:another", "another", runtime="abacus", device="cpu")


def test_a_session_tells_what_it_is() -> None:
    model = model_of(gives(X), device="wood", settings={"beads": 3}, cancellable=True, format="beads")
    session = model.session
    assert session is not None
    assert (session.runtime, session.version, session.format, session.device) == ("abacus", "3", "beads", "wood")
    assert (session.settings, session.exclusive, session.cancellable) == ({"beads": 3, "device": "wood"}, True, True)
    assert model.metadata()["platform"] == "abacus_beads"
    engine = model.engine
    assert engine is not None
    (told,) = [told for told in engine.runtimes() if told["name"] == "abacus"]
    assert (told["name"], told["version"], told["formats"], told["devices"]) == ("abacus", "3", ["beads"], ["wood"])


def test_a_runtimes_name_is_one_that_a_description_can_say() -> None:
    for name in ("", "a,b", ".x", "x" * 65, 5):
        runtime = Abacus()
        runtime.name = name  # type: ignore[assignment]
        with pytest.raises(InvalidOption):
            nnrp.Engine().add_runtime(runtime)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "tract", "callable"])
def test_no_runtime_takes_the_name_of_one_that_comes_with_the_package(name: str) -> None:
    runtime = Abacus()
    runtime.name = name
    with pytest.raises(AlreadyExists, match=f"'{name}' is that of a runtime that comes with NNRP"):
        nnrp.Engine().add_runtime(runtime)


@pytest.mark.parametrize("shape", [[1.5], ["n"], 3, [None, "1"]])
def test_a_shape_that_is_none_is_refused_at_the_load(shape: Any) -> None:
    with pytest.raises(LoadFailed, match=r"expected \(name, datatype, shape\)"):
        model_of(gives(X), inputs=[("x", "FP32", shape)])


def test_a_session_is_closed_once_nobody_has_it() -> None:
    closed: list[str] = []
    session = Session(gives(X), close=lambda: closed.append("closed"))
    engine = engine_of(model=session)
    alive = weakref.ref(session)
    del session
    engine.unload("model")
    assert closed == ["closed"]
    engine.add_runtime(Abacus())
    gc.collect()
    assert alive() is None


def test_a_close_that_raises_is_nobodys_error() -> None:
    engine = engine_of(model=Session(gives(X), close=Raises(ValueError("stuck"))))
    engine.unload("model")
    assert engine.models() == []


# Processes


def ends_with(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, cwd=Path(__file__).parent)


SERVED = """
import sys, threading, time
import numpy as np, nnrp
from abacus import Session, engine_of, X

def endless():
    while True:
        pass

def run(inputs, outputs, control):
    {body}
    return inputs["x"]

server = nnrp.serve(engine_of(model=Session(run)), http_port=0, grpc_port=0)
model = nnrp.connect(server.http_url)
try:
    print(model.infer({{"x": X}}, timeout={timeout})["y"].shape)
except nnrp.NnrpError as error:
    print(error.reason)
{end}
"""


@pytest.mark.parametrize("end", ["server.stop(0)", "pass", "sys.exit(0)"])
@pytest.mark.parametrize(("body", "timeout", "prints"), [("pass", 30, "(2, 2)"), ("time.sleep(1000)", 0.05, "DEADLINE"), ("endless()", 0.05, "DEADLINE")])
def test_an_interpreter_ends_cleanly_whatever_its_sessions_do(body: str, timeout: float, end: str, prints: str) -> None:
    done = ends_with(SERVED.format(body=body, timeout=timeout, end=end))
    assert (done.returncode, done.stdout.split("\n")[0], done.stderr) == (0, prints, "")


LATE = """
class Late:
    def __del__(self, sleep=time.sleep):
        sleep(0.5)

import builtins
builtins.late = Late()
"""


def test_a_run_that_ends_while_the_interpreter_does_takes_nothing_down() -> None:
    done = ends_with(SERVED.format(body="time.sleep(1.2)", timeout=0.05, end=LATE))
    assert (done.returncode, done.stdout.split("\n")[0], done.stderr) == (0, "DEADLINE", "")


def test_a_session_that_only_its_run_has_is_closed_before_the_interpreter_ends() -> None:
    program = SERVED.replace("Session(run)", "Session(run, close=lambda: print('closed', flush=True))")
    done = ends_with(program.format(body="time.sleep(0.5)", timeout=0.05, end="server.engine.unload('model')\nserver.stop(0)"))
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["DEADLINE", "closed"], "")


def test_a_worker_keeps_its_python_thread_from_run_to_run() -> None:
    local, counts = threading.local(), list[int]()

    def run(inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Any:
        local.runs = getattr(local, "runs", 0) + 1
        counts.append(local.runs)
        return inputs["x"]

    with nnrp.serve(engine_of(model=Session(run)), http_port=0, grpc_port=None) as server:
        model = nnrp.connect(server.http_url or "")
        for _ in range(5):
            model(X)
    assert counts == [1, 2, 3, 4, 5]
