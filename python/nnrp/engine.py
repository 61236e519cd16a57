"""The engine of this process: loading models and answering for them."""

from __future__ import annotations

import atexit
import json
import os
import re
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, Unpack

from nnrp import _nnrp, runtimes
from nnrp.errors import AlreadyExists, InvalidModel, InvalidOption, NoRuntime, NotOffered, RuntimeNotInstalled, WrongState
from nnrp.model import Model, Parameters, TensorLike

if TYPE_CHECKING:
    from nnrp.model import Outputs
    from nnrp.repository import Source
    from nnrp.runtimes.callable import Declared
    from nnrp.runtimes.contract import Overrides, Runtime

StrPath = str | os.PathLike[str]
#: The engines that Python runs in. Their threads end before the interpreter does: one that came back later would take the process down.
_ending: weakref.WeakSet[Engine] = weakref.WeakSet()
#: How many seconds runs that go on get then.
GRACE = 1.0
Precision = Literal["strict", "bf16", "fp16", "int8", "fast"]
Isolation = Literal["none", "process"]
Loadable = StrPath | Callable[..., Any]


class Described(TypedDict, total=False):
    """What else there is to say of a model that is loaded.

    Attributes:
        device: what runs it: "cpu", "cuda:0", or the runtime's own name for it. Default: what the options say, or the CPU.
        precision: how exact the numbers must be; "strict", the default, is the model's own types.
        symbols: "equal", the default: inputs that share the name of an open dimension must agree in its size. "free": they need not, for files whose
            names are wrong.
        format: what the file must be, such as "onnx"; default: whatever it is.
        labels: texts by name, to remember.
        isolation: "process" gives the model a process of its own, whose crash is RuntimeCrashed for the requests that it held and a restart;
            "none", the default, runs it in this one.
        inputs: what callers see in place of the inputs that the runtime tells: by its names or by position, a name, or {name, shape, layout, as …}
            (docs/guide/describe.md). Of a function, what it takes: name → (datatype, shape), such as {"x": ("FP32", [-1, 16])}.
        outputs: likewise.
    """

    device: str
    precision: Precision
    symbols: Literal["equal", "free"]
    format: str
    labels: Mapping[str, str]
    isolation: Isolation
    inputs: Declared | Overrides
    outputs: Declared | Overrides


class Engine(_nnrp.Engine):
    """Holds models and answers requests for them.

    Args:
        queue_capacity: most requests that may wait for one model; one more is answered QueueFull. Default: 1024.
        workers: most threads that run one model's queue. Default: one a core.
        inline_limit_us: a session whose mean run is no longer, in microseconds, runs on the thread that has the request. Default: 500.
        plugins: runtimes in shared libraries that implement `nnrp_runtime_v1`, by their files; those in the folder that NNRP_PLUGINS names are
            opened too. One of these files that cannot be opened is RuntimeNotInstalled; one of the folder tells so in `runtimes()`.
        load_timeout: seconds that the load of a model in a process of its own may take; then the process is ended and the load is LoadFailed.
        stop_grace: seconds that a run in such a process may go on after nobody waits for it any more; then a process that no other run needs is
            ended and started again.
        max_output_bytes: most bytes of all outputs of one run in such a process; more is RunFailed. Default: 1 GiB.

    Example:
        >>> engine = nnrp.Engine()
        >>> model = engine.load("double.onnx")
    """

    __slots__ = ()

    def __new__(
        cls,
        *,
        queue_capacity: int | None = None,
        workers: int | None = None,
        inline_limit_us: int | None = None,
        plugins: Sequence[StrPath] = (),
        load_timeout: float = 300.0,
        stop_grace: float = 10.0,
        max_output_bytes: int = 1 << 30,
    ) -> Self:
        words, environment = _own_process(plugins)
        if not 0 < max_output_bytes <= sys.maxsize:
            raise InvalidOption(f"max_output_bytes: expected a number from 1, got {max_output_bytes}", setting="max_output_bytes")
        isolation = (words, environment, _seconds("load_timeout", load_timeout), _seconds("stop_grace", stop_grace), max_output_bytes)
        return super().__new__(cls, runtimes.libraries(), plugins, queue_capacity, workers, inline_limit_us, isolation)

    def load(
        self,
        path: Loadable,
        name: str | None = None,
        version: str | None = None,
        runtime: str | Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
        **described: Unpack[Described],
    ) -> Model:
        """Load one model version and answer for it from then on.

        Args:
            path: the model file or saved model; or a folder VERSION/model.onnx with one version, or with the one that `version` names; or a
                description, `model.toml` (docs/guide/describe.md), over which wins what is said here; or a function, with `inputs` and `outputs`
                that say what it takes and gives; or the URL of a model behind another server;
                or a source elsewhere, `https:`, `s3:`, `gs:`, `az:`, `hf:` or `oci:` (docs/guide/sources.md).
            name: what callers say; default: the file's name without its suffix, or the folder's.
            version: default "1".
            runtime: what executes it, or several in the order wanted, of which the first that can is taken. Default: the one that the
                file's format was made for, such as "litert" for TFLite, or else any that reads it. `model.session.chosen` tells which it was, and
                what the others said.
            options: the runtime's own options, verbatim; `model.session.settings` tells what came of them.
            described: device, precision, symbols, format, labels, isolation, inputs and outputs, as `Described` has them.

        Raises:
            FileNotFound, InvalidModel, ModelExists, UnknownOption, InvalidOption, RuntimeNotInstalled, DeviceNotFound, NoRuntime, NotOffered,
            LoadFailed.
        """
        from nnrp import repository

        if callable(path):
            from nnrp.runtimes import callable as functions

            self._bring(["callable"])
            with functions.described(path, name, version, runtime, {"options": options or {}, **described}) as spec:
                return self.model(*self._load_named(_json(spec)))
        said = {"runtime": runtime, "options": options, **described}
        return self.load_source(repository.only(os.fsdecode(path), name, version, _names(runtime, "") if runtime else ()), **said)

    def load_source(self, source: Source, **said: Any) -> Model:
        """Load what `nnrp.repository.find` found; what is said here wins over what its description says."""
        from nnrp.repository import description, parts

        spec = {"name": source.name, "version": source.version, "path": str(source.path), **source.said}
        spec |= {key: value for key, value in said.items() if value is not None}
        description.check_options(spec.get("options"))
        if spec.get("isolation") == "process":
            # A process that ends loads the file anew, whatever it is by then.
            spec["digests"] = parts.each(source.digests)
        spec["runtime"] = wanted = _names(spec.get("runtime"), spec["path"])
        own = None if wanted else _nnrp.own_runtime(spec["path"])
        self._bring([own] if own else wanted if isinstance(wanted, list) else [])
        try:
            return self.model(*self._load_with(wanted, _json(spec)))
        except InvalidModel as error:
            if wanted or not spec["path"].endswith(".py") or error.details.get("runtime") == "triton-python":
                raise
            hint = f"{error.message}; a file in Python is one with a class TritonPythonModel, and runtime 'triton-python' says what is wrong with it"
            raise InvalidModel(hint, **error.details) from error

    def _load_with(self, wanted: Any, description: str) -> tuple[str, str]:
        try:
            return self._load_named(description)
        except (NoRuntime, NotOffered, RuntimeNotInstalled) as error:
            # Only now is it worth looking which runtimes other packages bring.
            from nnrp.runtimes import entry

            known = list(dict.fromkeys([*json.loads(self._tell("names")), *entry.names()]))
            if isinstance(error, RuntimeNotInstalled) and isinstance(wanted, list) and len(wanted) == 1 and wanted[0] not in known:
                raise RuntimeNotInstalled(_unknown(wanted[0], known), **error.details) from None
            if isinstance(error, NoRuntime):
                for one in (tried for tried in error.details.get("tried", ()) if tried["runtime"] not in known):
                    was, one["message"] = one["message"], _unknown(one["runtime"], known)
                    error.message = error.message.replace(was, one["message"])
                error.args = (error.message,)
            if wanted or not self._bring(entry.names()):
                raise
        return self._load(description)

    def _load_named(self, description: str) -> tuple[str, str]:
        try:
            return self._load(description)
        except InvalidOption as error:
            if error.details.get("field") != "name":
                raise
            # It is the file's or the function's, mostly.
            raise InvalidOption(f"{error.message}; give the model another: name=, or NAME=PATH on a command line", **error.details) from None

    def add_runtime(self, runtime: Runtime) -> None:
        """Load also with this runtime from now on, after those that are there; one of the same name that was added before is replaced.

        Raises:
            AlreadyExists: the name is that of a runtime that comes with this package.
        """
        from nnrp.runtimes import entry

        _name_is_good(runtime.name)
        if entry.is_taken(runtime):
            raise AlreadyExists(f"runtime name: '{runtime.name}' is that of a runtime that comes with NNRP; expected another", runtime=runtime.name)
        _ending.add(self)
        attach = getattr(runtime, "attach", None)
        if attach is not None:
            attach(self)
        self._add_runtime(runtime.name, runtime)

    def _bring(self, names: Iterable[str]) -> bool:
        """Add the runtimes of those names that are not here yet and that an installed package brings."""
        known = json.loads(self._tell("names"))
        missing = [name for name in names if name not in known]
        if missing:
            from nnrp.runtimes import entry

            made = [runtime for name in missing if (runtime := entry.make(name)) is not None]
            for runtime in made:
                self.add_runtime(runtime)
            return bool(made)
        return False

    def unload(self, name: str, version: str | None = None) -> None:
        """Answer for a version no longer, or for none of a model's when `version` is left out. What waits or runs is still answered."""
        self._unload(name, version or "")

    def model(self, name: str, version: str | None = None) -> Model:
        """Give a loaded model; without a version, the one that is the latest now."""
        return Model(self, name, version)

    def models(self) -> list[Model]:
        """List every loaded model version, by name and then by version."""
        return [self.model(name, version) for name, version in self._loaded()]

    def infer(
        self,
        name: str,
        inputs: Mapping[str, TensorLike],
        outputs: Sequence[str] | None = None,
        *,
        version: str | None = None,
        timeout: float | None = None,
        id: str | None = None,
        parameters: Parameters | None = None,
    ) -> Outputs:
        """Answer one request for a model by name, as `Model.infer` does; without a version, by the latest."""
        # Not a whole Model, which costs several times what a quick answer does: it asks for all that people want to know.
        model: Any = _nnrp.Model(self, name, version or "", (), ())
        return Model.infer(model, inputs, outputs, timeout=timeout, id=id, parameters=parameters)

    def runtimes(self) -> list[dict[str, Any]]:
        """Tell what each runtime is and offers on this machine: name, version, formats, devices, options; and `error` where it cannot be used.

        First those that the engine has, in its order, then those that installed packages bring.
        """
        from nnrp.runtimes import entry

        told: list[dict[str, Any]] = json.loads(self._tell("runtimes"))
        known = {runtime["name"] for runtime in told}
        return told + [entry.tell(name) for name in entry.names() if name not in known]

    def events(self, timeout: float | None = None) -> Iterator[dict[str, Any]]:
        """Tell what becomes of the processes of isolated models from now on, each as it comes.

        Args:
            timeout: seconds without one after which there are no more; default: there are more until the engine is drained.

        Returns:
            Dictionaries: `event` ("ended" or "restarted"), `model`, `version`, `number` (one more each time; a gap means that some were missed),
            `time` (seconds since 1970); of an end `exit` and `again_ms`, of a restart `id` and `restarts`.
        """
        latest, _ = self._events(None, timedelta(0))
        return self._events_after(latest, timeout)

    def _events_after(self, latest: int, timeout: float | None) -> Iterator[dict[str, Any]]:
        pause, waited = 0.1, 0.0
        while self.ready and (timeout is None or waited < timeout):
            # Not for longer, so that signals are heard.
            latest, told = self._events(latest, timedelta(seconds=pause))
            events = json.loads(told)
            waited = 0.0 if events else waited + pause
            yield from events

    def _metadata(self, name: str, version: str) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self._tell("metadata", name, version))
        return told

    def _signature(self, name: str, version: str) -> dict[str, Any]:
        session: dict[str, Any] = json.loads(self._tell("session", name, version))
        return self._metadata(name, session["version"]) | session


def load(
    path: Loadable,
    name: str | None = None,
    *,
    version: str | None = None,
    runtime: str | Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    **further: Any,
) -> Model:
    """Load a model into this process, in an engine of its own.

    Args:
        path: the model file, its folder, a function or a URL, as `Engine.load` takes it.
        name: what the model is called; default: the file's name without its suffix.
        version: default "1".
        runtime: what executes it, or several in the order wanted, as `Engine.load` takes it.
        options: the runtime's own options, verbatim; `model.session.settings` tells what came of them.
        further: device, precision, symbols, format, labels, isolation, inputs and outputs, as `Engine.load` takes them; and what `Engine` takes.

    Returns:
        A Model, to be called with its inputs. It is freed with its last reference.

    Raises:
        FileNotFound, InvalidModel, UnknownOption, InvalidOption, RuntimeNotInstalled, DeviceNotFound, NoRuntime, LoadFailed.

    Example:
        >>> model = nnrp.load("double.onnx", options={"intra_op_num_threads": 1})
        >>> model(np.array([1, 2, 3], np.float32))
        {'y': array([3., 5., 7.], dtype=float32)}
    """
    described: Any = {key: further.pop(key) for key in Described.__annotations__ if key in further}
    return Engine(**further).load(path, name, version, runtime, options, **described)


def inspect(path: StrPath) -> dict[str, Any]:
    """Tell what a model file is and needs, without loading it: format, signature, operator sets, operators, sizes.

    Raises:
        FileNotFound, InvalidModel, NotOffered.
    """
    told: dict[str, Any] = json.loads(_nnrp.inspect(path))
    if told["format"] == "gguf":
        from nnrp.runtimes import gguf

        told |= gguf.facts(path)
    return told


@atexit.register
def _end() -> None:
    if going := sys.modules.get("nnrp.stream"):
        going.end_all()
    for engine in list(_ending):
        # What a fork inherits is not its own to end.
        with suppress(WrongState):
            engine._close(timedelta(seconds=GRACE))
    # Those of engines that are gone already may still let go of what they had.
    _nnrp.wait_for_threads(timedelta(seconds=GRACE))
    if loops := sys.modules.get("nnrp.runtimes.loop"):
        loops.end_all()


def _own_process(plugins: Sequence[StrPath]) -> tuple[list[str], list[tuple[str, str]]]:
    """Tell how a process is started that hosts a model, and its environment: the same packages as here. Not where nobody knows this Python."""
    if not sys.executable:
        return [], []
    places = os.pathsep.join(str(Path(place).absolute()) for place in sys.path)
    words = [sys.executable, "-P", "-m", "nnrp.runtimes.isolated", json.dumps([str(Path(plugin).absolute()) for plugin in plugins])]
    return words, [("PYTHONPATH", places)]


def _seconds(name: str, value: float) -> timedelta:
    if not 0 <= value < 1e9:
        raise InvalidOption(f"{name}: expected seconds from 0, got {value!r:.96}")
    return timedelta(seconds=value)


def _names(runtime: Any, path: str) -> Any:
    """List the runtimes wanted; none where any will do. A URL names its own. What names none is left for the engine to refuse."""
    if runtime is None:
        return ["remote"] if "://" in path else []
    if isinstance(runtime, str):
        return [name.strip() for name in runtime.split(",")]
    return list(runtime) if isinstance(runtime, Sequence) and all(isinstance(name, str) for name in runtime) else runtime


def _unknown(name: str, known: Sequence[str]) -> str:
    return f"runtime '{name:.96}' is not installed: expected one of {', '.join(known)}"


def _name_is_good(name: object) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[\w][\w.-]{0,63}", name):
        raise InvalidOption(f"runtime name: expected 1 to 64 letters, digits, '.', '_' or '-', not starting with '.', got {name!r:.96}")


def _json(spec: dict[str, Any]) -> str:
    try:
        return json.dumps(spec, default=_plain, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidOption(f"model description: expected what JSON can say: {error}") from error
    except RecursionError:
        raise InvalidOption("model description: expected what is not nested so deeply") from None


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"of type {type(value).__name__}")
