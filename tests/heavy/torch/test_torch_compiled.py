"""Packages of AOTInductor, which compute garbage from what does not fit them: here that never reaches them."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch._inductor

import nnrp
from nnrp import errors
from nnrp.testing import check_runtime, zoo
from nnrp.testing.formats.torch import write_aotinductor

QUIRKS = {"leaks.loads": "PyTorch leaves 0.3 MB of each package that was loaded behind"}
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor compiles with g++, which is not here")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The suite's 2x + 1 over FP32 [n], compiled, and what goes with it."""
    return dict(write_aotinductor(zoo.graph("affine"), tmp_path_factory.mktemp("aoti")))


def test_machine_code_is_refused_unless_it_is_allowed(package: dict[str, Any]) -> None:
    for said in ({}, {key: package[key] for key in ("inputs", "outputs")}):
        with pytest.raises(errors.InvalidModel, match="allow_code"):
            nnrp.load(package["path"], **said)
    with pytest.raises(errors.InvalidOption, match="model description: inputs"):
        nnrp.load(package["path"], options={"allow_code": True})


def test_a_package_answers_right_and_what_does_not_fit_never_reaches_it(package: dict[str, Any]) -> None:
    model = nnrp.load(**package)
    assert model.session.settings["kind"] == "aotinductor"
    for rows in (2, 3, 64, 2):
        x = np.random.default_rng(rows).random(rows, np.float32)
        np.testing.assert_allclose(model(x)["y"], 2 * x + 1, rtol=1e-6)
    bad: dict[str, Any] = {
        "DATATYPE_MISMATCH": {"x": np.ones(2)},
        "SHAPE_MISMATCH": {"x": np.ones((2, 4), np.float32)},
        "MISSING_INPUT": {},
        "UNKNOWN_INPUT": {"z": np.ones(2, np.float32)},
    }
    for reason, inputs in bad.items():
        with pytest.raises(errors.InvalidArgument) as refused:
            model.infer(inputs)
        assert refused.value.reason == reason
    np.testing.assert_allclose(model(x)["y"], 2 * x + 1, rtol=1e-6)


def test_a_description_that_is_wrong_is_found_by_the_packages_own_checks(package: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidOption, match=r"inputs\['x'\]: the package says: unmatched dtype"):
        nnrp.load(**package | {"inputs": {"x": {"datatype": "FP64", "shape": [-1]}}})
    for wrong in ({"datatype": "FP64", "shape": [-1]}, {"datatype": "FP32", "shape": [-1, 4]}):
        with pytest.raises(errors.InvalidOption, match=r"outputs\['y'\]: expected what the package gives, FP32 of rank 1"):
            nnrp.load(**package | {"outputs": {"y": wrong}})
    with pytest.raises(errors.InvalidOption, match="inputs: expected 1, as many as the package has, got 2"):
        nnrp.load(**package | {"inputs": {"x": {"datatype": "FP32"}, "y": {"datatype": "FP32"}}})
    for option in ({"threads": 2}, {"model": "other"}):
        with pytest.raises(errors.InvalidOption, match=next(iter(option))):
            nnrp.load(**package | {"options": package["options"] | option})
    with pytest.raises(errors.NotOffered):
        nnrp.load(**package, precision="bf16")


def test_a_size_that_it_was_not_compiled_for_is_refused_unless_the_checks_are_off(package: dict[str, Any]) -> None:
    one = np.ones(1, np.float32)
    with pytest.raises(errors.RunFailed, match="expected it to be >= 2"):
        nnrp.load(**package)(one)
    assert nnrp.load(**package | {"options": package["options"] | {"check_sizes": False}})(one)["y"].tolist() == [3]
    with pytest.raises(errors.RunFailed, match="expected it to be >= 2"):
        nnrp.load(**package)(one)


def test_an_input_is_not_written_to_and_an_answer_is_nobody_elses(package: dict[str, Any]) -> None:
    model = nnrp.load(**package)
    x = np.ones(80_000, np.float32)
    first = model(x)["y"]
    first[:] = 7
    assert (x == 1).all()
    assert (model(x)["y"] == 3).all()


def test_a_package_with_a_memory_begins_where_it_was_compiled_and_loses_nothing(tmp_path: Path) -> None:
    class Sum(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("sum", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.sum.add_(1)
            return x + self.sum

    path = torch._inductor.aoti_compile_and_package(torch.export.export(Sum(), (torch.zeros(1),)), package_path=str(tmp_path / "sum.pt2"))
    ports = {name: {name: {"datatype": "FP32", "shape": [1]}} for name in "xy"}
    model = nnrp.load(path, inputs=ports["x"], outputs=ports["y"], options={"allow_code": True})
    with ThreadPoolExecutor(4) as pool:
        answers = [float(one["y"][0]) for one in pool.map(lambda _: model(np.zeros(1, np.float32)), range(40))]
    assert sorted(answers) == list(range(1, 41))
    with pytest.raises(errors.NotOffered):
        model.session.warm_up()


def test_four_threads_at_once_get_their_own_answers(package: dict[str, Any]) -> None:
    model = nnrp.load(**package)

    def wrong(thread: int) -> int:
        xs = (np.full(2 + turn % 5, 1000 * thread + turn, np.float32) for turn in range(60))
        return sum(not np.array_equal(model(x)["y"], 2 * x + 1) for x in xs)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(wrong, range(4))) == 0


def test_what_the_suite_asks_of_one_model_holds(package: dict[str, Any]) -> None:
    only = ["contract", "requests", "concurrency", "leaks", "numerics.affine", "shapes.growing"]
    package = package | {"options": package["options"] | {"check_sizes": False}}
    report = check_runtime("torch", models={"affine": package}, only=only, loads=20, quirks=QUIRKS, isolate=True)
    assert report.passed, report.table()
    assert {one.id for one in report.outcomes if one.verdict == "quirk"} == QUIRKS.keys(), report.table()
