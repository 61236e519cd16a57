"""``nnrp serve``."""

from __future__ import annotations

import json as jsonlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nnrp.errors import InvalidArgument, NnrpError

from . import show

if TYPE_CHECKING:
    import nnrp


def serve(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Model files, or repositories NAME/VERSION/model.onnx.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="Port for REST; 0 picks a free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="Port for gRPC; 0 picks a free one.")] = 8001,
    name: Annotated[str | None, typer.Option(help="What to call the model, where PATH is one model.")] = None,
    options: Annotated[str, typer.Option(help="The runtime's options for every model, one JSON object.")] = "{}",
    threads: Annotated[int, typer.Option(min=0, help="Threads that read requests; 0 = one a core.")] = 0,
    max_body_bytes: Annotated[int, typer.Option(min=1, help="Largest request.")] = 64 << 20,
    queue_capacity: Annotated[int, typer.Option(min=1, help="Most requests that wait for one model.")] = 1024,
    queue_full_status: Annotated[int, typer.Option(help="HTTP status for a full queue: 503 or 429.")] = 503,
    grace: Annotated[float, typer.Option(min=0, help="Seconds that requests in flight get to finish when the server is stopped.")] = 30.0,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Serve the rest when a model cannot be loaded.")] = False,
    json: show.Json = False,
) -> None:
    """Serve models over REST and gRPC until told to stop.

    Speaks the Open Inference Protocol with Triton's extensions, so that every client for it works unchanged. SIGINT and SIGTERM stop the
    server after it has answered what it has.
    """
    import nnrp

    engine = nnrp.Engine(queue_capacity=queue_capacity)
    _load(engine, paths, name, _options(options), skip_bad)
    server = nnrp.serve(
        engine,
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        threads=threads,
        max_body_bytes=max_body_bytes,
        queue_full_status=queue_full_status,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: server.stop(grace=grace))
    _announce(engine, server, json)
    server.wait()


def _options(text: str) -> dict[str, Any]:
    try:
        options = jsonlib.loads(text)
    except ValueError as error:
        raise InvalidArgument(f"--options: expected one JSON object, got {text!r}: {error}", reason="INVALID_OPTION") from error
    if not isinstance(options, dict):
        raise InvalidArgument(f"--options: expected one JSON object, got {text!r}", reason="INVALID_OPTION")
    return options


def _load(engine: nnrp.Engine, paths: list[Path], name: str | None, options: dict[str, Any], skip_bad: bool) -> None:
    from nnrp import repository

    sources = [source for path in paths for source in repository.find(path, name)]
    if name is not None and len({source.path.parent.parent if len(sources) > 1 else source for source in sources}) > 1:
        raise InvalidArgument(f"--name {name}: expected one model, got {len(sources)} files", reason="INVALID_OPTION")
    for source in sources:
        try:
            engine.load(source.path, name=source.name, version=source.version, options=options)
        except NnrpError as error:
            if not skip_bad:
                raise
            print(f"nnrp: {source.name} version {source.version} is not served: {error.message} ({error.code}, {error.reason})", file=sys.stderr)


def _announce(engine: nnrp.Engine, server: nnrp.Server, json: bool) -> None:
    models = [model.metadata() | {"version": model.version} for model in engine.models()]
    if json:
        print(jsonlib.dumps({"http": server.http_url, "grpc": server.grpc_url, "models": models}), flush=True)
        return
    rows = [[m["name"], m["version"], m["platform"], show.signature(m["inputs"]), show.signature(m["outputs"])] for m in models]
    show.table(["model", "version", "platform", "inputs", "outputs"], rows)
    print(f"REST  {server.http_url}\ngRPC  {server.grpc_url}\n")
    print(f"Try:  nnrp models {server.http_url}")
    print(f"      curl {server.http_url}/v2/models/{models[0]['name'] if models else 'NAME'}")
    print("Stop with Ctrl-C; requests in flight are answered first.", flush=True)
