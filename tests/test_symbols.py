"""Open dimensions of one name have one size, on every runtime (spec §7.10)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zoo

import nnrp
from nnrp import errors

A, B = np.ones((2, 3), np.float32), np.ones((4, 5), np.float32)


RUNTIMES = [("onnxruntime", "none"), ("openvino", "none"), ("tract", "none"), ("reference", "none"), ("tract", "process"), ("openvino", "process")]


@pytest.mark.parametrize(("runtime", "isolation"), RUNTIMES)
def test_a_symbol_of_two_sizes_is_refused_before_the_runtime_sees_it(runtime: str, isolation: nnrp.engine.Isolation, tmp_path: Path) -> None:
    model = nnrp.load(zoo.product(tmp_path / "product.onnx"), runtime=runtime, isolation=isolation)
    with pytest.raises(errors.ShapeMismatch) as refused:
        model(A, B)
    assert refused.value.details == {"symbol": "k", "inputs": ["a", "b"], "dimensions": [1, 0], "got": [3, 4]}
    assert "input 'a'" in refused.value.message
    assert "input 'b'" in refused.value.message
    assert model.statistics()["success_count"] == 0
    assert (model(A, B[:3])["y"] == 3).all()


def test_what_a_runtime_fixes_or_the_description_names_is_not_the_files(tmp_path: Path) -> None:
    file = zoo.product(tmp_path / "product.onnx")
    fixed = nnrp.load(file, runtime="tract", options={"shapes": {"a": [2, 3]}})
    with pytest.raises(errors.ShapeMismatch, match="input 'a'"):
        fixed(B, A)
    named = nnrp.load(file, runtime="reference", inputs={"a": {"shape": ["m", "other"]}})
    with pytest.raises(errors.RunFailed):
        named(A, B)


def test_a_file_whose_names_are_wrong_can_be_loaded_without_them(tmp_path: Path) -> None:
    file = zoo.two_by_two(tmp_path / "two.onnx")
    one, three = np.array([2], np.int32), np.array([1, 2, 3], np.int32)
    with pytest.raises(errors.ShapeMismatch):
        nnrp.load(file)(one, three)
    assert nnrp.load(file, symbols="free")(one, three)["sum"].tolist() == [3, 4, 5]


def test_a_rule_that_is_none_is_refused(tmp_path: Path) -> None:
    load: Callable[..., nnrp.Model] = nnrp.load
    with pytest.raises(errors.InvalidOption, match="`equal` or `free`"):
        load(zoo.two_by_two(tmp_path / "two.onnx"), symbols="some")
