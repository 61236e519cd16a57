"""The runtime ``litert``: TensorFlow Lite models by LiteRT's C library where their shapes are fixed, or else by its interpreter."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from nnrp import _nnrp
from nnrp.errors import InvalidModel, InvalidOption, LoadFailed, NnrpError, NotOffered, RunFailed, RuntimeNotInstalled
from nnrp.runtimes.contract import Control, ModelSpec, Overrides, fixed, on_cpu
from nnrp.runtimes.cores import MOST_THREADS, cores
from nnrp.runtimes.litert_file import facts, settled

LOG = logging.getLogger("nnrp.runtimes")
#: Takes arrays by name and the names of the outputs wanted, and gives these.
Run: TypeAlias = Callable[[Mapping[str, Any], Sequence[str]], Any]
#: Name, datatype, and shape, -1 for any size; None for any rank.
Tensor: TypeAlias = tuple[str, str, list[int] | None]

#: NumPy's name of an element type → ours.
DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "bytes": "BYTES",
}
#: The versions whose C functions are known, from the first to before the second: what they take changes, and the library has no call that tells its version.
KNOWN = ((2, 3), (2, 4))
#: The C library, where pip put it; those of other systems have other names, and were not tried.
LIBRARY = "libLiteRt.so"
#: Most dimensions of a tensor of the C library.
MOST_DIMENSIONS = 8
#: Most bytes of all inputs and outputs of a model that is tried at its load.
MOST_BYTES = 64 << 20
#: Bytes from which on an input is written where the interpreter has it: what it sets by itself it copies twice, because inputs are read-only.
LARGE = 4096
#: Where in LiteRT's sources something went wrong.
_PLACE = re.compile(r"[\w./-]+\.(?:cc|h|cpp):?\d* ?")


class LiteRt:
    """Loads `.tflite` files."""

    name = "litert"
    formats = ("tflite",)

    def info(self) -> dict[str, Any]:
        properties = {
            "num_threads": {
                "type": "integer",
                "minimum": 1,
                "maximum": MOST_THREADS,
                "default": cores(),
                "description": "threads of each run; the default is the physical cores",
            },
            "signature": {"type": "string", "description": "which of the file's signatures to run; needed where it has several"},
            "api": {
                "enum": ["auto", "interpreter"],
                "default": "auto",
                "description": "auto: the C library where it answers as the interpreter; interpreter: never the C library",
            },
        }
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        return {"version": _litert().__version__, "formats": self.formats, "devices": ["cpu"], "options": schema}

    def load(self, spec: ModelSpec) -> Interpreters | Compiled:
        on_cpu(self.name, spec)
        _litert()
        from ai_edge_litert.interpreter import Interpreter

        threads = spec.options.get("num_threads", cores())
        # In memory, because a mapped file that somebody shortens ends the process. All interpreters share it.
        make = partial(Interpreter, model_content=Path(spec.path).read_bytes(), num_threads=threads)
        try:
            first = make()
            name = _signature(list(first.get_signature_list()), spec.options.get("signature"))
            session = Interpreters(first, make, name, threads)
            return (_compiled(session, make.keywords, spec.inputs) if spec.options.get("api", "auto") == "auto" else None) or session
        except NnrpError:
            raise
        except ValueError as error:
            raise InvalidModel(f"model file: LiteRT cannot read it: {said(error)}", runtime=self.name) from error
        except RuntimeError as error:
            raise LoadFailed(f"runtime litert: {said(error)}", runtime=self.name) from error


def _litert() -> Any:
    try:
        import ai_edge_litert
    except ImportError as error:
        raise RuntimeNotInstalled("runtime 'litert' is not installed: pip install nnrp[litert]", runtime="litert") from error
    return ai_edge_litert


def _signature(there: list[str], wanted: str | None) -> str | None:
    """The signature to run; None where the file has none."""
    if wanted is None and len(there) < 2:
        return there[0] if there else None
    if wanted in there:
        return wanted
    got = "none" if wanted is None else f"'{wanted[:96]}'"
    listed = ", ".join(f"'{one[:96]}'" for one in there[:16]) or "none: leave the option out"
    raise InvalidOption(f"option 'signature': expected one that the model has, got {got}; it has {listed}", signatures=there[:16])


def said(error: BaseException) -> str:
    """What LiteRT says, without the places in its sources."""
    return " ".join(_PLACE.sub("", str(error)).split())[:512]


class Interpreters:
    """A model, and an interpreter for each run that goes on at the same time: one that two threads use gives wrong answers."""

    cancellable = False

    def __init__(self, first: Any, make: partial[Any], signature: str | None, threads: int) -> None:
        inputs, outputs = _details(first, signature)
        self.graph, ranked, self.exclusive, self.plain, divides = facts(make.keywords["model_content"], signature)
        self.inputs = [_spec(name, one, ranked) for name, one in inputs.items()]
        self.outputs = [_spec(name, one, ranked) for name, one in outputs.items()]
        self.places = {name: one["index"] for name, one in [*inputs.items(), *outputs.items()]}
        # Together no more than twice the threads that there are cores.
        self.workers = 1 if self.exclusive else max(2, 2 * cores() // threads)
        quantized = {name: told for name, one in {**inputs, **outputs}.items() if (told := _quantization(one))}
        self.settings: dict[str, Any] = {"precision": "strict", "threads": threads, "signature": signature, "stateful": self.exclusive, "api": "interpreter"}
        self.settings |= {"quantization": quantized} if quantized else {}
        self.settings |= {"values_checked": False} if divides else {}
        # What others call them who do not look at signatures.
        renamed = {name: one["name"] for name, one in {**inputs, **outputs}.items() if one["name"] != name}
        self.settings |= {"tensors": renamed} if renamed else {}
        runner = partial(_runner, signature=signature, graph=self.graph, inputs=inputs, outputs=outputs)
        is_open = any(-1 in (shape or ()) for _, _, shape in self.inputs)
        self._idle = [runner(first)] if _allocated(first, is_open) else []
        self.run = _pooled(self._idle, lambda: runner(make()))

    def close(self) -> None:
        self._idle.clear()


@dataclass(frozen=True)
class Compiled:
    """A model that the C library runs, without Python."""

    inputs: Sequence[Any]
    outputs: Sequence[Any]
    workers: int
    settings: Mapping[str, Any]
    run: object
    """What the engine takes the runs from; nothing that Python can call."""

    exclusive = cancellable = False


def _compiled(session: Interpreters, made: Mapping[str, Any], described: Overrides) -> Compiled | None:
    """The same by the C library, where its version is known, the file or its description fixes all shapes, and it gives, bit by bit, what the interpreter
    gives: it would give garbage, and not say so, where a run decides what an output's shape is, and where an output is an input.
    """
    library = _library()
    sizes = fixed(described, {name: shape for name, _, shape in session.inputs})
    takes = [_sized(one, sizes) for one in session.inputs]
    if library is None or session.exclusive or not session.plain or not _small([*takes, *(() if sizes else session.outputs)]):
        return None
    names = [name for name, _, _ in session.outputs]
    try:
        inputs = _example(takes, session.settings.get("quantization", {}))
        answer = session.run(inputs, names, Control())
        # A signature's runner gives a mapping, the others a list, or the one array.
        listed = [answer[name] for name in names] if isinstance(answer, Mapping) else answer if isinstance(answer, list) else [answer]
        outputs = list(zip(names, listed, strict=True))
        content = _settled(session, made["model_content"], {**inputs, **dict(outputs)}) if sizes else made["model_content"]
        if content is None:
            return None
        run = _nnrp.compile_litert(library, content, session.settings["signature"], made["num_threads"], list(inputs.items()), outputs)
    except NnrpError as error:
        LOG.info("litert: the interpreter runs this model: %s", error.message)
        return None
    session.close()
    return Compiled(session.inputs, session.outputs, session.workers, {**session.settings, "api": "c"}, run)


def _sized(tensor: Tensor, sizes: Mapping[str, Sequence[int]]) -> Tensor:
    """With the sizes of a description where the file has none."""
    name, datatype, shape = tensor
    return name, datatype, shape and [size if dim == -1 else dim for dim, size in zip(shape, sizes.get(name, shape), strict=True)]


def _settled(session: Interpreters, content: bytes, arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes | None:
    """The file with the shapes of one run, where these can be tried."""
    told = [*session.inputs, *session.outputs]
    if not _small([(name, datatype, list(arrays[name].shape)) for name, datatype, _ in told]):
        return None
    return settled(content, session.graph, {session.places[name]: arrays[name].shape for name, _, shape in told if shape is None or -1 in shape})


def _library() -> Path | None:
    package = _litert()
    version = tuple(int(part) for part in re.findall(r"\d+", package.__version__)[:2])
    library = Path(package.__file__).parent / LIBRARY
    return library if KNOWN[0] <= version < KNOWN[1] and library.is_file() else None


def _small(tensors: Sequence[Tensor]) -> bool:
    """Whether all are of a fixed size, and small enough to be tried."""
    byte_size = 0
    for _, datatype, shape in tensors:
        if datatype == "BYTES" or shape is None or len(shape) > MOST_DIMENSIONS or min(shape, default=0) < 0 or max(shape, default=0) > MOST_BYTES:
            return False
        byte_size += math.prod(shape) * _numpy(datatype).itemsize
    return byte_size <= MOST_BYTES


def _numpy(datatype: str) -> np.dtype[Any]:
    return np.dtype(next(theirs for theirs, ours in DATATYPES.items() if ours == datatype))


def _example(inputs: Sequence[Tensor], scaled: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs that tell models apart, and are no wrong index of anything: noise where there are fractions or a scale, or else zeros."""
    random = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for name, datatype, dims in inputs:
        kind, shape = _numpy(datatype), tuple(dims or ())
        if kind.kind == "f":
            found[name] = np.asarray(random.standard_normal(shape, np.float32), kind)
        elif name in scaled and kind.kind in "iu":
            found[name] = np.asarray(random.integers(np.iinfo(kind).min, np.iinfo(kind).max, shape, kind, endpoint=True), kind)
        else:
            found[name] = np.zeros(shape, kind)
    return found


def _allocated(first: Any, is_open: bool) -> bool:
    """Prepare the model, so that what it lacks is told now; not every one can be prepared before it knows the shapes."""
    try:
        first.allocate_tensors()
    except RuntimeError as error:
        if not is_open or "unresolved" in str(error):
            raise
        return False
    return True


def _pooled(idle: list[Run], make: Callable[[], Run]) -> Callable[[Mapping[str, Any], Sequence[str], Control], Any]:
    """Give what runs each call by one that nobody else uses; a function, not a method, because that costs a small model a tenth."""
    take, put = idle.pop, idle.append

    def run(inputs: Mapping[str, Any], outputs: Sequence[str], _: Control) -> Any:
        try:
            one = take()
        except IndexError:
            one = make()
        try:
            answer = one(inputs, outputs)
        except (RuntimeError, ValueError) as error:
            # The interpreter goes with it: what state a failed run left it in, nobody says.
            raise RunFailed(f"runtime litert: {said(error)}", runtime="litert") from error
        put(one)
        return answer

    return run


def _details(interpreter: Any, signature: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is known of the inputs and outputs, by name."""
    if signature is not None:
        runner = interpreter.get_signature_runner(signature)
        return runner.get_input_details(), runner.get_output_details()
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    return {one["name"]: one for one in inputs}, {one["name"]: one for one in outputs}


def _runner(interpreter: Any, signature: str | None, graph: int, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Run:
    """What runs a model; it gives copies, because the interpreter keeps its own memory."""
    if graph:
        runner = interpreter.get_signature_runner(signature)
        return lambda arrays, _: runner(**arrays)
    into, found = ({name: one["index"] for name, one in some.items()} for some in (inputs, outputs))
    puts = {name: _putter(interpreter, one) for name, one in inputs.items()}
    invoke, get_tensor = interpreter.invoke, interpreter.get_tensor
    shapes: list[tuple[int, ...]] = []

    def fit(arrays: Mapping[str, Any]) -> None:
        for name, array in arrays.items():
            interpreter.resize_tensor_input(into[name], array.shape)
        interpreter.allocate_tensors()
        shapes[:] = [arrays[name].shape for name in into]

    def run(arrays: Mapping[str, Any], wanted: Sequence[str]) -> list[Any]:
        if [arrays[name].shape for name in into] != shapes:
            fit(arrays)
        for name, put in puts.items():
            put(arrays[name])
        invoke()
        return [get_tensor(found[name]) for name in wanted]

    if len(into) != 1 or len(found) != 1:
        return run
    ((name, put),), (result,) = puts.items(), found.values()

    def run_one(arrays: Mapping[str, Any], _: Sequence[str]) -> Any:
        array = arrays[name]
        if [array.shape] != shapes:
            fit(arrays)
        put(array)
        invoke()
        return get_tensor(result)

    return run_one


def _putter(interpreter: Any, details: Mapping[str, Any]) -> Callable[[Any], Any]:
    """What gives the interpreter an input."""
    index, kind, shape = details["index"], np.dtype(details["dtype"]), _shape(details)
    put = partial(interpreter.set_tensor, index)
    if kind.kind == "S" or (min(shape, default=0) >= 0 and math.prod(shape) * kind.itemsize < LARGE):
        return put
    place = interpreter.tensor(index)

    def put_large(array: Any) -> None:
        if array.nbytes < LARGE:
            put(array)
        else:
            place()[...] = array

    return put_large


def _spec(name: str, details: Mapping[str, Any], ranked: set[int]) -> Tensor:
    kind = np.dtype(details["dtype"]).name
    datatype = DATATYPES.get("bytes" if kind.startswith("bytes") else kind)
    if datatype is None:
        raise NotOffered(f"model file: '{name[:96]}' is of type {kind}, which litert does not offer", runtime="litert")
    return name, datatype, _shape(details) if details["index"] in ranked else None


def _shape(details: Mapping[str, Any]) -> list[int]:
    return [int(dim) for dim in (details["shape_signature"] if len(details["shape_signature"]) else details["shape"])]


def _quantization(details: Mapping[str, Any]) -> dict[str, Any] | None:
    """How real = scale * (stored - zero_point), along an axis where there are several; None where the tensor says what it means."""
    told = details["quantization_parameters"]
    if not len(told["scales"]):
        return None
    scales, zeros = [float(one) for one in told["scales"]], [int(one) for one in told["zero_points"]]
    return {"scales": scales, "zero_points": zeros, "axis": int(told["quantized_dimension"])}
