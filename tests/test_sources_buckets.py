"""Models in Google's and Azure's stores, fetched from local servers that speak as these do."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import buckets
import numpy as np
import pytest
import servers
import zoo

import nnrp
from nnrp.errors import FileNotFound, RuntimeNotInstalled
from nnrp.repository import sources
from nnrp.repository.stores.filesystem import KINDS, FileSystem

X = np.float32([[1, 2, 3, 4]])


@pytest.fixture(params=["gs", "az"])
def bucket(request: pytest.FixtureRequest, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, buckets.Bucket]]:
    """A store's protocol, and its bucket with a file and a repository."""
    monkeypatch.setenv("NNRP_CACHE", str(tmp_path / "cache"))
    model = zoo.scale(models / "bucket.onnx", 2.0).read_bytes()
    content = {"net.onnx": model, "repository/double/1/model.onnx": model, "repository/double/2/model.onnx": model, "large.onnx": os.urandom(9 << 20)}
    store = {"gs": buckets.Google, "az": buckets.Azure}[request.param](content)
    with servers.serving(store):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", store.url)
        monkeypatch.setenv("FSSPEC_GS_TOKEN", "anon")
        # What is new in Google's store it is asked by gRPC, which no local server speaks.
        monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        if isinstance(store, buckets.Azure):
            monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", store.connection)
        yield request.param, store


def test_a_file_and_a_folder_of_a_bucket(bucket: tuple[str, buckets.Bucket]) -> None:
    kind, _ = bucket
    np.testing.assert_array_equal(nnrp.load(f"{kind}://models/net.onnx")(X)["y"], X * 2)
    assert nnrp.load(f"{kind}:models/net.onnx").name == "net"
    engine = nnrp.Engine()
    nnrp.repository.load(engine, [f"{kind}://models/repository"])
    assert [(one.name, one.version) for one in engine.models()] == [("double", "1"), ("double", "2")]
    for absent in (f"{kind}://models/none.onnx", f"{kind}://nowhere/net.onnx"):
        with pytest.raises(FileNotFound, match=f"{kind} has no such file"):
            sources.fetch(absent)


def test_a_large_file_is_read_by_ranges_and_fetched_again_only_when_it_changed(bucket: tuple[str, buckets.Bucket]) -> None:
    kind, store = bucket
    assert sources.fetch(f"{kind}://models/large.onnx").read_bytes() == store.content["large.onnx"]
    ranges = [name for _, _, headers in store.asked for name in headers if name.lower() in ("range", "x-ms-range")]
    assert ranges
    store.asked.clear()
    assert sources.fetch(f"{kind}://models/large.onnx").read_bytes() == store.content["large.onnx"]
    assert not [name for _, _, headers in store.asked for name in headers if name.lower() in ("range", "x-ms-range")]
    store.content["large.onnx"] = os.urandom(2 << 20)
    assert sources.fetch(f"{kind}://models/large.onnx").read_bytes() == store.content["large.onnx"]


def test_reading_goes_on_from_any_place(bucket: tuple[str, buckets.Bucket]) -> None:
    kind, store = bucket
    place = FileSystem(kind, "models/large.onnx")
    listing = place.look("")
    assert listing is not None
    begun, pieces = place.read(listing.files[0], 5 << 20)
    assert (begun, b"".join(pieces)) == (5 << 20, store.content["large.onnx"][5 << 20 :])
    assert place.look(listing.tag) is None
    place.close()


def test_nothing_stays_open(bucket: tuple[str, buckets.Bucket]) -> None:
    kind, store = bucket
    for _ in range(3):
        sources.fetch(f"{kind}://models/net.onnx")
        sources.fetch(f"{kind}://models/repository")
    with pytest.raises(FileNotFound) as refused:
        sources.fetch(f"{kind}://models/none.onnx")
    assert store.url not in refused.value.message
    assert not [one for one in gc.get_objects() if isinstance(one, aiohttp.ClientSession) and not one.closed]


@pytest.mark.parametrize("kind", ["gs", "az"])
def test_a_protocol_whose_package_is_not_installed_says_what_to_install(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, KINDS[kind][0], None)
    with pytest.raises(RuntimeNotInstalled, match=rf"pip install nnrp\[{kind}\]"):
        sources.fetch(f"{kind}://bucket/net.onnx")
