"""The runtimes in Python that come with the package: callable, reference, remote."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import servers
import zoo

import nnrp
from nnrp.errors import (
    ConnectionFailed,
    Deadline,
    DeviceNotFound,
    InvalidModel,
    InvalidOption,
    NotOffered,
    RunFailed,
    WrongState,
)

X = np.float32([[1, 2, 3, 4]])
LINE: dict[str, Any] = {"inputs": {"x": ("FP32", [-1])}, "outputs": {"y": ("FP32", [-1])}}


# Callable


def double(x: Any) -> Any:
    """For `module:function`, too."""
    return x * 2


def in_every_form(function: Callable[..., Any], **told: Any) -> Iterator[nnrp.Model]:
    engine = nnrp.Engine()
    here = engine.load(function, "model", **told)
    with nnrp.serve(engine, http_port=0, grpc_port=0) as server:
        yield from (here, nnrp.connect(server.http_url or ""), nnrp.connect(server.grpc_url or ""))


def test_a_function_is_a_model_in_every_form() -> None:
    for model in in_every_form(double, **LINE):
        assert model(np.float32([1, 2]))["y"].tolist() == [2, 4]
    with nnrp.serve(double, name="twice", **LINE, http_port=0, grpc_port=None) as server:
        assert nnrp.connect(f"{server.http_url}/v2/models/twice")(np.float32([3]))["y"].tolist() == [6]
    assert nnrp.load(double, **LINE).name == "double"
    assert nnrp.load("test_runtime_shipped:double", runtime="callable", options=LINE)(np.float32([4]))["y"].tolist() == [8]


def test_an_async_function_is_a_model_and_many_of_its_runs_go_on_at_once() -> None:
    arrived: list[int] = []

    async def together(x: Any) -> Any:
        arrived.append(1)
        while len(arrived) % 8:
            await asyncio.sleep(0.001)
        return {"y": x + 1}

    for model in in_every_form(together, **LINE):
        answers: list[Any] = []
        callers = [threading.Thread(target=lambda model=model, answers=answers: answers.append(model(np.float32([1]))["y"].tolist())) for _ in range(8)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(30)
        assert answers == [[2]] * 8


def test_an_async_function_is_cancelled_at_its_deadline() -> None:
    cancelled = threading.Event()

    async def patient(x: Any) -> Any:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    for model in in_every_form(patient, **LINE):
        cancelled.clear()
        with pytest.raises(Deadline):
            model.infer({"x": np.float32([1])}, timeout=1)
        assert cancelled.wait(30)


def test_an_async_function_that_cancels_itself_is_its_own_failure() -> None:
    async def gives_up(x: Any) -> Any:
        raise asyncio.CancelledError

    for model in in_every_form(gives_up, **LINE):
        with pytest.raises(RunFailed, match="the function cancelled itself"):
            model.infer({"x": np.float32([1])}, timeout=60)


def test_an_async_function_that_stops_its_loop_stops_no_run() -> None:
    async def stops(x: Any) -> Any:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0)
        return {"y": x + 1}

    for model in in_every_form(stops, **LINE):
        for _ in range(3):
            assert model.infer({"x": np.float32([1])}, timeout=60)["y"].tolist() == [2]


def test_an_async_function_that_calls_its_own_model_is_told_so() -> None:
    model: nnrp.Model

    async def itself(x: Any) -> Any:
        return model(x)["y"]

    model = nnrp.load(itself, **LINE)
    with pytest.raises(WrongState, match="await the function itself"):
        model(np.float32([1]))


class Counter:
    """An object that is called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Any) -> Any:
        self.calls += 1
        return x * 0 + self.calls


def test_whatever_can_be_called_is_a_function() -> None:
    assert nnrp.load(np.tanh, name="tanh", **LINE)(np.float32([0]))["y"].tolist() == [0]
    assert nnrp.load(lambda a: a, name="same", **LINE)(np.float32([7]))["y"].tolist() == [7]
    counter = nnrp.load(Counter(), **LINE)
    assert [counter(np.float32([0]))["y"].tolist() for _ in range(2)] == [[1], [2]]
    assert nnrp.load(counter, name="again", **LINE)(np.float32([0]))["y"].tolist() == [3]


def test_a_function_gives_all_its_outputs_and_the_caller_picks() -> None:
    told: dict[str, Any] = {"inputs": {"a": ("INT64", [-1]), "b": ("INT64", [-1])}, "outputs": {"sum": ("INT64", [-1]), "product": ("INT64", [-1])}}
    model = nnrp.load(lambda b, a: (a + b, a * b), name="both", **told)
    a, b = np.int64([2]), np.int64([5])
    assert {name: value.tolist() for name, value in model(a, b).items()} == {"sum": [7], "product": [10]}
    assert model.infer({"a": a, "b": b}, outputs=["product"])["product"].tolist() == [10]


def test_a_function_that_cannot_be_a_model_is_refused() -> None:
    with pytest.raises(InvalidOption, match="the function takes"):
        nnrp.load(lambda a, b: a, name="two", **LINE)
    with pytest.raises(InvalidOption, match="outputs"):
        nnrp.load(double)
    with pytest.raises(InvalidOption, match=r"options.inputs"):
        nnrp.load(double, inputs={"x": ("FP32", [-2])}, outputs=LINE["outputs"])
    with pytest.raises(InvalidOption, match=r"options.inputs\['x'\]\[0\]: expected a datatype such as FP32, got 'float'"):
        nnrp.load(double, inputs={"x": ("float", [-1])}, outputs=LINE["outputs"])
    with pytest.raises(InvalidOption, match=r"model name: .* name="):
        nnrp.load(lambda x: x, **LINE)
    with pytest.raises(InvalidOption, match="'callable' for a function"):
        nnrp.load(double, runtime="onnxruntime", **LINE)
    with pytest.raises(DeviceNotFound):
        nnrp.load(double, device="cuda:0", **LINE)
    with pytest.raises(NotOffered):
        nnrp.load(double, precision="int8", **LINE)
    for path in ("nowhere_to_be_found:f", "test_runtime_shipped:nowhere", "test_runtime_shipped:X", ":"):
        with pytest.raises(InvalidModel):
            nnrp.load(path, "f", runtime="callable", options=LINE)


def test_a_function_is_let_go_with_its_model() -> None:
    import gc
    import weakref

    counter = Counter()
    alive = weakref.ref(counter)
    model = nnrp.load(counter, **LINE)
    with pytest.raises(InvalidOption):
        nnrp.load(counter, name="a/b", **LINE)
    del counter, model
    gc.collect()
    # What is dropped without the interpreter is let go when it is next held.
    nnrp.load(double, **LINE)
    gc.collect()
    assert alive() is None


# Reference


@pytest.mark.parametrize("datatype", sorted(set(zoo.ONNX_TYPES)))
def test_the_reference_takes_and_gives_every_datatype(tmp_path: Path, datatype: str) -> None:
    file = zoo.identity(tmp_path / "same.onnx", datatype, ["n"])
    there, here = nnrp.load(file), nnrp.load(file, runtime="reference")
    assert (there.inputs, there.outputs) == (here.inputs, here.outputs)
    value = ["ä", b"\xff"] if datatype == "BYTES" else [False, True] if datatype == "BOOL" else [0.0, 1.0] if datatype[:2] in ("FP", "BF") else [0, 1]
    ours, theirs = ([(array.dtype, array.tolist()) for array in model(value).values()] for model in (here, there))
    assert ours == theirs


def test_the_reference_agrees_with_onnxruntime(tmp_path: Path) -> None:
    file = zoo.two_by_two(tmp_path / "two.onnx")
    a, b = np.int32([1, 2]), np.int32([3, 4])
    answers = [nnrp.load(file, runtime=runtime)(a, b) for runtime in ("onnxruntime", "reference")]
    assert {name: value.tolist() for name, value in answers[0].items()} == {name: value.tolist() for name, value in answers[1].items()}
    biased = nnrp.load(zoo.optional_bias(tmp_path / "bias.onnx"), runtime="reference")
    assert biased.session.settings["threads"] >= 1
    assert biased(np.float32([1, 2]))["y"].tolist() == [11, 12]
    assert biased.inputs[1].optional


def test_the_reference_fails_as_a_runtime_does(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(zoo.scale(tmp_path / "whole.onnx", 2.0).read_bytes()[:-9])
    with pytest.raises(InvalidModel) as raised:
        nnrp.load(broken, runtime="reference")
    assert str(tmp_path) not in raised.value.message
    model = nnrp.load(zoo.failing(tmp_path / "failing.onnx"), runtime="reference")
    with pytest.raises(RunFailed) as failed:
        model(np.int64([5]))
    assert failed.value.details["runtime"] == "reference"


# Remote


@pytest.fixture(scope="module")
def behind() -> Iterator[nnrp.Server]:
    """A server with a quick model and one that waits."""

    async def patient(x: Any) -> Any:
        await asyncio.sleep(1000)

    engine = nnrp.Engine()
    engine.load(double, **LINE)
    engine.load(patient, **LINE)
    with nnrp.serve(engine, http_port=0, grpc_port=0) as server:
        yield server


@pytest.mark.parametrize("form", ["http_url", "grpc_url"])
def test_a_model_of_another_server_is_a_model_in_every_form(behind: nnrp.Server, form: str) -> None:
    url = getattr(behind, form)
    for model in (
        nnrp.load(f"{url}/double"),
        nnrp.load(f"{url}/double/1"),
        nnrp.load(f"{url}/v2/models/double"),
        nnrp.load("m:", "double", runtime="remote", options={"url": url}),
    ):
        assert model(np.float32([1, 2]))["y"].tolist() == [2, 4]
        assert model.infer({"x": np.float32([3])}, timeout=30)["y"].tolist() == [6]
    with nnrp.serve(f"front={url}/double", http_port=0, grpc_port=0) as front:
        for front_url in (front.http_url or "", front.grpc_url or ""):
            assert nnrp.connect(f"{front_url}/v2/models/front")(np.float32([1]))["y"].tolist() == [2]


def test_a_deadline_is_passed_on_to_the_other_server(behind: nnrp.Server) -> None:
    with nnrp.serve(f"{behind.http_url}/patient", http_port=0, grpc_port=0) as front:
        for url in (front.http_url or "", front.grpc_url or ""):
            started = time.monotonic()
            with pytest.raises(Deadline):
                nnrp.connect(url).infer({"x": np.float32([1])}, timeout=1)
            assert time.monotonic() - started < 30
    until = time.monotonic() + 60
    while not sum(behind.engine.model("patient").statistics()["failures"].values()):
        assert time.monotonic() < until, "the other server was not told"


def test_a_remote_model_that_is_not_there_is_told_as_by_any_client(behind: nnrp.Server) -> None:
    with pytest.raises(nnrp.errors.ModelNotFound):
        nnrp.load(f"{behind.http_url}/nowhere")
    with pytest.raises(ConnectionFailed):
        nnrp.load("http://127.0.0.1:9/double")
    for path in ("ftp://127.0.0.1/double", "http://127.0.0.1:9/a/b/c", "http:///double"):
        with pytest.raises(InvalidOption):
            nnrp.load(path, "m", runtime="remote")


def test_a_server_that_goes_away_is_a_retryable_error() -> None:
    with nnrp.serve(double, **LINE, http_port=0, grpc_port=None) as server:
        model = nnrp.load(f"{server.http_url}/double")
        assert model(np.float32([1]))["y"].tolist() == [2]
    with pytest.raises(nnrp.Unavailable) as raised:
        model(np.float32([1]))
    assert raised.value.retryable


SIGNATURE = [{"name": "x", "datatype": "FP32", "shape": [-1]}], [{"name": "y", "datatype": "FP32", "shape": [-1]}]
METADATA = {"name": "m", "versions": ["1"], "platform": "any", "inputs": SIGNATURE[0], "outputs": SIGNATURE[1]}


def answered(**output: Any) -> bytes:
    """An answer whose one output is as it should be but for this."""
    told = {"name": "y", "datatype": "FP32", "shape": [2], "data": [1, 2]} | output
    return json.dumps({"model_name": "m", "model_version": "1", "outputs": [told]}).encode()


def test_a_server_that_answers_nonsense_is_told_as_the_servers_fault() -> None:
    with servers.serving(files := servers.Files({})):
        place = f"{files.url}/m"
        for metadata in (
            b"<html>",
            b"null",
            b"[]",
            b'{"inputs": 5}',
            json.dumps(METADATA | {"inputs": [{"name": 5, "datatype": "FP32", "shape": []}]}).encode(),
        ):
            files.content["/v2/models/m"] = metadata
            with pytest.raises(ConnectionFailed, match=r"cannot be read|no JSON"):
                nnrp.load(place)
        files.content["/v2/models/m"] = json.dumps(METADATA).encode()
        model = nnrp.load(place)
        for answer in (
            answered(data=[1]),
            answered(data=["a", "b"]),
            answered(datatype="ZZ"),
            answered(shape=[-2]),
            answered(shape=[1 << 40]),
            b"[1]",
            b"<html>",
        ):
            files.content["/v2/models/m/infer"] = answer
            with pytest.raises(ConnectionFailed, match="the answer cannot be read"):
                model(np.float32([1, 2]))
        for answer in (answered(datatype="INT32"), answered(shape=[1, 2]), answered(name="q")):
            files.content["/v2/models/m/infer"] = answer
            with pytest.raises(RunFailed, match="output"):
                model(np.float32([1, 2]))
        del files.content["/v2/models/m/infer"]
        with pytest.raises(RunFailed, match="refused what fits the signature that it told") as raised:
            model(np.float32([1, 2]))
        assert raised.value.details["server"]["code"] == "NOT_FOUND"
        files.content["/v2/models/m/infer"] = answered()
        assert model(np.float32([1, 2]))["y"].tolist() == [1, 2]
