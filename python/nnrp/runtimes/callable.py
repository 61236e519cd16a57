"""The runtime ``callable``: a Python function as a model."""

from __future__ import annotations

import inspect
import itertools
import platform
import sys
from collections.abc import AsyncGenerator, Coroutine, Generator, Iterator, Mapping, Sequence
from collections.abc import Callable as Function
from contextlib import closing, contextmanager
from importlib import import_module
from typing import Any, TypeAlias

from nnrp.errors import InvalidModel, InvalidOption, NotOffered, WrongState
from nnrp.runtimes.contract import Control, ModelSpec, Session, Streaming, on_cpu
from nnrp.runtimes.loop import END, Loop, step
from nnrp.tensor import NAMES

Declared: TypeAlias = Mapping[str, tuple[str, Sequence[int] | None]]

#: Functions that are about to be loaded, by the name that their options have for them meanwhile.
_held: dict[str, Function[..., Any]] = {}
_numbers = itertools.count()

#: How many runs of an async function go on at once.
ASYNC_WORKERS = 64

_TENSORS = {
    "type": "object",
    "additionalProperties": {
        "type": "array",
        "prefixItems": [{"type": "string"}, {"type": ["array", "null"], "items": {"type": "integer", "minimum": -1}}],
        "minItems": 2,
        "maxItems": 2,
    },
}


class Callable:
    """Loads functions: `nnrp.load(function, inputs=…, outputs=…)`, or by the path ``module:function``."""

    name = "callable"
    formats = ()

    def info(self) -> dict[str, Any]:
        properties = {
            "function": {"type": "string"},
            "inputs": _TENSORS,
            "outputs": _TENSORS | {"minProperties": 1},
            "exclusive": {"type": "boolean"},
            "workers": {"type": "integer", "minimum": 1},
        }
        schema = {"type": "object", "properties": properties, "required": ["inputs", "outputs"], "additionalProperties": False}
        return {"version": platform.python_version(), "devices": ["cpu"], "options": schema}

    def load(self, spec: ModelSpec) -> Session | Streaming:
        on_cpu(self.name, spec)
        _check_datatypes(spec.options)
        function = _held.get(spec.options.get("function", "")) or _import(spec.path)
        target = function if inspect.isroutine(function) else type(function).__call__
        kinds: list[tuple[Function[[Any], bool], type[Any]]] = [
            (inspect.isgeneratorfunction, Stream),
            (inspect.isasyncgenfunction, AsyncStream),
            (inspect.iscoroutinefunction, Async),
        ]
        kind: type[Any] = next((kind for is_such, kind in kinds if is_such(target)), Plain)
        loaded: Session | Streaming = kind(function, spec.options)
        return loaded


@contextmanager
def described(
    function: Function[..., Any], name: str | None, version: str | None, runtime: str | Sequence[str] | None, further: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Describe a function as a model, and keep it until it is loaded."""
    if runtime not in (None, "callable") and list(runtime or ()) != ["callable"]:
        raise InvalidOption(f"runtime: expected 'callable' for a function, got {runtime!r:.96}")
    called = getattr(function, "__name__", type(function).__name__)
    path = called if further.get("isolation", "none") == "none" else _place(function)
    token = f"function {next(_numbers)}"
    declared = {key: {one: list(spec) for one, spec in (further.pop(key, None) or {}).items()} for key in ("inputs", "outputs")}
    options = {**further.pop("options"), **declared, "function": token}
    _held[token] = function
    try:
        yield {"name": name or called, "version": version or "1", "path": path, "runtime": "callable", "options": options, **further}
    finally:
        del _held[token]


def _check_datatypes(options: Mapping[str, Any]) -> None:
    for side in ("inputs", "outputs"):
        for name, (datatype, _) in options[side].items():
            if datatype not in NAMES:
                path = f"options.{side}['{name[:96]}'][0]"
                raise InvalidOption(f"{path}: expected a datatype such as FP32, got '{datatype[:96]}'", path=path, got=datatype[:96])


def _place(function: Function[..., Any]) -> str:
    """Tell where another process finds a function."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if module in (None, "__main__") or getattr(sys.modules.get(module), name, None) is not function:
        raise NotOffered(f"isolation 'process': expected a function that a module has by its name, for another process to import; got {function!r:.96}")
    return f"{module}:{name}"


def _import(path: str) -> Function[..., Any]:
    module, _, name = path.partition(":")
    if not (module and name):
        raise InvalidModel(f"callable: expected a function, or module:function, got '{path[:96]}'")
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InvalidModel(f"callable: there is no function '{name[:96]}' in a module '{module[:96]}': {type(error).__name__}") from error
    if not callable(function):
        raise InvalidModel(f"callable: expected a function, got '{path[:96]}' of type {type(function).__name__}")
    found: Function[..., Any] = function
    return found


class Described:
    """A function, called with the inputs by name; or in order, where its parameters have no names or others."""

    cancellable = False

    def __init__(self, function: Function[..., Any], options: Mapping[str, Any]) -> None:
        self.inputs = [(name, *spec) for name, spec in options["inputs"].items()]
        self.outputs = [(name, *spec) for name, spec in options["outputs"].items()]
        self.exclusive: bool = options.get("exclusive", True)
        self.workers: int | None = options.get("workers")
        self.settings: dict[str, Any] = {"precision": "strict", "exclusive": self.exclusive}
        self._function = function
        self._named = _takes_names(function, list(options["inputs"]))
        self._names = list(options["outputs"])

    def _pick(self, answer: Any, outputs: Sequence[str]) -> Any:
        """What was asked for, where the function gives all it has in a row."""
        if len(outputs) != len(self._names) and isinstance(answer, (list, tuple)) and len(answer) == len(self._names):
            return dict(zip(self._names, answer, strict=True))
        return answer


class Plain(Described):
    """A function that gives one answer."""

    def __init__(self, function: Function[..., Any], options: Mapping[str, Any]) -> None:
        super().__init__(function, options)
        self.run = self._once()

    def _once(self) -> Function[[dict[str, Any], Sequence[str], Control], Any]:
        """Make the run, which looks nothing up that stays the same: that would cost more than the rest of it."""
        function, pick, named, count = self._function, self._pick, self._named, len(self._names)

        def run(inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Any:
            answer = function(**inputs) if named else function(*inputs.values())
            return answer if len(outputs) == count else pick(answer, outputs)

        return run


class Stream(Described):
    """A generator function: each answer as it is yielded."""

    cancellable = True

    def stream(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Generator[Any, None, None]:
        answers: Generator[Any, None, None] = self._function(**inputs) if self._named else self._function(*inputs.values())
        return answers if len(outputs) == len(self._names) else self._picked(answers, outputs)

    def _picked(self, answers: Generator[Any, None, None], outputs: Sequence[str]) -> Generator[Any, None, None]:
        with closing(answers):
            for answer in answers:
                yield self._pick(answer, outputs)


class Looped(Described):
    """What runs on an event loop of its own."""

    cancellable = True

    def __init__(self, function: Function[..., Any], options: Mapping[str, Any]) -> None:
        super().__init__(function, {"exclusive": False} | dict(options))
        self.workers = options.get("workers", ASYNC_WORKERS)
        self._loop = Loop("nnrp-callable")
        self.close = self._loop.close

    def _finish(self, work: Coroutine[Any, Any, Any], control: Control) -> Any:
        if self._loop.is_here():
            work.close()
            raise WrongState("callable: an async function called its own model and would wait for ever; await the function itself")
        return self._loop.finish(work, control)


class Async(Looped):
    """An async function that gives one answer."""

    def run(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Any:
        answer = self._function(**inputs) if self._named else self._function(*inputs.values())
        return self._pick(self._finish(answer, control), outputs)


class AsyncStream(Looped):
    """An async generator function: each answer as it is yielded."""

    def stream(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Generator[Any, None, None]:
        answers = self._function(**inputs) if self._named else self._function(*inputs.values())
        try:
            while (answer := self._finish(step(answers), control)) is not END:
                yield self._pick(answer, outputs)
        finally:
            self._finish(_leave(answers), Control())


async def _leave(answers: AsyncGenerator[Any, None]) -> None:
    await answers.aclose()


def _takes_names(function: Function[..., Any], names: list[str]) -> bool:
    try:
        signature = inspect.signature(function)
    except ValueError:
        return False
    try:
        signature.bind(**dict.fromkeys(names))
        return True
    except TypeError:
        pass
    try:
        signature.bind(*names)
        return False
    except TypeError as error:
        raise InvalidOption(f"callable: the function takes {signature}, and the inputs are {', '.join(names) or 'none'}", inputs=names) from error
