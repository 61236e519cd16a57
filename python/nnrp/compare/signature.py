"""What a model takes and gives, with the names of its open dimensions where the file tells them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnrp.errors import MissingInput


@dataclass(frozen=True)
class Port:
    """One input or output.

    Attributes:
        shape: sizes; a name, or -1, where any will do; None: any rank.
    """

    name: str
    datatype: str
    shape: tuple[int | str, ...] | None
    optional: bool = False

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

    def ports(side: Iterable[Mapping[str, Any]]) -> tuple[Port, ...]:
        return tuple(Port(one["name"], one["datatype"], None if one["shape"] is None else tuple(one["shape"]), one.get("optional", False)) for one in side)

    return Signature(ports(told["inputs"]), ports(told["outputs"]))


def pair(wanted: Sequence[str], there: Sequence[str], renamed: Mapping[str, str], side: str) -> tuple[dict[str, str], str]:
    """Find the name that each of a file's inputs or outputs has in another file: as told, else by the same name, else by order.

    Args:
        wanted: the names in the first file.
        there: the names in the other one.
        renamed: a name there → the name that is meant.
        side: "inputs" or "outputs", for texts.

    Returns:
        Wanted → there, and what people should know of it; empty where all names are the same.

    Raises:
        MissingInput: there are not as many.
    """
    found = {renamed[name]: name for name in there if renamed.get(name) in wanted}
    found |= {name: name for name in wanted if name in there and name not in found and name not in found.values()}
    left, free = [name for name in wanted if name not in found], [name for name in there if name not in found.values()]
    if len(left) != len(free):
        raise MissingInput(
            f"{side}: expected {', '.join(wanted)}, got {', '.join(there)}; say with names which is which", expected=list(wanted), got=list(there)
        )
    found |= dict(zip(left, free, strict=True))
    told = ", ".join(f"{other} is {name}" for name, other in found.items() if name != other)
    return found, f"{side} {'by order' if left else 'as told'}: {told}" if told else ""
