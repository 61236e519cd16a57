"""Over the wire: our server, Triton's C++ server and a bare floor on the same requests, loaded in turn."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Literal

from . import servers
from .load import Load, check, load
from .models import SHAPES, identity, write_repository, write_triton_repository
from .servers import Server
from .setting import WORK, Options, progress
from .table import Goal, Row, Table, median, median_ratio


@dataclass(frozen=True)
class Case:
    """One load and the most that ours may take of Triton's figure."""

    model: str
    form: str
    connections: int
    figure: Literal["cpu_us", "p50_us"]
    limit: float

    @property
    def text(self) -> str:
        """Name the case as tables do."""
        clients = "1 client" if self.connections == 1 else f"{self.connections} connections"
        form = {"json": "REST JSON", "binary": "REST binary", "grpc": "gRPC"}[self.form]
        return f"{'602 kB' if self.model == 'large' else 'small'} {form}, {clients}"

    @property
    def unit(self) -> str:
        """Name the figure's unit as tables do."""
        return "CPU-µs" if self.figure == "cpu_us" else "p50 µs"


CASES = (
    Case("small", "json", 32, "cpu_us", 0.33),
    Case("small", "binary", 32, "cpu_us", 0.33),
    Case("small", "grpc", 32, "cpu_us", 0.33),
    Case("large", "binary", 16, "cpu_us", 0.33),
    Case("large", "grpc", 16, "cpu_us", 0.55),
    Case("large", "json", 16, "cpu_us", 0.22),
    Case("small", "json", 1, "p50_us", 0.85),
    Case("small", "binary", 1, "p50_us", 0.85),
    Case("small", "grpc", 1, "p50_us", 0.60),
)


def measure(options: Options) -> list[Table]:
    """Load every case's servers in turn, and compare."""
    repository = write_repository(WORK / "wire", {name: identity(name) for name in SHAPES})
    triton_repository = write_triton_repository(WORK / "wire-triton", {name: name for name in SHAPES})
    with ExitStack() as stack:
        progress("wire: starting the servers")
        contenders = [
            servers.ours(options, repository),
            servers.triton(options, triton_repository),
            servers.floor(repository),
        ]
        running = [stack.enter_context(server) for server in contenders if server]
        for case in CASES:
            for server in _serving(case, running):
                check(server, case.model, case.form)
        rows = [_row(case, _rounds(case, _serving(case, running), options)) for case in CASES]
    return [Table("Over the wire", "Triton", "floor", rows)]


def _serving(case: Case, running: list[Server]) -> list[Server]:
    return [server for server in running if server.grpc or case.form != "grpc"]


def _rounds(case: Case, running: list[Server], options: Options) -> dict[str, list[Load]]:
    progress(f"wire: {case.text}")
    loads: dict[str, list[Load]] = {server.name: [] for server in running}
    for server in running:
        load(server, case.model, case.form, case.connections, 1)
    for _ in range(options.rounds):
        for server in running:
            loads[server.name].append(load(server, case.model, case.form, case.connections, options.seconds))
    return loads


def _row(case: Case, loads: dict[str, list[Load]]) -> Row:
    figures = {name: [getattr(one, case.figure) for one in rounds] for name, rounds in loads.items()}
    ours, triton, floor = (figures.get(name, []) for name in ("ours", "triton", "floor"))
    return Row(
        case.text,
        case.unit,
        median(ours),
        median(triton),
        median(floor),
        median_ratio(ours, triton),
        Goal("ratio", case.limit, f"≤ {case.limit:.2f} × Triton"),
        errors=sum(one.errors for one in loads.get("ours", [])),
        details={name: [asdict(one) for one in rounds] for name, rounds in loads.items()},
    )
