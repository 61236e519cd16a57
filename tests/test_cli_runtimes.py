"""``nnrp runtimes``: what can run models here, and what each one's options are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NNRP = Path(sys.executable).with_name("nnrp")


def run(*words: str, status: int = 0, **environment: str) -> str:
    """Run the command; the status must be the one expected."""
    done = subprocess.run([NNRP, "runtimes", *words], capture_output=True, text=True, timeout=60, check=False, env=os.environ | environment)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if status == 0 else done.stderr


def row(table: str, name: str) -> list[str]:
    """The cells of a row."""
    line = next(line for line in table.splitlines() if line.split()[:1] == [name])
    return [cell.strip() for cell in line.strip().split("   ") if cell.strip()]


def test_native_runtimes_and_those_in_python_stand_in_one_table() -> None:
    table = run()
    found = {one["name"]: one for one in json.loads(run("--json"))}
    assert {"onnxruntime", "openvino", "litert", "tract", "reference", "callable", "remote"} <= found.keys()
    for name, about in found.items():
        assert about.keys() >= {"name", "version", "formats", "devices", "options"}
        assert row(table, name)[:1] == [name]
    assert row(table, "litert") == ["litert", found["litert"]["version"], "tflite", "cpu"]
    assert row(table, "onnxruntime")[1:3] == [found["onnxruntime"]["version"], "onnx, ort"]


def test_a_runtime_without_its_library_says_how_to_get_it(tmp_path: Path) -> None:
    # What is found first is no package: as if there were none.
    (tmp_path / "tract.py").write_text("raise ImportError('no module of that name')")
    environment = {"NNRP_ONNXRUNTIME_LIBRARY": str(tmp_path / "none.so"), "PYTHONPATH": str(tmp_path)}
    table = run(**environment)
    assert row(table, "onnxruntime")[1] == "not installed: pip install nnrp[onnxruntime]"
    assert row(table, "tract")[1] == "not installed: pip install nnrp[tract]"
    told = {one["name"]: one.get("error", {}).get("reason") for one in json.loads(run("--json", **environment))}
    assert (told["onnxruntime"], told["tract"], told["litert"]) == ("RUNTIME_NOT_INSTALLED", "RUNTIME_NOT_INSTALLED", None)


def test_a_plug_in_stands_there_with_the_others(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    library = tmp_path / "sample.so"
    command = ["cc", "-std=gnu11", "-O1", "-fPIC", "-shared", f"-I{root / 'spec'}", "-o", library, root / "bindings/c/runtime_sample.c", "-lpthread"]
    subprocess.run(command, check=True, timeout=60)
    told = json.loads(run("--json", NNRP_PLUGINS=str(tmp_path)))
    assert "sample" in [one["name"] for one in told]
    assert run("sample", NNRP_PLUGINS=str(tmp_path)).startswith("sample ")


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "litert", "tract"])
def test_a_runtimes_options_are_told_with_types_defaults_and_words(name: str) -> None:
    options = json.loads(run(name, "--json"))["options"]["properties"]
    table = run(name)
    assert table.startswith(f"{name} ")
    for option in options:
        assert row(table, option)[0] == option


def test_an_option_says_what_it_takes() -> None:
    assert row(run("litert"), "num_threads")[1] == "integer 1…256"
    assert row(run("onnxruntime"), "graph_optimization_level")[1:] == ['"disable" | "basic" | "extended" | "all"', '"all"']


def test_a_runtime_that_nobody_knows_is_an_error_that_lists_those_there_are() -> None:
    assert "there are onnxruntime" in run("nothing", status=1)
    assert json.loads(run("nothing", "--json", status=1))["reason"] == "RUNTIME_NOT_INSTALLED"
