"""The runtime ``tensorrt``: engines of NVIDIA's TensorRT, and ONNX models that it builds engines of. Nothing of it was run on a GPU yet."""

from __future__ import annotations

import functools
import importlib.util
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnrp.errors import DeviceNotFound, InvalidModel, LoadFailed, NotOffered, RunFailed, ShapeMismatch
from nnrp.runtimes import cuda, package, trial
from nnrp.runtimes.contract import Control, ModelSpec
from nnrp.runtimes.tensorrt_build import PROFILES, build
from nnrp.tensor import numpy_type

#: The package in full, and the two that only run engines which were built to fit any version.
MODULES = ("tensorrt", "tensorrt_lean", "tensorrt_dispatch")
#: Our datatypes that it has → its names for them.
DATATYPES = {
    "BOOL": "BOOL",
    "UINT8": "UINT8",
    "INT8": "INT8",
    "INT32": "INT32",
    "INT64": "INT64",
    "FP16": "HALF",
    "FP32": "FLOAT",
    "BF16": "BF16",
    "FP8_E4M3": "FP8",
}
PROBE_S = 120
#: What ends the process where the driver is missing.
_PROGRAM = """
import ctypes, importlib, json, sys
module = importlib.import_module(sys.argv[1])
module.Runtime(module.Logger(module.Logger.INTERNAL_ERROR)).deserialize_cuda_engine(b"nnrp")
driver, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
assert driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value
print(json.dumps({"module": sys.argv[1], "version": module.__version__, "devices": count.value, "builds": hasattr(module, "Builder")}))
"""


class TensorRt:
    """Loads engines, and ONNX models where the package in full is there."""

    name = "tensorrt"
    formats = ("tensorrt", "onnx")

    def info(self) -> dict[str, Any]:
        told = probe()
        devices = [f"cuda:{number}" for number in range(told["devices"])]
        properties = {
            "profile": {"type": "integer", "minimum": 0, "default": 0, "description": "which of the engine's optimization profiles to run in"},
            "profiles": PROFILES,
            "timing_cache": {"type": "string", "description": "the file that keeps what was measured, so that the next build is quick"},
            "workspace_bytes": {"type": "integer", "minimum": 0, "description": "most memory of the device that a layer may use while it runs"},
            "optimization_level": {"type": "integer", "minimum": 0, "maximum": 5, "description": "how long to look for what is quick"},
        }
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        return {"version": told["version"], "formats": self.formats, "devices": devices, "options": schema}

    def load(self, spec: ModelSpec) -> Engine:
        told = probe()
        if spec.precision not in ("strict", "fast"):
            raise NotOffered(f"precision {spec.precision}: TensorRT computes in the types that the model has", runtime=self.name)
        kind, _, number = ("cuda:0" if spec.device == "auto" else spec.device).partition(":")
        if kind != "cuda" or not (number or "0").isdigit() or int(number or 0) >= told["devices"]:
            there = [f"cuda:{one}" for one in range(told["devices"])]
            raise DeviceNotFound(f"device '{spec.device[:96]}' is not there; available to tensorrt: {', '.join(there)}", runtime=self.name, available=there)
        trt = package.load(self.name, told["module"])
        device = cuda.Device(int(number or 0))
        logger = trt.Logger(trt.Logger.ERROR)
        if spec.format == "onnx":
            if not told["builds"]:
                raise NotOffered(f"model file: {told['module']} runs engines and builds none: pip install nnrp[tensorrt]", runtime=self.name, format="onnx")
            content = build(trt, logger, spec)
        else:
            content = Path(spec.path).read_bytes()
        engine = trt.Runtime(logger).deserialize_cuda_engine(content)
        if engine is None:
            raise InvalidModel("model file: TensorRT cannot read it: another version's, another GPU's, or no engine", runtime=self.name)
        session = Engine(trt, engine, device, spec.options.get("profile", 0))
        session.device = "cuda:0" if spec.device == "auto" else spec.device
        return session


@functools.cache
def probe() -> dict[str, Any]:
    """Tell module, version, devices and whether it builds engines, by a process of its own: without a driver the library ends whoever uses it.

    Raises:
        RuntimeNotInstalled: there is no such package.
        DeviceNotFound: there is no device that it can use.
    """
    module = next((name for name in MODULES if importlib.util.find_spec(name)), None)
    if module is None:
        raise package.missing("tensorrt")
    try:
        done = trial.run(_PROGRAM, [module], seconds=PROBE_S)
    except subprocess.TimeoutExpired as error:
        raise LoadFailed(f"runtime tensorrt: its library said nothing for {PROBE_S} s", runtime="tensorrt") from error
    if done.returncode == 0:
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return told
    ended = f"ended by signal {-done.returncode}" if done.returncode < 0 else f"ended with {done.returncode}"
    message = f"device 'cuda' is not there, or its driver is too old: the process that tried TensorRT was {ended}"
    raise DeviceNotFound(message, runtime="tensorrt", available=[], status=done.returncode)


class Engine:
    """An engine with one execution context, which takes one call at a time."""

    exclusive = True
    cancellable = False
    device: str

    def __init__(self, trt: Any, engine: Any, device: cuda.Device, profile: int) -> None:
        self._engine, self._on = engine, device
        if not profile < engine.num_optimization_profiles:
            raise InvalidModel(f"model file: expected more than {profile} optimization profiles, got {engine.num_optimization_profiles}", runtime="tensorrt")
        self._context = engine.create_execution_context()
        if self._context is None or not self._context.set_optimization_profile_async(profile, device.stream):
            raise LoadFailed("runtime tensorrt: it makes no context of the engine", runtime="tensorrt")
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        sides = {name: engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        self.inputs, self.outputs = ([_port(trt, engine, name) for name in names if sides[name] is side] for side in (True, False))
        self.settings = {"precision": "strict", "profile": profile}
        self._types = {name: numpy_type(datatype) for name, datatype, _ in self.outputs}
        self._buffers = {name: cuda.Buffer(device) for name in names}

    def run(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> list[Any]:
        self._on.enter()
        for name, array in inputs.items():
            if not self._context.set_input_shape(name, array.shape):
                raise ShapeMismatch(f"input '{name[:96]}': {list(array.shape)} is outside of the engine's optimization profile", runtime="tensorrt", input=name)
            self._context.set_tensor_address(name, self._buffers[name].put(array))
        answers = {}
        for name, kind in self._types.items():
            shape = tuple(self._context.get_tensor_shape(name))
            if -1 in shape:
                raise NotOffered(f"output '{name[:96]}': its shape depends on data, which tensorrt does not offer", runtime="tensorrt")
            answers[name] = np.empty(shape, kind)
            self._context.set_tensor_address(name, self._buffers[name].hold(answers[name].nbytes))
        if not self._context.execute_async_v3(self._on.stream):
            raise RunFailed("runtime tensorrt: the engine cannot be run", runtime="tensorrt")
        self._on.wait()
        return [self._buffers[name].take(answers[name]) for name in outputs]

    def close(self) -> None:
        self._context = self._engine = None
        self._buffers.clear()


def _port(trt: Any, engine: Any, name: str) -> tuple[str, str, list[int]]:
    kind = engine.get_tensor_dtype(name)
    datatype = next((ours for ours, theirs in DATATYPES.items() if getattr(trt.DataType, theirs, None) == kind), None)
    if datatype is None:
        raise NotOffered(f"model file: '{name[:96]}' is of type {kind}, which tensorrt does not offer", runtime="tensorrt")
    return name, datatype, [int(dim) for dim in engine.get_tensor_shape(name)]
