"""ExecuTorch: programs lowered here, which tell no names and only the largest sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nets
import numpy as np
import page
import pytest
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower

import nnrp
from nnrp import errors
from nnrp.testing import check_runtime
from nnrp.testing.streams import STREAMING

QUIRKS = {"cancellation.deadline": "ExecuTorch's bindings hold Python's lock for the whole run"}
QUIRKS |= dict.fromkeys(("shapes.empty", "shapes.batch"), "ExecuTorch ends the process at a dimension of no elements")
STOPPING = {"cancellation.stops", "cancellation.withdrawn", "cancellation.after"}
NO_MODEL = {"shapes.from_data", *(f"datatypes.{name}" for name in ("bytes", "int4", "uint4", "uint32", "uint64", "fp8_e4m3", "fp8_e5m2"))}
ROWS = torch.export.Dim("rows", min=1, max=16)


class Net(torch.nn.Module):
    """Three convolutions and a classifier: what such a runtime is for."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [torch.nn.Conv2d(3, 8, 3, 2), torch.nn.ReLU(), torch.nn.Conv2d(8, 16, 3, 2), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3, 2), torch.nn.ReLU()]
        self.body, self.head = torch.nn.Sequential(*layers), torch.nn.Linear(32, 10)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.body(pixels).mean((2, 3))
        return torch.softmax(self.head(features), -1), features


def lowered(module: torch.nn.Module, path: Path, *args: Any, dims: Any = None) -> Path:
    program = torch.export.export(module.eval(), args, dynamic_shapes=dims)
    path.write_bytes(to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch().buffer)
    return path


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lowered(Net(), tmp_path_factory.mktemp("executorch") / "net.pte", torch.zeros(2, 3, 64, 64), dims=({0: ROWS},))


def test_it_keeps_the_contract_but_for_the_quirks_that_it_declares() -> None:
    report = check_runtime("executorch", quirks=QUIRKS, isolate=True)
    assert report.passed, report.table()
    assert {one.id for one in report.outcomes if one.verdict == "quirk"} == QUIRKS.keys(), report.table()
    assert {one.id for one in report.outcomes if one.verdict == "na"} == STOPPING | STREAMING | NO_MODEL, report.table()


def test_a_net_gives_pytorchs_numbers_for_every_size_of_its_batch(net: Path) -> None:
    results = [{"name": "classes", "shape": [-1, 10]}, {"name": "features", "shape": [-1, 32]}]
    model = nnrp.load(net, inputs=[{"name": "pixels", "shape": [-1, 3, 64, 64]}], outputs=results)
    assert (model.session.runtime, model.session.format, model.session.exclusive) == ("executorch", "pte", True)
    assert model.session.settings["delegates"] == ["XnnpackBackend"]
    for rows in (1, 5, 16, 2):
        x = np.random.default_rng(rows).standard_normal((rows, 3, 64, 64)).astype(np.float32)
        with torch.inference_mode():
            classes, features = Net().eval()(torch.from_numpy(x))
        told = model(x)
        np.testing.assert_allclose(told["classes"], classes.numpy(), atol=1e-5)
        np.testing.assert_allclose(told["features"], features.numpy(), atol=1e-4)


def test_the_file_tells_the_largest_sizes_and_no_names(net: Path) -> None:
    model = nnrp.load(net)
    assert model.inputs == (nnrp.TensorSpec("input", "FP32", (-1, -1, -1, -1)),)
    assert [(spec.name, spec.shape) for spec in model.outputs] == [("output_0", (-1, -1)), ("output_1", (-1, -1))]
    assert model.session.settings["largest"] == {"input": [16, 3, 64, 64]}
    for shape in ((17, 3, 64, 64), (1, 4, 64, 64)):
        with pytest.raises(errors.ShapeMismatch, match=r"expected sizes up to \[16, 3, 64, 64\]"):
            model(np.zeros(shape, np.float32))
    with pytest.raises(errors.ShapeMismatch, match="expected sizes from 1"):
        model(np.zeros((0, 3, 64, 64), np.float32))
    assert model(np.zeros((1, 3, 64, 64), np.float32))["output_0"].shape == (1, 10)


def test_a_program_of_fixed_sizes_tells_them(tmp_path: Path) -> None:
    model = nnrp.load(lowered(nets.Linear(), tmp_path / "line.pte", torch.zeros(2, 4)))
    assert (model.inputs[0].shape, model.outputs[0].shape) == ((2, 4), (2, 4))
    with pytest.raises(errors.ShapeMismatch):
        model(np.zeros((1, 4), np.float32))


def test_what_does_not_fit_the_program_is_refused(net: Path) -> None:
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("inputs", {"inputs": {"input": {"datatype": "FP64"}}}),
        ("inputs", {"inputs": [{"shape": [-1, 3, 64]}]}),
        ("outputs", {"outputs": {"classes": "y"}}),
        ("method", {"options": {"method": "backward"}}),
    ]
    for path, said in wrong:
        with pytest.raises(errors.InvalidOption, match=path):
            nnrp.load(net, **said)
    with pytest.raises(errors.ShapeMismatch, match="expected sizes up to"):
        nnrp.load(net, inputs=[{"shape": [17, 3, 64, 64]}])(np.zeros((17, 3, 64, 64), np.float32))


def test_a_file_whose_names_are_no_text_is_refused_and_ends_nothing(net: Path, tmp_path: Path) -> None:
    content = net.read_bytes()
    assert b"aten::mean" in content
    (tmp_path / "bad.pte").write_bytes(content.replace(b"aten::mean", b"\xff\xfe\xff\xfemean"[:10]))
    with pytest.raises(errors.InvalidModel):
        nnrp.load(tmp_path / "bad.pte")
    (tmp_path / "other.pte").write_bytes(content.replace(b"aten::mean", b"aten::nean"))
    with pytest.raises(errors.LoadFailed):
        nnrp.load(tmp_path / "other.pte")


def test_the_page_runs_as_written(tmp_path: Path) -> None:
    assert page.run("executorch", "torch", tmp_path) > 1
