"""Sounds at a known rate: a tone, and words spoken by espeak-ng."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

#: The rate at which espeak-ng speaks, in Hz.
_SPOKEN_HZ = 22_050
_SPEAK = """
import ctypes, sys
import espeakng_loader
library = ctypes.CDLL(espeakng_loader.get_library_path())
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

@CALLBACK
def heard(samples, count, events):
    if samples and count:
        sys.stdout.buffer.write(ctypes.string_at(samples, 2 * count))
    return 0

assert library.espeak_Initialize(1, 0, espeakng_loader.get_data_path().encode(), 0) == %d
library.espeak_SetSynthCallback(heard)
library.espeak_SetVoiceByName(b"en")
text = sys.argv[1].encode()
library.espeak_Synth(text, len(text) + 1, 0, 0, 0, 1, None, None)
library.espeak_Synchronize()
"""

Samples = npt.NDArray[np.float32]


@cache
def speech(text: str, hz: int = 16_000) -> Samples:
    """Speak; samples of -1 … 1, half a second of silence on either side."""
    assert find_spec("espeakng_loader") is not None, "espeak-ng is not there: make build"
    # In a process of its own: the library is not ours to trust.
    done = subprocess.run([sys.executable, "-c", _SPEAK % _SPOKEN_HZ, text], capture_output=True, check=True, timeout=60)
    spoken = np.frombuffer(done.stdout, np.int16).astype(np.float32) / 32_768
    times = np.arange(0, len(spoken) / _SPOKEN_HZ, 1 / hz)
    still = np.zeros(hz // 2, np.float32)
    return np.concatenate([still, np.interp(times * _SPOKEN_HZ, np.arange(len(spoken)), spoken).astype(np.float32), still])


def tone(pitch_hz: float, count: int, hz: int) -> Samples:
    """A sine, half as loud as can be."""
    return (0.5 * np.sin(2 * np.pi * pitch_hz * np.arange(count) / hz)).astype(np.float32)
