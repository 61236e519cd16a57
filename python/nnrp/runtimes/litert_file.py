"""What a TFLite file says that LiteRT's interpreter does not tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: The operations that read what an earlier run left.
STATE = ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "HASHTABLE", "CALL_ONCE")
#: The operations that run another graph, or that each library may have its own of.
OTHERS = ("WHILE", "IF", "CALL", "STABLEHLO_WHILE", "STABLEHLO_CASE", "STABLEHLO_COMPOSITE", "CUSTOM")


def facts(content: bytes, signature: str | None) -> tuple[int, set[int], bool, bool, bool]:
    """Read the signature's graph, its tensors that have a rank, whether a run remembers the last, whether all of its operations are of one graph and
    of everybody's, and whether values of a request can end the process.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content)
    graphs = [model.Subgraphs(index) for index in range(model.SubgraphsLength())]
    signatures = [model.SignatureDefs(index) for index in range(model.SignatureDefsLength())]
    main = next((one.SubgraphIndex() for one in signatures if one.SignatureKey() == (signature or "").encode()), 0)
    tensors = [[graph.Tensors(index) for index in range(graph.TensorsLength())] for graph in graphs]
    ranked = {index for index, tensor in enumerate(tensors[main]) if tensor.HasRank() or tensor.ShapeLength()}
    codes = [model.OperatorCodes(index) for index in range(model.OperatorCodesLength())]
    found = {max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) for code in codes}
    state, others = ({getattr(schema.BuiltinOperator, name) for name in some} for some in (STATE, OTHERS))
    keeps = bool(found & state) or any(tensor.IsVariable() for graph in tensors for tensor in graph)
    return main, ranked, keeps, not found & others, any(_divides(schema, codes, graph) for graph in graphs)


def _divides(schema: Any, codes: Sequence[Any], graph: Any) -> bool:
    """Whether a graph divides whole numbers without a look at the smallest one by -1."""
    whole = (schema.TensorType.INT32, schema.TensorType.INT64)
    for index in range(graph.OperatorsLength()):
        operator = graph.Operators(index)
        code = codes[operator.OpcodeIndex()]
        modulo = max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) == schema.BuiltinOperator.FLOOR_MOD
        if modulo and any(graph.Tensors(operator.Outputs(place)).Type() in whole for place in range(operator.OutputsLength())):
            return True
    return False


def settled(content: bytes, graph: int, shapes: Mapping[int, Sequence[int]]) -> bytes | None:
    """Give the file with these shapes for tensors that it leaves open, by index; None where it tells another rank."""
    from ai_edge_litert import schema_py_generated as schema

    file = bytearray(content)
    main = schema.Model.GetRootAs(file).Subgraphs(graph)
    for index, shape in shapes.items():
        tensor = main.Tensors(index)
        if tensor.ShapeLength() != len(shape) or tensor.ShapeSignatureLength() not in (0, len(shape)):
            return None
        # Views of the file. Where two tensors share one, the library tells another shape of one of them than it should, and is not used.
        for place in (tensor.ShapeAsNumpy() if shape else None, tensor.ShapeSignatureAsNumpy() if tensor.ShapeSignatureLength() else None):
            if place is not None:
                place[:] = shape
    return bytes(file)
