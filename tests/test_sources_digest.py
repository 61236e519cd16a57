"""What a source says of its digest, and what lies in the cache by then."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import servers
import zoo
from test_archives import zipped
from test_sources import twice

import nnrp
from nnrp.errors import ConnectionFailed, InvalidModel, InvalidOption
from nnrp.repository import parts, sources


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NNRP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("fragment", ["", "sha256", "sha256=", "sha265={}", "SHA256={}", "md5={}", "sha256={}&x"])
def test_anything_but_a_digest_behind_a_source_is_refused(cached: Path, fragment: str) -> None:
    files = servers.Files({"/net.onnx": b"never asked for"})
    with servers.serving(files):
        for place in (files.url, f"{files.url}/net.onnx", "file:net.onnx"):
            with pytest.raises(InvalidOption, match="sha256"):
                nnrp.load(f"{place}#{fragment.format('0' * 64)}")
    assert not files.asked
    assert not cached.exists()


def test_what_was_overwritten_in_the_cache_is_not_what_was_said(tmp_path: Path, cached: Path) -> None:
    model = zoo.scale(tmp_path / "net.onnx", 2.0).read_bytes()
    packed = zipped({"deep/1/model.onnx": model})
    with servers.serving(files := servers.Files({"/net.onnx": model, "/net.zip": packed})):
        wanted = [f"{files.url}/net.onnx#sha256={servers.sha256(model)}", f"{files.url}/net.zip#sha256={servers.sha256(packed)}"]
        for source in wanted:
            found = sources.fetch(source)
            for file in (found, *found.rglob("*")):
                if file.is_file():
                    file.write_bytes(b"another")
            assert twice(source)
            assert twice(source)
        assert len(files.asked) == 4
        for file in (cached / "content").rglob("*.onnx"):
            file.write_bytes(b"another")
    for source in wanted:
        with pytest.raises(ConnectionFailed):
            nnrp.load(source)


def with_weights(path: Path) -> Path:
    """A model that multiplies by what lies beside it, in `net.bin`."""
    model = onnx.load(zoo.scale(path, 2.0))
    for one in model.graph.initializer:
        one.raw_data = one.raw_data or np.asarray(one.float_data, np.float32).tobytes()
    onnx.save(model, path, save_as_external_data=True, location="net.bin", size_threshold=0)
    return path


def test_a_digest_is_of_all_files_that_the_model_is_of(tmp_path: Path) -> None:
    model = with_weights(tmp_path / "net.onnx")
    weights = tmp_path / "net.bin"
    listed = "".join(f"{servers.sha256(file.read_bytes())}  {file.name}\n" for file in (weights, model))
    said = tmp_path / "model.toml"
    said.write_text(f'path = "net.onnx"\nsha256 = "{servers.sha256(listed.encode())}"\n')
    x = np.ones((1, 4), np.float32)
    assert nnrp.load(said)(x)["y"].tolist() == [[2, 2, 2, 2]]
    weights.write_bytes(np.float32(3).tobytes())
    for digest in (servers.sha256(listed.encode()), servers.sha256(model.read_bytes())):
        said.write_text(f'path = "net.onnx"\nsha256 = "{digest}"\n')
        with pytest.raises(InvalidModel, match=r"of 'net\.onnx' and 'net\.bin', of which the model is"):
            nnrp.load(said)


@pytest.mark.parametrize(
    ("name", "data", "other"),
    [
        ("net.param", b"7767517\n2 2\n", "net.bin"),
        ("a[1]-00001-of-00002.gguf", b"GGUF\3\0\0\0" + bytes(16), "a[1]-00002-of-00002.gguf"),
        ("net.xml", b'<?xml version="1.0"?><net name="n" version="11"><layers/></net>', "net.bin"),
    ],
)
def test_weights_beside_a_model_belong_to_it(tmp_path: Path, name: str, data: bytes, other: str) -> None:
    (tmp_path / name).write_bytes(data)
    assert parts.beside(tmp_path / name) == []
    for file in (other, "another.bin", "b-00002-of-00002.gguf"):
        (tmp_path / file).write_bytes(b"weights")
    assert parts.beside(tmp_path / name) == [tmp_path / other]
