"""PyTorch's formats behind the same calls as ONNX Runtime: what they tell, what must be told, and that nothing of the caller's or the model's is touched."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nets
import numpy as np
import page
import pytest
import torch

import nnrp
from nnrp import errors
from nnrp.testing import check_runtime
from nnrp.testing.streams import STREAMING

STOPPING = {"cancellation.stops", "cancellation.withdrawn", "cancellation.after"}
NO_TYPES = {"datatypes.bytes", "datatypes.int4", "datatypes.uint4"}
ROWS = torch.export.Dim("rows", min=1, max=64)
_ROW = {"datatype": "FP32", "shape": [-1]}
CHOOSY: dict[str, Any] = {"inputs": {"x": _ROW, "bias": _ROW}, "outputs": {"y": _ROW, "times": {"datatype": "INT64", "shape": []}}}
SQUARE = {"y": {"datatype": "FP32", "shape": [100, 100]}}


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear layer over FP32 [rows, 4], exported; a name that ends as another format's."""
    return nets.exported(nets.Linear(), tmp_path_factory.mktemp("torch") / "line.onnx.pt2", torch.zeros(2, 4), dims={"x": {0: ROWS}})


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as TorchScript."""
    return nets.scripted(nets.Linear(), tmp_path_factory.mktemp("torch") / "line.jit")


@pytest.mark.parametrize("writer", ["write", "write_torchscript"])
def test_it_keeps_the_contract(writer: str) -> None:
    report = check_runtime("torch", writer=f"nnrp.testing.formats.torch:{writer}", isolate=True)
    assert report.passed, report.table()
    assert {one.id for one in report.outcomes if one.verdict == "na"} == STOPPING | STREAMING | NO_TYPES, report.table()


def test_an_exported_program_tells_its_signature_and_the_sizes_of_its_dimensions(line: Path) -> None:
    model = nnrp.load(line)
    assert (model.session.runtime, model.session.format) == ("torch", "pt2")
    assert model.inputs == (nnrp.TensorSpec("x", "FP32", (-1, 4)),)
    assert model.outputs == (nnrp.TensorSpec("output", "FP32", (-1, 4)),)
    assert (found := model.session.settings["dimensions"]["x"]["0"]) | {"symbol": ""} == {"symbol": "", "min": 1, "max": 64}, found
    x = np.random.default_rng(0).random((3, 4), np.float32)
    np.testing.assert_array_equal(model(x)["output"], nets.Linear()(torch.from_numpy(x)).detach().numpy())


def test_a_size_beyond_the_exports_is_the_callers_mistake_and_names_the_bounds(line: Path) -> None:
    with pytest.raises(errors.ShapeMismatch, match="dimension 0: expected 1 to 64, got 65"):
        nnrp.load(line)(np.zeros((65, 4), np.float32))


def test_nested_inputs_and_outputs_have_names_and_what_was_fixed_is_no_input(tmp_path: Path) -> None:
    samples = (torch.ones(4, 3), torch.ones(4, 3), "fast", {"scale": torch.ones(4)})
    dims = {"x": {0: ROWS}, "y": {0: ROWS}, "mode": None, "more": {"scale": {0: torch.export.Dim("other", max=9)}}}
    model = nnrp.load(nets.exported(nets.Nested(), tmp_path / "nested.pt2", *samples, dims=dims))
    assert [(spec.name, spec.shape) for spec in model.inputs] == [("x", (-1, 3)), ("y", (-1, 3)), ("more_scale", (-1,))]
    assert [(spec.name, spec.datatype, spec.shape) for spec in model.outputs] == [
        ("sum", "FP32", (-1, 3)),
        ("rows", "INT64", ()),
        ("rest_0", "FP32", (3,)),
        ("rest_1", "FP32", (-1,)),
    ]
    x, scale = np.full((2, 3), 2, np.float32), np.full(5, 3, np.float32)
    told = model.infer({"x": x, "y": x, "more_scale": scale})
    assert told["sum"].tolist() == [[4.0] * 3] * 2
    assert (int(told["rows"]), told["rest_0"].tolist(), told["rest_1"].tolist()) == (2, [2.0] * 3, [6.0] * 5)
    assert list(model.infer({"x": x, "y": x, "more_scale": scale}, outputs=["rest_1", "sum"])) == ["rest_1", "sum"]
    with pytest.raises(errors.ShapeMismatch, match="'y': dimension 0: expected 2, as dimension 0 of 'x' has, got 3"):
        model.infer({"x": x, "y": np.zeros((3, 3), np.float32), "more_scale": scale})


def test_a_description_names_what_an_export_does_not(line: Path) -> None:
    model = nnrp.load(line, inputs={"x": "pixels"}, outputs=[{"name": "scores", "shape": [2, 4]}])
    assert model.inputs[0].name == "pixels"
    assert model(np.zeros((2, 4), np.float32))["scores"].shape == (2, 4)
    with pytest.raises(errors.ShapeMismatch, match="dimension 0: expected 1 to 64, got 65"):
        model(np.zeros((65, 4), np.float32))
    for wrong in ([{"datatype": "FP64"}], [{"shape": [-1]}], [{"name": "a"}, {"name": "b"}]):
        with pytest.raises(errors.InvalidOption, match="model description: outputs"):
            nnrp.load(line, outputs=wrong)


def test_torchscript_must_be_described_and_says_what_is_missing(script: Path) -> None:
    with pytest.raises(errors.InvalidOption, match=r"inputs\['x'\].datatype: expected a datatype of .*because the file tells none"):
        nnrp.load(script)
    with pytest.raises(errors.InvalidOption, match="model description: outputs"):
        nnrp.load(script, inputs=nets.X)
    with pytest.raises(errors.InvalidOption, match="INT4"):
        nnrp.load(script, inputs={"x": {"datatype": "INT4"}}, outputs=nets.Y)
    model = nnrp.load(script, **nets.PORTS)
    x = np.random.default_rng(0).random((3, 4), np.float32)
    np.testing.assert_array_equal(model(x)["y"], nets.Linear()(torch.from_numpy(x)).detach().numpy())
    other = nnrp.load(script, inputs=[{"name": "pixels", "datatype": "FP32", "shape": ["rows", 4]}], outputs=nets.Y)
    np.testing.assert_array_equal(other(pixels=x)["y"], model(x)["y"])


def test_numbers_and_what_may_be_left_out_are_in_torchscripts_signature(tmp_path: Path) -> None:
    model = nnrp.load(nets.scripted(nets.Choosy(), tmp_path / "choosy.pt"), **CHOOSY)
    assert [(spec.name, spec.datatype, spec.optional) for spec in model.inputs] == [("x", "FP32", False), ("times", "INT64", True), ("bias", "FP32", True)]
    x = np.float32([1, 2])
    assert model.infer({"x": x})["y"].tolist() == [2, 4]
    told = model.infer({"x": x, "times": np.int64(5), "bias": x})
    assert (told["y"].tolist(), int(told["times"])) == ([6, 12], 5)


@pytest.mark.parametrize("kind", ["exported", "scripted"])
def test_a_model_that_writes_to_its_input_does_not_write_to_the_callers(tmp_path: Path, kind: str) -> None:
    x = np.zeros((100, 100), np.float32)
    if kind == "exported":
        model = nnrp.load(nets.exported(nets.Greedy(), tmp_path / "greedy.pt2", torch.zeros(100, 100)))
    else:
        rows = {"datatype": "FP32", "shape": [-1, 100]}
        model = nnrp.load(nets.scripted(nets.Greedy(), tmp_path / "greedy.pt"), inputs={"x": rows}, outputs={"y": rows})
    (answer,) = model(x).values()
    assert (answer[0].tolist(), answer[1].tolist()) == ([1.0] * 100, [0.0] * 100)
    assert not x.any()


@pytest.mark.parametrize("kind", ["exported", "scripted"])
def test_an_answer_is_nobody_elses(tmp_path: Path, kind: str) -> None:
    make: Any = getattr(nets, kind)
    words = [torch.zeros(2, 4)] if kind == "exported" else []
    said: dict[str, Any] = {} if words else {"inputs": nets.X, "outputs": SQUARE}
    model = nnrp.load(make(nets.Keeping(), tmp_path / "keeping", *words), runtime="torch", **said)
    (first,) = model(np.zeros((2, 4), np.float32)).values()
    first[:] = 7
    (second,) = model(np.zeros((2, 4), np.float32)).values()
    assert (second == 1).all(), "a caller wrote into the model"


@pytest.mark.parametrize("kind", ["exported", "scripted"])
def test_a_model_that_remembers_takes_one_call_at_a_time(tmp_path: Path, kind: str) -> None:
    make: Any = getattr(nets, kind)
    words = [torch.zeros(2, 4)] if kind == "exported" else []
    said: dict[str, Any] = {} if words else {"inputs": nets.X, "outputs": SQUARE}
    model = nnrp.load(make(nets.Counting(), tmp_path / "counting", *words), runtime="torch", **said)
    assert model.session.exclusive
    assert model.session.settings["stateful"]
    x = np.zeros((2, 4), np.float32)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: next(iter(model(x).values())), range(40)))
    assert sorted(float(answer[0, 0]) for answer in answers) == list(range(1, 41))
    assert all((answer == answer[0, 0]).all() for answer in answers), "an answer changed after it was given"
    with pytest.raises(errors.NotOffered):
        model.session.warm_up()


def test_results_by_name_are_given_by_name(tmp_path: Path) -> None:
    class Named(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"b": x * 2, "a": x * 3}

    path, one = nets.scripted(Named(), tmp_path / "named.pt"), {"datatype": "FP32", "shape": [-1, 4]}
    x = np.ones((1, 4), np.float32)
    for names, factors in (("ab", (3, 2)), ("ba", (2, 3)), ("yz", (2, 3))):
        answer = nnrp.load(path, inputs=nets.X, outputs=[{"name": name, **one} for name in names])(x)
        assert tuple(answer[name][0, 0] for name in names) == factors


@pytest.mark.parametrize("kind", ["exported", "scripted"])
def test_running_means_are_remembered(tmp_path: Path, kind: str) -> None:
    class Trained(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(4))
            self.register_buffer("variance", torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.batch_norm(x, self.mean, self.variance, training=True)

    make: Any = getattr(nets, kind)
    words = [torch.rand(2, 4)] if kind == "exported" else []
    said: dict[str, Any] = {} if words else {"inputs": nets.X, "outputs": SQUARE}
    session = nnrp.load(make(Trained(), tmp_path / "trained", *words), runtime="torch", **said).session
    assert (session.exclusive, session.settings["stateful"]) == (True, True)


def test_a_narrower_precision_is_computed_in_only_where_it_is_asked_for(line: Path, script: Path) -> None:
    x = np.random.default_rng(0).random((3, 4), np.float32)
    words: list[tuple[Path, dict[str, Any]]] = [(line, {}), (script, dict(nets.PORTS))]
    for path, said in words:
        strict = nnrp.load(path, **said)
        assert strict.session.settings["precision"] == "strict"
        narrow = nnrp.load(path, precision="bf16", **said)
        assert narrow.session.settings["precision"] == "bf16"
        (exact,), (coarse,) = strict(x).values(), narrow(x).values()
        assert 0 < np.abs(exact - coarse.astype(np.float32)).max() < 2e-2
        with pytest.raises(errors.NotOffered, match="int8"):
            nnrp.load(path, precision="int8", **said)


def test_devices_that_are_not_there_are_refused_with_those_that_are(line: Path) -> None:
    with pytest.raises(errors.DeviceNotFound) as refused:
        nnrp.load(line, device="cuda:63")
    assert "cpu" in refused.value.details["available"]


def test_each_model_has_its_own_number_of_threads(line: Path) -> None:
    one, two = (nnrp.load(line, options={"threads": number}) for number in (1, 2))
    assert [model.session.settings["threads"] for model in (one, two)] == [1, 2]
    x = np.zeros((1, 4), np.float32)
    for model, number in ((one, 1), (two, 2), (one, 1)):
        model(x)
        # In this process the caller's own thread runs it.
        assert torch.get_num_threads() == number


def test_what_is_served_is_what_is_loaded(line: Path) -> None:
    x = np.random.default_rng(0).random((3, 4), np.float32)
    with nnrp.serve(line, http_port=0, grpc_port=0) as server:
        for url in (server.http_url, server.grpc_url):
            np.testing.assert_array_equal(nnrp.connect(f"{url}")(x)["output"], nnrp.load(line)(x)["output"])


def test_a_run_that_fails_says_why_in_one_line_without_torchscripts_traceback(tmp_path: Path) -> None:
    model = nnrp.load(nets.scripted(nets.Choosy(), tmp_path / "choosy.pt"), **CHOOSY)
    with pytest.raises(errors.RunFailed, match=r"^runtime torch: RuntimeError: The size of tensor a \(2\)") as failed:
        model.infer({"x": np.zeros(2, np.float32), "bias": np.zeros(3, np.float32)})
    assert "\n" not in failed.value.message
    assert "Traceback" not in str(failed.value.details)


def test_a_model_is_warmed_up_with_zeros_of_its_smallest_sizes(line: Path, script: Path) -> None:
    for model in (nnrp.load(line), nnrp.load(script, **nets.PORTS)):
        model.session.warm_up()
        assert model(np.zeros((1, 4), np.float32))[model.outputs[0].name].shape == (1, 4)


def test_the_page_runs_as_written(tmp_path: Path) -> None:
    assert page.run("torch", "torch", tmp_path) > 1
