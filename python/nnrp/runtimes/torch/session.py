"""A model that is loaded: one run, whatever it was saved as."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nnrp.errors import NnrpError, NotOffered, RunFailed
from nnrp.runtimes.contract import Control
from nnrp.runtimes.torch.types import Port, giver, taker
from nnrp.tensor import numpy_type

#: What PyTorch raises when a model and its inputs do not go together, beside TorchScript's own error.
FAILURES = (RuntimeError, ValueError, TypeError, LookupError, AssertionError, AttributeError, ArithmeticError, MemoryError)
_WORDS = 512


def said(error: BaseException) -> str:
    """What PyTorch says, in one line and without its tracebacks."""
    kind, text = type(error).__name__, str(error).partition("\nException raised from")[0].strip()
    if "Traceback of TorchScript" in text:
        # The last of it is what the model's own code raised.
        kind, _, text = text.splitlines()[-1].removeprefix("builtins.").partition(": ")
    line = " ".join(text.split("\n\n")[0].split())[:_WORDS]
    return f"{kind}: {line}" if line else kind


class Program:
    """A model on a device.

    Args:
        torch: the package.
        call: takes tensors in the order of the inputs, and gives results in the order of the outputs, as one flat sequence.
        inputs: what it takes.
        outputs: what it gives.
        device: where.
        settings: what holds.
        stateful: whether a run leaves something for the next one: then one call at a time.
        kept: where the storages lie that the model keeps; None: nobody knows.
        autocast: the type that arithmetic is done in where it is not the model's own.
        threads: of each run; None: that is not ours to say.
        why: gives the caller's error for inputs that do not fit each other, where there is one.
        runtime: whose model it is.
    """

    cancellable = False
    kept_alive: Any = None

    def __init__(
        self,
        torch: Any,
        call: Callable[..., Sequence[Any]],
        inputs: Sequence[Port],
        outputs: Sequence[Port],
        *,
        device: str,
        settings: dict[str, Any],
        stateful: bool = False,
        kept: frozenset[int] | None = None,
        autocast: Any = None,
        threads: int | None = None,
        why: Callable[[dict[str, Any]], NnrpError | None] | None = None,
        runtime: str = "torch",
    ) -> None:
        self.inputs, self.outputs = [port.spec for port in inputs], [port.spec for port in outputs]
        self.exclusive, self.device, self.settings = stateful, device, settings
        self._stateful = stateful
        self._torch, self._call, self._why, self._threads, self._runtime = torch, call, why, threads, runtime
        self._takes = [(port.name, taker(torch, port, device)) for port in inputs]
        self._gives = {port.name: (place, giver(torch, port, None if stateful else kept, autocast is not None)) for place, port in enumerate(outputs)}
        self._autocast = (device.partition(":")[0], autocast) if autocast else None

    def run(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> list[Any]:
        torch, threads = self._torch, self._threads
        # A number of each thread, which a thread that other models run on too may have from one of them.
        if threads is not None and torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                given = [take(inputs[name]) if name in inputs else None for name, take in self._takes]
                answer = self._cast(given) if self._autocast else self._call(*given)
                return [give(answer[place], given) for place, give in (self._gives[name] for name in outputs)]
        except NnrpError:
            raise
        except (*FAILURES, torch.jit.Error) as error:
            raise (self._why and self._why(inputs)) or RunFailed(f"runtime {self._runtime}: {said(error)}", runtime=self._runtime) from error

    def _cast(self, given: Sequence[Any]) -> Sequence[Any]:
        kind, narrow = self._autocast or ("cpu", None)
        with self._torch.autocast(kind, dtype=narrow):
            return self._call(*given)

    def warm_up(self) -> None:
        """Run with zeros, as small as the dimensions allow: TorchScript compiles in its first two runs.

        Raises:
            NotOffered: a run leaves something for the next one, or an input may be of any rank.
        """
        if self._stateful or any(shape is None for _, _, shape, _ in self.inputs):
            raise NotOffered(f"runtime {self._runtime}: a run with values of its own choice would leave something in this model, or has no shape")
        told = self.settings.get("dimensions", {})
        zeros = {}
        for name, datatype, shape, optional in self.inputs:
            least = {int(axis): dim["min"] for axis, dim in told.get(name, {}).items()}
            if not optional:
                zeros[name] = np.zeros([least.get(axis, 1) if dim < 0 else dim for axis, dim in enumerate(shape or ())], numpy_type(datatype))
        for _ in range(2):
            self.run(zeros, [name for name, *_ in self.outputs], Control())

    def close(self) -> None:
        self._call = _closed


def _closed(*_: Any) -> Sequence[Any]:
    raise RuntimeError("the session is closed")
