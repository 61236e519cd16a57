"""Loading models into this process."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from nnrp._nnrp import Engine, Model
from nnrp.errors import InvalidOption

StrPath = str | os.PathLike[str]


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
        path: the model file; or a folder VERSION/model.onnx with one version, or with the one that `version` names.
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


def describe(path: StrPath, name: str | None, version: str | None, runtime: str, options: Mapping[str, Any] | None) -> str:
    """Write down what to load as one JSON document, which the engine checks."""
    from nnrp import repository

    found = repository.find(path if isinstance(path, str) else os.fspath(path), name)
    if os.path.isdir(path):
        found = [source for source in found if version in (None, source.version)]
        if len(found) != 1:
            raise InvalidOption(f"model folder: expected one model version, got {len(found)}; say which file to load")
        version = found[0].version
    source = found[0]
    try:
        return json.dumps(
            {"name": source.name, "version": version or source.version, "path": str(source.path), "runtime": runtime, "options": dict(options or {})}
        )
    except (TypeError, ValueError) as error:
        raise InvalidOption(f"options: expected what JSON can say: {error}") from error
