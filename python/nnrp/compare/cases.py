"""The inputs that every candidate gets: read from files, one case each, or made up from the signature."""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnrp.errors import DatatypeMismatch, FileNotFound, InvalidOption, Malformed, MissingInput, NnrpError, ShapeMismatch, UnknownInput
from nnrp.tensor import Tensor, adapt, numpy_type

from .signature import Port
from .wire import raw_of

SUFFIXES = (".npz", ".npy", ".json")
#: Most bytes that a case may unfold to.
_MOST = 1 << 30


@dataclass(frozen=True)
class Case:
    """One request's inputs: name → array, or `nnrp.Tensor` for types that NumPy lacks."""

    name: str
    inputs: dict[str, Any]


class Cases:
    """All cases, made or read anew each time that they are gone through, because all of them may be more than there is memory.

    Args:
        number: how many.
        make: gives them one by one, each time the same.
        origin: how they came to be.
        about: the same for people.
        inputs: the inputs, for people.
    """

    def __init__(self, number: int, make: Callable[[], Iterator[Case]], origin: dict[str, Any], about: str, inputs: tuple[str, ...] = ()) -> None:
        self._number, self._make, self._digest = number, make, ""
        self.origin, self.about, self.inputs = origin, about, inputs

    def __len__(self) -> int:
        return self._number

    def __iter__(self) -> Iterator[Case]:
        digest = None if self._digest else hashlib.sha256()
        for case in self._make():
            if digest is not None:
                _add(digest, case)
            yield case
        # Of whoever went through all of them first.
        self._digest = digest.hexdigest() if digest else self._digest

    def digest(self) -> str:
        """Give the sha256 of all that goes into the models."""
        if not self._digest:
            deque(self, maxlen=0)
        return self._digest


def _add(digest: hashlib._Hash, case: Case) -> None:
    for name, value in sorted(case.inputs.items()):
        datatype, shape, data = raw_of(value)
        digest.update(json.dumps([name, datatype, shape]).encode())
        digest.update(data)


def from_files(folder: Path, ports: Sequence[Port]) -> Cases:
    """Read every .npz, .npy and .json of a folder, by name; each is a case.

    A .npz holds arrays by input name, a .json an object of them or the one input's value, a .npy the one input. Nothing is unpickled or cast.

    Raises:
        FileNotFound: no folder, or none of these files in it.
        Malformed, MissingInput, UnknownInput, DatatypeMismatch, ShapeMismatch: names the file.
    """
    if not folder.is_dir():
        raise FileNotFound(f"inputs: no folder '{folder}'; expected one with a {', '.join(SUFFIXES)} file for each case")
    files = sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES and file.is_file())
    if not files:
        raise FileNotFound(f"inputs: no {', '.join(SUFFIXES)} file in '{folder}'")
    origin, about = {"kind": "files", "folder": str(folder)}, f"{len(files)} cases of '{folder}'"
    cases = Cases(len(files), lambda: (_read(file, ports) for file in files), origin, about)
    # All of them once, so that what is wrong is told before anything runs.
    cases.inputs = tuple({f"{name} {datatype} {shape}": None for case in cases for name, (datatype, shape, _) in _raw(case)})
    return cases


def _raw(case: Case) -> Iterator[tuple[str, tuple[str, list[int], bytes]]]:
    return ((name, raw_of(value)) for name, value in case.inputs.items())


def _read(file: Path, ports: Sequence[Port]) -> Case:
    try:
        values = _json(file) if file.suffix == ".json" else _numpy(file)
    except (ValueError, EOFError, OSError, MemoryError, zipfile.BadZipFile, zlib.error, RecursionError, NotImplementedError) as error:
        told = "it holds pickled objects; save plain arrays" if "pickle" in str(error) else str(error)
        raise Malformed(f"inputs: '{file.name}' cannot be read: {told}", file=file.name) from error
    if not isinstance(values, dict):
        if len(ports) != 1:
            raise MissingInput(f"inputs: '{file.name}': expected {_listed(ports)} by name, as .npz or as a JSON object, got one value", file=file.name)
        values = {ports[0].name: values}
    return Case(file.stem, checked(values, ports, file.name))


def _json(file: Path) -> Any:
    if file.stat().st_size > _MOST:
        raise ValueError(f"expected at most {_MOST} bytes")
    try:
        return json.loads(file.read_bytes())
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def _numpy(file: Path) -> Any:
    if file.suffix == ".npz":
        with zipfile.ZipFile(file) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MOST:
                raise ValueError(f"it unfolds to more than {_MOST} bytes")
    loaded = np.load(file, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded as arrays:
        return {name: arrays[name] for name in arrays.files}


def checked(values: Mapping[str, Any], ports: Sequence[Port], where: str) -> dict[str, Any]:
    """Bring a case's values into the form that they travel in, checked against the signature.

    Raises:
        MissingInput, UnknownInput, DatatypeMismatch, ShapeMismatch: say which file and input.
    """
    names = [port.name for port in ports]
    odd = [name for name in values if name not in names]
    if odd:
        raise UnknownInput(f"inputs: '{where}': expected {', '.join(names)}, got '{odd[0]}'", file=where, input=odd[0])
    found = {}
    for port in ports:
        if port.name in values:
            found[port.name] = _checked(values[port.name], port, where)
        elif not port.optional:
            raise MissingInput(f"inputs: '{where}': '{port.name}' is missing; expected {_listed(ports)}", file=where, input=port.name)
    return found


def _checked(value: Any, port: Port, where: str) -> Any:
    try:
        adapted = adapt(value, port.name, port.datatype)
    except NnrpError as error:
        raise type(error)(f"inputs: '{where}': {error.message}", **error.details | {"file": where}) from error
    datatype, shape, _ = raw_of(adapted)
    if datatype != port.datatype:
        wanted = "text" if port.datatype == "BYTES" else f".astype('{numpy_type(port.datatype)}')"
        message = f"inputs: '{where}': '{port.name}': expected {port.datatype}, got {datatype}; nothing is cast here: save it as {wanted}"
        raise DatatypeMismatch(message, file=where, input=port.name)
    fits = port.shape is None or (
        len(shape) == len(port.shape) and all(dim in (size, -1) or isinstance(dim, str) for dim, size in zip(port.shape, shape, strict=True))
    )
    if not fits:
        raise ShapeMismatch(f"inputs: '{where}': expected {port}, got {shape}", file=where, input=port.name)
    return adapted


def _listed(ports: Sequence[Port]) -> str:
    return ", ".join(port.name for port in ports)


def exact(value: Any, datatype: str, name: str) -> Any:
    """Give the same values in another datatype, where every one of them fits it exactly; another file may take INT32 where this one takes INT64.

    Raises:
        DatatypeMismatch: not every value fits.
    """
    own = raw_of(value)[0]
    if own == datatype:
        return value
    if "BYTES" not in (own, datatype):
        plain = value.numpy() if isinstance(value, Tensor) else value
        with np.errstate(all="ignore"):
            cast = plain.astype(numpy_type(datatype))
            if np.array_equal(cast.astype(plain.dtype), plain, equal_nan=plain.dtype.kind == "f"):
                return cast
    raise DatatypeMismatch(f"input '{name}': expected {datatype}, got {own} with values that do not fit it", input=name)


def elements(shape: Sequence[int]) -> int:
    """Count the elements of a shape.

    Raises:
        InvalidOption: more than a case may hold, or a size below 0.
    """
    if any(size < 0 for size in shape):
        raise InvalidOption(f"shape {list(shape)}: expected sizes from 0")
    count = math.prod(shape)
    if count > _MOST // 8:
        raise InvalidOption(f"shape {list(shape)}: expected at most {_MOST // 8} elements, got {count}; fix smaller sizes with shape")
    return count
