"""The demo, as a newcomer runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_every_form_and_every_runtime_says_the_same_of_every_file() -> None:
    subprocess.run(["make", "-s", "-C", ROOT / "bindings" / "c", "magika"], check=True)
    done = subprocess.run([sys.executable, ROOT / "demo" / "demo.py"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "All 4 forms agree on every file." in done.stdout
    assert "All 3 runtimes give the same answer for every file." in done.stdout
    for answer in ("python", "rust", "png", "zip", "markdown"):
        assert answer in done.stdout
