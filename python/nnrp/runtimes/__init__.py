"""The runtimes that models run on: where their libraries lie, and which there are."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

#: Runtime → the package that brings its library, and the folder inside.
_PACKAGES = {"onnxruntime": ("onnxruntime", "capi")}


def library(runtime: str) -> str | None:
    """Tell the folder of a runtime's C library, without importing or opening anything.

    Returns:
        None when the package is not installed, or when an environment variable such as NNRP_ONNXRUNTIME_LIBRARY says otherwise.
    """
    package, folder = _PACKAGES[runtime]
    if f"NNRP_{runtime.upper()}_LIBRARY" in os.environ:
        return None
    spec = importlib.util.find_spec(package)
    places = [Path(place, folder) for place in (spec and spec.submodule_search_locations) or []]
    return next((str(place) for place in places if place.is_dir()), None)


def installed() -> dict[str, str]:
    """Tell the version of each runtime's library, empty where there is none; opens them."""
    from nnrp.engine import Engine

    return {runtime["name"]: runtime["version"] for runtime in Engine().runtimes()}
