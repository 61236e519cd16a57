"""What a source says of its digest, and what lies in the cache by then."""

from __future__ import annotations

from pathlib import Path

import pytest
import servers
import zoo
from test_archives import zipped
from test_sources import twice

import nnrp
from nnrp.errors import ConnectionFailed, InvalidOption
from nnrp.repository import sources


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
