"""One interface over every neural-network runtime: load a model, infer, watch it, the same way wherever it runs.

    model = nnrp.load("model.onnx")                        in this process
    model = nnrp.connect("http://127.0.0.1:8000")          behind a server, REST or gRPC: the same Model
    nnrp.serve("model.onnx")                               for others, by the Open Inference Protocol
    model(x)                                               NumPy, DLPack or buffers in, NumPy out

Errors are in `nnrp.errors`; `NnrpError` is their root. Importing this package imports no runtime, and NumPy only when it is first needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnrp import errors as errors
    from nnrp import runtimes as runtimes
    from nnrp.engine import Engine, inspect, load
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
    from nnrp.model import Model, Session, TensorSpec
    from nnrp.remote import Client, connect
    from nnrp.server import Server, serve
    from nnrp.tensor import Tensor

    __version__: str

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

_HOMES = {
    "Client": "remote",
    "Engine": "engine",
    "Model": "model",
    "Server": "server",
    "Session": "model",
    "Tensor": "tensor",
    "TensorSpec": "model",
    "connect": "remote",
    "inspect": "engine",
    "load": "engine",
    "serve": "server",
}


def __getattr__(name: str) -> Any:
    if name in {"errors", "runtimes"}:
        return import_module(f"nnrp.{name}")
    if name == "__version__":
        value = import_module("nnrp._nnrp").VERSION
    elif name in __all__:
        value = getattr(import_module(f"nnrp.{_HOMES.get(name, 'errors')}"), name)
    else:
        raise AttributeError(f"module 'nnrp' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "errors", "runtimes"})
