"""The files of the repository, for tests that look at all of them."""

import re
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CODE = {".rs", ".py", ".pyi", ".c", ".h", ".cpp", ".hpp", ".java", ".proto", ".sh"}


@cache
def files() -> list[Path]:
    """Every file that is, or would be, in the repository."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


@cache
def text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def under(folder: str, *suffixes: str) -> list[Path]:
    return [path for path in files() if name(path).startswith(folder) and path.suffix in (suffixes or {path.suffix})]


def without_tests(source: str) -> str:
    """Rust code up to its inner tests, which stand last in a file."""
    return source.split("#[cfg(test)]\nmod ")[0]


def without_comments(source: str) -> str:
    return re.sub(r"^\s*//.*$", "", source, flags=re.MULTILINE)
