"""Archives of models that are folders: unpacked within bounds, and nothing outside of the folder that they are unpacked into."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from nnrp import _nnrp
from nnrp.errors import InvalidModel

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
#: Most files of an archive or a folder.
MOST_FILES = 10_000
#: How much larger than the archive its content may be, and how large in any case.
RATIO, ROOM = 200, 64 << 20
_CHUNK = 1 << 20
#: How a packed tar begins, and what unpacks it.
_PACKED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
#: What an entry of a tar may take besides its content.
_HEADERS = 4 << 10
#: What some systems put beside the content.
_JUNK = "__MACOSX"


def is_one(file: Path) -> bool:
    """Tell whether a file is an archive of a model, and not a model in a format that is an archive itself."""
    if not file.name.lower().endswith(SUFFIXES) or not file.is_file():
        return False
    try:
        _nnrp.format(file)
    except InvalidModel:
        return True
    return False


def stem(name: str) -> str:
    """The name of an archive without its ending."""
    ending = next((ending for ending in SUFFIXES if name.lower().endswith(ending)), "")
    return name[: len(name) - len(ending)] or "model"


def check_name(name: str) -> PurePosixPath:
    """Give a file's path below a folder.

    Raises:
        InvalidModel: it leads out of the folder, or is no name on every system.
    """
    path = PurePosixPath(name)
    odd = any(part in ("..", ".") or part != part.strip() or ":" in part or "\\" in part or not part.isprintable() for part in path.parts)
    if odd or path.is_absolute() or not path.parts:
        raise InvalidModel(f"source: expected names of files below it, got {name!r:.96}")
    return path


def unpack(file: Path, folder: Path, limit: int) -> None:
    """Unpack an archive into a folder that is not there yet, so that one entry lies in it: what the archive holds. Whoever keeps it has it written out.

    Raises:
        InvalidModel: it cannot be read; holds links, devices, names that lead out of the folder or the same name twice; or is larger than `limit`
            bytes, `RATIO` times the archive or `MOST_FILES` entries.
        OSError: the disk is full.
    """
    inside = folder / stem(file.name)
    inside.mkdir(parents=True)
    left = min(limit, file.stat().st_size * RATIO + ROOM)
    try:
        for number, (name, size, content) in enumerate(_zipped(file) if _is_zip(file) else _tarred(file, left)):
            if number >= MOST_FILES or size > left:
                raise InvalidModel(f"source: expected an archive of at most {MOST_FILES} files and {limit} bytes that are not mostly air")
            if content is not None:
                left -= _write(inside.joinpath(*check_name(name).parts), content, size)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InvalidModel(f"source: the archive cannot be unpacked: {type(error).__name__}") from error
    shutil.rmtree(inside / _JUNK, ignore_errors=True)
    entries_there = list(inside.iterdir())
    if not entries_there:
        raise InvalidModel("source: the archive holds nothing")
    if len(entries_there) == 1:
        aside = inside.rename(folder.with_name(f"{folder.name}.aside"))
        folder.rmdir()
        aside.rename(folder)


def _is_zip(file: Path) -> bool:
    """Whether it is one from its first byte: the end of a tar may be a zip that it holds."""
    with file.open("rb") as opened:
        return opened.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def _zipped(file: Path) -> Iterator[tuple[str, int, IO[bytes] | None]]:
    """Each entry's name, size and content; a folder has none."""
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or entry.flag_bits & 1:
                raise InvalidModel(f"source: expected an archive of plain files, got '{entry.filename:.96}'")
            if entry.is_dir():
                yield entry.filename, 0, None
            else:
                with archive.open(entry) as content:
                    yield entry.filename, entry.file_size, content


def _tarred(file: Path, left: int) -> Iterator[tuple[str, int, IO[bytes] | None]]:
    with _unpressed(file) as plain:
        stream: Any = _Bounded(plain, left + MOST_FILES * _HEADERS)
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for entry in archive:
                if not (entry.isreg() or entry.isdir()):
                    raise InvalidModel(f"source: expected an archive of plain files, got '{entry.name:.96}'")
                yield entry.name.removeprefix("./"), entry.size, archive.extractfile(entry)
        # What tells whether all of it is right stands at the end.
        while stream.read(_CHUNK):
            pass


@contextmanager
def _unpressed(file: Path) -> Iterator[IO[bytes]]:
    with file.open("rb") as packed:
        head = packed.read(6)
        packed.seek(0)
        opens = next((opens for begins, opens in _PACKED.items() if head.startswith(begins)), None)
        yield packed if opens is None else opens(packed)


class _Bounded:
    """A stream that ends in an error where it is longer than it may be, whatever is in it."""

    def __init__(self, stream: IO[bytes], left: int) -> None:
        self._stream, self._left = stream, left

    def read(self, size: int) -> bytes:
        """Give the next bytes."""
        piece = self._stream.read(size)
        self._left -= len(piece)
        if self._left < 0:
            raise InvalidModel("source: expected an archive that is not mostly air")
        return piece


def _write(target: Path, content: IO[bytes], size: int) -> int:
    """Write one file, of the size that the archive says and no other."""
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    # Made anew: what is there already would be the same name twice.
    with target.open("xb") as out:
        while chunk := content.read(_CHUNK):
            written += len(chunk)
            if written > size:
                raise InvalidModel("source: a file of the archive is larger than the archive says")
            out.write(chunk)
    return written
