"""MNN's networks, converted here from ONNX, behind the same calls as ONNX Runtime."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import package
import page
import pytest

import nnrp
from nnrp import errors
from nnrp.testing import check_runtime, zoo
from nnrp.testing.formats import mnn as writer

PITCH = package.file("basic_pitch/saved_models/icassp_2022/nmp.onnx")
MAGIKA = package.file("magika/models/standard_v3_3/model.onnx")
OPEN: dict[str, Any] = {"inputs": {"bytes": {"shape": ["rows", 2048]}}, "outputs": {"target_label": {"shape": [-1, 214]}}}


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The line 2x + 1 over any number of elements."""
    return writer.write(zoo.graph("affine"), tmp_path_factory.mktemp("mnn"))


@pytest.fixture(scope="module")
def magika(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file-type model."""
    path = tmp_path_factory.mktemp("mnn") / "magika.mnn"
    writer.convert(MAGIKA, path)
    return path


def test_weights_beside_a_network_that_are_missing_or_cut_off_are_refused(tmp_path: Path) -> None:
    tensor = onnx.numpy_helper.from_array(np.full((512, 512), 2, np.float32), "w")
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 512]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "product", [x], [y], [tensor])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8), tmp_path / "product.onnx")
    path, ones = tmp_path / "product.mnn", np.ones((1, 512), np.float32)
    writer.convert(tmp_path / "product.onnx", path, words=("--saveExternalData", "1"))
    weights = tmp_path / "product.mnn.weight"
    whole = weights.read_bytes()
    assert (nnrp.load(path)(ones)["y"] == 1024).all()
    weights.write_bytes(whole[:1000])
    with pytest.raises(errors.InvalidModel, match="expected at least"):
        nnrp.load(path)
    weights.unlink()
    with pytest.raises(errors.FileNotFound, match="beside it: no such file"):
        nnrp.load(path)


def test_it_keeps_the_contract() -> None:
    report = check_runtime("mnn", isolate=True)
    assert report.passed, report.table()


def test_a_real_network_gives_the_same_numbers_as_onnxruntime(tmp_path: Path) -> None:
    writer.convert(PITCH, tmp_path / "pitch.mnn")
    here, there = nnrp.load(tmp_path / "pitch.mnn"), nnrp.load(PITCH)
    tone = np.sin(2 * np.pi * 440 * np.arange(43844) / 22050).astype(np.float32).reshape(1, -1, 1)
    ours, theirs = here(tone), there(tone)
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        np.testing.assert_allclose(ours[name], expected, atol=2e-3, rtol=0)
    assert ours["StatefulPartitionedCall:1"][0].mean(axis=0).argmax() + 21 == 69


def test_a_network_on_which_mnn_drifts_still_says_the_same_and_not_the_same_numbers(magika: Path) -> None:
    model = nnrp.load(magika, **OPEN)
    x = np.random.default_rng(0).integers(0, 257, (2, 2048)).astype(np.int32)
    ours, theirs = model(x)["target_label"], nnrp.load(MAGIKA)(x)["target_label"]
    assert ours.argmax(axis=1).tolist() == theirs.argmax(axis=1).tolist()
    # What the page says. Where this is better one day, it says so no longer.
    assert 1e-3 < np.abs(ours - theirs).max() < 0.1


def test_dimensions_are_those_that_the_file_tells_unless_the_description_opens_them(magika: Path) -> None:
    closed = nnrp.load(magika)
    assert [tuple(spec[:3]) for spec in (*closed.inputs, *closed.outputs)] == [("bytes", "INT32", (1, 2048)), ("target_label", "FP32", (1, 214))]
    with pytest.raises(errors.ShapeMismatch):
        closed(np.zeros((2, 2048), np.int32))
    model = nnrp.load(magika, **OPEN)
    for rows in (3, 1, 2):
        assert model(np.zeros((rows, 2048), np.int32))["target_label"].shape == (rows, 214)
    four = nnrp.load(magika, inputs=[{"name": "ids", "shape": [4, 2048]}], outputs=[{"shape": [4, 214]}])
    assert [tuple(spec[:3]) for spec in (*four.inputs, *four.outputs)] == [("ids", "INT32", (4, 2048)), ("target_label", "FP32", (4, 214))]
    assert four(ids=np.zeros((4, 2048), np.int32))["target_label"].shape == (4, 214)
    for wrong in ({"byte": {"shape": [1, 2048]}}, {"bytes": {"datatype": "FP32"}}, {"bytes": {"shape": [2048]}}):
        with pytest.raises(errors.InvalidOption, match=r"model description: inputs\['byte"):
            nnrp.load(magika, runtime="mnn", inputs=wrong)


def test_four_threads_wait_for_each_other_and_get_their_own_answers(line: dict[str, Any]) -> None:
    model = nnrp.load(**line)
    assert model.session is not None
    assert model.session.exclusive

    def wrong(thread: int) -> int:
        xs = (np.full(64 + (turn + thread) % 5, 1_000 * thread + turn, np.float32) for turn in range(240))
        return sum(not np.array_equal(model(x)["y"], 2 * x + 1) for x in xs)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(wrong, range(4))) == 0


def test_a_file_that_is_cut_off_is_no_model(tmp_path: Path, line: dict[str, Any]) -> None:
    whole = Path(line["path"]).read_bytes()
    for end in range(0, len(whole) - 4, 37):
        (tmp_path / "bad.mnn").write_bytes(whole[:end])
        with pytest.raises(errors.InvalidModel) as refused:
            nnrp.load(tmp_path / "bad.mnn", runtime="mnn")
        assert str(tmp_path) not in refused.value.message


def test_inspect_says_what_a_file_is_and_that_mnn_runs_it(magika: Path) -> None:
    done = subprocess.run([Path(sys.executable).with_name("nnrp"), "inspect", magika], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.startswith("magika.mnn: mnn, ")
    assert done.stdout.split()[-2:] == ["runtimes", "mnn"]


def test_the_page_runs_as_written(tmp_path: Path) -> None:
    assert page.run("mnn", "small", tmp_path) == 2
