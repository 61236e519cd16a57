"""What commands are told of a model: options of its runtime, JSON for its description, plug-ins."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnrp.errors import FileNotFound, InvalidOption

#: What a shared library is called.
_LIBRARIES = (".so", ".dylib", ".dll")


def options(document: str | None, pairs: Sequence[str]) -> dict[str, Any] | None:
    """Read ``--options JSON`` and each ``--option NAME=VALUE``, which wins; None where neither is there."""
    if document is None and not pairs:
        return None
    read = _json("--options", document or "{}")
    if not isinstance(read, dict):
        raise InvalidOption(f"--options: expected one JSON object, got {document!r:.96}")
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not (name and sign):
            raise InvalidOption(f"--option {pair}: expected NAME=VALUE")
        read[name] = _value(value)
    return read


def document(option: str, text: str | None) -> Any:
    """Read an option that is JSON; None where it is not there."""
    return None if text is None else _json(option, text)


def plugins(paths: Sequence[str]) -> list[Path]:
    """List plug-ins: files, and the shared libraries of folders."""
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFound(f"--plugin: no file or folder '{path}'")
        found += sorted(one for one in path.iterdir() if one.suffix in _LIBRARIES) if path.is_dir() else [path]
    return found


def _json(option: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidOption(f"{option}: expected JSON, got {text!r:.96}: {error}") from error
    except RecursionError:
        raise InvalidOption(f"{option}: expected JSON, got some that is nested too deeply") from None


def _value(text: str) -> Any:
    """A number, a boolean or whatever else JSON says; a text where it says nothing."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
