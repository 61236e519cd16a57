"""Models in processes of their own: which runtime is taken, what it is told, and Ctrl-C meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lite
import numpy as np
import pytest
import servers
import triton_models
import zoo
from test_archives import zipped
from test_isolation import children, kill, load, load_into, patiently, process, within_a_minute
from test_python_signals import interrupted
from test_sources_digest import with_weights

import nnrp
from nnrp.errors import NnrpError, RuntimeCrashed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a process for a model needs Linux")

X = np.float32([[1, 2, 3, 4]])


def test_a_fixed_shape_of_the_description_reaches_the_runtime_and_is_applied_once(models: Path) -> None:
    said = {"inputs": [{"name": "a", "shape": [1, 4]}], "outputs": {"y": "b"}}
    here, there = (nnrp.load(zoo.scale(models / "said.onnx", 2.0), runtime="tract", isolation=where, **said) for where in ("none", "process"))
    assert (here.inputs, here.outputs) == (there.inputs, there.outputs)
    assert (there.inputs[0].name, list(there.inputs[0].shape or [])) == ("a", [1, 4])
    assert np.array_equal(there(a=X)["b"], 2 * X)


def outcome(path: Path, isolation: Any) -> tuple[str, Any]:
    """What came of a load without a wish: the runtime that was taken, or the reason, and each one's that was asked before."""
    try:
        session: Any = nnrp.load(path, isolation=isolation).session
    except NnrpError as error:
        return error.reason, [(one["runtime"], one["reason"], one["message"]) for one in error.details.get("tried", [])]
    return session.runtime, session.chosen


@pytest.mark.parametrize("kind", ["onnx", "tflite", "triton", "broken", "nothing"])
def test_without_a_wish_the_same_runtime_is_taken_as_in_the_engines_own_process(kind: str, double_file: Path, tmp_path: Path) -> None:
    if kind == "onnx":
        path = double_file
    elif kind == "tflite":
        path = lite.scale(tmp_path / "model.onnx", [-1, 4], {"serve": 2.0})
    elif kind == "triton":
        path = triton_models.write(tmp_path, "add_sub") / "add_sub"
    else:
        path = tmp_path / "model.onnx"
        path.write_bytes(double_file.read_bytes()[:60] if kind == "broken" else b"nothing of the sort")
    assert outcome(path, "process") == outcome(path, "none")


def test_ctrl_c_ends_a_call_of_a_function_there(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    model = load("prone_long:wait", options={"inputs": {"x": ["BYTES", [1]]}, "outputs": {"y": ["BYTES", [1]]}}, stop_grace=0.1)
    with interrupted(begun.exists):
        model(np.array([str(begun)], object))
    assert within_a_minute(lambda: "CLIENT_CANCELLED" in model.statistics()["failures"])


def test_ctrl_c_ends_a_load_and_its_process(double_file: Path) -> None:
    before = set(children())
    engine = nnrp.Engine()
    said: dict[str, Any] = {"inputs": {"x": ["FP32", [1]]}, "outputs": {"y": ["FP32", [1]]}}
    with interrupted(lambda: bool(set(children()) - before)):
        engine.load("prone_hang:f", "model", runtime="callable", options=said, isolation="process")
    assert within_a_minute(lambda: set(children()) <= before)
    assert np.array_equal(engine.load(double_file, "model", isolation="process")(X)["y"], 2 * X)


def test_each_end_and_restart_is_an_event() -> None:
    engine = nnrp.Engine()
    model = load_into(engine, "crashing")
    events = engine.events(timeout=60)
    for turn in (1, 2):
        kill(model)
        ended, restarted = next(events), next(events)
        assert (ended["event"], ended["model"], ended["version"], ended["exit"]) == ("ended", "crashing", "1", "SIGKILL")
        assert ended["again_ms"] == 100 * turn
        assert (restarted["event"], restarted["model"], restarted["restarts"]) == ("restarted", "crashing", turn)
        assert restarted["id"] == process(model)["id"]
        assert restarted["number"] == ended["number"] + 1
        assert ended["time"] <= restarted["time"]
    engine.drain()
    assert list(events) == []


def described(folder: Path, kind: str, model: bytes) -> str:
    """A model whose digest is said: a file, an archive, a folder, or a file with weights beside it."""
    if kind == "weights":
        files = folder / "net.bin", with_weights(folder / "net.onnx")
        listed = "".join(f"{servers.sha256(file.read_bytes())}  {file.name}\n" for file in files).encode()
        (folder / "model.toml").write_text(f'path = "net.onnx"\nsha256 = "{servers.sha256(listed)}"\n')
        return str(folder / "model.toml")
    if kind == "folder":
        (folder / "net" / "1").mkdir(parents=True)
        (folder / "net" / "1" / "model.onnx").write_bytes(model)
        listed = f"{servers.sha256(model)}  1/model.onnx\n".encode()
        return f"file:{folder}/net#sha256={servers.sha256(listed)}"
    whole = model if kind == "file" else zipped({"deep/1/model.onnx": model})
    name = "net.onnx" if kind == "file" else "net.zip"
    (folder / name).write_bytes(whole)
    (folder / "model.toml").write_text(f'path = "{name}"\nsha256 = "{servers.sha256(whole)}"\n')
    return str(folder / "model.toml")


@pytest.mark.parametrize("kind", ["file", "archive", "folder", "weights"])
def test_a_process_that_is_started_again_loads_what_has_the_digest_that_was_said_and_nothing_else(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNRP_CACHE", str(tmp_path / "cache"))
    model, another = (zoo.scale(tmp_path / "made", factor).read_bytes() for factor in (2.0, 3.0))
    engine = nnrp.Engine()
    loaded = engine.load(described(tmp_path, kind, model), isolation="process")
    (place,) = tmp_path.rglob("net.bin" if kind == "weights" else "*.onnx")
    events, was = engine.events(timeout=60), place.read_bytes()
    (tmp_path / "aside").write_bytes(np.float32(3).tobytes() if kind == "weights" else another)
    (tmp_path / "aside").replace(place)
    kill(loaded)
    assert next(events)["exit"] == "SIGKILL"
    assert "expected sha256" in next(events)["exit"]
    with pytest.raises(RuntimeCrashed):
        loaded(X)
    place.write_bytes(was)
    assert np.array_equal(patiently(lambda: loaded(X))["y"], 2 * X)


#: On a kernel before 5.3, which has no pidfd_open and says so: a model in a process of its own answers, crashes, answers again, and is unloaded.
OLD_KERNEL = """
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
# Load the call's number; is it 434? Then ENOSYS, or else go on.
steps = b"".join(struct.pack("HBBI", *step) for step in ((0x20, 0, 0, 0), (0x15, 0, 1, 434), (0x06, 0, 0, 0x50000 | 38), (0x06, 0, 0, 0x7FFF0000)))
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_char_p)]
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(Filter(4, steps))) == 0
assert libc.syscall(434, os.getpid(), 0) == -1 and ctypes.get_errno() == 38

import nnrp, numpy as np
tensors = {"inputs": {"x": ["FP32", [-1]]}, "outputs": {"y": ["FP32", [-1]]}}
engine = nnrp.Engine()
events = engine.events(timeout=60)
model = engine.load("prone:crashing", "model", runtime="callable", options=tensors, isolation="process")
assert model(np.float32([1, 2]))["y"].tolist() == [2, 4]
try:
    model(np.float32([]))
except nnrp.errors.RuntimeCrashed as error:
    assert error.details["exit"] == "SIGSEGV", error.details
assert [next(events)["event"] for _ in range(2)] == ["ended", "restarted"]
assert model(np.float32([3]))["y"].tolist() == [6]
engine.unload("model")
print("unloaded")
"""


def test_a_kernel_that_does_not_tell_of_a_processs_end_is_asked(tmp_path: Path) -> None:
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", OLD_KERNEL], env=here, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "unloaded\n", done.stderr
