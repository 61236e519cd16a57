"""Translates a MIL program to an ONNX graph, operation by operation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from nnrp.errors import NotOffered
from nnrp.runtimes.coreml.graph import Graph
from nnrp.runtimes.coreml.package import bad
from nnrp.runtimes.coreml.value import TYPES, Constants, Type, Value, type_of

#: What an operation gives: tensors of the graph by name, constants, or whole values where the program declares something else.
Given: TypeAlias = "str | np.ndarray[Any, Any] | Sequence[str | np.ndarray[Any, Any] | Value]"
Translate: TypeAlias = "Callable[[Op], Given]"

_MISSING: Any = object()
#: Most axes, sizes or indices that one operation lists.
MOST_NUMBERS = 1 << 16


class Op:
    """An operation that is translated: its inputs by name, and the graph that takes the nodes that it becomes.

    Attributes:
        kind: what it is called in MIL.
        where: where it is, for errors.
        args: the inputs; several values where it takes a tuple.
        types: the types of its outputs, as the program declares them.
        blocks: the blocks in it.
    """

    def __init__(self, program: Program, graph: Graph, scope: Mapping[str, Value], message: Any, path: str) -> None:
        self.program, self.graph, self.scope = program, graph, scope
        self.kind: str = message.type
        self.path = path
        self.name: str = message.outputs[0].name if message.outputs else ""
        self.where = place(self.kind, path, self.name)
        self.args = {one.key: [self._bound(scope, one.key, binding) for binding in one.value.arguments] for one in message.inputs}
        for one in message.attributes:
            if one.key != "name" and one.key not in self.args:
                self.args[one.key] = [self._constant(one.key, one.value)]
        self.outputs = list(message.outputs)
        self.blocks = list(message.blocks)

    @property
    def types(self) -> list[Type]:
        return [type_of(one.type, f"{self.where}: output '{one.name[:96]}'") for one in self.outputs]

    def _bound(self, scope: Mapping[str, Value], key: str, binding: Any) -> Value:
        if binding.HasField("value"):
            return self._constant(key, binding.value)
        if binding.name not in scope:
            raise bad(f"{self.where}: input '{key[:96]}': nothing before it is called '{binding.name[:96]}'")
        return scope[binding.name]

    def _constant(self, key: str, message: Any) -> Value:
        type, elements = self.program.constants.read(message, f"{self.where}: '{key[:96]}'")
        return Value("", type, elements)

    # What it takes

    def has(self, key: str) -> bool:
        """Whether an input is given."""
        return bool(self.args.get(key))

    def values(self, key: str) -> list[Value]:
        """Give an input that may be several tensors."""
        if not self.has(key):
            raise bad(f"{self.where}: expected an input '{key}', got none")
        return self.args[key]

    def value(self, key: str) -> Value:
        """Give an input that is one tensor."""
        found = self.values(key)
        if len(found) != 1:
            raise bad(f"{self.where}: input '{key}': expected one tensor, got {len(found)}")
        return found[0]

    def ref(self, key: str) -> str:
        """Give the name of an input in the graph."""
        return self.program.ref(self.value(key))

    def refs(self, key: str) -> list[str]:
        """Give the names of an input that may be several tensors."""
        return [self.program.ref(one) for one in self.values(key)]

    def maybe(self, key: str) -> str:
        """Give the name of an input that need not be there; empty then, as ONNX says it."""
        return self.ref(key) if self.has(key) else ""

    def kind_of(self, key: str) -> str:
        """Give the element type of an input."""
        return self.value(key).type.kind

    def shape(self, key: str) -> tuple[int, ...]:
        """Give the shape of an input, with -1 for any size."""
        shape = self.value(key).type.shape
        if shape is None:
            raise self.refused(f"input '{key}' has any rank")
        return shape

    def rank(self, key: str) -> int:
        """Give the rank of an input."""
        return len(self.shape(key))

    def elements(self, key: str, default: Any = _MISSING) -> Any:
        """Give the elements of an input that must be a constant."""
        if not self.has(key) and default is not _MISSING:
            return default
        value = self.value(key)
        if value.elements is None:
            raise self.refused(f"input '{key}' is not a constant")
        return value.elements

    def row(self, key: str, default: Sequence[int] | None = None) -> list[int]:
        """Give whole numbers that must be constants."""
        found = self.elements(key, default) if default is not None else self.elements(key)
        if (found.size if isinstance(found, np.ndarray) else len(found)) > MOST_NUMBERS:
            raise bad(f"{self.where}: input '{key}': expected at most {MOST_NUMBERS} numbers")
        try:
            return [int(one) for one in np.asarray(found).reshape(-1)]
        except (ValueError, TypeError, OverflowError) as error:
            raise bad(f"{self.where}: input '{key}': expected whole numbers") from error

    def item(self, key: str, default: Any = _MISSING) -> Any:
        """Give one element that must be a constant: a number, a text or a truth."""
        found = self.elements(key, default)
        if not isinstance(found, np.ndarray):
            return found
        if found.size != 1:
            raise bad(f"{self.where}: input '{key}': expected one element, got {found.size}")
        return found.reshape(-1)[0].item() if found.dtype != object else found.reshape(-1)[0]

    def axis(self, key: str = "axis", default: Any = _MISSING, rank: int | None = None) -> int:
        """Give an axis of the input `x`, from 0."""
        found = int(self.item(key, default))
        most = self.rank("x") if rank is None else rank
        if not -most <= found < max(most, 1):
            raise bad(f"{self.where}: {key}: expected an axis of {most}, got {found}")
        return found % most if most else 0

    # What it becomes

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output, and give its name."""
        return self.graph.add(kind, inputs, **attributes)[0]

    def many(self, kind: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> list[str]:
        """Add a node with several outputs, and give their names."""
        return self.graph.add(kind, inputs, outputs, **attributes)

    def const(self, value: Any, kind: str) -> str:
        """Give the name of a constant of a MIL type."""
        with np.errstate(over="ignore"):
            return self.graph.constant(np.asarray(value, TYPES[kind][0]))

    def full(self, shape: Sequence[int], value: float, key: str = "x") -> str:
        """Give the name of a constant of one number, many times, which counts among the weights."""
        self.program.constants.reserve(math.prod(shape) * 8)
        return self.like(np.full(shape, value), key)

    def like(self, value: Any, key: str = "x") -> str:
        """Give the name of a constant of an input's element type."""
        return self.const(value, self.kind_of(key))

    def whole(self, *values: int) -> str:
        """Give the name of a row of INT64, as ONNX takes axes and sizes."""
        return self.graph.constant(np.array(values, np.int64))

    def cast(self, name: str, kind: str) -> str:
        """Cast a tensor to a MIL type."""
        return self.add("Cast", name, to=TYPES[kind][1])

    def wide(self, key: str) -> str:
        """Give the name of an input of whole numbers as INT64."""
        value = self.value(key)
        if value.elements is not None and value.type.kind != "string":
            return self.graph.constant(value.elements.astype(np.int64))
        return self.cast(self.program.ref(value), "int64")

    def sizes(self, name: str) -> str:
        """Give the name of a tensor's shape, as INT64."""
        return self.add("Shape", name)

    def refused(self, why: str) -> NotOffered:
        """The error of what MIL says and the graph cannot."""
        return NotOffered(f"model file: {self.where}: {why}: no translation to ONNX", runtime="coreml", operation=self.kind, location=self.path)


def place(kind: str, path: str, name: str) -> str:
    """Where an operation is, for people."""
    return f"operation '{kind[:96]}' at {path}" + (f" ('{name[:96]}')" if name else "")


class Program:
    """A function of a MIL program on its way to ONNX.

    Args:
        function: its message.
        name: what it is called.
        constants: the weights.
        table: operation → its translation.

    Attributes:
        classes: what the elements of a classifier's probabilities are called, by output.
    """

    def __init__(self, function: Any, name: str, constants: Constants, table: Mapping[str, Translate]) -> None:
        self.name, self.constants, self.table = name, constants, table
        block = next((one.value for one in function.blocks if one.key == function.opset), None)
        if block is None:
            raise bad(f"function '{name[:96]}': expected a block for '{function.opset[:96]}', got none")
        self.block = block
        self.inputs = {one.name: type_of(one.type, f"input '{one.name[:96]}'") for one in function.inputs}
        for input, type in self.inputs.items():
            if type.kind not in TYPES:
                raise NotOffered(f"model file: input '{input[:96]}' is of {type.kind}, which coreml does not offer", runtime="coreml")
        self.classes: dict[str, list[Any]] = {}
        self._constants: dict[int, tuple[Any, str]] = {}

    def ref(self, value: Value) -> str:
        """Give a value's name in the graph; a constant gets there when it is first asked for."""
        if value.elements is None or value.name:
            return value.name
        if value.type.kind not in TYPES:
            raise NotOffered(f"model file: a tensor of {value.type.kind} is offered as packed weights alone", runtime="coreml")
        found = self._constants.get(id(value.elements))
        if found is None:
            found = (value.elements, self.root.constant(value.elements))
            self._constants[id(value.elements)] = found
        return found[1]

    def translate(self, inputs: Mapping[str, Type], defaults: Mapping[str, np.ndarray[Any, Any]]) -> tuple[Graph, dict[str, Value]]:
        """Give the graph, and its outputs by name.

        Args:
            inputs: the types of the inputs; a dimension that is known to the description alone is known here.
            defaults: what stands for an input that is not given.

        Raises:
            NotOffered: names the first operation that has no translation, and where it is.
            InvalidModel.
        """
        self._check()
        self.root = Graph(self.name)
        scope = {}
        for name in [*self.inputs, *self.block.outputs]:
            self.root.names.take(name)
        for name, type in inputs.items():
            self.root.takes(name, type)
            scope[name] = Value(name, type)
        for name, elements in defaults.items():
            self.root.constant(elements, name)
        self.run(self.root, self.block, scope, self.name)
        outputs: dict[str, Value] = {}
        for name in self.block.outputs:
            if name not in scope or name in outputs or name in self.inputs:
                raise bad(f"output '{name[:96]}': expected what an operation gives, once")
            outputs[name] = scope[name]
            self.root.rename(self.ref(scope[name]), name)
            self.root.gives(name, outputs[name].type)
        if not outputs:
            raise bad(f"function '{self.name[:96]}': expected outputs, got none")
        return self.root, outputs

    def run(self, graph: Graph, block: Any, scope: dict[str, Value], path: str) -> None:
        """Translate a block's operations into a graph, and add what they give to the scope."""
        for index, message in enumerate(block.operations):
            op = Op(self, graph, scope, message, f"{path}/{index}")
            graph.origin = op.name
            given = self.table[op.kind](op)
            several = [given] if isinstance(given, (str, np.ndarray)) else list(given)
            if len(several) < len(op.outputs):
                raise bad(f"{op.where}: expected {len(several)} outputs, got {len(op.outputs)}")
            for one, output in zip(several, op.outputs, strict=False):
                scope[output.name] = one if isinstance(one, Value) else _declared(op, output, one)

    def _check(self) -> None:
        """Look for operations that have no translation before any is translated."""
        missing = [(kind, path, name) for kind, path, name in _walk(self.block, self.name) if kind not in self.table]
        if missing:
            kinds = sorted({kind for kind, *_ in missing})
            others = f" (one of {len(kinds)} kinds: {', '.join(kinds[:16])})" if len(kinds) > 1 else ""
            kind, path, _ = missing[0]
            raise NotOffered(
                f"model file: {place(*missing[0])}{others}: no translation to ONNX", runtime="coreml", operation=kind, location=path, operations=kinds[:64]
            )


def _declared(op: Op, output: Any, given: str | np.ndarray[Any, Any]) -> Value:
    """What an operation gave, with the type that the program declares for it."""
    type = type_of(output.type, f"{op.where}: output '{output.name[:96]}'")
    if isinstance(given, str):
        return Value(given, type)
    declared = given.shape if type.shape is None else type.shape
    if len(declared) != given.ndim or any(dim not in (-1, got) for dim, got in zip(declared, given.shape, strict=True)):
        raise bad(f"{op.where}: expected a constant of {list(declared)}, got {list(given.shape)}")
    return Value("", Type(type.kind, given.shape), given)


def _walk(block: Any, path: str) -> Iterator[tuple[str, str, str]]:
    """Every operation, in order, those in blocks after the one that has them: kind, place, name."""
    for index, one in enumerate(block.operations):
        yield one.type, f"{path}/{index}", one.outputs[0].name if one.outputs else ""
        for number, inner in enumerate(one.blocks):
            yield from _walk(inner, f"{path}/{index}.{number}")
