"""Load on one server: a bit-equal answer first, then closed loops by wrk (HTTP) or h2load (gRPC)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.request
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from .bodies import Body, body, grpc_message
from .models import example
from .servers import Server
from .setting import BENCH, WORK, BenchFailure

_INFER = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class Load:
    """What one load found; `cpu_us` is the CPU time of the whole server tree per answered request."""

    requests: int
    requests_per_s: float
    p50_us: float
    p99_us: float
    cpu_us: float
    errors: int


def check(server: Server, model: str, form: str) -> None:
    """Ask once and compare: the identity's answer must be the input bit for bit (FP32 as text included).

    Raises:
        BenchFailure: it differs; a wrong answer is not worth timing.
    """
    answer = _ask_grpc(server, model) if form == "grpc" else _ask_http(server, model, form)
    if answer != example(model).tobytes():
        raise BenchFailure(f"{server.name}, {model} as {form}: the answer differs from the input")


def load(server: Server, model: str, form: str, connections: int, seconds: int, paths: list[str] | None = None) -> Load:
    """Keep `connections` busy with one request each for `seconds`.

    HTTP may post to `paths` in turn instead of the model's own.
    """
    request = body(model, form)
    before = server.cpu_s()
    how = (server, model, request, connections, seconds)
    found = _h2load(*how) if form == "grpc" else _wrk(*how, paths or [])
    cpu_us = (server.cpu_s() - before) * 1e6
    return Load(**found, cpu_us=cpu_us / max(found["requests"], 1))


def _wrk(server: Server, model: str, request: Body, connections: int, seconds: int, paths: list[str]) -> dict[str, Any]:
    environment = {
        "BODY": str(request.file),
        "JSON_BYTE_SIZE": str(request.json_byte_size or ""),
        "PATHS": " ".join(paths),
    }
    words = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "20s"]
    words += ["-s", str(BENCH / "peers" / "wrk_post.lua"), f"{server.url}/v2/models/{model}/infer"]
    output = _run(words, seconds, environment)
    line = re.search(r"JSON(\{.*\})", output)
    if line is None:
        raise BenchFailure(f"wrk printed no result for {server.name}:\n{output[-2000:]}")
    found = json.loads(line[1])
    duration_s = found.pop("duration_us") / 1e6
    return {**found, "requests_per_s": found["requests"] / duration_s}


def _h2load(server: Server, model: str, request: Body, connections: int, seconds: int) -> dict[str, Any]:
    log = WORK / "logs" / f"h2load-{os.getpid()}.log"
    log.unlink(missing_ok=True)
    words = ["h2load", "-t1", f"-c{connections}", "-m1", f"-D{seconds}", "-d", str(request.file)]
    words += ["-H", "content-type: application/grpc", "-H", "te: trailers", f"--log-file={log}"]
    output = _run([*words, f"http://127.0.0.1:{server.grpc_port}{_INFER}"], seconds)
    if not log.exists():
        raise BenchFailure(f"h2load wrote no log for {server.name}:\n{output[-2000:]}")
    lines = [line.split() for line in log.read_text().splitlines()]  # start in µs, HTTP status, time taken in µs
    log.unlink()
    _check_byte_size(server, output, len(lines) * example(model).nbytes)
    times_us = [int(line[2]) for line in lines if line[1] == "200"]
    p50, p99 = np.percentile(times_us, [50, 99]) if times_us else (float("nan"), float("nan"))
    return {
        "requests": len(times_us),
        "requests_per_s": len(times_us) / seconds,
        "p50_us": float(p50),
        "p99_us": float(p99),
        "errors": len(lines) - len(times_us),
    }


def _check_byte_size(server: Server, output: str, least: int) -> None:
    """A gRPC error is HTTP 200 to h2load; but an error carries no tensor, so the bytes that came tell."""
    data = re.search(r"\((\d+)\) data$", output, re.MULTILINE)
    if data is None or int(data[1]) < least:
        raise BenchFailure(f"{server.name} answered gRPC requests without their tensor:\n{output[-2000:]}")


def _run(words: list[str], seconds: int, environment: dict[str, str] | None = None) -> str:
    # 60 s beyond the load itself: the generators wait for answers under way, 20 s at most.
    whole = {**os.environ, **(environment or {})}
    done = subprocess.run(words, env=whole, capture_output=True, text=True, timeout=seconds + 60, check=False)
    return done.stdout + done.stderr


def _ask_http(server: Server, model: str, form: str) -> bytes:
    request = body(model, form)
    headers = {"Content-Type": "application/json" if form == "json" else "application/octet-stream"}
    if request.json_byte_size is not None:
        headers["Inference-Header-Content-Length"] = str(request.json_byte_size)
    asked = urllib.request.Request(f"{server.url}/v2/models/{model}/infer", request.file.read_bytes(), headers)
    with urllib.request.urlopen(asked, timeout=60) as response:
        raw: bytes = response.read()
        json_byte_size = response.headers.get("Inference-Header-Content-Length")
    if form == "binary":
        return raw[int(json_byte_size) :]
    return np.array(json.loads(raw)["outputs"][0]["data"], dtype=np.float32).tobytes()


def _ask_grpc(server: Server, model: str) -> bytes:
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}", options=options) as channel:
        call = channel.unary_unary(_INFER, response_deserializer=service_pb2.ModelInferResponse.FromString)
        answer: bytes = call(grpc_message(model), timeout=60).raw_output_contents[0]
    return answer
