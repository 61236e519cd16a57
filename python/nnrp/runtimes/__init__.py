"""The runtimes that models run on: where their libraries lie, and which there are."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnrp.runtimes.contract import Control, ModelSpec, Runtime, Session, Streaming

__all__ = ["Control", "ModelSpec", "Runtime", "Session", "Streaming", "installed", "libraries", "library"]

#: Runtime → the package that brings its library, and the folder inside.
_PACKAGES = {"onnxruntime": ("onnxruntime", "capi"), "openvino": ("openvino", "libs")}


def __getattr__(name: str) -> Any:
    if name in {"Control", "ModelSpec", "Runtime", "Session", "Streaming"}:
        from nnrp.runtimes import contract

        return getattr(contract, name)
    raise AttributeError(f"module 'nnrp.runtimes' has no attribute '{name}'")


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


def libraries() -> dict[str, str]:
    """Tell the folders of the runtimes' C libraries, of those whose package is installed."""
    return {runtime: folder for runtime in _PACKAGES if (folder := library(runtime))}


def readers(format: str, offered: Iterable[Mapping[str, Any]] | None = None) -> list[Mapping[str, Any]]:
    """Tell of the runtimes that read a format, in the order in which they are asked to load such a file (spec §8.10).

    Args:
        format: as `nnrp.inspect` names it.
        offered: what runtimes tell of themselves, as `Engine.runtimes` does and in its order; default: those of a new engine.
    """
    from nnrp import _nnrp
    from nnrp.engine import Engine

    reading = {told["name"]: told for told in (Engine().runtimes() if offered is None else offered) if format in told["formats"]}
    return [reading[name] for name in _nnrp.in_turn(format, list(reading))]


def installed() -> dict[str, str]:
    """Tell the version of each runtime's library, empty where there is none; opens them."""
    from nnrp.engine import Engine

    return {runtime["name"]: runtime["version"] for runtime in Engine().runtimes()}
