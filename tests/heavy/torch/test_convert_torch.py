"""An exported program becomes ONNX, by PyTorch's own exporter, and is compared with itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

import nnrp
from nnrp.convert import convert


class Net(torch.nn.Module):
    """Two layers over any number of rows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Linear(8, 16), torch.nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.second(torch.relu(self.first(x))), -1)


def exported(path: Path) -> Path:
    program = torch.export.export(Net().eval(), (torch.zeros(3, 8),), dynamic_shapes={"x": {0: torch.export.Dim("rows")}})
    torch.export.save(program, path)
    return path


def test_an_exported_program_becomes_onnx(tmp_path: Path) -> None:
    source = exported(tmp_path / "net.pt2")
    made = convert(source, "onnx")
    assert (made.format, made.files) == ("pt2", (tmp_path / "net.onnx",))
    x = np.random.default_rng(0).random((5, 8), np.float32)
    (here,) = nnrp.load(made.files[0], runtime="onnxruntime")(x).values()
    np.testing.assert_allclose(here, Net().eval()(torch.from_numpy(x)).detach().numpy(), atol=1e-6)


def test_the_command_compares_the_two(tmp_path: Path) -> None:
    words = ["convert", str(exported(tmp_path / "net.pt2")), "--to", "onnx", "--seconds", "0", "--shape", "x=5x8", "--json"]
    done = subprocess.run([sys.executable, "-P", "-c", "from nnrp.cli import main; main()", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = {(one["model"], one["session"]["runtime"]): one["verdict"] for one in json.loads(done.stdout)["compare"]["results"]}
    assert results == {("net.pt2", "torch"): "reference", ("net.onnx", "onnxruntime"): "within"}
