"""The models of the built-in roles: what each computes, whatever the format of its file."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from nnrp.errors import InvalidOption
from nnrp.tensor import NAMES
from nnrp.testing.claims import NotApplicable

#: Where packages name the writers of their runtimes: ``torch = "nnrp.testing.formats.torch:write"``.
GROUP = "nnrp.zoo"
#: Of the model that takes long: products of matrices one after the other, between which a run can be stopped.
_STEPS, _WIDTH, _ROWS = 60, 512, 16_000
_RANKS = 64


class Port(NamedTuple):
    """An input or output; a dimension that is a text is open."""

    name: str
    datatype: str
    shape: tuple[int | str, ...]

    @property
    def sizes(self) -> list[int]:
        """The dimensions, -1 for those that are open."""
        return [dim if isinstance(dim, int) else -1 for dim in self.shape]


class Node(NamedTuple):
    """An operation of ONNX's default domain, without attributes."""

    kind: str
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True)
class Graph:
    """A small model, for a writer to put into a file.

    Attributes:
        role: what it plays in the suite.
        nodes: operations in the order in which they can be run: Add, Gemm, Identity, LayerNormalization, MatMul, Mul, NonZero, Reshape, Softmax, Squeeze, Tanh,
            and Each, which makes a stream: what follows is answered for each element of its input, one after another.
        inputs: what it takes, in order.
        outputs: what it gives, in order.
        constants: the values that nodes take beside the inputs.
    """

    role: str
    nodes: Sequence[Node]
    inputs: Sequence[Port]
    outputs: Sequence[Port]
    constants: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)

    def described(self) -> dict[str, list[dict[str, Any]]]:
        """Say its inputs and outputs as a model's description does, for formats that lose them."""
        sides = {"inputs": self.inputs, "outputs": self.outputs}
        return {side: [{"name": port.name, "datatype": port.datatype, "shape": port.sizes} for port in ports] for side, ports in sides.items()}

    def run(self, operations: Mapping[str, Callable[..., Any]], inputs: Sequence[Any], constants: Mapping[str, Any] | None = None) -> list[Any]:
        """Carry it out with somebody's operations, on numbers or on what traces them.

        Args:
            operations: kind of a node → function of the node's inputs.
            inputs: one for each input of the graph.
            constants: name → its value, where it must be of another type than an array.

        Raises:
            NotApplicable: there is no such operation.
        """
        values = {**(self.constants if constants is None else constants), **{port.name: value for port, value in zip(self.inputs, inputs, strict=True)}}
        for node in self.nodes:
            if node.kind not in operations:
                raise NotApplicable(f"no model plays '{self.role}': it needs the operation {node.kind}")
            values[node.output] = operations[node.kind](*(values[name] for name in node.inputs))
        return [values[port.name] for port in self.outputs]


#: Puts a graph into a file of the folder, and tells where it is: a path, or what `Engine.load` takes, and `ask` and `then` under other names than the graph's.
#: Raises NotApplicable where the format or the runtime has no such model.
Writer: TypeAlias = Callable[[Graph, Path], "str | Path | Mapping[str, Any]"]


def make(role: str, folder: Path, write: Writer | None = None) -> dict[str, Any]:
    """Write the model of a role, if it is not there yet, and tell where it is and what it is asked.

    Args:
        role: what it plays.
        folder: where it is written.
        write: puts it into a file; default: an ONNX file.

    Raises:
        NotApplicable: there is no such model.
    """
    from nnrp.testing.formats import onnx

    drawn = graph(role)
    told = (write or onnx.write)(drawn, folder)
    return _asked(role) | (dict(told) if isinstance(told, Mapping) else {"path": Path(told)})


def writer(runtime: str, named: str | Writer | None = None) -> Writer | None:
    """Find what writes models for a runtime.

    Args:
        runtime: its name, under which a package may bring a writer.
        named: the writer itself, or ``module:function``.

    Raises:
        InvalidOption: there is no function of that name.
    """
    if named is None:
        brought = next(iter(entry_points(group=GROUP, name=runtime)), None)
        named = brought.value if brought else None
    if not isinstance(named, str):
        return named
    module, _, name = named.partition(":")
    try:
        found: Writer = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidOption(f"writer '{named[:96]}': expected module:function: {type(error).__name__}") from error
    return found


def graph(role: str) -> Graph:
    """Draw the model of a role.

    Raises:
        NotApplicable: there is no such model.
    """
    kind, _, number = role.partition("_")
    if kind == "identity" and number.upper() in NAMES:
        return _identity(role, number.upper(), ("n",))
    if kind == "rank" and number.isdigit() and int(number) <= _RANKS:
        return _identity(role, "FP32", tuple(f"d{axis}" for axis in range(int(number))))
    if role not in _DRAWN:
        raise NotApplicable(f"no model plays '{role}': give one")
    return _DRAWN[role](role)


def check_roles(roles: Iterable[str]) -> None:
    """Refuse a role that no check asks for.

    Raises:
        InvalidOption: tells those that there are.
    """
    for role in roles:
        try:
            graph(role)
        except NotApplicable:
            known = ", ".join([*_DRAWN, f"rank_0 to rank_{_RANKS}", "identity_fp32 and so on"])
            raise InvalidOption(f"model role '{role:.96}': expected one of {known}", role=role[:96]) from None


def _asked(role: str) -> dict[str, Any]:
    if role == "slow":
        return {"ask": {"x": np.ones((_ROWS, _WIDTH), np.float32)}}
    if role == "stream_failing":
        return {"ask": {"x": [1.0]}, "then": {"x": []}}
    return {"ask": {"x": [1.0] * 7}, "then": {"x": [1.0] * 6}} if role == "failing" else {}


def _identity(role: str, datatype: str, shape: tuple[int | str, ...]) -> Graph:
    return Graph(role, [Node("Identity", ("x",), "y")], [Port("x", datatype, shape)], [Port("y", datatype, shape)])


def _affine(role: str, shape: tuple[int | str, ...] = ("n",)) -> Graph:
    nodes = [Node("Mul", ("x", "two"), "twice"), Node("Add", ("twice", "one"), "y")]
    constants = {"two": np.array(2, np.float32), "one": np.array(1, np.float32)}
    return Graph(role, nodes, [Port("x", "FP32", shape)], [Port("y", "FP32", shape)], constants)


def _stream(role: str) -> Graph:
    one = _affine(role)
    first, *others = one.nodes
    return replace(one, nodes=[Node("Each", ("x",), "each"), first._replace(inputs=("each", "two")), *others])


def _positions(role: str) -> Graph:
    nodes = [Node("NonZero", ("x",), "found"), Node("Squeeze", ("found", "axes"), "y")]
    return Graph(role, nodes, [Port("x", "FP32", ("n",))], [Port("y", "INT64", ("m",))], {"axes": np.array([0], np.int64)})


def _slow(role: str) -> Graph:
    names = ["x", *(f"m{step}" for step in range(_STEPS - 1)), "y"]
    nodes = [Node("MatMul", (names[step], "w"), names[step + 1]) for step in range(_STEPS)]
    x, y = (Port(name, "FP32", ("n", _WIDTH)) for name in "xy")
    return Graph(role, nodes, [x], [y], {"w": np.eye(_WIDTH, dtype=np.float32)})


def _failing(role: str) -> Graph:
    nodes, constants = [Node("Reshape", ("x", "shape"), "y")], {"shape": np.array([2, 3], np.int64)}
    return Graph(role, nodes, [Port("x", "FP32", ("n",))], [Port("y", "FP32", (2, 3))], constants)


def _stream_failing(role: str) -> Graph:
    one = _failing(role)
    return replace(one, nodes=[Node("Each", ("x",), "each"), one.nodes[0]._replace(inputs=("each", "shape"))])


def _numerics(role: str) -> Graph:
    generator = np.random.default_rng(0)
    nodes = [
        Node("Gemm", ("x", "w1", "b1"), "h1"),
        Node("Tanh", ("h1",), "h2"),
        Node("LayerNormalization", ("h2", "scale"), "h3"),
        Node("Gemm", ("h3", "w2", "b2"), "h4"),
        Node("Softmax", ("h4",), "y"),
    ]
    sizes = {"w1": (32, 64), "b1": (64,), "scale": (64,), "w2": (64, 8), "b2": (8,)}
    constants = {name: generator.standard_normal(size).astype(np.float32) for name, size in sizes.items()}
    return Graph(role, nodes, [Port("x", "FP32", ("batch", 32))], [Port("y", "FP32", ("batch", 8))], constants)


_DRAWN: dict[str, Callable[[str], Graph]] = {
    "affine": _affine,
    "batch": lambda role: _affine(role, ("batch", 4)),
    "positions": _positions,
    "slow": _slow,
    "failing": _failing,
    "numerics": _numerics,
    "stream": _stream,
    "stream_failing": _stream_failing,
}
