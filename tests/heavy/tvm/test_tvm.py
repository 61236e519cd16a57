"""TVM's modules, compiled here, behind the same calls as ONNX Runtime, and not opened unless somebody says so."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import page
import pytest
from photo import as_onnx

import nnrp
from nnrp import errors
from nnrp.testing import check_runtime, zoo
from nnrp.testing.formats import tvm as writer

QUIRKS = dict.fromkeys(("errors.run", "errors.private", "errors.lives"), "a reshape that does not fit is answered as if it did")


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The line 2x + 1 over any number of elements."""
    return writer.write(zoo.graph("affine"), tmp_path_factory.mktemp("tvm"))


def test_it_keeps_the_contract_but_for_a_reshape_that_does_not_fit() -> None:
    report = check_runtime("tvm", isolate=True, quirks=QUIRKS)
    assert report.passed, report.table()
    assert {one.id for one in report.outcomes if one.verdict == "quirk"} == QUIRKS.keys()


def test_a_real_model_gives_the_same_numbers_as_onnxruntime(tmp_path: Path) -> None:
    file = as_onnx(tmp_path / "photo.onnx", 48, 40)
    writer.compile(file, tmp_path / "photo.so")
    said: dict[str, Any] = {"inputs": {"x": {"datatype": "FP32", "shape": [1, 3, 48, 40]}}, "outputs": {"y": {"datatype": "FP32", "shape": [1, 3, 68, 52]}}}
    here, there = nnrp.load(tmp_path / "photo.so", options={"allow_code": True}, **said), nnrp.load(file)
    x = np.random.default_rng(0).random((1, 3, 48, 40)).astype(np.float32)
    np.testing.assert_allclose(here(x)["y"], there(x)["y"], atol=1e-4, rtol=0)


def test_a_module_is_not_opened_unless_somebody_says_so(tmp_path: Path, line: dict[str, Any]) -> None:
    source, mark = tmp_path / "mark.c", tmp_path / "opened"
    source.write_text(f'#include <stdio.h>\n__attribute__((constructor)) static void opened(void) {{ fclose(fopen("{mark}", "w")); }}\n')
    subprocess.run(["cc", "-shared", "-fPIC", source, "-o", tmp_path / "mark.so"], check=True, timeout=60)
    here = line | {"path": tmp_path / "mark.so"}
    for options in ({}, {"allow_code": False}):
        with pytest.raises(errors.InvalidOption, match="to open a compiled module is to run the code in it"):
            nnrp.load(**here | {"options": options}, runtime="tvm")
    assert not mark.exists()
    with pytest.raises(errors.LoadFailed):
        nnrp.load(**here, runtime="tvm")
    assert mark.exists()


def test_what_the_module_does_not_tell_the_description_must(line: dict[str, Any]) -> None:
    for missing in ("inputs", "outputs"):
        with pytest.raises(errors.InvalidOption, match=f"model description: {missing}: "):
            nnrp.load(**{key: value for key, value in line.items() if key != missing}, runtime="tvm")
    with pytest.raises(errors.InvalidOption, match="function"):
        nnrp.load(**line | {"options": {"allow_code": True, "function": "nothing"}}, runtime="tvm")
    wrong = nnrp.load(**line | {"inputs": {"x": {"datatype": "FP64", "shape": [-1]}}}, runtime="tvm")
    with pytest.raises(errors.RunFailed, match="expect Tensor with dtype float32"):
        wrong(np.float64([1]))


def test_four_threads_wait_for_each_other_and_get_their_own_answers(line: dict[str, Any]) -> None:
    model = nnrp.load(**line)
    assert model.session is not None
    assert model.session.exclusive

    def wrong(thread: int) -> int:
        xs = (np.full(64 + (turn + thread) % 5, 1_000 * thread + turn, np.float32) for turn in range(240))
        return sum(not np.array_equal(model(x)["y"], 2 * x + 1) for x in xs)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(wrong, range(4))) == 0


def test_a_module_that_is_cut_off_never_crashes(tmp_path: Path, line: dict[str, Any]) -> None:
    whole = Path(line["path"]).read_bytes()
    for part in range(12):
        (tmp_path / "bad.so").write_bytes(whole[: len(whole) * part // 12])
        with pytest.raises(errors.NnrpError) as refused:
            nnrp.load(**line | {"path": tmp_path / "bad.so"}, runtime="tvm")
        assert refused.value.reason in {"INVALID_MODEL", "LOAD_FAILED"}
        assert str(tmp_path) not in refused.value.message
    (tmp_path / "model.bin").write_bytes(whole)
    with pytest.raises(errors.NotOffered, match="names end in"):
        nnrp.load(**line | {"path": tmp_path / "model.bin"}, runtime="tvm")


def test_inspect_says_what_a_file_is_and_that_tvm_may_run_it(line: dict[str, Any]) -> None:
    done = subprocess.run([Path(sys.executable).with_name("nnrp"), "inspect", line["path"]], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.startswith("affine.so: shared_library, ")
    assert done.stdout.split()[-2:] == ["runtimes", "tvm"]


def test_the_page_runs_as_written(tmp_path: Path) -> None:
    assert page.run("tvm", "tvm", tmp_path) == 2
