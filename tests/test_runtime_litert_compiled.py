"""LiteRT's C library, where models have fixed shapes: bit by bit what the interpreter answers, and the interpreter wherever it would not be."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ai_edge_litert
import lite
import numpy as np
import pytest
from lite import Value
from test_runtime_litert import MICRO, PITCH, WAKE

import nnrp
from nnrp import errors
from nnrp.runtimes.litert import DATATYPES, KNOWN
from nnrp.testing import check_runtime

Array = np.ndarray[Any, Any]
ROOT = Path(__file__).parent.parent


def both(file: Path, inputs: Any = None, **options: Any) -> tuple[nnrp.Model, nnrp.Model]:
    """The model as it is run here, and by the interpreter."""
    asked = {"num_threads": 1, **options}
    here, there = (nnrp.load(file, runtime="litert", inputs=inputs or {}, options=asked | more) for more in ({}, {"api": "interpreter"}))
    assert there.session.settings["api"] == "interpreter"
    assert (here.inputs, here.outputs) == (there.inputs, there.outputs)
    assert {**here.session.settings, "api": ""} == {**there.session.settings, "api": ""}
    return here, there


def noise(model: nnrp.Model, seed: int, most: int = 100) -> dict[str, Array]:
    """Inputs of the signature's shapes, 3 where it leaves one open."""
    random, found = np.random.default_rng(seed), {}
    for spec in model.inputs:
        shape = [3 if dim == -1 else dim for dim in spec.shape or ()]
        kind = np.dtype(next(theirs for theirs, ours in DATATYPES.items() if ours == spec.datatype))
        found[spec.name] = np.asarray(random.standard_normal(shape) * 10.0 ** (seed % 5 - 2) if kind.kind == "f" else random.integers(0, most, shape), kind)
    return found


def same(here: nnrp.Model, there: nnrp.Model, rounds: int = 10, most: int = 100) -> None:
    for seed in range(rounds):
        inputs = noise(here, seed, most)
        got, expected = here.infer(inputs), there.infer(inputs)
        for spec in here.outputs:
            assert got[spec.name].dtype == expected[spec.name].dtype
            assert got[spec.name].shape == expected[spec.name].shape
            assert got[spec.name].tobytes() == expected[spec.name].tobytes(), (spec.name, seed)


def identity(path: Path, datatype: str, shape: Sequence[int]) -> Path:
    values = [Value("x", datatype, shape), Value("shape", "INT32", elements=np.array(shape, np.int32)), Value("y", datatype, shape)]
    return lite.save(path, {"main": (values, [("RESHAPE", [0, 1], [2])])})


def affine(path: Path, shape: Sequence[int]) -> Path:
    constants = [Value("two", elements=np.float32(2)), Value("one", elements=np.float32(1))]
    values = [Value("x", shape=shape), *constants, Value("twice", shape=shape), Value("y", shape=shape)]
    return lite.save(path, {"main": (values, [("MUL", [0, 1], [3]), ("ADD", [3, 2], [4])])})


@pytest.mark.parametrize("name", ["hey_rhasspy", "okay_nabu", "hey_mycroft", "alexa"])
@pytest.mark.parametrize("threads", [1, 2])
def test_real_models_of_fixed_shapes_answer_bit_by_bit_as_by_the_interpreter(name: str, threads: int) -> None:
    here, there = both(WAKE / f"{name}.tflite", num_threads=threads)
    assert here.session.settings["api"] == "c"
    assert not here.session.exclusive
    same(here, there)


@pytest.mark.parametrize("file", [PITCH / "nmp.tflite", WAKE / "embedding_model.tflite", MICRO / "alexa.tflite"], ids=lambda file: file.stem)
def test_models_with_open_shapes_or_a_memory_are_the_interpreters(file: Path) -> None:
    assert nnrp.load(file, runtime="litert").session.settings["api"] == "interpreter"


@pytest.mark.parametrize("datatype", sorted(set(lite.TYPES) - {"BYTES"}))
def test_every_datatype_goes_through_the_c_library(tmp_path: Path, datatype: str) -> None:
    here, there = both(identity(tmp_path / "model.tflite", datatype, [2, 3]))
    assert here.session.settings["api"] == "c"
    same(here, there, most=2 if datatype == "BOOL" else 100)


@pytest.mark.parametrize("rank", range(9))
def test_every_rank_that_it_has_goes_through_the_c_library(tmp_path: Path, rank: int) -> None:
    here, there = both(identity(tmp_path / "model.tflite", "FP32", [2] * rank))
    assert here.session.settings["api"] == "c"
    same(here, there)


def test_more_dimensions_than_it_has_are_the_interpreters(tmp_path: Path) -> None:
    values = [Value("x", shape=[4]), Value("wide", "INT32", elements=np.array([1, 1, 1, 1, 1, 1, 1, 1, 2, 2], np.int32))]
    values += [Value("middle", shape=[1] * 8 + [2, 2]), Value("flat", "INT32", elements=np.array([4], np.int32)), Value("y", shape=[4])]
    inside = lite.save(tmp_path / "inside.tflite", {"main": (values, [("RESHAPE", [0, 1], [2]), ("RESHAPE", [2, 3], [4])])})
    for file in (identity(tmp_path / "outside.tflite", "FP32", [2] * 9), inside):
        here, there = both(file)
        assert here.session.settings["api"] == "interpreter"
        same(here, there)


def test_scalars_and_empty_tensors_answer_as_by_the_interpreter(tmp_path: Path) -> None:
    for number, shape in enumerate(([], [0, 4], [1])):
        same(*both(affine(tmp_path / f"{number}.tflite", shape)))


def test_quantised_models_answer_bit_by_bit_as_by_the_interpreter(tmp_path: Path) -> None:
    values = [Value("x", "INT8", [4, 8], scale=0.1), Value("c", "INT8", elements=np.arange(-16, 16, dtype=np.int8).reshape(4, 8), scale=0.05)]
    values += [Value("sum", "INT8", [4, 8], scale=0.13), Value("y", shape=[4, 8])]
    file = lite.save(tmp_path / "model.tflite", {"main": (values, [("ADD", [0, 1], [2]), ("DEQUANTIZE", [2], [3])])})
    here, there = both(file)
    assert here.session.settings["api"] == "c"
    assert here.session.settings["quantization"] == {"x": {"scales": [pytest.approx(0.1)], "zero_points": [0], "axis": 0}}
    same(here, there)


@pytest.mark.parametrize("datatype", ["FP32", "INT32"])
def test_several_inputs_and_outputs_each_get_their_own(tmp_path: Path, datatype: str) -> None:
    values = [Value(name, datatype, [3]) for name in ("a", "b", "c", "less", "more")]
    # Nothing but its place tells one from another; the signature lists them in another order than the graph.
    steps = [("SUB", [0, 1], [3]), ("ADD", [0, 2], [4])]
    here, there = both(lite.save(tmp_path / "model.tflite", {"main": (values, steps)}, takes="abc", gives=("less", "more")))
    assert here.session.settings["api"] == "c"
    same(here, there)
    inputs = noise(here, 7)
    assert (here.infer(inputs)["less"] == inputs["a"] - inputs["b"]).all()
    assert (here.infer(inputs, outputs=["more"])["more"] == inputs["a"] + inputs["c"]).all()


def test_each_signature_is_its_own(tmp_path: Path) -> None:
    file = lite.scale(tmp_path / "two.tflite", [3], {"double": 2.0, "triple": 3.0})
    for signature in ("double", "triple"):
        here, there = both(file, signature=signature)
        assert here.session.settings["api"] == "c"
        same(here, there)


def test_a_file_without_signatures_goes_through_the_c_library(tmp_path: Path) -> None:
    here, there = both(lite.scale(tmp_path / "raw.tflite", [3], {"": 2.0}, signed=False))
    assert here.session.settings["api"] == "c"
    same(here, there)


def passed_on(path: Path) -> Path:
    """An output that is an input."""
    values = [Value("x", shape=[3]), Value("f", elements=np.float32(2)), Value("y", shape=[3])]
    return lite.save(path, {"main": (values, [("MUL", [0, 1], [2])])}, gives=("x", "y"))


def constant(path: Path) -> Path:
    """An output that is a constant."""
    values = [Value("x", shape=[3]), Value("f", elements=np.arange(3, dtype=np.float32)), Value("y", shape=[3])]
    return lite.save(path, {"main": (values, [("MUL", [0, 1], [2])])}, gives=("f", "y"))


def decided(path: Path) -> Path:
    """An output whose shape is an input, which the file says is fixed."""
    values = [Value("six", elements=np.arange(6, dtype=np.float32)), Value("x", "INT32", [2]), Value("y", shape=[2, 3])]
    return lite.save(path, {"main": (values, [("RESHAPE", [0, 1], [2])])})


def found(path: Path) -> Path:
    """As many outputs as there are numbers that are not zero, in a file that says three."""
    return lite.save(path, {"main": ([Value("x", shape=[3]), Value("y", "INT64", [3, 1])], [("WHERE", [0], [1])])})


@pytest.mark.parametrize("made", [passed_on, constant, decided, found], ids=lambda made: made.__name__)
def test_what_the_c_library_would_leave_unwritten_is_right_all_the_same(tmp_path: Path, made: Callable[[Path], Path]) -> None:
    file = made(tmp_path / "model.tflite")
    model = nnrp.load(file, runtime="litert", options={"num_threads": 1})
    if made is decided:
        assert model.session.settings["api"] == "interpreter"
        assert model(np.array([2, 3], np.int32))["y"].tolist() == [[0, 1, 2], [3, 4, 5]]
    else:
        same(*both(file))


def gather(path: Path) -> Path:
    """``y = t[x]``, which fails where there is no such place."""
    values = [Value("x", "INT32", [3]), Value("t", elements=np.arange(4, dtype=np.float32)), Value("y", shape=[3])]
    return lite.save(path, {"main": (values, [("GATHER", [1, 0], [2])])})


def test_a_run_that_fails_says_the_same_and_leaves_nothing_behind(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    here, there = both(gather(tmp_path / "gather.tflite"))
    assert here.session.settings["api"] == "c"
    for _ in range(3):
        for model in (here, there):
            with pytest.raises(errors.RunFailed, match="gather index out of bounds") as failed:
                model(np.array([0, 9, 1], np.int32))
            assert ".cc" not in failed.value.message
            assert model(np.array([3, 0, 1], np.int32))["y"].tolist() == [3, 0, 1]
    assert "ERROR" not in capfd.readouterr().err


def test_bad_calls_never_reach_it(tmp_path: Path) -> None:
    model = nnrp.load(affine(tmp_path / "model.tflite", [2, 3]), runtime="litert")
    calls = ((np.ones((2, 3)), "DATATYPE_MISMATCH"), (np.ones((3, 3), np.float32), "SHAPE_MISMATCH"), (np.ones(6, np.float32), "SHAPE_MISMATCH"))
    for x, reason in calls:
        with pytest.raises(errors.InvalidArgument) as refused:
            model(x)
        assert refused.value.reason == reason
    x = np.arange(12, dtype=np.float32).reshape(2, 6)[:, ::2]
    assert (model(x)["y"] == 2 * x + 1).all()


FIXED = [
    (PITCH / "nmp.tflite", [1, 43844, 1], "interpreter"),
    (WAKE / "melspectrogram.tflite", [1, 1280], "c"),
    (WAKE / "embedding_model.tflite", [5, 76, 32, 1], "c"),
]


@pytest.mark.parametrize(("file", "shape", "api"), FIXED, ids=lambda value: value.stem if isinstance(value, Path) else "")
def test_what_a_description_fixes_goes_through_the_c_library_where_that_answers_the_same(file: Path, shape: list[int], api: str) -> None:
    here, there = both(file, inputs=[{"shape": shape}])
    assert here.session.settings["api"] == api
    assert here.inputs[0].shape == tuple(shape)
    same(here, there)
    with pytest.raises(errors.ShapeMismatch):
        here(np.zeros([*shape[:-1], shape[-1] + 1], np.float32))


def test_each_input_that_is_open_must_be_fixed(tmp_path: Path) -> None:
    values = [Value("a", shape=[-1, 3]), Value("b", shape=[-1, 3]), Value("c", shape=[3]), Value("sum", shape=[-1, 3]), Value("y", shape=[-1, 3])]
    file = lite.save(tmp_path / "model.tflite", {"main": (values, [("ADD", [0, 1], [3]), ("MUL", [3, 2], [4])])}, takes="abc")
    described: list[tuple[dict[str, Any], str]] = [
        ({"a": {"shape": [4, 3]}, "b": {"shape": [4, 3]}}, "c"),
        ({"a": {"shape": [4, 3]}, "b": {"shape": [1, 3]}}, "c"),
        ({"a": {"shape": [4, 3]}}, "interpreter"),
        ({"a": {"shape": [4, 3]}, "b": {"shape": [{"min": 4, "max": 4}, 3]}}, "interpreter"),
        ({"a": {"shape": ["rows", 3]}, "b": {"shape": ["rows", 3]}}, "interpreter"),
        # What no run can be had of at the load.
        ({"a": {"shape": [4, 3]}, "b": {"shape": [5, 3]}}, "interpreter"),
        ({"a": {"shape": [1 << 40, 3]}, "b": {"shape": [0, 3]}}, "interpreter"),
    ]
    for inputs, api in described:
        here, there = both(file, inputs=inputs)
        assert here.session.settings["api"] == api, inputs
        rows = [{"a": 4, "b": 4} | {name: dim for name, one in inputs.items() if isinstance(dim := one["shape"][0], int)}][0]
        if len(set(rows.values()) - {1}) == 1:
            arrays = {name: np.arange(3 * row, dtype=np.float32).reshape(row, 3) for name, row in rows.items()} | {"c": np.ones(3, np.float32)}
            assert here.infer(arrays)["y"].tobytes() == there.infer(arrays)["y"].tobytes() == (arrays["a"] + arrays["b"]).tobytes()


def test_a_fixed_input_does_not_fix_what_the_run_decides(tmp_path: Path) -> None:
    values = [Value("x", shape=[-1]), Value("y", "INT64", [-1, 1])]
    file = lite.save(tmp_path / "model.tflite", {"main": (values, [("WHERE", [0], [1])])})
    model = nnrp.load(file, runtime="litert", inputs=[{"shape": [5]}])
    assert model.session.settings["api"] == "interpreter"
    for x in ([1, 0, 0, 2, 0], [0, 0, 3, 0, 0], [1] * 5):
        assert model(np.array(x, np.float32))["y"].tolist() == [[place] for place, value in enumerate(x) if value]


def test_a_fixed_shape_is_one_signatures_own(tmp_path: Path) -> None:
    file = lite.scale(tmp_path / "two.tflite", [-1], {"double": 2.0, "triple": 3.0})
    for signature, factor in (("double", 2), ("triple", 3)):
        here, there = both(file, inputs=[{"shape": [7]}], signature=signature)
        assert here.session.settings["api"] == "c"
        same(here, there)
        assert (here(np.ones(7, np.float32))["y"] == factor).all()


@pytest.mark.parametrize("shape", [[1, 16], [200, 700]], ids=["small", "large"])
@pytest.mark.parametrize("threads", [1, 2])
def test_eight_threads_at_once_get_their_own_answers(tmp_path: Path, shape: list[int], threads: int) -> None:
    model = nnrp.load(affine(tmp_path / "model.tflite", shape), runtime="litert", options={"num_threads": threads})
    assert model.session.settings["api"] == "c"

    def wrong(thread: int) -> int:
        xs = (np.full(shape, 1_000 * thread + turn, np.float32) for turn in range(120))
        return sum(not np.array_equal(model(x)["y"], 2 * x + 1) for x in xs)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(wrong, range(8))) == 0


@pytest.mark.parametrize("shape", [[1, 16], [200, 700]], ids=["small", "large"])
def test_answers_that_are_kept_are_nobody_elses(tmp_path: Path, shape: list[int]) -> None:
    model = nnrp.load(affine(tmp_path / "model.tflite", shape), runtime="litert")
    kept = [model(np.full(shape, turn, np.float32))["y"] for turn in range(20)]
    for turn, answer in enumerate(kept):
        assert (answer == 2 * turn + 1).all()
        answer[...] = -1
    assert (model(np.ones(shape, np.float32))["y"] == 3).all()
    del model
    assert all((answer == -1).all() for answer in kept)


def test_it_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    for number, shape in enumerate(([1, 16], [200, 700])):
        model = nnrp.load(affine(tmp_path / f"{number}.tflite", shape), runtime="litert", isolation="process")
        assert model.session.settings["api"] == "c"
        x = np.random.default_rng(number).integers(0, 1_000, shape).astype(np.float32)
        for _ in range(4):
            assert (model(x)["y"] == 2 * x + 1).all()


def test_a_version_whose_functions_are_not_known_is_the_interpreters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = re.search(r"^ai-edge-litert==([\d.]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert pinned
    assert ai_edge_litert.__version__ == pinned[1]
    assert KNOWN[0] <= tuple(map(int, pinned[1].split(".")[:2])) < KNOWN[1]
    file = affine(tmp_path / "model.tflite", [3])
    for version, api in (("2.3.7", "c"), ("2.4.0", "interpreter"), ("2.2.9", "interpreter"), ("nightly", "interpreter")):
        monkeypatch.setattr(ai_edge_litert, "__version__", version)
        assert nnrp.load(file, runtime="litert").session.settings["api"] == api
    for api in ("c", 1):
        with pytest.raises(errors.InvalidOption):
            nnrp.load(file, runtime="litert", options={"api": api})


def run(program: str, *words: object) -> str:
    done = subprocess.run([sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


#: How many threads there are beside a model that was loaded for so many.
THREADS = """
import os, sys, nnrp
model = nnrp.load(sys.argv[1], runtime="litert", options={"num_threads": int(sys.argv[2])})
assert model.session.settings["api"] == "c" and model.session.settings["threads"] == int(sys.argv[2])
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted where Linux lists them")
def test_it_runs_on_as_many_threads_as_were_asked_for(tmp_path: Path) -> None:
    file = affine(tmp_path / "model.tflite", [200, 700])
    one, four = (int(run(THREADS, file, threads)) for threads in (1, 4))
    # Who calls is one of them.
    assert four - one == 3


#: In a fork, the model of the process before is refused and a new one answers.
FORK = """
import os, sys, nnrp, numpy as np
x = np.ones((200, 700), np.float32)
model = nnrp.load(sys.argv[1], runtime="litert")
answer = model(x)["y"]
child = os.fork()
if child == 0:
    try:
        model(x)
    except nnrp.NnrpError as error:
        assert error.reason == "WRONG_STATE"
        again = nnrp.load(sys.argv[1], runtime="litert")
        assert again.session.settings["api"] == "c" and (again(x)["y"] == 3).all() and (answer == 3).all()
        del answer, model, again
        os._exit(7)
    os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert (model(x)["y"] == 3).all()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_fork_loads_its_own(tmp_path: Path) -> None:
    run(FORK, affine(tmp_path / "model.tflite", [200, 700]))


def test_it_keeps_the_contract_as_far_as_that_speaks_of_fixed_shapes(tmp_path: Path) -> None:
    models = {
        "affine": {"path": affine(tmp_path / "affine.tflite", [256])},
        "failing": {"path": gather(tmp_path / "failing.tflite"), "ask": {"x": [0, 9, 1]}, "then": {"x": [0, 3, 1]}},
    }
    report = check_runtime("litert", models=models, only=["contract", "errors", "leaks.loads"])
    assert not report.failures, report.failures
