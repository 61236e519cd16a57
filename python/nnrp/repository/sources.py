"""Models that are elsewhere: ``https:``, ``s3:``, ``gs:``, ``az:``, ``hf:``, ``oci:`` and ``file:``, fetched once into the cache (docs/guide/sources.md)."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from nnrp.errors import ConnectionFailed, FileNotFound, InvalidModel, InvalidOption, LoadFailed

from . import archive, cache, parts
from .stores import File, Listing, Store

LOG = logging.getLogger("nnrp.repository")
#: Most bytes of a source, unless NNRP_SOURCE_LIMIT says otherwise.
LIMIT = 64 << 30
#: How often in a row a connection may break without having brought anything.
_STALLS = 2
_SCHEMES = re.compile(r"(file|https?|s3|gs|az|hf|oci):")
#: A bucket, or in its place what Amazon calls its access points by, or Azure its accounts; and what is in it.
_BUCKET = re.compile(r"(?://)?(?:arn:[\w:/.-]+|[A-Za-z0-9][\w.-]{2,221}(?:@[\w.-]+)?)(?:/.{0,1024})?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: What the last part of a URL ends in when it names a file, and not a model on another server.
FILES = (".onnx", ".ort", ".tflite", ".pb", ".pt", ".pt2", ".pth", ".mlmodel", ".vmfb", ".mnn", ".pte", ".gguf", ".jax", ".plan", ".engine", ".safetensors")

#: Takes a file's name and how many bytes of it are here.
Progress = Callable[[str, int], None]


def is_one(text: str, runtimes: Sequence[str] = ()) -> bool:
    """Tell whether a text names a model to be fetched.

    ``http:`` and ``https:`` also name models on other servers: they are to be fetched where the digest is said, another runtime than ``remote`` is
    wanted, or the path ends as a file does.
    """
    kind = _SCHEMES.match(text)
    if kind is None or kind[1] not in ("http", "https"):
        return kind is not None
    if runtimes:
        return "remote" not in runtimes
    return "#" in text or _path(text).lower().endswith((*FILES, *archive.SUFFIXES))


def has_scheme(text: str) -> bool:
    """Tell whether a text begins as a source elsewhere does."""
    return _SCHEMES.match(text) is not None


def fetch(text: str, sha256: str | None = None) -> Path:
    """Give the file or folder of a source, from the cache where that has it; an archive's content, unpacked.

    Args:
        text: the source; ``#sha256=…`` behind it says its digest.
        sha256: its digest, said elsewhere. An archive's is that of the archive.

    Raises:
        FileNotFound: nothing is there that may be read here.
        InvalidModel: the digest is another, or the source is larger than the limit.
        ConnectionFailed: it cannot be reached, and is not in the cache.
        RuntimeNotInstalled: the package that speaks its protocol is not installed.
        InvalidOption, LoadFailed.
    """
    plain, said = _fragment(text)
    _check_text(plain)
    if said and sha256 and cache.check_digest(said) != cache.check_digest(sha256):
        raise InvalidOption("sha256: expected what '#sha256=' says too, got another", path="sha256")
    wanted = cache.check_digest(said or sha256 or "") if said or sha256 else ""
    if plain.startswith("file:"):
        return local(_file(plain), wanted)
    place = cache.Place(plain)
    if wanted and (found := place.verified(wanted)):
        return found
    with place.alone(), _disk():
        if wanted and (found := place.verified(wanted)):
            return found
        if os.environ.get("NNRP_OFFLINE", "0") not in ("", "0"):
            return _kept(place, wanted)
        with closing(_store(plain)) as store:
            return _fetch(place, store, wanted, _last(plain))


def held(text: str, sha256: str | None, place: Path) -> dict[str, str]:
    """Tell which digest what a source gave must have at each load, by its path; nothing where none was said."""
    said = _fragment(text)[1] or sha256
    return {str(path): digest for path, digest in [cache.held(place, said)]} if said else {}


def _fragment(text: str) -> tuple[str, str]:
    """Take a source apart from the digest that it says; empty where it says none."""
    plain, sign, fragment = text.partition("#")
    if not sign:
        return plain, ""
    key, _, said = fragment.partition("=")
    if key != "sha256":
        raise InvalidOption(f"source: expected '#sha256=…', got '#{key:.32}'", path="source", expected="#sha256=…", got=f"#{key:.32}")
    return plain, cache.check_digest(said)


def _check_text(text: str) -> None:
    """Refuse what names nothing, before anything is asked for it; what is in it may be a secret and is not repeated.

    Raises:
        InvalidOption.
    """
    kind, _, rest = text.partition(":")
    if _CONTROL.search(text):
        raise InvalidOption(f"source: expected {kind}: and no control characters in it")
    if kind in ("s3", "gs", "az") and not _BUCKET.fullmatch(rest):
        raise InvalidOption(f"source: expected {kind}://BUCKET/PATH, of a bucket's name of 3 to 222 letters, digits, '.', '_' and '-'")
    if kind in ("http", "https"):
        try:
            parts = urlsplit(text)
            # A port is looked at when it is asked for.
            _ = parts.port, (parts.hostname or "").encode("idna")
        except ValueError as error:
            raise InvalidOption(f"source: expected {kind}://HOST/PATH, got a host or a port that can be none") from error
        if " " in text:
            raise InvalidOption(f"source: expected {kind}://HOST/PATH with %20 for a space")


def _file(text: str) -> Path:
    """The path of a ``file:`` URL."""
    path = text.removeprefix("file:")
    if path.startswith("//"):
        host, _, path = path[2:].partition("/")
        if host not in ("", "localhost"):
            raise InvalidOption(f"source: expected file:///PATH, or file:PATH of a path that does not begin with a slash, got the host '{host:.96}'")
        path = f"/{path}"
    path = unquote(path)
    if path in ("", "/") or _CONTROL.search(path):
        raise InvalidOption("source: expected file:PATH")
    return Path(path)


def name(text: str) -> str:
    """What to call the model of a source: its file without the ending, or the folder where the file is called ``model``."""
    parts = [re.sub("[@:].*", "", unquote(part)) for part in _path(text).split("/")]
    named = [part for part in parts if part][-2:] or ["model"]
    last = Path(archive.stem(named[-1]) if named[-1].lower().endswith(archive.SUFFIXES) else named[-1])
    called = last.stem if last.stem != "model" else named[0]
    return re.sub(r"[^\w.-]", "_", called) or "model"


def _path(text: str) -> str:
    """What stands behind a source's host or bucket, or behind its scheme where no host is said."""
    path = re.sub(r"[?#].*", "", text.partition(":")[2], flags=re.DOTALL)
    return path[2:].partition("/")[2] if path.startswith("//") else path


def _last(text: str) -> str:
    """What to call a folder in the cache."""
    last = re.sub("[@:].*", "", _path(text).rstrip("/").rpartition("/")[2])
    return last if re.fullmatch(r"\w[\w.-]{0,127}", last) else "model"


def _kept(place: cache.Place, wanted: str) -> Path:
    if kept := _before(place, place.known(), wanted):
        return kept
    raise ConnectionFailed("source: it is not in the cache, and NNRP_OFFLINE says that nothing is fetched")


def _before(place: cache.Place, known: dict[str, Any] | None, wanted: str) -> Path | None:
    """What was fetched last, where that is what is wanted."""
    if known is None or wanted not in ("", known["digest"]):
        return None
    return place.verified(wanted) if wanted else place.content(known["digest"])


def local(path: Path, sha256: str = "") -> Path:
    """Give a file or folder of this machine, of that digest where one is said; an archive's content, unpacked."""
    if not path.exists():
        raise FileNotFound(f"no file or folder '{path}'")
    packed = path.is_file() and archive.is_one(path)
    got, each = (cache.digest(path), dict[str, str]()) if packed else parts.digest(path) if sha256 else ("", {})
    if sha256 and got != sha256:
        names = ", ".join(f"'{name[:96]}'" for name in list(each)[:8] if name != path.name)
        of = f", of '{path.name}' and {names}, of which the model is" if names else ""
        raise InvalidModel(f"source: expected sha256 {sha256}, got {got}{of}", expected=sha256, got=got)
    if not packed:
        return path
    place = cache.Place(got)
    with place.alone(), _disk():
        if found := place.verified(got) if sha256 else place.content(got):
            return found
        shutil.rmtree(place.partial, ignore_errors=True)
        archive.unpack(path, place.partial / "content", limit())
        return place.keep(place.partial / "content", got, "", unpacked=True)


def limit() -> int:
    """Most bytes of a source."""
    said = os.environ.get("NNRP_SOURCE_LIMIT", "")
    if said and not said.isdigit():
        raise InvalidOption(f"NNRP_SOURCE_LIMIT: expected a number of bytes, got '{said:.96}'")
    return int(said or LIMIT)


def _store(text: str) -> Store:
    kind, _, rest = text.partition(":")
    if kind in ("http", "https"):
        from .stores.web import Web

        return Web(text)
    if kind == "oci":
        from .stores.oci import Registry

        return Registry(rest.removeprefix("//"))
    from .stores.filesystem import FileSystem, Hub

    path = rest.removeprefix("//")
    return Hub(path) if kind == "hf" else FileSystem(kind, path)


def _fetch(place: cache.Place, store: Store, wanted: str, name: str) -> Path:
    known = place.known()
    kept = _before(place, known, wanted)
    try:
        listing = store.look(known["tag"] if known and kept else "")
    except ConnectionFailed as error:
        if kept is None:
            raise
        LOG.warning("%s; what was fetched before is used", error.message)
        return kept
    if listing is None:
        assert kept is not None
        return kept
    _check(listing)
    whole = _download(place, store, listing, wanted)
    got = cache.digest(whole)
    if wanted and got != wanted:
        shutil.rmtree(place.partial, ignore_errors=True)
        raise InvalidModel(f"source: expected sha256 {wanted}, got {got}", expected=wanted, got=got)
    packed = whole.is_file() and archive.is_one(whole)
    return place.keep(_content(place, whole, name, packed), got, listing.tag, packed)


def _check(listing: Listing) -> None:
    total, most = sum(file.size or 0 for file in listing.files), limit()
    if total > most or len(listing.files) > archive.MOST_FILES:
        message = f"source: expected at most {most} bytes and {archive.MOST_FILES} files, got {total} and {len(listing.files)}: NNRP_SOURCE_LIMIT says more"
        raise InvalidModel(message, expected=most, got=total)
    for file in listing.files:
        archive.check_name(file.name)


def _download(place: cache.Place, store: Store, listing: Listing, wanted: str) -> Path:
    """Fetch what is not there yet; what came earlier counts while the source is the same, or the digest tells in the end."""
    tag = place.partial / "tag"
    same = (listing.tag or wanted) and tag.is_file() and tag.read_text(encoding="utf-8") == listing.tag
    if not same:
        shutil.rmtree(place.partial, ignore_errors=True)
    files = place.partial / "files"
    files.mkdir(parents=True, exist_ok=True)
    tag.write_text(listing.tag, encoding="utf-8")
    left = limit()
    with _progress(listing) as progress:
        for file in listing.files:
            target = files.joinpath(*archive.check_name(file.name).parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            left -= _one(store, file, target, left, progress)
    return files if listing.folder else files / archive.check_name(listing.files[0].name)


def _one(store: Store, file: File, target: Path, left: int, progress: Progress) -> int:
    """Fetch one file, going on where a connection broke."""
    stalls = 0
    while True:
        start = target.stat().st_size if target.exists() else 0
        try:
            _append(target, *store.read(file, start), left, partial(progress, file.name))
            break
        except ConnectionFailed:
            stalls = 0 if target.exists() and target.stat().st_size > start else stalls + 1
            if stalls > _STALLS:
                raise
    size = target.stat().st_size
    wrong = (file.size is not None and size != file.size and f"{file.size} bytes") or (file.sha256 and cache.digest(target) != file.sha256 and file.sha256)
    if wrong:
        target.unlink()
        raise InvalidModel(f"source: '{file.name:.96}': expected {wrong}, as is told there, got {size} bytes of other content")
    return size


def _append(target: Path, began: int, data: Iterator[bytes], left: int, progress: Callable[[int], None]) -> None:
    with target.open("ab") as out:
        out.truncate(began)
        progress(began)
        at = began
        for chunk in data:
            at += len(chunk)
            if at > left:
                raise InvalidModel(f"source: expected at most {limit()} bytes, got more: NNRP_SOURCE_LIMIT says more")
            out.write(chunk)
            progress(at)
        out.flush()
        os.fsync(out.fileno())


def _content(place: cache.Place, whole: Path, name: str, packed: bool) -> Path:
    """A folder with the one model in it."""
    content = place.partial / "content"
    shutil.rmtree(content, ignore_errors=True)
    if packed:
        archive.unpack(whole, content, limit())
        return content
    content.mkdir()
    whole.rename(content / (whole.name if whole.is_file() else name))
    return content


@contextmanager
def _disk() -> Iterator[None]:
    """Turns what the disk refuses into our error."""
    try:
        yield
    except (FileNotFound, ConnectionFailed):
        raise
    except OSError as error:
        raise LoadFailed(f"source: the cache cannot be written: {error.strerror or type(error).__name__}") from error


@contextmanager
def _progress(listing: Listing) -> Iterator[Progress]:
    """Show how far it is, on a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _, __: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=console, transient=True) as bars:
        sizes = [file.size for file in listing.files]
        task = bars.add_task(listing.files[0].name[:40], total=None if None in sizes else sum(size or 0 for size in sizes))
        here: dict[str, int] = {}

        def told(name: str, at: int) -> None:
            here[name] = at
            bars.update(task, completed=sum(here.values()), description=name[-40:])

        yield told
