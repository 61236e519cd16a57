"""The Python forms: in process, and through the clients that ``nnrp.connect`` gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import nnrp
from forms import Case, Refused, Wire
from forms.wire import pack


def local(engine: nnrp.Engine, case: Case) -> dict[str, Wire]:
    """In process."""
    return _infer(lambda: engine.model(case.model, case.version or None), case)


def remote(url: str, case: Case) -> dict[str, Wire]:
    """Through a server."""
    return _infer(lambda: nnrp.connect(url, model=case.model, version=case.version or None), case)


def _infer(model: Any, case: Case) -> dict[str, Wire]:
    try:
        inputs = {name: nnrp.Tensor(datatype, shape, data) for name, (datatype, shape, data) in case.inputs}
        found = model()
        answer: Mapping[str, Any] = found.infer(inputs, outputs=list(case.outputs) or None, timeout=case.timeout, parameters=case.parameters)
        specs = {spec.name: spec.datatype for spec in found.outputs}
    except nnrp.NnrpError as error:
        raise Refused(error.code, error.reason, error.message) from error
    return {name: (specs[name], tuple(value.shape), _bytes(value)) for name, value in answer.items()}


def _bytes(value: Any) -> bytes:
    array = np.asarray(value)
    return pack(list(array.ravel())) if array.dtype == object else array.tobytes()
