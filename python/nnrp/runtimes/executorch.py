"""The runtime ``executorch``: programs that PyTorch's runtime for small devices executes, `.pte`."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nnrp.errors import InvalidModel, InvalidOption, LoadFailed, NnrpError, NotOffered, ShapeMismatch
from nnrp.runtimes import package
from nnrp.runtimes.contract import ModelSpec, on_cpu
from nnrp.runtimes.torch.session import FAILURES, Program
from nnrp.runtimes.torch.types import Port, quieten

#: The file's numbers of element types → our datatypes.
DATATYPES = {
    0: "UINT8",
    1: "INT8",
    2: "INT16",
    3: "INT32",
    4: "INT64",
    5: "FP16",
    6: "FP32",
    7: "FP64",
    11: "BOOL",
    15: "BF16",
    23: "FP8_E5M2",
    24: "FP8_E4M3",
    27: "UINT16",
    28: "UINT32",
    29: "UINT64",
}
#: The file's numbers of what is a plain number, and of a tensor → what Python has for it, and our datatype.
_NUMBERS: Mapping[int, tuple[type, str]] = {2: (int, "INT64"), 3: (bool, "BOOL"), 4: (float, "FP64")}
_TENSOR, _STATIC = 5, 0


class Value(NamedTuple):
    """An input or output as the file has it: its sizes are the largest where they are not fixed."""

    datatype: str
    sizes: list[int]
    fixed: bool
    number: type | None = None

    @property
    def shape(self) -> list[int]:
        """The dimensions, -1 for those that may be less; one that is 1 at most is 1."""
        return [size if self.fixed or size <= 1 else -1 for size in self.sizes]


class ExecuTorch:
    """Loads `.pte` files."""

    name = "executorch"
    formats = ("pte",)

    def info(self) -> dict[str, Any]:
        properties = {
            "method": {"type": "string", "default": "forward", "description": "which of the program's methods to run"},
        }
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        return {"version": package.version(self.name, "executorch"), "formats": self.formats, "devices": ["cpu"], "options": schema}

    def load(self, spec: ModelSpec) -> Program:
        on_cpu(self.name, spec)
        torch = package.load(self.name, "torch")
        runtime = package.load(self.name, "executorch.runtime").Runtime.get()
        quieten(torch)
        content = Path(spec.path).read_bytes()
        if spec.format != "pte":
            raise InvalidModel("model file: expected a program of ExecuTorch, got none", runtime=self.name)
        try:
            program = runtime.load_program(content)
            plans = {plan.name: plan for plan in _plans(content)}
        except NnrpError:
            raise
        except (*FAILURES, struct.error) as error:
            raise InvalidModel(f"model file: ExecuTorch cannot read it: {package.said(error)}", runtime=self.name) from error
        plan = _chosen(plans, spec.options.get("method", "forward"))
        missing = [name for name in plan.delegates if not runtime.backend_registry.is_available(name)]
        if missing:
            there = list(runtime.backend_registry.registered_backend_names)
            raise LoadFailed(f"runtime executorch: the program needs the delegate {missing[0]}; there are {', '.join(there)}", runtime=self.name)
        try:
            method = program.load_method(plan.name)
        except FAILURES as error:
            raise LoadFailed(f"runtime executorch: {package.said(error)}", runtime=self.name) from error
        session = _session(torch, spec, plan, method)
        # A method lies in the memory of its program and of the file, and keeps neither.
        session.kept_alive = (program, content)
        return session


class Plan(NamedTuple):
    """A method of a program."""

    name: str
    inputs: list[Value]
    outputs: list[Value]
    delegates: list[str]


def _chosen(plans: Mapping[str, Plan], wanted: str) -> Plan:
    if wanted not in plans:
        listed = ", ".join(f"'{name[:96]}'" for name in list(plans)[:16])
        raise InvalidOption(f"option 'method': expected one that the program has, got '{wanted[:96]}'; it has {listed}", runtime="executorch")
    return plans[wanted]


def _session(torch: Any, spec: ModelSpec, plan: Plan, method: Any) -> Program:
    inputs, outputs = _ports("input", plan.inputs), _ports("output", plan.outputs)
    limits = {port.name: value.sizes for port, value in zip(inputs, plan.inputs, strict=True) if -1 in (port.shape or ())}
    settings = {"precision": "strict", "method": plan.name, "delegates": plan.delegates, "largest": limits, "values_checked": False}
    call = _caller(method, [(port.name, value.sizes if -1 in (port.shape or ()) else None) for port, value in zip(inputs, plan.inputs, strict=True)])
    session = Program(torch, call, inputs, outputs, device="cpu", settings=settings, kept=frozenset(), runtime="executorch")
    # A method has its memory planned once, for one run.
    session.exclusive = True
    return session


def _ports(base: str, values: Sequence[Value]) -> list[Port]:
    names = [base] if len(values) == 1 else [f"{base}_{place}" for place in range(len(values))]
    return [Port(name, value.datatype, value.shape, number=value.number) for name, value in zip(names, values, strict=True)]


def _caller(method: Any, limits: Sequence[tuple[str, Sequence[int] | None]]) -> Callable[..., Sequence[Any]]:
    """Give what runs the method; sizes beyond those that its memory was planned for are refused before."""

    def call(*given: Any) -> Sequence[Any]:
        for value, (name, most) in zip(given, limits, strict=True):
            if most is not None and any(size > limit for size, limit in zip(value.shape, most, strict=True)):
                raise ShapeMismatch(f"input '{name}': expected sizes up to {list(most)}, got {list(value.shape)}", input=name, expected=list(most))
            # ExecuTorch counts the strides of what is empty otherwise than PyTorch, and ends the process.
            if most is not None and 0 in value.shape:
                raise ShapeMismatch(f"input '{name}': expected sizes from 1, got {list(value.shape)}", input=name, got=list(value.shape))
        answer: Sequence[Any] = method.execute(given)
        return answer

    return call


# What the bindings do not tell, the file does: which tensors have sizes that may change, which inputs are numbers, and which delegates are needed.


def _plans(content: bytes) -> Iterator[Plan]:
    import flatbuffers
    from flatbuffers.table import Table

    root = flatbuffers.encode.Get(flatbuffers.packer.uoffset, content, 0)
    for plan in _tables(Table(content, root), 1):
        values = list(_tables(plan, 2))
        for operator in _tables(plan, 6):
            # A name that is no text ends the process, where ExecuTorch says that it has no such operator.
            _text(operator, 0), _text(operator, 1)
        inputs, outputs = ([_value(values[index]) for index in _integers(plan, slot)] for slot in (3, 4))
        yield Plan(_text(plan, 0), inputs, outputs, sorted({_text(delegate, 0) for delegate in _tables(plan, 7)}))


def _value(value: Any) -> Value:
    kind = _byte(value, 0)
    if kind in _NUMBERS:
        number, datatype = _NUMBERS[kind]
        return Value(datatype, [], True, number)
    if kind != _TENSOR:
        raise NotOffered("model file: an input or output is no tensor and no number, which executorch does not offer here", runtime="executorch")
    tensor = _union(value, 1)
    element = _byte(tensor, 0)
    if element not in DATATYPES:
        raise NotOffered(f"model file: a tensor is of the type {element}, which executorch does not offer here", runtime="executorch")
    return Value(DATATYPES[element], _integers(tensor, 2), _byte(tensor, 8) == _STATIC)


def _slot(table: Any, slot: int) -> int:
    """Where a field lies, from the table's place; 0 where it is left out."""
    place: int = table.Offset(4 + 2 * slot)
    return place


def _byte(table: Any, slot: int) -> int:
    place = _slot(table, slot)
    return int(table.Bytes[table.Pos + place]) if place else 0


def _text(table: Any, slot: int) -> str:
    place = _slot(table, slot)
    return bytes(table.String(table.Pos + place)).decode() if place else ""


def _integers(table: Any, slot: int) -> list[int]:
    place = _slot(table, slot)
    if not place:
        return []
    start = table.Vector(place)
    return list(struct.unpack_from(f"<{table.VectorLen(place)}i", table.Bytes, start))


def _tables(table: Any, slot: int) -> Iterator[Any]:
    place = _slot(table, slot)
    for index in range(table.VectorLen(place) if place else 0):
        yield type(table)(table.Bytes, table.Indirect(table.Vector(place) + 4 * index))


def _union(table: Any, slot: int) -> Any:
    return type(table)(table.Bytes, table.Indirect(table.Pos + _slot(table, slot)))
