"""Values of a request that end the process of a library: who serves such a model is told, and a process of its own keeps the server alive."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lite
import numpy as np
import onnx
import onnx.parser
import pytest
import zoo

import nnrp
from nnrp.errors import RuntimeCrashed
from nnrp.testing.formats.coreml import Package, Var

NNRP = Path(sys.executable).with_name("nnrp")
OTHERWISE = "else_branch = h () => (int64[n] d) { d = Abs(a) }"


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


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "tract"])
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


@pytest.mark.parametrize(
    ("body", "unchecked"),
    [
        ("(int32[n] a, int32[n] b) => (int32[n] y) { y = Div(a, b) }", True),
        ("(float[n] a, float[n] b) => (float[n] y) { y = Div(a, b) }", False),
        ("(int16[n] a, int16[n] b) => (int16[n] y) { y = Div(a, b) }", False),
        ("(int64[n] a, int64[n] b) => (int64[n] y) { two = Constant<value: tensor = int64 {2}>() y = Div(a, two) }", False),
        ("(float[n] a, float[n] b) => (int64[n] y) { c = Cast<to = 7>(a) d = Cast<to = 7>(b) y = Div(c, d) }", True),
        ("(int64[n] a, int64[n] b) => (float[n] y) { c = Cast<to = 1>(a) d = Cast<to = 1>(b) e = Abs(d) y = Div(c, e) }", False),
        # Sizes are none of a request's values.
        ("(int64[n] a, float[n] b) => (int64[n] y) { size = Shape(b) y = Div(a, size) }", False),
        (f"(int64[n] a, bool b) => (int64[n] y) {{ y = If(b) <then_branch = g () => (int64[n] c) {{ c = Div(a, a) }}, {OTHERWISE}> }}", True),
        (f"(int64[n] a, bool b) => (int64[n] y) {{ y = If(b) <then_branch = g () => (int64[n] c) {{ c = Neg(a) }}, {OTHERWISE}> }}", False),
    ],
)  # fmt: skip
def test_a_division_of_whole_numbers_by_a_requests_own_is_seen_in_the_file(tmp_path: Path, body: str, unchecked: bool) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> f {body}'), path)
    settings = nnrp.load(path, runtime="onnxruntime").session.settings
    assert settings.get("values_checked", True) is not unchecked


@pytest.mark.parametrize(("datatype", "kind", "unchecked"), [("INT32", "int32", True), ("FP32", "fp32", False)])
def test_a_division_is_seen_through_litert_and_the_translation_of_core_ml(tmp_path: Path, datatype: str, kind: str, unchecked: bool) -> None:
    values = [lite.Value(name, datatype, [4]) for name in "aby"]
    lite.save(tmp_path / "m.tflite", {"main": (values, [("FLOOR_MOD", [0, 1], [2])])}, takes=("a", "b"))
    tensor = (kind, (4,))
    package = Package({"a": tensor, "b": tensor}, [("floor_div", {"x": Var("a"), "y": Var("b")}, {"y": tensor})], ["y"]).save(tmp_path / "m.mlpackage")
    for path, runtime, options in ((tmp_path / "m.tflite", "litert", {}), (package, "coreml", {"through": "onnxruntime"})):
        settings = nnrp.load(path, runtime=runtime, options=options).session.settings
        assert settings.get("values_checked", True) is not unchecked, runtime


def test_models_that_divide_no_whole_numbers_by_a_requests_own_say_nothing_of_it() -> None:
    for package in ("magika", "silero_vad", "rapidocr_onnxruntime", "basic_pitch"):
        for path in Path(str(importlib.util.find_spec(package).submodule_search_locations[0])).rglob("*.onnx"):
            assert "values_checked" not in nnrp.load(path, runtime="onnxruntime").session.settings, path
