"""``nnrp serve``."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nnrp.errors import NnrpError
from nnrp.runtimes.package import plain

from . import said, show

if TYPE_CHECKING:
    import nnrp


@click.command()
@click.argument("paths", metavar="[NAME=]PATH…", nargs=-1, required=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--http-port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="Port for REST; 0 picks a free one.")
@click.option("--grpc-port", default=8001, show_default=True, type=click.IntRange(0, 65535), help="Port for gRPC; 0 picks a free one.")
@click.option(
    "--runtime", metavar="NAME[,NAME…]", help="What executes the models; the first that can.  [default: that of the file's format, or any that reads it]"
)
@click.option("--device", help="What runs them: cpu, cuda:0, or the runtime's own name for it.  [default: auto]")
@click.option("--precision", type=click.Choice(["strict", "bf16", "fp16", "int8", "fast"]), help="How exact.  [default: strict]")
@click.option("--symbols", type=click.Choice(["equal", "free"]), help="What names of open dimensions claim.  [default: equal]")
@click.option("--isolation", type=click.Choice(["none", "process"]), help="process: each model in one of its own.  [default: none]")
@click.option("--option", "pairs", metavar="NAME=VALUE", multiple=True, help="An option of the runtime's, for every model.")
@click.option("--options", metavar="JSON", help="All options of the runtime's, one JSON object.")
@click.option("--inputs", metavar="JSON", help="What callers see in place of the inputs that the runtime tells.")
@click.option("--outputs", metavar="JSON", help="What callers see in place of the outputs that the runtime tells.")
@click.option("--plugin", "plugins", metavar="FILE-or-FOLDER", multiple=True, help="A runtime in a shared library, or all of a folder.")
@click.option("--threads", default=0, type=click.IntRange(0), help="Threads that read requests.  [default: one a core]")
@click.option("--max-body-bytes", default=64 << 20, show_default=True, type=click.IntRange(1), help="Largest request.")
@click.option("--max-unread-bytes", default=1 << 30, show_default=True, type=click.IntRange(1), help="Most bytes of answers that clients leave unread.")
@click.option("--queue-capacity", default=1024, show_default=True, type=click.IntRange(1), help="Most requests that wait for one model.")
@click.option(
    "--queue-full-status", default="503", show_default=True, type=click.Choice(["503", "429"]), help="HTTP status for a full queue, and for too much unread."
)
@click.option("--read-timeout", default=30.0, show_default=True, type=click.FloatRange(0, min_open=True), help="Seconds for a request's head.")
@click.option("--write-timeout", default=30.0, show_default=True, type=click.FloatRange(0, min_open=True), help="Seconds that an answer may stay unread.")
@click.option("--idle-timeout", default=75.0, show_default=True, type=click.FloatRange(0, min_open=True), help="Seconds that a connection may be idle.")
@click.option("--grace", default=30.0, show_default=True, type=click.FloatRange(0), help="Seconds that requests in flight get when the server is stopped.")
@click.option("--skip-bad", is_flag=True, help="Serve the rest when a model cannot be loaded.")
@show.json_option
def serve(
    paths: tuple[str, ...],
    host: str,
    http_port: int,
    grpc_port: int,
    pairs: tuple[str, ...],
    options: str | None,
    inputs: str | None,
    outputs: str | None,
    plugins: tuple[str, ...],
    threads: int,
    max_body_bytes: int,
    max_unread_bytes: int,
    queue_capacity: int,
    queue_full_status: str,
    read_timeout: float,
    write_timeout: float,
    idle_timeout: float,
    grace: float,
    skip_bad: bool,
    as_json: bool,
    **described: Any,
) -> None:
    """Serve models over REST and gRPC until told to stop.

    PATH is a model file, a folder VERSION/model.onnx, a repository NAME/VERSION/model.onnx, or a model.toml that describes a model. A model
    is called as its file is, without the suffix, or as its folder where the file is called model; NAME=PATH calls it NAME. Also a source
    elsewhere, https:, s3:, gs:, az:, hf: or oci:, and http://HOST:PORT/MODEL of another server. What is said here wins over a model.toml.

    Speaks the Open Inference Protocol with Triton's extensions. SIGINT and SIGTERM stop it after it has answered what it has, within --grace; a second one
    stops it at once.
    """
    import nnrp
    from nnrp import repository

    _settle_in()
    # Where module:function is looked for last.
    sys.path.append(str(Path.cwd()))
    engine = nnrp.Engine(queue_capacity=queue_capacity, plugins=said.plugins(plugins))
    described |= {"inputs": said.document("--inputs", inputs), "outputs": said.document("--outputs", outputs)}
    repository.load(engine, paths, said.options(options, pairs), _not_served if skip_bad else None, **described)
    bounds: Any = {"threads": threads, "max_body_bytes": max_body_bytes, "max_unread_bytes": max_unread_bytes, "queue_full_status": int(queue_full_status)}
    bounds |= {"read_timeout": read_timeout, "write_timeout": write_timeout, "idle_timeout": idle_timeout}
    server = nnrp.serve(engine, host=host, http_port=http_port, grpc_port=grpc_port, **bounds)
    graces = iter([grace])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: server.stop(grace=next(graces, 0.0)))
    _announce(engine, server, as_json)
    server.wait()


def _settle_in() -> None:
    """Allow as many open files as the system lets this user have: each connection is one, and the usual start is 1,024. Let threads of Python's take turns.

    A model in Python waits no longer than such a turn for another thread that computes; the usual 5 ms are for programs that nobody waits for.
    """
    import resource

    sys.setswitchinterval(0.0005)

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _not_served(error: NnrpError) -> None:
    print(plain(f"nnrp: not served: {error.message} ({error.code}, {error.reason})"), file=sys.stderr)


def _announce(engine: nnrp.Engine, server: nnrp.Server, as_json: bool) -> None:
    loaded = engine.models()
    models = [model.metadata() | {"version": model.version, "session": show.session(model)} for model in loaded]
    exposed = _exposed(engine)
    if as_json:
        print(json.dumps({"http": server.http_url, "grpc": server.grpc_url, "models": models, "exposed": list(exposed)}), flush=True)
        return
    rows = [[m["name"], m["version"], m["platform"], _holds(m["session"]), show.signature(m["inputs"]), show.signature(m["outputs"])] for m in models]
    show.table(["model", "version", "platform", "runs on", "inputs", "outputs"], rows)
    print(f"REST  {server.http_url}\ngRPC  {server.grpc_url}\n")
    if notes := [line for model in loaded for line in show.not_taken(model)]:
        print("\n".join(notes) + "\n")
    if exposed:
        by = ", ".join(dict.fromkeys(exposed.values()))
        print(f"Note: the values of a request can end this process, by {by} ({', '.join(exposed)}): --isolation process keeps the server alive\n")
    print(f"Try:  nnrp models {server.http_url}")
    print(f"      curl {server.http_url}/v2/models/{models[0]['name'] if models else 'NAME'}")
    print("Stop with Ctrl-C; requests in flight are answered first, a second one ends them.", flush=True)


def _holds(session: dict[str, Any]) -> str:
    """Say in a few words what holds of the settings that were asked for."""
    settings = session.get("settings", {})
    return " ".join(str(one) for one in (session.get("device"), settings.get("precision"), settings.get("isolation") and "in a process of its own") if one)


def _exposed(engine: nnrp.Engine) -> dict[str, str]:
    """The models that a request's values can take this process down with, and what runs them (spec §8.18)."""
    sessions = [(model.name, model.session) for model in engine.models()]
    return {name: one.runtime for name, one in sessions if one and not one.settings.get("values_checked", True) and one.settings.get("isolation") != "process"}
