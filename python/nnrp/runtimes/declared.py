"""What a model's description says of tensors (spec §6.6), for runtimes whose files tell no names, datatypes or shapes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from nnrp.errors import InvalidOption
from nnrp.runtimes.contract import ModelSpec, Overrides

Port: TypeAlias = tuple[str, str, "list[int] | None"]


class Said(NamedTuple):
    """What is said of a tensor, as the model has it: nothing of a datatype or a shape that is None. Sizes are -1 where any will do."""

    datatype: str | None
    shape: list[int] | None


def ports(runtime: str, spec: ModelSpec, side: str, datatypes: Iterable[str]) -> list[Port]:
    """List the `inputs` or `outputs` of which only the description knows, in its order; a shape that it does not say is of any rank.

    Raises:
        InvalidOption: it says none, or one without a datatype, or with one that the runtime does not offer.
    """
    entries: Overrides = getattr(spec, side)
    if isinstance(entries, Mapping):
        named = {name: _said(entry) for name, entry in entries.items()}
    else:
        named = {_name(entry) or f"{side[:-1]}_{place}": _said(entry) for place, entry in enumerate(entries)}
    if not named or len(named) != len(entries):
        got = "none" if not named else "one name twice"
        raise _wrong(runtime, side, "datatype and shape of each under its name, because the file tells none", got)
    return [(name, datatype(runtime, f"{side}['{name[:96]}']", said, datatypes), said.shape) for name, said in named.items()]


def said(spec: ModelSpec, side: str, names: Sequence[str]) -> dict[str, Said]:
    """Tell what the description says of the `inputs` or `outputs` that a file has by those names; what fits none of them the engine refuses."""
    entries: Overrides = getattr(spec, side)
    pairs = entries.items() if isinstance(entries, Mapping) else zip(names, entries, strict=False)
    return {name: _said(entry) for name, entry in pairs}


def datatype(runtime: str, path: str, said: Said | None, datatypes: Iterable[str]) -> str:
    """Give the datatype that only the description knows.

    Raises:
        InvalidOption: it says none, or one that the runtime does not offer.
    """
    told, known = said.datatype if said else None, list(datatypes)
    if told is None or told not in known:
        why = "" if told else ", because the file tells none"
        raise _wrong(runtime, f"{path}.datatype", f"a datatype of {', '.join(known)}{why}", told or "none")
    return told


def _wrong(runtime: str, path: str, expected: str, got: str) -> InvalidOption:
    return InvalidOption(f"model description: {path}: expected {expected}, got {got}", runtime=runtime, path=path, expected=expected, got=got)


def _name(entry: Any) -> str | None:
    name: str | None = entry.get("name") if isinstance(entry, Mapping) else entry
    return name


def _said(entry: Any) -> Said:
    if not isinstance(entry, Mapping):
        return Said(None, None)
    shape, layout = entry.get("shape"), entry.get("layout")
    sizes = None if shape is None else [dim if isinstance(dim, int) else -1 for dim in shape]
    if sizes is not None and layout and len(layout) == len(sizes):
        # What is said is the callers'; the engine says how the model has it.
        sizes = [sizes[layout.index(letter)] for letter in entry["model_layout"]]
    return Said(entry.get("datatype"), sizes)
