"""Streams of answers over gRPC: our own client, and the unmodified ``tritonclient`` (spec §4.8)."""

from __future__ import annotations

import asyncio
import json
import queue
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as tgrpc
import tritonclient.grpc.aio as tgrpc_aio
from tritonclient.utils import InferenceServerException

import nnrp
from nnrp.errors import Deadline, ModelNotFound, NotOffered, QueueFull

LINE: dict[str, Any] = {"inputs": {"x": ("FP32", [-1])}, "outputs": {"y": ("FP32", [-1])}}
X: Any = np.float32([1, 2, 3])
LEFT = threading.Event()


def each(x: Any) -> Iterator[Any]:
    """Give y = 2x, one element at a time; NaN is an error, infinity goes on for ever."""
    try:
        for value in x:
            if np.isnan(value):
                raise QueueFull("come again", beads=5)
            while np.isinf(value):
                yield np.float32([0])
            yield np.float32([value * 2])
    finally:
        LEFT.set()


async def later(x: Any) -> AsyncIterator[Any]:
    for value in x:
        await asyncio.sleep(0)
        yield np.float32([value * 2])


@pytest.fixture(scope="module")
def server() -> Iterator[nnrp.Server]:
    engine = nnrp.Engine()
    engine.load(each, **LINE, options={"exclusive": False, "workers": 8})
    engine.load(later, **LINE)
    engine.load(lambda x: x * 2, "plain", **LINE)
    with nnrp.serve(engine, http_port=0, grpc_port=0) as running:
        yield running


@pytest.fixture
def remote(server: nnrp.Server) -> nnrp.Client:
    LEFT.clear()
    return nnrp.Client(server.grpc_url or "")


def values(answers: Any) -> list[list[float]]:
    return [answer["y"].tolist() for answer in answers]


# Our own client


def test_a_model_behind_grpc_streams_as_one_in_this_process_does(remote: nnrp.Client) -> None:
    for name in ("each", "later"):
        model = remote.model(name)
        assert values(model.stream(x=X)) == [[2], [4], [6]]
        assert values(model.stream({"x": X[:0]}, ["y"], id="seven")) == []
        with pytest.raises(NotOffered, match="any number of answers"):
            model(X)
    assert values(remote.model("plain").stream(x=X)) == [[2, 4, 6]]


@pytest.mark.asyncio
async def test_an_event_loop_reads_many_remote_streams_at_once(remote: nnrp.Client) -> None:
    async def read(name: str, count: int) -> list[float]:
        return [float(answer["y"][0]) async for answer in remote.model(name).stream_async(x=np.arange(count, dtype=np.float32))]

    read_all = await asyncio.gather(*(read(name, count) for name in ("each", "later") for count in range(12)))
    assert read_all == [[2.0 * value for value in range(count)] for _ in range(2) for count in range(12)]


def test_errors_of_a_remote_stream_are_those_of_one_here(remote: nnrp.Client) -> None:
    answers = remote.model("each").stream(x=np.array([1, np.nan], np.float32))
    assert next(answers)["y"].tolist() == [2]
    with pytest.raises(QueueFull, match="come again") as raised:
        next(answers)
    assert raised.value.details["beads"] == 5
    assert list(answers) == []
    with pytest.raises(nnrp.errors.DatatypeMismatch):
        list(remote.model("each").stream(x=np.float64([1])))
    LEFT.clear()
    with pytest.raises(Deadline):
        list(remote.model("each").stream(x=np.array([np.inf], np.float32), timeout=1))
    assert LEFT.wait(60)


def test_whoever_leaves_a_remote_stream_stops_the_generator(remote: nnrp.Client) -> None:
    for _ in remote.model("each").stream(x=np.array([np.inf], np.float32)):
        break
    assert LEFT.wait(60)
    assert values(remote.model("each").stream(x=X)) == [[2], [4], [6]]


def test_a_server_of_another_model_says_so_by_the_stream(server: nnrp.Server) -> None:
    model = nnrp.connect(server.grpc_url or "", "plain")
    assert model.engine is None
    assert server.engine is not None
    server.engine.unload("plain")
    try:
        with pytest.raises(ModelNotFound):
            list(model.stream(x=X))
    finally:
        server.engine.load(lambda x: x * 2, "plain", **LINE)


def test_rest_tells_that_a_model_streams_and_refuses_one_answer(server: nnrp.Server) -> None:
    model = nnrp.connect(server.http_url or "", "each")
    assert model.metadata()["properties"] == {"decoupled": "true"}
    with pytest.raises(NotOffered, match="any number of answers"):
        model(X)
    with pytest.raises(NotOffered, match="grpc://"):
        model.stream(x=X)
    assert "properties" not in nnrp.connect(server.http_url or "", "plain").metadata()


def test_a_remote_model_that_streams_and_was_not_said_to_tells_how_it_is_loaded(server: nnrp.Server) -> None:
    for url in (server.grpc_url, server.http_url):
        with pytest.raises(NotOffered, match=r"over gRPC with the option 'stream'") as raised:
            nnrp.load(f"{url}/each", runtime="remote")(X)
        assert raised.value.details["decoupled"] is True


def test_a_remote_model_that_streams_is_served_on(server: nnrp.Server) -> None:
    model = nnrp.load(f"{server.grpc_url}/each", runtime="remote", options={"stream": True})
    assert model.session is not None
    assert model.session.streams
    assert values(model.stream(x=X)) == [[2], [4], [6]]
    answers = model.stream(x=np.array([1, np.nan], np.float32))
    next(answers)
    with pytest.raises(QueueFull):
        next(answers)
    LEFT.clear()
    for _ in model.stream(x=np.array([np.inf], np.float32)):
        break
    assert LEFT.wait(60)
    with pytest.raises(NotOffered, match="URL of a gRPC"):
        nnrp.load(f"{server.http_url}/each", runtime="remote", options={"stream": True})


def test_the_command_line_prints_each_answer_of_a_stream(server: nnrp.Server) -> None:
    nnrp_infer = [Path(sys.executable).with_name("nnrp"), "infer", server.grpc_url or "", "each", "--stream"]

    def ends(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*nnrp_infer, *words], capture_output=True, text=True, timeout=60, check=False)

    done = ends("--input", "x=[1,2]", "--json")
    decoder, rest, told = json.JSONDecoder(), done.stdout.strip(), []
    while rest:
        answer, end = decoder.raw_decode(rest)
        told.append(answer["outputs"][0]["data"])
        rest = rest[end:].strip()
    assert (told, done.stderr, done.returncode) == ([[2], [4]], "", 0)
    assert ends("--input", "x=[1,2]").stdout.count("each version 1,") == 2
    assert "--stream" in ends("--input", "x=[1]", "--output", "y=y.npy").stderr


# tritonclient


class Stream:
    """A `tritonclient` stream whose answers a test takes one by one."""

    def __init__(self, client: Any, **how: Any) -> None:
        self.client, self.answers = client, queue.Queue[Any]()
        client.start_stream(lambda result, error: self.answers.put((result, error)), **how)

    def ask(self, model: str, x: Any, id: str, **how: Any) -> None:
        self.client.async_stream_infer(model, [tensor(x)], request_id=id, **how)

    def next(self) -> tuple[Any, Any]:
        answer: tuple[Any, Any] = self.answers.get(timeout=60)
        return answer

    def told(self) -> tuple[str, list[float] | str, bool | None]:
        """The id, the values or the error, and whether it was the last."""
        result, error = self.next()
        if error is not None:
            return "", error.message(), None
        response = result.get_response()
        last = response.parameters["triton_final_response"].bool_param
        y = result.as_numpy("y")
        return response.id, [] if y is None else y.tolist(), last


def tensor(x: Any) -> Any:
    given = tgrpc.InferInput("x", [len(x)], "FP32")
    given.set_data_from_numpy(np.float32(x))
    return given


@pytest.fixture
def client(server: nnrp.Server) -> Iterator[Any]:
    LEFT.clear()
    with tgrpc.InferenceServerClient((server.grpc_url or "").removeprefix("grpc://")) as client:
        yield client


def test_tritonclient_streams_and_hears_what_is_last(client: Any) -> None:
    stream = Stream(client)
    stream.ask("each", X, "a")
    assert [stream.told() for _ in range(3)] == [("a", [2], False), ("a", [4], False), ("a", [6], False)]
    stream.ask("plain", X, "b", enable_empty_final_response=True)
    assert stream.told() == ("b", [2, 4, 6], True)
    stream.ask("later", X[:1], "c", enable_empty_final_response=True)
    assert [stream.told(), stream.told()] == [("c", [2], False), ("c", [], True)]
    client.stop_stream()
    assert stream.answers.empty()


def test_tritonclient_has_many_requests_in_one_stream(client: Any) -> None:
    stream = Stream(client)
    for number in range(200):
        stream.ask(("each", "later", "plain")[number % 3], [number, number + 1], str(number), enable_empty_final_response=True)
    seen: dict[str, list[list[float] | str]] = {}
    ended = 0
    while ended < 200:
        id, values, last = stream.told()
        ended += bool(last)
        seen.setdefault(id, []).append(values)
    client.stop_stream()
    for number in range(200):
        y = [number * 2.0, number * 2.0 + 2]
        assert seen[str(number)] == ([y] if number % 3 == 2 else [y[:1], y[1:], []])


def test_tritonclient_hears_of_errors_and_goes_on(client: Any) -> None:
    stream = Stream(client)
    for model, x, says in (("nope", X, "nope"), ("each", [1, np.nan], "come again")):
        stream.ask(model, x, "a")
        if model == "each":
            assert stream.told() == ("a", [2], False)
        assert says in stream.told()[1]
    stream.ask("plain", X, "b")
    assert stream.told()[:2] == ("b", [2, 4, 6])
    client.stop_stream()
    with pytest.raises(InferenceServerException, match="any number of answers") as refused:
        client.infer("each", [tensor(X)])
    assert refused.value.status() == "StatusCode.UNIMPLEMENTED"


def test_tritonclient_may_ask_for_errors_as_statuses(client: Any) -> None:
    stream = Stream(client, headers={"triton_grpc_error": "true"})
    stream.ask("nope", X, "a")
    _, error = stream.next()
    assert error.status() == "StatusCode.NOT_FOUND"
    client.stop_stream()


def test_tritonclient_that_leaves_stops_the_generator(client: Any) -> None:
    stream = Stream(client)
    stream.ask("each", [np.inf], "a")
    assert stream.told()[:2] == ("a", [0])
    client.stop_stream(cancel_requests=True)
    assert LEFT.wait(60)


@pytest.mark.asyncio
async def test_tritonclient_streams_in_an_event_loop(server: nnrp.Server) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number, name in enumerate(("each", "later", "plain")):
            yield {"model_name": name, "inputs": [tensor(X)], "request_id": str(number)}

    seen: dict[str, list[float]] = {}
    async with tgrpc_aio.InferenceServerClient((server.grpc_url or "").removeprefix("grpc://")) as client:
        async for result, error in client.stream_infer(requests()):
            assert error is None
            seen.setdefault(result.get_response().id, []).extend(result.as_numpy("y").tolist())
    assert seen == {"0": [2, 4, 6], "1": [2, 4, 6], "2": [2, 4, 6]}
