"""Any number of answers to one request, one after the other."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from nnrp.errors import WrongState

if TYPE_CHECKING:
    import numpy.typing as npt

    Outputs: TypeAlias = dict[str, npt.NDArray[Any]]

#: Streams that somebody has. Those that Python gives have ended before the interpreter does.
_going: weakref.WeakSet[_Going] = weakref.WeakSet()


class _Going:
    __slots__ = ("__weakref__", "_pull")

    _pull: Callable[..., Any]

    def __init__(self, pull: Callable[..., Any]) -> None:
        self._pull = pull
        _going.add(self)

    def _end(self) -> None:
        # What a fork inherits is not its own to end.
        with suppress(WrongState):
            self._pull(True, None)


class Stream(_Going, Iterator["Outputs"]):
    """The answers to one request, as `Model.stream` gives them.

    An iterator of what `Model.infer` returns; an error ends it. Left before its end, by `close`, at the end of a `with` block or with its last reference,
    as a `break` does, it cancels the request, and the model stops. At most a few answers are made before they are asked for.
    """

    __slots__ = ()

    def __next__(self) -> Outputs:
        answer: Outputs | None = self._pull(False, None)
        if answer is None:
            raise StopIteration
        return answer

    def close(self) -> None:
        """Cancel the request, unless all its answers have come; there are no more answers then."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class AsyncStream(_Going, AsyncIterator["Outputs"]):
    """The answers to one request, as `Model.stream_async` gives them: a `Stream` for `async for`, which never blocks the event loop.

    Cancelling the task that waits for an answer cancels the request.
    """

    __slots__ = ()

    async def __anext__(self) -> Outputs:
        from asyncio import CancelledError

        from nnrp.arrival import arrival

        try:
            answer: Outputs | None = await arrival(lambda deliver: self._pull(False, deliver))
        except CancelledError:
            self._end()
            raise
        if answer is None:
            raise StopAsyncIteration
        return answer

    async def aclose(self) -> None:
        """Cancel the request, unless all its answers have come; there are no more answers then."""
        self._end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()


def end_all() -> None:
    """Cancel what nobody will read any more."""
    for stream in list(_going):
        stream._end()
