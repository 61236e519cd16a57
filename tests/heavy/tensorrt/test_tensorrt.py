"""TensorRT without a GPU: its library would end the process, and nobody notices but the one that tried."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import nnrp
from nnrp import errors
from nnrp.runtimes import tensorrt

NNRP = Path(sys.executable).with_name("nnrp")
#: What every user of the library does first.
USE = "import tensorrt_dispatch as trt; trt.Runtime(trt.Logger(trt.Logger.INTERNAL_ERROR)).deserialize_cuda_engine(b'nnrp')"


def driverless() -> bool:
    """Whether there is no NVIDIA driver here."""
    import ctypes

    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return True
    return False


pytestmark = pytest.mark.skipif(not driverless(), reason="an NVIDIA driver is here: what happens without one cannot be seen")


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """What begins as an engine does."""
    path = tmp_path / "model.plan"
    path.write_bytes(b"ftrt" + bytes(400))
    return path


def test_the_library_itself_ends_the_process() -> None:
    assert subprocess.run([sys.executable, "-c", USE], capture_output=True, timeout=120, check=False).returncode < 0


def test_loading_is_a_typed_error_and_the_process_lives_on(engine: Path) -> None:
    for device in ("auto", "cuda:0", "cpu"):
        with pytest.raises(errors.DeviceNotFound, match="the process that tried TensorRT was ended by signal") as refused:
            nnrp.load(engine, runtime="tensorrt", device=device)
        assert refused.value.details["runtime"] == "tensorrt"
        assert "Traceback" not in refused.value.message
    with pytest.raises(errors.DeviceNotFound):
        tensorrt.TensorRt().info()


def test_nobody_named_it_and_the_error_says_why_nothing_loads(engine: Path) -> None:
    with pytest.raises(errors.NnrpError) as refused:
        nnrp.load(engine)
    assert "DEVICE_NOT_FOUND" in (refused.value.reason, *(one["reason"] for one in refused.value.details.get("tried", ())))


def test_the_runtimes_are_listed_with_what_is_wrong() -> None:
    told = json.loads(subprocess.run([NNRP, "runtimes", "--json"], capture_output=True, text=True, timeout=120, check=True).stdout)
    about = next(one for one in told if one["name"] == "tensorrt")
    assert (about["version"], about["error"]["reason"]) == ("", "DEVICE_NOT_FOUND")


def test_inspect_says_what_a_file_is_and_that_nothing_here_runs_it(engine: Path) -> None:
    about = json.loads(subprocess.run([NNRP, "inspect", engine, "--json"], capture_output=True, text=True, timeout=120, check=True).stdout)
    assert (about["format"], about["runtimes"], about["not_installed"]) == ("tensorrt", [], ["tensorrt"])
