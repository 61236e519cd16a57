"""One model in four formats on four runtimes: one script, the same three maps."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnrp

Maps = dict[str, np.ndarray[Any, Any]]

SPEC = find_spec("basic_pitch")
assert SPEC is not None
assert SPEC.submodule_search_locations
PITCH = Path(SPEC.submodule_search_locations[0]) / "saved_models/icassp_2022"
#: The file of each format, the runtime that runs it, and what it calls the three maps, where it calls them otherwise.
LOST = ["StatefulPartitionedCall:0", "StatefulPartitionedCall:1", "StatefulPartitionedCall:2"]
FORMATS: dict[str, tuple[str, str, list[str]]] = {
    "onnx": ("nmp.onnx", "onnxruntime", LOST),
    "tflite": ("nmp.tflite", "litert", ["contour", "note", "onset"]),
    "saved_model": ("nmp", "openvino", ["contour", "note", "onset"]),
    "mlpackage": ("nmp.mlpackage", "coreml", ["Identity", "Identity_1", "Identity_2"]),
}
#: Two optimised runs of one net agree to rounding. The net begins with a logarithm of the sound's spectrum, which multiplies rounding near zero: OpenVINO
#: rounds as the processor has it (3e-5 with AVX2), and Core ML's program has the logarithm elsewhere than the optimisers leave it (5e-5). What the ONNX file
#: gives without optimisations, Core ML's gives to rounding too.
ROUNDING, LOGARITHM = 2e-5, 3e-4


def tone() -> np.ndarray[Any, Any]:
    """Two seconds of the note A, 440 Hz, MIDI's 69, with the noise of a recording, without which most of a spectrum is rounding."""
    noise = np.random.default_rng(0).standard_normal(43844) / 100
    return (np.sin(2 * np.pi * 440 * np.arange(43844) / 22050) + noise).astype(np.float32).reshape(1, -1, 1)


def load(format: str, **words: Any) -> nnrp.Model:
    """A model by its description: whatever the file calls its tensors, callers say sound, contour, note and onset."""
    file, runtime, own = FORMATS[format]
    outputs = dict(zip(own, ("contour", "note", "onset"), strict=True))
    model = nnrp.load(PITCH / file, runtime=runtime, inputs=[{"name": "sound", "shape": [1, 43844, 1]}], outputs=outputs, **words)
    assert (model.session.runtime, model.session.format, model.session.settings["precision"]) == (runtime, format, "strict")
    return model


def maps(model: nnrp.Model) -> Maps:
    """The script, which knows nothing of formats."""
    answer = model(sound=tone())
    return {name: answer[name] for name in ("contour", "note", "onset")}


@pytest.fixture(scope="module")
def found() -> dict[str, Maps]:
    return {format: maps(load(format)) for format in FORMATS}


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_hears_the_note(found: dict[str, Maps], format: str) -> None:
    contour, note, onset = found[format].values()
    assert (contour.shape, note.shape, onset.shape) == ((1, 172, 264), (1, 172, 88), (1, 172, 88))
    # A piano's keys, from MIDI's 21 on; contours have three steps a key.
    assert note[0].mean(axis=0).argmax() + 21 == 69
    assert onset[0].max(axis=0).argmax() + 21 == 69
    assert round(contour[0].mean(axis=0).argmax() / 3) + 21 == 69


@pytest.mark.parametrize(("format", "tolerance"), [("tflite", ROUNDING), ("saved_model", LOGARITHM), ("mlpackage", LOGARITHM)])
def test_every_format_gives_the_same_maps(found: dict[str, Maps], format: str, tolerance: float) -> None:
    for name, expected in found["onnx"].items():
        np.testing.assert_allclose(found[format][name], expected, atol=tolerance, rtol=0, err_msg=name)


def test_core_ml_is_onnx_without_optimisations_to_rounding(found: dict[str, Maps]) -> None:
    plain = maps(load("onnx", options={"graph_optimization_level": "disable"}))
    for name, expected in plain.items():
        np.testing.assert_allclose(found["mlpackage"][name], expected, atol=ROUNDING, rtol=0, err_msg=name)
