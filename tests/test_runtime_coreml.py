"""Core ML packages where there is no Core ML: run by their translation to ONNX, or refused with the reason."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnrp
from nnrp import errors
from nnrp.runtimes.coreml import schema
from nnrp.testing import check_runtime
from nnrp.testing.formats.coreml import Blob, Package, Step, Tensor, Var

SPEC = find_spec("basic_pitch")
assert SPEC is not None
assert SPEC.submodule_search_locations
PITCH = Path(SPEC.submodule_search_locations[0]) / "saved_models/icassp_2022/nmp.mlpackage"
MODEL, WEIGHTS = "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin"
ROW: Tensor = ("fp32", (-1, 3))
DOUBLE: list[Step] = [("mul", {"x": Var("x"), "y": 2.0}, {"y": ROW})]


def load(path: Path, **words: Any) -> nnrp.Model:
    return nnrp.load(path, runtime="coreml", **words)


def double(folder: Path, described: Any = None, tensor: Tensor = ROW) -> Path:
    """``y = 2 x``."""
    return Package({"x": tensor}, [(DOUBLE[0][0], DOUBLE[0][1], {"y": tensor})], ["y"], {"x": described or {}}).save(folder / "double.mlpackage")


# What it runs


def test_a_real_package_runs_and_tells_what_it_is() -> None:
    model = load(PITCH)
    assert (model.session.runtime, model.session.format, model.session.device) == ("coreml", "mlpackage", "cpu")
    assert [(one.name, one.datatype, one.shape) for one in model.inputs] == [("input_2", "FP32", (1, 43844, 1))]
    assert [(one.name, one.shape) for one in model.outputs] == [("Identity", (1, 172, 264)), ("Identity_1", (1, 172, 88)), ("Identity_2", (1, 172, 88))]
    settings = model.session.settings
    assert (settings["precision"], settings["through"], settings["function"]) == ("strict", "onnxruntime", "main")
    assert settings["onnxruntime"]["providers"] == [["CPUExecutionProvider", {}]]


def test_the_runtime_is_found_by_what_is_in_the_folder(tmp_path: Path) -> None:
    folder = shutil.copytree(double(tmp_path), tmp_path / "anything.onnx")
    model = nnrp.load(folder)
    assert model.session.runtime == "coreml"
    assert model(np.float32([[1, 2, 3]]))["y"].tolist() == [[2, 4, 6]]
    assert nnrp.inspect(folder)["format"] == "mlpackage"
    file = tmp_path / "alone.mlmodel"
    file.write_bytes((folder / MODEL).read_bytes())
    assert nnrp.inspect(file)["format"] == "mlmodel"
    assert load(file)(np.float32([[1, 2, 3]]))["y"].tolist() == [[2, 4, 6]]


def test_options_of_onnxruntime_are_passed_on(tmp_path: Path) -> None:
    model = load(double(tmp_path), options={"onnxruntime": {"intra_op_num_threads": 1, "graph_optimization_level": "disable"}})
    assert model.session.settings["onnxruntime"]["intra_op_num_threads"] == 1
    assert model.session.settings["threads"] == 1
    assert model.session.settings["providers"] == model.session.settings["onnxruntime"]["providers"]
    with pytest.raises(errors.UnknownOption):
        load(double(tmp_path), options={"onnxruntime": {"threads": 1}})
    with pytest.raises(errors.DeviceNotFound):
        load(double(tmp_path), device="cuda:0")
    with pytest.raises(errors.NotOffered):
        load(double(tmp_path), precision="fp16")


def test_one_of_several_functions_is_run(tmp_path: Path) -> None:
    folder = double(tmp_path)
    message = schema.messages(schema.CORE_ML)["Model"].FromString((folder / MODEL).read_bytes())
    other = message.mlProgram.functions.add(key="other")
    other.value.CopyFrom(message.mlProgram.functions[0].value)
    other.value.blocks[0].value.operations[0].type = "add"
    (folder / MODEL).write_bytes(message.SerializeToString())
    x = np.float32([[1, 2, 3]])
    assert load(folder)(x)["y"].tolist() == [[2, 4, 6]]
    model = load(folder, options={"function": "other"})
    assert model(x)["y"].tolist() == [[3, 4, 5]]
    assert model.session.settings["function"] == "other"
    with pytest.raises(errors.InvalidOption, match="'main', 'other'"):
        load(folder, options={"function": "third"})


# Sizes that may vary


def test_listed_shapes_are_the_only_ones(tmp_path: Path) -> None:
    model = load(double(tmp_path, {"shape": [1, 3], "enumeratedShapes": {"shapes": [{"shape": [1, 3]}, {"shape": [4, 3]}]}}))
    assert model.inputs[0].shape == (-1, 3)
    assert model.session.settings["sizes"] == {"x": [[1, 3], [4, 3]]}
    for rows in (1, 4):
        assert model(np.ones((rows, 3), np.float32))["y"].shape == (rows, 3)
    for rows in (2, 5):
        with pytest.raises(errors.ShapeMismatch, match=r"input 'x': expected the shape \[1, 3\] or \[4, 3\]"):
            model(np.ones((rows, 3), np.float32))


def test_a_range_has_bounds(tmp_path: Path) -> None:
    ranges = [{"lowerBound": 2, "upperBound": 4}, {"lowerBound": 3, "upperBound": -1}]
    model = load(double(tmp_path, {"shape": [2, 3], "shapeRange": {"sizeRanges": ranges}}))
    assert model(np.ones((4, 3), np.float32))["y"].shape == (4, 3)
    for rows in (1, 5):
        with pytest.raises(errors.ShapeMismatch, match="dimension 0: expected 2 to 4") as refused:
            model(np.ones((rows, 3), np.float32))
        assert refused.value.details["got"] == [rows, 3]


def test_a_dimension_that_only_the_description_knows_is_fixed(tmp_path: Path) -> None:
    model = load(double(tmp_path, {"shape": [2, 3]}))
    assert model.inputs[0].shape == (2, 3)


def test_an_input_with_a_default_may_be_left_out(tmp_path: Path) -> None:
    tensor: Tensor = ("fp32", (2,))
    steps: list[Step] = [("add", {"x": Var("x"), "y": Var("bias")}, {"y": tensor})]
    package = Package({"x": tensor, "bias": tensor}, steps, ["y"], {"bias": {"optional": True, "shape": [2], "floatDefaultValue": 0.5}})
    model = load(package.save(tmp_path / "bias.mlpackage"))
    assert [one.optional for one in model.inputs] == [False, True]
    x = np.float32([1, 2])
    assert model.infer({"x": x})["y"].tolist() == [1.5, 2.5]
    assert model.infer({"x": x, "bias": x})["y"].tolist() == [2, 4]


def test_an_image_is_a_tensor_whose_layout_is_told(tmp_path: Path) -> None:
    sizes = {"widthRange": {"lowerBound": 4, "upperBound": 8}, "heightRange": {"lowerBound": 4, "upperBound": 8}}
    image = {"image": {"width": 4, "height": 4, "colorSpace": 30, "imageSizeRange": sizes}}
    model = load(double(tmp_path, image, ("fp32", (1, 3, -1, -1))))
    assert model.session.settings["images"] == {"x": {"layout": "NCHW", "colors": "BGR", "range": [0, 255]}}
    assert model(np.ones((1, 3, 8, 4), np.float32))["y"].shape == (1, 3, 8, 4)
    with pytest.raises(errors.ShapeMismatch, match="dimension 2: expected 4 to 8, got 9"):
        model(np.ones((1, 3, 9, 4), np.float32))


def test_a_model_in_halves_stays_in_halves(tmp_path: Path) -> None:
    half: Tensor = ("fp16", (2, 3))
    weight = Blob(np.float16([[0.1, 0.2, 0.3]]))
    steps: list[Step] = [("add", {"x": Var("x"), "y": weight}, {"sum": half}), ("silu", {"x": Var("sum")}, {"y": half})]
    model = load(Package({"x": half}, steps, ["y"]).save(tmp_path / "half.mlpackage"))
    x = np.float16([[1, -2, 3], [0, 0.5, -0.25]])
    total = x.astype(np.float32) + weight.elements
    got = model(x)["y"]
    assert got.dtype == np.float16
    np.testing.assert_allclose(got, total / (1 + np.exp(-total)), atol=2e-3)


# What it refuses


def test_the_first_operation_without_a_translation_is_named_with_its_place(tmp_path: Path) -> None:
    steps = [*DOUBLE, ("warp", {"x": Var("y")}, {"bent": ROW}), ("weave", {"x": Var("bent")}, {"woven": ROW})]
    with pytest.raises(errors.NotOffered, match=r"operation 'warp' at main/1 \('bent'\) \(one of 2 kinds: warp, weave\)") as refused:
        load(Package({"x": ROW}, steps, ["woven"]).save(tmp_path / "warp.mlpackage"))
    assert refused.value.details["operation"] == "warp"
    assert refused.value.details["location"] == "main/1"
    assert refused.value.details["operations"] == ["warp", "weave"]
    inner = ({}, [("warp", {"x": Var("x")}, {"bent": ROW})], ["bent"])
    with pytest.raises(errors.NotOffered, match=r"operation 'warp' at main/0\.1/0"):
        load(Package({"x": ROW}, [("cond", {"pred": True, "blocks": [({}, [], ["x"]), inner]}, {"y": ROW})], ["y"]).save(tmp_path / "inner.mlpackage"))


WITHOUT: dict[str, tuple[Step, str]] = {
    "mode": (("pad", {"x": Var("x"), "pad": [1, 1], "mode": "wrap"}, {"y": ROW}), "mode 'wrap'"),
    "even window": (("local_response_norm", {"x": Var("x"), "size": 2}, {"y": ROW}), "an even number"),
    "not constant": (("transpose", {"x": Var("x"), "perm": Var("x")}, {"y": ROW}), "input 'perm' is not a constant"),
    "placed samples": (("resize_bilinear", {"x": Var("x"), "sampling_mode": "OFFSET_CORNERS"}, {"y": ROW}), "OFFSET_CORNERS"),
    "halves of a cell": (("cast", {"x": Var("x"), "dtype": "fp8"}, {"y": ROW}), "dtype 'fp8'"),
}


@pytest.mark.parametrize("name", WITHOUT)
def test_what_onnx_does_not_say_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    step, reason = WITHOUT[name]
    with pytest.raises(errors.NotOffered, match=f"'{step[0]}' at main/0 .*{reason}") as refused:
        load(Package({"x": ROW}, [step], ["y"]).save(tmp_path / "model.mlpackage"))
    assert refused.value.details["operation"] == step[0]


@pytest.mark.parametrize("kind", ["neuralNetwork", "neuralNetworkClassifier", "treeEnsembleRegressor", "pipeline", "glmClassifier"])
def test_a_model_that_is_no_program_is_refused_by_its_kind(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "old.mlmodel"
    file.write_bytes(schema.messages(schema.CORE_ML)["Model"](specificationVersion=4, **{kind: b"\x0a\x00"}).SerializeToString())
    with pytest.raises(errors.NotOffered, match=f"of the kind {kind} \\(specification 4\\)") as refused:
        load(file)
    assert refused.value.details["kind"] == kind


def test_a_model_with_a_memory_is_refused(tmp_path: Path) -> None:
    folder = double(tmp_path)
    message = schema.messages(schema.CORE_ML)["Model"].FromString((folder / MODEL).read_bytes())
    message.mlProgram.functions[0].value.inputs.add(name="cache").type.stateType = b"\x0a\x00"
    (folder / MODEL).write_bytes(message.SerializeToString())
    with pytest.raises(errors.NotOffered, match="input 'cache' is of type state"):
        load(folder)


# Bad input


def weighted(folder: Path) -> Path:
    """``y = x + w`` with `w` in the weight file."""
    steps: list[Step] = [("add", {"x": Var("x"), "y": Blob(np.ones((2, 3), np.float32))}, {"y": ("fp32", (2, 3))})]
    return Package({"x": ("fp32", (2, 3))}, steps, ["y"]).save(folder / "weighted.mlpackage")


def edited(folder: Path, edit: Callable[[Any], None]) -> Path:
    """The same with its message changed."""
    path = weighted(folder)
    message = schema.messages(schema.CORE_ML)["Model"].FromString((path / MODEL).read_bytes())
    edit(message.mlProgram.functions[0].value.blocks[0].value.operations[0].inputs[1].value.arguments[0].value)
    (path / MODEL).write_bytes(message.SerializeToString())
    return path


def _shape(*dims: int) -> Callable[[Any], None]:
    def edit(value: Any) -> None:
        del value.type.tensorType.dimensions[:]
        for dim in dims:
            value.type.tensorType.dimensions.add().constant.size = dim

    return edit


def _name(name: str) -> Callable[[Any], None]:
    return lambda value: setattr(value.blobFileValue, "fileName", name)


def _offset(offset: int) -> Callable[[Any], None]:
    return lambda value: setattr(value.blobFileValue, "offset", offset)


def _kind(kind: int) -> Callable[[Any], None]:
    return lambda value: setattr(value.type.tensorType, "dataType", kind)


WRONG: dict[str, tuple[Callable[[Any], None], str]] = {
    "outside": (_name("@model_path/../../../../secret"), "lies outside the package"),
    "absolute": (_name("/etc/passwd"), "expected the name of a file in the package"),
    "beyond": (_offset(1 << 40), "expected 24 bytes at"),
    "in between": (_offset(65), "expected a weight's record at 65"),
    "another type": (_kind(10), "expected weights of fp16, got fp32"),
    "another shape": (_shape(5, 5), r"expected 100 bytes of fp32 \[5, 5\]"),
    "huge": (_shape(1 << 30, 1 << 30), "constants of at most"),
    "no size": (_shape(1 << 40), r"dimensions below 2\^31"),
    "many dimensions": (_shape(*[1] * 65), "at most 64 dimensions"),
}


@pytest.mark.parametrize("name", WRONG)
def test_weights_that_are_not_what_the_program_says_are_refused(tmp_path: Path, name: str) -> None:
    edit, reason = WRONG[name]
    with pytest.raises((errors.InvalidModel, errors.NotOffered), match=reason):
        load(edited(tmp_path, edit))


def test_weights_beside_the_package_are_never_opened(tmp_path: Path) -> None:
    folder = weighted(tmp_path)
    shutil.move(folder / WEIGHTS, tmp_path / "secret.bin")
    (folder / WEIGHTS).symlink_to(tmp_path / "secret.bin")
    with pytest.raises(errors.InvalidModel, match="lies outside the package"):
        load(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(errors.FileNotFound, match=r"no file 'weight\.bin'"):
        load(folder)
    whole = (tmp_path / "secret.bin").read_bytes()
    for raw, reason in ((b"", "got a file of 0"), (whole[:80], "expected 24 bytes at 64"), (whole[:130], "expected 24 bytes at 128")):
        (folder / WEIGHTS).write_bytes(raw)
        with pytest.raises(errors.InvalidModel, match=reason):
            load(folder)
    (folder / WEIGHTS).write_bytes(struct.pack("<II", 0, 1) + whole[8:])
    with pytest.raises(errors.NotOffered, match="weights of version 1"):
        load(folder)


MANIFESTS: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "expected JSON"),
    "nested": ("[" * 200_000, "at most 500 objects and lists"),
    "no root": ({}, "rootModelIdentifier"),
    "no item": ({"rootModelIdentifier": "a", "itemInfoEntries": {}}, "rootModelIdentifier"),
    "no text": ({"rootModelIdentifier": "a", "itemInfoEntries": {"a": {"path": 7}}}, "as a text"),
    "outside": ({"rootModelIdentifier": "a", "itemInfoEntries": {"a": {"path": "../../secret"}}}, "outside the package"),
    "absent": ({"rootModelIdentifier": "a", "itemInfoEntries": {"a": {"path": "none.mlmodel"}}}, "no file 'none.mlmodel'"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_leads_nowhere_is_refused(tmp_path: Path, name: str) -> None:
    told, reason = MANIFESTS[name]
    folder = double(tmp_path)
    (folder / "Manifest.json").write_text(told if isinstance(told, str) else json.dumps(told))
    with pytest.raises((errors.InvalidModel, errors.FileNotFound), match=reason) as refused:
        load(folder)
    assert str(tmp_path) not in str(refused.value)


def test_a_program_that_refers_to_nothing_is_refused(tmp_path: Path) -> None:
    steps: list[Step] = [("mul", {"x": Var("z"), "y": 2.0}, {"y": ROW})]
    for package, reason in (
        (Package({"x": ROW}, steps, ["y"]), "nothing before it is called 'z'"),
        (Package({"x": ROW}, [("mul", {"x": Var("x")}, {"y": ROW})], ["y"]), "expected an input 'y'"),
        (Package({"x": ROW}, DOUBLE, ["z"]), "output 'z'"),
        (Package({"x": ROW}, DOUBLE, []), "expected outputs"),
        (Package({"x": ROW}, [("split", {"x": Var("x"), "axis": 7, "num_splits": 1}, {"y": ROW})], ["y"]), "expected an axis of 2, got 7"),
        (Package({"x": ROW}, [("relu", {"x": Var("x")}, {"y": ROW, "z": ROW})], ["y"]), "expected 1 outputs, got 2"),
    ):
        with pytest.raises(errors.InvalidModel, match=reason):
            load(package.save(tmp_path / "model.mlpackage"))


#: Loads each of the packages that are given, and says what became of it.
LOADS = """
import logging, sys, nnrp
logging.disable()
for file in sys.argv[1:]:
    try:
        nnrp.load(file, runtime="coreml")
        print("loaded")
    except nnrp.NnrpError as error:
        print(error.reason)
"""


def test_cut_off_and_changed_packages_are_typed_errors(tmp_path: Path) -> None:
    whole = (PITCH / MODEL).read_bytes()
    random = np.random.default_rng(11)
    folders = []
    for index, size in enumerate(np.linspace(0, len(whole) - 1, 40, dtype=int)):
        folder = tmp_path / f"{index}.mlpackage"
        shutil.copytree(PITCH, folder)
        changed = bytearray(whole)
        changed[random.integers(len(whole))] ^= 1 << random.integers(8)
        (folder / MODEL).write_bytes(whole[:size] if index % 2 else changed)
        folders.append(folder)
    done = subprocess.run([sys.executable, "-c", LOADS, *map(str, folders)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.split()
    assert len(said) == len(folders)
    assert set(said) <= {"loaded", "INVALID_MODEL", "NOT_OFFERED", "INVALID_OPTION"}
    assert set(said[1::2]) == {"INVALID_MODEL"}


def test_it_keeps_the_contract() -> None:
    report = check_runtime("coreml")
    assert not report.failures, report.failures


@pytest.mark.parametrize(
    "step",
    [
        ("layer_norm", {"x": Var("x"), "axes": [1]}, {"y": ("fp32", (2, 1 << 30))}),
        ("instance_norm", {"x": Var("x")}, {"y": ("fp32", (2, 1 << 30))}),
        ("sliding_windows", {"x": Var("x"), "axis": 1, "size": 1 << 20}, {"y": ("fp32", (2, 1 << 11, 1 << 20))}),
        ("transpose", {"x": Var("x"), "perm": Blob(np.zeros(1 << 17, np.int32))}, {"y": ("fp32", (2, 1 << 30))}),
    ],
    ids=lambda step: step[0],
)
def test_a_small_file_does_not_ask_for_much_memory(tmp_path: Path, step: Step) -> None:
    with pytest.raises((errors.NotOffered, errors.InvalidModel), match=r"constants of at most|at most 65536 numbers"):
        load(Package({"x": ("fp32", (2, 1 << 30))}, [step], ["y"]).save(tmp_path / "huge.mlpackage"))


def test_names_that_repeat_are_told_apart(tmp_path: Path) -> None:
    names = ["a" + ".1" * count for count in range(2000)]
    steps: list[Step] = [("relu", {"x": Var("x")}, {name: ROW}) for name in [*names, "a", "y"]]
    assert load(Package({"x": ROW}, steps, ["y"]).save(tmp_path / "names.mlpackage"))(np.float32([[1, -1, 2]]))["y"].tolist() == [[1, 0, 2]]
