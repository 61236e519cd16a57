"""The runtime ``iree``: modules that IREE compiled for a machine, `.vmfb`."""

from __future__ import annotations

import atexit
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnrp.errors import DeviceNotFound, InvalidModel, InvalidOption, LoadFailed, NnrpError, NotOffered, RunFailed
from nnrp.runtimes import declared, package
from nnrp.runtimes.contract import Control, ModelSpec
from nnrp.runtimes.cores import Agreed, option
from nnrp.tensor import NAMES

#: Our datatypes that it has → how MLIR writes them.
DATATYPES = {
    "BOOL": "i1",
    "UINT8": "ui8",
    "UINT16": "ui16",
    "UINT32": "ui32",
    "UINT64": "ui64",
    "INT8": "i8",
    "INT16": "i16",
    "INT32": "i32",
    "INT64": "i64",
    "FP16": "f16",
    "FP32": "f32",
    "FP64": "f64",
    "BF16": "bf16",
    "FP8_E4M3": "f8E4M3FN",
    "FP8_E5M2": "f8E5M2",
}
#: One input or output in the declaration that some modules keep of a function.
_PORT = re.compile(r"%(\w+): ([^,()%]+(?:\([^)]*\))?)")
_TENSOR = re.compile(r"tensor<((?:(?:\?|\d+)x)*)(\w+)>")
#: Devices by driver, kept until the process ends.
_devices: dict[str, Any] = {}
#: A thread of IREE's own asks for the interpreter some time after a run, and takes the process down where that ends meanwhile (2 to 4 of 50 programs that end
#: right after a run, on two busy cores; none of 37 that wait for so long).
SETTLED_S = 0.3
_threads = Agreed("iree")
_lock = threading.Lock()


class Iree:
    """Loads `.vmfb` files. The drivers of other devices than the CPU are offered where IREE finds them."""

    name = "iree"
    formats = ("vmfb",)

    def info(self) -> dict[str, Any]:
        properties = {
            "function": {"type": "string", "description": "which of the module's functions to run; needed where it has several"},
            "threads": option("threads of all runs of a process together, the physical cores by default; 1 runs on the thread that calls"),
            "exclusive": {"type": "boolean", "description": "false: any number of runs at once, which is right where the module keeps nothing from run to run"},
        }
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        version = package.version(self.name, "iree.runtime", "iree-base-runtime")
        return {"version": version, "formats": self.formats, "devices": _drivers(), "options": schema}

    def load(self, spec: ModelSpec) -> Function:
        runtime = package.load(self.name, "iree.runtime")
        device, threads = _device(runtime, spec)
        instance = runtime.VmInstance()
        try:
            module = runtime.VmModule.copy_buffer(instance, Path(spec.path).read_bytes())
        except (ValueError, RuntimeError) as error:
            raise InvalidModel(f"model file: IREE cannot read it: {package.said(error)}", runtime=self.name) from error
        function = _function(module, spec.options.get("function"))
        try:
            context = runtime.VmContext(instance, modules=[runtime.create_hal_module(instance, device), module])
        except (ValueError, RuntimeError) as error:
            raise LoadFailed(f"runtime iree: {package.said(error)}", runtime=self.name) from error
        declaration = function.reflection.get("iree.abi.declaration", "")
        inputs, outputs = (_ports(spec, side, text) for side, text in zip(("inputs", "outputs"), declaration.partition("->")[::2], strict=True))
        session = Function(runtime.FunctionInvoker(context, device, function), inputs, outputs)
        session.device = "cpu" if spec.device == "auto" else spec.device
        session.exclusive = spec.options.get("exclusive", True)
        session.settings = {"precision": "strict", "function": function.name, "exclusive": session.exclusive, "values_checked": False}
        session.settings |= {"threads": threads} if threads else {}
        return session


def _drivers() -> list[str]:
    """List the devices: the CPU, and the drivers that have one."""
    runtime = package.load("iree", "iree.runtime")
    found = ["cpu"]
    for driver in runtime.query_available_drivers():
        if not driver.startswith("local-"):
            try:
                found += [driver] if runtime.get_driver(driver).query_available_devices() else []
            except (ValueError, RuntimeError):
                continue
    return found


def _device(runtime: Any, spec: ModelSpec) -> tuple[Any, int | None]:
    """The device, and its threads where it is the CPU."""
    there, wanted = ["auto", *_drivers()], spec.options.get("threads")
    if spec.device not in there:
        message = f"device '{spec.device[:96]}' is not there; available to iree: {', '.join(there[1:])}"
        raise DeviceNotFound(message, runtime="iree", available=there[1:])
    if spec.precision not in ("strict", "fast"):
        raise NotOffered(f"precision {spec.precision}: iree computes in the types that the module was compiled for", runtime="iree")
    driver, threads = spec.device, None
    if driver in ("auto", "cpu"):
        driver, threads = ("local-sync", 1) if wanted == 1 else ("local-task", _threads.on(wanted))
    elif wanted is not None:
        raise InvalidOption(f"option 'threads': speaks of the device cpu, and the model is to run on {driver}", runtime="iree")
    with _lock:
        if driver not in _devices:
            # The flags of the process are all that says how many threads the driver gets, which happens once.
            runtime.flags.parse_flags(*([f"--task_topology_group_count={threads}"] if driver == "local-task" else []))
            if not _devices:
                atexit.register(time.sleep, SETTLED_S)
            _devices[driver] = runtime.get_driver(driver).create_default_device()
        return _devices[driver], threads


def _function(module: Any, wanted: str | None) -> Any:
    """The function to run: the one that is named, or the only one that is there for callers."""
    there = [name for name in module.function_names if not name.startswith("__") and not name.endswith("$async")]
    if wanted is None and len(there) == 1:
        wanted = there[0]
    if wanted not in there:
        got = "none" if wanted is None else f"'{wanted[:96]}'"
        raise InvalidOption(f"option 'function': expected one that the module has, got {got}; it has {', '.join(there[:16]) or 'none'}", functions=there[:16])
    return module.lookup_function(wanted)


def _ports(spec: ModelSpec, side: str, declaration: str) -> list[declared.Port]:
    """The module's own declaration of the function, or else what the description says, as it must of those from ONNX."""
    names = {mlir: datatype for datatype, mlir in DATATYPES.items()}
    found: list[declared.Port] = []
    for name, kind in _PORT.findall(declaration):
        tensor = _TENSOR.fullmatch(kind.strip())
        if tensor is None or tensor[2] not in names:
            raise NotOffered(f"model file: '{name[:96]}' is of type {kind.strip()[:96]}, which iree does not offer", runtime="iree")
        found.append((name, names[tensor[2]], [-1 if dim == "?" else int(dim) for dim in tensor[1].split("x")[:-1]]))
    return found or declared.ports("iree", spec, side, DATATYPES)


class Function:
    """A function that one thread calls at a time, because a module does not tell whether it remembers. Inputs and outputs are copied once."""

    exclusive: bool
    cancellable = False
    device: str
    settings: dict[str, Any]

    def __init__(self, function: Any, inputs: list[declared.Port], outputs: list[declared.Port]) -> None:
        self.inputs, self.outputs = inputs, outputs
        self._function = function

    def run(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> dict[str, Any]:
        try:
            answer = self._function(*[inputs[name] for name, *_ in self.inputs])
            answers = answer if isinstance(answer, tuple) else (answer,)
            if len(answers) != len(self.outputs):
                raise RunFailed(f"runtime iree: expected {len(self.outputs)} outputs, got {len(answers)}", runtime="iree")
            return {name: _owned(value, datatype) for (name, datatype, _), value in zip(self.outputs, answers, strict=True) if name in outputs}
        except NnrpError:
            # It is a RuntimeError too, and says who speaks.
            raise
        except (ValueError, RuntimeError, TypeError) as error:
            raise RunFailed(f"runtime iree: {package.said(error)}", runtime="iree") from error


def _owned(value: Any, datatype: str) -> Any:
    """A copy, because memory that is mapped crashes the process when it outlives its device; whole numbers come back without their kind."""
    array = np.array(value.to_host())
    kind = np.dtype(NAMES[datatype]) if datatype[0] in "IU" or datatype == "BOOL" else array.dtype
    return array.view(kind) if array.dtype.kind in "iub" and array.itemsize == kind.itemsize else array
