"""``s3:``, ``gs:``, ``az:`` and ``hf:``, by fsspec's file systems. Each takes credentials from its own environment."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from nnrp.errors import ConnectionFailed, FileNotFound, InvalidOption, RuntimeNotInstalled

from . import CHUNK, File, Listing

#: Protocol → the module that speaks it, and its class.
KINDS = {
    "s3": ("s3fs", "S3FileSystem"),
    "gs": ("gcsfs", "GCSFileSystem"),
    "az": ("adlfs", "AzureBlobFileSystem"),
    "hf": ("huggingface_hub", "HfFileSystem"),
}
#: Where they keep what is open, for us to close: they leave it open as long as the process lives, or as long as nobody collects garbage.
OPEN = {"gs": "_session", "az": "service_client"}
#: What tells that an object is another now, in the words of the one or the other.
_TAGS = ("ETag", "etag", "md5Hash", "content_md5", "generation", "VersionId", "LastModified", "last_modified", "updated", "size")
#: How many bytes one request asks for.
_BLOCK = 8 << 20


class FileSystem:
    """A file or a folder in a bucket."""

    def __init__(self, kind: str, path: str) -> None:
        module, name = KINDS[kind]
        try:
            made = getattr(import_module(module), name)
        except ImportError as error:
            message = f"sources that begin with '{kind}:' need the package '{error.name or module}': pip install nnrp[{kind}]"
            raise RuntimeNotInstalled(message, needs=error.name or module, extra=kind) from error
        self._kind, self._path = kind, path.strip("/")
        # Nothing remembered: what is there now is what counts.
        options = {"endpoint": os.environ.get("HF_ENDPOINT")} if kind == "hf" else {}
        self._files: Any = made(skip_instance_cache=True, use_listings_cache=False, **options)

    def look(self, known: str) -> Listing | None:
        with _Trouble(self._kind):
            told = self._files.info(self._path)
            if told["type"] != "directory":
                listing = Listing(_tag(told), (_file(told, self._path.rpartition("/")[2]),))
            else:
                found = self._files.find(self._path, detail=True)
                each = [(one, name.strip("/").removeprefix(told["name"].strip("/")).strip("/")) for name, one in sorted(found.items())]
                files = tuple(_file(one, name) for one, name in each if name and one["type"] == "file")
                listing = Listing(" ".join(f"{file.name} {_tag(one)}" for file, (one, _) in zip(files, each, strict=False)), files, folder=True)
        if not listing.files:
            raise FileNotFound("source: no file is there")
        return None if known and known == listing.tag else listing

    def read(self, file: File, start: int) -> tuple[int, Iterator[bytes]]:
        return start, self._chunks(file, start)

    def close(self) -> None:
        opened = getattr(self._files, OPEN.get(self._kind, ""), None)
        if opened is not None:
            import_module("fsspec.asyn").sync(self._files.loop, opened.close)

    def _chunks(self, file: File, start: int) -> Iterator[bytes]:
        if start == file.size:
            return
        with _Trouble(self._kind), self._files.open(file.place, "rb", block_size=_BLOCK) as opened:
            opened.seek(start)
            while chunk := opened.read(CHUNK):
                yield chunk


class Hub(FileSystem):
    """A file or a folder in a repository of Hugging Face's hub, as it was at one commit."""

    def __init__(self, path: str) -> None:
        # The revision stands last, or behind the name as the hub itself writes it.
        fitting = re.fullmatch(r"(?P<repo>[^/@]+/[^/@]+)(?:@(?P<early>[^/@]+))?(?P<path>/[^@]*)?(?:@(?P<late>[^@]+))?", path.strip("/"))
        if fitting is None or (fitting["early"] and fitting["late"]):
            raise InvalidOption("source: expected hf:ORGANISATION/NAME/PATH@REVISION")
        super().__init__("hf", path)
        self._repo, self._within = fitting["repo"], (fitting["path"] or "").strip("/")
        self._revision = fitting["early"] or fitting["late"]

    def look(self, known: str) -> Listing | None:
        import huggingface_hub

        with _Trouble("hf"):
            commit = huggingface_hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT")).repo_info(self._repo, revision=self._revision).sha
        if known and known == commit:
            return None
        self._path = f"{self._repo}@{commit}/{self._within}".rstrip("/")
        listing = super().look("")
        assert listing is not None
        return Listing(str(commit), listing.files, listing.folder)


def _tag(told: dict[str, Any]) -> str:
    return " ".join(str(told[key]) for key in _TAGS if told.get(key) is not None)


def _file(told: dict[str, Any], name: str) -> File:
    large = told.get("lfs") or {}
    digest = large.get("sha256") if isinstance(large, dict) else getattr(large, "sha256", None)
    return File(name, told.get("size"), digest, str(told["name"]))


class _Trouble:
    """Turns what these packages raise, each its own, into our errors; what they say may hold URLs with keys and is not repeated."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        answered = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, FileNotFoundError | PermissionError) or answered in (401, 403, 404, 410):
            raise FileNotFound(f"source: {self._kind} has no such file, or none that may be read here") from error
        if isinstance(error, Exception):
            raise ConnectionFailed(f"source: {self._kind} cannot be reached: {type(error).__name__}") from error
