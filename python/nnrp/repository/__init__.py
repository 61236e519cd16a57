"""Where models come from: a file, a model's folder, or a repository ``NAME/VERSION/model.onnx``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nnrp.errors import FileNotFound

#: What a file is called inside a version's folder, and what makes a file a model.
SUFFIXES = (".onnx", ".ort")


@dataclass(frozen=True)
class Source:
    """One model version that can be loaded."""

    name: str
    version: str
    path: Path


def find(path: str | Path, name: str | None = None) -> list[Source]:
    """List the model versions below a path.

    Args:
        path: a model file; a folder ``VERSION/model.onnx``; or a repository of such folders, ``NAME/VERSION/model.onnx``.
        name: what to call the model; only where the path holds one. Default: the file's name without suffix, or the folder's where the
            file is called ``model``.

    Returns:
        The versions, by name and version. Folders that start with a dot are passed over.

    Raises:
        FileNotFound: nothing is there, or no model is in it.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFound(f"no file or folder '{path}'")
    if path.is_file():
        return [Source(name or _name_of(path), "1", path)]
    found = list(_versions(path, name or path.resolve().name)) or [source for folder in _folders(path) for source in _versions(folder, folder.name)]
    if not found:
        raise FileNotFound(f"no model in '{path}': expected a file, VERSION/model.onnx or NAME/VERSION/model.onnx")
    return found


def _name_of(path: Path) -> str:
    if path.stem != "model":
        return path.stem
    folder = path.resolve().parent
    return folder.parent.name if folder.name.isdigit() else folder.name


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _versions(folder: Path, name: str) -> Iterator[Source]:
    for version in _folders(folder):
        files = [file for suffix in SUFFIXES if (file := version / f"model{suffix}").is_file()]
        if files:
            yield Source(name, version.name, files[0])
