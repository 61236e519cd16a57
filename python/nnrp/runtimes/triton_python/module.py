"""A model.py and what it imports: modules of its own folder and ``triton_python_backend_utils``, which nobody else sees.

In Triton each model has a process to itself. Here several share one, so a model's modules are imported under a name that is the model's
alone, and the `import` statements in them look there first: two models may each have a ``helper.py``.
"""

from __future__ import annotations

import builtins
import importlib
import itertools
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import module_from_spec
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from nnrp.errors import InvalidModel
from nnrp.runtimes.triton_python import message, tensor
from nnrp.runtimes.triton_python.bls import InferenceRequest
from nnrp.runtimes.triton_python.complete import ModelConfig

if TYPE_CHECKING:
    from nnrp.engine import Engine

#: What models import, by either name.
UTILS = ("triton_python_backend_utils", "c_python_backend_utils")
_PREFIX = "_nnrp_triton_python_"
_numbers = itertools.count()
#: Package of a model's modules → its own import.
_imports: dict[str, Callable[..., ModuleType]] = {}


class _Loader(SourceFileLoader):
    """Runs a module of a model with the model's own import."""

    def exec_module(self, module: ModuleType) -> None:
        """Run it."""
        vars(module)["__builtins__"] = vars(builtins) | {"__import__": _imports[module.__name__.partition(".")[0]]}
        super().exec_module(module)

    def get_code(self, fullname: str) -> CodeType | None:
        """Compile the source, and leave no file beside it."""
        return self.source_to_code(self.get_data(self.path), self.path)


class _Finder:
    """Finds the modules of models."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module below the package of a model."""
        if not name.startswith(_PREFIX) or path is None:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(name, spec.loader.path)
        return spec


class Source:
    """A model's modules, while it is loaded.

    Args:
        file: the model.py.
        folder: the model's folder, NAME.
        utils: what ``triton_python_backend_utils`` is to it.
    """

    def __init__(self, file: Path, folder: Path, utils: ModuleType) -> None:
        self.package = f"{_PREFIX}{next(_numbers)}"
        self._places = list(dict.fromkeys(map(str, (file.parent, folder))))
        self.utils = utils
        home = ModuleType(self.package)
        vars(home)["__path__"] = self._places
        if _Finder not in sys.meta_path:
            # Before the finder that would find them too.
            sys.meta_path.insert(0, _Finder)
        sys.modules[self.package], _imports[self.package] = home, self._import
        try:
            # Its version's folder is a package as well, so that `from . import helper` works there.
            self.model = self._run(file)
            if not isinstance(getattr(self.model, "TritonPythonModel", None), type):
                raise InvalidModel(f"model file: expected a class TritonPythonModel in {file.name}, got none", runtime="triton-python")
        except BaseException:
            self.close()
            raise

    def _run(self, file: Path) -> ModuleType:
        """Run this file, and not what else an import would find by its name: a folder or a library beside it."""
        name = f"{self.package}.{file.stem}"
        loader = _Loader(name, str(file))
        module = sys.modules[name] = module_from_spec(ModuleSpec(name, loader, origin=str(file)))
        vars(module)["__file__"] = str(file)
        loader.exec_module(module)
        setattr(sys.modules[self.package], file.stem, module)
        return module

    def close(self) -> None:
        """Forget its modules."""
        for name in [name for name in sys.modules if name == self.package or name.startswith(f"{self.package}.")]:
            del sys.modules[name]
        _imports.pop(self.package, None)

    def _import(
        self, name: str, globals: Mapping[str, Any] | None = None, locals: Mapping[str, Any] | None = None, fromlist: Sequence[str] = (), level: int = 0
    ) -> ModuleType:
        """Import as a statement in the model's modules does."""
        top = name.partition(".")[0]
        if level == 0 and name in UTILS:
            return self.utils
        if level or not self._has(top):
            return builtins.__import__(name, globals, locals, fromlist, level)
        whole = importlib.import_module(f"{self.package}.{name}")
        if fromlist:
            return builtins.__import__(whole.__name__, globals, locals, fromlist, 0)
        return sys.modules[f"{self.package}.{top}"]

    def _has(self, top: str) -> bool:
        return top not in sys.stdlib_module_names and PathFinder.find_spec(top, self._places) is not None


def utils(model: str, folder: Path, engine: Callable[[], Engine | None]) -> ModuleType:
    """Make what a model imports as ``triton_python_backend_utils``."""
    made = ModuleType(UTILS[0], "What models for Triton's Python back end use, as this runtime offers it.")
    public = [
        (message, "TritonError InferenceResponse PreferredMemory"),
        (tensor, "Tensor TritonModelException triton_to_numpy_type numpy_to_triton_type triton_string_to_numpy serialize_byte_tensor deserialize_bytes_tensor"),
        (tensor, "TRITON_TO_NUMPY_TYPE NUMPY_TO_TRITON_TYPE TRITON_STRING_TO_NUMPY"),
        (message, " ".join(name for name in dir(message) if name.startswith("TRITONSERVER_"))),
    ]
    for home, names in public:
        vars(made).update({name: getattr(home, name) for name in names.split()})
    request = type("InferenceRequest", (InferenceRequest,), {"_engine": staticmethod(engine), "_own": model})
    logger = type("Logger", (_Logger,), {"_log": logging.getLogger(f"nnrp.models.{model}")})
    functions: Sequence[Callable[..., Any]] = (
        get_input_tensor_by_name,
        get_output_tensor_by_name,
        get_input_config_by_name,
        get_output_config_by_name,
        using_decoupled_model_transaction_policy,
    )
    vars(made).update({function.__name__: function for function in functions})
    vars(made).update(InferenceRequest=request, Logger=logger, ModelConfig=ModelConfig)
    vars(made).update(get_model_dir=lambda: str(folder), is_model_ready=partial(_is_model_ready, engine))
    return made


class _Logger:
    """Writes to the log of the model, ``nnrp.models.NAME``."""

    INFO, WARNING, ERROR, VERBOSE = range(4)
    _log: ClassVar[logging.Logger]

    @classmethod
    def log(cls, message: str, level: int = INFO) -> None:
        """Write a line at a level."""
        (cls.log_info, cls.log_warn, cls.log_error, cls.log_verbose)[level](message)

    @classmethod
    def log_info(cls, message: str) -> None:
        """Write a line."""
        cls._log.info("%s", message)

    @classmethod
    def log_warn(cls, message: str) -> None:
        """Write a warning."""
        cls._log.warning("%s", message)

    @classmethod
    def log_error(cls, message: str) -> None:
        """Write an error."""
        cls._log.error("%s", message)

    @classmethod
    def log_verbose(cls, message: str) -> None:
        """Write a line for who looks closely."""
        cls._log.debug("%s", message)


def _is_model_ready(engine: Callable[[], Engine | None], model_name: str, model_version: str = "") -> bool:
    from nnrp.errors import NotFound

    home = engine()
    try:
        return home is not None and bool(home._tell("session", model_name, model_version))
    except NotFound:
        return False


def get_input_tensor_by_name(inference_request: message.Request, name: str) -> tensor.Tensor | None:
    """Give an input of a request; None where it has none of that name."""
    return next((one for one in inference_request.inputs() if one.name() == name), None)


def get_output_tensor_by_name(inference_response: message.InferenceResponse, name: str) -> tensor.Tensor | None:
    """Give an output of a response; None where it has none of that name."""
    return next((one for one in inference_response.output_tensors() if one.name() == name), None)


def get_input_config_by_name(model_config: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """Give what is configured of an input; None where there is none of that name."""
    return next((one for one in model_config.get("input", ()) if one["name"] == name), None)


def get_output_config_by_name(model_config: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """Give what is configured of an output; None where there is none of that name."""
    return next((one for one in model_config.get("output", ()) if one["name"] == name), None)


def using_decoupled_model_transaction_policy(model_config: Mapping[str, Any]) -> bool:
    """Tell whether one request may have any number of responses."""
    return bool(model_config.get("model_transaction_policy", {}).get("decoupled", False))
