"""Ctrl-C ends a blocking call, wherever it waits, and its request with it (spec §7.2, §7.4)."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zoo
from abacus import Session, X, engine_of

import nnrp
from nnrp import errors

LONG = np.array(600_000, np.int64)
PATIENCE = 60.0


def _comes(when: Callable[[], bool], over: threading.Event | None = None) -> bool:
    """Whether `when` came to hold in time, and before it was `over`."""
    begun, over = time.monotonic(), over or threading.Event()
    while not when():
        if over.wait(0.005) or time.monotonic() - begun > PATIENCE:
            return False
    return True


@contextmanager
def interrupted(when: Callable[[], bool]) -> Iterator[None]:
    """Expect the block to end by a Ctrl-C, which comes once `when` holds: what holds only while the block waits."""
    came, ended, over = list[bool](), list[bool](), threading.Event()

    def press() -> None:
        came.append(_comes(when, over))
        # Also where it did not come, so that the block ends.
        if not over.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    pressing = threading.Thread(target=press)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - whenever it is pressed, it must not go past this.
        pressing.start()
        try:
            yield
            ended.append(True)
        finally:
            over.set()
            pressing.join()
    assert came == [True], "what the Ctrl-C waits for"
    assert not ended, "the block ended before the Ctrl-C"


def _has_thread(name: str) -> bool:
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # It has ended meanwhile.
            if (task / "comm").read_text().strip() == name:
                return True
    return False


def _refuses(server: nnrp.Server) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"{server.http_url}/v2/health/ready", timeout=60):
        return False
    return True


def _until_cancelled(model: nnrp.Model) -> None:
    assert _comes(lambda: "CLIENT_CANCELLED" in model.statistics()["failures"]), model.statistics()


# Workers stay for a while after their last run: each case has a model of its own name, of at most ten letters.


CALLS: dict[str, Callable[[nnrp.Model], Any]] = {
    "called": lambda model: model(LONG),
    "inferred": lambda model: model.infer({"n": LONG}),
    "timed": lambda model: model.infer({"n": LONG}, timeout=900),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_run_is_ended(slow_file: Path, name: str) -> None:
    model = nnrp.load(slow_file, name)
    with interrupted(lambda: _has_thread(f"nnrp:{name}")):
        CALLS[name](model)
    _until_cancelled(model)
    assert list(model(np.array(1, np.int64))) == ["y"]


def test_a_call_that_waits_for_its_turn_is_ended() -> None:
    begun, go = threading.Event(), threading.Event()

    def run(inputs: dict[str, Any], _outputs: Any, _control: Any) -> Any:
        begun.set()
        go.wait(2 * PATIENCE)
        return inputs["x"]

    model = engine_of(turn=Session(run, exclusive=True)).model("turn")
    other = threading.Thread(target=lambda: model(X))
    other.start()
    assert begun.wait(PATIENCE)
    # That one runs on its own thread; the call of the main thread is what brings a worker.
    assert not _has_thread("nnrp:turn")
    with interrupted(lambda: _has_thread("nnrp:turn")):
        model(X)
    go.set()
    other.join()
    _until_cancelled(model)
    assert np.array_equal(model(X)["y"], X)


@pytest.mark.parametrize("form", ["http_url", "grpc_url"])
def test_a_request_to_a_server_is_withdrawn(slow_file: Path, form: str) -> None:
    name = f"gone-{form[:4]}"
    served = nnrp.load(slow_file, name)
    with nnrp.serve(served, http_port=0, grpc_port=0) as server:
        model = nnrp.connect(getattr(server, form), name)
        with interrupted(lambda: _has_thread(f"nnrp:{name}")):
            model(LONG)
        _until_cancelled(served)
        assert list(model(np.array(1, np.int64))) == ["y"]


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_question_to_a_server_that_says_nothing_is_ended(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asked = threading.Event()

        def accept() -> None:
            connection, _ = silent.accept()
            with connection:
                connection.recv(1)
                asked.set()
                # Until the client has gone.
                while connection.recv(4096):
                    pass

        accepting = threading.Thread(target=accept)
        accepting.start()
        with interrupted(asked.is_set):
            nnrp.connect(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}", "any")
        accepting.join()


def test_what_a_handler_raises_comes_through_and_one_that_raises_nothing_ends_nothing(models: Path) -> None:
    model = nnrp.load(zoo.slow(models / "handled.onnx"))
    heard = threading.Event()

    def handle(*_: Any) -> None:
        if heard.is_set():
            raise errors.NnrpError("enough", reason="UNSPECIFIED")
        heard.set()
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handle)

    def press() -> None:
        _comes(lambda: _has_thread("nnrp:handled"))
        os.kill(os.getpid(), signal.SIGUSR1)

    pressing = threading.Thread(target=press)
    pressing.start()
    try:
        with pytest.raises(errors.NnrpError, match="enough"):
            model(LONG)
        pressing.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard.is_set()


def test_a_server_that_stops_hears_signals(slow_file: Path) -> None:
    served = nnrp.load(slow_file, "stopping")
    server = nnrp.serve(served, http_port=0, grpc_port=None)
    model = nnrp.connect(server.http_url or "", "stopping")
    told: list[BaseException] = []

    def ask() -> None:
        try:
            model(LONG)
        except errors.Unavailable as error:
            told.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    assert _comes(lambda: _has_thread("nnrp:stopping"))
    with interrupted(lambda: _refuses(server)):
        server.stop(grace=3600)
    server.stop(grace=0)
    asking.join()
    assert [getattr(error, "reason", "") for error in told] == ["DRAINING"]
    _until_cancelled(served)
