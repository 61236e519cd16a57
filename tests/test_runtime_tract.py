"""tract behind the same calls as ONNX Runtime: the same numbers, the same errors, and nothing that ends the process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import magika
import numpy as np
import pytest
import zoo

import nnrp
from nnrp import errors
from nnrp.testing import check_runtime

RUNTIMES = ("onnxruntime", "tract")
MAGIKA = Path(magika.__file__).parent / "models" / "standard_v3_3" / "model.onnx"


@pytest.fixture(scope="module")
def pixels(models: Path) -> Path:
    """The model of the bad calls: FP32 [N, 3, 64, 64]."""
    return zoo.identity(models / "pixels.onnx", "FP32", ["N", 3, 64, 64])


def test_a_real_model_gives_the_same_numbers_as_onnxruntime() -> None:
    x = np.random.default_rng(7).integers(0, 257, (3, 2048)).astype(np.int32)
    here = nnrp.load(MAGIKA, runtime="tract", options={"shapes": {"bytes": [3, 2048]}})
    assert [(spec.name, spec.shape) for spec in (*here.inputs, *here.outputs)] == [("bytes", (3, 2048)), ("target_label", (3, 214))]
    np.testing.assert_allclose(here(x)["target_label"], nnrp.load(MAGIKA)(x)["target_label"], atol=1e-5, rtol=0)


def test_a_model_that_needs_fixed_shapes_says_so() -> None:
    with pytest.raises(errors.LoadFailed, match="the option 'shapes' may help") as refused:
        nnrp.load(MAGIKA, runtime="tract")
    assert "\n" not in refused.value.message
    assert len(refused.value.message) < 400


@pytest.mark.parametrize("shapes", [{"bytes": [1, 2047]}, {"bytes": [2048]}, {"other": [1]}, {"bytes": [1, "2048"]}])
def test_shapes_that_do_not_fit_the_model_are_refused(shapes: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidOption, match="shapes"):
        nnrp.load(MAGIKA, runtime="tract", options={"shapes": shapes})


def test_dimensions_that_stay_open_take_any_size(tmp_path: Path) -> None:
    for dims in (["batch", 4], ["batch", None], [None, None]):
        model = nnrp.load(zoo.identity(tmp_path / "open.onnx", "FP32", dims), runtime="tract")  # type: ignore[arg-type]
        for rows in (1, 7, 0):
            x = np.random.default_rng(rows).random((rows, 4)).astype(np.float32)
            assert np.array_equal(model(x)["y"], x)
    model = nnrp.load(zoo.identity(tmp_path / "half.onnx", "FP32", ["rows", "columns"]), runtime="tract", options={"shapes": {"x": [-1, 4]}})
    assert model.inputs[0].shape == (-1, 4)
    assert model(np.ones((3, 4), np.float32))["y"].shape == (3, 4)


TYPES = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}


@pytest.mark.parametrize("datatype", TYPES)
def test_every_datatype_that_it_has_comes_back_as_it_was(tmp_path: Path, datatype: str) -> None:
    x = np.arange(8).reshape(2, 4).astype(TYPES[datatype])
    y = nnrp.load(zoo.identity(tmp_path / "same.onnx", datatype), runtime="tract")(x)["y"]
    assert y.dtype == x.dtype
    assert np.array_equal(y, x)


def test_texts_and_bfloat16_are_not_offered(tmp_path: Path) -> None:
    for datatype in ("BYTES", "BF16"):
        with pytest.raises(errors.NnrpError) as refused:
            nnrp.load(zoo.identity(tmp_path / "same.onnx", datatype), runtime="tract")
        assert refused.value.reason in {"NOT_OFFERED", "INVALID_MODEL"}


def test_what_the_file_has_a_value_for_is_no_input(tmp_path: Path) -> None:
    model = nnrp.load(zoo.optional_bias(tmp_path / "bias.onnx"), runtime="tract")
    assert [spec.name for spec in model.inputs] == ["x"]
    assert model(np.ones(2, np.float32))["y"].tolist() == [11, 11]


BAD_CALLS: dict[str, tuple[dict[str, Any], str]] = {
    "float64": ({"x": np.ones((1, 3, 64, 64))}, "DATATYPE_MISMATCH"),
    "two channels": ({"x": np.ones((1, 2, 64, 64), np.float32)}, "SHAPE_MISMATCH"),
    "another rank": ({"x": np.ones((3, 64, 64), np.float32)}, "SHAPE_MISMATCH"),
    "missing": ({}, "MISSING_INPUT"),
    "unknown name": ({"z": np.ones((1, 3, 64, 64), np.float32)}, "UNKNOWN_INPUT"),
}


@pytest.mark.parametrize("call", BAD_CALLS)
def test_a_bad_call_is_the_same_error_as_on_onnxruntime(pixels: Path, call: str) -> None:
    inputs, reason = BAD_CALLS[call]
    told = []
    for runtime in RUNTIMES:
        with pytest.raises(errors.InvalidArgument) as refused:
            nnrp.load(pixels, runtime=runtime).infer(inputs)
        told.append((refused.value.reason, refused.value.message))
    assert told[0] == told[1]
    assert told[0][0] == reason


def test_four_threads_at_once_get_their_own_answers(pixels: Path) -> None:
    model = nnrp.load(pixels, runtime="tract")

    def wrong(thread: int) -> int:
        xs = (np.full((1 + turn % 3, 3, 64, 64), 1_000 * thread + turn, np.float32) for turn in range(240))
        return sum(not np.array_equal(model(x)["y"], x) for x in xs)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(wrong, range(4))) == 0


def test_a_run_that_fails_says_why_in_one_line(tmp_path: Path) -> None:
    model = nnrp.load(zoo.two_by_two(tmp_path / "two.onnx"), runtime="tract", symbols="free")
    with pytest.raises(errors.RunFailed, match="n=3 != 2") as failed:
        model.infer({"a": np.ones(3, np.int32), "b": np.ones(2, np.int32)})
    assert "\n" not in failed.value.message


@pytest.mark.parametrize(("data", "reason"), [(b"", "INVALID_MODEL"), (b"garbage, and more of it\n", "INVALID_MODEL"), (b"GGUF\3\0\0\0", "NOT_OFFERED")])
def test_a_bad_file_is_the_same_error_as_on_onnxruntime(tmp_path: Path, data: bytes, reason: str) -> None:
    file = tmp_path / "bad.onnx"
    file.write_bytes(data)
    for runtime in RUNTIMES:
        with pytest.raises(errors.NnrpError) as refused:
            nnrp.load(file, runtime=runtime)
        assert refused.value.reason == reason
        assert str(tmp_path) not in str(refused.value)


def test_a_file_that_crashes_tract_is_a_typed_error(tmp_path: Path) -> None:
    file = zoo.two_by_two(tmp_path / "two.onnx")
    # An output that nothing gives: tract ends the process that loads it.
    file.write_bytes(file.read_bytes().replace(b"\x12\x07product", b"\x12\x07rroduct", 1))
    with pytest.raises(errors.InvalidModel):
        nnrp.load(file, runtime="tract")
    data = bytearray(zoo.two_by_two(file).read_bytes())
    at = data.rindex(b"product")
    data[at : at + 7] = b"rroduct"
    file.write_bytes(data)
    with pytest.raises(errors.InvalidModel, match="crashed in the process that tried"):
        nnrp.load(file, runtime="tract")


def test_it_keeps_the_contract() -> None:
    report = check_runtime("tract", loads=5)
    assert not report.failures, report.failures
