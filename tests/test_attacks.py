"""Every attack of ``spec/vectors/attacks`` through real sockets: the typed error, bounded memory, a connection and a server that live on."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from forms.wire import refused
from zoo import repository

import nnrp

ATTACKS = Path(__file__).resolve().parent.parent / "spec" / "vectors" / "attacks"
#: Most memory that the server may have taken on by the end: a few bodies of the allowed size, kept for the next.
GROWTH_MB = 400


ERRORS = tomllib.loads((ATTACKS.parents[1] / "errors.toml").read_text())


def _vectors(form: str) -> list[Any]:
    files = sorted((ATTACKS / form).glob("*.json"))
    assert files
    return [pytest.param(json.loads(file.read_text()), id=file.stem) for file in files]


def _body(parts: list[Any]) -> bytes:
    content = b""
    for part in parts:
        if isinstance(part, str):
            content += part.encode()
        elif "repeat" in part:
            content += part["repeat"].encode() * part["times"]
        else:
            content += bytes.fromhex(part["hex"]) * part.get("times", 1)
    return content


def _resident_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[nnrp.Server]:
    """A server of the zoo, in this process, whose memory is looked at when all attacks are over."""
    with nnrp.serve(str(repository(tmp_path_factory.mktemp("attacks"))), http_port=0, grpc_port=0) as running:
        before = _resident_mb()
        yield running
        assert _resident_mb() - before < GROWTH_MB


@pytest.fixture(scope="module")
def rest(server: nnrp.Server) -> Iterator[http.client.HTTPConnection]:
    """One connection for all: an answered attack does not end it."""
    host, port = server.http_url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def call() -> Iterator[Callable[[bytes, int], bytes]]:
    """ModelInfer with bytes for a message, to a server whose messages may have so many bytes."""
    with ExitStack() as stack:
        calls: dict[int, Callable[..., bytes]] = {}

        def infer(message: bytes, limit: int) -> bytes:
            if limit not in calls:
                running = stack.enter_context(nnrp.serve(nnrp.Engine(), http_port=None, grpc_port=0, max_body_bytes=limit))
                channel = stack.enter_context(grpc.insecure_channel(running.grpc_url.removeprefix("grpc://")))
                calls[limit] = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            return calls[limit](message, timeout=30)

        yield infer


def _good(connection: http.client.HTTPConnection) -> None:
    body = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]})
    connection.request("POST", "/v2/models/scale/versions/2/infer", body)
    answer = connection.getresponse()
    assert json.loads(answer.read())["outputs"][0]["data"] == [2, 4, 6, 8]


def _requests() -> list[Any]:
    """Requests; answers that attack a client, and raw requests that need a signature of their own, are the codec's tests."""
    return [one for one in _vectors("rest") if one.values[0]["direction"] == "request" and "signature" not in one.values[0]]


@pytest.mark.parametrize("attack", _requests())
def test_rest_attack(attack: dict[str, Any], rest: http.client.HTTPConnection) -> None:
    rest.request("POST", "/v2/models/scale/infer", _body(attack["body"]), attack.get("headers", {}))
    answer = rest.getresponse()
    error = json.loads(answer.read())
    assert answer.headers["Content-Type"] == "application/json"
    assert (error["code"], error["reason"]) == (attack["error"]["code"], attack["error"]["reason"]), error
    assert answer.status == ERRORS["reasons"][error["reason"]].get("http", ERRORS["codes"][error["code"]]["http"])
    _good(rest)


@pytest.mark.parametrize("attack", _vectors("grpc"))
def test_grpc_attack(attack: dict[str, Any], call: Callable[[bytes, int], bytes], rest: http.client.HTTPConnection) -> None:
    with pytest.raises(grpc.RpcError) as error:
        call(_body(attack["message"]), attack["limit"])
    assert refused(error.value).reason == attack["reason"], error.value
    _good(rest)


def _raw(server: nnrp.Server, *pieces: bytes, finish: bool = False) -> bytes:
    """Whatever the server answers to bytes on a bare socket, until it closes or has answered once."""
    host, port = server.http_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        for piece in pieces:
            connection.sendall(piece)
        if finish:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while b"\r\n\r\n" not in answer and (more := connection.recv(65536)):
            answer += more
        return answer


HEAD = b"POST /v2/models/scale/infer HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (HEAD + b"Content-Length: 99999999999\r\n\r\n", 413),
        (HEAD + b"Content-Length: 18446744073709551616\r\n\r\n", 400),
        (HEAD + b"Content-Length: -1\r\n\r\n", 400),
        (HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
        (HEAD + b"Content-Length: 2\r\nInference-Header-Content-Length: abc\r\n\r\n{}", 400),
        (HEAD + b"Content-Length: 2\r\nInference-Header-Content-Length: 3\r\n\r\n{}", 400),
        (HEAD + b"Content-Length: 2\r\nContent-Encoding: br\r\n\r\n{}", 415),
        (HEAD + b"Content-Length: 2\r\nContent-Type: text/xml\r\n\r\n{}", 415),
        (HEAD + b"Content-Length: 6\r\nContent-Encoding: gzip\r\n\r\nnotzip", 400),
        (HEAD + b"Content-Length: 2\r\nInference-Header-Content-Length: 2\r\nInference-Header-Content-Length: 1\r\n\r\n{}", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\ncontent-LENGTH: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 501),
        (b"GET /v2/models/scale/infer HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET /v3 HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /v2/models/..%2f..%2fetc HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /v2/models/" + b"n" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /v2/models/%ff HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"NONSENSE\r\n\r\n", 400),
    ],
)
def test_http_that_lies(server: nnrp.Server, rest: http.client.HTTPConnection, request_bytes: bytes, status: int) -> None:
    answer = _raw(server, request_bytes)
    assert answer.startswith(b"HTTP/1.1 %d" % status), answer[:200]
    _good(rest)


def test_a_client_that_stops_half_way_harms_nobody(server: nnrp.Server, rest: http.client.HTTPConnection) -> None:
    for part in (b"POST /v2/mod", HEAD, HEAD + b"Content-Length: 100\r\n\r\n{"):
        _raw(server, part, finish=True)
        _good(rest)


def test_a_thousand_large_claims_cost_nothing(server: nnrp.Server, rest: http.client.HTTPConnection) -> None:
    host, port = server.http_url.removeprefix("http://").split(":")
    before = _resident_mb()
    claims = [socket.create_connection((host, int(port)), timeout=30) for _ in range(500)]
    for claim in claims:
        claim.sendall(HEAD + b"Content-Length: 60000000\r\n\r\n{")
    _good(rest)
    assert _resident_mb() - before < 100
    for claim in claims:
        claim.close()


def test_a_client_that_never_reads_is_not_waited_for(server: nnrp.Server, rest: http.client.HTTPConnection) -> None:
    host, port = server.http_url.removeprefix("http://").split(":")
    grid = np.zeros((1024, 1024), np.float32).tobytes()
    header = json.dumps(
        {
            "parameters": {"binary_data_output": True},
            "inputs": [{"name": "x", "shape": [1024, 1024], "datatype": "FP32", "parameters": {"binary_data_size": len(grid)}}],
        }
    ).encode()
    head = b"POST /v2/models/grid/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nInference-Header-Content-Length: %d\r\n\r\n" % (
        len(header) + len(grid),
        len(header),
    )
    deaf = [socket.create_connection((host, int(port)), timeout=30) for _ in range(8)]
    for one in deaf:
        one.sendall(head + header + grid)
    _good(rest)
    for one in deaf:
        one.close()


def test_http_on_the_grpc_port_and_the_other_way_round(server: nnrp.Server, rest: http.client.HTTPConnection) -> None:
    host, port = server.grpc_url.removeprefix("grpc://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as wrong:
        wrong.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
        with suppress(ConnectionResetError):
            while wrong.recv(4096):
                pass
    assert _raw(server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").startswith((b"HTTP/1.1 4", b"HTTP/1.1 5", b""))
    _good(rest)


def test_a_grpc_message_over_the_limit_is_refused(call: Callable[[bytes, int], bytes], rest: http.client.HTTPConnection) -> None:
    size = 65 << 20
    field = b"\x3a" + b"".join(struct.pack("B", (size >> shift & 0x7F) | (0x80 if shift < 21 else 0)) for shift in (0, 7, 14, 21))
    with pytest.raises(grpc.RpcError) as error:
        call(field + bytes(size), 64 << 20)
    assert refused(error.value).reason == "BODY_TOO_LARGE"
    _good(rest)
