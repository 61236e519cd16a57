"""``model.toml``: what a model's description says that its file does not (docs/guide/describe.md)."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nnrp.errors import InvalidOption, Malformed

from . import cache, sources

#: What a description is called inside a model's folder.
FILE = "model.toml"
#: What a comparison keeps there (`nnrp.compare.pin`); loading does not look at it.
PINNED = "verified"
#: Options that name files, whatever their runtime, and those that say names of tensors.
_FILES, _NAMES = re.compile("cache|path|dir|folder|file|librar", re.IGNORECASE), ("inputs", "outputs")
#: Options that have files or log lines written, whatever their values.
_WRITES = ("enable_profiling", "log_severity_level", "LOG_LEVEL")
#: A text that leads elsewhere than below the folder it stands in.
_ELSEWHERE = re.compile(r"[/\\~]|[A-Za-z]:|\w+://|(?:.*[/\\])?\.\.(?:[/\\]|$)", re.DOTALL)


class Foreign(dict[str, Any]):
    """Options that a description says that was fetched, and that nobody here has said."""


def read(file: Path) -> dict[str, Any]:
    """Read a description; nothing where there is no such file. What it says is checked by the engine, which knows every word.

    Raises:
        Malformed: it is no TOML.
        InvalidOption: it names its source twice, or as something that is no text; or it was fetched, and names one outside of what was.
    """
    if not file.is_file():
        return {}
    try:
        said = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"{file.name} cannot be read: {error}") from error
    except RecursionError:
        raise Malformed(f"{file.name} cannot be read: it is nested too deeply") from None
    said.pop(PINNED, None)
    for key in ("name", "version", "source", "path", "sha256"):
        if key in said and not isinstance(said[key], str):
            raise InvalidOption(f"{file.name}: {key}: expected a text, got {said[key]!r:.96}", path=key, expected="a text", got=f"{said[key]!r:.96}")
    if "digests" in said:
        raise InvalidOption(f"{file.name}: digests: expected sha256, the one digest of its source", path="digests", expected="sha256", got="digests")
    if "source" in said and "path" in said:
        raise InvalidOption(f"{file.name}: path: expected 'source' or 'path', got both", path="path", expected="source or path", got="both")
    if came := cache.around(file):
        _check_place(said, file, came)
        if isinstance(said.get("options"), dict):
            said["options"] = Foreign(said["options"])
    return said


def check_options(said: Any) -> None:
    """Refuse options that a fetched description must not give itself.

    Raises:
        InvalidOption: one allows what runs its maker's code, has files or log lines written, or names a file elsewhere than in what was fetched.
    """
    if not isinstance(said, Foreign):
        return
    for name, value in said.items():
        granted = name.startswith("allow_") and value is not False
        if granted or _writes(name, value) or (name not in _NAMES and any(_leads_away(key, text) for key, text in _texts(name, value))):
            path = f"options.{name[:96]}"
            message = f"{FILE}: {path}: a description that was fetched must not say this: expected it at the call, or not at all"
            raise InvalidOption(message, path=path, expected="said at the call, or not at all", got=f"{value!r:.96}")


def _check_place(said: dict[str, Any], file: Path, came: Path) -> None:
    """A fetched description's source is in what was fetched, or is to be fetched too."""
    for key in ("path", "source"):
        text = said.get(key, "")
        if ":" in text.split("/")[0]:
            good = sources.has_scheme(text) and not text.startswith("file:")
        else:
            good = Path(os.path.normpath(file.parent.resolve() / text)).is_relative_to(came)
        if not good:
            message = f"{file.name}: {key}: expected a path within what was fetched, or a source to be fetched, got '{text:.96}'"
            raise InvalidOption(message, path=key, expected="a path within what was fetched", got=text[:96])
    if "remote" in str(said.get("runtime", "")):
        message = f"{file.name}: runtime: a description that was fetched must not send what is asked of its model to a server"
        raise InvalidOption(message, path="runtime", expected="another runtime", got="remote")


def _texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """The texts in an option, each with the name that it has there."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _texts(f"{name}.{key}", one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(name, one)


def _writes(name: str, value: Any) -> bool:
    return name in _WRITES or any(key.rpartition(".")[2] in _WRITES for key, _ in _texts(name, value))


def _leads_away(name: str, text: str) -> bool:
    return _FILES.search(name) is not None or _ELSEWHERE.match(text) is not None


def place(said: dict[str, Any], folder: Path) -> str | None:
    """Take out where the model is; a path starts at the folder of the description. None where it does not say."""
    text: str | None = said.pop("source", None) or said.pop("path", None)
    if text is None or ":" in text.split("/")[0]:
        return text
    return str(folder / text)
