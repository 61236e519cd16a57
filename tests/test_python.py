"""The Python form, in process: calling, what is refused, engines, and the package itself."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zoo

import nnrp
from nnrp import errors

X = np.array([[1, 2, 3, 4]], np.float32)
DOUBLED = [[2, 4, 6, 8]]


# Calling


def test_a_model_is_called_by_position_by_name_and_with_a_mapping(models: Path) -> None:
    model = nnrp.load(zoo.two_by_two(models / "two.onnx"))
    a, b = np.array([2], np.int32), np.array([5], np.int32)

    for answer in (model(a, b), model(a, b=b), model(b=b, a=a), model.infer({"b": b, "a": a})):
        assert list(answer) == ["sum", "product"]
        assert (answer["sum"].item(), answer["product"].item()) == (7, 10)


def test_outputs_come_in_the_order_asked_for(models: Path) -> None:
    model = nnrp.load(zoo.two_by_two(models / "two.onnx"))
    inputs = {"a": np.array([2], np.int32), "b": np.array([5], np.int32)}

    assert list(model.infer(inputs, ["product", "sum"])) == ["product", "sum"]
    assert list(model.infer(inputs, outputs=["sum"])) == ["sum"]


def test_none_leaves_an_optional_input_out(models: Path) -> None:
    model = nnrp.load(zoo.optional_bias(models / "optional.onnx"))
    x = np.array([1, 2], np.float32)

    assert [spec.optional for spec in model.inputs] == [False, True]
    assert model(x)["y"].tolist() == model(x, None)["y"].tolist() == model(x, bias=None)["y"].tolist() == [11, 12]
    assert model(x, np.array([1], np.float32))["y"].tolist() == [2, 3]


def test_a_model_tells_what_it_is(double: nnrp.Model) -> None:
    assert (double.name, double.version) == ("double", "1")
    assert double.inputs == (nnrp.TensorSpec("x", "FP32", (-1, 4)),)
    assert double.outputs == (nnrp.TensorSpec("y", "FP32", (-1, 4)),)
    assert double.metadata()["platform"] == "onnxruntime_onnx"
    assert double.session is not None
    assert (double.session.runtime, double.session.device, double.session.exclusive) == ("onnxruntime", "cpu", False)
    assert repr(double) == "<nnrp.Model double version 1 (x: FP32[-1, 4]) → (y: FP32[-1, 4]), in process>"
    with pytest.raises(AttributeError):
        double.name = "other"  # type: ignore[misc]


def test_statistics_count_answers_and_failures_by_reason(double: nnrp.Model) -> None:
    for _ in range(5):
        double(X)
    with pytest.raises(errors.ShapeMismatch):
        double(X[0])

    told = double.statistics()

    assert told["success_count"] == 5
    assert told["failures"] == {"SHAPE_MISMATCH": 1}
    assert 0 < told["run_ns"] <= told["total_ns"]


# What is refused


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda model: model(), errors.MissingInput),
        (lambda model: model(X, X), errors.UnknownInput),
        (lambda model: model(X, x=X), errors.DuplicateInput),
        (lambda model: model(x=X, z=X), errors.UnknownInput),
        (lambda model: model(X.astype(np.float64)), errors.DatatypeMismatch),
        (lambda model: model(X.astype(">f8")), errors.DatatypeMismatch),
        (lambda model: model(X.astype(np.complex64)), errors.DatatypeMismatch),
        (lambda model: model(np.array([["a"] * 4])), errors.DatatypeMismatch),
        (lambda model: model(object()), errors.DatatypeMismatch),
        (lambda model: model({"x": X}), errors.DatatypeMismatch),
        (lambda model: model(np.array([[None] * 4])), errors.DatatypeMismatch),
        (lambda model: model(X[0]), errors.ShapeMismatch),
        (lambda model: model(X[:, :3]), errors.ShapeMismatch),
        (lambda model: model([[1, 2], [3]]), errors.ShapeMismatch),
        (lambda model: model.infer({"x": X}, ["z"]), errors.UnknownOutput),
        (lambda model: model.infer({"x": X}, ["y", "y"]), errors.DuplicateOutput),
        (lambda model: model.infer({"x": X}, timeout=-1), errors.InvalidParameter),
        (lambda model: model.infer({"x": X}, timeout=float("nan")), errors.InvalidParameter),
    ],
)
def test_a_request_that_does_not_fit_is_refused_by_its_own_class(double: nnrp.Model, call: Callable[[nnrp.Model], Any], kind: type[nnrp.NnrpError]) -> None:
    with pytest.raises(kind) as raised:
        call(double)
    assert type(raised.value) is kind
    assert isinstance(raised.value, ValueError)
    assert double(X)["y"].tolist() == DOUBLED


def test_an_error_says_where_expected_and_got_and_knows_the_request(double: nnrp.Model) -> None:
    with pytest.raises(errors.ShapeMismatch) as raised:
        double.infer({"x": X[0]}, id="r-7")
    error = raised.value
    assert (error.code, error.reason, error.retryable, error.request_id) == ("INVALID_ARGUMENT", "SHAPE_MISMATCH", False, "r-7")
    assert error.message == str(error) == "input 'x': expected shape [-1, 4], got [4]"
    assert error.details == {"input": "x", "expected": [-1, 4], "got": [4]}
    assert pickle.loads(pickle.dumps(error)).details == error.details


def test_parameters_are_bool_int_float_or_str(double: nnrp.Model) -> None:
    assert double.infer({"x": X}, parameters={"a": True, "b": 1, "c": 1 << 63, "d": 0.5, "e": "s"})["y"].tolist() == DOUBLED
    with pytest.raises(nnrp.InvalidArgument, match="expected a boolean, a number or a text, got list"):
        double.infer({"x": X}, parameters={"a": [1]})  # type: ignore[dict-item]


def test_a_reason_that_is_not_in_the_table_becomes_its_codes_class() -> None:
    error = errors.from_core("UNAVAILABLE", "ON_HOLIDAY", "later", "{}")
    assert type(error) is errors.Unavailable
    assert (error.reason, error.retryable) == ("ON_HOLIDAY", True)


@pytest.mark.parametrize(
    ("content", "options", "kind"),
    [
        (None, None, FileNotFoundError),
        (b"", None, errors.InvalidModel),
        (b"not a model at all", None, errors.InvalidModel),
        ("double", {"no_such_option": 1}, errors.UnknownOption),
        ("double", {"intra_op_num_threads": "many"}, errors.InvalidOption),
        ("double", {"x": object()}, errors.InvalidOption),
        ("double", {"x": float("nan")}, errors.InvalidOption),
    ],
)
def test_a_model_that_cannot_be_loaded_says_why_and_not_where(tmp_path: Path, double_file: Path, content: Any, options: Any, kind: type[Exception]) -> None:
    file = tmp_path / "secret-place.onnx"
    if content is not None:
        file.write_bytes(double_file.read_bytes() if content == "double" else content)
    with pytest.raises(kind) as raised:
        nnrp.load(file, options=options)
    assert isinstance(raised.value, nnrp.NnrpError)
    if content is not None:
        assert str(tmp_path) not in raised.value.message


def test_models_engines_and_tensors_are_not_pickled_or_copied(double: nnrp.Model) -> None:
    for thing in (double, double.engine, nnrp.Tensor("UINT8", [1], b"a")):
        for attempt in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError, match=r"cannot pickle|cannot be pickled"):
                attempt(thing)


# Engines


def test_an_engine_holds_versions_and_answers_with_the_latest(models: Path) -> None:
    engine = nnrp.Engine()
    for version, factor in (("2", 2.0), ("10", 10.0), ("9", 9.0)):
        engine.load(zoo.scale(models / f"by{version}.onnx", factor), name="scale", version=version)

    assert [(model.name, model.version) for model in engine.models()] == [("scale", "2"), ("scale", "9"), ("scale", "10")]
    assert engine.model("scale").version == "10"
    assert engine.infer("scale", {"x": X})["y"].tolist() == [[10, 20, 30, 40]]
    assert engine.infer("scale", {"x": X}, ["y"], version="2")["y"].tolist() == DOUBLED
    with pytest.raises(errors.ModelExists):
        engine.load(models / "by2.onnx", name="scale", version="2")
    latest = engine.model("scale")
    engine.unload("scale", "10")
    assert engine.model("scale").version == "9"
    assert engine.infer("scale", {"x": [[1, 2, 3, 4]]}, id="i", timeout=60)["y"].tolist() == [[9, 18, 27, 36]]
    with pytest.raises(errors.VersionNotFound):
        latest(X)
    engine.unload("scale")
    for ask in (engine.model, lambda name: engine.infer(name, {"x": X})):
        with pytest.raises(errors.ModelNotFound):
            ask("scale")


def test_a_draining_engine_takes_nothing_new(double: nnrp.Model) -> None:
    assert double.engine is not None
    double.engine.drain()
    assert not double.engine.ready
    with pytest.raises(errors.Draining) as raised:
        double(X)
    assert raised.value.retryable


def test_a_folder_with_one_version_is_loaded_by_its_name(tmp_path: Path) -> None:
    for version, factor in (("1", 1.0), ("2", 2.0)):
        zoo.scale(tmp_path / "scale" / version / "model.onnx", factor)
    with pytest.raises(errors.InvalidOption, match="one model version, got 2"):
        nnrp.load(tmp_path / "scale")
    with pytest.raises(errors.VersionNotFound, match="no version '3': expected one of 1, 2"):
        nnrp.load(tmp_path / "scale", version="3")
    model = nnrp.load(tmp_path / "scale", version="2")
    assert (model.name, model.version, model(X)["y"].tolist()) == ("scale", "2", DOUBLED)


def test_a_model_file_is_told_about_without_loading_it(double_file: Path) -> None:
    told = nnrp.inspect(double_file)
    assert told["format"] == "onnx"
    assert [spec["name"] for spec in told["signature"]["inputs"]] == ["x"]


# The package


def test_importing_the_package_loads_no_runtime_and_no_numpy() -> None:
    code = "import sys, nnrp; nnrp.Engine(); nnrp.serve; print({'numpy', 'onnxruntime', 'onnx', 'asyncio'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_every_public_name_has_a_docstring_that_says_what_it_gives() -> None:
    for name in nnrp.__all__:
        thing = getattr(nnrp, name)
        if callable(thing):
            assert thing.__doc__, name
            for method, value in vars(thing).items() if isinstance(thing, type) else ():
                if callable(value) and not method.startswith("_"):
                    assert value.__doc__, f"{name}.{method}"


def test_the_stubs_name_what_the_module_has() -> None:
    import ast

    from nnrp import _nnrp

    tree = ast.parse(Path(_nnrp.__file__).with_name("_nnrp.pyi").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            told = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
            kind = getattr(_nnrp, node.name)
            has = {name for name in vars(kind) if name in {"__new__", "__call__"} or not name.startswith("__")}
            assert told == has, node.name
