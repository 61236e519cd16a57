"""Recurrent nets."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnrp.runtimes.coreml.program import Op, Translate

#: Core ML's activations that need no numbers → ONNX's. Its `hard_sigmoid` is 0.2 x + 0.5, as ONNX's is.
_ACTIVATIONS = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "hard_sigmoid": "HardSigmoid"}
_DIRECTIONS = ("forward", "reverse", "bidirectional")


def _ordered(elements: np.ndarray[Any, Any], order: list[int]) -> np.ndarray[Any, Any]:
    """The gates' rows in another order."""
    parts = np.split(elements, len(order))
    return np.concatenate([parts[index] for index in order])


def _weights(op: Op, order: list[int], ways: int) -> tuple[str, str, str]:
    """The weights of input and state, and the biases, one for each direction."""
    kind, found = op.kind_of("weight_ih"), []
    for key in ("weight_ih", "weight_hh", "bias"):
        if key == "bias" and not op.has(key):
            zeros = np.zeros(op.elements("weight_ih").shape[0])
            parts = [zeros] * ways
        else:
            parts = [op.elements(key + back) for back in ("", "_back")[:ways]]
        if any(len(part) % len(order) for part in parts):
            raise op.refused(f"'{key}' is not of {len(order)} gates")
        parts = [_ordered(part, order) for part in parts]
        if key == "bias":
            # Core ML has the sum of both biases.
            parts = [np.concatenate([part, np.zeros_like(part)]) for part in parts]
        found.append(op.const(np.stack(parts), kind))
    return found[0], found[1], found[2]


def _state(op: Op, key: str, ways: int) -> str:
    """`[b, ways * H]` as ONNX has it: `[ways, b, H]`."""
    x = op.ref(key)
    if ways == 1:
        return op.add("Unsqueeze", x, op.whole(0))
    return op.add("Transpose", op.add("Reshape", x, op.whole(0, 2, -1)), perm=[1, 0, 2])


def _back(op: Op, name: str, ways: int) -> str:
    """The other way round."""
    if ways == 1:
        return op.add("Squeeze", name, op.whole(0))
    return op.add("Reshape", op.add("Transpose", name, perm=[1, 0, 2]), op.whole(0, -1))


def _run(op: Op, kind: str, order: list[int], activations: list[tuple[str, str]], states: tuple[str, ...]) -> list[str]:
    direction = op.item("direction", "forward")
    named = [op.item(key, default) for key, default in activations]
    if direction not in _DIRECTIONS or any(one not in _ACTIVATIONS for one in named):
        raise op.refused(f"direction '{str(direction)[:96]}' with {named}")
    if op.has("peephole") or op.has("peephole_back") or op.has("clip") or op.item("reset_after", kind == "GRU") != (kind == "GRU") or op.has("input_bias"):
        raise op.refused("peephole, clip, reset_after or input_bias")
    ways = 2 if direction == "bidirectional" else 1
    weights = _weights(op, order, ways)
    size = op.shape("weight_hh")[-1]
    given = [op.ref("x"), *weights, "", *(_state(op, key, ways) for key in states)]
    further = {"linear_before_reset": 1} if kind == "GRU" else {}
    found = op.many(kind, given, 1 + len(states), direction=direction, hidden_size=size, activations=[_ACTIVATIONS[one] for one in named] * ways, **further)
    last = [_back(op, one, ways) for one in found[1:]]
    if not op.item("output_sequence", False):
        return [op.add("Unsqueeze", last[0], op.whole(0)), *last]
    # [s, ways, b, H] → [s, b, ways * H]
    return [op.add("Reshape", op.add("Transpose", found[0], perm=[0, 2, 1, 3]), op.whole(0, 0, -1)), *last]


def _lstm(op: Op) -> list[str]:
    activations = [("recurrent_activation", "sigmoid"), ("cell_activation", "tanh"), ("activation", "tanh")]
    # Core ML: input, forget, output, cell. ONNX: input, output, forget, cell.
    return _run(op, "LSTM", [0, 2, 1, 3], activations, ("initial_h", "initial_c"))


def _gru(op: Op) -> list[str]:
    # Core ML: reset, new, update. ONNX: update, reset, new.
    return _run(op, "GRU", [2, 0, 1], [("recurrent_activation", "sigmoid"), ("activation", "tanh")], ("initial_h",))


def _rnn(op: Op) -> list[str]:
    return _run(op, "RNN", [0], [("activation", "tanh")], ("initial_h",))


TABLE: dict[str, Translate] = {"lstm": _lstm, "gru": _gru, "rnn": _rnn}
