"""A model that answers, wherever it runs, and what it tells of itself."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypeAlias

from nnrp import _nnrp
from nnrp.errors import InvalidOption, NotOffered

if TYPE_CHECKING:
    import numpy.typing as npt

    from nnrp.engine import Engine
    from nnrp.remote import Client
    from nnrp.stream import AsyncStream, Stream

    Outputs: TypeAlias = dict[str, npt.NDArray[Any]]


# Every object that runs on threads of its own comes through here.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_nnrp.forked)


class SupportsDLPack(Protocol):
    """What has `__dlpack__`: tensors of PyTorch, JAX, TensorFlow, CuPy …"""

    def __dlpack__(self) -> Any: ...


TensorLike: TypeAlias = "npt.ArrayLike | SupportsDLPack | _nnrp.Tensor | None"
Parameters: TypeAlias = Mapping[str, bool | int | float | str]


class TensorSpec(NamedTuple):
    """One input or output of a model.

    Attributes:
        name: its name.
        datatype: the element type, as the Open Inference Protocol names it: "FP32".
        shape: dimensions; -1 where any size will do.
        optional: may be left out; a server does not tell.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


class _Loaded(NamedTuple):
    runtime: str
    version: str
    format: str
    device: str
    settings: dict[str, Any]
    exclusive: bool
    cancellable: bool
    streams: bool
    labels: dict[str, str]
    chosen: dict[str, Any]


class Session(_Loaded):
    """One model version as one runtime loaded it on one device.

    Attributes:
        runtime: the runtime's name.
        version: the runtime's own version.
        format: the file's format.
        device: what runs it.
        settings: the settings that hold: what was asked for, as it was honoured, and defaults.
        exclusive: takes one call at a time; the engine sees to it.
        cancellable: a run can be ended before it is done.
        streams: a request has any number of answers, and is asked by `Model.stream`.
        labels: what `load` was given to remember.
        chosen: which runtime was taken, and why those that were asked before were not: {"runtime", "not_taken": [{"runtime", "reason", "message"}]}.
    """

    _tend: Callable[..., str]

    def warm_up(self) -> None:
        """Run once with values of the runtime's own choice, so that the first request is not the slow one.

        Raises:
            NotOffered: the runtime does not do that.
        """
        self._tend("warm_up")

    def stats(self) -> dict[str, Any]:
        """Tell what the session uses now, in the runtime's own words; what its requests came to is `Model.statistics`.

        Raises:
            NotOffered: the runtime does not tell.
        """
        told: dict[str, Any] = json.loads(self._tend("stats"))
        return told

    def set_option(self, name: str, value: object) -> None:
        """Change an option of the loaded model; `Model.session.settings` tells it from then on.

        Raises:
            UnknownOption, InvalidOption: as at the load.
            NotOffered: the runtime changes none, or not this one.
        """
        try:
            document = json.dumps(value)
        except (TypeError, ValueError) as error:
            raise InvalidOption(f"option '{name}': expected what JSON can say: {error}") from error
        self._tend("set_option", document=(name, document))


class Model(_nnrp.Model):
    """A model that answers: loaded in this process by `nnrp.load`, or served elsewhere and found by `nnrp.connect`.

    Call it with its inputs, by position in the signature's order or by name: `model(x)`, `model(pixels=x)`. NumPy arrays, objects with
    `__dlpack__` in CPU memory, and buffers are read in place, without a copy; big-endian, strided and unaligned arrays are copied once. An
    array's type must be the signature's: nothing is cast. Lists and Python numbers take the signature's type where every value fits it. None
    leaves an optional input out. Do not write to an input before the call returns.

    The answer is a dict of NumPy arrays in the signature's order. They own their memory and may be written to. BYTES come as arrays of bytes
    objects; BF16, FP8 and four-bit integers as arrays of ml_dtypes where that package is installed, else as `nnrp.Tensor`.

    Ctrl-C ends a call that waits, here or for a server, and cancels its request; where the runtime cannot end the run, that still reads its inputs.
    Any number of threads may call at once. A call that the session is expected to answer within 50 µs keeps the interpreter lock, any other
    releases it.

    Raises:
        InvalidArgument: the inputs do not fit the signature; the subclass tells how (ShapeMismatch, DatatypeMismatch, MissingInput …).
        NnrpError: any other error of the specification.

    Example:
        >>> model = nnrp.load("double.onnx")
        >>> model(np.array([1, 2, 3], np.float32))
        {'y': array([3., 5., 7.], dtype=float32)}
    """

    __slots__ = ("_home", "inputs", "outputs")

    inputs: tuple[TensorSpec, ...]
    """What it takes, in the model's order."""
    outputs: tuple[TensorSpec, ...]
    """What it gives, in the model's order."""
    _home: Engine | Client

    def __new__(cls, home: Engine | Client, name: str, version: str | None = None) -> Self:
        """See `nnrp.load`, `nnrp.connect`, `Engine.model` and `Client.model`, which make models."""
        told = home._signature(name, version or "")
        optional = told.get("optional") or [False] * len(told["inputs"])
        inputs = tuple(_spec(one, may_miss) for one, may_miss in zip(told["inputs"], optional, strict=True))
        outputs = tuple(_spec(one) for one in told["outputs"])
        self = super().__new__(cls, home, name, told["version"], [spec[:3] for spec in inputs], [spec[:3] for spec in outputs])
        self._home, self.inputs, self.outputs = home, inputs, outputs
        return self

    def infer(
        self,
        inputs: Mapping[str, TensorLike],
        outputs: Sequence[str] | None = None,
        *,
        timeout: float | None = None,
        id: str | None = None,
        parameters: Parameters | None = None,
    ) -> Outputs:
        """Answer one request.

        Args:
            inputs: input name → value, as the class describes them.
            outputs: the names of the outputs wanted, in the order wanted; default: all.
            timeout: seconds after which nobody wants the answer.
            id: an id for the request, for logs and errors.
            parameters: request parameters (spec §4.2).

        Returns:
            Output name → array, in the order asked for.

        Raises:
            DeadlineExceeded: the timeout passed first.
            NnrpError: as a call does.
        """
        answer: Outputs = self._infer(dict(inputs), outputs, timeout, id, list((parameters or {}).items()), None)
        return answer

    async def infer_async(
        self,
        inputs: Mapping[str, TensorLike],
        outputs: Sequence[str] | None = None,
        *,
        timeout: float | None = None,
        id: str | None = None,
        parameters: Parameters | None = None,
    ) -> Outputs:
        """Answer one request without blocking the event loop; takes and gives what `infer` does.

        Cancelling the task cancels the request, and the run if the runtime can end one. The inputs are kept until the answer is there.
        """
        from nnrp.arrival import arrival

        given, said = dict(inputs), list((parameters or {}).items())
        answer: Outputs = await arrival(lambda deliver: self._infer(given, outputs, timeout, id, said, deliver))
        return answer

    def stream(
        self,
        inputs: Mapping[str, TensorLike] | None = None,
        outputs: Sequence[str] | None = None,
        *,
        timeout: float | None = None,
        id: str | None = None,
        parameters: Parameters | None = None,
        **named: TensorLike,
    ) -> Stream:
        """Begin to answer one request with all the answers that the model gives: any number where it streams, or else one.

        Args:
            inputs: input name → value, as `infer` takes them.
            outputs: the names of the outputs wanted in each answer; default: all.
            timeout: seconds after which nobody wants any more answers.
            id: an id for the request.
            parameters: request parameters.
            named: inputs, each by its name, as in `model.stream(x=x)`; those that have one of the names above go into `inputs`.

        Returns:
            An iterator of answers; leaving it cancels the request.

        Raises:
            NnrpError: what is wrong with the request, at once; what goes wrong later is raised by the iterator and ends it.

        Example:
            >>> for answer in model.stream(x=np.float32([1, 2, 3])):
            ...     print(answer["y"])
        """
        from nnrp.stream import Stream

        return Stream(self._stream({**(inputs or {}), **named}, outputs, timeout, id, list((parameters or {}).items())))

    def stream_async(
        self,
        inputs: Mapping[str, TensorLike] | None = None,
        outputs: Sequence[str] | None = None,
        *,
        timeout: float | None = None,
        id: str | None = None,
        parameters: Parameters | None = None,
        **named: TensorLike,
    ) -> AsyncStream:
        """Do as `stream` does for `async for`; not to be awaited itself."""
        from nnrp.stream import AsyncStream

        return AsyncStream(self._stream({**(inputs or {}), **named}, outputs, timeout, id, list((parameters or {}).items())))

    @property
    def engine(self) -> Engine | None:
        """The engine that holds it; None for a model behind a server."""
        from nnrp.engine import Engine

        return self._home if isinstance(self._home, Engine) else None

    @property
    def session(self) -> Session | None:
        """How it was loaded; None for a model behind a server."""
        engine = self.engine
        if engine is None:
            return None
        session = Session(**json.loads(engine._tell("session", self.name, self.version))["session"])
        session._tend = lambda verb, document=None: engine._tend(verb, self.name, self.version, document)
        return session

    def metadata(self) -> dict[str, Any]:
        """Tell the model metadata of the Open Inference Protocol: name, versions, platform, inputs, outputs."""
        return self._home._metadata(self.name, self.version)

    def statistics(self) -> dict[str, Any]:
        """Tell what its requests came to: counts, nanoseconds, quantiles, failures by reason.

        Raises:
            NotOffered: the model is behind a server, whose statistics are its own.
        """
        if self.engine is None:
            raise NotOffered("statistics: expected a model in this process, got one behind a server", model=self.name)
        told: dict[str, Any] = json.loads(self.engine._tell("statistics", self.name, self.version))
        return told

    def __repr__(self) -> str:
        from nnrp.runtimes.package import plain

        takes, gives = (", ".join(f"{spec.name}: {spec.datatype}{list(spec.shape)}" for spec in side) for side in (self.inputs, self.outputs))
        version = f" version {self.version}" if self.version else ""
        return plain(f"<nnrp.Model {self.name}{version} ({takes}) → ({gives}), {'remote' if self.engine is None else 'in process'}>")


def _spec(told: Mapping[str, Any], optional: bool = False) -> TensorSpec:
    # Protobuf's JSON writes whole numbers as text.
    return TensorSpec(told["name"], told["datatype"], tuple(int(dim) for dim in told["shape"]), optional)
