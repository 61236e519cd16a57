"""Where models come from."""

from __future__ import annotations

from pathlib import Path

import pytest
from zoo import identity

from nnrp.errors import NotFound
from nnrp.repository import find


def _names(path: Path, name: str | None = None) -> list[tuple[str, str]]:
    return [(source.name, source.version) for source in find(path, name)]


def test_a_file_is_called_as_it_is_called(tmp_path: Path) -> None:
    assert _names(identity(tmp_path / "digits.onnx")) == [("digits", "1")]


def test_a_file_called_model_is_called_as_its_folder(tmp_path: Path) -> None:
    assert _names(identity(tmp_path / "digits" / "model.onnx")) == [("digits", "1")]
    assert _names(identity(tmp_path / "letters" / "3" / "model.onnx")) == [("letters", "1")]


def test_a_name_can_be_given(tmp_path: Path) -> None:
    assert _names(identity(tmp_path / "model.onnx"), "other") == [("other", "1")]


def test_a_repository_holds_models_of_several_versions(tmp_path: Path) -> None:
    for part in ("a/1", "a/2", "b/7", ".hidden/1", "empty"):
        (tmp_path / part).mkdir(parents=True)
    for part in ("a/1", "a/2", "b/7", ".hidden/1"):
        identity(tmp_path / part / "model.onnx")
    assert _names(tmp_path) == [("a", "1"), ("a", "2"), ("b", "7")]


def test_a_models_folder_is_one_model(tmp_path: Path) -> None:
    identity(tmp_path / "digits" / "1" / "model.onnx")
    assert _names(tmp_path / "digits") == [("digits", "1")]


def test_nothing_there_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no file or folder"):
        find(tmp_path / "nowhere")
    with pytest.raises(NotFound, match=r"VERSION/model\.onnx"):
        find(tmp_path)
