"""The Python form, remote: the same Model behind REST and gRPC, clients and servers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import zoo

import nnrp
from nnrp import errors

X = np.array([[1, 2, 3, 4]], np.float32)
DOUBLED = [[2, 4, 6, 8]]
FORMS = ["http_url", "grpc_url"]

Reach = Callable[..., nnrp.Model]


@pytest.fixture(params=FORMS)
def reach(request: pytest.FixtureRequest, server: nnrp.Server) -> Reach:
    """A model of the zoo's server, by name."""
    return lambda name, version=None: nnrp.connect(getattr(server, request.param), name, version)


def test_a_remote_model_is_the_same_class_and_tells_the_same(reach: Reach, models: Path) -> None:
    here, there = nnrp.load(zoo.two_by_two(models / "two_by_two.onnx")), reach("two_by_two")
    assert type(here) is type(there) is nnrp.Model
    assert (here.name, here.inputs, here.outputs) == (there.name, there.inputs, there.outputs)
    assert here.metadata() == there.metadata()
    assert (there.session, there.engine) == (None, None)
    with pytest.raises(errors.NotOffered):
        there.statistics()


def test_a_remote_model_answers_every_kind_of_call(reach: Reach) -> None:
    model = reach("two_by_two")
    a, b = np.array([2], np.int32), np.array([5], np.int32)
    for answer in (model(a, b), model(a, b=b), model([2], [5]), model.infer({"b": b, "a": a}), asyncio.run(model.infer_async({"b": b, "a": a}))):
        assert list(answer) == ["sum", "product"]
        assert (answer["sum"].item(), answer["product"].item()) == (7, 10)
    assert list(model.infer({"a": a, "b": b}, ["product"], id="i", parameters={"p": 1})) == ["product"]


@pytest.mark.parametrize("datatype", sorted(zoo.ONNX_TYPES))
def test_every_datatype_comes_back_as_in_process(reach: Reach, models: Path, datatype: str) -> None:
    from nnrp.tensor import numpy_type

    values = ["a", b"\0", "", "d"] if datatype == "BYTES" else [0, 1, 1, 0]
    x = np.array([values], numpy_type(datatype))
    here = nnrp.load(zoo.identity(models / f"here_{datatype.lower()}.onnx", datatype))(x)["y"]
    there = reach(f"identity_{datatype.lower()}")(x)["y"]
    assert (here.dtype, here.shape, here.tolist()) == (there.dtype, there.shape, there.tolist())
    assert there.flags.writeable
    assert there.flags.aligned


def test_outputs_of_an_answer_share_nothing(reach: Reach) -> None:
    n = np.arange(1000, dtype=np.int32)
    answer = reach("two_by_two")(n, n)
    answer["sum"][:] = -1
    assert (answer["product"] == n * n).all()


def test_large_tensors_go_both_ways(reach: Reach) -> None:
    x = np.random.default_rng(0).random((50_000, 4), np.float32)
    assert (reach("identity_fp32")(x)["y"] == x).all()


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda model: model(X[0]), errors.ShapeMismatch),
        (lambda model: model(X.astype(np.float64)), errors.DatatypeMismatch),
        (lambda model: model(z=X), errors.UnknownInput),
        (lambda model: model.infer({}), errors.MissingInput),
        (lambda model: model.infer({"x": X}, ["z"]), errors.UnknownOutput),
    ],
)
def test_errors_are_the_same_as_in_process(reach: Reach, models: Path, call: Callable[[nnrp.Model], Any], kind: type[nnrp.NnrpError]) -> None:
    told = []
    for model in (nnrp.load(zoo.identity(models / "identity_fp32.onnx")), reach("identity_fp32")):
        with pytest.raises(kind) as raised:
            call(model)
        told.append((type(raised.value), raised.value.message, raised.value.details, raised.value.retryable))
    assert told[0] == told[1]


def test_a_deadline_goes_along(reach: Reach) -> None:
    with pytest.raises(nnrp.DeadlineExceeded):
        reach("slow").infer({"n": np.array(600_000, np.int64)}, timeout=0.5)


def test_cancelling_the_task_cancels_the_request_at_the_server(reach: Reach, server: nnrp.Server) -> None:
    slow, there = reach("slow"), server.engine.model("slow")
    before = there.statistics()["failures"].get("CLIENT_CANCELLED", 0)

    async def main() -> None:
        # A request that has not reached the server when it is cancelled never does; on a busy machine that takes longer.
        for patience in (0.2, 2, 20):
            task = asyncio.create_task(slow.infer_async({"n": np.array(600_000, np.int64)}))
            done, _ = await asyncio.wait([task], timeout=patience)
            assert not done
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with suppress(TimeoutError):
                async with asyncio.timeout(20):
                    while there.statistics()["failures"].get("CLIENT_CANCELLED", 0) == before:
                        await asyncio.sleep(0)
                    return
        pytest.fail("the server was not told")

    asyncio.run(main())


def test_a_hundred_requests_wait_side_by_side(reach: Reach) -> None:
    model = reach("scale", "2")

    async def main() -> list[float]:
        answers = await asyncio.gather(*(model.infer_async({"x": X * n}) for n in range(100)))
        return [answer["y"][0, 0] for answer in answers]

    assert asyncio.run(main()) == [2 * n for n in range(100)]


def test_threads_share_a_remote_model(reach: Reach) -> None:
    model = reach("scale", "2")

    def work(seed: int) -> int:
        x = np.full((1, 4), seed, np.float32)
        return sum(not (model(x)["y"] == 2 * seed).all() for _ in range(200))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == 0


# Finding models


@pytest.mark.parametrize("form", FORMS)
def test_the_path_of_a_url_names_the_model_and_the_version(server: nnrp.Server, form: str) -> None:
    url = getattr(server, form)
    assert nnrp.connect(f"{url}/v2/models/scale")(X)["y"].tolist() == [[10, 20, 30, 40]]
    assert nnrp.connect(f"{url}/v2/models/scale/versions/2/")(X)["y"].tolist() == DOUBLED
    assert nnrp.connect(url, "scale", "1")(X)["y"].tolist() == X.tolist()


@pytest.mark.parametrize("form", FORMS)
def test_among_several_models_one_must_be_named(server: nnrp.Server, form: str) -> None:
    with pytest.raises(errors.ModelNotFound, match=r"'failing', 'grid', .*") as raised:
        nnrp.connect(getattr(server, form))
    assert "failing" in raised.value.details["models"]


@pytest.mark.parametrize("form", FORMS)
def test_the_only_model_needs_no_name(double: nnrp.Model, form: str) -> None:
    with nnrp.serve(double, http_port=0, grpc_port=0) as server:
        assert nnrp.connect(getattr(server, form))(X)["y"].tolist() == DOUBLED


@pytest.mark.parametrize("form", FORMS)
def test_a_client_tells_what_the_server_is(server: nnrp.Server, form: str) -> None:
    client = nnrp.Client(getattr(server, form))
    assert client.live() is client.ready() is client.ready("scale") is client.ready("scale", "10") is True
    assert client.ready("nowhere") is False
    assert client.metadata()["name"] == "nnrp"
    assert client.metadata("scale")["versions"] == ["1", "2", "10"]
    assert {"name": "scale", "version": "10"} in [{key: model[key] for key in ("name", "version")} for model in client.models()]
    with pytest.raises(errors.ModelNotFound):
        client.model("nowhere")
    with pytest.raises(errors.VersionNotFound):
        client.model("scale", "7")


@pytest.mark.parametrize(
    "url",
    ["ftp://a:1", "http://", "127.0.0.1:8000", "http://a:1/v1/models/x", "http://a:1/v2/models/x/versions", "http://user@a:1", "http://a:99999", "http://[::1"],
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(errors.InvalidOption):
        nnrp.connect(url, "m")


@pytest.mark.parametrize("path", ["", "/v1"])
def test_a_password_in_a_url_is_not_repeated(path: str) -> None:
    with pytest.raises(errors.InvalidOption, match="//…@a:1") as raised:
        nnrp.connect(f"http://user:secret@a:1{path}", "m")
    assert "secret" not in f"{raised.value} {raised.value.details}"


def test_a_host_that_nobody_knows_is_told_as_that() -> None:
    with pytest.raises(errors.ConnectionFailed, match="no address is known for the host"):
        nnrp.connect("http://nowhere.invalid:1", "m")


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_nobody_there_is_an_error_that_may_be_tried_again(scheme: str) -> None:
    with pytest.raises(ConnectionError) as raised:
        nnrp.connect(f"{scheme}://127.0.0.1:1", "m")
    assert isinstance(raised.value, errors.ConnectionFailed)
    assert raised.value.retryable


# Serving


def test_a_server_is_told_what_to_serve_in_every_way(tmp_path: Path, double_file: Path) -> None:
    zoo.scale(tmp_path / "scale" / "3" / "model.onnx", 3.0)
    engine = nnrp.Engine()
    engine.load(double_file, name="mine")
    for source, names in ((engine, ["mine"]), (engine.model("mine"), ["mine"]), (double_file, ["double"]), ([str(double_file), tmp_path], ["double", "scale"])):
        with nnrp.serve(source, http_port=0, grpc_port=None) as server:
            assert server.grpc_url is None
            assert sorted({model["name"] for model in nnrp.Client(server.http_url or "").models()}) == names
        engine = nnrp.Engine()
        engine.load(double_file, name="mine")


def test_a_model_of_another_server_cannot_be_served(server: nnrp.Server) -> None:
    with pytest.raises(errors.InvalidOption, match="in this process"):
        nnrp.serve(nnrp.connect(server.http_url or "", "scale"))


@pytest.mark.parametrize(
    "settings", [{"http_port": None, "grpc_port": None}, {"queue_full_status": 500}, {"max_body_bytes": 0}, {"host": "no.such.host.invalid"}]
)
def test_a_setting_that_cannot_be_is_refused(double: nnrp.Model, settings: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidOption):
        nnrp.serve(double, **({"http_port": 0, "grpc_port": 0} | settings))


def test_a_stopped_server_answers_nobody(double: nnrp.Model) -> None:
    server = nnrp.serve(double, http_port=0, grpc_port=0)
    models = [nnrp.connect(getattr(server, form)) for form in FORMS]
    assert [model(X)["y"].tolist() for model in models] == [DOUBLED, DOUBLED]

    server.stop(grace=0.5)
    server.stop()

    assert server.wait(timeout=0) is True
    for model in models:
        with pytest.raises(nnrp.Unavailable):
            model(X)


def _has_thread(name: str) -> bool:
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # It has ended meanwhile.
            if (task / "comm").read_text().strip() == name:
                return True
    return False


def test_whoever_stops_a_server_waits_until_it_is_stopped(slow_file: Path) -> None:
    here = nnrp.load(slow_file, "ending")
    server = nnrp.serve(here, http_port=0, grpc_port=None)
    there = nnrp.connect(server.http_url or "")

    def stop() -> int:
        server.stop(grace=60)
        return int(here.statistics()["success_count"])

    with ThreadPoolExecutor(3) as pool:
        answer = pool.submit(there, np.array(3000, np.int64))
        while not _has_thread("nnrp:ending"):
            assert not wait([answer], 0.005).done
        assert [stopped.result() for stopped in [pool.submit(stop), pool.submit(stop)]] == [1, 1]
        assert list(answer.result()) == ["y"]


def test_a_server_that_runs_is_waited_for(double: nnrp.Model) -> None:
    with nnrp.serve(double, http_port=0, grpc_port=0) as server:
        assert server.wait(timeout=0.01) is False
    assert server.wait() is True


def test_ctrl_c_ends_the_waiting(double_file: Path) -> None:
    code = f"""
import nnrp
with nnrp.serve({str(double_file)!r}, http_port=0, grpc_port=0) as server:
    try:
        print("up", flush=True)
        server.wait()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        os.kill(process.pid, signal.SIGINT)
        assert process.stdout.read() == "interrupted\n"
    assert process.returncode == 0


def test_bf16_is_bf16_on_the_wire(reach: Reach) -> None:
    x = np.array([[1.5, -2, 3, 0]], ml_dtypes.bfloat16)
    y = reach("identity_bf16")(x)["y"]
    assert y.dtype == ml_dtypes.bfloat16
    assert y.tolist() == x.tolist()


def test_an_idle_client_does_not_hold_up_a_stop(double: nnrp.Model) -> None:
    server = nnrp.serve(double, http_port=0, grpc_port=0)
    models = [nnrp.connect(getattr(server, form)) for form in FORMS]
    assert [model(X)["y"].tolist() for model in models] == [DOUBLED, DOUBLED]

    started = time.monotonic()
    server.stop(grace=60)

    assert time.monotonic() - started < 20
