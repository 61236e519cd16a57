"""One description of a model: what callers see in place of what a runtime tells (spec §6.6), on every light runtime."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lite
import numpy as np
import pytest
import zoo

import nnrp
from nnrp.errors import InvalidOption, RunFailed, ShapeMismatch, ValueOutOfRange
from nnrp.runtimes import ModelSpec, declared

X = np.float32([[1, 2, 3, 4]])


def package(name: str) -> Path:
    """The folder of a package that is there for its model files, and is not imported."""
    spec = find_spec(name)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


PITCH = package("basic_pitch") / "saved_models/icassp_2022"
#: What each format of the one network calls the maps.
SIGNED = {"contour": "contour", "note": "note", "onset": "onset"}
LOST = {"StatefulPartitionedCall:0": "contour", "StatefulPartitionedCall:1": "note", "StatefulPartitionedCall:2": "onset"}


def settings(model: nnrp.Model) -> dict[str, Any]:
    assert model.session is not None
    return model.session.settings


@pytest.mark.parametrize(
    ("file", "runtime", "outputs"),
    [
        ("nmp.onnx", "onnxruntime", LOST),
        ("nmp.onnx", "openvino", ["onset", "note", "contour"]),
        ("nmp.onnx", "tract", LOST),
        ("nmp.tflite", "litert", SIGNED),
        ("nmp.tflite", "openvino", LOST),
        ("nmp", "openvino", SIGNED),
    ],
)
def test_one_unchanged_script_reads_the_same_network_in_every_format(file: str, runtime: str, outputs: Any) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(43844, dtype=np.float32) / 22050).astype(np.float32).reshape(1, -1, 1)

    model = nnrp.load(PITCH / file, runtime=runtime, inputs=[{"name": "sound", "shape": [1, 43844, 1]}], outputs=outputs)
    maps = model(sound=tone)

    assert [spec.name for spec in model.inputs] == ["sound"]
    assert model.inputs[0].shape == (1, 43844, 1)
    assert maps.keys() == {"contour", "note", "onset"}
    assert maps["note"].shape == (1, 172, 88)
    assert maps["note"][0].mean(axis=0).argmax() + 21 == 69
    reference = nnrp.load(PITCH / "nmp.onnx", runtime="onnxruntime", outputs=LOST)(tone)
    for name, values in maps.items():
        # The last step is a logarithm of almost nothing: optimised runtimes agree to 1e-6, this is what they have in common with the rest.
        assert np.abs(values - reference[name]).max() < 2e-3, name


@pytest.fixture(scope="module")
def files(models: Path) -> dict[str, Path]:
    """``y = 2 x`` over FP32 [batch, 4], in the formats of the light runtimes."""
    onnx = zoo.scale(models / "renamed.onnx", 2.0)
    return dict.fromkeys(("onnxruntime", "openvino", "tract", "reference"), onnx) | {"litert": lite.scale(models / "renamed.tflite", [-1, 4], {"serve": 2.0})}


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "tract", "reference", "litert"])
def test_names_and_bounds_hold_on_every_light_runtime(files: dict[str, Path], runtime: str) -> None:
    shape = [{"min": 1, "max": 2, "name": "rows"}, 4]
    model = nnrp.load(files[runtime], runtime=runtime, inputs=[{"name": "given", "shape": shape}], outputs=["taken"])

    assert np.array_equal(model(given=X)["taken"], X * 2)
    with pytest.raises(ShapeMismatch, match=r"input 'given': dimension 0: expected 1 to 2, got 3"):
        model(np.repeat(X, 3, axis=0))
    assert settings(model)["overrides"]["inputs"]["given"]["shape"] == [-1, 4]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "tract", "reference", "litert"])
def test_a_contradiction_is_the_same_error_on_every_light_runtime(files: dict[str, Path], runtime: str) -> None:
    with pytest.raises(InvalidOption) as raised:
        nnrp.load(files[runtime], runtime=runtime, inputs=[{"shape": ["rows", 5]}])
    assert raised.value.details == {"path": "inputs[0].shape[1]", "expected": "4, as the runtime tells", "got": "5"}


def test_a_function_of_a_module_and_a_model_elsewhere_are_renamed_like_any_other(double_file: Path) -> None:
    declared = {"inputs": {"x": ["FP32", [-1]]}, "outputs": {"y": ["FP32", [-1]]}}
    negative = nnrp.load("numpy:negative", runtime="callable", options=declared, inputs=["a"], outputs=["b"])
    assert negative(a=X[0])["b"].tolist() == [-1, -2, -3, -4]
    with nnrp.serve(double_file, http_port=0, grpc_port=0) as server:
        there = nnrp.load(f"{server.http_url}/double", inputs=["a"], outputs=["b"])
        assert there(a=X)["b"].tolist() == [[2, 4, 6, 8]]


def test_what_is_described_is_what_every_form_tells(double_file: Path) -> None:
    with nnrp.serve(double_file, http_port=0, grpc_port=0, inputs=[{"name": "a", "shape": [2, 4]}], outputs=["b"]) as server:
        for url in (server.http_url, server.grpc_url):
            model = nnrp.connect(url, model="double")
            assert [(spec.name, spec.shape) for spec in (*model.inputs, *model.outputs)] == [("a", (2, 4)), ("b", (-1, 4))]
            assert model(a=np.repeat(X, 2, axis=0))["b"].shape == (2, 4)
            with pytest.raises(ShapeMismatch):
                model(a=X)


def test_pixels_go_in_and_come_out_with_channels_last(models: Path) -> None:
    file = zoo.identity(models / "planes.onnx", "UINT8", ["n", 3, "height", "width"])
    picture = np.arange(2 * 5 * 3, dtype=np.uint8).reshape(1, 2, 5, 3)

    there = nnrp.load(file, inputs={"x": {"layout": "NHWC"}})
    back = nnrp.load(file, inputs={"x": {"layout": "NHWC"}}, outputs={"y": {"layout": "NHWC"}})

    assert there.inputs[0].shape == (-1, -1, -1, 3)
    assert np.array_equal(there(picture)["y"], picture.transpose(0, 3, 1, 2))
    assert np.array_equal(back(picture)["y"], picture)


def test_an_int8_model_is_called_with_real_numbers_and_answers_with_them() -> None:
    file = package("pymicro_wakeword") / "models/hey_jarvis.tflite"
    real = {"inputs": {"input_audio": {"as": "FP32", "name": "features"}}, "outputs": {"dense": {"as": "FP32", "name": "likely"}}}
    stored = np.random.default_rng(3).integers(-128, 127, (1, 3, 40)).astype(np.int8)

    whole = nnrp.load(file, runtime="litert")
    model = nnrp.load(file, runtime="litert", **real)

    how = settings(whole)["quantization"]
    scale, zero = np.float32(how["input_audio"]["scales"][0]), how["input_audio"]["zero_points"][0]
    features = scale * (stored.astype(np.float32) - zero)
    likely = model(features=features)["likely"]
    assert (model.inputs[0].datatype, likely.dtype) == ("FP32", np.float32)
    assert np.array_equal(likely, whole(stored)["dense"].astype(np.float32) * np.float32(how["dense"]["scales"][0]))
    with pytest.raises(ValueOutOfRange, match="input 'features': element 0: expected a number, got NaN"):
        model(np.full((1, 3, 40), np.nan, np.float32))


def test_each_answer_of_a_stream_is_as_described() -> None:
    declared = {"inputs": {"n": ("INT32", [1])}, "outputs": {"y": ("FP32", [-1])}}
    model = nnrp.load("test_overrides:growing", runtime="callable", options=declared, inputs=["most"], outputs=[{"name": "row", "shape": [{"max": 2}]}])
    answers = model.stream({"most": np.int32([3])})
    assert [next(answers)["row"].tolist(), next(answers)["row"].tolist()] == [[1], [1, 1]]
    with pytest.raises(RunFailed, match="output 'row': dimension 0: expected 0 to 2, got 3"):
        next(answers)


def growing(n: Any) -> Any:
    """Rows of ones, each longer than the last."""
    for length in range(1, int(n[0]) + 1):
        yield {"y": np.ones(length, np.float32)}


def test_dimensions_of_one_name_agree_across_inputs(models: Path) -> None:
    file = zoo.two_by_two(models / "pairs.onnx")
    model = nnrp.load(file, inputs={"a": {"shape": ["time"]}, "b": {"shape": ["time"]}})
    with pytest.raises(ShapeMismatch, match="symbol 'time', got 2 in dimension 0 of input 'a' and 1 in dimension 0 of input 'b'"):
        model(np.int32([1, 2]), np.int32([1]))
    free = nnrp.load(file, inputs={"a": {"shape": ["left"]}, "b": {"shape": ["right"]}})
    assert free(np.int32([1, 2]), np.int32([3]))["sum"].tolist() == [4, 5]


def test_an_output_that_is_not_as_described_is_the_runtimes_failure(models: Path) -> None:
    file = zoo.identity(models / "open.onnx", "FP32", ["n"])
    model = nnrp.load(file, outputs=[{"shape": [2]}])
    assert model(np.float32([1, 2]))["y"].shape == (2,)
    with pytest.raises(RunFailed, match=r"output 'y': expected shape \[2\], got \[3\]"):
        model(np.float32([1, 2, 3]))


def test_a_mistake_in_a_description_names_its_path(double_file: Path) -> None:
    for said, path in (({"inputs": {"x": {"nam": "a"}}}, "inputs['x'].nam"), ({"labels": {"of": 5}}, "labels.of"), ({"colour": "red"}, "colour")):
        with pytest.raises(InvalidOption) as raised:
            nnrp.Engine().load(double_file, **said)  # type: ignore[typeddict-item]
        assert raised.value.details["path"] == path


class Lost:
    """A runtime whose files tell nothing of their tensors: y = 2x over what the description says."""

    name = "lost"

    def info(self) -> dict[str, Any]:
        return {"version": "1"}

    def load(self, spec: ModelSpec) -> Any:
        session = SimpleNamespace(exclusive=False)
        session.inputs, session.outputs = (declared.ports(self.name, spec, side, ["FP32", "INT8"]) for side in ("inputs", "outputs"))
        session.run = lambda inputs, outputs, control: [array * array.dtype.type(2) for array in inputs.values()]
        return session


@pytest.fixture
def lost(tmp_path: Path) -> Callable[..., nnrp.Model]:
    def load(**said: Any) -> nnrp.Model:
        engine = nnrp.Engine()
        engine.add_runtime(Lost())
        return engine.load(tmp_path / "lost", runtime="lost", **said)

    (tmp_path / "lost").write_text("nothing")
    return load


def test_of_a_file_that_tells_nothing_the_description_says_all(lost: Callable[..., nnrp.Model]) -> None:
    rows = {"datatype": "FP32", "shape": ["rows", 3]}
    named = lost(inputs={"x": rows}, outputs={"y": {"datatype": "FP32"}})
    assert [(spec.name, spec.datatype, spec.shape) for spec in (*named.inputs, *named.outputs)] == [("x", "FP32", (-1, 3)), ("y", "FP32", (-1,))]
    listed = lost(inputs=[rows | {"name": "a"}, {"datatype": "INT8", "shape": []}], outputs=[rows | {"name": "b"}, {"datatype": "INT8", "shape": [1]}])
    assert [spec.name for spec in (*listed.inputs, *listed.outputs)] == ["a", "input_1", "b", "output_1"]
    turned = lost(inputs={"x": {"datatype": "FP32", "shape": [2, 4, 3], "layout": "HWC"}}, outputs={"y": {"datatype": "FP32", "shape": [3, 2, 4]}})
    assert turned.inputs[0].shape == (2, 4, 3)
    x = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    assert np.array_equal(turned(x)["y"], 2 * x.transpose(2, 0, 1))
    real = {"datatype": "INT8", "shape": [-1], "as": "FP32", "scale": 0.5}
    assert lost(inputs={"x": real}, outputs={"y": real})(np.float32([1.5, -2]))["y"].tolist() == [3, -4]


@pytest.mark.parametrize(
    ("said", "path", "expected"),
    [
        ({}, "inputs", "datatype and shape of each"),
        ({"inputs": {"x": {"datatype": "FP32"}}}, "outputs", "datatype and shape of each"),
        ({"inputs": {"x": "y"}}, "inputs['x'].datatype", "a datatype of FP32, INT8, because the file tells none"),
        ({"inputs": {"x": {"datatype": "INT32"}}}, "inputs['x'].datatype", "a datatype of FP32, INT8"),
        ({"inputs": [{"name": "x", "datatype": "FP32"}, {"name": "x", "datatype": "FP32"}]}, "inputs", "datatype and shape of each"),
    ],
)
def test_what_is_missing_of_such_a_file_is_told_with_its_path(lost: Callable[..., nnrp.Model], said: dict[str, Any], path: str, expected: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        lost(**said)
    assert refused.value.details["path"] == path
    assert refused.value.details["expected"].startswith(expected)
