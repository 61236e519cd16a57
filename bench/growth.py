"""What a server costs beside its requests: memory, start, many models, idle connections, a slow neighbour."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from . import servers
from .bodies import binary_head
from .load import Load, load
from .models import SLOW_RUN_MS, example, identity, slow, write_repository, write_triton_repository
from .product import nnrp
from .servers import Server
from .setting import WORK, BenchFailure, Options, progress
from .table import Goal, Row, Table, median, median_ratio, worst

FOUR = ("small", "second", "third", "fourth")
RUNTIMES = ("onnxruntime", "openvino", "ai_edge_litert", "torch", "tensorrt", "tensorflow", "iree", "executorch")
GROWTH = Goal("ratio", 1.15, "≤ 1.15 × without")

# Prints how long the import took, and which runtimes it brought along, as Python packages or as libraries.
_IMPORT = f"""
import json, sys, time
started = time.perf_counter()
import nnrp
took_ms = (time.perf_counter() - started) * 1e3
mapped = open("/proc/self/maps").read()
brought = [name for name in {RUNTIMES!r} if name in sys.modules or f"lib{{name}}" in mapped]
print(json.dumps({{"took_ms": took_ms, "brought": brought}}))
"""


def measure(options: Options) -> list[Table]:
    """Measure each kind of growth on servers of its own."""
    beside_triton = [_memory(options), _start(options), *_import(options)]
    alone = [*_many_models(options), _idle_connections(options), _slow_beside_quick(options)]
    return [
        Table("Memory and start", "Triton", None, beside_triton),
        Table("Growth", "without", None, alone),
    ]


def _four(options: Options) -> dict[str, Callable[[], Server | None]]:
    repository = write_repository(WORK / "four", {name: identity("small") for name in FOUR})
    triton_repository = write_triton_repository(WORK / "four-triton", dict.fromkeys(FOUR, "small"))
    return {
        "ours": lambda: servers.ours(options, repository),
        "triton": lambda: servers.triton(options, triton_repository),
    }


def _memory(options: Options) -> Row:
    progress("growth: memory with four small models")
    found: dict[str, list[float]] = {"ours": [], "triton": []}
    for name, make in _four(options).items():
        made = make()
        if made is None:
            continue
        with made as server:
            load(server, "small", "binary", 32, options.seconds, [f"/v2/models/{model}/infer" for model in FOUR])
            load(server, "small", "grpc", 32, options.seconds)
            found[name].append(server.resident_mb())
    ours, triton = found.values()
    return Row(
        "resident, 4 small models, after load",
        "MB",
        median(ours),
        median(triton),
        ratio=median_ratio(ours, triton),
        goal=Goal("value", 60, "≤ 60 MB"),
    )


def _start(options: Options) -> Row:
    progress("growth: first answer after the start")
    starts: dict[str, list[float]] = {"ours": [], "triton": []}
    contenders = _four(options)
    for _ in range(options.rounds + 1):
        for name, make in contenders.items():
            server = make()
            if server is not None:
                starts[name].append(_first_answer_ms(server))
    # The first start reads its files from the disk; the goal is about the start, not the disk.
    ours, triton = (values[1:] for values in starts.values())
    return Row(
        "first answer after the start, 4 small models",
        "ms",
        median(ours),
        median(triton),
        ratio=median_ratio(ours, triton),
        goal=Goal("value", 500, "≤ 500 ms"),
        details=starts,
    )


def _first_answer_ms(server: Server, timeout_s: float = 60) -> float:
    request = _post(server.http_port)
    started = time.monotonic()
    server.start()
    try:
        while time.monotonic() < started + timeout_s:
            address = ("127.0.0.1", server.http_port)
            with contextlib.suppress(OSError), socket.create_connection(address, 5) as connection:
                connection.sendall(request)
                if connection.recv(4096).startswith(b"HTTP/1.1 200"):
                    return (time.monotonic() - started) * 1e3
            time.sleep(0.002)
    finally:
        server.stop()
    raise BenchFailure(f"{server.name} gave no first answer in {timeout_s} s; its log: {server.log}")


def _import(options: Options) -> list[Row]:
    progress("growth: import nnrp")
    found: list[dict[str, Any]] = []
    if nnrp() is not None:
        for _ in range(2 * options.rounds + 1):
            done = subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, text=True, timeout=60, check=True)
            found.append(json.loads(done.stdout))
    brought = {name for one in found for name in one["brought"]}
    took_ms = [one["took_ms"] for one in found]
    return [
        Row("import nnrp", "ms", median(took_ms), goal=Goal("value", 60, "≤ 60 ms"), details={"took_ms": took_ms}),
        Row(
            "runtimes that the import brings along",
            "count",
            len(brought) if found else None,
            goal=Goal("value", 0, "none"),
            details={"brought": sorted(brought)},
        ),
    ]


def _many_models(options: Options) -> list[Row]:
    """Load one model of many, then all of them in turn, beside a server that has only the one."""
    names = ["small", *(f"model{i:04}" for i in range(1, options.models))]
    one = servers.ours(options, write_repository(WORK / "one-model", {"small": identity("small")}))
    many = servers.ours(options, write_repository(WORK / "many-models", dict.fromkeys(names, identity("small"))))
    case = f"small REST binary, 32 connections, {options.models:,} models"
    if one is None or many is None:
        return [Row(f"{case}, {asked} asked", "CPU-µs", None, goal=GROWTH) for asked in ("one", "each")]
    progress(f"growth: {options.models:,} models")
    paths = [f"/v2/models/{name}/infer" for name in names]
    loads: dict[str, list[Load]] = {"without": [], "one": [], "each": []}
    with one as alone, many as crowded:
        for server in (alone, crowded):
            load(server, "small", "binary", 32, 1)
        # Each model's first request is apart, as a runtime allocates on it.
        load(crowded, "small", "binary", 32, 1, paths)
        for _ in range(options.rounds):
            loads["without"].append(load(alone, "small", "binary", 32, options.seconds))
            loads["one"].append(load(crowded, "small", "binary", 32, options.seconds))
            loads["each"].append(load(crowded, "small", "binary", 32, options.seconds, paths))
    # The goal is about models loaded; asking each in turn adds the models' own cache misses: shown, without a goal.
    return [_growth(f"{case}, {asked} asked", loads, asked, goal) for asked, goal in (("one", GROWTH), ("each", None))]


def _idle_connections(options: Options) -> Row:
    case = f"small REST binary, 32 connections, {options.idle_connections:,} idle beside"
    made = servers.ours(options, write_repository(WORK / "one-model", {"small": identity("small")}))
    if made is None:
        return Row(case, "CPU-µs", None, goal=GROWTH)
    progress(f"growth: {options.idle_connections:,} idle connections")
    loads: dict[str, list[Load]] = {"without": [], "beside": []}
    with made as server:
        load(server, "small", "binary", 32, 1)
        for _ in range(options.rounds):
            loads["without"].append(load(server, "small", "binary", 32, options.seconds))
            with _held(server, options.idle_connections):
                loads["beside"].append(load(server, "small", "binary", 32, options.seconds))
    return _growth(case, loads, "beside", GROWTH)


@contextlib.contextmanager
def _held(server: Server, count: int) -> Iterator[None]:
    """Hold connections that have each had one answer, and see that the server held them too."""
    request = _post(server.http_port)
    held: list[socket.socket] = []
    try:
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", server.http_port), 10)
            held.append(connection)
            connection.sendall(request)
            if not connection.recv(4096).startswith(b"HTTP/1.1 200"):
                raise BenchFailure(f"{server.name} refused connection {len(held)} of {count}")
        yield
        gone = sum(_closed(connection) for connection in held)
        if gone:
            raise BenchFailure(f"{server.name} closed {gone} of {count} idle connections while it was measured")
    finally:
        for connection in held:
            connection.close()


def _closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass  # the rest of the one answer
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _slow_beside_quick(options: Options) -> Row:
    case = f"quick model, 8 connections, a {SLOW_RUN_MS} ms model beside, worst round"
    goal = Goal("value", 5, "< 5 ms")
    progress("growth: a slow model beside a quick one")
    models = {"small": identity("small"), "slow": slow()}
    made = servers.ours(options, write_repository(WORK / "slow-beside-quick", models))
    if made is None:
        return Row(case, "p99 ms", None, goal=goal)
    slow_path = ["/v2/models/slow/infer"]
    without, beside, slow_loads = [], [], []
    with made as server, ThreadPoolExecutor(1) as background:
        load(server, "small", "binary", 1, 2, slow_path)  # so that the server knows how slow it is
        for _ in range(options.rounds):
            time.sleep(1)  # the slow model's last run ends after its client has
            without.append(load(server, "small", "binary", 8, options.seconds))
            slow_load = background.submit(load, server, "small", "binary", 1, options.seconds + 2, slow_path)
            time.sleep(1)
            beside.append(load(server, "small", "binary", 8, options.seconds))
            slow_loads.append(slow_load.result())
    if not all(one.requests for one in slow_loads):
        raise BenchFailure("the slow model answered nothing, so nothing was measured beside it")
    return Row(
        case,
        "p99 ms",
        worst([one.p99_us / 1e3 for one in beside]),
        worst([one.p99_us / 1e3 for one in without]),
        ratio=median_ratio([one.p99_us for one in beside], [one.p99_us for one in without]),
        goal=goal,
        errors=sum(one.errors for one in beside),
        details={
            "without": [asdict(one) for one in without],
            "beside": [asdict(one) for one in beside],
            "slow": [asdict(one) for one in slow_loads],
        },
    )


def _growth(case: str, loads: dict[str, list[Load]], name: str, goal: Goal | None) -> Row:
    grown, without = ([one.cpu_us for one in loads[key]] for key in (name, "without"))
    return Row(
        case,
        "CPU-µs",
        median(grown),
        median(without),
        ratio=median_ratio(grown, without),
        goal=goal,
        errors=sum(one.errors for one in loads[name]),
        details={key: [asdict(one) for one in rounds] for key, rounds in loads.items()},
    )


def _post(port: int) -> bytes:
    json_part, tensor = binary_head("small"), example("small").tobytes()
    head = (
        f"POST /v2/models/small/infer HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: {len(json_part)}\r\n"
        f"Content-Length: {len(json_part) + len(tensor)}\r\n\r\n"
    )
    return head.encode() + json_part + tensor
