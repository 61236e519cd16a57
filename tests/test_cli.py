"""The command line, as a person and as a machine use it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zoo import repository

NNRP = Path(sys.executable).with_name("nnrp")


def run(*words: object, status: int = 0) -> str:
    """Run the command; the status must be the one expected."""
    done = subprocess.run([NNRP, *map(str, words)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if status == 0 else done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of the zoo."""
    return repository(tmp_path_factory.mktemp("cli"))


class Serving:
    """``nnrp serve --json`` as a process of its own."""

    def __init__(self, *words: object) -> None:
        command = [NNRP, "serve", *map(str, words), "--http-port", "0", "--grpc-port", "0", "--json"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        self.about: dict[str, Any] = json.loads(line)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop; returns its status."""
        self.process.send_signal(number)
        self.process.communicate(timeout=60)
        return self.process.returncode


@pytest.fixture(scope="module")
def serving(folder: Path) -> Iterator[dict[str, Any]]:
    """A server of the repository."""
    server = Serving(folder)
    yield server.about
    assert server.stop() == 0


def test_models_lists_what_a_server_serves(serving: dict[str, Any]) -> None:
    for url in (serving["http"], serving["grpc"]):
        found = json.loads(run("models", url, "--json"))
        assert ("scale", "10") in {(model["name"], model["version"]) for model in found}
        assert "two_by_two" in run("models", url)


def test_infer_asks_a_server_over_rest_and_grpc(serving: dict[str, Any], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((1, 4), np.float32))
    for url in (serving["http"], serving["grpc"]):
        answer = json.loads(run("infer", url, "scale", "--input", f"x=@{tmp_path / 'x.npy'}", "--version", "2", "--json"))
        assert answer["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [1, 4], "data": [2.0] * 4}]
    assert "y" in run("infer", serving["http"], "scale", "--input", "x=[[1,2,3,4]]")


def test_infer_runs_a_file_and_reads_every_kind_of_input(folder: Path, tmp_path: Path) -> None:
    file = folder / "scale" / "2" / "model.onnx"
    (tmp_path / "x.json").write_text("[[1, 2, 3, 4]]")
    (tmp_path / "x.raw").write_bytes(np.asarray([[1, 2, 3, 4]], np.float32).tobytes())
    for value in ("[[1, 2, 3, 4]]", f"@{tmp_path / 'x.json'}", f"@{tmp_path / 'x.raw'}"):
        assert json.loads(run("infer", file, "--input", f"x={value}", "--json"))["outputs"][0]["data"] == [2, 4, 6, 8]
    run("infer", file, "--input", "x=[[1,2,3,4]]", "--output", f"y={tmp_path / 'y.npy'}")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), [[2, 4, 6, 8]])


def test_infer_casts_nothing_silently(folder: Path) -> None:
    file = folder / "two_by_two" / "1" / "model.onnx"
    for value, reason in (("[1.7]", "DATATYPE_MISMATCH"), ("[3000000000]", "VALUE_OUT_OF_RANGE"), ("[[1],[1,2]]", "SHAPE_MISMATCH")):
        assert reason in run("infer", file, "--input", f"a={value}", "--input", "b=[1]", status=1)


def test_inspect_tells_signature_opset_and_size(folder: Path) -> None:
    file = folder / "two_by_two" / "1" / "model.onnx"
    about = json.loads(run("inspect", file, "--json"))
    assert about["byte_size"] == file.stat().st_size
    assert about["format"] == "onnx"
    assert [tensor["name"] for tensor in about["signature"]["inputs"]] == ["a", "b"]
    text = run("inspect", file)
    for word in ("INT32", "product", "17"):
        assert word in text


def test_version_names_the_runtimes() -> None:
    about = json.loads(run("version", "--json"))
    assert about["runtimes"]["onnxruntime"].count(".") == 2
    assert about["nnrp"] in run("version")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("infer", "nowhere.onnx", "--input", "x=[1]"), "FILE_NOT_FOUND"),
        (("serve", "nowhere"), "FILE_NOT_FOUND"),
        (("inspect", "nowhere.onnx"), "FILE_NOT_FOUND"),
        (("models", "http://127.0.0.1:9"), "CONNECTION_FAILED"),
        (("models", "ftp://127.0.0.1"), "INVALID_OPTION"),
    ],
)
def test_mistakes_are_one_line_with_a_reason(words: tuple[str, ...], reason: str) -> None:
    assert reason in run(*words, status=1)
    assert json.loads(run(*words, "--json", status=1))["reason"] == reason


def test_help_teaches() -> None:
    assert "serve" in run("--help")
    for command in ("serve", "infer", "models", "inspect", "version"):
        assert "--json" in run(command, "--help")


def test_a_port_that_is_taken_is_an_error_that_names_it(folder: Path, serving: dict[str, Any]) -> None:
    port = serving["http"].rsplit(":", 1)[1]
    assert port in run("serve", folder, "--http-port", port, "--grpc-port", "0", status=1)


def test_a_bad_model_stops_the_start_unless_told_to_skip_it(tmp_path: Path, folder: Path) -> None:
    bad = tmp_path / "bad" / "1" / "model.onnx"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"not a model")
    assert "INVALID_MODEL" in run("serve", tmp_path, "--http-port", "0", "--grpc-port", "0", status=1)
    server = Serving(tmp_path, folder / "scale" / "1" / "model.onnx", "--skip-bad")
    assert [model["name"] for model in server.about["models"]] == ["scale"]
    assert server.stop(signal.SIGINT) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_answers_what_is_in_flight(folder: Path, number: int) -> None:
    server = Serving(folder / "slow" / "1" / "model.onnx", "--name", "slow")
    body = json.dumps({"inputs": [{"name": "n", "shape": [], "datatype": "INT64", "data": [400]}]}).encode()
    answers: list[int] = []

    def ask() -> None:
        with urllib.request.urlopen(f"{server.about['http']}/v2/models/slow/infer", body, timeout=60) as answer:
            answers.append(answer.status)

    asking = threading.Thread(target=ask)
    asking.start()
    _until_running(server.process.pid)
    assert server.stop(number) == 0
    asking.join()
    assert answers == [200]


def _until_running(pid: int) -> None:
    """Until the model's worker is there, so that the request surely is in flight."""
    while not any(name.read_text().startswith("nnrp:slow") for name in Path(f"/proc/{pid}/task").glob("*/comm")):
        pass
