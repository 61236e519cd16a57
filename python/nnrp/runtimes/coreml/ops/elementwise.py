"""Operations on one element, or on two that are broadcast."""

from __future__ import annotations

from nnrp.runtimes.coreml.program import Op, Translate
from nnrp.runtimes.coreml.value import NARROW, TYPES


def unary(kind: str) -> Translate:
    """What ONNX has under another name."""
    return lambda op: op.add(kind, op.ref("x"))


def binary(kind: str) -> Translate:
    return lambda op: op.add(kind, op.ref("x"), op.ref("y"))


def fractional(kind: str) -> bool:
    return kind.startswith(("fp", "bf"))


def _not_equal(op: Op) -> str:
    return op.add("Not", op.add("Equal", op.ref("x"), op.ref("y")))


def _modulo(op: Op) -> str:
    """The remainder has the divisor's sign, as in Python; ONNX's of fractions has the dividend's."""
    x, y = op.ref("x"), op.ref("y")
    if not fractional(op.kind_of("x")):
        return op.add("Mod", x, y)
    rest = op.add("Mod", x, y, fmod=1)
    zero = op.like(0)
    wrong = op.add("Less", op.add("Mul", op.add("Sign", rest), op.add("Sign", y)), zero)
    return op.add("Where", wrong, op.add("Add", rest, y), rest)


def _floor_div(op: Op) -> str:
    """Rounds down; ONNX's division of whole numbers rounds towards zero."""
    x, y = op.ref("x"), op.ref("y")
    if fractional(op.kind_of("x")):
        return op.add("Floor", op.add("Div", x, y))
    return op.add("Div", op.add("Sub", x, op.add("Mod", x, y)), y)


def _square(op: Op) -> str:
    return op.add("Mul", op.ref("x"), op.ref("x"))


def _exp2(op: Op) -> str:
    return op.add("Pow", op.like(2), op.ref("x"))


def _shifted(op: Op, default: float) -> str:
    """`x + epsilon`."""
    return op.add("Add", op.ref("x"), op.like(op.item("epsilon", default)))


def _inverse(op: Op) -> str:
    return op.add("Reciprocal", _shifted(op, 1e-4))


def _log(op: Op) -> str:
    return op.add("Log", _shifted(op, 1e-45))


def _rsqrt(op: Op) -> str:
    return op.add("Reciprocal", op.add("Sqrt", _shifted(op, 1e-12)))


def _clip(op: Op) -> str:
    return op.add("Clip", op.ref("x"), op.like(op.item("alpha")), op.like(op.item("beta")))


def _threshold(op: Op) -> str:
    return op.add("Max", op.ref("x"), op.like(op.item("alpha")))


def _cast(op: Op) -> str:
    kind = op.item("dtype")
    if kind not in TYPES or kind in NARROW or kind == "string":
        raise op.refused(f"dtype '{str(kind)[:96]}'")
    return op.cast(op.ref("x"), kind)


def _select(op: Op) -> str:
    condition = op.ref("cond")
    return op.add("Where", condition if op.kind_of("cond") == "bool" else op.cast(condition, "bool"), op.ref("a"), op.ref("b"))


def _scaled(op: Op, stored: str) -> tuple[str, str]:
    """The scale and the zero point of a quantised tensor, as its own kind of fractions, along the axis that they have."""
    source = op.value("input")
    scale = op.elements("scale")
    zero = op.elements("zero_point", None)
    kind = op.kind_of("scale")
    shape = [1] * len(source.type.shape or ())
    if scale.ndim:
        shape[op.axis("axis", rank=len(shape))] = -1
    zero = 0 if zero is None else zero
    parts = [part.reshape(shape if part.ndim else ()) for part in (scale, scale * 0 + zero)]
    return op.const(parts[0], kind), op.const(parts[1], kind)


def _dequantize(op: Op) -> str:
    scale, zero = _scaled(op, op.kind_of("input"))
    return op.add("Mul", op.add("Sub", op.cast(op.ref("input"), op.kind_of("scale")), zero), scale)


def _quantize(op: Op) -> str:
    stored = op.item("output_dtype")
    if stored not in ("int8", "uint8"):
        raise op.refused(f"output_dtype '{str(stored)[:96]}'")
    scale, zero = _scaled(op, stored)
    kind = op.kind_of("scale")
    low, high = (-128, 127) if stored == "int8" else (0, 255)
    whole = op.add("Add", op.add("Round", op.add("Div", op.ref("input"), scale)), zero)
    return op.cast(op.add("Clip", whole, op.const(low, kind), op.const(high, kind)), stored)


_UNARY = "Abs Acos Asin Atan Atanh Ceil Cos Cosh Erf Exp Floor Identity Round Sign Sin Sinh Sqrt Tan Tanh"
_BINARY = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "real_div": "Div",
    "pow": "Pow",
    "maximum": "Max",
    "minimum": "Min",
    "equal": "Equal",
    "greater": "Greater",
    "greater_equal": "GreaterOrEqual",
    "less": "Less",
    "less_equal": "LessOrEqual",
    "logical_and": "And",
    "logical_or": "Or",
    "logical_xor": "Xor",
}
TABLE: dict[str, Translate] = {
    **{kind.lower(): unary(kind) for kind in _UNARY.split()},
    **{kind: binary(name) for kind, name in _BINARY.items()},
    "logical_not": unary("Not"),
    "not_equal": _not_equal,
    "mod": _modulo,
    "floor_div": _floor_div,
    "square": _square,
    "exp2": _exp2,
    "inverse": _inverse,
    "log": _log,
    "rsqrt": _rsqrt,
    "clip": _clip,
    "threshold": _threshold,
    "cast": _cast,
    "select": _select,
    "quantize": _quantize,
    "dequantize": _dequantize,
}
