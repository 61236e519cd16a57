"""Branches and loops; and the last operation of a classifier."""

from __future__ import annotations

import numpy as np

from nnrp.runtimes.coreml.graph import Graph
from nnrp.runtimes.coreml.package import bad
from nnrp.runtimes.coreml.program import Op, Translate
from nnrp.runtimes.coreml.value import Type, Value


def _inner(op: Op, number: int, graph: Graph, given: dict[str, Value]) -> list[Value]:
    """Translate a block into a graph that sees what lies around it, and tell what the block gives."""
    block = op.blocks[number]
    scope = {**op.scope, **given}
    op.program.run(graph, block, scope, f"{op.path}.{number}")
    if any(name not in scope for name in block.outputs):
        raise bad(f"{op.where}: its block gives what nothing in it is called")
    return [scope[name] for name in block.outputs]


def _end(op: Op, graph: Graph, values: list[Value]) -> None:
    """Make values the outputs of a graph, under names of their own."""
    for value in values:
        name = graph.names.take("given")
        graph.rename(op.program.ref(value), name)
        graph.gives(name, Type(value.type.kind, None))


def _cond(op: Op) -> list[str]:
    if len(op.blocks) != 2:
        raise bad(f"{op.where}: expected two blocks, got {len(op.blocks)}")
    branches = []
    for number, name in enumerate(("then", "else")):
        graph = Graph(name, op.graph)
        values = _inner(op, number, graph, {})
        if len(values) != len(op.outputs):
            raise bad(f"{op.where}: expected {len(op.outputs)} outputs of each block, got {len(values)}")
        _end(op, graph, values)
        branches.append(graph)
    return op.many("If", [op.ref("pred")], len(op.outputs), then_branch=branches[0], else_branch=branches[1])


def _while(op: Op) -> list[str]:
    """ONNX asks whether to go on at the end of a turn, Core ML before it: so it is asked once before the first."""
    if len(op.blocks) != 2:
        raise bad(f"{op.where}: expected two blocks, got {len(op.blocks)}")
    start = op.values("loop_vars")
    if any(len(block.inputs) != len(start) for block in op.blocks) or len(op.outputs) != len(start):
        raise bad(f"{op.where}: expected {len(start)} variables in both blocks")
    first = _asked(op, op.graph, start)
    body = Graph("turn", op.graph)
    names = [body.names.take(name) for name in ("index", "go", *["var"] * len(start))]
    body.takes(names[0], Type("int64", ()))
    body.takes(names[1], Type("bool", ()))
    held = []
    for name, value in zip(names[2:], start, strict=True):
        held.append(Value(name, Type(value.type.kind, None if value.type.shape is None else (-1,) * len(value.type.shape))))
        body.takes(name, Type(value.type.kind, None))
    values = _inner(op, 1, body, dict(zip([one.name for one in op.blocks[1].inputs], held, strict=True)))
    if len(values) != len(start):
        raise bad(f"{op.where}: expected {len(start)} outputs of the second block, got {len(values)}")
    named = [Value(op.program.ref(value), value.type) for value in values]
    _end(op, body, [Value(_asked(op, body, named), Type("bool", ())), *named])
    return op.many("Loop", ["", first, *(op.program.ref(value) for value in start)], len(start), body=body)


def _asked(op: Op, graph: Graph, values: list[Value]) -> str:
    given = _inner(op, 0, graph, dict(zip([one.name for one in op.blocks[0].inputs], values, strict=True)))
    if len(given) != 1:
        raise bad(f"{op.where}: expected one output of the first block, got {len(given)}")
    # It may be a row of one.
    return graph.add("Reshape", [op.program.ref(given[0]), op.whole()])[0]


def _classify(op: Op) -> list[Value]:
    """The label of the largest probability; and the probabilities, which Core ML gives as a dictionary, as a tensor in the order of the classes."""
    classes = op.elements("classes").reshape(-1)
    if classes.dtype != object:
        classes = classes.astype(np.int64)
    flat = op.add("Reshape", op.ref("probabilities"), op.whole(-1))
    best = op.add("ArgMax", flat, axis=0, keepdims=0)
    label = op.add("Gather", op.graph.constant(classes), best, axis=0)
    kinds = ["string" if classes.dtype == object else "int64", op.kind_of("probabilities")]
    op.program.classes[op.outputs[-1].name if op.outputs else ""] = classes.tolist()
    return [Value(label, Type(kinds[0], ())), Value(flat, Type(kinds[1], (len(classes),)))]


TABLE: dict[str, Translate] = {"cond": _cond, "while_loop": _while, "classify": _classify}
