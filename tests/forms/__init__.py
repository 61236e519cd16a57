"""The same request through every form: each takes a :class:`Case` and gives wire tensors, or raises :class:`Refused`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: A tensor as the wire means it: datatype, shape, bytes (BYTES: lengths and contents).
Wire = tuple[str, tuple[int, ...], bytes]


@dataclass(frozen=True)
class Case:
    """One request and what every form must answer."""

    name: str
    model: str
    inputs: tuple[tuple[str, Wire], ...]
    answer: dict[str, Wire] | None = None
    refused: tuple[str, str] | None = None
    outputs: tuple[str, ...] = ()
    version: str = ""
    timeout: float | None = None
    parameters: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    #: Forms that cannot say this: JSON has no FP16, a Python dict has no key twice.
    not_for: frozenset[str] = field(default_factory=frozenset)


class Refused(Exception):
    """A form's error: its code and reason."""

    def __init__(self, code: str, reason: str, message: str) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code, self.reason, self.message = code, reason, message
