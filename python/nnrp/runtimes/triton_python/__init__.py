"""The runtime ``triton-python``: models for Triton's Python back end, a ``model.py`` with a class TritonPythonModel, as they are."""

from __future__ import annotations

import platform
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnrp.errors import InvalidModel, InvalidOption, NotOffered
from nnrp.repository import cache
from nnrp.runtimes.contract import ModelSpec
from nnrp.runtimes.triton_python.signature import NAME

if TYPE_CHECKING:
    from nnrp.engine import Engine
    from nnrp.runtimes.triton_python.config import Config
    from nnrp.runtimes.triton_python.session import Session


class TritonPython:
    """Loads folders ``NAME/VERSION/model.py`` with their ``NAME/config.pbtxt``."""

    name = NAME
    formats = ("triton_python",)

    def __init__(self) -> None:
        self._engine: weakref.ref[Engine] | None = None

    def attach(self, engine: Engine) -> None:
        """Let models ask other models of this engine."""
        self._engine = weakref.ref(engine)

    def info(self) -> dict[str, Any]:
        from nnrp.runtimes.triton_python.signature import gpus

        properties = {
            "instances": {
                "type": "integer",
                "minimum": 1,
                "maximum": 1024,
                "description": "how many requests run at once, each in an instance of its own; default: as config.pbtxt says",
            },
            "read_only_inputs": {
                "type": "boolean",
                "default": False,
                "description": "give the model inputs that it must not write to, without a copy",
            },
            "allow_code": {"type": "boolean", "default": False, "description": "run a model that was fetched, or unpacked from an archive"},
        }
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        return {"version": platform.python_version(), "formats": self.formats, "devices": ["cpu", *(f"cuda:{number}" for number in gpus())], "options": schema}

    def load(self, spec: ModelSpec) -> Session:
        from nnrp.runtimes.triton_python import config as configs
        from nnrp.runtimes.triton_python.module import Source, utils
        from nnrp.runtimes.triton_python.session import Session
        from nnrp.runtimes.triton_python.signature import check, instances

        if spec.precision not in ("strict", "fast"):
            raise NotOffered(f"precision {spec.precision}: a model in Python computes as it was written", runtime=NAME)
        file = Path(spec.path).absolute()
        _check(file, bool(spec.options.get("allow_code")))
        folder = file.parent if (file.parent / configs.FILE).is_file() else file.parent.parent
        config = configs.read(folder) | {"name": spec.name}
        if config["backend"] not in ("", "python"):
            check(config | {"output": [None]})
        source = Source(file, folder, utils(spec.name, folder, self._home))
        try:
            config = _complete(source, config)
            check(config)
            config["instance_group"] = config["instance_group"] or [{"name": spec.name, "count": 1, "kind": "KIND_AUTO", "gpus": []}]
            for group in config["instance_group"]:
                group["count"] = spec.options.get("instances", group["count"])
            made = instances(config, spec.name, spec.device)
            config |= {"backend": "python", "default_model_filename": file.name}
            return Session(source, config, made, folder, spec.version, spec.options.get("read_only_inputs", False))
        except BaseException:
            source.close()
            raise

    def _home(self) -> Engine | None:
        return self._engine() if self._engine else None


def _check(file: Path, allowed: bool) -> None:
    """Refuse what is no program, and one that came from elsewhere and that nobody here has allowed."""
    if file.suffix != ".py" or not file.is_file():
        raise InvalidModel(f"model file: expected a file in Python, with the ending .py, got '{file.name:.96}'", runtime=NAME)
    if not allowed and cache.around(file):
        message = "a model in Python that was fetched, or unpacked from an archive, runs whatever its maker wrote: expected the option allow_code at the call"
        raise InvalidOption(f"model file: {message}", runtime=NAME, path="options.allow_code", expected=True, got=False)


def _complete(source: Any, config: Config) -> Config:
    """Let the model say what its configuration leaves open."""
    from nnrp.runtimes.triton_python.complete import ModelConfig
    from nnrp.runtimes.triton_python.config import checked

    complete = getattr(source.model.TritonPythonModel, "auto_complete_config", None)
    if complete is None:
        return config
    try:
        completed = complete(ModelConfig(config))
    except ValueError as error:
        raise InvalidModel(f"auto_complete_config: {error}", runtime=NAME) from error
    if not isinstance(completed, ModelConfig):
        raise InvalidModel(f"auto_complete_config: expected the configuration that it was given, got {type(completed).__name__}", runtime=NAME)
    return checked(completed.as_dict())
