"""Choosing a runtime, and the runtimes that installed packages bring."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import lite
import numpy as np
import pytest

import nnrp
from nnrp.errors import (
    DeviceNotFound,
    FileNotFound,
    InvalidModel,
    InvalidOption,
    NoRuntime,
    RuntimeNotInstalled,
    UnknownOption,
)
from nnrp.runtimes import entry

X = np.float32([[1, 2, 3, 4]])
LINE: dict[str, Any] = {"inputs": {"x": ("FP32", [-1])}, "outputs": {"y": ("FP32", [-1])}}


# Choosing


def test_without_a_wish_the_first_runtime_that_reads_the_file_is_taken(double_file: Path) -> None:
    session = nnrp.load(double_file).session
    assert session is not None
    assert session.chosen == {"runtime": "onnxruntime", "not_taken": []}


def test_a_name_that_nobody_has_is_answered_with_those_that_there_are(double_file: Path) -> None:
    with pytest.raises(RuntimeNotInstalled, match=r"runtime 'nosuch' is not installed: expected one of onnxruntime, openvino, callable, .*tract") as raised:
        nnrp.load(double_file, runtime="nosuch")
    assert raised.value.details == {"runtime": "nosuch"}
    with pytest.raises(NoRuntime, match=r"runtime 'nope' is not installed: expected one of onnxruntime, openvino, callable, .*tract") as several:
        nnrp.load(double_file, runtime=["nosuch", "nope"])
    assert all("tract" in one["message"] for one in several.value.details["tried"])


@pytest.mark.parametrize(("runtime", "isolation"), [*((name, "none") for name in ("onnxruntime", "openvino", "tract", "reference")), ("tract", "process")])
def test_a_device_may_have_its_runtimes_name_before_it(double_file: Path, runtime: str, isolation: nnrp.engine.Isolation) -> None:
    session = nnrp.load(double_file, runtime=runtime, device=f"{runtime}:cpu", isolation=isolation).session
    assert session is not None
    assert session.device == "cpu"
    assert session.settings["device"].lower() == "cpu"
    for other in ("cuda:0", f"{runtime}:cuda:0", "other:cpu", f"{runtime}:"):
        with pytest.raises(DeviceNotFound):
            nnrp.load(double_file, runtime=runtime, device=other, isolation=isolation)


def test_without_a_wish_a_file_is_given_to_its_formats_own_runtime(tmp_path: Path, double_file: Path) -> None:
    own = lite.scale(tmp_path / "own.tflite", [-1, 4], {"serve": 2.0})
    # Each under the other's name.
    for file, source, runtime, format in (("a.onnx", own, "litert", "tflite"), ("b.tflite", double_file, "onnxruntime", "onnx")):
        shutil.copy(source, tmp_path / file)
        for loaded in (source, tmp_path / file):
            model = nnrp.load(loaded, name="m")
            assert model.session is not None
            assert (model.session.chosen, model.session.format) == ({"runtime": runtime, "not_taken": []}, format)
            assert np.array_equal(model(X)["y"], X * 2)
    # What only one can do, the next one is asked for.
    fallback = nnrp.load(own, options={"NUM_STREAMS": 1}).session
    assert fallback is not None
    assert fallback.runtime == "openvino"
    assert [(one["runtime"], one["reason"]) for one in fallback.chosen["not_taken"]] == [("litert", "UNKNOWN_OPTION"), ("onnxruntime", "NOT_OFFERED")]


def test_a_program_is_given_to_the_runtime_of_such_programs_and_to_no_other_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("class TritonPythonModel:\n    pass\n")
    with pytest.raises(InvalidModel) as raised:
        nnrp.load(tmp_path / "model.py")
    assert [one["runtime"] for one in raised.value.details["tried"]] == ["triton-python", "onnxruntime", "openvino"]


def test_a_runtime_of_no_files_says_so(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(NoRuntime) as raised:
        nnrp.load(tmp_path / "weights.safetensors")
    said = {one["runtime"]: one["message"] for one in raised.value.details["tried"]}
    assert said["callable"] == "model file: callable does not read the format safetensors; it reads no files"


@pytest.mark.parametrize("wish", ["nowhere,reference", "nowhere, reference", ["nowhere", "reference"], ("nowhere", "reference", "onnxruntime")])
def test_of_several_runtimes_the_first_that_can_is_taken_and_the_others_reasons_are_told(double_file: Path, wish: Any) -> None:
    model = nnrp.load(double_file, runtime=wish)
    assert np.array_equal(model(X)["y"], X * 2)
    assert model.session is not None
    assert model.session.runtime == model.session.chosen["runtime"] == "reference"
    (refused,) = model.session.chosen["not_taken"]
    assert (refused["runtime"], refused["reason"]) == ("nowhere", "RUNTIME_NOT_INSTALLED")
    assert "nowhere" in refused["message"]


def test_a_runtimes_own_error_is_told_as_it_is_where_it_is_the_only_one_named(double_file: Path) -> None:
    with pytest.raises(RuntimeNotInstalled):
        nnrp.load(double_file, runtime="nowhere")
    with pytest.raises(UnknownOption):
        nnrp.load(double_file, runtime="reference", options={"beads": 1})
    with pytest.raises(FileNotFound):
        nnrp.load(double_file.with_name("none.onnx"), runtime="reference")


def test_where_none_of_several_loads_one_error_tells_each_ones_reason(double_file: Path) -> None:
    with pytest.raises(NoRuntime) as raised:
        nnrp.load(double_file, runtime="nowhere,reference", options={"beads": 1})
    tried = raised.value.details["tried"]
    assert [(told["runtime"], told["reason"]) for told in tried] == [("nowhere", "RUNTIME_NOT_INSTALLED"), ("reference", "UNKNOWN_OPTION")]
    assert all(told["message"][:200] in raised.value.message for told in tried)
    assert raised.value.code == "FAILED_PRECONDITION"


def test_without_a_wish_the_error_is_that_of_a_runtime_that_reads_such_files(tmp_path: Path, double_file: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(double_file.read_bytes()[:-20])
    with pytest.raises(InvalidModel) as raised:
        nnrp.load(broken)
    assert raised.value.details["tried"][0] == {"runtime": "onnxruntime", "reason": "INVALID_MODEL", "message": raised.value.message}
    with pytest.raises(UnknownOption):
        nnrp.load(double_file, options={"beads": 1})


def test_a_format_that_nobody_reads_is_no_runtimes(tmp_path: Path) -> None:
    (tmp_path / "words.gguf").write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(NoRuntime) as raised:
        nnrp.load(tmp_path / "words.gguf")
    assert {"onnxruntime", "reference"} <= {told["runtime"] for told in raised.value.details["tried"]}


@pytest.mark.parametrize("wish", ["", "onnxruntime,", [""], ["onnxruntime", ""]])
def test_a_runtime_without_a_name_is_refused(double_file: Path, wish: Any) -> None:
    with pytest.raises(InvalidOption, match="runtime"):
        nnrp.load(double_file, runtime=wish)


def test_a_file_that_is_not_what_it_should_be_is_refused(double_file: Path) -> None:
    assert nnrp.load(double_file, format="onnx")(X)
    for runtime in (None, "onnxruntime", "reference"):
        with pytest.raises(InvalidModel, match="expected format 'tflite', got onnx"):
            nnrp.load(double_file, format="tflite", runtime=runtime)


def test_labels_are_remembered(double_file: Path) -> None:
    session = nnrp.load(double_file, labels={"owner": "ada"}).session
    assert session is not None
    assert session.labels == {"owner": "ada"}


def test_serve_takes_a_wish_on_the_command_line_and_in_the_call(double_file: Path) -> None:
    with nnrp.serve(double_file, runtime=["nowhere", "reference"], http_port=0, grpc_port=None) as server:
        assert nnrp.connect(server.http_url or "").metadata()["platform"] == "reference_onnx"
    command = [Path(sys.executable).with_name("nnrp"), "serve", str(double_file), "--runtime", "nowhere,also", "--http-port", "0", "--grpc-port", "0", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert '"NO_RUNTIME"' in done.stderr


# Runtimes of installed packages


LISTED = str([["devices", "formats", "name", "options", "version"], *[["devices", "error", "formats", "name", "options", "version"]] * 3])


BEADS = (
    "class Beads:\n"
    "    name = 'beads'\n"
    "    def info(self): return {'version': '7', 'formats': ['beads']}\n"
    "    def load(self, spec):\n"
    "        import types\n"
    "        tensor = [('x', 'FP32', [1])]\n"
    "        return types.SimpleNamespace(inputs=tensor, outputs=tensor, run=lambda inputs, outputs, control: inputs)\n"
    "broken = 5\n"
    "class Raises(Beads):\n"
    "    name = 'raises'\n"
    "    def info(self):\n"
    "        raise OSError('no such library')\n"
)
PROGRAM = """
import sys
import numpy as np
import nnrp
from nnrp.runtimes import entry
model = nnrp.load("model.beads", name="m", runtime="beads")
print(model(np.float32([5]))["x"], model.session.version, "nowhere_to_be_found" in sys.modules)
print([sorted(told) for told in nnrp.Engine().runtimes() if told["name"] in ("beads", "imports", "leaves", "raises")])
for name in ("imports", "other", "broken", "leaves", "raises"):
    try:
        nnrp.load("model.beads", name="m", runtime=name)
    except nnrp.NnrpError as error:
        print(error.reason)
"""


def test_runtimes_of_installed_packages_are_found_by_name(tmp_path: Path) -> None:
    (tmp_path / "beads.py").write_text(BEADS)
    package = tmp_path / "beads-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: beads\nVersion: 1\n")
    points = [
        "beads = beads:Beads",
        "imports = nowhere_to_be_found:Runtime",
        "other = beads:Beads",
        "broken = beads:broken",
        "leaves = leaves:Runtime",
        "raises = beads:Raises",
    ]
    (package / "entry_points.txt").write_text("[nnrp.runtimes]\n" + "\n".join(points) + "\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit(5)\n")
    (tmp_path / "model.beads").write_bytes(b"beads!")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False, env={"PYTHONPATH": str(tmp_path)}
    )
    assert done.stdout.splitlines() == ["[5.] 7 False", LISTED, "RUNTIME_NOT_INSTALLED", *["LOAD_FAILED"] * 4], done.stderr
    assert {"callable", "reference", "remote"} <= set(entry.names())


def test_loading_a_native_model_looks_for_no_package(double_file: Path) -> None:
    program = f"import nnrp, sys; nnrp.load({str(double_file)!r}); print('importlib.metadata' in sys.modules, 'nnrp.runtimes.host' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False", "False"]
