"""Functions as models that take their process down, never come back, or note what becomes of them; for another process to import."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from nnrp.errors import RuntimeCrashed


def crashing(x: Any) -> Any:
    """2x, and a segmentation fault where there is nothing in x."""
    if not len(x):
        ctypes.string_at(0)
    return 2 * x


def blaming(x: Any) -> Any:
    """Nothing: it says that another process ended, before it had the request."""
    raise RuntimeCrashed("the process of another model ended", held=False)


def stuck(x: Any) -> Any:
    """2x, and never where there is nothing in x."""
    if not len(x):
        threading.Event().wait()
    return 2 * x


async def patient(x: Any) -> Any:
    """2x; where there is nothing in x, it waits to be cancelled."""
    if not len(x):
        await asyncio.Event().wait()
    return 2 * x


def large(x: Any) -> Any:
    """x[0] ones."""
    return np.ones(int(x[0]), np.float32)


def whereabouts(x: Any) -> Any:
    """Where x lies in its page, and its sum."""
    return np.float32([x.__array_interface__["data"][0] % 4096, x.sum()])


def scribbling(x: Any) -> Any:
    """2x; where x begins with a negative number, it writes over what it was given."""
    if x[0] < 0:
        ctypes.memset(x.__array_interface__["data"][0], 0, x.nbytes)
    return 2 * x


def each(x: Any) -> Any:
    """2x, an answer for each element; a segmentation fault where it is negative."""
    for value in x:
        if value < 0:
            ctypes.string_at(0)
        yield 2 * value.reshape(1)


async def later(x: Any) -> Any:
    """2x, an answer for each element."""
    for value in x:
        await asyncio.sleep(0)
        yield 2 * value.reshape(1)


def sized(x: Any) -> Any:
    """As many ones as each element of x says, and then an error."""
    for count in x:
        yield np.ones(int(count), np.float32)
    raise ValueError("no more beads")


def noted(x: Any) -> Any:
    """Numbers without an end; the file that is named is as long as so many were given, and one beside it says that this one was left."""
    path = Path(x[0].decode() if isinstance(x[0], bytes) else x[0])
    try:
        for number in itertools.count():
            with path.open("ab") as file:
                file.write(b".")
            yield np.float32([number])
    finally:
        path.with_suffix(".left").touch()


def stalling(x: Any) -> Any:
    """x, and then, where it is negative, nothing for ever."""
    yield x
    if x[0] < 0:
        threading.Event().wait()


async def hanging(x: Any) -> Any:
    """x; where it is negative, over and over again."""
    yield x
    while x[0] < 0:
        await asyncio.sleep(0)
        yield x


def turns(x: Any) -> Any:
    """x, and how long a thread of Python's goes on when another one waits, in seconds."""
    return x + np.float32(sys.getswitchinterval())
