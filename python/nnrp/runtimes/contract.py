"""The runtime contract (spec §8), as Python wears it: what a runtime offers, and what the engine gives it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from nnrp.errors import DeviceNotFound, NotOffered

#: A name, or {name, datatype, shape, layout, model_layout, as, scale, zero_point, axis}; by the runtime's names or by position.
Overrides: TypeAlias = Mapping[str, Any] | Sequence[Any]

if TYPE_CHECKING:
    import numpy.typing as npt

    from nnrp.model import TensorSpec

    Inputs: TypeAlias = dict[str, npt.NDArray[Any]]
    Outputs: TypeAlias = Mapping[str, Any] | Sequence[Any] | npt.NDArray[Any]


@dataclass(frozen=True)
class ModelSpec:
    """What to load.

    Attributes:
        name: what callers say.
        version: which one.
        path: the file or folder; for runtimes that read none, whatever names the model.
        format: what the file is, by what is in it; None where nobody can tell.
        device: where to run: "auto", "cpu", "cuda:0", or the runtime's own name for it.
        precision: how exact the numbers must be: "strict", "bf16", "fp16", "int8" or "fast".
        options: the runtime's own options; they fit the schema that `Runtime.info` tells.
        inputs: what the description says otherwise of them, by your names or by position (spec §6.6). The engine sees to it; a runtime may look
            for what its file has lost, a datatype or a fixed dimension.
        outputs: likewise.
        labels: what its owner wants to remember of it.
    """

    name: str
    version: str
    path: str
    format: str | None = None
    device: str = "auto"
    precision: str = "strict"
    options: Mapping[str, Any] = field(default_factory=dict)
    inputs: Overrides = field(default_factory=dict)
    outputs: Overrides = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


class Control:
    """What goes along with a run."""

    __slots__ = ("_parameters", "_stopped", "deadline", "id")

    deadline: float | None
    """When nobody wants the answer any more, on the clock of `time.monotonic`; None: no end, or the session is not cancellable."""

    id: str | None
    """The request's id, where it has one."""

    def __init__(self, stopped: Callable[[], bool] | None = None, left: float | None = None, id: str | None = None, parameters: str | None = None) -> None:
        self._stopped, self._parameters, self.id = stopped, parameters, id
        self.deadline = None if left is None else time.monotonic() + left

    @property
    def parameters(self) -> dict[str, bool | int | float | str]:
        """The request's parameters that are the model's own (spec §4.2)."""
        told: dict[str, bool | int | float | str] = json.loads(self._parameters) if self._parameters else {}
        return told

    @property
    def stoppable(self) -> bool:
        """Whether anybody can stop this run at all."""
        return self._stopped is not None

    @property
    def stopped(self) -> bool:
        """Whether nobody waits for the answer any more; then whatever the run gives or raises is the same."""
        return self._stopped is not None and self._stopped()


class Session(Protocol):
    """One model version, loaded on one device.

    These attributes are optional and read once, after `load`:

        exclusive = True       one call at a time; False: any number of threads may call `run` at once
        cancellable = False    whether `run` looks at `control.stopped`
        workers = None         most threads that call `run` at once; default: the engine's limit
        device = "cpu"         what runs it
        format = None          what the model is; default: the description's, or the runtime's name
        settings = {}          the settings that hold, as JSON can say them; values_checked: False where a request's values can end the process

    Also optional, each a method:

        close()                     called once, when nobody uses the session any more
        warm_up()                   runs once with values of its own choice, so that the first request is not the slow one
        stats()                     gives what the session uses now, a mapping that JSON can say
        set_option(name, value)     changes an option, which fits the runtime's schema; it is told among the settings from then on

    The last three are called in turn with the runs of a session that takes one call at a time, and beside the runs of any other. And `stream`,
    beside or instead of `run`, makes the session one that streams, as `Streaming` says. A `stream` that is None is none.
    """

    @property
    def inputs(self) -> Sequence[TensorSpec | tuple[Any, ...]]:
        """What it takes, in order: name, datatype, shape with -1 for any size, and whether it may be left out. A shape of None is any rank."""

    @property
    def outputs(self) -> Sequence[TensorSpec | tuple[Any, ...]]:
        """What it gives, likewise."""

    def run(self, inputs: Inputs, outputs: Sequence[str], control: Control, /) -> Outputs:
        """Run one batch.

        Args:
            inputs: name → array, checked against the signature. Read-only, and the caller's own memory: copy what is kept or written to.
            outputs: the names wanted.
            control: whether anybody still waits.

        Returns:
            The outputs by name; or a list or tuple in the order of `outputs`; or the one array that was asked for. Arrays, `__dlpack__`,
            `nnrp.Tensor`, lists and numbers will do; each must fit the signature. An array that nobody else refers to is taken without a copy.
        """


class Streaming(Protocol):
    """A session that gives any number of answers to a request; the rest of it is as `Session` says, and its `run` is never called."""

    @property
    def inputs(self) -> Sequence[TensorSpec | tuple[Any, ...]]:
        """As `Session.inputs`."""

    @property
    def outputs(self) -> Sequence[TensorSpec | tuple[Any, ...]]:
        """As `Session.outputs`; each answer has all that were asked for."""

    def stream(self, inputs: Inputs, outputs: Sequence[str], control: Control, /) -> Iterable[Outputs]:
        """Answer one request, one answer after the other; a generator, mostly.

        Each answer goes out as soon as it is given, and the next is asked for once there is room for it: at most a few wait for their reader.
        When nobody wants more, a generator is closed; `control.stopped` tells so within a step.
        """


class Runtime(Protocol):
    """What can execute models.

    An attribute `formats`, the names of the model formats that it reads, spares the question to `info` whether it reads a file. A method
    `attach(engine)` is told which engine took it, for runtimes whose models ask other models there; keep a weak reference.
    """

    name: str
    """What a model's description calls it: letters, digits, `.`, `_` and `-`."""

    def info(self) -> Mapping[str, Any]:
        """Tell its version, formats, devices, and options as a JSON Schema, each where there is something to tell; touches no model."""

    def load(self, spec: ModelSpec, /) -> Session | Streaming:
        """Load one model version; raise an `nnrp.NnrpError` with the reason, or anything else, which becomes LoadFailed."""


def fixed(overrides: Overrides, shapes: Mapping[str, Sequence[Any] | None]) -> dict[str, list[int]]:
    """List the shapes of which a description fixes what the model leaves open, -1 where it does not; for runtimes that must know shapes to load.

    Args:
        overrides: `ModelSpec.inputs`.
        shapes: the model's own by name, in its order; None for any rank, and anything but a number where one is open.

    Returns:
        None of those in another layout than the model's, nor those that contradict it, which the engine refuses.
    """
    found: dict[str, list[int]] = {}
    for name, entry in overrides.items() if isinstance(overrides, Mapping) else zip(shapes, overrides, strict=False):
        said = entry.get("shape") if isinstance(entry, Mapping) and "layout" not in entry else None
        own = shapes.get(name)
        if said is None or name not in shapes or (own is not None and len(own) != len(said)):
            continue
        is_open = [not isinstance(dim, int) or dim == -1 for dim in own] if own is not None else [True] * len(said)
        sizes = [want if may and isinstance(want, int) else -1 for want, may in zip(said, is_open, strict=True)]
        if set(sizes) - {-1}:
            found[name] = sizes
    return found


def on_cpu(runtime: str, spec: ModelSpec) -> None:
    """Refuse what a runtime without devices and without precisions of its own cannot do.

    Raises:
        DeviceNotFound, NotOffered.
    """
    if spec.device not in ("auto", "cpu"):
        raise DeviceNotFound(f"device '{spec.device[:96]}' is not there; available to {runtime}: cpu", runtime=runtime, available=["cpu"])
    if spec.precision not in ("strict", "fast"):
        raise NotOffered(f"precision {spec.precision}: {runtime} computes in the types that it is given", runtime=runtime)
