"""Files of the packages in `.venv` that bring real models; an environment of its own has what a runtime needs, and no more."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def file(place: str) -> Path:
    """Where a package's file is: `basic_pitch/saved_models/icassp_2022/nmp.onnx`."""
    found = next(ROOT.glob(f".venv/lib/python3*/site-packages/{place}"), None)
    assert found, f"there is no {place} in .venv: `make build` first"
    return found
