"""The runtime ``coreml``: Core ML packages, by Core ML itself on macOS, and elsewhere by their translation to ONNX."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any

from nnrp.errors import RuntimeNotInstalled
from nnrp.runtimes.contract import ModelSpec, Session

#: The newest specification whose operations are known here: that of iOS 18.
SPECIFICATION = "9"


class CoreMl:
    """Loads `.mlpackage` folders and `.mlmodel` files."""

    name = "coreml"
    formats = ("mlpackage", "mlmodel")

    def info(self) -> dict[str, Any]:
        _needs()
        through = ["coreml", "onnxruntime"] if sys.platform == "darwin" else ["onnxruntime"]
        properties = {
            "function": {"type": "string", "description": "which of the program's functions to run; the default is its own"},
            "through": {"enum": through, "default": through[0], "description": "Core ML itself, or the translation"},
            "onnxruntime": {"type": "object", "description": "options of the runtime onnxruntime, for the translation"},
        }
        if sys.platform == "darwin":
            units = ["ALL", "CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE"]
            properties["compute_units"] = {"enum": units, "description": "what Core ML may use; the default is by device and precision"}
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        return {"version": SPECIFICATION, "formats": self.formats, "devices": ["cpu"], "options": schema}

    def load(self, spec: ModelSpec) -> Session:
        _needs()
        if sys.platform == "darwin" and spec.options.get("through", "coreml") == "coreml":
            from nnrp.runtimes.coreml import native

            return native.load(spec)
        from nnrp.runtimes.coreml import translated

        return translated.load(spec)


def _needs() -> None:
    """See that what it needs is there, without importing it."""
    ours = "NNRP_ONNXRUNTIME_LIBRARY" in os.environ
    for package in ("google.protobuf", *(() if ours or sys.platform == "darwin" else ("onnxruntime",))):
        try:
            there = importlib.util.find_spec(package) is not None
        except ModuleNotFoundError:
            there = False
        if not there:
            raise RuntimeNotInstalled(f"runtime 'coreml' is not installed: it needs '{package}': pip install nnrp[coreml]", runtime="coreml")
