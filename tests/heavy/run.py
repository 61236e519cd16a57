"""Install the runtimes that are too large for `make test`, each environment as its users would, and run its tests there.

An environment is a folder beside this file: `requirements.in` names extras of this package as `.[torch]`, and what the tests need; `requirements.txt` locks it:
  uv pip compile --universal --generate-hashes --python-version 3.11 --no-emit-package nnrp tests/heavy/ENV/requirements.in -o tests/heavy/ENV/requirements.txt
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
#: What the package is built into, and where the environments are.
WHEELS, PLACES = ROOT / "target" / "wheels", ROOT / ".venv-runtimes"
#: The longest that an environment's installation, or its tests, may take.
INSTALL_S, TESTS_S = 1200, 1200
#: Environments that run only when they are named: what is compiled as it is installed takes longer than all the others together.
NAMED = {"llama-cpp"}
#: On a machine that is thrown away nothing is kept: a few of them together fill a disk.
THROWN_AWAY = os.environ.get("CI") == "true"


class Broken(Exception):
    """An environment that cannot be installed, or whose tests fail: what was said."""


@dataclass(frozen=True)
class Counts:
    """What came of an environment's tests."""

    passed: int = 0
    failed: int = 0


def main() -> int:
    """Run the environments that were asked for, else all but those that must be named; tell one line each."""
    words = argparse.ArgumentParser(description="Install the large runtimes and run their tests.")
    words.add_argument("environments", nargs="*", metavar="ENV")
    there = sorted(path.parent.name for path in HERE.glob("*/requirements.txt"))
    asked = words.parse_args().environments or [name for name in there if name not in NAMED]
    if unknown := [name for name in asked if name not in there]:
        words.error(f"no environment '{unknown[0]}': expected {', '.join(there)}")
    wheel = max(WHEELS.glob("nnrp-*.whl"), key=lambda path: path.stat().st_mtime)
    passed = failed = 0
    for name in asked:
        counts = _environment(name, wheel)
        passed, failed = passed + counts.passed, failed + counts.failed
    print(f"{passed} passed, {failed} failed", flush=True)
    return int(failed > 0)


def _environment(name: str, wheel: Path) -> Counts:
    """Install one, run its tests, and tell in a line; what was said where something failed."""
    place = PLACES / name
    begun = time.monotonic()
    try:
        fresh = _install(HERE / name, place, wheel)
        installed = time.monotonic()
        said = _tests(HERE / name, place)
        counts = Counts(*(int(found[1]) if (found := re.search(rf"(\d+) {word}", said)) else 0 for word in ("passed", "failed")))
        how = f"installed in {installed - begun:.0f} s" if fresh else "was installed"
        print(f"{name}: {how}, {said} ({_gigabytes(place):.1f} GB)", flush=True)
        return counts if counts.passed else Counts(failed=1)
    except Broken as error:
        print(f"{error}\n{name}: FAILED", flush=True)
        return Counts(failed=1)
    finally:
        if THROWN_AWAY:
            shutil.rmtree(place, ignore_errors=True)


def _install(folder: Path, place: Path, wheel: Path) -> bool:
    """Make the environment, unless it is there with what is locked now, and put the package into it; tell whether it was made."""
    locked, mark = hashlib.sha256((folder / "requirements.txt").read_bytes()).hexdigest(), place / ".locked"
    python, cache = place / "bin" / "python", ["--no-cache-dir"] * THROWN_AWAY
    fresh = not mark.exists() or mark.read_text() != locked
    if fresh:
        shutil.rmtree(place, ignore_errors=True)
        _do([sys.executable, "-m", "venv", place], INSTALL_S)
        _do(
            [python, *_pip("install"), *cache, "--retries", "10", "--timeout", "60", "--require-hashes", "--requirement", folder / "requirements.txt"],
            INSTALL_S,
        )
        mark.write_text(locked)
    extras = re.search(r"^\.\[([\w, -]+)\]", (folder / "requirements.in").read_text(encoding="utf-8"), re.MULTILINE)
    _do([python, *_pip("uninstall"), "--yes", "nnrp"], INSTALL_S)
    # Without an index: what a user's `pip install nnrp[…]` would bring is there, or this fails.
    _do([python, *_pip("install"), "--no-index", f"nnrp[{extras[1] if extras else ''}] @ {wheel.as_uri()}"], INSTALL_S)
    return fresh


def _pip(verb: str) -> list[str]:
    return ["-m", "pip", verb, "--quiet", "--disable-pip-version-check"]


def _tests(folder: Path, place: Path) -> str:
    """Run the tests of a folder, and give what pytest says in the end."""
    command = [place / "bin" / "python", "-P", "-m", "pytest", "--config-file", HERE / "pytest.ini", "--rootdir", ROOT, folder]
    # What is locked stays: nothing that is tested may install anything.
    said = _do(command, TESTS_S, PIP_NO_INDEX="1")
    return said.strip().splitlines()[-1].strip("= ")


def _do(command: list[str | Path], seconds: float, **more: str) -> str:
    """Run a command and give what it says.

    Raises:
        Broken: it failed, or took too long.
    """
    surroundings = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    surroundings |= more
    surroundings["PATH"] = os.pathsep.join([str(Path(command[0]).parent), surroundings.get("PATH", "")])
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=surroundings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        said = error.stdout or b""
        raise Broken(f"{said.decode(errors='replace') if isinstance(said, bytes) else said}\nno end after {seconds:g} s") from error
    if done.returncode:
        raise Broken(done.stdout)
    return done.stdout


def _gigabytes(place: Path) -> float:
    return sum(path.lstat().st_size for path in place.rglob("*")) / 1e9


if __name__ == "__main__":
    sys.exit(main())
