"""Packages of others: whether they are there, which version, and what they say when they fail."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from nnrp.errors import LoadFailed, RuntimeNotInstalled

#: A path of a file or folder; a source in Python also without one.
_PATH = re.compile(r"""(?:(?<![\w.])~?/|(?<!\w)[A-Za-z]:[\\/])[^\s'"`()<>\[\]{},;|]*|(?<![\w/])[\w.-]+(?:/[\w.-]+)*\.py\b""")
#: What moves a terminal's cursor, ends a line of a log or turns a text around.
_UNSEEN = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069]+")
#: Where in its sources a library in C++ failed: a file and a line.
_PLACE = re.compile(r"[\w./+-]+\.(?:cc|c|cpp|cxx|cu|h|hpp):\d*:? ?")


def version(runtime: str, module: str, *distributions: str) -> str:
    """Tell the version of the package that brings a module, without importing it.

    Raises:
        RuntimeNotInstalled: there is no such module.
    """
    try:
        there = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        there = False
    if not there:
        raise missing(runtime)
    for distribution in distributions or (module,):
        with suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(distribution)
    return "unknown"


def load(runtime: str, module: str) -> Any:
    """Import a module.

    Raises:
        RuntimeNotInstalled: it, or something that it needs, is not there.
        LoadFailed: it fails as it is imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise missing(runtime) from error
    except Exception as error:
        raise LoadFailed(f"runtime {runtime}: its package cannot be imported: {said(error)}", runtime=runtime) from error


def missing(runtime: str) -> RuntimeNotInstalled:
    """Make the error of a runtime whose package is not there."""
    return RuntimeNotInstalled(f"runtime '{runtime}' is not installed: pip install nnrp[{runtime}]", runtime=runtime)


def said(error: BaseException | str, path: str = "") -> str:
    """What a library says in one line, without the model's path and the places in its sources."""
    text = str(error)
    text = " ".join(plain(_PLACE.sub("", text.replace(path, "…") if path else text)).split())
    return text[:512] or type(error).__name__


def without_paths(error: BaseException | str, most: int, *known: Path) -> str:
    """What an error says, without the paths in it, cut to a length. Those that are known go first, because others end at a space."""
    told = (error.strerror or "") if isinstance(error, OSError) and error.strerror else str(error)
    for path in known:
        told = told.replace(str(path), "…")
    text = _PATH.sub("…", plain(told))
    return text[:most] + "…" * (len(text) > most)


def plain(text: str) -> str:
    """Give a text on one line, without what a terminal or a log would take for more than text."""
    return _UNSEEN.sub(" ", text)
