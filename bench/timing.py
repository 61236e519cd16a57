"""Calls timed one by one, several contenders in turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

Block = Callable[[int], list[int]]


@dataclass(frozen=True)
class Times:
    """What one block of calls took, in microseconds."""

    p50: float
    p90: float
    minimum: float


def block_of(call: Callable[[], object]) -> Block:
    """Give a function that times so many calls, in nanoseconds each."""

    def run(calls: int) -> list[int]:
        clock = time.perf_counter_ns
        spent_ns = [0] * calls
        for i in range(calls):
            start_ns = clock()
            call()
            spent_ns[i] = clock() - start_ns
        return spent_ns

    return run


def in_turn(contenders: Mapping[str, Block], rounds: int, calls: int) -> dict[str, list[Times]]:
    """Time blocks of `calls` calls, A B C A B C …, after a tenth of a block each to warm up."""
    for block in contenders.values():
        block(max(calls // 10, 1))
    found: dict[str, list[Times]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, block in contenders.items():
            us = np.asarray(block(calls)) / 1e3
            p50, p90 = np.percentile(us, [50, 90])
            found[name].append(Times(float(p50), float(p90), float(us.min())))
    return found


def figures(times: Mapping[str, list[Times]], name: str, figure: str) -> list[float]:
    """Give one figure of each round, or nothing where there was no such contender."""
    return [getattr(one, figure) for one in times.get(name, [])]


@contextmanager
def spinning_thread() -> Iterator[None]:
    """Keep another Python thread busy, so that the interpreter lock is always wanted."""
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            pass

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
