"""Operations that take elements by their indices, or put them there; and those that sort."""

from __future__ import annotations

from nnrp.runtimes.coreml.program import Op, Translate

#: How what is put there goes with what is there.
_MODES = {"update": "none", "add": "add", "mul": "mul", "max": "max", "min": "min"}


def _gather(op: Op) -> str:
    """Batches are gathered from where the axis is the first after them."""
    axis, batch = op.axis("axis", 0), int(op.item("batch_dims", 0))
    if not batch:
        return op.add("Gather", op.ref("x"), _indices(op), axis=axis)
    rank, places = op.rank("x"), op.rank("indices")
    if not 0 < batch <= min(axis, places):
        raise op.refused(f"batch_dims {batch} with axis {axis}")
    moved = [*range(batch), axis, *(one for one in range(batch, rank) if one != axis)]
    x = op.add("Transpose", op.ref("x"), perm=moved) if axis != batch else op.ref("x")
    found = op.add("GatherND", x, op.add("Unsqueeze", op.wide("indices"), op.whole(-1)), batch_dims=batch)
    # Now: batches, places, what lay before the axis, what lay after.
    total, between = rank + places - batch - 1, axis - batch
    order = [*range(batch), *range(places, places + between), *range(batch, places), *range(places + between, total)]
    return op.add("Transpose", found, perm=order) if axis != batch else found


def _indices(op: Op) -> str:
    """Indices as ONNX takes them: INT32 or INT64."""
    return op.ref("indices") if op.kind_of("indices") in ("int32", "int64") else op.wide("indices")


def _gather_along_axis(op: Op) -> str:
    return op.add("GatherElements", op.ref("x"), _indices(op), axis=op.axis("axis", 0))


def _gather_nd(op: Op) -> str:
    return op.add("GatherND", op.ref("x"), op.wide("indices"), batch_dims=int(op.item("batch_dims", 0)))


def _updates(op: Op) -> tuple[str, str]:
    """The updates and the mode that ONNX has for them: what is taken away is added, negated."""
    mode, updates = op.item("mode", "add"), op.ref("updates")
    if mode == "sub":
        return op.add("Neg", updates), "add"
    if mode == "div" and op.kind_of("updates").startswith("fp"):
        return op.add("Reciprocal", updates), "mul"
    if mode not in _MODES:
        raise op.refused(f"mode '{str(mode)[:96]}'")
    return updates, _MODES[mode]


def _scatter(op: Op) -> str:
    """Along any axis, by moving it to the front and back."""
    rank = len(op.shape("data"))
    axis = op.axis("axis", 0, rank)
    order = [axis, *(one for one in range(rank) if one != axis)]
    back = [order.index(one) for one in range(rank)]
    updates, mode = _updates(op)
    data, updates = (op.add("Transpose", name, perm=order) if axis else name for name in (op.ref("data"), updates))
    found = op.add("ScatterND", data, op.add("Unsqueeze", op.wide("indices"), op.whole(-1)), updates, reduction=mode)
    return op.add("Transpose", found, perm=back) if axis else found


def _scatter_along_axis(op: Op) -> str:
    updates, mode = _updates(op)
    return op.add("ScatterElements", op.ref("data"), _indices(op), updates, axis=op.axis("axis", 0, len(op.shape("data"))), reduction=mode)


def _scatter_nd(op: Op) -> str:
    updates, mode = _updates(op)
    return op.add("ScatterND", op.ref("data"), op.wide("indices"), updates, reduction=mode)


def _top(op: Op, count: str, axis: int, sort: bool) -> list[str]:
    return op.many("TopK", [op.ref("x"), count], 2, axis=axis, largest=not op.item("ascending", False), sorted=sort)


def _topk(op: Op) -> list[str]:
    k = op.add("Reshape", op.wide("k"), op.whole(1)) if op.has("k") else op.whole(1)
    values, indices = _top(op, k, op.axis("axis", -1), bool(op.item("sort", True)))
    return [values, op.cast(indices, op.types[1].kind)] if len(op.outputs) > 1 else [values]


def _argsort(op: Op) -> str:
    axis = op.axis("axis", -1)
    count = op.add("Gather", op.sizes(op.ref("x")), op.whole(axis))
    return op.cast(_top(op, count, axis, True)[1], op.types[0].kind)


def _non_zero(op: Op) -> str:
    return op.cast(op.add("Transpose", op.add("NonZero", op.ref("x")), perm=[1, 0]), op.types[0].kind)


TABLE: dict[str, Translate] = {
    "gather": _gather,
    "gather_along_axis": _gather_along_axis,
    "gather_nd": _gather_nd,
    "scatter": _scatter,
    "scatter_along_axis": _scatter_along_axis,
    "scatter_nd": _scatter_nd,
    "topk": _topk,
    "argsort": _argsort,
    "non_zero": _non_zero,
}
