"""What was fetched, by its content: each model once, whole and verified, however many sources and processes want it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nnrp.errors import InvalidOption, LoadFailed


def root() -> Path:
    """The folder of the cache: what NNRP_CACHE names, or ``nnrp`` in the user's folder for caches."""
    if named := os.environ.get("NNRP_CACHE"):
        return Path(named)
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/nnrp"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "nnrp"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nnrp"


def around(path: Path) -> Path | None:
    """Tell the folder of what was fetched, or unpacked, that a path is in; None where it is no such thing."""
    contents, whole = (root() / "content").resolve(), path.resolve()
    return contents / whole.relative_to(contents).parts[0] if contents in whole.parents else None


class Place:
    """What the cache knows of one source.

    content/DIGEST/NAME    a model, a file or a folder
    unpacked/DIGEST        the digest of what an archive of that digest held
    sources/KEY.json       which content a source had, and its tag then
    partial/KEY/           what came of it so far
    locks/KEY              held by the one process that fetches it
    """

    def __init__(self, source: str) -> None:
        import hashlib  # which brings OpenSSL along, 3.4 MB that a server of local files does not need

        self._root, key = root(), hashlib.sha256(source.encode()).hexdigest()
        self._record, self.partial, self._lock = self._root / f"sources/{key}.json", self._root / f"partial/{key}", self._root / f"locks/{key}"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process fetches this source, and keep others waiting."""
        try:
            self._lock.parent.mkdir(parents=True, exist_ok=True)
            held = self._lock.open("wb")
        except OSError as error:
            raise LoadFailed(f"source: the cache cannot be written: {error.strerror}") from error
        with held:
            _hold(held.fileno())
            yield

    def known(self) -> dict[str, Any] | None:
        """Tell what the source had when it was fetched last: digest and tag. None where that is not here any more."""
        try:
            told = json.loads(self._record.read_text(encoding="utf-8"))
            return told if self.content(told["digest"]) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def content(self, digest: str) -> Path | None:
        """The model of a digest, where it is here."""
        try:
            (one,) = (self._root / "content" / digest).iterdir()
        except (OSError, ValueError):
            return None
        return one

    def verified(self, wanted: str) -> Path | None:
        """The model of a digest, where it is here and still what was kept; all of it is read."""
        one = self.content(wanted)
        try:
            if one is None or digest(one) in (wanted, self._held(wanted)):
                return one
        except OSError:
            pass
        return None

    def _held(self, packed: str) -> str:
        """Tell the digest of what an archive held; empty where it was none."""
        told = self._root / "unpacked" / packed
        return told.read_text(encoding="utf-8") if told.is_file() else ""

    def _write(self, file: Path, text: str) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        written = file.with_name(f"{file.name}.{os.getpid()}")
        written.write_text(text, encoding="utf-8")
        written.replace(file)

    def keep(self, folder: Path, digest: str, tag: str, unpacked: bool = False) -> Path:
        """Move a folder that holds one model, whole and verified, to its place, and remember what it came from.

        Args:
            folder: holds it.
            digest: of what was fetched.
            tag: what the source says to ask whether it changed.
            unpacked: it was fetched as an archive.
        """
        place = self._root / "content" / digest
        place.parent.mkdir(parents=True, exist_ok=True)
        _write_out(folder)
        if unpacked:
            self._write(self._root / "unpacked" / digest, _digest_in(folder))
        if self.verified(digest) is None:
            # What is no model was broken from outside.
            shutil.rmtree(place, ignore_errors=True)
            try:
                folder.rename(place)
            except OSError:
                if self.content(digest) is None:
                    raise
        self._write(self._record, json.dumps({"digest": digest, "tag": tag}))
        shutil.rmtree(self.partial, ignore_errors=True)
        found = self.content(digest)
        assert found is not None
        return found


def _write_out(folder: Path) -> None:
    """Have the disk hold what is in a folder, so that what has its place is whole after a power cut too: all at once, since each file alone takes long."""
    if sys.platform == "linux":
        import ctypes

        place = os.open(folder, os.O_RDONLY)
        try:
            written = ctypes.CDLL(None, use_errno=True).syncfs(place) == 0
            number = ctypes.get_errno()
        finally:
            os.close(place)
        if not written:
            raise OSError(number, os.strerror(number))
    elif hasattr(os, "sync"):
        os.sync()
    else:
        for file in folder.rglob("*"):
            if file.is_file():
                with file.open("r+b") as opened:
                    os.fsync(opened.fileno())


def _digest_in(folder: Path) -> str:
    (one,) = folder.iterdir()
    return digest(one)


def _hold(number: int) -> None:
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(number, fcntl.LOCK_EX)
    else:
        import msvcrt

        held = False
        while not held:
            # It gives up after ten seconds, and the download that it waits for may take hours.
            with suppress(OSError):
                msvcrt.locking(number, msvcrt.LK_LOCK, 1)
                held = True


def digest(path: Path) -> str:
    """Give the digest of a file; of a folder, that of the lines ``DIGEST  NAME`` of its files, in the order of their names, as sha256sum writes them."""
    from nnrp import _nnrp

    return _nnrp.digest(path)


def held(path: Path, said: str) -> tuple[Path, str]:
    """Tell what of a path has which digest where its source has this one: an archive's content has one of its own."""
    whole, named, came = path.absolute(), check_digest(said), around(path)
    told = root() / "unpacked" / named
    unpacked = came is not None and came.name == named and told.is_file()
    return whole, told.read_text(encoding="utf-8") if unpacked else named


def check_digest(said: str) -> str:
    """Give a digest in 64 small hexadecimal digits; ``sha256:`` may stand before it."""
    plain = said.removeprefix("sha256:").lower()
    if len(plain) != 64 or not all(letter in "0123456789abcdef" for letter in plain):
        raise InvalidOption(f"sha256: expected 64 hexadecimal digits, got '{said:.96}'", path="sha256", expected="64 hexadecimal digits", got=said[:96])
    return plain
