"""Our Python package, where it is built."""

from __future__ import annotations

import importlib
from types import ModuleType


def nnrp() -> ModuleType | None:
    """Import nnrp; None when it is not built in this Python."""
    try:
        module = importlib.import_module("nnrp")
    except ModuleNotFoundError as exc:
        if exc.name and exc.name.split(".")[0] == "nnrp":
            return None
        raise
    # An empty folder of that name imports too, as a namespace.
    return module if hasattr(module, "load") else None
