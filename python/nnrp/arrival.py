"""What comes later, from another thread, brought to the event loop that waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any


async def arrival(begin: Callable[[Callable[[Any, Exception | None], object]], Any]) -> Any:
    """Give what comes.

    Args:
        begin: is called with a function that takes what came, or the error instead, on any thread. Gives what is there at once, or else a function
            that is called in the end, also where nobody waits any more.

    Raises:
        Exception: the error.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    soon: Any = loop.call_soon_threadsafe
    came = begin(partial(soon, _settle, future))
    if not callable(came):
        return came
    try:
        return await future
    finally:
        came()
        # An error's frames would hold the error by the future, and the request by what ends it: cycles, of which the collector does not see the second.
        del came, future


def _settle(future: asyncio.Future[Any], came: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(came)
