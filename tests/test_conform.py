"""The conformance suite: what our runtimes come to, that a bad one fails the right checks, and what it costs to crash."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tree import ROOT

import nnrp
from nnrp.errors import InvalidModel, InvalidOption, NnrpError, RuntimeNotInstalled
from nnrp.runtimes import Control, ModelSpec
from nnrp.runtimes.contract import on_cpu
from nnrp.tensor import NAMES
from nnrp.testing import Report, check_runtime, zoo
from nnrp.testing.claims import CHECKS, GROUPS
from nnrp.testing.streams import STREAMING

#: Runtime → check → why it is known not to pass it.
QUIRKS: Mapping[str, Mapping[str, str]] = {
    "onnxruntime": {},
    "openvino": {},
    "reference": {},
    "callable": {},
    "remote": {"contract.settings": "the Open Inference Protocol does not tell the precision of the server's session"},
    "sample": {},
}
STOPPING = {"cancellation.stops", "cancellation.withdrawn", "cancellation.after"}
FILES = {"contract.absent_file", "contract.empty_file", "contract.truncated_file", "contract.random_file"}
MADE = {id for id in CHECKS if id.startswith(("datatypes.", "shapes.rank_"))} | {"shapes.batch", "shapes.from_data", "requests.dimension"}
#: Runtime → what there is nothing to check of.
NOTHING: Mapping[str, set[str]] = {
    "onnxruntime": {*STREAMING},
    "openvino": {*STREAMING},
    # It has no options, and the evaluator cannot be stopped.
    "reference": {"contract.bad_value", *STOPPING, *STREAMING},
    # Its models are functions, and no other runtime has them.
    "callable": {*FILES, *STOPPING, "numerics.reference"} | MADE - {"datatypes.fp32", "datatypes.bytes", "datatypes.bf16", "shapes.rank_0", "shapes.rank_3"},
    # Its models are URLs.
    "remote": FILES,
    # One model is all it has, whose runs do not fail.
    "sample": {"errors.run", "errors.private", "errors.lives", "streams.fails", "numerics.reference"} | MADE,
}


# The models of the callable


def affine(x: Any) -> Any:
    return 2 * x + np.float32(1)


def identity(x: Any) -> Any:
    return x


def stubborn(x: Any) -> Any:
    """Looks at no clock."""
    threading.Event().wait(1)
    return x


def failing(x: Any) -> Any:
    if len(x) != 1:
        raise ValueError("cannot open /srv/secret/weights.bin")
    return x


def each(x: Any) -> Iterator[Any]:
    for element in x:
        if element < 0:
            raise ValueError("cannot open /srv/secret/weights.bin")
        yield affine(element).reshape(1)


def crashing(x: Any) -> Any:
    """Takes its process down where there is nothing in x."""
    if not len(x):
        ctypes.string_at(0)
    return affine(x)


def stuck(x: Any) -> Any:
    """Never comes back where there is nothing in x."""
    if not len(x):
        threading.Event().wait()
    return affine(x)


def function(called: str, datatype: str = "FP32", shape: Sequence[int] = (-1,), **role: Any) -> dict[str, Any]:
    tensor = [datatype, list(shape)]
    return {"path": f"test_conform:{called}", "options": {"inputs": {"x": tensor}, "outputs": {"y": tensor}}} | role


FUNCTIONS = {
    "affine": function("affine"),
    "identity_fp32": function("identity"),
    "identity_bytes": function("identity", "BYTES"),
    "identity_bf16": function("identity", "BF16"),
    "rank_0": function("identity", shape=()),
    "rank_3": function("identity", shape=(-1, -1, -1)),
    "slow": function("stubborn"),
    "failing": function("failing", ask={"x": [1.0, 2.0]}, then={"x": [1.0]}),
    "stream": function("each"),
    "stream_failing": function("each", ask={"x": [1.0, -1.0]}, then={"x": [1.0]}),
}


# What our runtimes come to


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The plug-in that is an example, and its models."""
    if sys.platform == "win32":
        pytest.skip("the plug-in is compiled with cc")
    folder = tmp_path_factory.mktemp("sample")
    command = ["cc", "-std=c11", "-shared", "-fPIC", "-fvisibility=hidden", f"-I{ROOT / 'spec'}", ROOT / "bindings/c/runtime_sample.c"]
    subprocess.run([*command, "-o", folder / "libsample.so"], check=True)
    (folder / "line.sample").write_text("nnrp-sample\n")
    line = {"path": folder / "line.sample"}
    return {
        "plugins": [folder / "libsample.so"],
        "models": {"affine": line, "slow": line | {"options": {"delay_ms": 600_000}}, "stream": line | {"options": {"stream": True}}},
    }


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A server of the suite's models, and their URLs."""
    folder, engine, models = tmp_path_factory.mktemp("remote"), nnrp.Engine(), dict[str, Any]()
    roles = ["affine", "batch", "positions", "slow", "failing", "numerics", *(f"rank_{rank}" for rank in range(7))]
    with nnrp.serve(engine, http_port=0, grpc_port=0) as server:
        for role in [*roles, *(f"identity_{datatype.lower()}" for datatype in NAMES)]:
            made = zoo.make(role, folder)
            with suppress(NnrpError):
                engine.load(made["path"], role)
                models[role] = made | {"path": f"{server.http_url}/{role}"}
        for role in ("stream", "stream_failing"):
            spec = dict(FUNCTIONS[role])
            engine.load(spec.pop("path"), role, runtime="callable", options=spec.pop("options"))
            models[role] = spec | {"path": f"{server.grpc_url}/{role}", "options": {"stream": True}}
        x = np.linspace(-3, 3, 5 * 32, dtype=np.float32).reshape(5, 32)
        np.savez(folder / "expected.npz", x=x, **engine.infer("numerics", {"x": x}))
        models["numerics"]["expected"] = folder / "expected.npz"
        yield {"models": models}


@pytest.fixture(scope="module")
def reports(request: pytest.FixtureRequest) -> dict[str, Report]:
    """Every runtime's report, those of the natives, the callable and the sample from a process of their own."""
    words: dict[str, dict[str, Any]] = {"callable": {"models": FUNCTIONS}}
    words |= {name: request.getfixturevalue(name) for name in ("sample", "remote")}
    return {name: check_runtime(name, quirks=QUIRKS[name], isolate=name != "remote", **words.get(name, {})) for name in QUIRKS}


@pytest.mark.parametrize("runtime", QUIRKS)
def test_our_runtimes_conform_but_for_the_quirks_that_they_declare(reports: dict[str, Report], runtime: str) -> None:
    report = reports[runtime]
    assert report.passed, report.table()
    assert {one.id for one in report.outcomes if one.verdict == "quirk"} == QUIRKS[runtime].keys(), report.table()
    assert {one.id for one in report.outcomes if one.verdict == "na"} == NOTHING[runtime], report.table()
    assert [one.id for one in report.outcomes] == sorted(CHECKS, key=lambda check: GROUPS.index(check.partition(".")[0]))


def test_every_check_names_a_clause_of_the_specification() -> None:
    text = (ROOT / "spec/nnrp.md").read_text(encoding="utf-8")
    assert not [id for id, check in CHECKS.items() if f"**{check.spec}**" not in text]


# A bad one


class Careless:
    """A runtime that takes any option, keeps every model it ever had, and one input for all threads."""

    name = "careless"

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def info(self) -> dict[str, Any]:
        return {"version": "0", "devices": ["cpu"], "options": {"type": "object", "additionalProperties": True}}

    def load(self, spec: ModelSpec) -> Line:
        on_cpu(self.name, spec)
        if Path(spec.path).read_bytes() != b"careless":
            raise InvalidModel(f"cannot read {spec.path}")
        # Memory that no other test has left free.
        self.kept.append(mmap.mmap(-1, 1 << 19))
        self.kept[-1].write(bytes(1 << 19))
        return Line()


class Line:
    inputs: Sequence[Any] = (("x", "FP32", (-1,)),)
    outputs: Sequence[Any] = (("x", "FP32", (-1,)),)
    exclusive, cancellable = False, False
    settings: Mapping[str, Any] = {"precision": "strict"}

    def run(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Any:
        self.x = inputs["x"]
        threading.Event().wait(0.001)
        return [affine(self.x)]


@pytest.fixture
def careless(tmp_path: Path) -> Path:
    (tmp_path / "line.careless").write_bytes(b"careless")
    return tmp_path / "line.careless"


BAD = {"contract.unknown_option", "concurrency.threads", "leaks.loads"}


def test_a_bad_runtime_fails_the_right_checks_and_no_others(careless: Path) -> None:
    report = check_runtime(Careless(), models={"affine": careless})
    assert report.failures.keys() == BAD, report.table()
    assert report.status == 1
    said = {id: (one.expected, one.got) for id, one in report.failures.items()}
    assert said["contract.unknown_option"][0] == "UNKNOWN_OPTION"
    assert "a wrong answer" in said["concurrency.threads"][1]
    assert "KiB" in said["leaks.loads"][1]


def test_what_is_declared_is_a_quirk_and_one_that_is_not_there_is_told(careless: Path) -> None:
    quirks = {"contract.unknown_option": "it takes any", "contract.device": "it has no devices"}
    report = check_runtime(Careless(), models={"affine": careless}, quirks=quirks, only=["contract.unknown_option", "contract.device"])
    assert report.passed
    unknown, device = report.outcomes
    assert (unknown.verdict, unknown.text) == ("quirk", "it takes any")
    assert (device.verdict, device.text) == ("pass", "declared as a quirk, which it is not here: it has no devices")


def test_a_narrowed_number_and_a_wrong_reference_fail(careless: Path, tmp_path: Path) -> None:
    class Narrow(Careless):
        def load(self, spec: ModelSpec) -> Line:
            line = super().load(spec)
            line.run = lambda inputs, *_: [affine(inputs["x"].astype(np.float16)).astype(np.float32)]  # type: ignore[assignment,method-assign]
            return line

    np.savez(tmp_path / "expected.npz", x=np.ones(3, np.float32), y=np.ones(3, np.float32))
    np.savez(tmp_path / "odd.npz", x=np.ones(3, np.float32) * 4)
    numbers = {"path": careless, "expected": tmp_path / "odd.npz"}
    with np.errstate(over="ignore"):
        report = check_runtime(Narrow(), models={"affine": careless, "numerics": numbers}, only=["numerics"])
    assert report.failures.keys() == {"numerics.affine", "numerics.reference"}
    assert "error of" in report.failures["numerics.reference"].got


class Sloppy(Careless):
    """A runtime whose models each do one thing wrong."""

    name = "sloppy"

    def load(self, spec: ModelSpec) -> Line:
        line = Line()
        line.cancellable = True
        line.run = getattr(self, Path(spec.path).stem)  # type: ignore[method-assign]
        if Path(spec.path).stem == "narrow":
            line.inputs = line.outputs = (("x", "FP64", (-1,)),)
        if Path(spec.path).stem == "flat":
            line.inputs, line.outputs = (("x", "FP32", (-1, -1)),), (("y", "FP32", None),)
        return line

    def __init__(self) -> None:
        super().__init__()
        self.failed, self.over = False, threading.Event()

    def narrow(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Any:
        with np.errstate(over="ignore"):
            return [inputs["x"].astype(np.float32).astype(np.float64)]

    def flat(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Any:
        return [inputs["x"].reshape(-1).copy()]

    def deaf(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Any:
        self.over.wait(300)
        return [inputs["x"].copy()]

    def brittle(self, inputs: dict[str, Any], outputs: Sequence[str], control: Control) -> Any:
        self.failed = self.failed or not inputs["x"].all()
        if self.failed:
            raise nnrp.RuntimeFailure("Traceback (most recent call last): a bead fell off")
        return [inputs["x"].copy()]


SLOPPY: Mapping[str, tuple[dict[str, Any], set[str]]] = {
    "narrow": ({"identity_fp64": {}}, {"datatypes.fp64"}),
    "flat": ({"rank_2": {}}, {"shapes.rank_2"}),
    "deaf": ({"slow": {}}, STOPPING),
    "brittle": ({"failing": {"ask": {"x": [0.0]}, "then": {"x": [1.0]}}}, {"errors.private", "errors.lives"}),
}


@pytest.mark.parametrize("stem", SLOPPY)
def test_what_a_model_does_wrong_fails_the_check_of_its_role(careless: Path, stem: str, request: pytest.FixtureRequest) -> None:
    roles, failing = SLOPPY[stem]
    models = {role: spec | {"path": careless.with_stem(stem)} for role, spec in roles.items()}
    careless.with_stem(stem).touch()
    runtime, only = Sloppy(), ["datatypes", "shapes.rank_2", "cancellation", "errors.run", "errors.private", "errors.lives"]
    request.addfinalizer(runtime.over.set)
    report = check_runtime(runtime, models=models, only=only)
    assert report.failures.keys() == failing, report.table()


# Crashes


def test_a_crash_and_a_hang_are_the_failures_of_their_own_checks() -> None:
    only = ["contract.info", "shapes.empty", "shapes.growing"]
    for called, got in (("crashing", "SIGSEGV"), ("stuck", "no end after 15 s")):
        report = check_runtime("callable", models={"affine": function(called)}, only=only, isolate=True, timeout=15)
        assert [one.verdict for one in report.outcomes] == ["pass", "fail", "pass"], report.table()
        assert got in report.failures["shapes.empty"].got


def test_what_another_process_cannot_have_is_refused(careless: Path) -> None:
    with pytest.raises(InvalidOption, match="isolate"):
        check_runtime(Careless(), models={"affine": careless}, isolate=True)
    with pytest.raises(InvalidOption, match="JSON"):
        check_runtime("callable", models={"affine": {"path": affine}}, isolate=True)


def test_inputs_may_lie_in_a_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "ask.npz", x=np.float32([1, 2]))
    models = {"failing": function("failing", ask=tmp_path / "ask.npz", then={"x": [1.0]})}
    report = check_runtime("callable", models=models, only=["errors.run", "errors.lives"], isolate=True)
    assert [one.verdict for one in report.outcomes] == ["pass", "pass"], report.table()


def test_a_runtime_whose_models_nobody_gives_does_not_conform() -> None:
    report = check_runtime("callable", only=["contract.device", "shapes.empty", "shapes.batch"])
    assert [one.verdict for one in report.outcomes] == ["fail", "fail", "na"]
    assert report.failures["shapes.empty"].got == "no model plays 'affine': give one"


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(RuntimeNotInstalled, match="'abacus'"):
        check_runtime("abacus")
    with pytest.raises(InvalidOption, match="check 'beads'"):
        check_runtime("callable", only=["beads"])
    with pytest.raises(InvalidOption, match="quirk 'beads'"):
        check_runtime("callable", quirks={"beads": "none"})


# The command


def conform(*words: object) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("nnrp")), "conform", "runtime", *map(str, words)]
    surroundings = os.environ | {"PYTHONPATH": str(ROOT / "tests"), "NO_COLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=surroundings, timeout=300)


def test_the_command_tells_a_table_or_json_and_its_status(tmp_path: Path) -> None:
    roles = tmp_path / "roles.toml"
    tensors = 'options = { inputs = { x = ["FP32", [-1]] }, outputs = { y = ["FP32", [-1]] } }'
    roles.write_text(f'[affine]\npath = "test_conform:crashing"\n{tensors}\n')

    bad = conform("callable", "--models", roles, "--only", "shapes.empty", "--only", "shapes.growing")
    assert (bad.returncode, bad.stderr) == (1, "")
    first, _, *rows = bad.stdout.splitlines()
    assert first.split() == ["check", "verdict", "spec", "claim,", "and", "what", "was", "seen"]
    assert all(row[first.index("verdict") - 2 : first.index("verdict")].strip() == "" for row in rows[:-2])
    assert "SIGSEGV" in bad.stdout
    assert bad.stdout.splitlines()[-1].endswith("1 pass, 1 FAIL; does not conform")

    excused = conform("callable", "--models", roles, "--only", "shapes", "--quirk", "shapes.empty=it needs something", "--json")
    assert (excused.returncode, excused.stderr) == (0, "")
    told = json.loads(excused.stdout)
    assert told["passed"]
    assert told["counts"] == {"pass": 1, "fail": 0, "quirk": 1, "na": 9}

    for words in (["abacus"], ["callable", "--only", "beads"], ["callable", "--models", tmp_path / "none.toml"], ["callable", "--quirk", "x"]):
        wrong = conform(*words)
        assert (wrong.returncode, wrong.stdout) == (2, "")
        assert wrong.stderr.startswith("nnrp: ")


def test_the_command_compares_a_model_with_a_runtime_or_with_expected_outputs(double_file: Path, tmp_path: Path) -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    for expected, status in ((2 * x, 0), (3 * x, 1)):
        np.savez(tmp_path / "expected.npz", x=x, y=expected)
        done = conform("reference", "--only", "numerics.reference", "--model", double_file, "--reference", tmp_path / "expected.npz")
        assert done.returncode == status, done.stdout
    assert conform("reference", "--only", "numerics.reference", "--model", double_file, "--reference", "onnxruntime").returncode == 0
    assert conform("reference", "--reference", tmp_path / "expected.npz").returncode == 2
