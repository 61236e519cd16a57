"""What a model tells of itself, and asking it from an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from nnrp._nnrp import Model, Outputs


class TensorSpec(NamedTuple):
    """One input or output of a model.

    Attributes:
        name: its name.
        datatype: the element type, as the Open Inference Protocol names it: "FP32".
        shape: dimensions; -1 where any size will do.
        optional: may be left out.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


class Session(NamedTuple):
    """One model version as one runtime loaded it on one device.

    Attributes:
        runtime: the runtime's name.
        version: the runtime's own version.
        format: the file's format.
        device: what runs it.
        exclusive: takes one call at a time; the engine sees to it.
        cancellable: a run can be ended before it is done.
        settings: the settings that hold: what was asked for, as it was honoured, and defaults.
    """

    runtime: str
    version: str
    format: str
    device: str
    exclusive: bool
    cancellable: bool
    settings: dict[str, Any]


async def infer_async(
    model: Model,
    inputs: Mapping[str, Any],
    outputs: Sequence[str] | None,
    timeout: float | None,
    id: str | None,
    parameters: Mapping[str, bool | int | float | str] | None,
) -> Outputs:
    """Do what `Model.infer_async` says."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Outputs] = loop.create_future()

    def deliver(answer: Outputs | None, error: Exception | None) -> None:
        loop.call_soon_threadsafe(_settle, future, answer, error)

    started = model._start(inputs, outputs, timeout, id, parameters, deliver)
    if isinstance(started, dict):
        return started
    try:
        return await future
    finally:
        started()


def _settle(future: asyncio.Future[Outputs], answer: Outputs | None, error: Exception | None) -> None:
    if future.done():
        return
    if answer is None:
        future.set_exception(error or RuntimeError("neither answer nor error"))
    else:
        future.set_result(answer)
