"""Where models come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from zoo import identity

import nnrp
from nnrp.errors import FileNotFound, InvalidModel, InvalidOption, ModelExists, NnrpError, NotFound
from nnrp.repository import find, load


def _names(path: str | Path, name: str | None = None) -> list[tuple[str, str]]:
    return [(source.name, source.version) for source in find(path, name)]


def test_a_file_is_called_as_it_is_called(tmp_path: Path) -> None:
    assert _names(identity(tmp_path / "digits.onnx")) == [("digits", "1")]


def test_a_file_called_model_is_called_as_its_folder(tmp_path: Path) -> None:
    assert _names(identity(tmp_path / "digits" / "model.onnx")) == [("digits", "1")]
    assert _names(identity(tmp_path / "letters" / "3" / "model.onnx")) == [("letters", "1")]


def test_a_name_can_be_given(tmp_path: Path) -> None:
    assert _names(identity(tmp_path / "model.onnx"), "other") == [("other", "1")]


def test_a_name_that_none_can_have_is_told_how_to_replace(tmp_path: Path) -> None:
    file = identity(tmp_path / "my model.onnx")
    for bad in (lambda: nnrp.load(file), lambda: nnrp.load(lambda x: x, inputs={"x": ("FP32", [1])}, outputs={"y": ("FP32", [1])})):
        with pytest.raises(InvalidOption, match=r"model name: expected .*; give the model another: name=, or NAME=PATH"):
            bad()
    assert nnrp.load(file, "mine").name == "mine"


def test_a_path_may_be_bytes_and_one_that_no_file_can_have_is_not_found(tmp_path: Path) -> None:
    path: Any = bytes(identity(tmp_path / "digits.onnx"))
    assert nnrp.load(path).name == "digits"
    for long in ("a" * 5000, str(tmp_path / ("b" * 300)), "name=" + "c" * 5000):
        with pytest.raises(FileNotFound, match="no file or folder"):
            nnrp.load(long)


def test_a_name_can_stand_before_the_path(tmp_path: Path) -> None:
    identity(tmp_path / "digits" / "2" / "model.onnx")
    assert _names(f"other={tmp_path / 'digits'}") == [("other", "2")]
    assert _names(f"other={tmp_path}") == [("other", "2")]
    assert _names(f"other={identity(tmp_path / 'a=b.onnx')}") == [("other", "1")]


def test_a_path_that_is_there_is_no_name_and_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity(tmp_path / "a=b.onnx")
    monkeypatch.chdir(tmp_path)
    assert _names("a=b.onnx") == _names(tmp_path / "a=b.onnx") == [("a=b", "1")]


def test_one_name_for_several_models_is_refused(tmp_path: Path) -> None:
    for name in "ab":
        identity(tmp_path / name / "1" / "model.onnx")
    for place, name in ((f"other={tmp_path}", None), (tmp_path, "other")):
        with pytest.raises(InvalidOption, match=r"name 'other': expected one model in '.*', got 2"):
            find(place, name)


def test_a_versions_model_by_another_name_is_told(tmp_path: Path) -> None:
    identity(tmp_path / "good" / "1" / "model.onnx")
    identity(tmp_path / "typo" / "1" / "modell.onnx")
    (tmp_path / "empty" / "1").mkdir(parents=True)
    with pytest.raises(FileNotFound, match=r"'typo/1': expected a version's model to be called 'model\.onnx', got 'modell\.onnx'"):
        find(tmp_path)
    told: list[NnrpError] = []
    assert [source.name for source in find(tmp_path, refused=told.append)] == ["good"]
    assert [error.details["model"] for error in told] == ["typo"]


def test_several_paths_are_loaded_and_an_error_says_which(tmp_path: Path) -> None:
    engine, good, bad = nnrp.Engine(), identity(tmp_path / "good.onnx"), tmp_path / "bad.onnx"
    bad.write_bytes(b"not a model")

    load(engine, [good, f"twin={good}"])
    assert [model.name for model in engine.models()] == ["good", "twin"]
    with pytest.raises(InvalidModel, match=r"^model 'bad' version '1': ") as raised:
        load(engine, [bad])
    assert (raised.value.details["model"], raised.value.details["version"]) == ("bad", "1")
    with pytest.raises(ModelExists, match=r"^model 'good' version '1' is loaded already$"):
        load(engine, [good])
    refused: list[nnrp.NnrpError] = []
    load(engine, [bad, f"third={good}"], refused=refused.append)
    assert [type(error) for error in refused] == [InvalidModel]
    assert engine.model("third").name == "third"


def test_a_repository_holds_models_of_several_versions(tmp_path: Path) -> None:
    for part in ("a/1", "a/2", "b/7", ".hidden/1", "empty"):
        (tmp_path / part).mkdir(parents=True)
    for part in ("a/1", "a/2", "b/7", ".hidden/1"):
        identity(tmp_path / part / "model.onnx")
    assert _names(tmp_path) == [("a", "1"), ("a", "2"), ("b", "7")]


def test_a_models_folder_is_one_model(tmp_path: Path) -> None:
    identity(tmp_path / "digits" / "1" / "model.onnx")
    assert _names(tmp_path / "digits") == [("digits", "1")]


def test_a_stray_file_does_not_make_a_repository_one_model(tmp_path: Path) -> None:
    identity(tmp_path / "good" / "1" / "model.onnx")
    identity(tmp_path / "stray" / "model.onnx")
    with pytest.raises(InvalidOption, match=r"put 'stray/model\.onnx' into a version's folder"):
        find(tmp_path)


def test_nothing_there_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no file or folder"):
        find(tmp_path / "nowhere")
    with pytest.raises(NotFound, match=r"VERSION/model\.onnx"):
        find(tmp_path)
