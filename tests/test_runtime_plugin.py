"""Plug-ins through Python: runtimes in shared libraries, found by path or in a folder, in this process and behind a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_cli
from tree import ROOT

import nnrp
from nnrp import errors

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the plug-ins are compiled with cc")
X = np.array([1, 2, 3], np.float32)


def compiled(source: str, folder: Path, *words: str) -> Path:
    """A shared library made of a file of bindings/c."""
    library = folder / f"lib{Path(source).stem}.so"
    command = ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden", f"-I{ROOT / 'spec'}", *words]
    subprocess.run([*command, ROOT / "bindings/c" / source, "-o", library], check=True)
    return library


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runtime that multiplies with 2 and adds 1."""
    return compiled("runtime_sample.c", tmp_path_factory.mktemp("plugins"))


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "line.sample"
    path.write_text("nnrp-sample\n")
    return path


def load(sample: Path, model_file: Path, **options: Any) -> nnrp.Model:
    return nnrp.load(model_file, runtime="sample", plugins=[sample], options=options)


def test_a_plug_in_is_described_like_any_runtime_and_found_in_a_folder(sample: Path, model_file: Path) -> None:
    renamed = nnrp.load(model_file, runtime="sample", plugins=[sample], inputs=[{"name": "given", "shape": [3]}], outputs={"y": "taken"})
    assert renamed(given=X)["taken"].tolist() == [3, 5, 7]
    with pytest.raises(errors.ShapeMismatch):
        renamed(X[:2])
    server = test_cli.Serving(model_file, "--runtime", "sample", "--plugin", sample.parent, "--option", "scale=5", "--outputs", '["taken"]')
    assert nnrp.connect(server.about["http"], model="line")(X)["taken"].tolist() == [6, 11, 16]
    assert server.stop() == 0


def test_a_plug_in_loads_and_answers_like_any_runtime(sample: Path, model_file: Path) -> None:
    model = load(sample, model_file)

    assert model(X)["y"].tolist() == [3, 5, 7]
    assert model.session is not None
    assert (model.session.runtime, model.session.format, model.session.version) == ("sample", "sample", "1.0")
    assert model.session.settings == {"scale": 2, "delay_ms": 0, "precision": "strict", "device": "cpu"}
    assert model.metadata()["platform"] == "sample_sample"


def test_its_output_is_its_own_memory_and_outlives_the_model(sample: Path, model_file: Path) -> None:
    y = load(sample, model_file, scale=-1)(np.ones(1 << 20, np.float32))["y"]

    assert not y.any()
    assert not y.flags.owndata


def test_its_options_are_told_and_checked(sample: Path, model_file: Path) -> None:
    told = next(runtime for runtime in nnrp.Engine(plugins=[str(sample)]).runtimes() if runtime["name"] == "sample")

    assert told["options"]["properties"]["scale"]["default"] == 2
    with pytest.raises(errors.UnknownOption, match="unknown option 'factor'; sample knows scale, delay_ms, stream"):
        load(sample, model_file, factor=1)
    with pytest.raises(errors.InvalidOption, match=r"options\.scale"):
        load(sample, model_file, scale="2")


def test_a_file_that_the_plug_in_refuses_is_its_error_without_a_path(sample: Path, tmp_path: Path) -> None:
    (tmp_path / "other.sample").write_text("something else")

    with pytest.raises(errors.InvalidModel) as raised:
        load(sample, tmp_path / "other.sample")
    assert raised.value.details["runtime"] == "sample"
    assert str(tmp_path) not in f"{raised.value} {raised.value.details}"


def test_requests_are_checked_before_the_plug_in_sees_them(sample: Path, model_file: Path) -> None:
    model = load(sample, model_file)

    with pytest.raises(errors.DatatypeMismatch):
        model(X.astype(np.float64))
    with pytest.raises(errors.ShapeMismatch):
        model(X.reshape(1, 3))
    with pytest.raises(errors.MissingInput):
        model()


def test_a_timeout_ends_a_long_run(sample: Path, model_file: Path) -> None:
    model = load(sample, model_file, delay_ms=600_000)
    started = time.monotonic()

    with pytest.raises(nnrp.DeadlineExceeded):
        model.infer({"x": X}, timeout=0.5)
    assert time.monotonic() - started < 60


def test_four_threads_share_a_plug_in(sample: Path, model_file: Path) -> None:
    model = load(sample, model_file)
    wrong: list[object] = []

    def ask(value: int) -> None:
        for _ in range(500):
            answer = model(np.full(4, value, np.float32))["y"].tolist()
            if answer != [2 * value + 1] * 4:
                wrong.append(answer)

    threads = [threading.Thread(target=ask, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("library", ["/no/such/libx.so", str(ROOT / "README.md")])
def test_a_file_that_is_no_plug_in_is_refused_by_its_name_alone(library: str) -> None:
    with pytest.raises(errors.RuntimeNotInstalled) as raised:
        nnrp.Engine(plugins=[library])
    assert Path(library).name in str(raised.value)
    assert str(Path(library).parent) not in f"{raised.value} {raised.value.details}"


def test_a_wrong_answer_names_runtime_and_output(tmp_path: Path) -> None:
    bad = compiled("plugins/bad.c", tmp_path)
    tensor = {"datatype": "FP32", "shape": [-1]}
    model_file = tmp_path / "session.json"
    model_file.write_text(json.dumps({"inputs": [tensor | {"name": "x"}], "outputs": [tensor | {"name": "y"}]}))
    model = nnrp.load(model_file, runtime="bad", plugins=[bad], options={"do": "rank_2"})

    with pytest.raises(errors.RunFailed, match=r"runtime bad: output 'y': expected shape \[-1\], got \[2, 1\]"):
        model(X)


# Behind a server


class Serving:
    """``nnrp serve`` with a folder of plug-ins, one of which cannot be opened."""

    def __init__(self, plugins: Path, model_file: Path, options: str) -> None:
        command = [str(Path(sys.executable).with_name("nnrp")), "serve", str(model_file), "--runtime", "sample", "--options", options]
        environment = os.environ | {"NNRP_PLUGINS": str(plugins)}
        self.process = subprocess.Popen([*command, "--http-port", "0", "--grpc-port", "0", "--json"], stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        about = self.process.stdout.readline()
        assert about, "nnrp serve did not start"
        self.url = json.loads(about)["http"]

    def post(self, document: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        request = urllib.request.Request(f"{self.url}/v2/models/line/infer", json.dumps(document).encode(), {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)


@pytest.fixture
def serving(sample: Path, model_file: Path, request: pytest.FixtureRequest) -> Iterator[Serving]:
    (sample.parent / "libbroken.so").write_text("no library")
    server = Serving(sample.parent, model_file, request.param)
    yield server
    server.process.terminate()
    server.process.communicate(timeout=60)
    assert server.process.returncode == 0


X_JSON = {"name": "x", "datatype": "FP32", "shape": [3], "data": [1, 2, 3]}


@pytest.mark.parametrize("serving", ["{}"], indirect=True)
def test_a_plug_in_of_the_folder_answers_over_rest(serving: Serving) -> None:
    status, answer = serving.post({"inputs": [X_JSON]})

    assert (status, answer["outputs"][0]["data"]) == (200, [3, 5, 7])
    assert serving.post({"inputs": [X_JSON | {"datatype": "INT32"}]})[1]["reason"] == "DATATYPE_MISMATCH"


@pytest.mark.parametrize("serving", ['{"delay_ms": 600000}'], indirect=True)
def test_a_deadline_ends_a_plug_ins_run_over_rest(serving: Serving) -> None:
    status, answer = serving.post({"inputs": [X_JSON], "parameters": {"timeout": 50_000}})

    assert (status, answer["reason"]) == (504, "DEADLINE")


def test_a_plug_in_of_the_folder_that_cannot_be_opened_says_so(sample: Path) -> None:
    (sample.parent / "libbroken.so").write_text("no library")
    program = "import json, nnrp; print(json.dumps(nnrp.Engine().runtimes()))"
    done = subprocess.run([sys.executable, "-c", program], env=os.environ | {"NNRP_PLUGINS": str(sample.parent)}, capture_output=True, text=True, check=True)

    told = {runtime["name"]: runtime for runtime in json.loads(done.stdout)}
    assert told["libbroken.so"]["error"]["reason"] == "RUNTIME_NOT_INSTALLED"
    assert told["libbroken.so"]["error"]["message"] == "plug-in 'libbroken.so': it cannot be opened"
    assert "error" not in told["sample"]
