"""Functions as models that take their process down, never come back, or note what becomes of them; for another process to import."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from typing import Any

import numpy as np


def crashing(x: Any) -> Any:
    """2x, and a segmentation fault where there is nothing in x."""
    if not len(x):
        ctypes.string_at(0)
    return 2 * x


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


def counting(x: Any) -> Any:
    """x[0] answers."""
    for number in range(int(x[0])):
        yield np.float32([number])
