"""`nnrp compare`: real models in real child processes, on the runtimes that the tests have."""

from __future__ import annotations

import json
import math
import os
import re
import select
import signal
import subprocess
import sys
from contextlib import suppress
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lite
import numpy as np
import onnx
import pytest
import zoo
from comparing import NNRP, PLAIN, net, quick, run, verdicts
from onnx import TensorProto, helper

from nnrp import errors
from nnrp.compare import pin
from nnrp.compare.difference import Difference
from nnrp.compare.wire import Wire


@pytest.fixture(scope="module")
def magika() -> Path:
    package = find_spec("magika")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "models/standard_v3_3/model.onnx"


# Verdicts


def test_one_runtime_twice_is_the_same(double_file: Path) -> None:
    report = quick(double_file, "onnxruntime,onnxruntime")

    assert verdicts(report) == {"onnxruntime": "reference", "onnxruntime #2": "same"}
    assert report.status == 0
    assert report.results[1].worst() == Difference("y", "FP32", 1e-4, 0.0, 0.0, 0.0, 0, 8, top1=1.0)


def test_a_real_model_moves_within_tolerance_and_its_costs_are_told(magika: Path) -> None:
    report = quick(magika, "onnxruntime,openvino", precision="strict,bf16", tolerance={"target_label": 0.3})

    openvino = {result.precision: result for result in report.results if result.candidate.choice.runtime == "openvino"}
    assert openvino["strict"].verdict in {"same", "within"}
    assert openvino["strict"].largest("max_rel") < 1e-4  # type: ignore[operator]
    for result in report.results:
        assert result.latency is not None
        assert 0 < result.latency.at(50) <= result.latency.at(99)
        assert result.memory_bytes is not None
        assert result.memory_bytes > 1 << 20
        assert result.load_s is not None
        assert result.session["settings"]["precision"] == result.precision
    assert any("onnxruntime bf16 was left out" in note for note in report.notes), "what ONNX Runtime does not offer is a failure of nobody"


def test_changed_weights_differ_and_the_place_is_told(tmp_path: Path) -> None:
    weights = np.zeros((1, 8))
    good = net(tmp_path / "good.onnx", weights)
    weights[0, 5] = 0.5
    bad = net(tmp_path / "bad.onnx", weights)

    report = quick([good, bad], "onnxruntime", shapes={"x": (3, 8)})

    worst = report.results[1].worst()
    assert worst is not None
    assert (worst.verdict, worst.differing, worst.elements, worst.where and worst.where.index[1]) == ("differs", 6, 48, 5)
    assert worst.max_abs == pytest.approx(0.5, rel=1e-6)
    assert report.status == 1
    assert quick([good, bad], "onnxruntime", tolerance=1.0).status == 0
    assert quick([good, bad], "onnxruntime", tolerance={"y": 1e-9}).status == 1


def test_a_name_for_what_is_not_there_is_not_passed_over(tmp_path: Path) -> None:
    model = net(tmp_path / "one.onnx", np.ones((1, 4)))
    with pytest.raises(errors.InvalidOption, match=r"name r=zz: expected one of x, y, which the reference's file has, got zz$"):
        quick(model, names={"r": "zz"})
    assert quick(model, names={"r": "y"}).notes == ("name r=y: no file has an input or output 'r'",)


def test_the_reference_is_whom_the_user_names(tmp_path: Path) -> None:
    files = [net(tmp_path / f"{name}.onnx", np.full((1, 2), value)) for name, value in (("one", 1.0), ("two", 2.0))]

    assert verdicts(quick(files, "onnxruntime", reference="two.onnx")) == {"one.onnx onnxruntime": "differs", "two.onnx onnxruntime": "reference"}
    with pytest.raises(errors.InvalidOption, match=r"'two\.onnx onnxruntime'"):
        quick(files, "onnxruntime", reference="three")


def test_other_names_are_matched_by_order_and_numbers_given_without_loss(tmp_path: Path) -> None:
    weights = np.arange(4.0).reshape(1, 4)
    first = net(tmp_path / "first.onnx", weights, datatype=TensorProto.INT64)
    second = net(tmp_path / "second.onnx", weights, ("Identity_1:0", "StatefulPartitionedCall:0"), TensorProto.INT32)

    report = quick([first, second], "onnxruntime")

    assert report.results[1].verdict == "same"
    told = " ".join(report.results[1].notes)
    for words in ("Identity_1:0 is x", "StatefulPartitionedCall:0 is y", "x as INT32"):
        assert words in told
    large = quick([first, second], "onnxruntime", ranges={"x": (2**40, 2**40)})
    assert large.results[1].failure is not None
    assert large.results[1].failure.reason == "DATATYPE_MISMATCH"


def test_one_net_in_two_formats_runs_where_each_is_read(tmp_path: Path) -> None:
    import openvino

    file = net(tmp_path / "net.onnx", np.ones((1, 4)))
    openvino.save_model(openvino.Core().read_model(file), tmp_path / "net.xml", compress_to_fp16=False)

    report = quick([file, tmp_path / "net.xml"], "onnxruntime,openvino")

    assert verdicts(report) == {"net.onnx onnxruntime": "reference", "net.onnx openvino": "same", "net.xml openvino": "same"}
    assert report.notes == ("onnxruntime does not read openvino_ir: 'net.xml' was left out",)
    assert pin.write(report).read_text().count("net.bin") == 1, "the weights beside the file are the model too"


def test_a_description_stands_for_its_model_on_the_runtimes_that_read_it(tmp_path: Path) -> None:
    file, described = zoo.scale(tmp_path / "scale.onnx", 2.0), tmp_path / "model.toml"
    lite.scale(tmp_path / "other.tflite", [-1, 4], {"main": 2.0})
    described.write_text('path = "other.tflite"\ninputs = ["a"]\noutputs = ["b"]\n')

    report = quick([file, described], "onnxruntime,litert")

    assert verdicts(report) == {"scale.onnx onnxruntime": "reference", "model.toml litert": "same"}
    assert "b is y" in " ".join(report.results[1].notes)


def test_a_tolerance_for_what_is_no_output_is_refused(double_file: Path) -> None:
    with pytest.raises(errors.InvalidOption, match=r"tolerance yy: expected one of y$"):
        quick(double_file, tolerance={"yy": 0.0})


def test_a_comparison_of_nothing_proves_nothing(tmp_path: Path, double_file: Path) -> None:
    report = quick(double_file, shapes={"x": [0, 4]})
    assert (report.status, report.results[1].verdict) == (2, "failed")
    assert "nothing was compared" in report.table()
    # An output that may be empty, beside one that is not.
    nodes = [helper.make_node("NonZero", ["x"], ["where"]), helper.make_node("Identity", ["x"], ["y"])]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy")
    where = helper.make_tensor_value_info("where", TensorProto.INT64, [1, "n"])
    model = helper.make_model(helper.make_graph(nodes, "some", [x], [where, y]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "some.onnx")
    report = quick(tmp_path / "some.onnx", ranges={"x": (0, 0)})
    assert (report.status, report.results[1].notes) == (0, ("nothing was compared: no elements in where",))


def test_answers_that_change_from_run_to_run_are_told(tmp_path: Path) -> None:
    node = helper.make_node("RandomNormalLike", ["x"], ["y"])
    x, y = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, [4])] for name in "xy")
    onnx.save(helper.make_model(helper.make_graph([node], "random", x, y), opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "r.onnx")

    report = quick(tmp_path / "r.onnx")

    assert not any(result.repeatable for result in report.results)
    assert "from run to run" in report.table()


def test_any_datatype_can_be_compared(tmp_path: Path) -> None:
    for datatype in ("BYTES", "BOOL", "BF16", "INT8"):
        report = quick(zoo.identity(tmp_path / f"{datatype}.onnx", datatype), random=1)
        assert verdicts(report) == {"plain": "reference", "onnxruntime": "same"}, report.table()


# What goes wrong


def children() -> list[int]:
    found = list[int]()
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # It has ended meanwhile.
            found += map(int, (task / "children").read_text().split())
    return found


def test_a_crash_is_one_row_and_the_others_are_compared(double_file: Path) -> None:
    def crash(what: str, share: float) -> None:
        if what == "victim: case random-1":
            os.kill(children()[-1], signal.SIGSEGV)

    report = quick(double_file, "onnxruntime,victim=onnxruntime,last=onnxruntime", progress=crash)

    assert verdicts(report) == {"onnxruntime": "reference", "victim": "failed", "last": "same"}
    failure = report.results[1].failure
    assert failure is not None
    assert (failure.stage, failure.reason) == ("case random-1", "LOST")
    assert "SIGSEGV" in failure.message
    assert report.status == 2
    assert not children()


def test_a_run_that_never_ends_is_ended(slow_file: Path, tmp_path: Path) -> None:
    (tmp_path / "forever.json").write_text(json.dumps({"n": 10**9}))

    report = quick(slow_file, inputs=tmp_path, timeout=3)

    assert report.results[0].failure is not None
    assert "no end after 3" in report.results[0].failure.message
    assert not children()


def test_a_runtime_that_is_not_there_is_one_row(double_file: Path) -> None:
    report = quick(double_file, "onnxruntime,onnxruntime,nosuchruntime")

    assert list(verdicts(report).values()) == ["reference", "same", "failed"]
    assert "nosuchruntime" in report.table()
    assert report.status == 2


def test_without_its_reference_nothing_is_the_same(double_file: Path) -> None:
    report = quick(double_file, "nosuchruntime,onnxruntime")

    failure = report.results[1].failure
    assert failure is not None
    assert failure.reason == "NO_REFERENCE"
    assert report.results[1].latency is not None


def test_a_file_that_is_no_model_fails_in_every_row(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")

    report = quick(tmp_path / "bad.onnx")

    assert set(verdicts(report).values()) == {"failed"}
    assert {result.failure and result.failure.reason for result in report.results} == {"INVALID_MODEL"}


@pytest.mark.parametrize(
    ("words", "kind", "text"),
    [
        ({"runtimes": "onnxruntime"}, errors.InvalidOption, "two or more"),
        ({"runtimes": "onnxruntime;openvino"}, errors.InvalidOption, "comma"),
        ({"runtimes": "onnxruntime{oops}"}, errors.InvalidOption, "JSON"),
        ({"precision": "fp4"}, errors.InvalidOption, "strict"),
        ({"shapes": {"z": (1,)}}, errors.InvalidOption, "expected one of x"),
        ({"shapes": {"x": (1, 5)}}, errors.InvalidOption, "x FP32"),
        ({"shapes": {"x": (2**40, 4)}}, errors.InvalidOption, "elements"),
        ({"inputs": "nowhere"}, errors.FileNotFound, "no folder"),
        ({"random": 0}, errors.InvalidOption, "random"),
        ({"tolerance": -1.0}, errors.InvalidOption, "tolerance"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(double_file: Path, words: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        quick(double_file, **words)


# What comes out


class Reader(HTMLParser):
    """Collects a document's elements, and that each is closed."""

    VOID = frozenset({"meta", "circle", "line"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.loads: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.loads += [name for name, _ in attrs if name in {"src", "href", "xlink:href", "data", "srcset", "action"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_well_formed_loads_nothing_and_believes_no_name(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>&"
    file = net(tmp_path / "a&b.onnx", np.ones((1, 3)), ("x", hostile))
    report = quick([file, net(tmp_path / "c.onnx", np.full((1, 3), 1.5), ("x", hostile))], "onnxruntime,nosuchruntime")

    page = report.html()

    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open
    assert not reader.loads
    assert "script" not in reader.seen
    assert reader.seen.count("svg") == 3
    assert hostile in reader.text
    assert not re.search(r"https?://|@import|url\(", page)
    assert "default-src 'none'" in page
    assert len(page) < 100_000


def test_the_report_is_json_that_any_reader_takes(tmp_path: Path) -> None:
    files = [net(tmp_path / f"{name}.onnx", np.full((1, 2), value)) for name, value in (("one", 1.0), ("nan", math.nan))]

    told = json.loads(json.dumps(quick(files, "onnxruntime").to_json(), allow_nan=False))

    assert told["status"] == 1
    bad = told["results"][1]
    assert (bad["verdict"], bad["max_abs"], bad["outputs"][0]["nonfinite"]) == ("differs", "inf", 4)
    assert bad["outputs"][0]["where"]["got"] == "nan"
    assert told["results"][0]["latency_ms"]["runs"] >= 3


def test_the_table_aligns_and_marks_the_fastest(double_file: Path) -> None:
    report = quick(double_file)
    lines = report.table().splitlines()
    assert [line for line in lines if line.startswith(("plain  ", "onnxruntime  "))] == []
    rows = [line for line in lines if re.match(r" (plain|onnxruntime) +(reference|same)", line)]
    assert len(rows) == 2
    assert len({line.index("reference" if "reference" in line else "same") for line in rows}) == 1
    assert sum("* " in line for line in rows) == 1
    assert max(map(len, report.table(width=70).splitlines())) <= 70
    assert "\x1b[" in report.table(color=True)
    assert "\x1b[" not in report.table()


# The command line


def test_the_status_tells_scripts_what_came_of_it(tmp_path: Path, double_file: Path) -> None:
    files = [net(tmp_path / f"{value}.onnx", np.full((1, 2), value)) for value in (1, 2)]
    page = tmp_path / "page.html"
    table = run(
        "compare", double_file, "-r", f"{PLAIN},onnxruntime", "--seconds", "0", "--random", "1", "--shape", "x=2x4", "--range", "x=-1:1", "--html", page
    )
    assert "2 of" not in table
    assert "x FP32 [2, 4] of -1 … 1" in table
    assert page.read_text().startswith("<!doctype html>")
    told = run("compare", *files, "-r", "onnxruntime", "--seconds", "0", "--pin", status=1)
    assert "not pinned" in told
    assert not (tmp_path / "model.toml").exists()
    assert "nosuchruntime" in run("compare", double_file, "-r", "onnxruntime,nosuchruntime", "--seconds", "0", status=2)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("nowhere.onnx",), "FILE_NOT_FOUND"),
        (("FILE", "--shape", "x"), "INVALID_OPTION"),
        (("FILE", "--shape", "x=1x"), "INVALID_OPTION"),
        (("FILE", "--range", "x=2:1"), "INVALID_OPTION"),
        (("FILE", "--tolerance", "much"), "INVALID_OPTION"),
        (("FILE", "--inputs", "nowhere"), "FILE_NOT_FOUND"),
        (("FILE", "--html", "nowhere/page.html"), "INVALID_OPTION"),
        (("FILE", "--check"), "FILE_NOT_FOUND"),
    ],
)
def test_mistakes_are_one_line_with_a_reason(double_file: Path, words: tuple[str, ...], reason: str) -> None:
    given = [str(double_file) if word == "FILE" else word for word in words]
    assert reason in run("compare", *given, status=2)
    assert json.loads(run("compare", *given, "--json", status=2))["reason"] == reason


@pytest.mark.skipif(not hasattr(select, "poll"), reason="this system does not tell that the other end of a pipe is gone")
def test_a_worker_ends_when_nobody_waits_for_it_any_more(tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text("import sys, threading\nprint('here', file=sys.stderr, flush=True)\nthreading.Event().wait()\n")
    command = [sys.executable, "-m", "nnrp.compare.worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        load = {"path": "endless:function", "runtime": "callable", "options": {"inputs": {}, "outputs": {"y": ["FP32", [1]]}}}
        Wire(process.stdout, process.stdin).send({"load": load})
        assert process.stderr.readline() == b"here\n"
        process.stdin.close()
        assert process.wait(timeout=60) == 1


#: Runs a command, and tells the most memory that it or any process below it had, in MB.
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> (20 if sys.platform == "darwin" else 10))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="this system does not tell how much memory a process had")
def test_memory_does_not_grow_with_the_number_of_cases(tmp_path: Path) -> None:
    words = ["compare", net(tmp_path / "net.onnx", np.zeros((1, 150_528))), "--runtimes", f"{PLAIN},onnxruntime", "--seconds", 0]
    few, many = (int(subprocess.check_output([sys.executable, "-c", PEAK, NNRP, *map(str, words), "--random", str(number)])) for number in (4, 400))
    # Their inputs are 240 MB, and so are the answers. Of the inputs 64 MB are kept to be timed with, and of the answers 16 MB.
    assert many - few < 120
