"""The types that the package tells its users; mypy reads this file strictly, and it runs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt
import pytest

import nnrp

Answer = dict[str, npt.NDArray[Any]]


def test_mypy_agrees_with_what_is_asserted_here() -> None:
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-m", "mypy", "--strict", __file__], capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stdout


def test_a_model_is_typed_wherever_it_runs(double_file: Path) -> None:
    x = np.zeros((1, 4), np.float32)
    here = assert_type(nnrp.load(double_file), nnrp.Model)
    with nnrp.serve(here, http_port=0, grpc_port=0) as server:
        assert_type(server, nnrp.Server)
        there = assert_type(nnrp.connect(assert_type(server.http_url, str | None) or ""), nnrp.Model)
        for model in (here, there):
            assert_type(model.infer({"x": x}, ["y"], timeout=5.0, id="a", parameters={"p": 1}), Answer)
            assert_type(asyncio.run(model.infer_async({"x": [[0, 0, 0, 0]]})), Answer)
            assert_type(model(x)["y"].sum(), Any)
            assert_type(model(x=nnrp.Tensor("FP32", [1, 4], bytes(16))), Answer)
            assert_type(model.inputs, tuple[nnrp.TensorSpec, ...])
            assert_type(model.inputs[0].shape, tuple[int, ...])
            assert_type(model.session, nnrp.Session | None)
            assert_type(model.engine, nnrp.Engine | None)
            assert_type(model.metadata(), dict[str, Any])


def test_errors_are_typed() -> None:
    with pytest.raises(nnrp.NotFound) as raised:
        nnrp.load("nowhere.onnx")
    error = assert_type(raised.value, nnrp.NotFound)
    assert_type((error.code, error.reason, error.message, error.retryable), tuple[str, str, str, bool])
    assert_type(error.details, dict[str, Any])
    assert_type(error.request_id, str | None)
    assert isinstance(error, nnrp.errors.FileNotFound)
