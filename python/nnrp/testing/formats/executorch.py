"""The suite's models as programs of ExecuTorch, with its XNNPACK delegate where that takes them."""

from __future__ import annotations

import math
import timeit
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnrp.testing.claims import NotApplicable
from nnrp.testing.formats import torch as exported
from nnrp.testing.running import SOON
from nnrp.testing.zoo import Graph

#: The largest size of an open dimension, for which memory is planned: what the suite asks for, by the role's kind.
_MOST = {"rank": 8, "batch": 64, "numerics": 64, "slow": 256_000}
_ELSE = 100_000
#: How long the slow model is to take, in seconds, so that one whose runs nobody can leave is seen on any machine; and by how many rows that is measured.
_SLOW_S, _FEW = 3 * SOON, 1_000


def write(graph: Graph, folder: Path) -> Mapping[str, Any]:
    """Lower a graph; names and fixed sizes are described, because the file tells only how large a tensor may be."""
    path = folder / f"{graph.role}.pte"
    if not path.exists():
        _lower(graph, path)
    told: dict[str, Any] = graph.described()
    if graph.role == "failing":
        told["outputs"][0]["shape"] = [-1]
    return {"path": path} | told | (_busy(graph, path) if graph.role == "slow" else exported.asked(graph))


def _busy(graph: Graph, path: Path) -> dict[str, Any]:
    """Tell what keeps the slow model busy on this machine."""
    import torch
    from executorch.runtime import Runtime

    width, content = graph.inputs[0].sizes[1], path.read_bytes()
    # All of them have a name, because a method lies in the memory of its program and of the file, and keeps neither.
    program = Runtime.get().load_program(content)
    method = program.load_method("forward")
    taken = min(timeit.repeat(lambda: method.execute([torch.ones(_FEW, width)]), number=1, repeat=5))
    return {"ask": {"x": np.ones((min(_MOST["slow"], math.ceil(_SLOW_S / taken * _FEW)), width), np.float32)}}


def _lower(graph: Graph, path: Path) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from torch._export.verifier import SpecViolationError

    if graph.role == "positions":
        raise NotApplicable("no model plays 'positions': ExecuTorch must know how large a result may be")
    delegated = [XnnpackPartitioner()] if graph.role in ("numerics", "slow") else []
    traced = exported.export(graph, _MOST.get(graph.role.partition("_")[0], _ELSE))
    try:
        path.write_bytes(to_edge_transform_and_lower(traced, partitioner=delegated).to_executorch().buffer)
    except SpecViolationError as error:
        raise NotApplicable(f"no model plays '{graph.role}': ExecuTorch has no operation for it") from error
