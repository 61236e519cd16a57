"""Where a result goes: its name, and how it gets there, whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nnrp.errors import AlreadyExists, FileNotFound, InvalidOption

if TYPE_CHECKING:
    from nnrp.convert.ways import Way


def target(source: Path, taken: Way, output: str | os.PathLike[str] | None, force: bool) -> Path:
    """Tell the file to write.

    Raises:
        InvalidOption: it has another ending, is a folder, or is the source itself.
        FileNotFound: its folder is not there.
        AlreadyExists: it is there, and must not be written over.
    """
    stem = source.resolve().name if source.is_dir() else source.stem
    file = Path(output) if output is not None else source.parent / f"{stem}{taken.suffix}"
    ending = Path(f"x{taken.suffix}").suffix
    if file.suffix != ending:
        raise InvalidOption(f"output '{file}': expected a name that ends in {ending}")
    if not file.parent.is_dir():
        raise FileNotFound(f"output '{file}': no folder '{file.parent}'")
    if file.is_dir():
        raise InvalidOption(f"output '{file}': expected a file, got a folder")
    if file.exists() and file.samefile(source):
        raise InvalidOption(f"output '{file}': expected another file than the source")
    there = [one for one in files(file) if one.exists()]
    if there and not force:
        raise AlreadyExists(f"output '{there[0]}' is there already; --force writes over it", file=str(there[0]))
    return file


def files(file: Path) -> tuple[Path, ...]:
    """List a result's file and the one beside it that belongs to it: what its converter calls so, and nothing of another model's."""
    beside = {".xml": file.with_suffix(".bin"), ".onnx": file.with_name(f"{file.name}.data")}.get(file.suffix)
    return (file, beside) if beside is not None and beside.is_file() else (file,)


@contextmanager
def written(target: Path, force: bool) -> Iterator[Path]:
    """Give a file of the target's name to write, and files beside it; they are put in their place at the end, the model last.

    Raises:
        InvalidOption: it cannot be written there.
        FileNotFound: nobody wrote it.
    """
    with _telling(target):
        folder = tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent)
    with folder as name:
        draft = Path(name, target.name)
        yield draft
        if not draft.is_file():
            raise FileNotFound(f"output '{target}': the converter wrote nothing")
        with _telling(target):
            _put(draft, target, force)


def _put(draft: Path, target: Path, force: bool) -> None:
    made = [one for one in draft.parent.iterdir() if one.is_file()]
    for one in sorted(made, key=lambda one: one == draft):
        one.replace(target.with_name(one.name))
    if force:
        # What an earlier result had beside it, and this one has not.
        for old in files(target)[1:]:
            if old.name not in {one.name for one in made}:
                old.unlink()


@contextmanager
def _telling(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidOption(f"output '{target}': cannot be written: {error.strerror}") from error
