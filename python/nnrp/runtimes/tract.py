"""The runtime ``tract``: ONNX models by tract, an engine in Rust that runs each request on one thread."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from nnrp.engine import inspect
from nnrp.errors import InvalidModel, InvalidOption, LoadFailed, NotOffered, RunFailed, RuntimeNotInstalled
from nnrp.runtimes import trial
from nnrp.runtimes.contract import Control, ModelSpec, fixed, on_cpu

#: Our datatypes that it has → its names for them.
DATATYPES = {
    "BOOL": "bool",
    "UINT8": "u8",
    "UINT16": "u16",
    "UINT32": "u32",
    "UINT64": "u64",
    "INT8": "i8",
    "INT16": "i16",
    "INT32": "i32",
    "INT64": "i64",
    "FP16": "f16",
    "FP32": "f32",
    "FP64": "f64",
}
#: The longest load that is waited for, in seconds.
TRY_S = 300
_PROGRAM = """
import json, sys, tract
path, facts = json.load(sys.stdin)
model = tract.onnx().load(path)
for index in range(model.input_count()):
    if fact := facts.get(model.input_name(index)):
        model.set_input_fact(index, fact)
model.into_model().into_runnable()
"""
#: What tract takes as the name of a dimension.
_NAME = re.compile(r"[A-Za-z]\w*")
_DIMS = {"type": "array", "items": {"type": "integer", "minimum": -1, "maximum": 2**31 - 1}, "maxItems": 64}


class Tract:
    """Loads ONNX models."""

    name = "tract"
    formats = ("onnx",)

    def info(self) -> dict[str, Any]:
        told = "fixes dimensions, {input: [1, 3, 224, 224]}; -1 leaves one as it is. Many models need it: tract must know their shapes before they run"
        properties = {"shapes": {"type": "object", "additionalProperties": _DIMS, "description": told}}
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        return {"version": _tract().version(), "formats": self.formats, "devices": ["cpu"], "options": schema}

    def load(self, spec: ModelSpec) -> Runnable:
        on_cpu(self.name, spec)
        tract = _tract()
        signature = inspect(spec.path)["signature"]
        pinned = _pinned(
            signature["inputs"], fixed(spec.inputs, {one["name"]: one.get("shape") for one in signature["inputs"]}) | spec.options.get("shapes", {})
        )
        kinds = {one["name"]: DATATYPES.get(one.get("datatype"), "") for one in signature["inputs"]}
        facts = {name: ",".join([*map(str, dims), kinds[name]]) for name, dims in pinned.items()}
        _try(spec.path, facts)
        try:
            model = tract.onnx().load(spec.path)
        except tract.TractError as error:
            raise InvalidModel(f"model file: tract cannot read it: {said(error, spec.path)}", runtime=self.name) from error
        inputs, outputs = _signature(signature, model)
        given = [(one["name"], one["datatype"], _sizes(pinned.get(one["name"], one["shape"]))) for one in inputs]
        try:
            for index, (name, *_) in enumerate(given):
                if name in facts:
                    model.set_input_fact(index, facts[name])
            typed = model.into_model()
            shapes = [[_number(tract, dim) for dim in fact.dims()] for fact in typed.output_facts()]
            runnable = typed.into_runnable()
        except tract.TractError as error:
            hint = ": the option 'shapes' may help, which fixes dimensions" if any(-1 in (shape or [-1]) for *_, shape in given) else ""
            raise LoadFailed(f"runtime tract: {said(error, spec.path)}{hint}", runtime=self.name) from error
        return Runnable(tract, runnable, given, [(one["name"], one["datatype"], shape) for one, shape in zip(outputs, shapes, strict=True)])


def _tract() -> Any:
    try:
        import tract
    except ImportError as error:
        raise RuntimeNotInstalled("runtime 'tract' is not installed: pip install nnrp[tract]", runtime="tract") from error
    return tract


def said(error: BaseException, path: str = "") -> str:
    """What tract says, without the data, the causes and the backtrace that follow."""
    text = str(error).partition("\n")[0]
    return (text.replace(path, "…") if path else text)[:256]


def _try(path: str, facts: Mapping[str, str]) -> None:
    """Load the model in a process of its own first, because what tract does not expect in a file ends the process."""
    if not sys.executable:
        return
    try:
        done = trial.run(_PROGRAM, asked=json.dumps([path, facts]), seconds=TRY_S)
    except subprocess.TimeoutExpired as error:
        raise LoadFailed(f"runtime tract: the load took more than {TRY_S} s", runtime="tract") from error
    # What it can say, it says again here.
    if done.returncode not in (0, 1):
        raise InvalidModel("model file: tract cannot read it, and crashed in the process that tried", runtime="tract", status=done.returncode)


def _signature(told: Mapping[str, Any], model: Any) -> tuple[list[Any], list[Any]]:
    """Inputs and outputs as the file has them, whose names tract loses; what the file has a value for is a constant to tract."""
    order = [model.input_name(index) for index in range(model.input_count())]
    inputs = sorted((one for one in told["inputs"] if one["name"] in order), key=lambda one: order.index(one["name"]))
    if len(inputs) != len(order) or len(told["outputs"]) != model.output_count():
        raise LoadFailed("runtime tract: the model has other inputs or outputs there than in the file", runtime="tract")
    for one in [*inputs, *told["outputs"]]:
        if (kind := one.get("datatype", "no tensor's")) not in DATATYPES:
            raise NotOffered(f"model file: '{one['name'][:96]}' is of type {kind}, which tract does not offer", runtime="tract")
    return inputs, told["outputs"]


def _pinned(inputs: Sequence[Any], shapes: Mapping[str, Sequence[int]]) -> dict[str, list[Any]]:
    """What the option says of the inputs, with the model's own names for dimensions that stay as they are."""
    known = {one["name"]: one.get("shape") for one in inputs}
    pinned: dict[str, list[Any]] = {}
    # A dimension without a name gets one: tract must know all of them by name or by number.
    nameless = {name: [-1] * len(dims) for name, dims in known.items() if -1 in (dims or ())}
    for name, wanted in {**nameless, **shapes}.items():
        dims = known.get(name, ())
        dims = [-1] * len(wanted) if dims is None else dims
        fits = len(dims) == len(wanted) and all(dim == -1 or isinstance(dim, str) or want in (-1, dim) for dim, want in zip(dims, wanted, strict=True))
        if name not in known or not fits:
            there = ", ".join(f"'{one[:96]}' {known[one]}" for one in list(known)[:16])
            raise InvalidOption(f"option 'shapes': '{name[:96]}': expected dimensions that fit the model's inputs, got {list(wanted)}; it has {there}")
        names = [dim if dim != -1 and (isinstance(dim, int) or _NAME.fullmatch(dim)) else f"dim_{len(pinned)}_{axis}" for axis, dim in enumerate(dims)]
        pinned[name] = [own if want == -1 else want for own, want in zip(names, wanted, strict=True)]
    return pinned


def _sizes(shape: Sequence[int | str] | None) -> list[int] | None:
    return None if shape is None else [dim if isinstance(dim, int) else -1 for dim in shape]


def _number(tract: Any, dim: Any) -> int:
    """A dimension; -1 where it is a formula of the inputs'."""
    try:
        return int(dim)
    except tract.TractError:
        return -1


class Runnable:
    """A model that any number of threads may run; tract takes its inputs by place and crashes when one is missing, so all of them go there."""

    exclusive = False
    cancellable = False

    def __init__(self, tract: Any, runnable: Any, inputs: list[Any], outputs: list[Any]) -> None:
        self.inputs, self.outputs = inputs, outputs
        self.settings = {"precision": "strict", "threads": 1, "values_checked": False, "shapes": {name: shape for name, _, shape in inputs}}
        self._tract, self._runnable = tract, runnable

    def run(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> dict[str, Any]:
        try:
            answer = self._runnable.run([inputs[name] for name, *_ in self.inputs])
            return {name: value.to_numpy() for (name, *_), value in zip(self.outputs, answer, strict=True) if name in outputs}
        except self._tract.TractError as error:
            raise RunFailed(f"runtime tract: {said(error)}", runtime="tract") from error
