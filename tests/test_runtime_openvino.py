"""OpenVINO behind the same calls as ONNX Runtime: the same numbers, the same errors, and what it does not protect against itself."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import magika
import numpy as np
import onnx
import onnx.parser
import openvino
import pytest
import zoo
from onnx import helper, numpy_helper
from openvino import opset13

import nnrp
from nnrp import errors

RUNTIMES = ("onnxruntime", "openvino")
MAGIKA = Path(magika.__file__).parent / "models" / "standard_v3_3" / "model.onnx"


@pytest.fixture(scope="module")
def pixels(models: Path) -> Path:
    """The model of the bad calls: FP32 [N, 3, 64, 64]."""
    return zoo.identity(models / "pixels.onnx", "FP32", ["N", 3, 64, 64])


@pytest.fixture(scope="module")
def steps(models: Path) -> Path:
    """A hundred products of matrices over FP32 [n, 512]: OpenVINO looks for a stop between them."""
    names = ["x", *(f"m{step}" for step in range(99)), "y"]
    nodes = [helper.make_node("MatMul", [names[step], "w"], [names[step + 1]]) for step in range(100)]
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 512]) for name in "xy")
    graph = helper.make_graph(nodes, "steps", [x], [y], [numpy_helper.from_array(np.eye(512, dtype=np.float32), "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), models / "steps.onnx")
    return models / "steps.onnx"


def beginnings() -> np.ndarray[Any, Any]:
    """What magika reads of files: 1,024 bytes from the front and as many from the end, 256 where there is none."""
    return np.random.default_rng(7).integers(0, 257, (3, 2048)).astype(np.int32)


def test_a_real_model_gives_the_same_numbers_as_onnxruntime() -> None:
    x = beginnings()
    expected, got = (nnrp.load(MAGIKA, runtime=runtime)(x)["target_label"] for runtime in RUNTIMES)
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)


def test_a_real_model_gives_the_same_numbers_when_it_is_served() -> None:
    x = beginnings()
    expected = nnrp.load(MAGIKA)(x)["target_label"]
    words = ["--runtime", "openvino", "--device", "cpu", "--precision", "strict", "--http-port", "0", "--grpc-port", "0", "--json"]
    command = [Path(sys.executable).with_name("nnrp"), "serve", f"magika={MAGIKA}", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        about = json.loads(process.stdout.readline())
        assert about["models"][0]["platform"] == "openvino_onnx"
        for url in (about["http"], about["grpc"]):
            got = nnrp.connect(url, "magika").infer({"bytes": x})["target_label"]
            np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


def test_what_was_asked_for_is_told_as_it_holds() -> None:
    session = nnrp.load(MAGIKA, runtime="openvino", device="cpu", precision="strict", options={"INFERENCE_NUM_THREADS": 1}).session
    assert (session.runtime, session.device) == ("openvino", "cpu")
    assert (session.settings["precision"], session.settings["threads"]) == ("strict", 1)
    assert session.settings["properties"]["INFERENCE_PRECISION_HINT"] == "f32"


BAD_CALLS: dict[str, tuple[dict[str, Any], type[errors.NnrpError], str]] = {
    "float64": ({"x": np.ones((1, 3, 64, 64))}, errors.InvalidArgument, "DATATYPE_MISMATCH"),
    "two channels": ({"x": np.ones((1, 2, 64, 64), np.float32)}, errors.InvalidArgument, "SHAPE_MISMATCH"),
    "another rank": ({"x": np.ones((3, 64, 64), np.float32)}, errors.InvalidArgument, "SHAPE_MISMATCH"),
    "missing": ({}, errors.InvalidArgument, "MISSING_INPUT"),
    "unknown name": ({"z": np.ones((1, 3, 64, 64), np.float32)}, errors.InvalidArgument, "UNKNOWN_INPUT"),
}


@pytest.mark.parametrize("call", BAD_CALLS)
def test_a_bad_call_is_the_same_error_on_every_runtime(pixels: Path, call: str) -> None:
    inputs, kind, reason = BAD_CALLS[call]
    told = []
    for runtime in RUNTIMES:
        model = nnrp.load(pixels, runtime=runtime)
        # A run that went well before must not lend its input to one that has none.
        model.infer({"x": np.ones((1, 3, 64, 64), np.float32)})
        with pytest.raises(kind) as refused:
            model.infer(inputs)
        told.append((refused.value.reason, refused.value.message))
    assert told[0] == told[1]
    assert told[0][0] == reason


@pytest.mark.parametrize(("data", "reason"), [(b"", "INVALID_MODEL"), (b"garbage, and more of it\n", "INVALID_MODEL"), (b"GGUF\3\0\0\0", "NOT_OFFERED")])
def test_a_bad_file_is_the_same_error_on_every_runtime(tmp_path: Path, data: bytes, reason: str) -> None:
    file = tmp_path / "bad.onnx"
    file.write_bytes(data)
    for runtime in RUNTIMES:
        with pytest.raises(errors.NnrpError) as refused:
            nnrp.load(file, runtime=runtime)
        assert refused.value.reason == reason
        assert str(tmp_path) not in str(refused.value)


def test_a_precision_or_a_device_that_cannot_be_had_is_an_error_on_every_runtime(pixels: Path) -> None:
    for runtime in RUNTIMES:
        with pytest.raises(errors.Unimplemented, match="'int8'"):
            nnrp.load(pixels, runtime=runtime, precision="int8")
        with pytest.raises(errors.FailedPrecondition, match="'TPU'") as refused:
            nnrp.load(pixels, runtime=runtime, device="TPU")
        assert refused.value.reason == "DEVICE_NOT_FOUND"
        with pytest.raises(errors.InvalidArgument, match="exact"):
            nnrp.load(pixels, runtime=runtime, precision="exact")  # type: ignore[arg-type]


def test_four_threads_at_once_get_their_own_answers(pixels: Path) -> None:
    model = nnrp.load(pixels, runtime="openvino")

    def wrong(thread: int) -> int:
        xs = (np.full((1, 3, 64, 64), 1_000 * thread + turn, np.float32) for turn in range(240))
        return sum(not np.array_equal(model(x)["y"], x) for x in xs)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(wrong, range(4))) == 0


def test_outputs_that_are_kept_are_not_written_over(pixels: Path) -> None:
    model = nnrp.load(pixels, runtime="openvino")
    kept = [model(np.full((1, 3, 64, 64), turn, np.float32))["y"] for turn in range(40)]
    assert all((answer == turn).all() for turn, answer in enumerate(kept))


def test_a_long_run_ends_soon_after_its_deadline(steps: Path) -> None:
    model = nnrp.load(steps, runtime="openvino", inline_limit_us=0)
    x = np.ones((40_000, 512), np.float32)
    begun = time.monotonic()
    with pytest.raises(errors.DeadlineExceeded):
        model.infer({"x": x}, timeout=0.2)
    # The next waits for the end of the first: had that gone on, it would take seconds.
    model.infer({"x": x[:1]})
    assert time.monotonic() - begun < 2
    assert threading.active_count() < 100


def test_a_saved_model_is_a_folder_that_is_loaded_like_a_file(tmp_path: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parent.parent / "crates/nnrp-runtimes/tests"))
    try:
        import make_formats
    finally:
        sys.path.pop(0)
    folder = tmp_path / "half"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(make_formats.saved_model())
    model = nnrp.load(folder, runtime="openvino")
    assert (model.name, nnrp.inspect(folder)["format"]) == ("half", "saved_model")
    assert model(np.ones((1, 4), np.float32))["y"].tolist() == [[3, 3, 3, 3]]
    with pytest.raises(errors.Unimplemented, match="saved_model"):
        nnrp.load(folder, runtime="onnxruntime")


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("(int64[n] x) => (int64[n] y) { c = Constant<value = int64[1] {1099511627776}>() y = Add(x, c) }", "the constant 1099511627776 in Add"),
        ("(float[n] x) => (float[n] y) { d = Cast<to = 11>(x) m = Mul(d, d) y = Cast<to = 1>(m) }", "FP64 in Mul"),
        ("(float[n] x) => (float[n] y) { d = Cast<to = 11>(x) i = Identity(d) m = Mul(i, i) y = Cast<to = 1>(m) }", "FP64 in Mul"),
        (
            "(float[n] x) => (float[n] y) { c = Constant<value = double {0.5}>() d = CastLike(x, c) m = Sqrt(d) y = Cast<to = 1>(m) }",
            "FP64 in Sqrt",
        ),
        ("(float[n] x) => (float[n] y) { c = Constant<value = double {0.5}>() d = Cast<to = 1>(c) y = Mul(x, d) }", None),
        # A slice to the end says so by the largest number there is.
        (
            "(float[n] x) => (float[m] y) { s = Constant<value = int64[1] {1}>() e = Constant<value = int64[1] {9223372036854775807}>() y = Slice(x, s, e) }",
            None,
        ),
    ],
)
def test_what_32_bits_cannot_hold_is_refused_where_the_file_shows_it_and_told_otherwise(tmp_path: Path, body: str, what: str | None) -> None:
    path = tmp_path / "wide.onnx"
    onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> wide {body}'), path)
    if what is not None:
        with pytest.raises(errors.NotOffered, match=what):
            nnrp.load(path, runtime="openvino")
    loaded = nnrp.load(path, runtime="openvino", precision="strict" if what is None else "fast")
    assert loaded.session is not None
    assert loaded.session.settings["narrows"]["INT64"] == "INT32"
    assert len(loaded(np.arange(3).astype(np.int64 if "int64[n] x" in body else np.float32))["y"]) in (2, 3)


def test_a_model_with_a_memory_is_run_by_one_caller_at_a_time(tmp_path: Path) -> None:
    x, v = opset13.parameter([1], np.float32, name="x"), opset13.read_value(opset13.constant(np.zeros(1, np.float32)), "v")
    y = opset13.add(x, v)
    y.set_friendly_name("y")
    y.output(0).set_names({"y"})
    openvino.save_model(openvino.Model([opset13.result(y)], [opset13.assign(y, "v")], [x]), tmp_path / "sum.xml")
    model = nnrp.load(tmp_path / "sum.xml", runtime="openvino", options={"NUM_STREAMS": "2"})
    assert model.session is not None
    assert (model.session.exclusive, model.session.settings["stateful"]) == (True, True)
    with ThreadPoolExecutor(6) as pool:
        answers = [float(one["y"][0]) for one in pool.map(lambda _: model(np.ones(1, np.float32)), range(300))]
    assert sorted(answers) == list(range(1, 301))
