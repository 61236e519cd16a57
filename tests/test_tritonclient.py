"""The unmodified PyPI ``tritonclient`` against our server: http and grpc, blocking and asyncio, JSON and binary."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as tgrpc
import tritonclient.grpc.aio as tgrpc_aio
import tritonclient.http as thttp
import tritonclient.http.aio as thttp_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype
from zoo import repository

import nnrp

X = np.arange(4, dtype=np.float32).reshape(1, 4)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[nnrp.Server]:
    """A server of the whole zoo."""
    with nnrp.serve(str(repository(tmp_path_factory.mktemp("triton"))), http_port=0, grpc_port=0) as running:
        yield running


@pytest.fixture
def http(server: nnrp.Server) -> Iterator[Any]:
    """A blocking HTTP client."""
    with thttp.InferenceServerClient(server.http_url.removeprefix("http://")) as client:
        yield client


@pytest.fixture
def grpc(server: nnrp.Server) -> Iterator[Any]:
    """A blocking gRPC client."""
    with tgrpc.InferenceServerClient(server.grpc_url.removeprefix("grpc://")) as client:
        yield client


def _input(module: Any, array: np.ndarray[Any, Any], name: str = "x", **how: Any) -> Any:
    tensor = module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array, **how)
    return tensor


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_liveness_readiness_and_metadata(kind: str, request: pytest.FixtureRequest) -> None:
    client = request.getfixturevalue(kind)
    as_json = {"as_json": True} if kind == "grpc" else {}
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("scale")
    assert client.is_model_ready("scale", "2")
    assert client.get_server_metadata(**as_json)["name"] == "nnrp"
    metadata = client.get_model_metadata("scale", **as_json)
    assert metadata["versions"] == ["1", "2", "10"]
    assert metadata["inputs"][0]["name"] == "x"
    assert [int(dim) for dim in metadata["inputs"][0]["shape"]] == [-1, 4]
    index = client.get_model_repository_index(**as_json)
    names = {entry["name"] for entry in (index["models"] if kind == "grpc" else index)}
    assert {"scale", "two_by_two"} <= names


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_http_infer_in_json_and_binary(http: Any, binary_in: bool, binary_out: bool) -> None:
    outputs = [thttp.InferRequestedOutput("y", binary_data=binary_out)]
    answer = http.infer("scale", [_input(thttp, X, binary_data=binary_in)], outputs=outputs, model_version="2", request_id="r-1")
    np.testing.assert_array_equal(answer.as_numpy("y"), 2 * X)
    assert answer.get_response()["id"] == "r-1"
    assert answer.get_response()["model_version"] == "2"


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_http_bodies_may_be_compressed(http: Any, algorithm: str) -> None:
    grid = np.zeros((64, 64), np.float32)
    answer = http.infer(
        "grid",
        [_input(thttp, grid, binary_data=False)],
        outputs=[thttp.InferRequestedOutput("y", binary_data=False)],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    np.testing.assert_array_equal(answer.as_numpy("y"), grid)


@pytest.mark.parametrize("kind", ["http", "grpc"])
@pytest.mark.parametrize("dtype", ["bool", "u1", "i8", "f2", "f8", "O", "bf16"])
def test_every_kind_of_array_comes_back(kind: str, dtype: str, request: pytest.FixtureRequest) -> None:
    module = {"http": thttp, "grpc": tgrpc}[kind]
    if dtype == "O":
        array = np.array([[b"a", b"", "ž".encode(), b"b\0c"]], dtype=object)
    else:
        array = np.array([[0, 1, 1, 0]]).astype(ml_dtypes.bfloat16 if dtype == "bf16" else dtype)
    datatype = {"bool": "bool", "u1": "uint8", "i8": "int64", "f2": "fp16", "f8": "fp64", "O": "bytes", "bf16": "bf16"}[dtype]
    tensor = module.InferInput("x", [1, 4], datatype.upper())
    tensor.set_data_from_numpy(array)
    answer = request.getfixturevalue(kind).infer(f"identity_{datatype}", [tensor])
    np.testing.assert_array_equal(answer.as_numpy("y"), array)


def test_http_asyncio(server: nnrp.Server) -> None:
    async def ask() -> list[Any]:
        async with thttp_aio.InferenceServerClient(server.http_url.removeprefix("http://")) as client:
            assert await client.is_server_ready()
            return list(await asyncio.gather(*(client.infer("scale", [_input(thttp, X * n)]) for n in range(16))))

    for n, answer in enumerate(asyncio.run(ask())):
        np.testing.assert_array_equal(answer.as_numpy("y"), 10 * X * n)


def test_grpc_asyncio(server: nnrp.Server) -> None:
    async def ask() -> list[Any]:
        async with tgrpc_aio.InferenceServerClient(server.grpc_url.removeprefix("grpc://")) as client:
            assert await client.is_server_ready()
            return list(await asyncio.gather(*(client.infer("scale", [_input(tgrpc, X * n)]) for n in range(16))))

    for n, answer in enumerate(asyncio.run(ask())):
        np.testing.assert_array_equal(answer.as_numpy("y"), 10 * X * n)


def test_grpc_callbacks_and_large_messages(grpc: Any) -> None:
    grid = np.random.default_rng(0).random((2048, 1024), np.float32)
    answer = grpc.infer("grid", [_input(tgrpc, grid)])
    np.testing.assert_array_equal(answer.as_numpy("y"), grid)


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_a_request_without_data_for_its_shape_is_refused(kind: str, request: pytest.FixtureRequest) -> None:
    module = {"http": thttp, "grpc": tgrpc}[kind]
    tensor = module.InferInput("x", [1, 5], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 5), np.float32))
    with pytest.raises(InferenceServerException, match=r"expected shape \[-1, 4\], got \[1, 5\]"):
        request.getfixturevalue(kind).infer("scale", [tensor])


def test_a_grpc_deadline_is_kept(grpc: Any) -> None:
    tensor = tgrpc.InferInput("n", [], "INT64")
    tensor._raw_content = struct.pack("<q", 60_000)
    with pytest.raises(InferenceServerException, match=r"(?i)deadline"):
        grpc.infer("slow", [tensor], client_timeout=0.2)
