"""Serving models to others."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from nnrp import _nnrp
from nnrp.engine import Engine, StrPath
from nnrp.errors import InvalidOption
from nnrp.model import Model


class Server(_nnrp.Server):
    """A running server; `nnrp.serve` makes it. As a context manager it stops at the end of the block."""

    __slots__ = ("_host", "_stopped", "engine")

    engine: Engine
    """The engine that answers."""
    _host: str
    _stopped: threading.Event

    def __new__(
        cls,
        engine: Engine,
        host: str,
        http_port: int | None,
        grpc_port: int | None,
        threads: int,
        max_body_bytes: int,
        max_connections: int,
        queue_full_status: int,
    ) -> Self:
        self = super().__new__(cls, engine, host, (http_port, grpc_port), (threads, max_body_bytes, max_connections), queue_full_status)
        self.engine, self._host, self._stopped = engine, host, threading.Event()
        return self

    @property
    def http_url(self) -> str | None:
        """Where REST listens; None when it does not."""
        return self._url("http", self._ports()[0])

    @property
    def grpc_url(self) -> str | None:
        """Where gRPC listens; None when it does not."""
        return self._url("grpc", self._ports()[1])

    def stop(self, grace: float = 10.0) -> None:
        """Take nothing new, finish what is in flight within `grace` seconds, and return. The engine stays ready for others."""
        if not 0 <= grace < float("inf"):
            raise InvalidOption(f"grace: expected seconds from 0, got {grace}")
        self._stop(timedelta(seconds=grace))
        self._stopped.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the server is stopped, by another thread or a signal handler; Ctrl-C raises KeyboardInterrupt.

        Args:
            timeout: most seconds to wait; default: no end.

        Returns:
            Whether it was stopped.
        """
        return self._stopped.wait(timeout)

    def _url(self, scheme: str, port: int | None) -> str | None:
        # A wildcard is no place to connect to.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        return None if port is None else f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<nnrp.Server at {', '.join(url for url in (self.http_url, self.grpc_url) if url)}>"


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
    engine = _engine(source, name, options)
    return Server(engine, host, http_port, grpc_port, threads, max_body_bytes, max_connections, queue_full_status)


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
