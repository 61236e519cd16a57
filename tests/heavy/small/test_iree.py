"""IREE: modules from ONNX and from MLIR, compiled here and run behind the same calls as ONNX Runtime."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import package
import page
import pytest

import nnrp
from nnrp import errors
from nnrp.testing import check_runtime, zoo
from nnrp.testing.formats import iree as writer
from nnrp.testing.streams import STREAMING

MAGIKA = package.file("magika/models/standard_v3_3/model.onnx")
BYTES, LABEL = {"datatype": "INT32", "shape": [-1, 2048]}, {"datatype": "FP32", "shape": [-1, 214]}
PORTS: dict[str, Any] = {"inputs": {"bytes": BYTES}, "outputs": {"target_label": LABEL}}
ADD = """
func.func @add(%a: tensor<?xi32>, %b: tensor<?xi32>) -> tensor<?xi32> {
  %sum = tosa.add %a, %b : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  return %sum : tensor<?xi32>
}
func.func @same(%a: tensor<2xf64>) -> tensor<2xf64> {
  return %a : tensor<2xf64>
}
"""


#: What it was given so far.
SUM = """
util.global private mutable @sum = dense<0.0> : tensor<1xf32>
func.func @add(%x: tensor<1xf32>) -> tensor<1xf32> {
  %before = util.global.load @sum : tensor<1xf32>
  %after = tosa.add %before, %x : (tensor<1xf32>, tensor<1xf32>) -> tensor<1xf32>
  util.global.store %after, @sum : tensor<1xf32>
  return %after : tensor<1xf32>
}
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file-type model as a module."""
    path = tmp_path_factory.mktemp("iree") / "magika.vmfb"
    writer.compile(MAGIKA, path)
    return path


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A module that declares its functions."""
    import iree.compiler

    path = tmp_path_factory.mktemp("iree") / "add.vmfb"
    # Else the compiler narrows FP64 to FP32.
    words = ["--iree-llvmcpu-target-cpu=host", "--iree-input-demote-f64-to-f32=false"]
    path.write_bytes(iree.compiler.compile_str(ADD, target_backends=["llvm-cpu"], extra_args=words))
    return path


def test_it_keeps_the_contract() -> None:
    report = check_runtime("iree", isolate=True)
    assert report.passed, report.table()
    assert report.counts["na"] == 3 + len(STREAMING), report.table()


@pytest.mark.parametrize("threads", [1, None])
def test_a_real_model_gives_the_same_numbers_as_onnxruntime(compiled: Path, threads: int | None) -> None:
    here = nnrp.load(compiled, options={"threads": threads} if threads else {}, **PORTS)
    assert here.session is not None
    assert (here.session.runtime, here.session.format, here.session.device, here.session.exclusive) == ("iree", "vmfb", "cpu", True)
    assert here.session.settings["threads"] == threads or threads is None
    x = np.random.default_rng(7).integers(0, 257, (2, 2048)).astype(np.int32)
    np.testing.assert_allclose(here(x)["target_label"], nnrp.load(MAGIKA)(x)["target_label"], atol=1e-5, rtol=0)


def test_a_module_without_names_needs_a_description(compiled: Path) -> None:
    wanting: list[tuple[dict[str, Any], str]] = [
        ({}, "inputs"),
        ({"inputs": PORTS["inputs"]}, "outputs"),
        (PORTS | {"inputs": {"bytes": "ids"}}, "inputs['bytes'].datatype"),
        (PORTS | {"outputs": {"y": {"datatype": "BYTES"}}}, "outputs['y'].datatype"),
    ]
    for said, path in wanting:
        with pytest.raises(errors.InvalidOption, match="model description") as refused:
            nnrp.load(compiled, runtime="iree", **said)
        assert refused.value.details["path"] == path


def test_a_description_says_all_that_callers_see(compiled: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(7).integers(0, 257, (2, 2048)).astype(np.int32)
    expected = nnrp.load(compiled, **PORTS)(x)["target_label"]
    by_place = {"inputs": [BYTES | {"name": "ids", "shape": ["batch", 2048]}], "outputs": [{"name": "kind", "datatype": "FP32"}]}
    turned = {"inputs": {"bytes": {"datatype": "INT32", "shape": [2048, -1], "layout": "TN", "model_layout": "NT"}}, "outputs": PORTS["outputs"]}
    placed = nnrp.load(compiled, **by_place)
    assert [(spec.name, spec.datatype, spec.shape) for spec in (*placed.inputs, *placed.outputs)] == [("ids", "INT32", (-1, 2048)), ("kind", "FP32", (-1,))]
    np.testing.assert_array_equal(placed(ids=x)["kind"], expected)
    np.testing.assert_array_equal(nnrp.load(compiled, **turned)(np.ascontiguousarray(x.T))["target_label"], expected)
    (tmp_path / "model.toml").write_text(f"""
path = "{compiled}"
inputs = [{{ name = "ids", datatype = "INT32", shape = [{{ max = 2 }}, 2048] }}]
outputs = [{{ name = "kind", datatype = "FP32", shape = [-1, 214] }}]
""")
    model = nnrp.load(tmp_path / "model.toml")
    np.testing.assert_array_equal(model(ids=x)["kind"], expected)
    with pytest.raises(errors.ShapeMismatch):
        model(ids=np.zeros((3, 2048), np.int32))


def test_what_is_not_the_modules_is_told_at_the_run(compiled: Path) -> None:
    x = np.zeros((1, 2048), np.float32)
    more = {"datatype": "FP32", "shape": [1]}
    wrong: list[tuple[dict[str, Any], Any]] = [
        ({"inputs": {"bytes": BYTES | {"datatype": "FP32"}}}, [x]),
        ({"inputs": {"bytes": BYTES | {"shape": [-1, 2047]}}}, [x[:, 1:].astype(np.int32)]),
        ({"inputs": {"bytes": BYTES, "more": more}}, [x.astype(np.int32), x[0, :1]]),
        ({"outputs": {"target_label": LABEL | {"datatype": "FP64"}}}, [x.astype(np.int32)]),
        ({"outputs": {"target_label": LABEL | {"datatype": "INT32"}}}, [x.astype(np.int32)]),
        ({"outputs": {"target_label": LABEL, "more": more}}, [x.astype(np.int32)]),
    ]
    for said, inputs in wrong:
        with pytest.raises(errors.RunFailed) as failed:
            nnrp.load(compiled, runtime="iree", **PORTS | said)(*inputs)
        assert "\n" not in failed.value.message
        assert ".c:" not in failed.value.message


def test_a_module_that_declares_its_functions_needs_no_ports(added: Path) -> None:
    with pytest.raises(errors.InvalidOption, match="it has add, same"):
        nnrp.load(added, runtime="iree")
    model = nnrp.load(added, options={"function": "add"})
    assert [tuple(spec[:3]) for spec in (*model.inputs, *model.outputs)] == [
        ("input0", "INT32", (-1,)),
        ("input1", "INT32", (-1,)),
        ("output0", "INT32", (-1,)),
    ]
    assert model(np.int32([1, -2]), np.int32([3, 4]))["output0"].tolist() == [4, 2]
    same = nnrp.load(added, options={"function": "same"})
    assert same(np.float64([0.1, 0.2]))["output0"].tolist() == [0.1, 0.2]


def test_a_module_that_remembers_loses_nothing(tmp_path: Path) -> None:
    import iree.compiler

    (tmp_path / "sum.vmfb").write_bytes(iree.compiler.compile_str(SUM, target_backends=["llvm-cpu"], extra_args=["--iree-llvmcpu-target-cpu=host"]))
    model = nnrp.load(tmp_path / "sum.vmfb", options={"function": "add"}, **{side: [{"datatype": "FP32", "shape": [1]}] for side in ("inputs", "outputs")})
    with ThreadPoolExecutor(6) as pool:
        answers = {float(value) for values in pool.map(lambda _: [model(np.float32([1]))["output0"][0] for _ in range(50)], range(6)) for value in values}
    assert answers == set(map(float, range(1, 301)))
    free = nnrp.load(tmp_path / "sum.vmfb", options={"function": "add", "exclusive": False}, inputs=["x"]).session
    assert free is not None
    assert not free.exclusive


def test_the_threads_of_the_process_are_settled_once(added: Path) -> None:
    program = """
import sys, numpy as np, nnrp
from nnrp.errors import InvalidOption
path, options = sys.argv[1], {"function": "add"}
first = nnrp.load(path, options=options | {"threads": 3})
assert nnrp.load(path, options=options).session.settings["threads"] == 3
assert nnrp.load(path, options=options | {"threads": 1}).session.settings["threads"] == 1
try:
    nnrp.load(path, runtime="iree", options=options | {"threads": 2})
except InvalidOption as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program, added], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "expected 3, which the models of this process share, got 2" in done.stdout


def test_an_output_that_is_kept_to_the_end_crashes_nothing(compiled: Path) -> None:
    program = f"""
import numpy as np, nnrp
y = nnrp.load({str(compiled)!r}, **{PORTS!r})(np.zeros((1, 2048), np.int32))
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=120, check=False).returncode == 0


def test_files_that_are_cut_off_or_changed_never_crash(tmp_path: Path) -> None:
    told = writer.write(zoo.graph("affine"), tmp_path)
    whole, generator, found = Path(told["path"]).read_bytes(), np.random.default_rng(0), []
    for number in range(60):
        data = bytearray(whole)
        data[generator.integers(0, 2000)] ^= 1 << generator.integers(0, 8)
        (tmp_path / "bad.vmfb").write_bytes(data if number % 2 else data[: generator.integers(0, len(data))])
        try:
            nnrp.load(**told | {"path": tmp_path / "bad.vmfb"}, runtime="iree")
        except errors.NnrpError as error:
            found.append(error)
    assert {error.reason for error in found} <= {"INVALID_MODEL", "LOAD_FAILED", "INVALID_OPTION"}
    assert not any(str(tmp_path) in error.message for error in found)
    assert len(found) > 20


def test_inspect_says_what_a_module_is_and_that_iree_runs_it(compiled: Path) -> None:
    done = subprocess.run([Path(sys.executable).with_name("nnrp"), "inspect", compiled, "--json"], capture_output=True, text=True, timeout=120, check=True)
    about = json.loads(done.stdout)
    assert (about["format"], about["runtimes"]) == ("vmfb", ["iree"])


def test_a_device_that_is_not_there_is_refused(compiled: Path) -> None:
    for device in ("cuda", "vulkan:0", "local-task"):
        with pytest.raises(errors.DeviceNotFound):
            nnrp.load(compiled, runtime="iree", device=device, **PORTS)


def test_the_page_runs_as_written(tmp_path: Path) -> None:
    assert page.run("iree", "small", tmp_path) == 2
