"""Serving models to others."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from nnrp import _nnrp
from nnrp.engine import Engine, Loadable, StrPath
from nnrp.errors import InvalidOption, WrongState
from nnrp.model import Model

#: Seconds after which a waiting thread looks for signals: the system may give one to a native thread, which does not wake Python's.
_LOOK = 0.2


class Server(_nnrp.Server):
    """A running server; `nnrp.serve` makes it. As a context manager it stops at the end of the block."""

    __slots__ = ("_host", "engine")

    engine: Engine
    """The engine that answers."""
    _host: str

    def __new__(
        cls,
        engine: Engine,
        host: str,
        http_port: int | None,
        grpc_port: int | None,
        threads: int,
        max_body_bytes: int,
        max_connections: int,
        max_unread_bytes: int,
        queue_full_status: int,
        timeouts: tuple[float, float, float],
    ) -> Self:
        lengths = tuple(_length(name, seconds) for name, seconds in zip(("read_timeout", "write_timeout", "idle_timeout"), timeouts, strict=True))
        bounds = threads, max_body_bytes, max_connections, max_unread_bytes
        self = super().__new__(cls, engine, host, (http_port, grpc_port), bounds, queue_full_status, lengths)
        self.engine, self._host = engine, host
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
        """Take nothing new, finish what is in flight within `grace` seconds, and return. The engine stays ready for others.

        What is not finished by then is answered Unavailable (DRAINING), where its client still reads. Any number of threads may call, and signal
        handlers too; each returns once the server is stopped, and the `grace` that ends first holds. Signals are looked at meanwhile.
        """
        if not 0 <= grace < float("inf"):
            raise InvalidOption(f"grace: expected seconds from 0, got {grace}")
        self._stop(timedelta(seconds=grace))
        while not self._stopped(timedelta(seconds=_LOOK)):
            pass

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the server is stopped, by another thread or a signal handler; Ctrl-C raises KeyboardInterrupt.

        Args:
            timeout: most seconds to wait; default: no end.

        Returns:
            Whether it was stopped.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = _LOOK if end is None else min(_LOOK, max(0.0, end - time.monotonic()))
            if self._stopped(timedelta(seconds=left)):
                return True
            if end is not None and time.monotonic() >= end:
                return False

    def _url(self, scheme: str, port: int | None) -> str | None:
        # A wildcard is no place to connect to.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        return None if port is None else f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # A fork that leaves the block leaves the server to the process that has it.
        with suppress(WrongState):
            self.stop()

    def __repr__(self) -> str:
        return f"<nnrp.Server at {', '.join(url for url in (self.http_url, self.grpc_url) if url)}>"


def serve(
    source: Engine | Model | Loadable | Sequence[StrPath],
    *,
    name: str | None = None,
    host: str = "127.0.0.1",
    http_port: int | None = 8000,
    grpc_port: int | None = 8001,
    threads: int = 0,
    max_body_bytes: int = 64 << 20,
    max_connections: int = 65536,
    max_unread_bytes: int = 1 << 30,
    queue_full_status: int = 503,
    read_timeout: float = 30.0,
    write_timeout: float = 30.0,
    idle_timeout: float = 75.0,
    **described: Any,
) -> Server:
    """Serve models over REST and gRPC, by the Open Inference Protocol, on threads of the server's own.

    Args:
        source: an Engine with all its models, a Model with its engine, or what to load: a model file, a folder VERSION/model.onnx, a
            repository NAME/VERSION/model.onnx, or several of these; or a function. A model is called as its file or folder is; "NAME=PATH" calls it NAME.
        name: what to call a function; default: its own name.
        host: the address to listen on.
        http_port: port for REST; 0 picks a free one, None leaves REST out.
        grpc_port: port for gRPC, likewise.
        threads: threads that read requests; 0 is one a core.
        max_body_bytes: largest message.
        max_connections: most connections at once, both forms together.
        max_unread_bytes: most bytes of answers that clients have not read, all connections together; an answer beyond it is UnreadAnswers.
        queue_full_status: HTTP status for QueueFull and UnreadAnswers: 503 or 429.
        read_timeout: seconds that a request may take for its head, or pause within its body.
        write_timeout: seconds that a client may read nothing of its answer.
        idle_timeout: seconds that a connection may have nothing to answer.
        described: runtime, options and the rest that `Engine.load` takes, for every model that is loaded here.

    Returns:
        The running Server, which this call does not wait for: `server.wait()`, `server.stop()`, or `with nnrp.serve(…) as server`.

    Example:
        >>> with nnrp.serve("double.onnx", http_port=0, grpc_port=0) as server:
        ...     nnrp.connect(server.http_url)(np.float32([1, 2, 3]))
        {'y': array([3., 5., 7.], dtype=float32)}
    """
    engine = _engine(source, name, described)
    timeouts = read_timeout, write_timeout, idle_timeout
    return Server(engine, host, http_port, grpc_port, threads, max_body_bytes, max_connections, max_unread_bytes, queue_full_status, timeouts)


def _length(name: str, seconds: float) -> timedelta:
    try:
        length = timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        length = timedelta()
    if length <= timedelta():
        raise InvalidOption(f"server setting '{name}': expected seconds, more than 0, got {seconds}")
    return length


def _engine(source: Engine | Model | Loadable | Sequence[StrPath], name: str | None, described: dict[str, Any]) -> Engine:
    if isinstance(source, (Engine, Model)):
        if described or name:
            raise InvalidOption(f"serve: '{next(iter(described), 'name')}' is for what is loaded here, and this is loaded already")
        if isinstance(source, Engine):
            return source
        if source.engine is None:
            raise InvalidOption(f"serve: expected a model in this process, got '{source.name}' of another server")
        return source.engine
    engine = Engine()
    if callable(source):
        engine.load(source, name, **described)
        return engine
    if name:
        raise InvalidOption("name: expected a function to go with it; a model in a file is called NAME by NAME=PATH")
    from nnrp import repository

    repository.load(engine, [source] if isinstance(source, (str, os.PathLike)) else source, **described)
    return engine
