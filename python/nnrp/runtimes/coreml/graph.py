"""Writes an ONNX graph, node by node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from nnrp.runtimes.coreml.schema import ONNX, messages
from nnrp.runtimes.coreml.value import TYPES, Type

#: The operator set and the form of the file that ONNX Runtime reads since 1.17.
OPSET, FORM = 20, 9
_NUMBERS = {np.dtype(name): number for name, number, _ in TYPES.values()}
#: Constants no longer than this, in bytes, are written once however often they are asked for.
_SHARED = 1024
#: Constants longer than this are written one after the other, so that memory never holds several copies of all of them.
_LONG = 1 << 20


class Names:
    """Names of tensors, none twice in the whole graph."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def take(self, wanted: str) -> str:
        """Give the name, with a number where it is taken."""
        name = wanted
        while name in self._taken:
            self._taken[wanted] += 1
            name = f"{wanted}.{self._taken[wanted]}"
        self._taken[name] = 0
        return name


class Graph:
    """A graph, or one that runs within a node of another and sees that one's tensors.

    Args:
        name: what it is called.
        outer: the graph around it, which keeps the constants and the names.
    """

    def __init__(self, name: str, outer: Graph | None = None) -> None:
        self._messages = messages(ONNX)
        self._model = None if outer else self._messages["ModelProto"](ir_version=FORM, producer_name="nnrp")
        self.message = self._messages["GraphProto"]() if self._model is None else self._model.graph
        self.message.name = name
        #: What the nodes come from, for whoever looks into a profile or an error.
        self.origin = ""
        self.nodes = Names()
        self.names: Names = outer.names if outer else Names()
        self.root: Graph = outer.root if outer else self
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._long: list[tuple[str, np.ndarray[Any, Any]]] = []

    def add(self, kind: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> list[str]:
        """Add a node, and give the names of its outputs; attributes that are None are left out."""
        node = self.message.node.add(op_type=kind)
        node.input.extend(inputs)
        named = [self.names.take(f"{kind}:{len(self.message.node)}") for _ in range(outputs)]
        node.output.extend(named)
        node.name = self.root.nodes.take(self.origin or kind)
        for name, value in attributes.items():
            if value is not None:
                _attribute(node.attribute.add(name=name), value)
        return named

    def rename(self, source: str, name: str) -> None:
        """Give a tensor a further name."""
        node = self.message.node.add(op_type="Identity", name=self.root.nodes.take(name))
        node.input.append(source)
        node.output.append(name)

    def constant(self, elements: np.ndarray[Any, Any], name: str = "") -> str:
        """Give the name of a constant; those that are small and equal are one."""
        if self.root is not self:
            return self.root.constant(elements, name)
        shared = elements.dtype != object and elements.nbytes <= _SHARED and not name
        key = (elements.dtype.str, elements.shape, elements.tobytes() if shared else b"")
        if shared and key in self._constants:
            return self._constants[key]
        named = name or self.names.take("constant")
        if elements.nbytes > _LONG:
            self._long.append((named, elements))
        else:
            _tensor(self.message.initializer.add(), named, elements)
        if shared:
            self._constants[key] = named
        return named

    def takes(self, name: str, type: Type) -> None:
        """Say that it has an input."""
        self._describe(self.message.input.add(name=name), type)

    def gives(self, name: str, type: Type) -> None:
        """Say that it has an output."""
        self._describe(self.message.output.add(name=name), type)

    def _describe(self, value: Any, type: Type) -> None:
        tensor = value.type.tensor_type
        tensor.elem_type = TYPES[type.kind][1]
        if type.shape is None:
            return
        tensor.shape.SetInParent()
        for dim in type.shape:
            one = tensor.shape.dim.add()
            if dim >= 0:
                one.dim_value = dim

    def model(self) -> Iterator[bytes]:
        """Give the whole as the bytes of an ONNX model, in parts: messages of one kind that follow each other are one, merged."""
        assert self._model is not None, "a graph within another is no model"
        self._model.opset_import.add(domain="", version=OPSET)
        yield self._model.SerializeToString()
        while self._long:
            part = self._messages["ModelProto"]()
            _tensor(part.graph.initializer.add(), *self._long.pop())
            yield part.SerializeToString()


def _tensor(tensor: Any, name: str, elements: np.ndarray[Any, Any]) -> None:
    tensor.name, tensor.data_type = name, _NUMBERS[elements.dtype]
    tensor.dims.extend(elements.shape)
    if elements.dtype == object:
        tensor.string_data.extend(one.encode() if isinstance(one, str) else one for one in elements.reshape(-1))
    else:
        tensor.raw_data = elements.tobytes()


def _attribute(attribute: Any, value: Any) -> None:
    """Set an attribute by the type of its value: number, text, graph, or a list of whole numbers or fractions."""
    if isinstance(value, Graph):
        attribute.type = 5
        attribute.g.CopyFrom(value.message)
    elif isinstance(value, float):
        attribute.type, attribute.f = 1, value
    elif isinstance(value, (bool, int, np.integer)):
        attribute.type, attribute.i = 2, int(value)
    elif isinstance(value, str):
        attribute.type, attribute.s = 3, value.encode()
    else:
        _row(attribute, list(value))


def _row(attribute: Any, values: Iterable[Any]) -> None:
    listed = list(values)
    if listed and isinstance(listed[0], str):
        attribute.type = 8
        attribute.strings.extend(one.encode() for one in listed)
    elif listed and isinstance(listed[0], float):
        attribute.type = 6
        attribute.floats.extend(listed)
    else:
        attribute.type = 7
        attribute.ints.extend(int(one) for one in listed)
