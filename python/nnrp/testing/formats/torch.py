"""The suite's models as PyTorch saves them: exported programs, TorchScript, and packages of AOTInductor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnrp.runtimes.torch.types import DATATYPES
from nnrp.testing.claims import NotApplicable
from nnrp.testing.zoo import Graph

#: Sizes of the open dimensions that a model is traced with: not one, which would be taken for a constant.
_SIZE = 6
#: The largest size of those of a compiled model, which takes two at least where no bounds are said.
_LARGE = 1 << 24


def write(graph: Graph, folder: Path) -> Mapping[str, Any]:
    """Write a graph as an exported program."""
    import torch

    path = folder / f"{graph.role}.pt2"
    if not path.exists():
        torch.export.save(export(graph), path)
    return {"path": path} | asked(graph)


def write_torchscript(graph: Graph, folder: Path) -> Mapping[str, Any]:
    """Write a graph as TorchScript, with the signature that such a file does not tell."""
    import warnings

    import torch

    path = folder / f"{graph.role}.pt"
    if not path.exists():
        with warnings.catch_warnings():
            # That it is superseded, and that a traced model may be wrong for other data.
            warnings.simplefilter("ignore")
            torch.jit.trace(module(graph), tuple(_samples(graph)), check_trace=False).save(path)
    return {"path": path} | graph.described()


def write_aotinductor(graph: Graph, folder: Path) -> Mapping[str, Any]:
    """Write a graph as a package of machine code; needs a C++ compiler and takes half a minute or more."""
    from torch._inductor import aoti_compile_and_package

    path = folder / f"{graph.role}.pt2"
    if not path.exists():
        aoti_compile_and_package(export(graph, _LARGE), package_path=str(path))
    return {"path": path, "options": {"allow_code": True}} | graph.described() | asked(graph)


def asked(graph: Graph) -> dict[str, Any]:
    """Tell what the model that fails is asked: an export fixes what the graph's own would leave open, so another fails in its place."""
    return {"ask": {"x": [0.0, 9.0]}, "then": {"x": [0.0, 1.0]}} if graph.role == "failing" else {}


def export(graph: Graph, most: int | None = None) -> Any:
    """Trace a graph with every open dimension open, up to a size if there is one."""
    import torch

    dims: dict[str, Any] = {}
    shapes = tuple(
        {
            axis: dims.setdefault(dim, torch.export.Dim(dim, min=0, max=most) if most else torch.export.Dim.DYNAMIC)
            for axis, dim in enumerate(port.shape)
            if isinstance(dim, str)
        }
        for port in graph.inputs
    )
    made = _looking_up(torch) if graph.role == "failing" else module(graph)
    return torch.export.export(made, tuple(_samples(graph)), dynamic_shapes=(shapes,) if shapes else None)


def _looking_up(torch: Any) -> Any:
    """Make a module that fails for places beyond its table's end."""

    class Table(torch.nn.Module):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.arange(4.0))

        def forward(self, *x: Any) -> Any:
            return torch.index_select(self.table, 0, x[0].to(torch.int64))

    return Table().eval()


def module(graph: Graph) -> Any:
    """Make a module that carries a graph out."""
    import torch

    class Drawn(torch.nn.Module):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            for name, value in graph.constants.items():
                self.register_buffer(name, torch.from_numpy(value.copy()))

        def forward(self, *inputs: Any) -> Any:
            constants = {name: getattr(self, name) for name in graph.constants}
            outputs = graph.run(_operations(torch, graph), inputs, constants)
            return outputs[0] if len(outputs) == 1 else tuple(outputs)

    return Drawn().eval()


def _operations(torch: Any, graph: Graph) -> dict[str, Any]:
    return {
        "Add": torch.add,
        "Gemm": lambda x, w, b: torch.addmm(b, x, w),
        "Identity": torch.clone,
        "LayerNormalization": lambda x, scale: torch.nn.functional.layer_norm(x, x.shape[-1:], scale),
        "MatMul": torch.matmul,
        "Mul": torch.mul,
        "NonZero": lambda x: torch.nonzero(x).T,
        # The shape is a constant of the model's.
        "Reshape": lambda x, _: torch.reshape(x, graph.outputs[0].sizes),
        "Softmax": lambda x: torch.softmax(x, -1),
        "Squeeze": lambda x, _: torch.squeeze(x, 0),
        "Tanh": torch.tanh,
    }


def _samples(graph: Graph) -> list[Any]:
    import torch

    found = []
    for port in graph.inputs:
        if port.datatype not in DATATYPES:
            raise NotApplicable(f"no model plays '{graph.role}': PyTorch has no {port.datatype}")
        sizes = [_SIZE if dim < 0 else dim for dim in port.sizes]
        found.append(torch.zeros(sizes).to(getattr(torch, DATATYPES[port.datatype])))
    return found
