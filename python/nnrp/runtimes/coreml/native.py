"""A Core ML model on macOS, by coremltools' `MLModel`, which runs it through Core ML itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnrp.errors import DeviceNotFound, InvalidModel, InvalidOption, NotOffered, RunFailed, RuntimeNotInstalled
from nnrp.runtimes.contract import Control, ModelSpec
from nnrp.runtimes.coreml.features import Features, Sizes
from nnrp.runtimes.coreml.package import Package
from nnrp.runtimes.coreml.value import TYPES, type_of

#: The number that a description has for an array's elements → ours.
ARRAYS = {65568: "FP32", 65600: "FP64", 131104: "INT32", 65552: "FP16", 131080: "INT8"}


def load(spec: ModelSpec) -> Native:
    """Load a model into Core ML.

    Raises:
        RuntimeNotInstalled, DeviceNotFound, NotOffered, InvalidModel.
    """
    try:
        import coremltools
    except ImportError as error:
        raise RuntimeNotInstalled("runtime 'coreml' is not installed: pip install nnrp[coreml]", runtime="coreml") from error
    if spec.device not in ("auto", "cpu"):
        raise DeviceNotFound(f"device '{spec.device[:96]}' is not there; available to coreml: cpu", runtime="coreml", available=["cpu"])
    if spec.precision not in ("strict", "fast"):
        raise NotOffered(f"precision {spec.precision}: coreml computes in the types that the model has", runtime="coreml")
    if "onnxruntime" in spec.options:
        raise InvalidOption("option 'onnxruntime': it is for the translation: expected through='onnxruntime' beside it")
    # The GPU and the Neural Engine compute in FP16 whatever the model says: not without being asked.
    units = spec.options.get("compute_units", "ALL" if spec.precision == "fast" else "CPU_ONLY")
    if units != "CPU_ONLY" and spec.precision == "strict":
        raise InvalidOption(f"option 'compute_units': {units} computes in FP16, which precision 'strict' rules out: expected CPU_ONLY, or precision 'fast'")
    function = spec.options.get("function")
    model = Package(spec.path).model
    further = {"function_name": function} if function else {}
    try:
        loaded = coremltools.models.MLModel(spec.path, compute_units=getattr(coremltools.ComputeUnit, units), **further)
    except Exception as error:
        raise InvalidModel(f"model file: Core ML cannot read it: {str(error)[:512]}", runtime="coreml") from error
    return Native(loaded, model, function or model.description.defaultFunctionName or "main", units)


class Native:
    """A model that Core ML runs, one call at a time."""

    exclusive = True
    cancellable = False

    def __init__(self, loaded: Any, model: Any, function: str, units: str) -> None:
        self._loaded = loaded
        features = Features(model, function)
        described = next((one for one in model.description.functions if one.name == function), model.description)
        program = {one.key: one.value for one in model.mlProgram.functions}.get(function)
        declared = {one.name: type_of(one.type, f"input '{one.name[:96]}'") for one in program.inputs} if program else {}
        features.apply(declared)
        if features.images:
            raise NotOffered("model file: Core ML takes pictures as images: load it with through='onnxruntime', which takes tensors", runtime="coreml")
        self._sizes: dict[str, Sizes] = features.sizes
        self.inputs = [self._spec(one, declared) for one in described.input]
        self.outputs = [self._spec(one, {}) for one in described.output]
        self.settings = {"precision": "strict" if units == "CPU_ONLY" else "fast", "through": "coreml", "function": function, "compute_units": units}

    def _spec(self, feature: Any, declared: dict[str, Any]) -> tuple[str, str, list[int] | None]:
        told = feature.type.multiArrayType
        if not feature.type.HasField("multiArrayType") or told.dataType not in ARRAYS:
            raise NotOffered(f"model file: '{feature.name[:96]}' is no array, which coreml does not offer on macOS", runtime="coreml")
        if feature.name in declared:
            shape = declared[feature.name].shape
            return feature.name, TYPES[declared[feature.name].kind][2], None if shape is None else list(shape)
        return feature.name, ARRAYS[told.dataType], list(told.shape) or None

    def run(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> dict[str, Any]:
        for name, sizes in self._sizes.items():
            if name in inputs:
                sizes.check(name, inputs[name].shape)
        try:
            answer = self._loaded.predict({name: np.asarray(value) for name, value in inputs.items()})
        except Exception as error:
            raise RunFailed(f"runtime coreml: {str(error)[:512]}", runtime="coreml") from error
        return {name: np.asarray(answer[name]) for name in outputs}
