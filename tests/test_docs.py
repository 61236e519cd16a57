"""The documentation, run as written: each document's blocks in order, in a folder that looks like the repository's root.

A block says in its info string what becomes of it:

    run          must end with 0; a block `text output` after it is what it prints, `…` standing for anything
    serve        runs until the document ends, and must then stop with 0
    file=NAME    is written to NAME, for the blocks that follow
    make         is nothing but make's targets, which must exist
    env=NAME     runs in that environment of `make test-runtimes`, by `heavy/page.py`
"""

import os
import re
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RUNNABLE = [ROOT / "README.md", *sorted((ROOT / "docs/guide").glob("*.md")), *sorted((ROOT / "docs/runtimes").glob("*.md"))]
DOCUMENTS = [*RUNNABLE, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "spec/nnrp.md", *sorted((ROOT / "docs/decisions").glob("*.md"))]
FENCE = re.compile(r"^```(\S*) *([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
SECONDS = 120


@dataclass
class Block:
    """One fenced block, and where it stands."""

    language: str
    mark: str
    text: str
    place: str


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    return [Block(m[1], m[2].strip(), m[3], f"{name(path)}:{text.count(chr(10), 0, m.start()) + 1}") for m in FENCE.finditer(text)]


@dataclass
class Ports:
    """Free ports in place of the two that the documents name, so that nothing else on the machine is in the way."""

    http: int
    grpc: int

    def put_into(self, text: str) -> str:
        return re.sub(r"\b8001\b", str(self.grpc), re.sub(r"\b8000\b", str(self.http), text))

    def take_out_of(self, text: str) -> str:
        return text.replace(str(self.http), "8000").replace(str(self.grpc), "8001")


@pytest.fixture
def ports() -> Ports:
    with socket.socket() as http, socket.socket() as grpc:
        http.bind(("127.0.0.1", 0))
        grpc.bind(("127.0.0.1", 0))
        return Ports(http.getsockname()[1], grpc.getsockname()[1])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder in which the blocks find what they use of the repository's root, and which they may write to."""
    if not (ROOT / ".venv/bin/nnrp").exists():
        pytest.fail("there is no .venv/bin/nnrp: `make build` first")
    for entry in (".venv", "bindings", "spec", "target"):
        (tmp_path / entry).symlink_to(ROOT / entry)
    return tmp_path


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in {"VIRTUAL_ENV", "PYTHONPATH", "NNRP_ONNXRUNTIME_LIBRARY"}} | {"NO_COLOR": "1"}


def run(block: Block, root: Path, ports: Ports) -> str:
    """What a block prints; it must end with 0."""
    commands = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [".venv/bin/python", "-W", "error", "-c"]}
    command = [*commands[block.language], ports.put_into(block.text)]
    done = subprocess.run(command, cwd=root, env=environment(), capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, f"{block.place}: ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return ports.take_out_of(done.stdout)


@contextmanager
def serving(block: Block, root: Path, ports: Ports) -> Iterator[None]:
    """The server of a block, from when it is ready until it has stopped with 0."""
    command = ports.put_into(block.text.strip())
    if "-port" not in command:
        command += f" --http-port {ports.http} --grpc-port {ports.grpc}"
    with (root / "server.log").open("w") as log:
        server = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=root, env=environment(), stdout=log, stderr=log)
    try:
        wait_until_ready(server, f"http://127.0.0.1:{ports.http}/v2/health/ready", block, root / "server.log")
        yield
        server.terminate()
        assert server.wait(SECONDS) == 0, f"{block.place}: the server stopped with {server.returncode}\n{(root / 'server.log').read_text()}"
    finally:
        server.kill()
        server.wait()


def wait_until_ready(server: "subprocess.Popen[bytes]", url: str, block: Block, log: Path) -> None:
    for _ in range(SECONDS * 20):
        try:
            with urllib.request.urlopen(url, timeout=SECONDS) as answer:
                assert answer.status == 200
                return
        except OSError:
            try:
                server.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            pytest.fail(f"{block.place}: the server ended with {server.returncode}\n{log.read_text()}")
    pytest.fail(f"{block.place}: the server was not ready in {SECONDS} s\n{log.read_text()}")


def matches(expected: str, printed: str) -> bool:
    """Whether a block prints what is written, white space aside."""
    pattern = ".*".join(re.escape(part) for part in " ".join(expected.split()).split("…"))
    return re.fullmatch(pattern, " ".join(printed.split())) is not None


@pytest.mark.parametrize("path", RUNNABLE, ids=name)
def test_the_blocks_of_a_document_run_as_written(path: Path, root: Path, ports: Ports) -> None:
    printed: str | None = ""
    with ExitStack() as servers:
        for block in blocks(path):
            if block.mark.startswith("env="):
                printed = None
            elif block.mark == "output" and printed is not None:
                assert matches(block.text, printed), f"{block.place}: expected\n{block.text}\ngot\n{printed}"
            elif block.mark == "run":
                printed = run(block, root, ports)
            elif block.mark == "serve":
                servers.enter_context(serving(block, root, ports))
            elif block.mark.startswith("file="):
                (root / block.mark.removeprefix("file=")).write_text(ports.put_into(block.text), encoding="utf-8")


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_block_of_code_says_what_becomes_of_it(path: Path) -> None:
    assert path.read_text(encoding="utf-8").count("\n```") % 2 == 0, f"{name(path)}: a fence is not closed"
    marks = {"sh": {"run", "serve", "make"}, "python": {"run"}, "text": {"", "output"}, "c": set[str]()}
    for block in blocks(path):
        known = block.mark in marks.get(block.language, {""}) or (block.mark.startswith("file=") and path in RUNNABLE)
        known |= block.mark.startswith("env=") and (ROOT / "tests/heavy" / block.mark.removeprefix("env=") / "requirements.txt").exists()
        assert known, f"{block.place}: a block of {block.language or 'no language'} with the mark '{block.mark}'"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_the_targets_that_a_document_names_are_makes(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for block in blocks(path):
        for line in block.text.splitlines() if block.mark == "make" else []:
            assert line.startswith("make "), f"{block.place}: '{line}' is no make"
            assert line.split()[1] in targets, f"{block.place}: the Makefile has no target '{line.split()[1]}'"


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_the_links_of_a_document_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(FENCE.sub("", path.read_text(encoding="utf-8"))):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), f"{name(path)}: there is no {link}"
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), f"{name(path)}: there is no heading {link}"
