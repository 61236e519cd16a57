"""Serving models to others."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from nnrp._nnrp import Engine, Model, Server
from nnrp.engine import StrPath
from nnrp.errors import InvalidOption


def serve(
    source: Engine | Model | StrPath | Sequence[StrPath],
    *,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
    host: str = "127.0.0.1",
    http_port: int | None = 8000,
    grpc_port: int | None = 8001,
    threads: int = 0,
    max_body_bytes: int = 64 << 20,
    max_connections: int = 65536,
    queue_full_status: int = 503,
) -> Server:
    """Serve models over REST and gRPC, by the Open Inference Protocol, on threads of the server's own.

    Args:
        source: an Engine with all its models, a Model with its engine, or what to load: a model file, a folder VERSION/model.onnx, a
            repository NAME/VERSION/model.onnx, or several of these.
        name: what to call the model, where the path holds one.
        options: the runtime's options for every model that is loaded here.
        host: the address to listen on.
        http_port: port for REST; 0 picks a free one, None leaves REST out.
        grpc_port: port for gRPC, likewise.
        threads: threads that read requests; 0 is one a core.
        max_body_bytes: largest message.
        max_connections: most connections at once, both forms together.
        queue_full_status: HTTP status for QueueFull: 503 or 429.

    Returns:
        The running Server, which this call does not wait for: `server.wait()`, `server.stop()`, or `with nnrp.serve(…) as server`.

    Example:
        >>> with nnrp.serve("double.onnx", http_port=0, grpc_port=0) as server:
        ...     nnrp.connect(server.http_url)(np.float32([1, 2, 3]))
        {'y': array([3., 5., 7.], dtype=float32)}
    """
    return Server(
        _engine(source, name, options),
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        threads=threads,
        max_body_bytes=max_body_bytes,
        max_connections=max_connections,
        queue_full_status=queue_full_status,
    )


def _engine(source: Engine | Model | StrPath | Sequence[StrPath], name: str | None, options: Mapping[str, Any] | None) -> Engine:
    if isinstance(source, Engine):
        return source
    if isinstance(source, Model):
        if source.engine is None:
            raise InvalidOption(f"serve: expected a model in this process, got '{source.name}' of another server")
        return source.engine
    from nnrp import repository

    engine = Engine()
    for path in [source] if isinstance(source, (str, os.PathLike)) else source:
        for found in repository.find(os.fspath(path), name):
            engine.load(found.path, found.name, found.version, options=options)
    return engine
