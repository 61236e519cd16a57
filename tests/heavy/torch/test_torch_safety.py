"""Files of PyTorch's that run what their maker wrote: each is refused before PyTorch opens it, unless that is asked for."""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nets
import numpy as np
import pytest
import torch

import nnrp
from nnrp import errors
from nnrp.convert import convert


class Evil:
    """Makes a file when it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.mark),))


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """What is there once something ran that should not have."""
    return tmp_path / "it_ran"


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = torch.export.Dim("rows", min=1, max=64)
    return nets.exported(nets.Linear(), tmp_path_factory.mktemp("torch") / "line.pt2", torch.zeros(2, 4), dims={"x": {0: rows}})


def rewritten(path: Path, to: Path, change: Callable[[str, bytes], bytes], **more: bytes) -> Path:
    """An archive with other parts, as PyTorch's own writer makes it."""
    with zipfile.ZipFile(path) as old:
        parts = {name.partition("/")[2]: old.read(name) for name in old.namelist()}
    writer = torch._C.PyTorchFileWriter(str(to))
    for name, content in {**parts, **more}.items():
        if not name.startswith((".data/", "byteorder")) and name != "version":
            changed = change(name, content)
            writer.write_record(name, changed, len(changed))
    writer.write_end_of_file()
    return to


def test_an_archive_that_was_only_rewritten_is_loaded(line: Path, tmp_path: Path) -> None:
    same = rewritten(line, tmp_path / "same.pt2", lambda _, content: content)
    x = np.random.default_rng(0).random((3, 4), np.float32)
    np.testing.assert_array_equal(nnrp.load(same)(x)["output"], nnrp.load(line)(x)["output"])


def test_samples_that_are_any_pickle_are_refused_and_never_opened(line: Path, tmp_path: Path, mark: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"args": Evil(mark)}, buffer)
    evil = rewritten(line, tmp_path / "evil.pt2", lambda name, content: buffer.getvalue() if name.startswith("data/sample_inputs/") else content)
    for opened in (nnrp.load, lambda path: convert(path, "onnx")):
        with pytest.raises(errors.InvalidModel, match="allow_pickle"):
            opened(evil)
    assert not mark.exists()
    # It is what PyTorch would have done.
    torch.export.load(evil)
    assert mark.exists()


def test_weights_that_are_a_pickle_are_refused_and_never_opened(line: Path, tmp_path: Path, mark: Path) -> None:
    def change(name: str, content: bytes) -> bytes:
        if name == "data/weights/weight_0":
            return pickle.dumps(Evil(mark))
        return content.replace(b'"use_pickle": false', b'"use_pickle": true', 1) if name.endswith("weights_config.json") else content

    with pytest.raises(errors.InvalidModel, match="allow_pickle"):
        nnrp.load(rewritten(line, tmp_path / "evil.pt2", change))
    assert not mark.exists()


@pytest.mark.parametrize(
    "text", ["__import__('os').mkdir('{}')", "Symbol('s0').__class__.__init__.__globals__", "[x for x in (1,)]", "exec('1')", "Symbol('a b')"]
)
def test_expressions_that_are_no_arithmetic_are_refused_and_never_evaluated(line: Path, tmp_path: Path, mark: Path, text: str) -> None:
    def change(name: str, content: bytes) -> bytes:
        if not name.startswith("models/"):
            return content
        program = json.loads(content)
        size = program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0]
        size["as_expr"]["expr_str"] = text.format(mark)
        return json.dumps(program).encode()

    with pytest.raises(errors.InvalidModel, match="arithmetic"):
        nnrp.load(rewritten(line, tmp_path / "evil.pt2", change))
    assert not mark.exists()


@pytest.mark.parametrize("target", ["torch.os.mkdir", "torch.hub.load", "builtins.exec", "#nobody:thing", "torch.ops.aten.from_file.default", "torch.load"])
def test_targets_that_are_no_operations_are_refused_and_never_called(line: Path, tmp_path: Path, target: str) -> None:
    def change(name: str, content: bytes) -> bytes:
        if not name.startswith("models/"):
            return content
        program = json.loads(content)
        program["graph_module"]["graph"]["nodes"][-1]["target"] = target
        return json.dumps(program).encode()

    with pytest.raises(errors.InvalidModel):
        nnrp.load(rewritten(line, tmp_path / "evil.pt2", change))


def test_guards_that_are_no_comparison_are_refused(line: Path, tmp_path: Path, mark: Path) -> None:
    def change(name: str, content: bytes) -> bytes:
        return json.dumps(json.loads(content) | {"guards_code": [f"__import__('os').mkdir('{mark}')"]}).encode() if name.startswith("models/") else content

    with pytest.raises(errors.InvalidModel, match="arithmetic"):
        nnrp.load(rewritten(line, tmp_path / "evil.pt2", change))
    assert not mark.exists()


def test_a_pickle_is_refused_unless_it_is_allowed_and_then_it_is_a_model(tmp_path: Path) -> None:
    path = tmp_path / "line.pt"
    torch.save(nets.Linear(), path)
    for said in ({}, dict(nets.PORTS), {**nets.PORTS, "options": {"allow_pickle": False}}):
        with pytest.raises(errors.InvalidModel, match="pickle"):
            nnrp.load(path, runtime="torch", **said)
    with pytest.raises(errors.InvalidModel, match="pickle"):
        nnrp.load(path)
    with pytest.raises(errors.InvalidOption, match="inputs"):
        nnrp.load(path, runtime="torch", options={"allow_pickle": True})
    model = nnrp.load(path, runtime="torch", options={"allow_pickle": True}, **nets.PORTS)
    x = np.random.default_rng(0).random((3, 4), np.float32)
    np.testing.assert_array_equal(model(x)["y"], nets.Linear()(torch.from_numpy(x)).detach().numpy())


def test_weights_without_a_model_are_no_model(tmp_path: Path) -> None:
    torch.save(nets.Linear().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(errors.InvalidModel, match="expected a module, got OrderedDict"):
        nnrp.load(tmp_path / "weights.pt", runtime="torch", options={"allow_pickle": True}, **nets.PORTS)


def test_nested_inputs_that_name_code_are_refused_and_it_is_not_imported(line: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "it_was_imported.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))

    def change(name: str, content: bytes) -> bytes:
        if not name.startswith("models/"):
            return content
        program = json.loads(content)
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        version, spec = json.loads(signature["in_spec"])
        spec["context"] = json.dumps({"__enum__": True, "fqn": "it_was_imported:x", "name": "x"})
        signature["in_spec"] = json.dumps([version, spec])
        return json.dumps(program).encode()

    with pytest.raises(errors.InvalidModel, match="names code"):
        nnrp.load(rewritten(line, tmp_path / "evil.pt2", change))
    assert "it_was_imported" not in sys.modules


@torch.jit.interface
class Part(torch.nn.Module):
    """What a part of a module looks like from outside."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pass


def shared_file(x: torch.Tensor) -> torch.Tensor:
    """x, of a file that is made where it is not there."""
    return torch.from_file("made.bin", True, 4) + x


class Directly(torch.nn.Module):
    """Opens a file in its own code."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return shared_file(x)


class Forked(torch.nn.Module):
    """Opens a file on another thread."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.jit.wait(torch.jit.fork(shared_file, x))


class Within(torch.nn.Module):
    """Opens a file in a part that is known by its interface alone."""

    def __init__(self, part: torch.nn.Module | None = None) -> None:
        super().__init__()
        self.part = part or Directly()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.part.forward(x)


# PyTorch takes no text for it.
Within.__annotations__ = {"part": Part}


class Restored(torch.nn.Module):
    """Writes a file as it is read."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, bool]:
        return torch.zeros(1), self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        torch.save(state[0], "made.bin")
        self.training = state[1]


@pytest.mark.parametrize("kind", [Directly, Forked, Within, Restored])
def test_torchscript_that_opens_files_is_not_offered_and_opens_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[torch.nn.Module]) -> None:
    monkeypatch.chdir(tmp_path)
    path = nets.scripted(kind(), tmp_path / "opening.pt")
    with pytest.raises(errors.NotOffered, match="which opens files of its own choice"):
        nnrp.load(path, **nets.PORTS)
    assert not (tmp_path / "made.bin").exists()


def test_a_part_whose_code_is_not_seen_may_remember_something(tmp_path: Path) -> None:
    session = nnrp.load(nets.scripted(Within(nets.Linear()), tmp_path / "part.pt"), **nets.PORTS).session
    assert session is not None
    assert (session.exclusive, session.settings["stateful"]) == (True, True)


@pytest.mark.parametrize(
    "code",
    [
        "torch . save(x)",
        "torch.\\\n  save(x)",
        "torch. # here\n save(x)",
        'getattr(torch, "save")(x)',
        'getattr(torch, "s\\x61ve")(x)',
        "a = torch\n    a.from_file(x)",
    ],
)
def test_however_it_is_written_code_that_opens_files_is_found(tmp_path: Path, code: str) -> None:
    def change(name: str, content: bytes) -> bytes:
        return content.replace(b"    return", b"    " + code.encode() + b"\n    return", 1) if name.endswith(".py") else content

    path = nets.scripted(nets.Linear(), tmp_path / "line.pt")
    nnrp.load(rewritten(path, tmp_path / "same.pt", lambda _, content: content), **nets.PORTS)
    with pytest.raises(errors.NotOffered, match="which opens files of its own choice"):
        nnrp.load(rewritten(path, tmp_path / "evil.pt", change), **nets.PORTS)


@pytest.mark.parametrize("kind", ["exported", "scripted"])
def test_a_file_that_is_cut_off_or_corrupt_is_a_typed_error_without_its_path(tmp_path: Path, kind: str) -> None:
    make: Any = getattr(nets, kind)
    whole = make(nets.Linear(), tmp_path / "whole", *([torch.zeros(2, 4)] if kind == "exported" else [])).read_bytes()
    refused = [error for attempt in range(30) if (error := refusal(tmp_path / "bad", damaged(whole, attempt), kind))]
    assert len(refused) >= 15
    for error in refused:
        assert error.code in ("INVALID_ARGUMENT", "RUNTIME_FAILURE", "UNIMPLEMENTED"), error
        assert str(tmp_path) not in f"{error} {error.details}"


def damaged(whole: bytes, attempt: int) -> bytes:
    """Cut off, every other time, and with eight bytes that are others."""
    generator = np.random.default_rng(attempt)
    content = bytearray(whole[: len(whole) * attempt // 30] if attempt % 2 else whole)
    for place in generator.integers(0, max(1, len(content)), 8):
        content[place : place + 1] = generator.bytes(1)
    return bytes(content)


def refusal(path: Path, content: bytes, kind: str) -> errors.NnrpError | None:
    path.write_bytes(content)
    try:
        nnrp.load(path, runtime="torch", **(nets.PORTS if kind == "scripted" else {}))
    except errors.NnrpError as error:
        return error
    return None
