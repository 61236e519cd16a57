"""The verdict that is kept in model.toml, and a later move that is checked against it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from comparing import PLAIN, net, quick, run

from nnrp import errors
from nnrp.compare import pin


@pytest.fixture
def pinned(tmp_path: Path) -> Path:
    """A model with a verdict in its model.toml, which also says something else."""
    (tmp_path / "model.toml").write_text('# mine\nname = "kept"  # as it is\n')
    model = net(tmp_path / "net.onnx", np.ones((1, 4)))
    report = quick(model, f"{PLAIN},onnxruntime", ranges={"x": (-2.0, 2.0)}, tolerance=1e-3)
    assert pin.write(report) == tmp_path / "model.toml"
    return model


def test_a_pin_says_what_was_verified_and_leaves_the_rest(pinned: Path) -> None:
    text = (pinned.parent / "model.toml").read_text()
    assert text.startswith('# mine\nname = "kept"  # as it is\n')
    entry = tomllib.loads(text)["verified"]["net.onnx"]
    assert entry["files"] == {"net.onnx": pin.digest(pinned)}
    assert entry["reference"] == "plain"
    assert entry["tolerances"] == {"": 1e-3}
    assert entry["cases"]["ranges"] == {"x": [-2.0, 2.0]}
    plain, usual = entry["candidates"]
    assert plain["options"] == {"graph_optimization_level": "disable"}
    assert usual["version"].count(".") == 2
    assert usual["outputs"][0] == {"name": "y", "tolerance": 1e-3, "max_abs": 0.0, "max_rel": 0.0, "mean_abs": 0.0}


def test_a_pin_that_cannot_be_written_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    file = net(tmp_path / "net.onnx", np.full((1, 4), 0.5))
    (tmp_path / "model.toml").mkdir()
    assert "cannot be written: Is a directory" in run("compare", file, "--runtimes", "onnxruntime,openvino", "--seconds", "0", "--pin", status=2)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["model.toml", "net.onnx"]


def test_a_move_is_checked_against_the_pin(pinned: Path) -> None:
    told = json.loads(run("compare", pinned, "--check", "--runtimes", "openvino", "--seconds", "0", "--json"))
    assert [(one["name"], one["verdict"]) for one in told["results"]] == [("plain", "reference"), ("openvino", "same")]
    assert told["stale"] == told["notes"] == []
    assert told["results"][1]["outputs"][0]["tolerance"] == 1e-3
    other = json.loads(run("compare", pinned, "--check", "--random", "1", "--seconds", "0", "--json"))
    assert other["notes"] == ["the inputs are not those that were pinned"]


def test_a_file_that_changed_is_not_what_was_verified(pinned: Path) -> None:
    net(pinned, np.full((1, 4), 1.25))
    assert "another file now" in run("compare", pinned, "--check", "--seconds", "0", status=1)


@pytest.mark.parametrize(
    ("was", "now"), [('verdict = "same"', 'verdict = "within"'), ('verdict = "reference"', 'verdict = "same"'), ("max_rel = 0.0", "max_rel = 1.0")]
)
def test_a_verdict_that_is_not_what_was_measured_is_refused(pinned: Path, was: str, now: str) -> None:
    file = pinned.parent / "model.toml"
    text = file.read_text()
    assert was in text
    file.write_text(text.replace(was, now))
    assert "which its outputs make, got" in run("compare", pinned, "--check", "--seconds", "0", status=2)


@pytest.mark.parametrize("before", ["verified = {}", "verified = {other = {date = 2026-11-28}}\n[options]\nthreads = 1"])
def test_a_table_on_one_line_makes_room(tmp_path: Path, before: str) -> None:
    (tmp_path / "model.toml").write_text(before)
    pin.write(quick(model := net(tmp_path / "net.onnx", np.ones((1, 4)))))
    assert pin.read([model]).key == "net.onnx"
    told, was = (tomllib.loads(text) for text in ((tmp_path / "model.toml").read_text(), before))
    assert told["verified"].pop("net.onnx")
    assert told == was


def test_a_pin_where_something_else_is_called_so_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text("verified = 3")
    with pytest.raises(errors.Malformed, match=r"expected a table \[verified\], got int"):
        pin.write(quick(net(tmp_path / "net.onnx", np.ones((1, 4)))))


def test_a_repositorys_pin_lies_beside_its_versions(tmp_path: Path) -> None:
    file = tmp_path / "net" / "2" / "model.onnx"
    file.parent.mkdir(parents=True)
    net(file, np.ones((1, 4)))
    assert pin.write(quick(file)) == tmp_path / "net" / "model.toml"
    assert pin.read([file]).key == "2/model.onnx"


#: A table of an entry, and what it does not hold.
WRONG = {"files": "{x = 3}", "names": "{x = 3}", "tolerances": '{x = "small"}', "shapes": "{x = 3}", "ranges": "{x = [1]}"}


def _entry(files: str = "{}", names: str = "{}", tolerances: str = "{}", shapes: str = "{}", ranges: str = "{}") -> str:
    """An entry with one candidate, which is right but for what is given."""
    cases = f'{{kind = "random", number = 1, seed = 0, sha256 = "", shapes = {shapes}, ranges = {ranges}}}'
    candidate = '{name = "a", model = "net.onnx", runtime = "onnxruntime", version = "1", device = "auto", precision = "strict", verdict = "reference"}'
    tables = f"files = {files}\nnames = {names}\ntolerances = {tolerances}\ncases = {cases}\ncandidates = [{candidate}]"
    return f'[verified."net.onnx"]\nreference = "a"\n{tables}'


def test_a_pin_that_says_little_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(_entry())
    assert pin.read([net(tmp_path / "net.onnx", np.ones((1, 4)))]).key == "net.onnx"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", errors.FileNotFound),
        ("verified = 3", errors.Malformed),
        ("[verified", errors.Malformed),
        ('[verified]\n"net.onnx" = 3', errors.Malformed),
        ('[verified."net.onnx"]\nreference = "a"\nfiles = {}\ncandidates = []\ncases = {kind = "none"}', errors.Malformed),
        ('[verified."net.onnx"]\nreference = "a"\nfiles = {}\ncandidates = []\ncases = {kind = "files", folder = "x", sha256 = ""}', errors.Malformed),
        ('[verified."other.onnx"]\nfiles = 3', errors.FileNotFound),
        *((_entry(**{table: value}), errors.Malformed) for table, value in WRONG.items()),
    ],
)
def test_a_pin_that_cannot_be_read_is_refused(tmp_path: Path, text: str, kind: type[Exception]) -> None:
    (tmp_path / "model.toml").write_text(text)
    with pytest.raises(kind, match=r"pin|cannot be read|expected"):
        pin.read([net(tmp_path / "net.onnx", np.ones((1, 4)))])
