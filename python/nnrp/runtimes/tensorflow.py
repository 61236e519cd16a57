"""The runtime ``tensorflow``: SavedModels of TensorFlow 1 and 2, by their signatures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnrp.errors import FileNotFound, InvalidModel, InvalidOption, LoadFailed, NnrpError, NotOffered, RunFailed
from nnrp.runtimes import package
from nnrp.runtimes.contract import Control, ModelSpec, on_cpu
from nnrp.runtimes.cores import Agreed, option
from nnrp.tensor import NAMES

#: TensorFlow's name of an element type → ours.
DATATYPES = {name.rpartition(".")[2]: datatype for datatype, name in NAMES.items() if datatype not in ("BYTES", "INT4", "UINT4")} | {"string": "BYTES"}
DISTRIBUTIONS = ("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tensorflow-rocm")
#: The threads of each operation.
_threads = Agreed("tensorflow")


class TensorFlow:
    """Loads folders with a `saved_model.pb`."""

    name = "tensorflow"
    formats = ("saved_model",)

    def info(self) -> dict[str, Any]:
        properties = {
            "signature": {"type": "string", "description": "which of the model's signatures to run; default: serving_default, or the only one"},
            "tags": {"type": "array", "items": {"type": "string"}, "default": ["serve"], "description": "which of the model's graphs to load"},
            "threads": option("threads of an operation, one number for all models of a process; the default is the physical cores"),
        }
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        return {"version": package.version(self.name, "tensorflow", *DISTRIBUTIONS), "formats": self.formats, "devices": ["cpu"], "options": schema}

    def load(self, spec: ModelSpec) -> Signature:
        on_cpu(self.name, spec)
        path = Path(spec.path)
        if not path.exists():
            raise FileNotFound("model file: no such file", runtime=self.name)
        folder = path.parent if path.name == "saved_model.pb" and path.is_file() else path
        if not (folder / "saved_model.pb").is_file():
            raise InvalidModel("model file: expected a folder with a saved_model.pb, got something else", runtime=self.name)
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        tensorflow = package.load(self.name, "tensorflow")
        threads = _threads.on(spec.options.get("threads"))
        v1 = tensorflow.compat.v1
        # On the caller's thread, so that runs beside each other do not wait for one another.
        config = v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=-1, device_count={"GPU": 0})
        session = v1.Session(graph=v1.Graph(), config=config)
        try:
            with session.graph.as_default():
                # The loader of TensorFlow 1 takes the models of both, and more of them: TensorFlow 2's fails on what Keras's optimizers left behind.
                graph = v1.saved_model.load(session, spec.options.get("tags", ["serve"]), str(folder))
            name, signature = _signature(dict(graph.signature_def), spec.options.get("signature"))
            return Signature(tensorflow, session, name, signature, threads)
        except BaseException as error:
            session.close()
            raise _failure(tensorflow, error, str(folder)) from error


def _failure(tensorflow: Any, error: BaseException, folder: str) -> BaseException:
    """Our error for what loading a model raised; what is no failure of the model stays what it is."""
    text = package.said(error, folder)
    if isinstance(error, NnrpError) or not isinstance(error, Exception):
        return error
    if "MetaGraphDef" in text and "'[]'" not in text:
        return InvalidOption(f"option 'tags': {text}", runtime="tensorflow")
    if isinstance(error, OSError) or "MetaGraphDef" in text:
        return InvalidModel("model file: TensorFlow cannot read it", runtime="tensorflow")
    kind = InvalidModel if isinstance(error, tensorflow.errors.DataLossError | tensorflow.errors.NotFoundError | ValueError | KeyError) else LoadFailed
    return kind(f"runtime tensorflow: {type(error).__name__}: {text}", runtime="tensorflow")


def _signature(there: dict[str, Any], wanted: str | None) -> tuple[str, Any]:
    """The signature to run: the one that is named, or what TensorFlow itself would serve, or the only one."""
    callable = {name: told for name, told in sorted(there.items()) if told.outputs and not name.startswith("__")}
    if wanted is None:
        wanted = "serving_default" if "serving_default" in callable else next(iter(callable), None) if len(callable) == 1 else None
    if wanted not in callable:
        got = "none" if wanted is None else f"'{wanted[:96]}'"
        listed = ", ".join(f"'{one[:96]}'" for one in list(callable)[:16]) or "none"
        message = f"option 'signature': expected one that the model has, got {got}; it has {listed}"
        raise InvalidOption(message, runtime="tensorflow", signatures=list(callable)[:16])
    return wanted, callable[wanted]


class Signature:
    """A signature that any number of threads may run."""

    exclusive = False
    cancellable = False

    def __init__(self, tensorflow: Any, session: Any, name: str, told: Any, threads: int) -> None:
        self._tensorflow, self._session = tensorflow, session
        self.inputs = [_spec(tensorflow, one, told.inputs[one]) for one in sorted(told.inputs)]
        self.outputs = [_spec(tensorflow, one, told.outputs[one]) for one in sorted(told.outputs)]
        self.settings = {"precision": "strict", "signature": name, "threads": threads}
        self._feeds = [told.inputs[one].name for one, *_ in self.inputs]
        self._fetches = {one: told.outputs[one].name for one, *_ in self.outputs}
        self._runs: dict[tuple[str, ...], Any] = {}
        self._run(tuple(self._fetches))

    def _run(self, outputs: tuple[str, ...]) -> Any:
        """What computes these outputs and no others."""
        if outputs not in self._runs:
            self._runs[outputs] = self._session.make_callable([self._fetches[name] for name in outputs], self._feeds)
        return self._runs[outputs]

    def run(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> dict[str, Any]:
        names = tuple(outputs)
        try:
            answers = self._run(names)(*[inputs[name] for name, *_ in self.inputs])
        except (self._tensorflow.errors.OpError, ValueError, TypeError, RuntimeError) as error:
            raise RunFailed(f"runtime tensorflow: {package.said(getattr(error, 'message', error))}", runtime="tensorflow") from error
        # Of no dimensions they come as NumPy's numbers, or as plain bytes.
        return {name: answer if isinstance(answer, np.ndarray) else _scalar(answer) for name, answer in zip(names, answers, strict=True)}

    def close(self) -> None:
        self._runs.clear()
        self._session.close()


def _scalar(answer: Any) -> Any:
    value = np.empty((), object if isinstance(answer, bytes) else np.asarray(answer).dtype)
    value[()] = answer
    return value


def _spec(tensorflow: Any, name: str, told: Any) -> tuple[str, str, list[int] | None]:
    kind = tensorflow.dtypes.as_dtype(told.dtype).name if told.name else "a composite"
    if kind not in DATATYPES:
        raise NotOffered(f"model file: '{name[:96]}' is of type {kind}, which tensorflow does not offer", runtime="tensorflow")
    shape = told.tensor_shape
    return name, DATATYPES[kind], None if shape.unknown_rank else [int(dim.size) for dim in shape.dim]
