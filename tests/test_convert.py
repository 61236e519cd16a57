"""Conversions of real models by their real converters, and what comes of one that goes wrong."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lite
import numpy as np
import onnx
import onnx.parser
import pytest
import zoo
from comparing import NNRP, run
from real.models import ROOT, features, package

import nnrp
from nnrp.compare import compare
from nnrp.compare.candidate import choices
from nnrp.compare.run import Plan
from nnrp.convert import WAYS, compared, convert
from nnrp.errors import AlreadyExists, FileNotFound, InvalidModel, InvalidOption, LoadFailed, NotOffered, RuntimeNotInstalled, UnknownOption

MAGIKA = package("magika") / "models/standard_v3_3/model.onnx"
BASIC_PITCH = package("basic_pitch") / "saved_models/icassp_2022/nmp.tflite"
#: What it becomes → its format, and how much of the size is left at most.
BECOMES = {
    "ir": ("openvino_ir", 1.1),
    "fp16": ("onnx", 0.55),
    "int8-dynamic": ("onnx", 0.35),
    "int4": ("onnx", 0.95),
    "ort": ("ort", 1.1),
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What magika is asked of files of this repository, one case each."""
    folder = tmp_path_factory.mktemp("cases")
    for number, file in enumerate(sorted((ROOT / "python/nnrp").glob("*.py")) + sorted((ROOT / "crates/nnrp-core/src").glob("*.rs"))[:8]):
        np.savez(folder / f"{number:02}.npz", bytes=features.of_file(file))
    return folder


@pytest.mark.parametrize("to", BECOMES)
def test_a_real_model_becomes_smaller_or_another_format_and_stays_right(tmp_path: Path, cases: Path, to: str) -> None:
    format, left = BECOMES[to]
    told: list[tuple[str, float]] = []
    made = convert(MAGIKA, to, tmp_path / f"magika{next(way.suffix for way in WAYS if way.to == to)}", progress=lambda *said: told.append(said))
    assert (made.format, nnrp.inspect(made.files[0])["format"]) == ("onnx", format)
    assert sum(file.stat().st_size for file in made.files) < left * MAGIKA.stat().st_size
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(file.name for file in made.files)
    assert [share for _, share in told] == sorted(share for _, share in told)
    runtime = "openvino" if to == "ir" else "onnxruntime"
    tolerance = next(way.tolerance for way in WAYS if way.to == to) or 1e-4
    report = compare([MAGIKA, made.files[0]], f"onnxruntime,{runtime}", inputs=cases, seconds=0.0, tolerance=tolerance)
    assert report.status == 0, report.table()
    assert (
        nnrp.load(made.files[0], runtime=runtime)(features.of_file(ROOT / "python/nnrp/errors.py"))["target_label"].argmax()
        == nnrp.load(MAGIKA)(features.of_file(ROOT / "python/nnrp/errors.py"))["target_label"].argmax()
    )


def test_int8_is_calibrated_with_real_inputs(tmp_path: Path, cases: Path) -> None:
    told: list[str] = []
    made = convert(MAGIKA, "int8", tmp_path / "m.onnx", calibrate=cases, progress=lambda what, share: told.append(what))
    operators = nnrp.inspect(made.files[0])["needs"]["operators"]["ai.onnx"]
    assert {"QuantizeLinear", "DequantizeLinear"} <= set(operators)
    assert [line for line in told if "calibrating with 00, 1 of" in line]
    model, original = nnrp.load(made.files[0]), nnrp.load(MAGIKA)
    for case in sorted(cases.iterdir()):
        x = np.load(case)["bytes"]
        assert model(x)["target_label"].argmax() == original(x)["target_label"].argmax()


def test_tflite_becomes_ir(tmp_path: Path) -> None:
    words = ("--seconds", 0, "--random", 1, "--json")
    said = json.loads(run("convert", BASIC_PITCH, "--to", "ir", "-o", tmp_path / "nmp.xml", *words))
    assert [Path(one["file"]).name for one in said["files"]] == ["nmp.xml", "nmp.bin"]
    assert (said["format"], said["to"]) == ("tflite", "ir")
    assert said["converter"].startswith("openvino ")
    results = {(one["model"], one["session"]["runtime"]): one["verdict"] for one in said["compare"]["results"]}
    # OpenVINO, which made the result, is not left to judge it alone.
    assert results == {("nmp.tflite", "litert"): "reference", ("nmp.tflite", "openvino"): "within", ("nmp.xml", "openvino"): "within"}


def test_a_result_that_nobody_else_can_judge_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = convert(lite.scale(tmp_path / "net.tflite", [-1, 4], {"serve": 2.0}), "ir")
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    report = compared(made, lambda files, runtimes: Plan(files, tuple(choices(runtimes)), ("strict",), random=1, seconds=0.0, shapes={"x": [2, 4]})).report
    assert report is not None
    assert [result.verdict for result in report.results] == ["reference", "same"]
    assert any("nobody else judges it: no runtime but openvino" in note for note in report.notes)


def test_the_command_ends_as_compare_does(tmp_path: Path) -> None:
    file = tmp_path / "half.onnx"
    words = ("convert", MAGIKA, "--to", "fp16", "-o", file, "--seconds", 0, "--random", 1)
    assert "within tolerance" in run(*words)
    assert "is there already; --force writes over it" in run(*words, status=2)
    strict = run(*words, "--force", "--tolerance", "1e-9", status=1)
    assert "differs" in strict
    assert "onnx to fp16 by onnxruntime" in strict
    assert "onnx to fp16" in run(*words, "--force", "--no-compare")
    assert file.stat().st_size < 0.55 * MAGIKA.stat().st_size
    assert "--options: expected one JSON object" in run(*words, "--force", "--options", "[]", status=2)


def test_a_result_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    good = tmp_path / "good.ir.xml"
    convert(zoo.scale(tmp_path / "scale.onnx", 2.0), "ir", good)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    # A space ends a path for those who do not know it.
    cut = tmp_path / "my models" / "cut.onnx"
    cut.parent.mkdir()
    cut.write_bytes(MAGIKA.read_bytes()[: 1 << 20])
    for to in ("ir", "fp16", "int8-dynamic", "ort"):
        suffix = next(way.suffix for way in WAYS if way.to == to)
        with pytest.raises((LoadFailed, InvalidModel)) as failed:
            convert(cut, to, tmp_path / f"good{'.ir' if to == 'ir' else ''}{suffix}", force=True)
        assert str(tmp_path) not in failed.value.message
        assert "models" not in failed.value.message
    shutil.rmtree(cut.parent)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    with pytest.raises(AlreadyExists):
        convert(tmp_path / "scale.onnx", "ir", good)
    convert(zoo.scale(tmp_path / "scale.onnx", 3.0), "ir", good, force=True)
    assert nnrp.load(good, runtime="openvino")(np.ones((1, 4), np.float32))["y"].tolist() == [[3, 3, 3, 3]]


def test_what_a_converter_in_a_process_of_its_own_says_is_told_without_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As tf2onnx 1.17 says it of a file that is cut off.
    (tmp_path / "packages/tf2onnx").mkdir(parents=True)
    says = "import sys\nraise ValueError(f\"Could not open '{sys.argv[2]}', nor {sys.prefix}/share/x.json\")\n"
    (tmp_path / "packages/tf2onnx/convert.py").write_text(says)
    for name, about in (("tf2onnx", "1.17.0"), ("tensorflow", "2.21.0")):
        (tmp_path / f"packages/{name}").mkdir(exist_ok=True)
        (tmp_path / f"packages/{name}/__init__.py").touch()
        (tmp_path / f"packages/{name}-{about}.dist-info").mkdir()
        (tmp_path / f"packages/{name}-{about}.dist-info/METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {about}\n")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    (tmp_path / "my models").mkdir()
    source = lite.scale(tmp_path / "my models" / "net.tflite", [-1, 4], {"serve": 2.0})
    with pytest.raises(LoadFailed) as failed:
        convert(source, "onnx")
    assert failed.value.message == "convert to onnx: tf2onnx: ValueError: Could not open '…', nor …"
    assert [one.name for one in source.parent.iterdir()] == ["net.tflite"]


def test_files_of_another_model_of_that_name_are_left_alone(tmp_path: Path) -> None:
    others = [tmp_path / name for name in ("net.bin", "net.data", "net.onnx.bin")]
    for other in others:
        other.write_bytes(b"another model's")
    source = zoo.scale(tmp_path / "scale.onnx", 2.0)
    made = convert(source, "fp16", tmp_path / "net.onnx")
    (tmp_path / "net.onnx.data").write_bytes(b"an earlier result's")
    made = convert(source, "fp16", tmp_path / "net.onnx", force=True)
    assert made.files == (tmp_path / "net.onnx",)
    assert [other.read_bytes() for other in others] == [b"another model's"] * 3
    assert not (tmp_path / "net.onnx.data").exists()


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """Magika, with its weights in a file beside it."""
    file = tmp_path / "magika.onnx"
    onnx.save(onnx.load(MAGIKA), file, save_as_external_data=True, location="magika.onnx_data", size_threshold=0)
    return file


def test_a_large_model_leaves_nothing_but_its_result(beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What makes a file large, and its weights are larger.
    monkeypatch.setattr("nnrp.convert.ways._LARGE", 1 << 20)
    assert beside.stat().st_size < 1 << 20
    made = convert(beside, "int8-dynamic")
    names = {"magika.int8-dynamic.onnx", "magika.int8-dynamic.onnx.data"}
    assert {one.name for one in made.files} == names
    assert {one.name for one in beside.parent.iterdir()} == names | {"magika.onnx", "magika.onnx_data"}


def test_weights_beside_a_model_are_prepared_with_it_and_are_of_its_size(beside: Path) -> None:
    done = subprocess.run([NNRP, "convert", beside, "--to", "int8-dynamic", "--no-compare"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "Failed" not in done.stdout + done.stderr
    assert re.search(r"3\.\d MB to [01]\.\d MB", done.stdout)


def test_what_would_stay_as_it_is_is_not_offered(tmp_path: Path) -> None:
    texts, sums = zoo.identity(tmp_path / "texts.onnx", "BYTES"), zoo.two_by_two(tmp_path / "sums.onnx")
    (tmp_path / "cases").mkdir()
    np.savez(tmp_path / "cases" / "0.npz", a=np.int32([1, 2]), b=np.int32([3, 4]))
    for file, to, calibrate in ((texts, "fp16", None), (sums, "fp16", None), (sums, "int8-dynamic", None), (sums, "int8", tmp_path / "cases")):
        with pytest.raises(NotOffered, match=f"convert to {to}: the model has no.* stay as it is"):
            convert(file, to, calibrate=calibrate)
    assert {one.name for one in tmp_path.iterdir()} == {"texts.onnx", "sums.onnx", "cases"}
    assert nnrp.inspect(convert(zoo.scale(tmp_path / "scale.onnx", 2.0), "fp16").files[0])["needs"]["operators"] == {"ai.onnx": ["Cast", "Mul"]}
    # Its only FP32 is within.
    body = "(int32[n] x) => (int32[n] y) { a = Cast<to = 1>(x) b = Constant<value = float {2.0}>() c = Mul(a, b) y = Cast<to = 6>(c) }"
    onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> within {body}'), tmp_path / "within.onnx")
    made = onnx.load(convert(tmp_path / "within.onnx", "fp16").files[0])
    assert next(node for node in made.graph.node if node.op_type == "Constant").attribute[0].t.data_type == onnx.TensorProto.FLOAT16


def test_what_cannot_be_done_says_so_before_anything_is_written(tmp_path: Path, cases: Path) -> None:
    file = zoo.scale(tmp_path / "scale.onnx", 2.0)
    (tmp_path / "folder.onnx").mkdir()
    wrong: list[tuple[type[nnrp.NnrpError], str, tuple[Any, ...], dict[str, Any]]] = [
        (NotOffered, "it becomes ir, fp16", (file, "tflite"), {}),
        (NotOffered, "there is no such way", (BASIC_PITCH, "fp16"), {}),
        (NotOffered, "no MatMul", (file, "int4"), {}),
        (UnknownOption, "compress_to_fp16", (file, "ir"), {"options": {"compress": True}}),
        (InvalidOption, "'method'", (MAGIKA, "int8", tmp_path / "m.onnx"), {"options": {"method": "guess"}, "calibrate": cases}),
        (InvalidOption, "needs a folder of inputs", (file, "int8"), {}),
        (InvalidOption, "takes no inputs", (file, "ir"), {"calibrate": cases}),
        (FileNotFound, "no folder", (file, "int8"), {"calibrate": tmp_path / "none"}),
        (FileNotFound, "no such file", (tmp_path / "none.onnx", "ir"), {}),
        (FileNotFound, "no folder", (file, "ir", tmp_path / "none" / "m.xml"), {}),
        (InvalidOption, "ends in .xml", (file, "ir", tmp_path / "m.onnx"), {}),
        (InvalidOption, "a file, got a folder", (file, "fp16", tmp_path / "folder.onnx"), {"force": True}),
        (InvalidOption, "cannot be written: No such file or directory", (file, "fp16", Path("/proc/x.onnx")), {}),
        (InvalidOption, "another file than the source", (file, "fp16", file), {"force": True}),
    ]
    for kind, says, words, further in wrong:
        with pytest.raises(kind, match=says):
            convert(*words, **further)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["folder.onnx", "scale.onnx"]


def test_a_package_that_is_missing_is_named(tmp_path: Path) -> None:
    missing = [way for way in WAYS if way.packages[0] in ("torch", "tensorflow") and not find_spec(way.packages[0])]
    if not missing:
        pytest.skip("torch and tensorflow are installed here")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"\x08\x01\x12\x02\x0a\x00")
    with pytest.raises(RuntimeNotInstalled, match="needs the package tensorflow, which is not installed: pip install tensorflow"):
        convert(tmp_path / "saved", "tflite")


def test_no_converter_is_imported_before_it_is_needed() -> None:
    program = "import sys, nnrp.convert, nnrp.cli; print(*{module.split('.')[0] for module in sys.modules})"
    loaded = set(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split())
    assert not loaded & {"onnxruntime", "onnx", "openvino", "torch", "tensorflow", "tf2onnx", "onnx_ir"}
