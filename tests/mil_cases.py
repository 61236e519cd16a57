"""Operations of Core ML with inputs and what they give: one table, which `make test` writes by itself and `make test-runtimes` by coremltools."""

from __future__ import annotations

import mil_moves
import mil_numbers
from mil_case import CASES, Case

__all__ = ["CASES", "Case", "NAMES"]

mil_numbers.add()
mil_moves.add()
#: The names of the cases, for pytest.
NAMES = [one.name for one in CASES]
