"""Event loops on threads of their own, for runtimes that wait for what is async."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

from nnrp.errors import ClientCancelled, RunFailed
from nnrp.runtimes.contract import Control

#: How often a run that somebody may stop looks whether somebody did, in seconds.
LOOK = 0.01
#: How many seconds the end of a loop waits for its thread, which may be at something that blocks it.
PATIENCE = 1.0
#: What comes after the last answer.
END: Any = object()

#: Those whose threads go on. They end before the interpreter does, which would leave a thread wherever it is.
_going: weakref.WeakSet[Loop] = weakref.WeakSet()


class Loop:
    """An event loop on a thread of its own, which begins with the first that needs it.

    Args:
        name: the thread's.
    """

    def __init__(self, name: str) -> None:
        self._name, self._lock, self._process = name, threading.Lock(), os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def is_here(self) -> bool:
        """Tell whether it runs on the caller's own thread."""
        return self._thread is not None and threading.get_ident() == self._thread.ident

    def finish(self, work: Coroutine[Any, Any, Any], control: Control) -> Any:
        """Give what a coroutine gives; cancel it when nobody waits any more.

        Raises:
            ClientCancelled: it was cancelled because nobody waited.
            RunFailed: it cancelled itself.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._begun())
        try:
            while True:
                try:
                    return future.result(LOOK if control.stoppable else None)
                except TimeoutError:
                    if future.done():
                        raise
                    if control.stopped:
                        future.cancel()
        except CancelledError as error:
            if control.stopped:
                raise ClientCancelled("the run was cancelled") from error
            raise RunFailed("the function cancelled itself") from error
        finally:
            # An error's frames would hold the error by it: a cycle.
            del future

    def _begun(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop, self._closed = asyncio.new_event_loop(), threading.Event()
                self._thread = threading.Thread(target=_run, args=(self._loop, self._closed), name=self._name, daemon=True)
                self._thread.start()
                _going.add(self)
            return self._loop

    def close(self) -> None:
        """End it, also from within. Nothing waits for it any more."""
        # A fork has the loop and not its thread.
        if os.getpid() != self._process or sys.is_finalizing():
            return
        with self._lock:
            loop, thread, closed, self._loop = self._loop, self._thread, self._closed, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(_stop, loop, closed)
            if threading.get_ident() != thread.ident:
                thread.join(PATIENCE)


def _run(loop: asyncio.AbstractEventLoop, closed: threading.Event) -> None:
    try:
        while not closed.is_set():
            # What a task does to the loop, or raises out of it, is no end of the others, and not of its own.
            with suppress(KeyboardInterrupt, SystemExit):
                loop.run_forever()
    finally:
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop, closed: threading.Event) -> None:
    closed.set()
    loop.stop()


async def step(answers: AsyncIterator[Any]) -> Any:
    """Give the next answer, END at the end."""
    return await anext(answers, END)


def end_all() -> None:
    """End every loop: nothing of Python's goes on beyond its interpreter."""
    for loop in list(_going):
        loop.close()
