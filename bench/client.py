"""Python clients of one server, in turn: ours, Triton's own, and a raw socket that does the same."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from numpy.typing import NDArray

from . import servers
from .models import SHAPES, example, identity, write_repository, write_triton_repository
from .product import nnrp
from .raw import RawGrpc, RawRest
from .servers import Server
from .setting import WORK, BenchFailure, Options, progress
from .table import Goal, Row, Table, median, median_ratio
from .timing import block_of, figures, in_turn

Array = NDArray[np.float32]
Ask = Callable[[Array], Array]

CASES = [(model, form) for form in ("REST", "gRPC") for model in ("small", "large")]


def measure(options: Options) -> list[Table]:
    """Time the clients against our server, or against Triton while ours is not built."""
    repository = write_repository(WORK / "client", {name: identity(name) for name in SHAPES})
    triton_repository = write_triton_repository(WORK / "client-triton", {name: name for name in SHAPES})
    asked = servers.ours(options, repository) or servers.triton(options, triton_repository)
    if asked is None:
        progress("client: no server with gRPC to ask; left out")
        return []
    rows = []
    with asked as server:
        for model, form in CASES:
            progress(f"client: {form}, {model}, against {server.name}")
            rows += _rows(server, model, form, options)
    name = "our server" if asked.name == "ours" else "Triton"
    return [Table(f"Python clients, against {name}", "tritonclient", "raw socket", rows)]


def _rows(server: Server, model: str, form: str, options: Options) -> list[Row]:
    x = example(model)
    # A tenth of the in-process calls: each takes some fifty times as long.
    calls = max(options.calls // (10 if model == "small" else 100), 20)
    with ExitStack() as stack:
        clients = _clients(server, model, form, stack)
        for name, ask in clients.items():
            if not np.array_equal(ask(x), x):
                raise BenchFailure(f"{name}, {form}, {model}: the answer differs from the input")
        blocks = {name: block_of(lambda ask=ask: ask(x)) for name, ask in clients.items()}  # type: ignore[misc]
        times = in_turn(blocks, options.rounds, calls)
    ours, triton, raw = (figures(times, name, "p50") for name in ("ours", "tritonclient", "raw"))
    size = "602 kB" if model == "large" else "small"
    case = f"nnrp.connect over {form}, {size}"
    details: dict[str, Any] = {name: [asdict(one) for one in rounds] for name, rounds in times.items()}
    medians = (median(ours), median(triton), median(raw))
    return [
        Row(
            case,
            "p50 µs",
            *medians,
            median_ratio(ours, triton),
            Goal("ratio", 0.4, "≤ 0.40 × tritonclient"),
            details=details,
        ),
        Row(case, "p50 µs", *medians, median_ratio(ours, raw), Goal("ratio", 1.2, "≤ 1.20 × raw socket")),
    ]


def _clients(server: Server, model: str, form: str, stack: ExitStack) -> dict[str, Ask]:
    """Connect each client; every one takes an array and gives an array."""
    port = server.http_port if form == "REST" else server.grpc_port
    raw = (RawRest if form == "REST" else RawGrpc)(port, model)
    stack.callback(raw.close)
    clients: dict[str, Ask] = {"tritonclient": _tritonclient(port, model, form, stack), "raw": raw}
    product = nnrp()
    if product is not None and server.name == "ours":
        scheme = "http" if form == "REST" else "grpc"
        connected = product.connect(f"{scheme}://127.0.0.1:{port}", model=model)
        clients = {"ours": lambda x: connected(x)["output"], **clients}
    return clients


def _tritonclient(port: int, model: str, form: str, stack: ExitStack) -> Ask:
    module = tritonclient.http if form == "REST" else tritonclient.grpc
    client = module.InferenceServerClient(f"127.0.0.1:{port}")
    stack.callback(client.close)

    def ask(x: Array) -> Array:
        tensor = module.InferInput("input", x.shape, "FP32")
        tensor.set_data_from_numpy(x)
        output: Array = client.infer(model, [tensor]).as_numpy("output")
        return output

    return ask
