"""Values of a request that end the process of a library: who serves such a model is told, and a process of its own keeps the server alive."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
import zoo

import nnrp
from nnrp.errors import RuntimeCrashed

NNRP = Path(sys.executable).with_name("nnrp")


@pytest.fixture
def quotient(tmp_path: Path) -> Path:
    """``y = a / b`` of whole numbers, which tract computes as the processor does."""
    path = tmp_path / "quotient.onnx"
    onnx.save(onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 17]> quotient (int64[n] a, int64[n] b) => (int64[n] y) { y = Div(a, b) }'), path)
    return path


@contextmanager
def serving(*words: object) -> Iterator[dict[str, Any]]:
    command = [NNRP, "serve", *map(str, words), "--http-port", "0", "--grpc-port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            yield json.loads(server.stdout.readline())
        finally:
            server.send_signal(signal.SIGINT)
    assert server.returncode == 0


@pytest.mark.parametrize("runtime", ["openvino", "tract"])
def test_who_serves_a_model_that_a_requests_values_can_end_is_told(quotient: Path, tmp_path: Path, runtime: str) -> None:
    other = zoo.identity(tmp_path / "same.onnx")
    with serving(quotient, "--runtime", runtime) as told:
        assert told["exposed"] == ["quotient"]
    with serving(other, "--runtime", "onnxruntime") as told:
        assert told["exposed"] == []


def test_a_process_of_its_own_keeps_the_server_alive(quotient: Path, tmp_path: Path) -> None:
    other = zoo.two_by_two(tmp_path / "two.onnx")
    ones = np.ones(1, np.int64)
    with serving(quotient, other, "--runtime", "tract", "--isolation", "process") as told:
        assert told["exposed"] == []
        model = nnrp.connect(f"{told['http']}/v2/models/quotient")
        assert model(6 * ones, 2 * ones)["y"].tolist() == [3]
        with pytest.raises(RuntimeCrashed):
            model(ones, 0 * ones)
        assert nnrp.connect(f"{told['http']}/v2/models/two")(np.int32([3]), np.int32([4]))["product"].tolist() == [12]
