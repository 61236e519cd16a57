"""A Core ML package on disk: its model message, and the weights beside it. Nothing outside the package is ever opened."""

from __future__ import annotations

import json
import os
import struct
from functools import cached_property
from pathlib import Path
from typing import Any

from nnrp.errors import FileNotFound, InvalidModel, LoadFailed, NotOffered
from nnrp.runtimes.coreml.schema import CORE_ML, messages

#: What stands for the model file's own folder in the names of weight files.
HERE = "@model_path/"
#: Largest manifest, and largest model message, which protobuf bounds.
MANIFEST_LIMIT, MESSAGE_LIMIT = 1 << 20, (1 << 31) - 1
#: Most objects and lists in a manifest.
MOST_ITEMS = 500
#: The weight file: a head of 64 bytes, a record of 64 bytes for each weight, and the weights.
VERSION, MARK, HEAD = 2, 0xDEADBEEF, 64
#: The record's number of an element type → ours.
KINDS = {
    1: "fp16",
    2: "fp32",
    3: "uint8",
    4: "int8",
    5: "bf16",
    6: "int16",
    7: "uint16",
    8: "int4",
    9: "uint1",
    10: "uint2",
    11: "uint4",
    12: "uint3",
    13: "uint6",
    14: "int32",
    15: "uint32",
    16: "fp8e4m3fn",
    17: "fp8e5m2",
}


def bad(what: str, **details: Any) -> InvalidModel:
    """The error of a file that does not say what a package says."""
    return InvalidModel(f"model file: {what}", runtime="coreml", **details)


class Package:
    """A `.mlpackage` folder, or a `.mlmodel` file alone.

    Attributes:
        root: the folder that holds all that belongs to the model.
        file: the file with the model message.
    """

    def __init__(self, path: str) -> None:
        whole = Path(path)
        if whole.is_dir():
            self.root = whole.resolve()
            self.file = self._within(self.root / "Data", _item(self._manifest()))
        else:
            self.root, self.file = whole.resolve().parent, whole.resolve()

    def _manifest(self) -> Any:
        text = _read(self._within(self.root, "Manifest.json"), MANIFEST_LIMIT)
        # Before it is parsed: Python's parser recurses, and what is left behind by one that went too deep breaks others.
        if text.count(b"[") + text.count(b"{") > MOST_ITEMS:
            raise bad(f"Manifest.json: expected at most {MOST_ITEMS} objects and lists, got more")
        try:
            return json.loads(text)
        except ValueError as error:
            raise bad("Manifest.json: expected JSON, got something else") from error

    def _within(self, folder: Path, name: str) -> Path:
        """A file of the package by its name; neither dots nor links lead out."""
        if not name or "\0" in name or Path(name).is_absolute():
            raise bad(f"expected the name of a file in the package, got '{name[:96]}'")
        found = (folder / name).resolve()
        if not found.is_relative_to(self.root):
            raise bad(f"'{name[:96]}' lies outside the package")
        return found

    @cached_property
    def model(self) -> Any:
        """The model message.

        Raises:
            InvalidModel, FileNotFound, NotOffered.
        """
        from google.protobuf.message import DecodeError

        content = _read(self.file, MESSAGE_LIMIT)
        try:
            return messages(CORE_ML)["Model"].FromString(content)
        except DecodeError as error:
            raise bad("expected a Core ML model, got bytes that are none") from error

    def weight(self, name: str, offset: int) -> tuple[str, bytes]:
        """Read one weight: its element type, and its bytes.

        Args:
            name: the file, as the model message says it.
            offset: where its record lies.
        """
        file = self._within(self.file.parent, name.removeprefix(HERE))
        with _opened(file) as opened:
            size = os.fstat(opened.fileno()).st_size
            version = struct.unpack("<II", _at(opened, 0, 8, size))[1]
            if version != VERSION:
                raise NotOffered(f"model file: weights of version {version}: expected {VERSION}", runtime="coreml")
            mark, kind, byte_size, start = struct.unpack("<IIQQ", _at(opened, offset, 24, size))
            if mark != MARK or kind not in KINDS or offset < HEAD:
                raise bad(f"weights: expected a weight's record at {offset}, got something else")
            return KINDS[kind], _at(opened, start, byte_size, size)


def _item(manifest: Any) -> str:
    """Where the manifest says that the model lies, below Data."""
    try:
        path = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
    except (KeyError, TypeError) as error:
        raise bad("Manifest.json: expected rootModelIdentifier and the path of that item") from error
    if not isinstance(path, str):
        raise bad("Manifest.json: expected the path of the model as a text")
    return path


def _opened(file: Path) -> Any:
    try:
        if not file.is_file():
            raise FileNotFoundError
        return file.open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFound(f"model file: the package has no file '{file.name[:96]}'", runtime="coreml") from error
    except OSError as error:
        raise LoadFailed(f"model file: cannot be read: {error.strerror}", runtime="coreml") from error


def _read(file: Path, limit: int) -> bytes:
    with _opened(file) as opened:
        size = os.fstat(opened.fileno()).st_size
        if size > limit:
            raise NotOffered(f"model file: '{file.name[:96]}': expected at most {limit} bytes, got {size}", runtime="coreml", byte_size=size)
        content: bytes = opened.read(limit)
        return content


def _at(opened: Any, start: int, length: int, size: int) -> bytes:
    """Bytes of a file, if it has them: nothing is allocated for what is not there."""
    if start + length > size:
        raise bad(f"weights: expected {length} bytes at {start}, got a file of {size}")
    opened.seek(start)
    content: bytes = opened.read(length)
    if len(content) != length:
        raise bad("weights: the file was shortened while it was read")
    return content
