"""The files of a model beside its own: what a link leads to is not read from elsewhere, and caches that link every file work."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
from onnx import helper, numpy_helper
from test_four_formats import PITCH

import nnrp
from nnrp import errors

X = np.array([1, 2, 3, 4], np.float32)
ISOLATIONS = pytest.mark.parametrize("isolation", ["none", "process"])


def times_three(size: int) -> onnx.ModelProto:
    """``y = 3 x``, with as many threes as there are elements."""
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [size]) for name in "xy")
    threes = numpy_helper.from_array(np.full(size, 3, np.float32), "w")
    graph = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["y"])], "tripled", [x], [y], [threes])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def tripled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with that in OpenVINO's own format, the threes in the file beside it."""
    folder = tmp_path_factory.mktemp("tripled")
    onnx.save(times_three(4), folder / "m.onnx")
    openvino.save_model(openvino.convert_model(folder / "m.onnx"), folder / "m.xml", compress_to_fp16=False)
    return folder


def cached(files: list[Path], folder: Path, root: Path) -> Path:
    """What is in these files as a cache of a hub has it: each in one folder under a name of its own, and a tree of links that lead there."""
    revision = root / "snapshots" / "5f3a"
    for number, file in enumerate(files):
        blob, link = root / "blobs" / f"{number:064x}", revision / file.relative_to(folder)
        blob.parent.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, blob)
        link.symlink_to(Path(*[".."] * len(link.relative_to(root).parts[:-1]), "blobs", blob.name))
    return revision


def refused(path: Path, **words: Any) -> None:
    with pytest.raises(errors.InvalidModel, match="expected weights in files beside it, got some outside its folder"):
        nnrp.load(path, **words)


@ISOLATIONS
def test_weights_that_a_link_leads_out_of_the_folder_for_are_refused(tripled: Path, tmp_path: Path, isolation: str) -> None:
    shutil.copy(tripled / "m.xml", tmp_path)
    (tmp_path / "m.bin").symlink_to(tripled / "m.bin")

    refused(tmp_path / "m.xml", runtime="openvino", isolation=isolation)


@ISOLATIONS
def test_a_cache_that_links_every_file_and_a_folder_that_is_a_link_are_loaded(tripled: Path, tmp_path: Path, isolation: str) -> None:
    revision = cached([tripled / "m.xml", tripled / "m.bin"], tripled, tmp_path)
    (revision.parent / "main").symlink_to(revision.name)

    for folder in (revision, revision.parent / "main"):
        assert nnrp.load(folder / "m.xml", runtime="openvino", isolation=isolation)(X)["y"].tolist() == [3, 6, 9, 12]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_weights_of_onnx_that_a_link_leads_out_for_are_refused_too(tmp_path: Path, runtime: str) -> None:
    (tmp_path / "m").mkdir()
    onnx.save(times_three(1024), tmp_path / "m" / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    shutil.move(tmp_path / "m" / "w.bin", tmp_path / "w.bin")
    (tmp_path / "m" / "w.bin").symlink_to(tmp_path / "w.bin")

    with pytest.raises(errors.InvalidModel):
        nnrp.load(tmp_path / "m" / "m.onnx", runtime=runtime)


@ISOLATIONS
@pytest.mark.parametrize("runtime", ["openvino", "tensorflow"])
def test_a_saved_models_variables_are_not_read_from_elsewhere(tmp_path: Path, runtime: str, isolation: str) -> None:
    shutil.copytree(PITCH / "nmp", tmp_path / "pitch")
    data = next((tmp_path / "pitch" / "variables").glob("variables.data-*"))
    shutil.move(data, tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")

    refused(tmp_path / "pitch", runtime=runtime, isolation=isolation)


def test_a_saved_model_in_a_cache_that_links_every_file_is_loaded(tmp_path: Path) -> None:
    files = [file for file in (PITCH / "nmp").rglob("*") if file.is_file()]

    assert nnrp.load(cached(files, PITCH / "nmp", tmp_path), runtime="openvino").session.format == "saved_model"
