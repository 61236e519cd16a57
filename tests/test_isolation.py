"""Models in processes of their own: what crosses, and that a crash costs only what it held."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import lite
import numpy as np
import pytest

import nnrp
from nnrp.errors import Deadline, InvalidOption, LoadFailed, NnrpError, NotOffered, RuntimeCrashed
from nnrp.testing import check_runtime

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a process for a model needs Linux")

X = np.float32([1, 2, 3])
NOTHING = np.float32([])
#: How often a client asks again, which a test that works never needs to come near.
TRIES = 100


def load(called: str, *, options: Mapping[str, Any] | None = None, **words: Any) -> nnrp.Model:
    """A function of another process, of this folder's modules unless told."""
    place = called if ":" in called else f"prone:{called}"
    tensor = {"x": ["FP32", [-1]]}, {"y": ["FP32", [-1]]}
    options = {"inputs": tensor[0], "outputs": tensor[1], **(options or {})}
    return nnrp.load(place, "model", runtime="callable", options=options, isolation="process", **words)


def process(model: nnrp.Model) -> dict[str, Any]:
    session: Any = model.session
    told: dict[str, Any] = session.settings["process"]
    return told


def patiently(ask: Callable[[], Any]) -> Any:
    """What a client does that is told to come again: it comes again when it was told to."""
    for _ in range(TRIES):
        try:
            return ask()
        except RuntimeCrashed as error:
            threading.Event().wait(error.details["retry_after_ms"] / 1000 + 0.05)
    return ask()


def kill(model: nnrp.Model) -> None:
    os.kill(process(model)["id"], signal.SIGKILL)


def gone(pid: int) -> bool:
    """Whether a process has ended, also when nobody has taken note."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def within_a_minute(claim: Callable[[], bool]) -> bool:
    pause = threading.Event()
    return any(claim() or pause.wait(0.01) for _ in range(6000))


# What crosses


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "litert"])
def test_three_runtimes_keep_the_contract_in_processes_of_their_own(runtime: str, tmp_path: Path) -> None:
    models = lite.roles(tmp_path) if runtime == "litert" else None
    report = check_runtime(runtime, models=models, isolation="process", loads=10)
    assert not report.failures, report.table()


def test_a_model_runs_elsewhere_and_answers_as_here(double_file: Path) -> None:
    here, there = nnrp.load(double_file), nnrp.load(double_file, isolation="process")
    x = np.arange(40, dtype=np.float32).reshape(10, 4)
    assert np.array_equal(here(x)["y"], there(x)["y"])
    session: Any = there.session
    assert session.settings["isolation"] == "process"
    assert process(there)["id"] not in (None, os.getpid())
    assert (session.runtime, there.inputs) == ("onnxruntime", here.inputs)


def test_outputs_over_64_kb_are_read_where_they_were_written_and_outlive_the_process() -> None:
    model = load("large")
    large, small = (model(np.float32([count]))["y"] for count in (1 << 20, 1 << 10))
    assert (shared(large), shared(small)) == (True, False)
    kill(model)
    patiently(lambda: model(np.float32([1])))
    assert large.sum() == 1 << 20


def shared(array: Any) -> bool:
    """Whether an array lies in memory that is shared with another process."""
    place = array.__array_interface__["data"][0]
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:nnrp" in line]
    bounds = [[int(bound, 16) for bound in one[0].split("-")] for one in maps]
    return any(start <= place < end for start, end in bounds)


def test_many_threads_get_their_own_answers(double_file: Path) -> None:
    model = nnrp.load(double_file, isolation="process")

    def ask(number: int) -> bool:
        x = np.full((1 + number % 7 * 10_000, 4), number, np.float32)
        return bool((model(x)["y"] == 2 * number).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(400)))


# What is refused


def test_what_cannot_be_isolated_is_refused(double_file: Path) -> None:
    with pytest.raises(NotOffered, match="for another process to import"):
        nnrp.load(lambda x: x, "model", inputs={"x": ("FP32", [-1])}, outputs={"y": ("FP32", [-1])}, isolation="process")
    with pytest.raises(InvalidOption, match="unknown variant `elsewhere`"):
        nnrp.load(double_file, isolation="elsewhere")
    for word in ("load_timeout", "stop_grace"):
        with pytest.raises(InvalidOption, match=word):
            nnrp.Engine(**{word: -1.0})


def test_the_other_processs_errors_are_its_runtimes_own(tmp_path: Path, double_file: Path) -> None:
    (tmp_path / "cut.onnx").write_bytes(double_file.read_bytes()[:40])
    for path, words in ((tmp_path / "cut.onnx", {}), (double_file, {"options": {"beads": 1}}), (double_file, {"device": "nowhere:7"})):
        errors = []
        for isolation in ("none", "process"):
            with pytest.raises(NnrpError) as raised:
                nnrp.load(path, runtime="onnxruntime", isolation=isolation, **words)
            errors.append((type(raised.value), raised.value.message, raised.value.details))
        assert errors[0] == errors[1]


def test_a_load_that_hangs_or_crashes_is_ended_and_told() -> None:
    before = children()
    with pytest.raises(LoadFailed, match="it took longer than 2 s"):
        load("prone_hang:f", load_timeout=2.0)
    with pytest.raises(LoadFailed, match="SIGSEGV"):
        load("prone_crash:f")
    assert within_a_minute(lambda: set(children()) <= set(before))


def children() -> list[int]:
    """The processes that this one has; those that threads started which are about to end are no longer its own."""
    found = list[int]()
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return found


# Crashes


def test_a_segmentation_fault_is_one_retryable_error_and_a_restart(double_file: Path) -> None:
    engine = nnrp.Engine()
    model = load_into(engine, "crashing")
    other = engine.load(double_file, "other", isolation="process")
    assert np.array_equal(model(X)["y"], 2 * X)
    first = process(model)["id"]

    with pytest.raises(RuntimeCrashed, match="SIGSEGV") as raised:
        model(NOTHING)

    assert raised.value.retryable
    assert (raised.value.details["exit"], raised.value.details["held"]) == ("SIGSEGV", True)
    assert np.array_equal(patiently(lambda: model(X))["y"], 2 * X)
    told = process(model)
    assert (told["restarts"], told["crashes"], told["last_exit"]) == (1, 1, "SIGSEGV")
    assert told["id"] != first
    assert model.statistics()["failures"]["RUNTIME_CRASHED"] >= 1
    assert other(np.ones((1, 4), np.float32))["y"].sum() == 8
    assert process(other)["crashes"] == 0


def load_into(engine: nnrp.Engine, called: str, **options: Any) -> nnrp.Model:
    options = {"inputs": {"x": ["FP32", [-1]]}, "outputs": {"y": ["FP32", [-1]]}, **options}
    return engine.load(f"prone:{called}", called, runtime="callable", options=options, isolation="process")


def asked_until(model: Any, over: Callable[[], bool]) -> list[bool]:
    """Whether each answer was right, of a model that doubles four ones."""
    right = list[bool]()

    def ended() -> bool:
        right.append(bool(model(np.ones((1, 4), np.float32))["y"].sum() == 8))
        return over()

    assert within_a_minute(ended)
    return right


def test_killing_a_process_under_load_loses_only_what_it_held(slow_file: Path, double_file: Path) -> None:
    engine = nnrp.Engine()
    slow = engine.load(slow_file, "slow", isolation="process")
    engine.load(double_file, "other", isolation="process")
    clients, turns, over = 6, 60, threading.Event()
    with nnrp.serve(engine, http_port=0, grpc_port=None) as server:

        def ask(client: int) -> tuple[int, list[RuntimeCrashed]]:
            model, answered, refused = nnrp.connect(server.http_url or "", "slow"), 0, []
            for turn in range(turns):
                if client == 0 and turn == turns // 2:
                    kill(slow)
                try:
                    assert np.isfinite(model(np.int64(20))["y"])
                    answered += 1
                except RuntimeCrashed as error:
                    refused.append(error)
            return answered, refused

        def beside() -> list[bool]:
            model = nnrp.connect(server.http_url or "", "other")
            return asked_until(model, lambda: over.is_set() and process(slow)["restarts"] > 0)

        with ThreadPoolExecutor(clients + 1) as pool:
            other = pool.submit(beside)
            try:
                found = list(pool.map(ask, range(clients)))
            finally:
                over.set()
    answered, refused = sum(count for count, _ in found), [error for _, errors in found for error in errors]
    assert answered + len(refused) == clients * turns
    # One for each that it could hold at once, and none of those who came while it was away.
    assert 1 <= len(refused) <= (os.cpu_count() or 1)
    assert all(error.details["held"] and error.retryable and error.code == "UNAVAILABLE" for error in refused)
    assert slow.statistics()["failures"] == {"RUNTIME_CRASHED": len(refused)}
    assert all(other.result())
    assert "failures" not in engine.model("other").statistics() or not engine.model("other").statistics()["failures"]


def test_a_run_that_nobody_waits_for_any_more_is_ended_with_its_process() -> None:
    model = load("stuck", stop_grace=0.2)
    first = process(model)["id"]
    with pytest.raises(Deadline):
        model.infer({"x": NOTHING}, timeout=0.1)
    pause = threading.Event()

    def restarted() -> bool:
        return any(process(model)["restarts"] or pause.wait(0.01) for _ in range(500))

    def asked_again() -> bool:
        # A request whose time is over before it reaches the process leaves nothing behind there.
        with pytest.raises((Deadline, RuntimeCrashed)):
            model.infer({"x": NOTHING}, timeout=0.1)
        return restarted()

    assert restarted() or any(asked_again() for _ in range(10))
    assert np.array_equal(patiently(lambda: model(X))["y"], 2 * X)
    assert "after nobody waited" in process(model)["last_exit"]
    assert gone(first)


def test_a_deadline_reaches_a_session_that_can_end_its_run() -> None:
    model = load("patient", options={"workers": 1}, stop_grace=1000.0)
    first = process(model)["id"]
    for _ in range(3):
        with pytest.raises(Deadline):
            model.infer({"x": NOTHING}, timeout=0.1)
        # There is one place to run in, which is free again only when the run before has ended.
        assert np.array_equal(model.infer({"x": X}, timeout=60)["y"], 2 * X)
    assert process(model)["id"] == first


def test_restarts_and_unloads_leave_nothing_behind(double_file: Path) -> None:
    x = np.ones((5_000, 4), np.float32)

    def live_and_die() -> None:
        model = nnrp.load(double_file, isolation="process")
        assert model(x)["y"].sum() == 40_000
        kill(model)
        assert patiently(lambda: model(x))["y"].sum() == 40_000

    live_and_die()
    before, memory = left(), resident()
    for _ in range(12):
        live_and_die()
    assert within_a_minute(lambda: all(now <= then for now, then in zip(left(), before, strict=True))), (left(), before)
    assert resident() - memory < 8 << 20


def left() -> tuple[int, int, int, int]:
    """How many descriptors, threads, processes, and mappings there are."""
    mappings = Path("/proc/self/maps").read_text().count("memfd:nnrp")
    return count("fd"), count("task"), len(children()), mappings


def count(what: str) -> int:
    return sum(1 for _ in Path("/proc/self", what).iterdir())


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


PARENT = """
import os, signal, sys, nnrp
model = nnrp.load(sys.argv[1], isolation="process")
print(model.session.settings["process"]["id"], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_ends_with_the_one_that_started_it(double_file: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PARENT, str(double_file)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert within_a_minute(lambda: gone(int(done.stdout)))


def test_the_command_line_gives_each_model_a_process(double_file: Path) -> None:
    command = [
        str(Path(sys.executable).with_name("nnrp")),
        "serve",
        str(double_file),
        "--isolation",
        "process",
        "--http-port",
        "0",
        "--grpc-port",
        "0",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            about = json.loads(server.stdout.readline())
            below = Path(f"/proc/{server.pid}/task").glob("*/children")
            assert sum(len(file.read_text().split()) for file in below) == 1
            assert nnrp.connect(about["http"])(np.ones((1, 4), np.float32))["y"].sum() == 8
        finally:
            server.send_signal(signal.SIGINT)
    assert server.returncode == 0
