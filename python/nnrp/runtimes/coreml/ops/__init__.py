"""The operations of MIL that have a translation."""

from __future__ import annotations

from collections.abc import Mapping

from nnrp.runtimes.coreml.ops import activation, control, conv, elementwise, image, linear, normal, pick, recurrent, reduce, shape, weights
from nnrp.runtimes.coreml.program import Translate

_MODULES = (activation, control, conv, elementwise, image, linear, normal, pick, recurrent, reduce, shape, weights)
#: Operation → its translation.
TABLE: Mapping[str, Translate] = {kind: translate for module in _MODULES for kind, translate in module.TABLE.items()}
