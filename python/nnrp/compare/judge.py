"""One candidate's answers beside the reference's, case by case: of the candidate's none is kept, and the reference's are in memory only while they are few."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from nnrp.errors import InvalidOption, NnrpError

from . import tolerance
from .difference import Tally, datatype_of
from .report import Failure, Result
from .signature import Port, Signature, pair
from .wire import Wire

#: Most bytes of the reference's answers in memory; all of them are in a file from there on.
_IN_MEMORY = 16 << 20

#: Is told the signature of who answers, the case's name, and the outputs.
Hear: TypeAlias = Callable[[Signature, str, Mapping[str, Any]], object]


class Kept:
    """The reference's answers, in the order of the cases."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed in close
        self._wire = Wire(self._file, self._file)
        self.result: Result | None = None
        self.signature: Signature | None = None

    def hear(self, signature: Signature, case: str, outputs: Mapping[str, Any]) -> None:
        """Keep an answer.

        Raises:
            InvalidOption: there is no room for it.
        """
        self.signature = signature
        try:
            self._wire.send({"case": case}, outputs)
        except OSError as error:
            what = f"the reference's answers do not fit into {tempfile.gettempdir()}: {error.strerror}"
            raise InvalidOption(f"inputs: {what}; ask for fewer cases, or name another folder in TMPDIR") from error

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        self._file.seek(0)
        while True:
            yield self._wire.receive()[1]

    def close(self) -> None:
        """Forget them."""
        self._file.close()


class Judge:
    """Measures one candidate while it answers.

    Args:
        kept: what the reference answered.
        wanted: what the reference's file takes and gives; None where nobody could read it.
        names: those of another file → the reference's.
    """

    def __init__(self, kept: Kept, wanted: Signature | None, names: Mapping[str, str]) -> None:
        self._kept, self._answers = kept, iter(kept)
        self._wanted, self._names = wanted, names
        self._failed = kept.result is None or kept.result.failure is not None
        self._tallies: list[tuple[Tally, str, str]] = []
        self._datatypes: list[str] = []
        self._note = ""
        self._wrong: NnrpError | None = None

    def hear(self, signature: Signature, case: str, outputs: Mapping[str, Any]) -> None:
        """Compare an answer with the reference's in that case."""
        if self._failed or self._wanted is None or self._wrong is not None:
            return
        expected = next(self._answers)
        try:
            if not self._tallies:
                self._match(self._wanted, signature, expected, outputs)
            for tally, theirs, ours in self._tallies:
                tally.add(case, expected[theirs], outputs[ours])
        except NnrpError as error:
            self._wrong = error

    def result(self, result: Result, tolerances: Mapping[str, float]) -> Result:
        """Give what the candidate came to, with its differences, or why there are none."""
        reference = self._kept.result
        if result.failure is not None:
            return result
        if self._failed or self._wanted is None or reference is None:
            name = "" if reference is None else f" {reference.name}"
            message = f"nothing to measure against: the reference{name} failed; choose another with reference"
            return replace(result, failure=Failure("comparing", "NO_REFERENCE", message))
        if self._wrong is not None:
            return replace(result, failure=Failure("comparing", self._wrong.reason, self._wrong.message))
        precisions = (result.precision, reference.precision)
        found = [
            tally.result(tolerance.of(tally.output, tally.datatypes, precisions, tolerances), datatype)
            for (tally, *_), datatype in zip(self._tallies, self._datatypes, strict=True)
        ]
        empty = [one.output for one in found if not one.elements]
        if len(empty) == len(found) and not any(one.note for one in found):
            message = "nothing was compared: no output had an element in any case; give other shapes or inputs"
            return replace(result, failure=Failure("comparing", "NOTHING_COMPARED", message))
        told = [self._note] * bool(self._note) + [f"nothing was compared: no elements in {', '.join(empty)}"] * bool(empty)
        return replace(result, differences=tuple(found), notes=(*result.notes, *told))

    def _match(self, wanted: Signature, signature: Signature, expected: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        """Find which output is which. Of the shapes that a signature leaves open the answers tell more."""
        known = (self._kept.signature or wanted).outputs
        theirs, _ = pair(wanted.outputs, known, self._names, "outputs")
        tensors = {port.name: port.tensor for port in known}
        there = [_answered(port, expected[theirs[port.name]], tensors[theirs[port.name]]) for port in wanted.outputs]
        ours, self._note = pair(there, [_answered(port, outputs[port.name]) for port in signature.outputs], self._names, "outputs")
        self._tallies = [(Tally(port.name), theirs[port.name], ours[port.name]) for port in wanted.outputs]
        self._datatypes = [datatype_of(outputs[ours]) for _, _, ours in self._tallies]


def _answered(port: Port, value: Any, tensor: str = "") -> Port:
    """An output as it was answered."""
    return replace(port, datatype=datatype_of(value), shape=tuple(int(size) for size in value.shape), tensor=port.tensor or tensor)
