"""The files that a model is of: itself, and those beside it that its runtime opens too."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from nnrp import _nnrp
from nnrp.errors import InvalidModel, NnrpError

from . import cache

#: Format → the suffix of the file beside the model's, in place of its own.
_SUFFIXES = {"openvino_ir": ".bin", "ncnn": ".bin", "paddle": ".pdiparams", "paddle_pir": ".pdiparams"}
#: One of several files of a language model.
_SPLIT = re.compile(r"(.+)-\d{5}-of-(\d{5})\.gguf")


def beside(path: Path) -> list[Path]:
    """List the files beside a model's own that are loaded with it, where they are there; none where it is a folder, or no model."""
    if not path.is_file():
        return []
    try:
        told = json.loads(_nnrp.inspect(path))
    except NnrpError:
        return []
    return [file for file in dict.fromkeys(_beside(path, told)) if file.is_file() and file != path]


def _beside(path: Path, told: dict[str, object]) -> Iterator[Path]:
    needs = told.get("needs")
    if isinstance(needs, dict):
        yield from (path.parent / name for name in needs.get("external_files", ()))
    form = str(told.get("format"))
    if form in _SUFFIXES:
        yield path.with_suffix(_SUFFIXES[form])
    if form == "mnn":
        yield path.with_name(f"{path.name}.weight")
    if form == "gguf" and (found := _SPLIT.fullmatch(path.name)):
        yield from sorted(path.parent.glob(f"{glob.escape(found[1])}-?????-of-{found[2]}.gguf"))


def digest(path: Path) -> tuple[str, dict[str, str]]:
    """Give a model's digest, and that of each file that it is of, by its name from the model's folder.

    Where there are several it is that of the lines ``DIGEST  NAME`` of all, in the order of their names, as a folder's is (`cache.digest`).
    """
    if not (others := beside(path)):
        whole = cache.digest(path)
        return whole, {path.name: whole}
    import hashlib  # as in `cache`

    names = {Path(os.path.relpath(file, path.parent)).as_posix(): file for file in (path, *others)}
    each = {name: cache.digest(names[name]) for name in sorted(names)}
    return hashlib.sha256("".join(f"{one}  {name}\n" for name, one in each.items()).encode()).hexdigest(), each


def each(said: Mapping[str, str]) -> dict[str, str]:
    """Give the digest of each file or folder by its path, where that of a model of several files is said.

    Raises:
        InvalidModel: it is another by now.
    """
    found: dict[str, str] = {}
    for path, expected in said.items():
        if not beside(Path(path)):
            found[path] = expected
            continue
        got, files = digest(Path(path))
        if got != expected:
            raise InvalidModel(f"source: expected sha256 {expected}, got {got}", expected=expected, got=got)
        found |= {str(Path(path).parent / name): one for name, one in files.items()}
    return found
