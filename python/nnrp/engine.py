"""The engine of this process: loading models and answering for them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from nnrp import _nnrp, runtimes
from nnrp.errors import InvalidOption
from nnrp.model import Model, Parameters, TensorLike

if TYPE_CHECKING:
    from nnrp.model import Outputs

StrPath = str | os.PathLike[str]


class Engine(_nnrp.Engine):
    """Holds models and answers requests for them.

    Args:
        queue_capacity: most requests that may wait for one model; one more is answered QueueFull. Default: 1024.
        workers: most threads that run one model's queue. Default: one a core.
        inline_limit_us: a session whose mean run is no longer, in microseconds, runs on the thread that has the request. Default: 500.

    Example:
        >>> engine = nnrp.Engine()
        >>> model = engine.load("double.onnx")
    """

    __slots__ = ()

    def __new__(cls, *, queue_capacity: int | None = None, workers: int | None = None, inline_limit_us: int | None = None) -> Self:
        return super().__new__(cls, runtimes.library("onnxruntime"), queue_capacity, workers, inline_limit_us)

    def load(
        self,
        path: StrPath,
        name: str | None = None,
        version: str | None = None,
        runtime: str = "onnxruntime",
        options: Mapping[str, Any] | None = None,
    ) -> Model:
        """Load one model version and answer for it from then on.

        Args:
            path: the model file; or a folder VERSION/model.onnx with one version, or with the one that `version` names.
            name: what callers say; default: the file's name without its suffix, or the folder's.
            version: default "1".
            runtime: what executes it.
            options: the runtime's own options, verbatim; `model.session.settings` tells what came of them.

        Raises:
            FileNotFound, InvalidModel, ModelExists, UnknownOption, InvalidOption, RuntimeNotInstalled, DeviceNotFound, LoadFailed.
        """
        return self.model(*self._load(_describe(path, name, version, runtime, options)))

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
        """Answer one request for a model by name, as `Model.infer` does. To ask often, keep the Model."""
        return self.model(name, version).infer(inputs, outputs, timeout=timeout, id=id, parameters=parameters)

    def runtimes(self) -> list[dict[str, Any]]:
        """Tell what each runtime is and offers on this machine: name, version, formats, devices, options."""
        told: list[dict[str, Any]] = json.loads(self._tell("runtimes"))
        return told

    def _metadata(self, name: str, version: str) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self._tell("metadata", name, version))
        return told

    def _signature(self, name: str, version: str) -> dict[str, Any]:
        session: dict[str, Any] = json.loads(self._tell("session", name, version))
        return self._metadata(name, session["version"]) | session


def load(
    path: StrPath,
    name: str | None = None,
    *,
    version: str | None = None,
    runtime: str = "onnxruntime",
    options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Model:
    """Load a model into this process, in an engine of its own.

    Args:
        path: the model file, or its folder, as `Engine.load` takes it.
        name: what the model is called; default: the file's name without its suffix.
        version: default "1".
        runtime: what executes it.
        options: the runtime's own options, verbatim; `model.session.settings` tells what came of them.
        settings: what `Engine` takes.

    Returns:
        A Model, to be called with its inputs. It is freed with its last reference.

    Raises:
        FileNotFound, InvalidModel, UnknownOption, InvalidOption, RuntimeNotInstalled, DeviceNotFound, LoadFailed.

    Example:
        >>> model = nnrp.load("double.onnx", options={"intra_op_num_threads": 1})
        >>> model(np.array([1, 2, 3], np.float32))
        {'y': array([3., 5., 7.], dtype=float32)}
    """
    return Engine(**settings).load(path, name, version, runtime, options)


def inspect(path: StrPath) -> dict[str, Any]:
    """Tell what a model file is and needs, without loading it: format, signature, operator sets, operators, sizes.

    Raises:
        FileNotFound, InvalidModel, NotOffered.
    """
    told: dict[str, Any] = json.loads(_nnrp.inspect(path))
    return told


def _describe(path: StrPath, name: str | None, version: str | None, runtime: str, options: Mapping[str, Any] | None) -> str:
    """Write down what to load as one JSON document, which the engine checks."""
    from nnrp import repository

    found = repository.find(os.fspath(path), name)
    if os.path.isdir(path):
        found = [source for source in found if version in (None, source.version)]
        if len(found) != 1:
            raise InvalidOption(f"model folder: expected one model version, got {len(found)}; say which file to load")
        version = found[0].version
    source = found[0]
    spec = {"name": source.name, "version": version or source.version, "path": str(source.path), "runtime": runtime, "options": dict(options or {})}
    try:
        return json.dumps(spec)
    except (TypeError, ValueError) as error:
        raise InvalidOption(f"options: expected what JSON can say: {error}") from error
