"""TensorFlow's SavedModels: of both versions, with numbers and with texts, behind the same calls as ONNX Runtime."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import package
import page
import pytest
import tensorflow

import nnrp
from nnrp import errors
from nnrp.testing import check_runtime
from nnrp.testing.streams import STREAMING

TEXTS = {
    "py": b"import os\n\ndef size(path):\n    return os.path.getsize(path)\n\nprint(size(__file__))\n",
    "c": b'#include <stdio.h>\nint main(void) { printf("hello\\n"); return 0; }\n',
    "rs": b'fn main() { let x: Vec<u8> = vec![1]; println!("{:?}", x); }\n',
}
#: SavedModels are folders, so there is no file to spoil: below it is done by hand.
NO_FILES = {"contract.absent_file", "contract.empty_file", "contract.truncated_file", "contract.random_file"}


PITCH = package.file("basic_pitch/saved_models/icassp_2022/nmp/saved_model.pb").parent
GUESS = package.file("guesslang/data/model/saved_model.pb").parent


class Line(tensorflow.Module):  # type: ignore[misc] # the package tells no types
    """y = 2x + 1, and what else there is to say of a number."""

    @tensorflow.function(input_signature=[tensorflow.TensorSpec([None], tensorflow.float32, "x")])
    def line(self, x: Any) -> Any:
        return {"y": 2 * x + 1}

    @tensorflow.function(input_signature=[tensorflow.TensorSpec([], tensorflow.string, "text"), tensorflow.TensorSpec(None, tensorflow.int64, "k")])
    def scalars(self, text: Any, k: Any) -> Any:
        return {"twice": text + text, "k": k + 1, "count": tensorflow.strings.length(text)}


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with two signatures."""
    path = tmp_path_factory.mktemp("tensorflow") / "lines"
    module = Line()
    tensorflow.saved_model.save(module, str(path), signatures={"line": module.line, "scalars": module.scalars})
    return path


def test_it_keeps_the_contract() -> None:
    report = check_runtime("tensorflow", isolate=True)
    assert report.passed, report.table()
    unseen = {one.id for one in report.outcomes if one.verdict == "na"}
    assert unseen == NO_FILES | STREAMING | {"datatypes.int4", "datatypes.uint4", "cancellation.stops", "cancellation.withdrawn", "cancellation.after"}


def test_a_model_that_tensorflow_2_cannot_load_gives_the_same_numbers_as_onnxruntime() -> None:
    with pytest.raises(AttributeError, match="add_slot"):
        tensorflow.saved_model.load(str(PITCH))
    here, there = nnrp.load(PITCH, runtime="tensorflow"), nnrp.load(PITCH.with_suffix(".onnx"))
    # With the noise of a recording: most of a pure tone's spectrum is rounding, which the net's logarithm multiplies.
    noise = np.random.default_rng(0).standard_normal(43844) / 100
    tone = (np.sin(2 * np.pi * 440 * np.arange(43844) / 22050) + noise).astype(np.float32).reshape(1, -1, 1)
    ours, theirs = here(tone), there(tone)
    for name, number in {"contour": 0, "note": 1, "onset": 2}.items():
        np.testing.assert_allclose(ours[name], theirs[f"StatefulPartitionedCall:{number}"], atol=3e-4, rtol=0)
    assert ours["note"][0].mean(axis=0).argmax() + 21 == 69


def test_a_model_of_tensorflow_1_reads_texts() -> None:
    model = nnrp.load(GUESS, "guess")
    assert [tuple(spec[:3]) for spec in (*model.inputs, *model.outputs)] == [
        ("inputs", "BYTES", (-1,)),
        ("classes", "BYTES", (-1, 54)),
        ("scores", "FP32", (-1, 54)),
    ]
    answer = model(list(TEXTS.values()))
    found = answer["classes"][range(len(TEXTS)), answer["scores"].argmax(axis=1)]
    assert [name.decode() for name in found] == list(TEXTS)


def test_signatures_are_chosen_by_name(lines: Path) -> None:
    for options in ({}, {"signature": "nothing"}):
        with pytest.raises(errors.InvalidOption, match="it has 'line', 'scalars'"):
            nnrp.load(lines, runtime="tensorflow", options=options)
    assert nnrp.load(lines, options={"signature": "line"}, runtime="tensorflow")(np.float32([1, 2]))["y"].tolist() == [3, 5]
    with pytest.raises(errors.InvalidOption, match="tags"):
        nnrp.load(lines, runtime="tensorflow", options={"tags": ["train"]})


def test_scalars_and_any_rank_and_some_of_the_outputs(lines: Path) -> None:
    model = nnrp.load(lines, options={"signature": "scalars"}, runtime="tensorflow")
    for shape in ((), (2,), (2, 1, 3)):
        answer = model(k=np.ones(shape, np.int64), text=np.array(b"\0\xff", object))
        assert {name: (value.dtype.name, value.shape) for name, value in answer.items()} == {
            "count": ("int32", ()),
            "k": ("int64", shape),
            "twice": ("object", ()),
        }
        assert answer["twice"].item() == b"\0\xff\0\xff"
    assert list(model.infer({"k": np.int64(1), "text": np.array(b"a", object)}, outputs=["twice", "count"])) == ["twice", "count"]


def test_four_threads_at_once_get_their_own_answers(lines: Path) -> None:
    model = nnrp.load(lines, options={"signature": "line"}, runtime="tensorflow")

    def wrong(thread: int) -> int:
        xs = (np.full(64 + turn, 1_000 * thread + turn, np.float32) for turn in range(240))
        return sum(not np.array_equal(model(x)["y"], 2 * x + 1) for x in xs)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(wrong, range(4))) == 0


def test_the_threads_of_the_process_are_settled_once(lines: Path) -> None:
    first = nnrp.load(lines, options={"signature": "line"}, runtime="tensorflow")
    assert first.session is not None
    threads = first.session.settings["threads"]
    with pytest.raises(errors.InvalidOption, match=f"expected {threads}, which the models of this process share, got {threads + 1}"):
        nnrp.load(lines, runtime="tensorflow", options={"signature": "line", "threads": threads + 1})


def test_a_model_that_is_cut_off_or_changed_is_a_typed_error(tmp_path: Path, lines: Path) -> None:
    bad, generator, found = tmp_path / "bad", np.random.default_rng(0), []
    shutil.copytree(lines, bad)
    whole = (bad / "saved_model.pb").read_bytes()
    for number in range(30):
        data = bytearray(whole)
        data[generator.integers(0, len(data))] ^= 1 << generator.integers(0, 8)
        (bad / "saved_model.pb").write_bytes(data if number % 2 else data[: generator.integers(0, len(data))])
        try:
            nnrp.load(bad, runtime="tensorflow", options={"signature": "line"})
        except errors.NnrpError as error:
            found.append(error)
    (bad / "saved_model.pb").write_bytes(b"")
    for path in (bad, lines / "fingerprint.pb"):
        with pytest.raises(errors.NnrpError) as refused:
            nnrp.load(path, runtime="tensorflow")
        found.append(refused.value)
    assert {error.reason for error in found} <= {"INVALID_MODEL", "LOAD_FAILED", "INVALID_OPTION", "NOT_OFFERED"}
    assert len(found) > 15
    shutil.rmtree(bad)
    shutil.copytree(PITCH, bad)
    shutil.rmtree(bad / "variables")
    with pytest.raises(errors.NnrpError) as refused:
        nnrp.load(bad, runtime="tensorflow")
    assert refused.value.reason in {"INVALID_MODEL", "LOAD_FAILED"}
    assert not any(str(tmp_path) in error.message for error in (*found, refused.value))


def test_inspect_says_what_a_folder_is_and_that_tensorflow_runs_it() -> None:
    done = subprocess.run([Path(sys.executable).with_name("nnrp"), "inspect", PITCH, "--json"], capture_output=True, text=True, timeout=120, check=True)
    about = json.loads(done.stdout)
    assert (about["format"], about["runtimes"]) == ("saved_model", ["tensorflow"])


def test_the_page_runs_as_written(tmp_path: Path) -> None:
    assert page.run("tensorflow", "tensorflow", tmp_path) == 2
