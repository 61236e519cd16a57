"""Archives of models: what they may hold, how much of it, and what is noticed of those that are broken."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zoo import scale

import nnrp
from nnrp.errors import InvalidModel, LoadFailed
from nnrp.repository import archive, sources


def tarred(names: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as out:
        for name, body in names.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.type, entry.linkname = len(body) if kind == tarfile.REGTYPE else 0, kind, "/etc/hostname"
            out.addfile(entry, io.BytesIO(body))
    return packed.getvalue()


def zipped(names: dict[str, bytes], mode: int = 0) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as out:
        for name, body in names.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr, entry.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            out.writestr(entry, body)
    return packed.getvalue()


def test_a_tar_that_ends_in_a_zip_is_a_tar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNRP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "inner.zip").write_bytes(zipped({"inner.txt": b"x"}))
    model = scale(tmp_path / "double.onnx", 2.0)
    with tarfile.open(tmp_path / "bundle.tar", "w") as out:
        out.add(model, "double.onnx")
        out.add(tmp_path / "inner.zip", "inner.zip")
        (tmp_path / "model.toml").write_text('source = "double.onnx"')
        out.add(tmp_path / "model.toml", "model.toml")
        out.add(tmp_path / "inner.zip", "z.zip")
    assert nnrp.load(tmp_path / "bundle.tar")(np.ones((1, 4), np.float32))["y"].tolist() == [[2, 2, 2, 2]]


@pytest.mark.parametrize(
    ("packed", "says"),
    [
        (tarred({"../out.onnx": b"x"}), "names of files below it"),
        (tarred({"/out.onnx": b"x"}), "names of files below it"),
        (zipped({"a/../../out.onnx": b"x"}), "names of files below it"),
        (zipped({"a\\..\\out.onnx": b"x"}), "names of files below it"),
        (tarred({"link": b""}, tarfile.SYMTYPE), "plain files"),
        (tarred({"link": b""}, tarfile.LNKTYPE), "plain files"),
        (tarred({"device": b""}, tarfile.CHRTYPE), "plain files"),
        (zipped({"link": b"/etc/hostname"}, 0o120777), "plain files"),
        (zipped({"bomb.onnx": bytes(100 << 20)}), "mostly air"),
        (tarred({"bomb.onnx": bytes(100 << 20)}), "mostly air"),
        (zipped({"cut.onnx": os.urandom(4096)})[:-2000], "cannot be unpacked"),
        (tarred({"cut.onnx": os.urandom(4096)})[:-2000], "cannot be unpacked"),
        (tarred({}), "holds nothing"),
    ],
    # Not by their bytes, in which the time is.
    ids=map(str, range(13)),
)
def test_an_archive_that_is_not_what_it_should_be_is_refused(tmp_path: Path, packed: bytes, says: str) -> None:
    file = tmp_path / ("in" + (".zip" if packed.startswith(b"PK") else ".tar.gz"))
    file.write_bytes(packed)
    with pytest.raises(InvalidModel, match=says):
        archive.unpack(file, tmp_path / "out", 1 << 30)
    assert not (tmp_path / "out.onnx").exists()


def test_folders_of_an_archive_count_as_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_FILES", 100)
    folders = io.BytesIO()
    with tarfile.open(fileobj=folders, mode="w:xz") as out:
        for number in range(101):
            entry = tarfile.TarInfo(f"{number}")
            entry.type = tarfile.DIRTYPE
            out.addfile(entry)
    for name, packed in (("many.tar.xz", folders.getvalue()), ("many.zip", zipped({f"{number}/": b"" for number in range(101)}))):
        (tmp_path / name).write_bytes(packed)
        with pytest.raises(InvalidModel, match="at most 100 files"):
            archive.unpack(tmp_path / name, tmp_path / f"out-{name}", 1 << 30)


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_a_byte_that_changed_anywhere_in_a_packed_tar_is_noticed(tmp_path: Path, kind: Any) -> None:
    whole, content = io.BytesIO(), os.urandom(2048)
    with tarfile.open(fileobj=whole, mode=f"w:{kind}") as out:
        entry = tarfile.TarInfo("net.onnx")
        entry.size = len(content)
        out.addfile(entry, io.BytesIO(content))
    file = tmp_path / f"net.tar.{kind}"
    file.write_bytes(whole.getvalue())
    archive.unpack(file, tmp_path / "good", 1 << 30)
    assert (tmp_path / "good" / "net.onnx").read_bytes() == content
    # Past what the head of a gzip says of itself, which nothing guards.
    for at in range(10, len(whole.getvalue()), 97):
        broken = bytearray(whole.getvalue())
        broken[at] ^= 0x10
        file.write_bytes(broken)
        with pytest.raises(InvalidModel):
            archive.unpack(file, tmp_path / f"out-{at}", 1 << 30)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full on this system")
def test_a_full_disk_is_not_the_archives_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNRP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "net.zip").write_bytes(zipped({"net.onnx": os.urandom(4096)}))
    opened = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, mode="r", *more, **words: opened(Path("/dev/full") if mode == "xb" else self, mode.replace("x", "w"), *more, **words)
    )
    with pytest.raises(LoadFailed, match="the cache cannot be written: No space left on device"):
        sources.local(tmp_path / "net.zip")
