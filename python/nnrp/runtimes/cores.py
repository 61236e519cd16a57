"""The cores that there are to share."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from nnrp.errors import InvalidOption

#: What no runtime is asked to exceed.
MOST_THREADS = 256


def cores() -> int:
    """Count the physical cores that the process may use."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    siblings = set()
    for core in allowed:
        told = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
        siblings.add(told.read_text() if told.exists() else str(core))
    return min(max(1, len(siblings)), MOST_THREADS)


def option(description: str) -> dict[str, Any]:
    """Give the JSON Schema of the option `threads`, whose default is the physical cores."""
    return {"type": "integer", "minimum": 1, "maximum": MOST_THREADS, "default": cores(), "description": description}


class Agreed:
    """How many threads a library has in this process: it takes what is said first, and passes over what is said later."""

    def __init__(self, runtime: str) -> None:
        self._runtime, self._lock = runtime, threading.Lock()
        self._number: int | None = None

    def on(self, wanted: int | None) -> int:
        """Settle the number: what is wanted, or the physical cores.

        Raises:
            InvalidOption: it is another one already.
        """
        with self._lock:
            if self._number is None:
                self._number = wanted or cores()
            if wanted not in (None, self._number):
                message = f"option 'threads': expected {self._number}, which the models of this process share, got {wanted}"
                raise InvalidOption(message, runtime=self._runtime)
            return self._number
