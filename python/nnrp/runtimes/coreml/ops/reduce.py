"""Operations that take dimensions away, or run along one."""

from __future__ import annotations

from functools import partial

from nnrp.runtimes.coreml.program import Op, Translate


def _reduce(kind: str, op: Op) -> str:
    axes = op.row("axes", ())
    if not axes and op.has("axes"):
        return op.add("Identity", op.ref("x"))
    keep = bool(op.item("keep_dims", False))
    return op.add(kind, op.ref("x"), *([op.whole(*axes)] if axes else []), keepdims=keep)


def _arg(kind: str, op: Op) -> str:
    found = op.add(kind, op.ref("x"), axis=op.axis("axis", -1), keepdims=bool(op.item("keep_dims", False)))
    return op.cast(found, op.types[0].kind)


def _cumulated(op: Op) -> str:
    x, axis = op.ref("x"), op.const(op.axis("axis", 0), "int32")
    return op.add("CumSum", x, axis, exclusive=bool(op.item("exclusive", False)), reverse=bool(op.item("reverse", False)))


_KINDS = {
    "l1_norm": "L1",
    "l2_norm": "L2",
    "log_sum": "LogSum",
    "log_sum_exp": "LogSumExp",
    "max": "Max",
    "mean": "Mean",
    "min": "Min",
    "prod": "Prod",
    "sum": "Sum",
    "sum_square": "SumSquare",
}
TABLE: dict[str, Translate] = {
    **{f"reduce_{kind}": partial(_reduce, f"Reduce{name}") for kind, name in _KINDS.items()},
    "reduce_argmax": partial(_arg, "ArgMax"),
    "reduce_argmin": partial(_arg, "ArgMin"),
    "cumsum": _cumulated,
}
