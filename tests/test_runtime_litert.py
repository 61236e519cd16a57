"""LiteRT behind the same calls as ONNX Runtime: the same numbers, the same errors, and what its interpreter does not protect against itself."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lite
import numpy as np
import pytest
import zoo

import nnrp
from nnrp import errors
from nnrp.testing import check_runtime


def package(name: str) -> Path:
    """The folder of a package that is there for its model files, and is not imported."""
    spec = find_spec(name)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


PITCH = package("basic_pitch") / "saved_models/icassp_2022"
WAKE = package("pyopen_wakeword") / "models"
MICRO = package("pymicro_wakeword") / "models"
#: What the ONNX file calls the outputs of the TFLite file.
TWINS = {"contour": "StatefulPartitionedCall:0", "note": "StatefulPartitionedCall:1", "onset": "StatefulPartitionedCall:2"}


@pytest.fixture(scope="module")
def pixels(models: Path) -> dict[str, Path]:
    """The model of the bad calls, FP32 [N, 3, 64, 64], in two formats."""
    one = zoo.identity(models / "pixels.onnx", "FP32", ["N", 3, 64, 64])
    return {"onnxruntime": one, "litert": lite.scale(models / "pixels.tflite", [-1, 3, 64, 64], {"serve": 1.0})}


def tone() -> np.ndarray[Any, Any]:
    """Two seconds of the note A, twice, the second time quieter."""
    time = np.arange(43844, dtype=np.float32) / 22050
    note = np.sin(2 * np.pi * 440 * time).astype(np.float32)[:, None]
    return np.stack([note, note / 4])


def steps() -> list[np.ndarray[Any, Any]]:
    """Sixty steps of a sound that a wake word's model takes for its own."""
    random = np.random.default_rng(21)
    base = random.integers(-128, 127, (1, 1, 40))
    sounds = (base + random.integers(0, 1, (1, 3, 40)) + int(60 * np.sin(at / 3 + 21)) for at in range(60))
    return [np.clip(sound, -128, 127).astype(np.int8) for sound in sounds]


def test_a_real_model_gives_the_same_numbers_as_its_twin_on_onnxruntime() -> None:
    x = tone()
    here, there = nnrp.load(PITCH / "nmp.tflite", runtime="litert"), nnrp.load(PITCH / "nmp.onnx", runtime="onnxruntime")
    for samples in (x, x[:1]):
        got, expected = here(samples), there(samples)
        for name, twin in TWINS.items():
            assert got[name].shape[0] == len(samples)
            np.testing.assert_allclose(got[name], expected[twin], atol=2e-5, rtol=0)
    # A is the 49th key of a piano.
    assert here(x)["note"][0].mean(axis=0).argmax() == 48


def test_a_chain_of_real_models_runs_on_shapes_that_their_files_leave_open() -> None:
    audio = np.random.default_rng(3).normal(0, 300, (1, 16_000 * 2)).astype(np.float32)
    spectrum = nnrp.load(WAKE / "melspectrogram.tflite", runtime="litert")(audio)["output"]
    assert spectrum.shape[:2] == (1, 1)
    frames = spectrum[0, 0] / 10 + 2
    windows = np.stack([frames[8 * at : 8 * at + 76] for at in range(16)])[..., None]
    features = nnrp.load(WAKE / "embedding_model.tflite", runtime="litert")(windows.astype(np.float32))["conv2d_19"]
    assert features.shape == (16, 1, 1, 96)
    heard = nnrp.load(WAKE / "hey_jarvis.tflite", runtime="litert")(features.reshape(1, 16, 96))["53"]
    # Noise is nobody's name.
    assert 0 <= heard.item() < 0.1


def test_a_model_with_a_memory_is_run_by_one_interpreter_and_tells_how_its_numbers_are_meant() -> None:
    file = MICRO / "hey_mycroft.tflite"
    model = nnrp.load(file, runtime="litert")
    assert (model.session.exclusive, model.session.settings["stateful"]) == (True, True)
    assert model.session.settings["quantization"]["input_audio"] == {"scales": [pytest.approx(0.10196079)], "zero_points": [-128], "axis": 0}
    heard = [model(step)["dense_1"].item() for step in steps()]
    assert max(heard) > 100
    # Another session begins anew, and does not hear in the last of them what the first heard in all.
    again = nnrp.load(file, runtime="litert")
    assert [again(step)["dense_1"].item() for step in steps()] == heard
    loudest = steps()[heard.index(max(heard))]
    assert nnrp.load(file, runtime="litert")(loudest)["dense_1"].item() < 50
    assert not nnrp.load(PITCH / "nmp.tflite", runtime="litert").session.settings["stateful"]


def test_of_several_signatures_one_must_be_named(tmp_path: Path) -> None:
    file = lite.scale(tmp_path / "two.tflite", [-1, 3], {"double": 2.0, "triple": 3.0})
    x = np.ones((2, 3), np.float32)
    for signature, factor in (("double", 2), ("triple", 3)):
        model = nnrp.load(file, runtime="litert", options={"signature": signature})
        assert model.session.settings["signature"] == signature
        assert (model(x)["y"] == factor).all()
    for options in ({}, {"signature": "half"}):
        with pytest.raises(errors.InvalidOption, match="'double', 'triple'"):
            nnrp.load(file, runtime="litert", options=options)


def test_a_file_without_signatures_has_the_names_of_its_tensors(tmp_path: Path) -> None:
    model = nnrp.load(lite.scale(tmp_path / "raw.tflite", [-1, 3], {"": 2.0}, signed=False), runtime="litert")
    for rows in (1, 5, 2):
        assert (model(np.ones((rows, 3), np.float32))["y"] == np.full((rows, 3), 2)).all()


def test_texts_go_in_and_come_out_byte_by_byte(tmp_path: Path) -> None:
    model = nnrp.load(lite.reverse_texts(tmp_path / "texts.tflite"), runtime="litert")
    assert model(np.array([b"a\0\xff", b"", b"ccc"], object))["y"].tolist() == [b"ccc", b"", b"a\0\xff"]


BAD_CALLS: dict[str, tuple[dict[str, Any], str]] = {
    "float64": ({"x": np.ones((1, 3, 64, 64))}, "DATATYPE_MISMATCH"),
    "two channels": ({"x": np.ones((1, 2, 64, 64), np.float32)}, "SHAPE_MISMATCH"),
    "another rank": ({"x": np.ones((3, 64, 64), np.float32)}, "SHAPE_MISMATCH"),
    "missing": ({}, "MISSING_INPUT"),
    "unknown name": ({"z": np.ones((1, 3, 64, 64), np.float32)}, "UNKNOWN_INPUT"),
}


@pytest.mark.parametrize("call", BAD_CALLS)
def test_a_bad_call_is_the_same_error_as_on_onnxruntime(pixels: dict[str, Path], call: str) -> None:
    inputs, reason = BAD_CALLS[call]
    told = []
    for runtime, file in pixels.items():
        model = nnrp.load(file, runtime=runtime)
        # A run that went well before must not lend its input to one that has none.
        model.infer({"x": np.ones((1, 3, 64, 64), np.float32)})
        with pytest.raises(errors.InvalidArgument) as refused:
            model.infer(inputs)
        told.append((refused.value.reason, refused.value.message))
    assert told[0] == told[1]
    assert told[0][0] == reason


@pytest.mark.parametrize("threads", [1, 2])
def test_four_threads_at_once_get_their_own_answers(pixels: dict[str, Path], threads: int) -> None:
    model = nnrp.load(pixels["litert"], runtime="litert", options={"num_threads": threads})

    def wrong(thread: int) -> int:
        xs = (np.full((1 + turn % 3, 3, 64, 64), 1_000 * thread + turn, np.float32) for turn in range(240))
        return sum(not np.array_equal(model(x)["y"], x) for x in xs)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(wrong, range(4))) == 0


def test_outputs_that_are_kept_are_not_written_over(pixels: dict[str, Path]) -> None:
    model = nnrp.load(pixels["litert"], runtime="litert")
    kept = [model(np.full((1, 3, 64, 64), turn, np.float32))["y"] for turn in range(40)]
    assert all((answer == turn).all() for turn, answer in enumerate(kept))


def test_a_run_that_fails_says_why_and_leaves_nothing_behind(tmp_path: Path) -> None:
    model = nnrp.load(lite.reshape(tmp_path / "reshape.tflite"), runtime="litert")
    for _ in range(3):
        with pytest.raises(errors.RunFailed, match="6 != 8") as failed:
            model(np.array([2, 4], np.int32))
        assert ".cc" not in failed.value.message
        assert model(np.array([2, 3], np.int32))["y"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert model(np.array([6], np.int32))["y"].shape == (6,)


@pytest.mark.parametrize(("data", "reason"), [(b"", "INVALID_MODEL"), (b"garbage, and more of it\n", "INVALID_MODEL"), (b"GGUF\3\0\0\0", "NOT_OFFERED")])
def test_a_bad_file_is_the_same_error_as_on_onnxruntime(tmp_path: Path, data: bytes, reason: str) -> None:
    file = tmp_path / "bad.tflite"
    file.write_bytes(data)
    for runtime in ("onnxruntime", "litert"):
        with pytest.raises(errors.NnrpError) as refused:
            nnrp.load(file, runtime=runtime)
        assert refused.value.reason == reason
        assert str(tmp_path) not in str(refused.value)


def test_what_it_cannot_do_is_said_at_the_load(tmp_path: Path, pixels: dict[str, Path]) -> None:
    with pytest.raises(errors.LoadFailed, match="unresolved custom op: Nobody's"):
        nnrp.load(lite.custom(tmp_path / "custom.tflite"), runtime="litert")
    for words, kind in (({"device": "gpu"}, errors.DeviceNotFound), ({"precision": "fp16"}, errors.NotOffered)):
        with pytest.raises(kind):
            nnrp.load(pixels["litert"], runtime="litert", **words)  # type: ignore[arg-type]
    for options, wrong in (({"num_threads": 0}, errors.InvalidOption), ({"threads": 1}, errors.UnknownOption)):
        with pytest.raises(wrong):
            nnrp.load(pixels["litert"], runtime="litert", options=options)


#: Loads each of the files that are given, and says what became of it.
LOADS = """
import logging, sys, nnrp
logging.disable()
for file in sys.argv[1:]:
    try:
        nnrp.load(file, runtime="litert")
        print("loaded")
    except nnrp.NnrpError as error:
        print(error.reason)
"""


def test_cut_off_files_are_typed_errors(tmp_path: Path) -> None:
    whole = (MICRO / "hey_jarvis.tflite").read_bytes()
    files = [tmp_path / f"{size}.tflite" for size in np.linspace(1, len(whole) - 1, 100, dtype=int)]
    for file in files:
        file.write_bytes(whole[: int(file.stem)])
    done = subprocess.run([sys.executable, "-c", LOADS, *map(str, files)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) <= {"INVALID_MODEL", "LOAD_FAILED"}
    assert len(done.stdout.split()) == len(files)


def test_it_keeps_the_contract(tmp_path: Path) -> None:
    report = check_runtime("litert", models=lite.roles(tmp_path))
    assert not report.failures, report.failures
