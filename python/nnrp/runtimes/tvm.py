"""The runtime ``tvm``: modules that Apache TVM compiled, shared libraries, which run what their maker wrote as soon as they are opened."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnrp.errors import InvalidModel, InvalidOption, LoadFailed, NotOffered, RunFailed
from nnrp.runtimes import declared, package
from nnrp.runtimes.contract import Control, ModelSpec, on_cpu
from nnrp.tensor import NAMES

DATATYPES = {datatype: name for datatype, name in NAMES.items() if datatype not in ("BYTES", "INT4", "UINT4")}
#: What TVM and what lies under it raise.
FAILURES = (RuntimeError, ValueError, TypeError, AttributeError, OSError)
ENDINGS = (".so", ".dylib", ".dll")
#: Of an ELF file's head: where the table of sections is, how large an entry, and how many.
_ELF, _TABLE, _ENTRIES = b"\x7fELF\x02\x01", struct.Struct("<40xQ"), struct.Struct("<58xHH")


class Tvm:
    """Loads compiled modules, where somebody says that they may be."""

    name = "tvm"
    formats = ("shared_library",)

    def info(self) -> dict[str, Any]:
        properties = {
            "allow_code": {"type": "boolean", "default": False, "description": "whether to open the file, which runs the code in it"},
            "function": {"type": "string", "default": "main", "description": "which of the module's functions to run"},
        }
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        version = package.version(self.name, "tvm", "apache-tvm")
        return {"version": version, "formats": self.formats, "devices": ["cpu"], "options": schema}

    def load(self, spec: ModelSpec) -> Module:
        on_cpu(self.name, spec)
        if not spec.options.get("allow_code"):
            raise InvalidOption("option 'allow_code': expected true, because to open a compiled module is to run the code in it, got false", runtime=self.name)
        inputs, outputs = (declared.ports(self.name, spec, side, DATATYPES) for side in ("inputs", "outputs"))
        _check(Path(spec.path))
        # Its threads look busily for work, for some time after each run, unless they are told not to.
        os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", "0")
        tvm, relax = package.load(self.name, "tvm"), package.load(self.name, "tvm.relax")
        try:
            machine = relax.VirtualMachine(tvm.runtime.load_module(str(Path(spec.path).resolve())), tvm.cpu())
        except FAILURES as error:
            raise LoadFailed(f"runtime tvm: {package.said(error, spec.path)}", runtime=self.name) from error
        name = spec.options.get("function", "main")
        try:
            function = machine[name]
        except FAILURES as error:
            raise InvalidOption(f"option 'function': expected one that the module has, got '{name[:96]}'", runtime=self.name) from error
        session = Module(tvm, function, inputs, outputs)
        session.settings = {"precision": "strict", "function": name}
        return session


def _check(path: Path) -> None:
    """Refuse a library that is cut off, which would end the process that opens it."""
    if path.suffix not in ENDINGS:
        raise NotOffered(f"model file: TVM opens files whose names end in {', '.join(ENDINGS)}, got one that ends in '{path.suffix[:16]}'", runtime="tvm")
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(_ELF):
        (table,), (size, count) = _TABLE.unpack_from(head.ljust(64)), _ENTRIES.unpack_from(head.ljust(64))
        if len(head) < 64 or table + size * count > path.stat().st_size:
            raise InvalidModel("model file: expected a shared library as a whole, got one that is cut off", runtime="tvm")


class Module:
    """A compiled function, one call at a time: nobody says that TVM's virtual machine may be shared."""

    exclusive = True
    cancellable = False
    settings: dict[str, Any]

    def __init__(self, tvm: Any, function: Any, inputs: list[declared.Port], outputs: list[declared.Port]) -> None:
        self.inputs, self.outputs = inputs, outputs
        self._tensor, self._function = tvm.runtime.tensor, function

    def run(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> dict[str, Any]:
        try:
            answer = self._function(*[self._tensor(inputs[name]) for name, *_ in self.inputs])
            answers = [answer] if hasattr(answer, "numpy") else list(answer)
            if len(answers) != len(self.outputs):
                raise RunFailed(f"runtime tvm: expected {len(self.outputs)} outputs, got {len(answers)}", runtime="tvm")
            return {name: value.numpy() for (name, *_), value in zip(self.outputs, answers, strict=True) if name in outputs}
        except FAILURES as error:
            raise RunFailed(f"runtime tvm: {package.said(error)}", runtime="tvm") from error

    def close(self) -> None:
        self._function = None
