"""The command line, as a person and as a machine use it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from test_archives import zipped
from zoo import identity, repository, scale

import nnrp
from nnrp.cli import show
from nnrp.runtimes.package import plain

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
        latest = ("infer", url, "scale", "--input", "x=[[1,2,3,4]]")
        assert (json.loads(run(*latest, "--json"))["model_version"], "scale version 10, " in run(*latest)) == ("10", True)


def test_a_table_shows_the_first_of_many_tensors_and_how_many_more_there_are() -> None:
    tensors = [{"name": f"x{index}", "datatype": "FP32", "shape": [-1]} for index in range(100)]
    assert show.signature(tensors) == "x0 FP32 [-1], x1 FP32 [-1], x2 FP32 [-1], x3 FP32 [-1], … 96 more"
    assert show.signature(tensors[:5]).endswith("x4 FP32 [-1]")
    assert show.signature([]) == ""


def test_infer_runs_a_file_and_reads_every_kind_of_input(folder: Path, tmp_path: Path) -> None:
    file = folder / "scale" / "2" / "model.onnx"
    (tmp_path / "x.json").write_text("[[1, 2, 3, 4]]")
    (tmp_path / "x.raw").write_bytes(np.asarray([[1, 2, 3, 4]], np.float32).tobytes())
    for value in ("[[1, 2, 3, 4]]", f"@{tmp_path / 'x.json'}", f"@{tmp_path / 'x.raw'}"):
        assert json.loads(run("infer", file, "--input", f"x={value}", "--json"))["outputs"][0]["data"] == [2, 4, 6, 8]
    assert json.loads(run("infer", file, "--input", "x=[[1,2,3,4]]", "--runtime", "reference", "--json"))["outputs"][0]["data"] == [2, 4, 6, 8]
    run("infer", file, "--input", "x=[[1,2,3,4]]", "--output", f"y={tmp_path / 'y.npy'}")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), [[2, 4, 6, 8]])


def test_infer_takes_a_file_of_any_name_and_tells_what_it_cannot_write(tmp_path: Path) -> None:
    file = scale(tmp_path / "my model.onnx", 2.0)
    words = ("-i", "x=[[1,2,3,4]]")
    assert "give the model another" in run("infer", file, *words, status=1)
    assert "[2. 4. 6. 8.]" in run("infer", f"mine={file}", *words)
    assert "cannot be written" in run("infer", file, "mine", *words, "-o", "y=/proc/y.npy", status=1)


def test_a_full_disk_behind_the_output_is_told_in_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([NNRP, "runtimes"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "nnrp: No space left on device\n")


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
    # It has no version.
    assert next(line for line in text.splitlines() if line.startswith("producer")).split() == ["producer", "name", "nnrp-tests"]


def test_inspect_tells_which_runtimes_read_a_file(tmp_path: Path, folder: Path) -> None:
    about = json.loads(run("inspect", folder / "two_by_two" / "1" / "model.onnx", "--json"))
    assert {"onnxruntime", "openvino", "tract", "reference"} <= set(about["runtimes"])
    compiled = tmp_path / "model.bin"
    compiled.write_bytes(b"\x1c\0\0\0IREE" + bytes(24))
    about = json.loads(run("inspect", compiled, "--json"))
    assert (about["format"], about["signature"]) == ("vmfb", None)
    assert [*about["runtimes"], *about["not_installed"]] == ["iree"]


def test_inspect_tries_each_runtime_that_reads_a_file(tmp_path: Path) -> None:
    texts = identity(tmp_path / "texts.onnx", "BYTES")
    tried = {one["runtime"]: one for one in json.loads(run("inspect", texts, "--try", "--json"))["tried"]}
    assert {runtime for runtime, one in tried.items() if one["loaded"]} == {"onnxruntime", "reference"}
    assert (tried["openvino"]["error"]["reason"], tried["tract"]["error"]["reason"]) == ("NOT_OFFERED", "NOT_OFFERED")
    lines = run("inspect", texts, "--try").splitlines()
    assert any(line.split()[:2] == ["onnxruntime", "yes"] for line in lines)
    assert any(line.split()[:2] == ["tract", "no"] and "NOT_OFFERED" in line for line in lines)


def test_inspect_takes_what_a_model_is_loaded_from(tmp_path: Path, folder: Path) -> None:
    archive = tmp_path / "archive.zip"
    archive.write_bytes(zipped({"model.onnx": (folder / "two_by_two" / "1" / "model.onnx").read_bytes()}))
    for place in (folder / "two_by_two", archive, f"file:{archive}"):
        assert json.loads(run("inspect", place, "--json"))["format"] == "onnx"
    assert "INVALID_OPTION" in run("inspect", folder, status=1)
    assert "expected one model version, got 3: scale " in run("inspect", folder / "scale", status=1)
    (tmp_path / "nothing").mkdir()
    assert "nothing" in run("inspect", tmp_path / "nothing", status=1)


def test_names_in_a_file_are_no_commands_for_a_terminal(tmp_path: Path) -> None:
    path, name = tmp_path / "names.onnx", "\x1b[31mred\x9b2J\u202e"
    identity(path)
    model = onnx.load(path)
    model.graph.input[0].name = model.graph.node[0].input[0] = name
    onnx.save(model, path)
    server = Serving(path)
    asked = ("inspect", path), ("compare", path, "--runtimes", "onnxruntime,reference", "--seconds", "0"), ("models", server.about["http"])
    try:
        for words in asked:
            for further in ((), ("--json",)):
                assert not set(run(*words, *further)) & {"\x1b", "\x9b", "\u202e"}
    finally:
        server.stop()
    assert not set(repr(nnrp.load(path))) & {"\x1b", "\x9b", "\u202e"}
    told = json.loads(run("inspect", path, "--json"))
    assert told["signature"]["inputs"][0]["name"] == name


def test_what_a_terminal_takes_for_more_than_text_is_the_same_in_rust_in_python_and_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    engine = nnrp.Engine()
    for character in map(chr, [*range(0x100), *range(0x2000, 0x2100)]):
        with pytest.raises(nnrp.NotFound) as raised:
            engine.model(f"a{character}b")
        unseen = "\ufffd" in raised.value.message
        assert (plain(character) != character) is unseen, ascii(character)
        show.document(character)
        told = capsys.readouterr().out.removesuffix("\n")
        assert not unseen or character not in told, ascii(character)


def test_which_runtime_was_taken_and_why_no_other_is_said(folder: Path) -> None:
    file = folder / "two_by_two" / "1" / "model.onnx"
    asked = ("infer", file, "--runtime", "tensorrt,openvino", "--input", "a=[1]", "--input", "b=[2]")
    assert "Note: 'two_by_two' runs on openvino: " in run(*asked)
    session = json.loads(run(*asked, "--json"))["session"]
    assert (session["runtime"], session["chosen"]["not_taken"][0]["runtime"], session["settings"]["precision"]) == ("openvino", "tensorrt", "strict")
    server = Serving(file, "--runtime", "tensorrt,onnxruntime", "--isolation", "process")
    (model,) = server.about["models"]
    assert server.stop() == 0
    assert model["session"]["chosen"]["not_taken"][0]["runtime"] == "tensorrt"
    assert model["session"]["settings"]["isolation"] == "process"


def test_a_model_in_python_waits_for_no_other_thread_longer_than_half_a_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    ports = ("--option", 'inputs={"x": ["FP32", [1]]}', "--option", 'outputs={"y": ["FP32", [1]]}')
    server = Serving("prone:turns", "--runtime", "callable", *ports)
    try:
        assert nnrp.connect(server.about["http"], "turns")(np.zeros(1, np.float32))["y"] == np.float32(0.0005)
    finally:
        server.stop()


def test_version_names_the_runtimes() -> None:
    about = json.loads(run("version", "--json"))
    assert about["runtimes"]["onnxruntime"].count(".") == 2
    assert about["nnrp"] in run("version")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("infer", "nowhere.onnx", "--input", "x=[1]"), "FILE_NOT_FOUND"),
        (("serve", "nowhere"), "FILE_NOT_FOUND"),
        (("serve", "name=nowhere"), "FILE_NOT_FOUND"),
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
    told = run("serve", tmp_path, "--http-port", "0", "--grpc-port", "0", status=1)
    assert "model 'bad' version '1'" in told
    assert "INVALID_MODEL" in told
    server = Serving(tmp_path, tmp_path / "nowhere.onnx", folder / "scale" / "1" / "model.onnx", f"other={folder / 'scale' / '2' / 'model.onnx'}", "--skip-bad")
    assert [model["name"] for model in server.about["models"]] == ["other", "scale"]
    assert server.stop(signal.SIGINT) == 0


def test_a_description_that_leads_nowhere_is_skipped_as_any_bad_model_is(tmp_path: Path, folder: Path) -> None:
    home = tmp_path / "home"
    for name, said in (("circle", 'path = "."'), ("absent", 'path = "nowhere.onnx"'), ("broken", "path =")):
        (home / name).mkdir(parents=True)
        (home / name / "model.toml").write_text(said)
    assert "FILE_NOT_FOUND" in run("serve", home, "--http-port", "0", "--grpc-port", "0", status=1)
    assert "nested too deeply" in run("serve", home, "--options", "[" * 50_000, status=1)
    server = Serving(home, home / "circle" / "model.toml", folder / "scale" / "1" / "model.onnx", "--skip-bad")
    assert [model["name"] for model in server.about["models"]] == ["scale"]
    server.process.send_signal(signal.SIGTERM)
    told = server.process.communicate(timeout=60)[1]
    for name, reason in (("circle", "INVALID_OPTION"), ("absent", "FILE_NOT_FOUND"), ("broken", "MALFORMED")):
        assert f"not served: model '{name}'" in told
        assert reason in told
    assert told.count("model 'circle'") == 2
    assert server.process.returncode == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-i", "x=[NaN]"], "MALFORMED"),
        (["-i", "x=[1e400]"], "VALUE_OUT_OF_RANGE"),
        (["-i", "x=" + "[" * 100_000], "MALFORMED"),
        (["-i", "x=[1]", "-i", "x=[1]"], "INVALID_OPTION"),
        (["-i", "x=[1]", "--shape", "x=1", "--shape", "x=2"], "INVALID_OPTION"),
        (["-i", "x=[1]", "-o", "y", "-o", "y=y.npy"], "INVALID_OPTION"),
        (["-i", "x=[1]", "--shape", "q=2"], "INVALID_OPTION"),
        (["-i", "x=[1]", "--shape", "x=a"], "INVALID_OPTION"),
        (["-i", "x=[1]", "--shape", "x=-5"], "INVALID_OPTION"),
        (["-i", "x=[1]", "-o", "y=absent/y.npy"], "FILE_NOT_FOUND"),
        (["-i", "x=@{folder}/lie.npy"], "MALFORMED"),
        (["-i", "x=@{folder}/latin.json"], "MALFORMED"),
    ],
)
def test_what_cannot_be_an_input_is_one_line_that_says_why(folder: Path, tmp_path: Path, words: list[str], says: str) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999,), }"
    (tmp_path / "lie.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    (tmp_path / "latin.json").write_bytes(b'["\xff"]')

    error = run("infer", folder / "identity_fp32" / "1" / "model.onnx", *(word.format(folder=tmp_path) for word in words), status=1)

    assert error.startswith("nnrp: --")
    assert error.rstrip().endswith(f"{says})")
    assert error.count("\n") == 1


def test_ctrl_c_ends_a_command_that_waits_for_its_answer(folder: Path) -> None:
    server = Serving(folder / "slow" / "1" / "model.onnx")
    asking = subprocess.Popen([NNRP, "infer", server.about["http"], "slow", "-i", "n=1000000000"], stderr=subprocess.DEVNULL)
    _until_running(server.process.pid)
    asking.send_signal(signal.SIGINT)
    assert asking.wait(30) == -signal.SIGINT
    assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_answers_what_is_in_flight(folder: Path, number: int) -> None:
    server = Serving(folder / "slow" / "1" / "model.onnx")
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
    until = time.monotonic() + 60
    while not any(_named(name).startswith("nnrp:slow") for name in Path(f"/proc/{pid}/task").glob("*/comm")):
        assert time.monotonic() < until, "the request did not reach the model's worker in 60 s"


def _named(thread: Path) -> str:
    with suppress(OSError):  # It has ended meanwhile.
        return thread.read_text()
    return ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_stop_does_not_wait_and_says_so_to_who_asked(folder: Path, number: int) -> None:
    server = Serving(folder / "slow" / "1" / "model.onnx", "--grace", "3600")
    body = json.dumps({"inputs": [{"name": "n", "shape": [], "datatype": "INT64", "data": [10**9]}]}).encode()
    told: list[dict[str, Any]] = []

    def ask() -> None:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{server.about['http']}/v2/models/slow/infer", body, timeout=60)
        told.append(json.loads(refused.value.read()))

    asking = threading.Thread(target=ask)
    asking.start()
    _until_running(server.process.pid)
    server.process.send_signal(number)
    _until_not_ready(server.about["http"])
    assert server.stop(number) == 0
    asking.join()
    assert [one["reason"] for one in told] == ["DRAINING"]


def _until_not_ready(url: str) -> None:
    """Wait until a server says, while a request is in flight, that it takes nothing new."""
    until = time.monotonic() + 60
    told: tuple[int, Any] = (200, None)
    while told[0] == 200 and time.monotonic() < until:
        try:
            urllib.request.urlopen(f"{url}/v2/health/ready", timeout=60).close()
        except urllib.error.HTTPError as error:
            told = (error.code, json.loads(error.read())["reason"])
    assert told == (503, "DRAINING")
    urllib.request.urlopen(f"{url}/v2/health/live", timeout=60).close()
