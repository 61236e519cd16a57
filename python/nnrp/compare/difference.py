"""How far one output lies from the reference's, over all cases."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnrp.tensor import Tensor

_BATCH_OF_ROWS = 2


@dataclass(frozen=True)
class Where:
    """The element that is furthest off."""

    case: str
    index: tuple[int, ...]
    reference: Any
    got: Any


@dataclass(frozen=True)
class Difference:
    """One output of one candidate beside the reference's.

    Attributes:
        output: its name, as the reference's file has it.
        datatype: the candidate's.
        tolerance: the largest `max_rel` that is within tolerance.
        max_abs: the largest |got - reference|; infinite where one is NaN or infinite and the other is not the same; absent for BYTES.
        max_rel: the largest of these, each divided by the largest finite |reference| of its case, or by 1 where that is 0.
        mean_abs: the mean of |got - reference|.
        differing: how many elements are not equal; a NaN equals a NaN.
        elements: of how many.
        nonfinite: how many are NaN or infinite on one side only, or infinite with different signs.
        where: the element that is furthest off; None when all are equal.
        top1: for FP outputs of two dimensions, the share of rows whose largest element is in the same place.
        note: why they cannot be compared by element, such as shapes that differ.
    """

    output: str
    datatype: str
    tolerance: float
    max_abs: float | None
    max_rel: float | None
    mean_abs: float | None
    differing: int
    elements: int
    nonfinite: int = 0
    where: Where | None = None
    top1: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """`same`, `within` the tolerance, or `differs`."""
        if self.note:
            return "differs"
        if not self.differing:
            return "same"
        return "within" if self.max_rel is not None and self.max_rel <= self.tolerance else "differs"


class Tally:
    """Adds up one output's errors, case by case."""

    def __init__(self, output: str) -> None:
        self.output = output
        self.datatypes: set[str] = set()
        self._most, self._rel, self._sum = 0.0, 0.0, 0.0
        self._differing = self._elements = self._nonfinite = 0
        self._where: Where | None = None
        self._rows = self._agree = 0
        self._text = False
        self._note = ""

    def add(self, case: str, reference: Any, got: Any) -> None:
        """Compare the output in one case."""
        self.datatypes |= {datatype_of(reference), datatype_of(got)}
        left, right = (value.numpy() if isinstance(value, Tensor) else np.asarray(value) for value in (reference, got))
        self._elements += left.size
        if left.shape != right.shape:
            self._note = self._note or f"case {case}: expected shape {list(left.shape)}, got {list(right.shape)}"
        elif (left.dtype == object) != (right.dtype == object):
            self._note = self._note or f"case {case}: expected {datatype_of(reference)}, got {datatype_of(got)}"
        elif left.dtype == object:
            self._text = True
            self._exact(case, left, right)
        elif left.size:
            self._numbers(case, left, right)

    def result(self, tolerance: float, datatype: str) -> Difference:
        """Give what it came to."""
        known = not (self._note or self._text)
        return Difference(
            output=self.output,
            datatype=datatype,
            tolerance=tolerance,
            max_abs=self._most if known else None,
            max_rel=self._rel if known else None,
            mean_abs=self._sum / max(self._elements, 1) if known else None,
            differing=self._differing,
            elements=self._elements,
            nonfinite=self._nonfinite,
            where=self._where,
            top1=self._agree / self._rows if self._rows else None,
            note=self._note,
        )

    def _exact(self, case: str, left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> None:
        odd = np.flatnonzero(left.ravel() != right.ravel())
        self._differing += len(odd)
        if len(odd) and self._where is None:
            self._point(case, int(odd[0]), left, right)

    def _numbers(self, case: str, left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> None:
        fractions = any(array.dtype.kind not in "biu" for array in (left, right))
        # Whole numbers of 64 bits are compared as they are: FP64 does not tell the large ones apart.
        equal = left.ravel() == right.ravel()
        a, b = left.ravel().astype(np.float64), right.ravel().astype(np.float64)
        with np.errstate(invalid="ignore"):
            off = np.abs(b - a)
        equal |= np.isnan(a) & np.isnan(b)
        off = np.where(equal, 0.0, off if fractions else np.maximum(off, 1.0))
        bad = ~equal & ~(np.isfinite(a) & np.isfinite(b))
        off[bad] = math.inf
        self._nonfinite += int(bad.sum())
        self._differing += int(equal.size - equal.sum())
        self._sum += float(off.sum())
        self._most = max(self._most, float(off.max()))
        relative = float(off.max()) / (float(np.abs(a[np.isfinite(a)]).max(initial=0.0)) or 1.0)
        if relative > self._rel or (self._where is None and not equal.all()):
            self._rel = max(relative, self._rel)
            self._point(case, int(np.where(equal, -1, off).argmax()), left, right)
        if fractions and left.ndim == _BATCH_OF_ROWS and left.shape[1] > 1:
            self._rows += len(left)
            self._agree += int((a.reshape(left.shape).argmax(1) == b.reshape(left.shape).argmax(1)).sum())

    def _point(self, case: str, flat: int, left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> None:
        index = tuple(int(part) for part in np.unravel_index(flat, left.shape))
        self._where = Where(case, index, _plain(left[index]), _plain(right[index]))


def datatype_of(value: Any) -> str:
    """Give the datatype of an array or a tensor."""
    from .wire import raw_of

    return value.datatype if isinstance(value, Tensor) else raw_of(np.empty(0, np.asarray(value).dtype))[0]


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    item = value.item() if hasattr(value, "item") else value
    return item if isinstance(item, bool | int | float | str) else float(item)
