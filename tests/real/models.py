"""The models, and what each must answer."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import nnrp

from . import sounds

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "demo"))

import features  # noqa: E402

#: Loads a file with the runtime that is tried.
Load = Callable[[Path], nnrp.Model]
#: What is said to the speech detector.
SENTENCE = "hello, this is a test of the speech detector"
#: What is written for the reader.
LINE = "Hello NNRP 2026"


def package(name: str) -> Path:
    """The folder of an installed package, which is not imported."""
    spec = find_spec(name)
    places = list((spec and spec.submodule_search_locations) or ())
    assert places, f"the package {name} is not there: make build"
    return Path(places[0])


@dataclass(frozen=True)
class Real:
    """A model, in one format.

    Attributes:
        name: what people call it, and what it is for.
        format: as `nnrp.inspect` tells it.
        check: asks it something, and asserts that the answer is right.
        options: runtime → what it needs to be told.
    """

    name: str
    format: str
    path: Path
    check: Callable[[Load, Path], None]
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def only(answer: Mapping[str, Any]) -> Any:
    (value,) = answer.values()
    return value


def magika(load: Load, path: Path) -> None:
    labels = json.loads((path.parent / "config.min.json").read_text())["target_labels_space"]
    model = load(path)
    for file, label in ((ROOT / "python/nnrp/errors.py", "python"), (ROOT / "crates/nnrp-core/src/engine.rs", "rust"), (path, "onnx")):
        scores = only(model(features.of_file(file)))[0]
        assert labels[scores.argmax()] == label
        assert scores.max() > 0.9


def basic_pitch(load: Load, path: Path) -> None:
    model = load(path)
    maps = model(sounds.tone(440, 43_844, 22_050)[None, :, None]).values()
    notes, contours = [one for one in maps if one.shape == (1, 172, 88)], [one for one in maps if one.shape == (1, 172, 264)]
    assert (len(notes), len(contours)) == (2, 1)
    # A of 440 Hz is MIDI's note 69; the maps begin at 21, and contours have three steps a note.
    assert 69 - 21 in {int(note[0].mean(axis=0).argmax()) for note in notes}
    assert abs(int(contours[0][0].mean(axis=0).argmax()) / 3 - (69 - 21)) < 1


def silero(load: Load, path: Path) -> None:
    model = load(path)

    def most(samples: sounds.Samples) -> float:
        state, before, heard = np.zeros((2, 1, 128), np.float32), np.zeros((1, 64), np.float32), []
        for at in range(0, len(samples) - 512, 512):
            chunk = np.concatenate([before, samples[None, at : at + 512]], axis=1)
            told = {"input": chunk, "state": state, "sr": np.array(16_000)}
            answer = model.infer({one.name: told[one.name] for one in model.inputs})
            state, before = answer["stateN"], chunk[:, -64:]
            heard.append(answer["output"].item())
        return max(heard)

    assert most(sounds.speech(SENTENCE)) > 0.9
    assert most(np.zeros(16_000, np.float32)) < 0.1


def _line() -> Any:
    """A line of text as the reader wants it: FP32 [1, 3, 48, width], blue first, -1 … 1."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(36)
    picture = Image.new("RGB", (int(font.getlength(LINE)) + 24, 48), "white")
    ImageDraw.Draw(picture).text((12, 2), LINE, "black", font)
    return np.ascontiguousarray((np.asarray(picture, np.float32)[:, :, ::-1] / 127.5 - 1).transpose(2, 0, 1)[None])


def reading(load: Load, path: Path) -> None:
    letters = ["", *nnrp.inspect(path)["metadata"]["character"].split("\n"), " "]
    best = only(load(path)(_line()))[0].argmax(axis=-1)
    # One letter a column; those that follow themselves, and the empty one, are no letters.
    read = "".join(letters[one] for at, one in enumerate(best) if one and (at == 0 or best[at - 1] != one))
    assert read.replace(" ", "") == LINE.replace(" ", "")


def wake_word(load: Load, path: Path) -> None:
    spectrum, embedding, word = (load(path.with_name(name)) for name in ("melspectrogram.tflite", "embedding_model.tflite", path.name))

    def heard(text: str) -> float:
        samples = np.concatenate([np.zeros(16_000, np.float32), sounds.speech(text), np.zeros(16_000, np.float32)]) * 32_767
        frames = only(spectrum(samples[None]))[0, 0] / 10 + 2
        windows = np.stack([frames[at : at + 76] for at in range(0, len(frames) - 76, 8)])[..., None]
        embedded = only(embedding(windows.astype(np.float32))).reshape(-1, 96)
        return max(only(word(embedded[None, at : at + 16])).item() for at in range(len(embedded) - 15))

    assert heard("hey jarvis") > 0.9
    assert heard("good morning") < 0.1


SOURCES = {
    "py": b"import os\n\ndef size(path):\n    return os.path.getsize(path)\n\nprint(size(__file__))\n",
    "c": b'#include <stdio.h>\nint main(void) { printf("hello\\n"); return 0; }\n',
    "rs": b'fn main() { let x: Vec<u8> = vec![1]; println!("{:?}", x); }\n',
}


def guesslang(load: Load, path: Path) -> None:
    told = load(path)(np.array(list(SOURCES.values()), object))
    found = told["classes"][range(len(SOURCES)), told["scores"].argmax(axis=1)]
    assert [name.decode() for name in found] == list(SOURCES)


def texts(load: Load, path: Path) -> None:
    told = only(load(path)(np.array(["straße", "", "NNRP"], object)))
    assert [one.decode() if isinstance(one, bytes) else one for one in told] == ["straße, seen ✓", ", seen ✓", "NNRP, seen ✓"]


def _texts(path: Path) -> Path:
    import onnx

    told = """
        <ir_version: 10, opset_import: ["" : 20]>
        seen (string[n] text) => (string[n] told) {
            mark = Constant <value = string {", seen ✓"}> ()
            told = StringConcat (text, mark)
        }"""
    onnx.save(onnx.parser.parse_model(told), path)
    return path


def reals(made: Path) -> list[Real]:
    """All of them; `made` is a folder for what is made here."""
    types, pitch = package("magika") / "models/standard_v3_3", package("basic_pitch") / "saved_models/icassp_2022"
    voice, reader = package("silero_vad") / "data", package("rapidocr_onnxruntime") / "models"
    wake = package("pyopen_wakeword") / "models"
    whole = {"tract": {"shapes": {"bytes": [1, 2048]}}}
    pitched = {"tract": {"shapes": {"serving_default_input_2:0": [1, 43_844, 1]}}}
    return [
        Real("magika, types of files", "onnx", types / "model.onnx", magika, whole),
        Real("basic-pitch, notes in music", "onnx", pitch / "nmp.onnx", basic_pitch, pitched),
        Real("basic-pitch, notes in music", "tflite", pitch / "nmp.tflite", basic_pitch),
        Real("basic-pitch, notes in music", "saved_model", pitch / "nmp", basic_pitch),
        Real("basic-pitch, notes in music", "mlpackage", pitch / "nmp.mlpackage", basic_pitch),
        Real("silero-vad, speech or not", "onnx", voice / "silero_vad.onnx", silero),
        Real("silero-vad, without branches", "onnx", voice / "silero_vad_op18_ifless.onnx", silero),
        Real("PP-OCRv4, reads a line", "onnx", reader / "ch_PP-OCRv4_rec_infer.onnx", reading, {"tract": {"shapes": {"x": list(_line().shape)}}}),
        Real("openWakeWord, three in a chain", "tflite", wake / "hey_jarvis.tflite", wake_word),
        Real("guesslang, languages of sources", "saved_model", package("guesslang") / "data/model", guesslang),
        Real("texts in and out (made here)", "onnx", _texts(made / "texts.onnx"), texts),
    ]
