"""A page of `docs/runtimes`, run as written in an environment of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGES = ROOT / "docs" / "runtimes"
FENCE = re.compile(r"^```(\S*) *([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS = 300


def run(page: str, env: str, folder: Path) -> int:
    """Run the blocks of a page that are marked `env=…` in a folder, compare what they print with the blocks `output` after them, and tell how many ran."""
    # Where the packages lie that bring real models.
    (folder / ".venv").symlink_to(ROOT / ".venv")
    surroundings = os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]), "NO_COLOR": "1"}
    commands = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
    printed, count = "", 0
    for language, mark, text in FENCE.findall((PAGES / f"{page}.md").read_text(encoding="utf-8")):
        if mark == f"env={env}":
            done = subprocess.run([*commands[language], text], cwd=folder, env=surroundings, capture_output=True, text=True, timeout=SECONDS, check=False)
            assert done.returncode == 0, f"{text}\nended with {done.returncode}\n{done.stdout}\n{done.stderr}"
            printed, count = done.stdout, count + 1
        elif mark == "output":
            pattern = ".*".join(re.escape(part) for part in " ".join(text.split()).split("…"))
            assert re.fullmatch(pattern, " ".join(printed.split())), f"expected\n{text}\ngot\n{printed}"
    return count
