"""Where models come from: a file, a model's folder, a repository ``NAME/VERSION/model.onnx``, or a ``model.toml`` that describes one; each also as
``NAME=PATH``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from nnrp.errors import FileNotFound, InvalidModel, InvalidOption, NnrpError, VersionNotFound

from . import archive, cache, description, sources

if TYPE_CHECKING:
    from nnrp.engine import Engine

#: What a file is called inside a version's folder, and what makes a file a model.
SUFFIXES = (".onnx", ".ort", ".xml", ".tflite", ".pb", ".pdmodel", ".gguf", ".py")
#: What makes a folder a model itself.
CONTENTS = ("saved_model.pb", "Manifest.json")
#: What such a folder is called inside a version's folder.
FOLDERS = (".savedmodel", ".mlpackage")
#: How many descriptions may lead one to the next, and how many have until here.
STEPS = 4
_steps: ContextVar[int] = ContextVar("steps", default=0)


@dataclass(frozen=True)
class Source:
    """One model version that can be loaded.

    Attributes:
        said: what else its description says.
        digests: files and folders, and the digest that was said of each and that it had just now.
    """

    name: str
    version: str
    path: Path | str
    said: Mapping[str, Any] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)


#: Is told of a model that cannot be loaded, or whose description leads to none.
Refused: TypeAlias = Callable[[NnrpError], object]


def find(path: str | os.PathLike[str], name: str | None = None, runtimes: Sequence[str] = (), refused: Refused | None = None) -> list[Source]:
    """List the model versions below a path.

    Args:
        path: a model file; a folder ``VERSION/model.onnx``; a repository of such folders, ``NAME/VERSION/model.onnx``; or a description, a file that
            ends in ``.toml``. Folders may hold descriptions, ``model.toml``. Also ``NAME=PATH``, where no file is called so.
            Or a source elsewhere, ``https:``, ``s3:``, ``gs:``, ``az:``, ``hf:`` or ``oci:``, which is fetched first; or an archive of what is named here.
            What else has a colon and is no file, as a URL or ``module:function``, is a model of a runtime that reads none.
        name: what to call the one model there. Default: what its description says, the file's name without suffix, or the folder's where the file is
            called ``model``.
        runtimes: those that are wanted; a URL names a file where another than ``remote`` is.
        refused: is told of each model whose description leads to none, which is then passed over; default: the first such error is raised.

    Returns:
        The versions, by name and version. Folders that start with a dot are passed over.

    Raises:
        FileNotFound: nothing is there, or no model is in it.
        InvalidOption: one name was given for several models, the folder is half a model's and half a repository, or a description contradicts its place.
        Malformed: a description cannot be read.
    """
    text, name = _named(os.fsdecode(path), name)
    place = Path(text)
    if sources.is_one(text, runtimes) and not _is_there(place):
        place = sources.fetch(text)
        digests = sources.held(text, None, place)
        return [replace(source, digests={**source.digests, **digests}) for source in _at(place, name, name or sources.name(text), refused)]
    if ":" in text and not _is_there(place):
        return [Source(name or re.split("[:/]", text)[-1], "1", text)]
    return _at(place, name, name, refused)


def _at(place: Path, given: str | None, name: str | None, refused: Refused | None) -> list[Source]:
    """The versions in a file or a folder of this machine.

    Args:
        place: which.
        given: what somebody calls the one model there.
        name: likewise, or what its source is called.
        refused: as `find` takes it.
    """
    if not _is_there(place):
        raise FileNotFound(f"no file or folder '{place!s:.256}'")
    if place.is_file() and place.suffix == ".toml":
        return [replace(source, name=given or source.name) for source in _unless_refused(_described(place), given or place.parent.resolve().name, refused)]
    if archive.is_one(place):
        place, name = sources.local(place), name or archive.stem(place.name)
    if is_model(place):
        return [Source(name or _name_of(place), "1", place)]
    name = given
    if not place.is_dir():
        raise FileNotFound(f"'{place}' is neither a file nor a folder")
    passed_over: list[NnrpError] = []

    def tell(error: NnrpError) -> None:
        passed_over.append(error)
        if refused is not None:
            refused(error)

    found = _found(place, refused and tell)
    if not found and not passed_over:
        raise FileNotFound(f"no model in '{place}': expected a file, VERSION/model.onnx or NAME/VERSION/model.onnx")
    if name is None:
        return found
    models = {source.name for source in found}
    if len(models) > 1:
        raise InvalidOption(f"name '{name}': expected one model in '{place}', got {len(models)}")
    return [replace(source, name=name) for source in found]


def _unless_refused(found: Iterable[Source], name: str, refused: Refused | None) -> list[Source]:
    """What is found of one model; nothing where it is refused and somebody wants to be told."""
    try:
        return list(found)
    except NnrpError as error:
        if refused is None:
            raise
        refused(_of(Source(name, "", ""), error))
        return []


def _found(place: Path, refused: Refused | None) -> list[Source]:
    versions = _unless_refused(_model(place, place.resolve().name), place.resolve().name, refused)
    models = [source for folder in _folders(place) for source in _unless_refused(_model(folder, folder.name), folder.name, refused)]
    if versions and models:
        stray = f"{versions[0].version}/{Path(versions[0].path).name}"
        message = (
            f"'{place}' is both a model's folder, for '{stray}', and a repository, for the model '{models[0].name}': put '{stray}' into a version's folder"
        )
        raise InvalidOption(message)
    return versions or models


def _described(file: Path) -> Iterator[Source]:
    """What a description given by itself is about: its source, or what lies in its folder."""
    said = description.read(file)
    folder = file.resolve().parent
    if where := description.place(said, file.parent):
        yield _one(where, said, None)
        return
    found = list(_versions(folder, folder.name, said)) or [Source(folder.name, "1", one, said) for one in _files(folder)[:1]]
    if not found:
        raise FileNotFound(f"{file.name}: expected 'source' or 'path', or a model beside it")
    yield from map(_under, found)


def _model(folder: Path, name: str) -> Iterator[Source]:
    """The versions of the model in a folder: one a folder below it, or the one that its description says."""
    said = description.read(folder / description.FILE)
    where = description.place(said, folder)
    versions = list(_versions(folder, name, said))
    if where is None:
        yield from map(_under, versions)
    elif versions:
        raise InvalidOption(f"'{folder}': expected versions in folders, or a source in {description.FILE}, got both")
    else:
        yield _one(where, said, name)


def _one(where: str, said: dict[str, Any], name: str | None, version: str = "1") -> Source:
    """The one model that a description says where to find."""
    digest = said.pop("sha256", None)
    wanted, digests = _runtimes(said), dict[str, str]()
    with _step(where):
        if sources.has_scheme(where) and "remote" not in wanted:
            place = sources.fetch(where, digest)
            found, digests = find(str(place), sources.name(where)), sources.held(where, digest, place)
        elif sources.has_scheme(where):
            found = find(where, runtimes=wanted)
        else:
            place = sources.local(Path(where), cache.check_digest(digest)) if digest else Path(where)
            found, digests = find(str(place) if digest else where), sources.held("", digest, place)
    if len(found) != 1 or found[0].said:
        raise InvalidOption(f"{description.FILE}: expected one model at its source, got {len(found) if len(found) != 1 else 'another description'}")
    return _under(Source(name or found[0].name, version, found[0].path, said, {**found[0].digests, **digests}))


@contextmanager
def _step(where: str) -> Iterator[None]:
    """One description more on the way to a model; a way that leads in circles ends here."""
    before = _steps.set(_steps.get() + 1)
    try:
        if _steps.get() > STEPS:
            place = sources.name(where) if sources.has_scheme(where) else where
            message = f"{description.FILE}: expected a model after at most {STEPS} descriptions, got another that leads to '{place:.256}'"
            raise InvalidOption(message, path="source" if sources.has_scheme(where) else "path", expected="a model", got="a description")
        yield
    finally:
        _steps.reset(before)


def _under(source: Source) -> Source:
    """A source under the name and the version that its description says."""
    said = dict(source.said)
    name, version = said.pop("name", source.name), said.pop("version", source.version)
    return replace(source, name=name, version=version, said=said)


def _is_there(place: Path) -> bool:
    """Whether there is something; a name that no file can have is none's."""
    try:
        return place.exists()
    except OSError:
        return False


def is_model(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is one model, not a folder that holds some."""
    return Path(path).is_file() or any(Path(path, name).is_file() for name in CONTENTS)


def only(path: str, name: str | None, version: str | None, runtimes: Sequence[str]) -> Source:
    """Find the one model version that is meant; of a folder of one version that one, or the one of that name.

    Raises:
        VersionNotFound: none has it.
        InvalidOption: there are several.
    """
    found = find(path, name, runtimes)
    if len(found) > 1 or (os.path.isdir(path) and not is_model(path)):
        there = [source.version for source in found]
        found = [source for source in found if version in (None, source.version)]
        if not found:
            raise VersionNotFound(f"model folder: no version '{version!s:.96}': expected one of {', '.join(there[:16])}", version=version)
        if len(found) != 1:
            several = ", ".join(f"{source.name} {source.version}" for source in found[:8])
            raise InvalidOption(f"model folder: expected one model version, got {len(found)}: {several}; say which file is meant")
    return replace(found[0], version=version or found[0].version)


def load(
    engine: Engine,
    paths: Iterable[str | os.PathLike[str]],
    options: Mapping[str, Any] | None = None,
    refused: Refused | None = None,
    **described: Any,
) -> None:
    """Load every model version below the paths.

    Args:
        engine: what loads them.
        paths: each as `find` takes it.
        options: the runtime's options for all of them.
        refused: is told of each model that cannot be loaded, is not there, or whose description leads to none; default: the first such error is raised.
        described: what else `Engine.load` takes for all of them: runtime, device, precision. It wins over what a description says.

    Raises:
        FileNotFound, InvalidOption: as `find` does, before anything is loaded.
        NnrpError: what `Engine.load` raises; it names the model and the version.
    """
    for source in [source for path in paths for source in _each(path, _runtimes(described), refused)]:
        try:
            engine.load_source(source, options=options, **described)
        except NnrpError as error:
            told = _of(source, error)
            if refused is None:
                raise told from (None if told is error else error)
            refused(told)


def _each(path: str | os.PathLike[str], runtimes: Sequence[str], refused: Refused | None) -> list[Source]:
    """What is found; nothing where nothing is there and somebody wants to be told."""
    try:
        return find(path, runtimes=runtimes, refused=refused)
    except FileNotFound as error:
        if refused is None:
            raise
        refused(error)
        return []


def _of(source: Source, error: NnrpError) -> NnrpError:
    """Say which model an error is about, where it does not."""
    if "model" in error.details:
        return error
    which = {"model": source.name} | ({"version": source.version} if source.version else {})
    told = " ".join(f"{word} '{value}'" for word, value in which.items())
    return type(error)(f"{told}: {error.message}", reason=error.reason, **which, **error.details)


def _runtimes(said: Mapping[str, Any]) -> list[str]:
    """The runtimes that are wanted; what names none is for the engine to refuse."""
    named = said.get("runtime") or []
    named = named.split(",") if isinstance(named, str) else named
    return [name.strip() for name in named if isinstance(name, str)] if isinstance(named, Sequence) else []


def _named(path: str, name: str | None) -> tuple[str, str | None]:
    before, sign, after = path.partition("=")
    if name is None and sign and before and not set("/#") & set(before) and not _is_there(Path(path)):
        return after, before
    return path, name


def _name_of(path: Path) -> str:
    if path.stem != "model":
        return path.stem
    folder = path.resolve().parent
    return folder.parent.name if folder.name.isdigit() else folder.name


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _configured(folder: Path, version: Path) -> list[Path]:
    """The file that a config.pbtxt names; none where it names none.

    Raises:
        InvalidModel: it names one that is not in the version's folder.
    """
    config = folder / "config.pbtxt"
    if not config.is_file() or b"default_model_filename" not in config.read_bytes():
        return []
    from nnrp.runtimes.triton_python.config import filename

    if not (named := filename(folder)):
        return []
    file = version / named
    if file.parent != version or not is_model(file):
        if not version.name.isdigit():
            return []
        message = f"config.pbtxt: default_model_filename: expected a file in the version's folder '{version.name}', got '{named:.96}'"
        raise InvalidModel(message, path="default_model_filename", got=named[:96])
    return [file]


def _versions(folder: Path, name: str, said: Mapping[str, Any]) -> Iterator[Source]:
    for version in _folders(folder):
        files = _configured(folder, version) or _files(version)
        # Elsewhere it is a model of its own.
        if not files and not version.name.isdigit():
            continue
        own = description.read(version / description.FILE)
        where = description.place(own, version) if version.name.isdigit() else None
        if where is None and not files:
            _refuse_misnamed(folder, version)
            continue
        told = own.get("version", said.get("version", version.name))
        if told != version.name:
            raise InvalidOption(f"{description.FILE}: version: expected '{version.name}', as its folder, got '{told:.96}'", path="version")
        yield _one(where, {**said, **own}, name, version.name) if where else Source(name, version.name, files[0], {**said, **own})


def _refuse_misnamed(folder: Path, version: Path) -> None:
    """A version's model by another name than `model` is a slip that would otherwise be served by nobody, and missed by somebody."""
    for file in sorted(version.iterdir()):
        if file.suffix in SUFFIXES and file.is_file():
            where, named = f"{folder.name}/{version.name}", f"model{file.suffix}"
            message = f"'{where}': expected a version's model to be called '{named}', got '{file.name:.96}': rename it, or name it in {description.FILE}"
            raise FileNotFound(message, expected=named, got=file.name[:96])


def _files(folder: Path) -> list[Path]:
    """The model in a folder, by its name."""
    named = [folder / f"model{suffix}" for suffix in (*SUFFIXES, *FOLDERS)]
    return [path for path in named if path.is_file() or (path.suffix in FOLDERS and is_model(path))]
