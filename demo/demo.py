"""Serve a real model and ask it about real files over every form, then move it to other runtimes; fail unless all forms and runtimes agree.

The model is magika (Apache-2.0), which tells what a file is from its bytes, straight out of its PyPI package.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import statistics
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import features
import migration

import nnrp

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "demo" / ".work"
C_PROGRAM = ROOT / "target" / "release" / "magika"
REPEATS = 5
#: Two forms agree when every probability does, to the last bit that a text form can carry.
TOLERANCE = 1e-6


@dataclass
class Row:
    """One file, and what each form said of it."""

    path: Path
    scores: dict[str, Any] = field(default_factory=dict)
    micros: dict[str, float] = field(default_factory=dict)


def main() -> int:
    """Run the demo; returns the exit status."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--keep", action="store_true", help="leave the server up until Ctrl-C")
    keep = options.parse_args().keep
    package = Path(_found("magika")).parent
    model = package / "models" / "standard_v3_3" / "model.onnx"
    labels = json.loads((model.parent / "config.min.json").read_text())["target_labels_space"]
    rows = [Row(path) for path in _files()]

    print(f"Serving magika ({model.stat().st_size / 1e6:.1f} MB, ONNX) and asking it what {len(rows)} files are …")
    with nnrp.serve(f"magika={model}", http_port=8000 if keep else 0, grpc_port=8001 if keep else 0) as server:
        forms = {
            "in process": nnrp.load(model, name="magika"),
            "REST": nnrp.connect(server.http_url, model="magika"),
            "gRPC": nnrp.connect(server.grpc_url, model="magika"),
        }
        for row in rows:
            pixels = features.of_file(row.path)
            for form, magika in forms.items():
                row.scores[form], row.micros[form] = _ask(lambda magika=magika, pixels=pixels: magika(pixels))
        _ask_c(model, rows)
        _show(rows, [*forms, "C"], labels)
        wrong = _disagreements(rows, labels)
        print("\n".join(wrong) if wrong else f"All {len(forms) + 1} forms agree on every file.")
        wrong += _moved(model, rows)
        if not wrong:
            _next_steps(model, server, keep)
        if keep:
            with contextlib.suppress(KeyboardInterrupt):
                server.wait()
    return 1 if wrong else 0


def _moved(model: Path, rows: list[Row]) -> list[str]:
    print("\nMoving it: one word changes, runtime=…, and the same files are asked about again.")
    wrong = migration.move(model, [row.path for row in rows], WORK)
    print("\n".join(wrong) if wrong else f"All {len(migration.RUNTIMES)} runtimes give the same answer for every file.")
    return wrong


def _found(module: str) -> str:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        sys.exit(f"the package {module} is not installed: run make build")
    return spec.origin


def _files() -> list[Path]:
    """Real files: this project's own, a picture and a wheel made of it."""
    WORK.mkdir(exist_ok=True)
    picture = WORK / "gradient.png"
    picture.write_bytes(_png(64))
    wheel = WORK / "nnrp-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for source in sorted((ROOT / "python" / "nnrp").glob("*.py")):
            archive.write(source, f"nnrp/{source.name}")
        archive.writestr("nnrp-0.1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: nnrp\nVersion: 0.1.0\n")
    return [ROOT / "python/nnrp/errors.py", ROOT / "crates/nnrp-core/src/engine.rs", picture, wheel, ROOT / "README.md", ROOT / "LICENSE"]


def _png(side: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    pixels = b"".join(b"\0" + bytes(value for x in range(side) for value in (4 * x, 4 * y, 128)) for y in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def _ask(call: Callable[[], dict[str, Any]]) -> tuple[Any, float]:
    """The scores, and the median time of a few calls in µs."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        answer = call()
        times.append((time.perf_counter() - started) * 1e6)
    return next(iter(answer.values()))[0], statistics.median(times)


def _ask_c(model: Path, rows: list[Row]) -> None:
    library = Path(_found("onnxruntime")).parent / "capi"
    command = [str(C_PROGRAM), str(model), *(str(row.path) for row in rows)]
    environment = {"NNRP_ONNXRUNTIME_LIBRARY": str(next(library.glob("libonnxruntime.*")))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"the C program failed: {done.stderr}")
    for row, line in zip(rows, done.stdout.splitlines(), strict=True):
        answer = json.loads(line)
        row.scores["C"], row.micros["C"] = answer, answer["latency_us"]


def _best(scores: Any) -> tuple[int, float]:
    if isinstance(scores, dict):
        return int(scores["label_index"]), float(scores["score"])
    best = int(scores.argmax())
    return best, float(scores[best])


def _show(rows: list[Row], forms: list[str], labels: list[str]) -> None:
    from nnrp.cli import show

    table = []
    for row in rows:
        best, score = _best(row.scores["in process"])
        table.append([row.path.name, labels[best], f"{score:.4f}", *(f"{row.micros[form]:.0f}" for form in forms)])
    show.table(["file", "answer", "probability", *(f"{form} µs" for form in forms)], table)


def _disagreements(rows: list[Row], labels: list[str]) -> list[str]:
    wrong = []
    for row in rows:
        best, score = _best(row.scores["in process"])
        for form, scores in row.scores.items():
            other, other_score = _best(scores)
            if other != best or abs(other_score - score) > TOLERANCE:
                wrong.append(f"{row.path.name}: in process says {labels[best]} {score:.7f}, {form} says {labels[other]} {other_score:.7f}")
    return wrong


def _next_steps(model: Path, server: Any, keep: bool) -> None:
    shown = model.relative_to(ROOT) if model.is_relative_to(ROOT) else model
    print("\nTry next:")
    if not keep:
        print(f"  .venv/bin/nnrp serve magika={shown}")
    print(f"  .venv/bin/nnrp models {server.http_url if keep else 'http://127.0.0.1:8000'}")
    print(f"  .venv/bin/nnrp compare {shown} --runtimes onnxruntime,openvino --html moved.html")
    if keep:
        print(f"\nThe server is up: REST {server.http_url}, gRPC {server.grpc_url}. Stop with Ctrl-C.", flush=True)


if __name__ == "__main__":
    sys.exit(main())
