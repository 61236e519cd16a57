"""What a source's protocol must do for the cache: say what is there, and give bytes from any place on. One module a protocol."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

#: How many bytes are read at once.
CHUNK = 1 << 20


@dataclass(frozen=True)
class File:
    """One file of a source.

    Attributes:
        name: its path below the source, with slashes; or its own name where it is the source.
        size: bytes; None where nobody says before it is read.
        sha256: its digest in hexadecimal digits, where the protocol tells it; it is then checked.
        place: what the store calls it.
    """

    name: str
    size: int | None = None
    sha256: str | None = None
    place: str = ""


@dataclass(frozen=True)
class Listing:
    """What a source holds now.

    Attributes:
        tag: changes when the content does; empty where nobody can tell.
        files: a folder's files, or the one file.
        folder: whether it is a folder.
    """

    tag: str
    files: tuple[File, ...]
    folder: bool = False


class Store(Protocol):
    """One source."""

    def look(self, known: str) -> Listing | None:
        """Tell what is there; None where that is still what `known`, an earlier listing's tag, stands for.

        Raises:
            FileNotFound: nothing is there, or nothing that may be read.
            ConnectionFailed: it cannot be reached.
        """

    def read(self, file: File, start: int) -> tuple[int, Iterator[bytes]]:
        """Give the bytes from `start` on, or from 0 where that cannot be had or the file is another meanwhile: where they begin, and they.

        Raises:
            ConnectionFailed: the connection broke; what came before is good.
        """

    def close(self) -> None:
        """End what is open."""
