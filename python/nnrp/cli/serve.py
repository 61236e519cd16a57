"""``nnrp serve``."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nnrp.errors import InvalidArgument, NnrpError

from . import show

if TYPE_CHECKING:
    import nnrp


@click.command()
@click.argument("paths", metavar="PATH…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--http-port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="Port for REST; 0 picks a free one.")
@click.option("--grpc-port", default=8001, show_default=True, type=click.IntRange(0, 65535), help="Port for gRPC; 0 picks a free one.")
@click.option("--name", help="What to call the model, where PATH is one model.")
@click.option("--options", default="{}", metavar="JSON", help="The runtime's options for every model, one JSON object.")
@click.option("--threads", default=0, type=click.IntRange(0), help="Threads that read requests.  [default: one a core]")
@click.option("--max-body-bytes", default=64 << 20, show_default=True, type=click.IntRange(1), help="Largest request.")
@click.option("--queue-capacity", default=1024, show_default=True, type=click.IntRange(1), help="Most requests that wait for one model.")
@click.option("--queue-full-status", default="503", show_default=True, type=click.Choice(["503", "429"]), help="HTTP status for a full queue.")
@click.option("--grace", default=30.0, show_default=True, type=click.FloatRange(0), help="Seconds that requests in flight get when the server is stopped.")
@click.option("--skip-bad", is_flag=True, help="Serve the rest when a model cannot be loaded.")
@show.json_option
def serve(
    paths: tuple[Path, ...],
    host: str,
    http_port: int,
    grpc_port: int,
    name: str | None,
    options: str,
    threads: int,
    max_body_bytes: int,
    queue_capacity: int,
    queue_full_status: str,
    grace: float,
    skip_bad: bool,
    as_json: bool,
) -> None:
    """Serve models over REST and gRPC until told to stop.

    PATH is a model file, a folder VERSION/model.onnx, or a repository NAME/VERSION/model.onnx.

    Speaks the Open Inference Protocol with Triton's extensions, so that every client for it works unchanged. SIGINT and SIGTERM stop the
    server after it has answered what it has.
    """
    import nnrp

    _raise_open_files()
    engine = nnrp.Engine(queue_capacity=queue_capacity)
    _load(engine, paths, name, _options(options), skip_bad)
    server = nnrp.serve(
        engine,
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        threads=threads,
        max_body_bytes=max_body_bytes,
        queue_full_status=int(queue_full_status),
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: server.stop(grace=grace))
    _announce(engine, server, as_json)
    server.wait()


def _raise_open_files() -> None:
    """Allow as many open files as the system lets this user have: each connection is one, and the usual start is 1,024."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _options(text: str) -> dict[str, Any]:
    try:
        options = json.loads(text)
    except ValueError as error:
        raise InvalidArgument(f"--options: expected one JSON object, got {text!r}: {error}", reason="INVALID_OPTION") from error
    if not isinstance(options, dict):
        raise InvalidArgument(f"--options: expected one JSON object, got {text!r}", reason="INVALID_OPTION")
    return options


def _load(engine: nnrp.Engine, paths: tuple[Path, ...], name: str | None, options: dict[str, Any], skip_bad: bool) -> None:
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


def _announce(engine: nnrp.Engine, server: nnrp.Server, as_json: bool) -> None:
    models = [model.metadata() | {"version": model.version} for model in engine.models()]
    if as_json:
        print(json.dumps({"http": server.http_url, "grpc": server.grpc_url, "models": models}), flush=True)
        return
    rows = [[m["name"], m["version"], m["platform"], show.signature(m["inputs"]), show.signature(m["outputs"])] for m in models]
    show.table(["model", "version", "platform", "inputs", "outputs"], rows)
    print(f"REST  {server.http_url}\ngRPC  {server.grpc_url}\n")
    print(f"Try:  nnrp models {server.http_url}")
    print(f"      curl {server.http_url}/v2/models/{models[0]['name'] if models else 'NAME'}")
    print("Stop with Ctrl-C; requests in flight are answered first.", flush=True)
