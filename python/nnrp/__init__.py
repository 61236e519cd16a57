"""One interface over every neural-network runtime: load a model, infer, watch it, the same way wherever it runs.

    model = nnrp.load("model.onnx")                        in this process
    model = nnrp.connect("http://127.0.0.1:8000")          behind a server, REST or gRPC: the same Model
    nnrp.serve("model.onnx")                               for others, by the Open Inference Protocol
    model(x)                                               NumPy, DLPack or buffers in, NumPy out

Errors are in `nnrp.errors`; `NnrpError` is their root. Importing this package imports no runtime, and NumPy only when it is first needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nnrp._nnrp import VERSION as __version__
from nnrp._nnrp import Client, Engine, Model, Server, Tensor, inspect

if TYPE_CHECKING:
    from nnrp import errors as errors
    from nnrp import runtimes as runtimes
    from nnrp.engine import load
    from nnrp.errors import (
        AlreadyExists,
        Cancelled,
        DeadlineExceeded,
        FailedPrecondition,
        InvalidArgument,
        NnrpError,
        NotFound,
        ResourceExhausted,
        RuntimeFailure,
        Unavailable,
        Unimplemented,
    )
    from nnrp.model import Session, TensorSpec
    from nnrp.remote import connect
    from nnrp.server import serve

__all__ = [
    "AlreadyExists",
    "Cancelled",
    "Client",
    "DeadlineExceeded",
    "Engine",
    "FailedPrecondition",
    "InvalidArgument",
    "Model",
    "NnrpError",
    "NotFound",
    "ResourceExhausted",
    "RuntimeFailure",
    "Server",
    "Session",
    "Tensor",
    "TensorSpec",
    "Unavailable",
    "Unimplemented",
    "__version__",
    "connect",
    "inspect",
    "load",
    "serve",
]

_HOMES = {"Session": "model", "TensorSpec": "model", "connect": "remote", "load": "engine", "serve": "server"}


def __getattr__(name: str) -> Any:
    import importlib

    if name in {"errors", "runtimes"}:
        return importlib.import_module(f"nnrp.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'nnrp' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"nnrp.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "errors", "runtimes"})
