"""Small models that only PyTorch can say, saved as it saves them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

X = {"x": {"datatype": "FP32", "shape": [-1, 4]}}
Y = {"y": {"datatype": "FP32", "shape": [-1, 4]}}
PORTS: Mapping[str, Any] = {"inputs": X, "outputs": Y}


class Linear(torch.nn.Module):
    """y = x W + b."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.line = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(x)


class Greedy(torch.nn.Module):
    """Adds one to its input where it lies, and gives it back."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x[0].add_(1)
        return x


class Counting(torch.nn.Module):
    """Gives how often it ran, in each element of a table of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(100, 100))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count.add_(1)
        return self.count


class Keeping(torch.nn.Module):
    """Gives a table of its own, which is large."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.ones(100, 100))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.table


class Nested(torch.nn.Module):
    """Takes a dict and an option that was fixed at the export; gives a dict of what is nested."""

    def forward(self, x: torch.Tensor, y: torch.Tensor, mode: str, more: dict[str, torch.Tensor]) -> dict[str, Any]:
        return {"sum": x + y, "rows": x.shape[0], "rest": [x.mean(0), more["scale"] * 2]}


class Choosy(torch.nn.Module):
    """Takes numbers beside tensors, some of which may be left out."""

    def forward(self, x: torch.Tensor, times: int = 2, bias: torch.Tensor | None = None) -> tuple[torch.Tensor, int]:
        y = x * times
        if bias is not None:
            y = y + bias
        return y, times


def exported(module: torch.nn.Module, path: Path, *args: Any, dims: Any = None) -> Path:
    torch.export.save(torch.export.export(module.eval(), args, dynamic_shapes=dims), path)
    return path


def scripted(module: torch.nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module.eval()).save(str(path))
    return path
