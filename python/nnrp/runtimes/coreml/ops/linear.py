"""Products of matrices."""

from __future__ import annotations

from nnrp.runtimes.coreml.program import Op, Translate


def _turned(op: Op, key: str, turn: bool) -> str:
    """A matrix, with its last two dimensions the other way round where asked for."""
    rank = op.rank(key)
    if not turn or rank < 2:
        return op.ref(key)
    return op.add("Transpose", op.ref(key), perm=[*range(rank - 2), rank - 1, rank - 2])


def _matmul(op: Op) -> str:
    turns = {key: bool(op.item(f"transpose_{key}", False)) for key in "xy"}
    return op.add("MatMul", *(_turned(op, key, turn) for key, turn in turns.items()))


def _linear(op: Op) -> str:
    product = op.add("MatMul", op.ref("x"), _turned(op, "weight", True))
    return op.add("Add", product, op.ref("bias")) if op.has("bias") else product


def _einsum(op: Op) -> str:
    return op.add("Einsum", *op.refs("values"), equation=str(op.item("equation")))


def _attention(op: Op) -> str:
    """Softmax of scaled products, over the values."""
    width = op.shape("query")[-1]
    if width < 1:
        raise op.refused("the width of a query is not known")
    kind = op.kind_of("query")
    query = op.add("Mul", op.ref("query"), op.const(width**-0.5, kind))
    scores = op.add("MatMul", query, _turned(op, "key", True))
    if op.has("attn_mask"):
        mask = op.ref("attn_mask")
        if op.kind_of("attn_mask") == "bool":
            mask = op.add("Where", mask, op.const(0, kind), op.const(float("-inf"), kind))
        scores = op.add("Add", scores, mask)
    return op.add("MatMul", op.add("Softmax", scores, axis=-1), op.ref("value"))


TABLE: dict[str, Translate] = {"matmul": _matmul, "linear": _linear, "einsum": _einsum, "scaled_dot_product_attention": _attention}
