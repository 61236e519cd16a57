"""Compare what the C program says of real files with what the Python package magika says: test_magika.py PROGRAM..."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import magika

ROOT = Path(__file__).resolve().parents[2]
MODEL = Path(magika.__file__).parent / "models" / "standard_v3_3" / "model.onnx"
#: One file a run on both sides: the model's answer for a file depends, by some 1e-4, on what else is in its batch.
TOLERANCE = 1e-6


def real_files(folder: Path) -> list[Path]:
    """Files of this project, of the interpreter and of the package, and the awkward ones: blank edges, exact block sizes, a name to escape."""
    awkward = {
        "blank edges.py": b" \t\n\r\x0b\x0c" * 300 + b"import os\nprint(os.sep)\n" + b"\n" * 5000,
        "one block.txt": b"the quick brown fox jumps over the lazy dog\n" * 93 + b"1234",
        'quote " and \\.txt': b"plain words, and then some more of them\n",
        "eight": b"12345678",
        "1024.bin": bytes(range(256)) * 4,
    }
    for name, content in awkward.items():
        (folder / name).write_bytes(content)
    ours = [path for pattern in ("*.md", "Makefile", "Cargo.toml", "crates/*/src/*.rs", "spec/*.*", "bindings/c/*") for path in ROOT.glob(pattern)]
    theirs = [MODEL, MODEL.with_name("config.min.json"), Path(sys.executable).resolve()]
    return [path for path in (*folder.iterdir(), *ours, *theirs) if path.is_file()]


def main() -> int:
    """Run each program over the files; returns the exit status."""
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        package = magika.Magika()
        expected = {str(path): package.identify_path(path).prediction for path in real_files(Path(folder))}
        # The package answers for the shortest files itself, without the model.
        expected = {path: prediction for path, prediction in expected.items() if prediction.dl.label != "undefined"}
        for program in sys.argv[1:]:
            answers = subprocess.run([program, MODEL, *expected], capture_output=True, text=True, check=True).stdout.splitlines()
            for answer, (path, prediction) in zip(map(json.loads, answers), expected.items(), strict=True):
                same = (answer["file"], answer["label"]) == (path, str(prediction.dl.label)) and abs(answer["score"] - prediction.score) <= TOLERANCE
                if not same:
                    wrong += 1
                    print(f"{path}: expected {prediction.dl.label} {prediction.score}, got {answer}", file=sys.stderr)
            print(f"{program}: {len(answers)} files compared with the Python package, {wrong} answers differ")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
