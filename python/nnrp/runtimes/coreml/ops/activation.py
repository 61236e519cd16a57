"""Activations."""

from __future__ import annotations

from nnrp.runtimes.coreml.ops.elementwise import unary
from nnrp.runtimes.coreml.program import Op, Translate


def _alpha(kind: str) -> Translate:
    return lambda op: op.add(kind, op.ref("x"), alpha=float(op.item("alpha")))


def _relu6(op: Op) -> str:
    return op.add("Clip", op.ref("x"), op.like(0), op.like(6))


def _scale(op: Op, name: str, key: str) -> str:
    return op.add("Mul", name, op.like(op.item(key)))


def _clamped_relu(op: Op) -> str:
    x = op.ref("x")
    sloped = op.add("Where", op.add("Less", x, op.like(0)), _scale(op, x, "alpha"), x)
    return op.add("Min", sloped, op.like(op.item("beta")))


def _thresholded_relu(op: Op) -> str:
    """Keeps what equals the threshold; ONNX's own does not."""
    x = op.ref("x")
    return op.add("Where", op.add("Less", x, op.like(op.item("alpha"))), op.like(0), x)


def _linear(op: Op) -> str:
    return op.add("Add", _scale(op, op.ref("x"), "alpha"), op.like(op.item("beta")))


def _scaled_tanh(op: Op) -> str:
    return _scale(op, op.add("Tanh", _scale(op, op.ref("x"), "beta")), "alpha")


def _hard_sigmoid(op: Op) -> str:
    return op.add("Clip", _linear(op), op.like(0), op.like(1))


def _silu(op: Op) -> str:
    x = op.ref("x")
    return op.add("Mul", x, op.add("Sigmoid", x))


def _gelu(op: Op) -> str:
    mode, x = op.item("mode", "EXACT"), op.ref("x")
    if mode == "SIGMOID_APPROXIMATION":
        return op.add("Mul", x, op.add("Sigmoid", op.add("Mul", x, op.like(1.702))))
    if mode not in ("EXACT", "TANH_APPROXIMATION"):
        raise op.refused(f"mode '{str(mode)[:96]}'")
    return op.add("Gelu", x, approximate="none" if mode == "EXACT" else "tanh")


def _per_channel(op: Op, key: str) -> str:
    """A number for each channel, beside a tensor whose second dimension they are."""
    elements = op.elements(key)
    return op.like(elements.reshape([-1] + [1] * (op.rank("x") - 2)) if elements.ndim else elements)


def _prelu(op: Op) -> str:
    return op.add("PRelu", op.ref("x"), _per_channel(op, "alpha"))


def _softplus_parametric(op: Op) -> str:
    return op.add("Mul", _per_channel(op, "alpha"), op.add("Softplus", op.add("Mul", _per_channel(op, "beta"), op.ref("x"))))


def _softmax(op: Op) -> str:
    return op.add("Softmax", op.ref("x"), axis=op.axis("axis", -1))


TABLE: dict[str, Translate] = {
    "relu": unary("Relu"),
    "relu6": _relu6,
    "sigmoid": unary("Sigmoid"),
    "softplus": unary("Softplus"),
    "softsign": unary("Softsign"),
    "elu": _alpha("Elu"),
    "leaky_relu": _alpha("LeakyRelu"),
    "clamped_relu": _clamped_relu,
    "thresholded_relu": _thresholded_relu,
    "linear_activation": _linear,
    "scaled_tanh": _scaled_tanh,
    "sigmoid_hard": _hard_sigmoid,
    "silu": _silu,
    "gelu": _gelu,
    "prelu": _prelu,
    "softplus_parametric": _softplus_parametric,
    "softmax": _softmax,
}
