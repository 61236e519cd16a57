"""ncnn's two files, behind the same calls as ONNX Runtime."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import page
import pytest
from photo import PHOTO, as_onnx

import nnrp
from nnrp import errors
from nnrp.testing import check_runtime

QUIRKS = dict.fromkeys(("shapes.empty", "shapes.batch"), "ncnn has no dimension of no elements")
TWO = """7767517
4 4
Input right 0 1 b
Input left 0 1 a
BinaryOp difference 2 1 a b d 0=1
BinaryOp twice 1 1 d y 0=2 1=1 2=2.0
"""


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """The network 2 (a - b), whose file has b first."""
    (tmp_path / "two.param").write_text(TWO)
    (tmp_path / "two.bin").touch()
    return tmp_path / "two.param"


def test_it_keeps_the_contract_but_for_dimensions_of_none() -> None:
    report = check_runtime("ncnn", isolate=True, quirks=QUIRKS)
    assert report.passed, report.table()
    assert {one.id for one in report.outcomes if one.verdict == "quirk"} == QUIRKS.keys()


def test_a_real_network_gives_the_same_numbers_as_onnxruntime(tmp_path: Path) -> None:
    said: dict[str, Any] = {"inputs": {"Input1": {"name": "picture", "shape": [3, -1, -1]}}, "outputs": [{"name": "large", "shape": [3, -1, -1]}]}
    here, there = nnrp.load(PHOTO, **said), nnrp.load(as_onnx(tmp_path / "photo.onnx"))
    for size in (40, 61):
        x = np.random.default_rng(size).random((3, size, size)).astype(np.float32)
        np.testing.assert_allclose(here(x)["large"], there(x[None])["y"][0], atol=1e-4, rtol=0)
    assert here.session is not None
    told = here.session.settings
    assert (told["precision"], told["overrides"]["outputs"]["large"]["name"]) == ("strict", "Eltwise4")


def test_what_the_file_tells_of_a_shape_holds_unless_the_description_says_otherwise(two: Path) -> None:
    assert [tuple(spec[:3]) for spec in nnrp.load(PHOTO).inputs] == [("Input1", "FP32", (3, 156, 156))]
    assert [spec.name for spec in nnrp.load(two).inputs] == ["b", "a"]


def test_inputs_are_named_by_the_file_or_in_its_order(two: Path) -> None:
    by_name = nnrp.load(two, inputs={"a": {"shape": [-1]}, "b": {"shape": [1]}})
    in_order = nnrp.load(two, inputs=["right", "left"], outputs=[{"name": "twice", "shape": [-1]}])
    assert [spec.shape for spec in by_name.inputs] == [(1,), (-1,)]
    assert by_name(a=np.float32([5]), b=np.float32([1]))["y"].tolist() == [8]
    assert in_order(left=np.float32([5]), right=np.float32([1]))["twice"].tolist() == [8]
    with pytest.raises(errors.InvalidOption, match=r"inputs\['c'\]: expected a name that the runtime tells"):
        nnrp.load(two, runtime="ncnn", inputs={"c": {"shape": [-1]}})
    with pytest.raises(errors.InvalidOption, match="a datatype of FP32, INT32"):
        nnrp.load(two, runtime="ncnn", outputs={"y": {"datatype": "FP64"}})


def test_an_input_of_the_caller_is_never_written_to(two: Path) -> None:
    a, b = np.float32([1, 2, 3]), np.float32([1, 1, 1])
    assert nnrp.load(two)(a=a, b=b)["y"].tolist() == [0, 2, 4]
    assert (a.tolist(), b.tolist()) == ([1, 2, 3], [1, 1, 1])


def test_shapes_that_ncnn_would_crash_on_are_refused(two: Path) -> None:
    model = nnrp.load(two)
    for shape in ((), (0,), (2, 0), (1, 1, 1, 1, 1)):
        with pytest.raises(errors.ShapeMismatch):
            model(a=np.ones(shape, np.float32), b=np.ones(shape, np.float32))
    assert model(a=np.float32([2]), b=np.float32([1]))["y"].tolist() == [2]


def test_four_threads_at_once_get_their_own_answers(two: Path) -> None:
    model = nnrp.load(two)

    def wrong(thread: int) -> int:
        pairs = [(np.full(64 + turn, 1_000 * thread + turn, np.float32), np.full(64 + turn, turn, np.float32)) for turn in range(240)]
        return sum(not np.array_equal(model(a=a, b=b)["y"], 2 * (a - b)) for a, b in pairs)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(wrong, range(4))) == 0


def test_files_that_are_cut_off_are_no_models(tmp_path: Path) -> None:
    text, weights = PHOTO.read_text(), PHOTO.with_suffix(".bin").read_bytes()
    found: list[tuple[str, bytes]] = [(text[:end], weights) for end in range(0, len(text) - 2, 131)]
    found += [(text, weights[: len(weights) * part // 7]) for part in range(7)] + [(text.replace("Deconvolution", "Dissolution"), weights)]
    for one, other in found:
        (tmp_path / "bad.param").write_text(one)
        (tmp_path / "bad.bin").write_bytes(other)
        with pytest.raises(errors.InvalidModel) as refused:
            nnrp.load(tmp_path / "bad.param", runtime="ncnn")
        assert str(tmp_path) not in refused.value.message


def test_a_layer_that_is_cut_off_is_no_layer(two: Path) -> None:
    text = two.read_text()
    for end in range(len(text) - 1, 8, -1):
        two.write_text(text[:end])
        with pytest.raises(errors.InvalidModel):
            nnrp.load(two, runtime="ncnn")


def test_weights_that_an_option_names_and_a_link_leads_out_of_the_folder_for_are_refused(two: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "w.bin"
    two.with_suffix(".bin").rename(elsewhere)
    two.with_name("linked.bin").symlink_to(elsewhere)
    with pytest.raises(errors.InvalidModel, match="outside its folder"):
        nnrp.load(two, options={"weights": "linked.bin"}, runtime="ncnn")
    # As a cache has them, both under names of its own.
    two.rename(elsewhere.with_name("two"))
    two.symlink_to(elsewhere.with_name("two"))
    assert nnrp.load(two, options={"weights": "linked.bin"}, runtime="ncnn").inputs


def test_weights_lie_beside_the_model(two: Path) -> None:
    two.with_suffix(".bin").rename(two.with_name("other.weights"))
    with pytest.raises(errors.FileNotFound, match=r"'two\.bin'"):
        nnrp.load(two, runtime="ncnn")
    assert nnrp.load(two, options={"weights": "other.weights"}, runtime="ncnn").inputs
    options: list[dict[str, Any]] = [{"weights": "../other.weights"}, {"weights": str(two)}]
    for one in options:
        with pytest.raises(errors.InvalidOption, match="beside the model"):
            nnrp.load(two, runtime="ncnn", options=one)


def test_inspect_says_what_a_file_is_and_that_ncnn_runs_it() -> None:
    done = subprocess.run([Path(sys.executable).with_name("nnrp"), "inspect", PHOTO, "--json"], capture_output=True, text=True, timeout=120, check=True)
    about = json.loads(done.stdout)
    assert (about["format"], about["runtimes"]) == ("ncnn", ["ncnn"])


def test_the_page_runs_as_written(tmp_path: Path) -> None:
    assert page.run("ncnn", "small", tmp_path) == 2
