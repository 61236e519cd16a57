"""The machine and the versions that a result belongs to."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from importlib import metadata
from pathlib import Path

PACKAGES = ("nnrp", "onnxruntime", "numpy", "onnx", "tritonclient", "grpcio")


def describe() -> dict[str, str]:
    """Describe the machine now: what it is, what runs on it, and how busy it was before we began."""
    memory_kib = int(_found(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text()) or 0)
    load = os.getloadavg()
    facts = {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cpu": _found(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text()) or platform.processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory_kib / 2**20:.1f} GiB",
        "hypervisor": "yes" if re.search(r"\bhypervisor\b", Path("/proc/cpuinfo").read_text()) else "none seen",
        "load average before": f"{load[0]:.2f} {load[1]:.2f} {load[2]:.2f}",
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "python": platform.python_version(),
    }
    facts |= {package: _package_version(package) for package in PACKAGES}
    facts["triton"] = "2.51.0 (nvidia-pytriton 0.7.0)"
    for tool, words in {"wrk": ["wrk", "-v"], "h2load": ["h2load", "--version"], "g++": ["g++", "--version"]}.items():
        facts[tool] = _first_line(words)
    return facts


def _found(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text, re.MULTILINE)
    return match[1] if match else None


def _package_version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not built" if package == "nnrp" else "not installed"


def _first_line(words: list[str]) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
    except FileNotFoundError:
        return "not installed"
    return (done.stdout or done.stderr).partition("\n")[0].strip()
