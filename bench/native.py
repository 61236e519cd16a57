"""The floors in C++, compiled when their source is newer, and the ONNX Runtime library that they open."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

from .setting import BENCH, WORK, BenchFailure, progress

_FLAGS = ["-std=c++20", "-O2", "-Wall", "-Wextra", "-Werror"]


def server_floor() -> Path:
    """Give the program that serves `small` and `large` with nothing around ONNX Runtime."""
    return _compiled("serve.cpp", WORK / "floor", [])


def call_floor() -> Path:
    """Give the library that times ONNX Runtime's C call."""
    return _compiled("call.cpp", WORK / "libfloor.so", ["-shared", "-fPIC"])


def onnxruntime_library() -> Path:
    """Find libonnxruntime.so where pip put it, without importing the package."""
    spec = importlib.util.find_spec("onnxruntime")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for library in sorted(Path(folder, "capi").glob("libonnxruntime.so*")):
            return library
    raise BenchFailure("the pip package onnxruntime is not installed in this Python")


def _compiled(source: str, target: Path, flags: list[str]) -> Path:
    sources = [BENCH / "floor" / source, BENCH / "floor" / "ort.hpp"]
    if target.exists() and all(target.stat().st_mtime > s.stat().st_mtime for s in sources):
        return target
    progress(f"compiling floor/{source}")
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["g++", *_FLAGS, *flags, "-o", target, sources[0], "-ldl"], check=True)
    return target
