"""Normalisations."""

from __future__ import annotations

from nnrp.runtimes.coreml.program import Op, Translate


def _epsilon(op: Op, default: float = 1e-5) -> float:
    return float(op.item("epsilon", default))


def _scales(op: Op, like: str, size: int) -> tuple[str, str]:
    """Gamma and beta, which are ones and zeros where they are not given."""
    ones, zeros = (op.full([size], value) if size > 0 and not op.has(key) else "" for key, value in (("gamma", 1), ("beta", 0)))
    if size < 1 and not (op.has("gamma") and op.has("beta")):
        raise op.refused(f"the size of {like} is not known")
    return op.maybe("gamma") or ones, op.maybe("beta") or zeros


def _batch_norm(op: Op) -> str:
    gamma, beta = _scales(op, "the channels", len(op.elements("mean").reshape(-1)))
    return op.add("BatchNormalization", op.ref("x"), gamma, beta, op.ref("mean"), op.ref("variance"), epsilon=_epsilon(op))


def _instance_norm(op: Op) -> str:
    gamma, beta = _scales(op, "the channels", op.shape("x")[1] if op.rank("x") > 1 else 0)
    return op.add("InstanceNormalization", op.ref("x"), gamma, beta, epsilon=_epsilon(op))


def _layer_norm(op: Op) -> str:
    shape = op.shape("x")
    rank = len(shape)
    axes = sorted(axis % max(rank, 1) for axis in op.row("axes", range(rank)))
    sizes = [shape[axis] for axis in axes]
    if axes == list(range(rank - len(axes), rank)) and axes and (op.has("gamma") or -1 not in sizes):
        gamma = op.maybe("gamma") or op.full(sizes, 1)
        return op.add("LayerNormalization", op.ref("x"), gamma, *([op.ref("beta")] if op.has("beta") else []), axis=axes[0], epsilon=_epsilon(op))
    x, over = op.ref("x"), op.whole(*axes)
    centred = op.add("Sub", x, op.add("ReduceMean", x, over))
    spread = op.add("ReduceMean", op.add("Mul", centred, centred), over)
    answer = op.add("Div", centred, op.add("Sqrt", op.add("Add", spread, op.like(_epsilon(op)))))
    beside = [size if axis in axes else 1 for axis, size in enumerate(shape)]
    for key, kind in (("gamma", "Mul"), ("beta", "Add")):
        if op.has(key):
            answer = op.add(kind, answer, op.add("Reshape", op.ref(key), op.whole(*beside)))
    return answer


def _l2_norm(op: Op) -> str:
    """Over the last three dimensions together."""
    x = op.ref("x")
    total = op.add("ReduceSum", op.add("Mul", x, x), op.whole(-3, -2, -1))
    return op.add("Div", x, op.add("Sqrt", op.add("Add", total, op.like(_epsilon(op, 1e-6)))))


def _local_response_norm(op: Op) -> str:
    numbers = {key: float(op.item(key, default)) for key, default in (("alpha", 1e-4), ("beta", 0.75))}
    x, size = op.ref("x"), int(op.item("size"))
    if size % 2 == 0:
        raise op.refused("an even number of neighbours")
    return op.add("LRN", x, size=size, bias=float(op.item("k", 1.0)), **numbers)


TABLE: dict[str, Translate] = {
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "l2_norm": _l2_norm,
    "local_response_norm": _local_response_norm,
}
