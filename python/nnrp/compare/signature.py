"""What a model takes and gives, with the names of its open dimensions where the file tells them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnrp.errors import InvalidOption


@dataclass(frozen=True)
class Port:
    """One input or output.

    Attributes:
        shape: sizes; a name, or -1, where any will do; None: any rank.
        tensor: what the file itself calls it, where a signature in it says another name.
    """

    name: str
    datatype: str
    shape: tuple[int | str, ...] | None
    optional: bool = False
    tensor: str = ""

    def __str__(self) -> str:
        dims = ["?" if dim == -1 else str(dim) for dim in self.shape or ()]
        return f"{self.name} {self.datatype} " + ("of any rank" if self.shape is None else f"[{', '.join(dims)}]")


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs in the model's order."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def read(told: Mapping[str, Any]) -> Signature:
    """Read a signature as `nnrp.inspect` or a session tells it."""
    tensors = ((told.get("loaded") or {}).get("settings") or {}).get("tensors") or {}

    def port(one: Mapping[str, Any]) -> Port:
        shape = None if one["shape"] is None else tuple(one["shape"])
        return Port(one["name"], one["datatype"], shape, one.get("optional", False), tensors.get(one["name"], ""))

    def ports(side: Iterable[Mapping[str, Any]]) -> tuple[Port, ...]:
        return tuple(map(port, side))

    return Signature(ports(told["inputs"]), ports(told["outputs"]))


def pair(wanted: Sequence[Port], there: Sequence[Port], renamed: Mapping[str, str], side: str) -> tuple[dict[str, str], str]:
    """Find the name that each of a file's inputs or outputs has in another file: as told, else by the same name, a signature's or the file's own, else by
    the one assignment that shapes and datatypes leave, else by order where that contradicts none.

    Args:
        wanted: those of the first file.
        there: those of the other one.
        renamed: a name there → the name that is meant.
        side: "inputs" or "outputs", for texts.

    Returns:
        Wanted → there, and what people should know of it; empty where all names are the same.

    Raises:
        InvalidOption: there are not as many, or shapes and datatypes leave several assignments, and not the one by order, or none.
    """
    ours, theirs = [port.name for port in wanted], [port.name for port in there]
    found = {renamed[name]: name for name in theirs if renamed.get(name) in ours}
    found |= {name: name for name in ours if name in theirs and name not in found and name not in found.values()}
    same = {
        port.name: other.name
        for port in wanted
        for other in there
        if port.name not in found and other.name not in found.values() and {port.name, port.tensor or port.name} & {other.name, other.tensor or other.name}
    }
    found |= same
    left, free = [port for port in wanted if port.name not in found], [port for port in there if port.name not in found.values()]
    matched, how = _match(left, free) if left else ({}, "by the file's own names" if same else "as told")
    if len(matched) != len(left) or len(left) != len(free):
        got, expected = (", ".join(map(str, ports)) for ports in (there, wanted))
        message = f"{side}: those of one file cannot be matched with the other's: expected {expected}; got {got}"
        message += f"; say which is which: --name THERE=HERE, or a description (model.toml) with '{side}' for one of the files"
        raise InvalidOption(message, expected=ours, got=theirs)
    found |= matched
    told = ", ".join(f"{other} is {name}" for name, other in found.items() if name != other)
    return found, f"{side} {how}: {told}" if told else ""


def _match(left: Sequence[Port], free: Sequence[Port]) -> tuple[dict[str, str], str]:
    """Match those of other names; nothing where it cannot be told which is which."""
    if len(left) == len(free) == 1:
        return {left[0].name: free[0].name}, "by order"
    for fits in (_alike, _agree):
        if one := _forced(left, free, fits):
            return one, "by shape"
        if len(left) == len(free) and all(map(fits, left, free)):
            return {port.name: other.name for port, other in zip(left, free, strict=True)}, "by order"
    return {}, ""


def _forced(left: Sequence[Port], free: Sequence[Port], fits: Callable[[Port, Port], bool]) -> dict[str, str]:
    """Find the only assignment; nothing where there is none, or another. Where there is only one, some port has only one that fits, again and again."""
    options = {port.name: {other.name for other in free if fits(port, other)} for port in left}
    found: dict[str, str] = {}
    while only := next((name for name, fitting in options.items() if len(fitting) == 1), None):
        (other,) = options.pop(only)
        found[only] = other
        for fitting in options.values():
            fitting.discard(other)
    return {} if options else found


def _agree(one: Port, other: Port) -> bool:
    """Whether the shapes contradict each other nowhere."""
    if one.shape is None or other.shape is None:
        return True
    if len(one.shape) != len(other.shape):
        return False
    return all(a == b or not (isinstance(a, int) and isinstance(b, int) and a >= 0 and b >= 0) for a, b in zip(one.shape, other.shape, strict=True))


def _alike(one: Port, other: Port) -> bool:
    return one.datatype == other.datatype and _agree(one, other)
