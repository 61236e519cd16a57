"""``model.toml``: a whole description of a model, given by itself, in a model's folder and in a version's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import servers
from test_archives import zipped
from test_cli import Serving, run
from test_overrides import package
from zoo import scale

import nnrp
from nnrp.errors import FileNotFound, InvalidModel, InvalidOption, Malformed
from nnrp.repository import find, load

X = np.float32([[1, 2, 3, 4]])

WHOLE = """
name = "twice"
version = "7"
path = "files/net.onnx"
format = "onnx"
runtime = ["nowhere", "onnxruntime"]
device = "cpu"
precision = "strict"
options = {intra_op_num_threads = 1}
inputs = {x = {name = "given", shape = [{min = 1, max = 2}, 4]}}
outputs = ["taken"]
labels = {owner = "tests"}

[verified."files/net.onnx"]
date = 2026-11-28
"""


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A model, and a description that says all there is to say."""
    scale(tmp_path / "files" / "net.onnx", 2.0)
    (tmp_path / "model.toml").write_text(WHOLE)
    return tmp_path / "model.toml"


def session(model: nnrp.Model) -> nnrp.Session:
    assert model.session is not None
    return model.session


def test_a_description_alone_is_a_model(whole: Path) -> None:
    for path in (whole, whole.parent):
        model = nnrp.load(path)
        assert (model.name, model.version) == ("twice", "7")
        assert model(given=X)["taken"].tolist() == [[2, 4, 6, 8]]
        assert session(model).labels == {"owner": "tests"}
        assert session(model).settings["intra_op_num_threads"] == 1
        assert [one["runtime"] for one in session(model).chosen["not_taken"]] == ["nowhere"]


def test_a_described_model_may_have_a_process_of_its_own(whole: Path) -> None:
    whole.write_text('isolation = "process"\n' + WHOLE)
    model = nnrp.load(whole)
    assert model(given=X)["taken"].tolist() == [[2, 4, 6, 8]]
    assert "overrides" in session(model).settings
    assert session(model).settings["process"]["restarts"] == 0
    # What is said at the call wins.
    assert "process" not in session(nnrp.load(whole, isolation="none")).settings


def test_what_is_said_at_the_call_wins_over_the_file(whole: Path) -> None:
    model = nnrp.load(whole, name="other", version="8", runtime="reference", options={}, outputs=["y"], labels={})
    assert (model.name, model.version, session(model).runtime, session(model).labels) == ("other", "8", "reference", {})
    assert model(given=X).keys() == {"y"}


def test_words_that_are_not_known_name_their_path(whole: Path) -> None:
    for line, path in (
        ("colour = 5", "colour"),
        ("labels.of = 5", "labels.of"),
        ('inputs.x.nam = "y"', "inputs['x'].nam"),
        ("source = 5", "source"),
        ("self = 1", "self"),
    ):
        whole.write_text(f'path = "files/net.onnx"\n{line}\n')
        with pytest.raises(InvalidOption) as raised:
            nnrp.load(whole)
        assert raised.value.details["path"] == path


def test_what_is_no_description_says_so(whole: Path) -> None:
    for text, error, says in (
        ("path = ", Malformed, "cannot be read"),
        ('path = "a"\nsource = "b"', InvalidOption, "got both"),
        ('path = "none.onnx"', FileNotFound, "no file or folder"),
        ("", FileNotFound, "expected 'source' or 'path', or a model beside it"),
        ('path = "files"', FileNotFound, "no model in"),
        ("a = " + "[" * 100_000, Malformed, "nested too deeply"),
        ('digests = {"net.onnx" = "0"}', InvalidOption, "digests: expected sha256"),
        ('path = "files/net.onnx"\ninputs = [{shape = ["batch-size", 4]}]', InvalidOption, "letters, digits and '_'"),
        ("date = 2026-11-28\npath = 'files/net.onnx'", InvalidOption, "of type date"),
        (f"sha256 = '{'0' * 64}'\npath = 'files/net.onnx'", InvalidModel, "expected sha256 0000"),
    ):
        whole.write_text(text)
        with pytest.raises(error, match=says):
            nnrp.load(whole)


def test_descriptions_lie_in_models_and_versions_folders_and_the_version_says_it_last(tmp_path: Path) -> None:
    for version in ("1", "2", "3"):
        scale(tmp_path / "double" / version / ("model.onnx" if version != "3" else "net.onnx"), float(version))
    (tmp_path / "double" / "model.toml").write_text('outputs = ["taken"]\nlabels = {of = "all"}\n')
    (tmp_path / "double" / "2" / "model.toml").write_text('labels = {of = "two"}\n')
    (tmp_path / "double" / "3" / "model.toml").write_text('path = "net.onnx"\n')
    scale(tmp_path / "elsewhere.onnx", 5.0)
    (tmp_path / "five").mkdir()
    (tmp_path / "five" / "model.toml").write_text('path = "../elsewhere.onnx"\nversion = "5"\nname = "quintuple"\n')

    engine = nnrp.Engine()
    load(engine, [tmp_path])

    assert [(one.name, one.version) for one in engine.models()] == [("double", "1"), ("double", "2"), ("double", "3"), ("quintuple", "5")]
    assert [session(engine.model("double", version)).labels for version in "123"] == [{"of": "all"}, {"of": "two"}, {"of": "all"}]
    assert engine.model("double", "3")(X)["taken"].tolist() == [[3, 6, 9, 12]]
    assert nnrp.load(tmp_path / "double" / "model.toml", version="2")(X)["taken"].tolist() == [[2, 4, 6, 8]]


def test_a_description_that_contradicts_its_place_is_refused(tmp_path: Path) -> None:
    scale(tmp_path / "a" / "1" / "model.onnx", 1.0)
    for place, text, says in (
        ("a/1", 'version = "2"', "version: expected '1', as its folder, got '2'"),
        ("a", 'version = "2"', "version: expected '1', as its folder, got '2'"),
        ("a", 'path = "1/model.onnx"', "got both"),
    ):
        (tmp_path / place / "model.toml").write_text(text)
        with pytest.raises(InvalidOption, match=says):
            find(tmp_path)
        (tmp_path / place / "model.toml").unlink()


def test_a_source_in_a_description_is_fetched_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNRP_CACHE", str(tmp_path / "cache"))
    model = scale(tmp_path / "made.onnx", 2.0).read_bytes()
    file = tmp_path / "model.toml"
    with servers.serving(web := servers.Files({"/double": model, "/packed.zip": zipped({"double/saved.onnx": model})})):
        # A digest or a description says that it is a file, whatever it is called.
        file.write_text(f'source = "{web.url}/double"\nsha256 = "{servers.sha256(model)}"\noutputs = ["taken"]\n')
        assert nnrp.load(file)(X)["taken"].tolist() == [[2, 4, 6, 8]]
        file.write_text(f'source = "{web.url}/double"\nsha256 = "{"0" * 64}"\n')
        with pytest.raises(InvalidModel, match="expected sha256 0000"):
            nnrp.load(file)
    with nnrp.serve(tmp_path / "made.onnx", http_port=0, grpc_port=0) as server:
        file.write_text(f'source = "{server.http_url}/made"\nruntime = "remote"\ninputs = ["given"]\n')
        assert nnrp.load(file)(given=X)["y"].tolist() == [[2, 4, 6, 8]]


def test_a_description_that_was_fetched_allows_itself_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNRP_CACHE", str(tmp_path / "cache"))
    model = scale(tmp_path / "made.onnx", 2.0).read_bytes()
    here = tmp_path / "made.onnx"
    wrong = (
        ("options = {allow_pickle = true}", "options.allow_pickle"),
        ("options = {allow_code = true}", "options.allow_code"),
        (f"options = {{optimized_model_cache = '{tmp_path}'}}", "options.optimized_model_cache"),
        ("options = {profile_file_prefix = 'trace'}", "options.profile_file_prefix"),
        ("options = {enable_profiling = true}", "options.enable_profiling"),
        ("options = {log_severity_level = 0}", "options.log_severity_level"),
        ("options = {LOG_LEVEL = 'LOG_DEBUG'}", "options.LOG_LEVEL"),
        ("options = {DEVICE_PROPERTIES = {CPU = {LOG_LEVEL = 'LOG_DEBUG'}}}", "options.DEVICE_PROPERTIES"),
        ("options = {session = {'any' = '../out'}}", "options.session"),
        (f"path = '{here}'", "path"),
        ("path = '../../../../made.onnx'", "path"),
        (f"source = 'file:{here}'", "source"),
        ("path = 'os:getcwd'\nruntime = 'callable'", "path"),
        ("source = 'http://127.0.0.1:9/double'\nruntime = ['remote']", "runtime"),
    )
    with servers.serving(web := servers.Files({})):
        for number, (line, path) in enumerate(wrong):
            placed = "1/model.toml" if path in ("path", "source", "runtime") else "model.toml"
            web.content[f"/{number}.zip"] = zipped(
                {"double/1/model.onnx": model, f"double/{placed}": line.encode()} if placed == "model.toml" else {placed: line.encode()}
            )
            with pytest.raises(InvalidOption) as raised:
                nnrp.load(f"{web.url}/{number}.zip")
            assert raised.value.details["path"] == path, line
        # What is said at the call holds, and what is harmless may be said by anybody.
        assert nnrp.load(f"{web.url}/2.zip", options={})(X)["y"].tolist() == [[2, 4, 6, 8]]
        web.content["/good.zip"] = zipped(
            {"shared/net.onnx": model, "double/1/model.toml": b"path = '../../shared/net.onnx'\noptions = {intra_op_num_threads = 1}"}
        )
        assert nnrp.load(f"{web.url}/good.zip")(X)["y"].tolist() == [[2, 4, 6, 8]]


def test_a_description_and_the_pin_of_a_comparison_live_in_one_file(whole: Path) -> None:
    whole.write_text(WHOLE.partition("[verified")[0].replace('runtime = ["nowhere", "onnxruntime"]', "").replace("options = {intra_op_num_threads = 1}", ""))
    words = ("compare", whole, "--runtimes", "onnxruntime,reference", "--random", "1", "--shape", "given=1x4", "--seconds", "0")
    assert "same" in run(*words, "--pin")
    assert '[verified."model.toml"]' in whole.read_text()
    assert nnrp.load(whole)(given=X)["taken"].tolist() == [[2, 4, 6, 8]]
    run("compare", whole, "--check", "--seconds", "0")
    scale(whole.parent / "files" / "net.onnx", 3.0)
    # The candidates still agree with each other: what is left to fail is that the file is another.
    run("compare", whole, "--check", "--seconds", "0", status=1)


def test_serve_reads_a_description_and_its_own_words_win(whole: Path) -> None:
    for words, runtime in ((), "onnxruntime"), (("--runtime", "reference", "--options", "{}"), "reference"):
        server = Serving(whole, *words)
        (model,) = server.about["models"]
        assert (model["name"], model["version"], model["platform"]) == ("twice", "7", f"{runtime}_onnx")
        assert [one["name"] for one in (*model["inputs"], *model["outputs"])] == ["given", "taken"]
        assert server.stop() == 0


def test_serve_takes_options_names_and_plugins_one_by_one(whole: Path, tmp_path: Path) -> None:
    file = whole.parent / "files" / "net.onnx"
    server = Serving(file, "--option", "intra_op_num_threads=1", "--inputs", '["a"]', "--outputs", '["b"]')
    (model,) = server.about["models"]
    assert [one["name"] for one in (*model["inputs"], *model["outputs"])] == ["a", "b"]
    assert server.stop() == 0
    assert "unknown option 'beads'" in run("serve", file, "--runtime", "onnxruntime", "--option", "beads=1", status=1)
    assert "--option beads: expected NAME=VALUE" in run("serve", file, "--option", "beads", status=1)
    assert "--inputs: expected JSON" in run("serve", file, "--inputs", "{", status=1)
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "none.so").write_bytes(b"no library")
    assert "RUNTIME_NOT_INSTALLED" in run("serve", file, "--plugin", tmp_path / "plugins", status=1)
    assert "no file or folder" in run("serve", file, "--plugin", tmp_path / "nowhere", status=1)


def test_inspect_and_infer_take_descriptions_sources_and_folders(whole: Path) -> None:
    about: dict[str, Any] = json.loads(run("inspect", whole, "--json"))
    assert (about["format"], about["signature"]["inputs"][0]["name"]) == ("onnx", "x")
    assert "onnxruntime" in about["runtimes"]
    assert json.loads(run("inspect", f"file:{whole.parent}/files/net.onnx", "--json"))["format"] == "onnx"
    saved = package("basic_pitch") / "saved_models/icassp_2022"
    assert {name: json.loads(run("inspect", saved / name, "--json"))["format"] for name in ("nmp", "nmp.mlpackage")} == {
        "nmp": "saved_model",
        "nmp.mlpackage": "mlpackage",
    }
    assert "openvino" in json.loads(run("inspect", saved / "nmp", "--json"))["runtimes"]
    assert "2." in run("infer", whole, "--input", "given=[[1, 2, 3, 4]]")


@pytest.mark.parametrize("said", ['path = "model.toml"', 'path = "."', 'path = "../m"', 'source = "{}/model.toml"'])
def test_descriptions_that_lead_in_circles_are_refused(tmp_path: Path, said: str) -> None:
    files = servers.Files({})
    with servers.serving(files):
        text = said.format(files.url)
        files.content["/model.toml"] = text.encode()
        (tmp_path / "m").mkdir()
        (tmp_path / "m/model.toml").write_text(text)
        for place in (tmp_path / "m", tmp_path / "m/model.toml"):
            with pytest.raises(InvalidOption, match="at most 4 descriptions") as raised:
                find(place)
            assert raised.value.details["path"] == said.split()[0]
