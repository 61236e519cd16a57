"""Models that are elsewhere, fetched from local servers of each protocol into a cache of their own."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import servers
import zoo
from test_archives import tarred, zipped

import nnrp
from nnrp.errors import ConnectionFailed, FileNotFound, InvalidModel, InvalidOption
from nnrp.repository import cache, sources
from nnrp.repository.stores.oci import Registry
from nnrp.repository.stores.web import ask

X = np.float32([[1, 2, 3, 4]])


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for each test."""
    monkeypatch.setenv("NNRP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def model(models: Path) -> bytes:
    """``y = 2 x`` over FP32 [batch, 4], with enough weight to break in the middle."""
    return zoo.scale(models / "fetched.onnx", 2.0).read_bytes()


@pytest.fixture
def web(model: bytes) -> Iterator[servers.Files]:
    files = servers.Files({"/net.onnx": model, "/big.onnx": os.urandom(3 << 20)})
    with servers.serving(files):
        yield files


def twice(source: str, **described: Any) -> bool:
    return np.array_equal(nnrp.load(source, **described)(X)["y"], X * 2)


# The web


def test_a_url_of_a_file_is_fetched_once_and_asked_whether_it_changed(web: servers.Files, model: bytes) -> None:
    for _ in range(2):
        assert twice(f"{web.url}/net.onnx")
    assert [headers.get("If-None-Match") for _, _, headers in web.asked] == [None, f'"{servers.hashlib.md5(model).hexdigest()}"']
    web.content["/net.onnx"] = b"another"
    assert sources.fetch(f"{web.url}/net.onnx").read_bytes() == b"another"


def test_a_model_whose_digest_is_known_is_fetched_once_and_needs_no_server(web: servers.Files, model: bytes) -> None:
    source = f"{web.url}/net.onnx#sha256={servers.sha256(model)}"
    assert twice(source)
    assert twice(source)
    assert twice(f"http://127.0.0.1:9/elsewhere#sha256={servers.sha256(model)}")
    assert len(web.asked) == 1


def test_another_digest_is_refused_and_nothing_of_it_is_kept(web: servers.Files, model: bytes, kept: Path) -> None:
    with pytest.raises(InvalidModel) as raised:
        nnrp.load(f"{web.url}/net.onnx#sha256={'0' * 64}")
    assert raised.value.details == {"expected": "0" * 64, "got": servers.sha256(model)}
    assert not [file for file in kept.rglob("*") if file.is_file() and file.stat().st_size]


def test_a_broken_download_goes_on_where_it_broke(web: servers.Files) -> None:
    whole = web.content["/big.onnx"]
    web.breaks = [1 << 20, 1 << 20]
    assert sources.fetch(f"{web.url}/big.onnx").read_bytes() == whole
    begun = [int(headers["Range"].removeprefix("bytes=").rstrip("-")) for _, _, headers in web.asked[1:]]
    assert begun == [1 << 20, 2 << 20]


def test_a_download_that_was_given_up_goes_on_in_another_process(web: servers.Files) -> None:
    web.breaks = [1 << 20, 0, 0, 0]
    with pytest.raises(ConnectionFailed, match="ended 2097152 bytes too early"):
        sources.fetch(f"{web.url}/big.onnx")
    web.asked.clear()
    program = "import sys; from nnrp.repository import sources; print(sources.fetch(sys.argv[1]).stat().st_size)"
    done = subprocess.run([sys.executable, "-c", program, f"{web.url}/big.onnx"], capture_output=True, text=True, check=True, timeout=120)
    assert int(done.stdout) == 3 << 20
    assert [headers.get("Range") for _, _, headers in web.asked] == [None, "bytes=1048576-"]


def test_a_file_that_changed_meanwhile_is_fetched_from_its_beginning(web: servers.Files) -> None:
    web.breaks = [1 << 20, 0, 0, 0]
    with pytest.raises(ConnectionFailed):
        sources.fetch(f"{web.url}/big.onnx")
    web.content["/big.onnx"] = os.urandom(2 << 20)
    assert sources.fetch(f"{web.url}/big.onnx").read_bytes() == web.content["/big.onnx"]


def test_what_is_in_the_cache_is_used_where_the_server_is_not_there_and_said_so(model: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with servers.serving(files := servers.Files({"/net.onnx": model})):
        source = f"{files.url}/net.onnx"
        assert twice(source)
    with caplog.at_level(logging.WARNING, "nnrp.repository"):
        assert twice(source)
    assert "what was fetched before is used" in caplog.text
    with pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1 cannot be reached"):
        sources.fetch(f"{files.url}/other.onnx")


def test_a_server_that_says_that_nothing_changed_where_nothing_is_here_is_refused(web: servers.Files) -> None:
    web.stubborn = True
    with pytest.raises(ConnectionFailed, match="answered 304"):
        nnrp.load(f"{web.url}/double.onnx")


def test_offline_nothing_is_asked(web: servers.Files, monkeypatch: pytest.MonkeyPatch) -> None:
    assert twice(f"{web.url}/net.onnx")
    monkeypatch.setenv("NNRP_OFFLINE", "1")
    assert twice(f"{web.url}/net.onnx")
    with pytest.raises(ConnectionFailed, match="NNRP_OFFLINE"):
        sources.fetch(f"{web.url}/big.onnx")
    assert len(web.asked) == 1


def test_a_server_that_begins_later_than_asked_leaves_no_hole(web: servers.Files) -> None:
    web.breaks, web.skips = [1 << 20], 1000
    with pytest.raises(ConnectionFailed, match="asked for the bytes from 1048576 on, and begins at 1049576"):
        sources.fetch(f"{web.url}/big.onnx")
    web.skips = 0
    assert sources.fetch(f"{web.url}/big.onnx").read_bytes() == web.content["/big.onnx"]


@pytest.mark.parametrize("lengths", [True, False])
def test_a_source_over_the_limit_is_refused(web: servers.Files, monkeypatch: pytest.MonkeyPatch, lengths: bool) -> None:
    web.lengths = lengths
    monkeypatch.setenv("NNRP_SOURCE_LIMIT", str(1 << 20))
    with pytest.raises(InvalidModel, match="expected at most 1048576 bytes"):
        sources.fetch(f"{web.url}/big.onnx")


def test_no_key_of_a_url_is_in_an_error(web: servers.Files) -> None:
    for path in ("/none.onnx?key=SECRET", "/net.onnx?key=SECRET#sha256=" + "0" * 64):
        with pytest.raises(nnrp.NnrpError) as raised:
            nnrp.load(web.url + path)
        assert "SECRET" not in f"{raised.value} {raised.value.details}"
    with pytest.raises(InvalidOption, match="without a user and a password"):
        sources.fetch("https://me:SECRET@127.0.0.1/net.onnx")


def test_a_secret_connection_is_verified_and_never_left_for_one_that_is_not(model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trusted, secret = servers.certificate(tmp_path)
    with servers.serving(plain := servers.Files({"/net.onnx": model})), servers.serving(web := servers.Files({"/net.onnx": model}), secret):
        web.moved = {"/away.onnx": f"{plain.url}/net.onnx", "/near.onnx": f"{web.url}/net.onnx"}
        with pytest.raises(ConnectionFailed, match="SSLCertVerificationError"):
            sources.fetch(f"{web.url}/net.onnx")
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        assert twice(f"{web.url}/net.onnx")
        assert twice(f"{web.url}/near.onnx")
        with pytest.raises(ConnectionFailed, match="from https to another protocol"):
            sources.fetch(f"{web.url}/away.onnx")
    assert not plain.asked


@pytest.mark.parametrize(
    "source",
    ["s3:", "s3:///net.onnx", "s3://me:SECRET@bucket/net.onnx", "gs://b", "az:", "s3://bucket/a\0", "file:", "file://host/net.onnx", "file:net%00.onnx"]
    + [f"http://{where}/net.onnx" for where in ("[::1", "a..b", "a" * 64, "127.0.0.1:x", "127.0.0.1:99999", "a b", "a\n")],
)
def test_what_can_be_no_source_is_refused_before_anything_is_asked(source: str) -> None:
    with pytest.raises(InvalidOption, match=r"^source: expected") as refused:
        sources.fetch(source)
    assert "SECRET" not in refused.value.message
    with pytest.raises(InvalidOption, match=r"^source: expected"):
        nnrp.load(source)


def test_many_processes_that_want_one_model_fetch_it_once(web: servers.Files) -> None:
    program = "import sys; from nnrp.repository import sources; print(sources.fetch(sys.argv[1]).stat().st_size)"
    source = f"{web.url}/big.onnx#sha256={servers.sha256(web.content['/big.onnx'])}"
    running = [subprocess.Popen([sys.executable, "-c", program, source], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate(timeout=120)[0].strip() for process in running] == [str(3 << 20)] * 3
    assert len(web.asked) == 1


def test_a_url_that_names_no_file_is_a_model_on_another_server(double_file: Path) -> None:
    assert not sources.is_one("http://127.0.0.1:8000/double")
    assert not sources.is_one("https://127.0.0.1/double.onnx", ["remote"])
    assert sources.is_one("https://127.0.0.1/double", ["onnxruntime"])
    with nnrp.serve(double_file, http_port=0, grpc_port=0) as server:
        assert twice(f"{server.http_url}/double")


def test_a_terminal_sees_how_far_a_download_is(web: servers.Files) -> None:
    pty = pytest.importorskip("pty", reason="no terminals on this system")
    ours, theirs = pty.openpty()
    program = "import sys; from nnrp.repository import sources; sources.fetch(sys.argv[1])"
    read: list[bytes] = []

    def follow() -> None:
        # Linux ends it with an error.
        with suppress(OSError):
            while piece := os.read(ours, 1 << 16):
                read.append(piece)

    reader = threading.Thread(target=follow)
    reader.start()
    words = [sys.executable, "-c", program, f"{web.url}/big.onnx"]
    try:
        subprocess.run(words, stderr=theirs, check=True, timeout=120, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"})
    finally:
        os.close(theirs)
        reader.join(60)
        os.close(ours)
    shown = b"".join(read).decode()
    assert "big.onnx" in shown
    assert "MB" in shown


# Buckets, hubs and registries


def test_a_file_and_a_folder_of_a_bucket(model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in (
            ("ENDPOINT_URL", f"http://{host}:{port}"),
            ("ACCESS_KEY_ID", "KEY"),
            ("SECRET_ACCESS_KEY", "SECRET"),
            ("DEFAULT_REGION", "us-east-1"),
        ):
            monkeypatch.setenv(f"AWS_{name}", value)
        import boto3

        client = boto3.client("s3")
        client.create_bucket(Bucket="models")
        for key in ("net.onnx", "repository/double/1/model.onnx", "repository/double/2/model.onnx"):
            client.put_object(Bucket="models", Key=key, Body=model)
        assert twice("s3://models/net.onnx")
        assert nnrp.load("s3:models/net.onnx").name == "net"
        engine = nnrp.Engine()
        nnrp.repository.load(engine, ["s3://models/repository"])
        assert [(one.name, one.version) for one in engine.models()] == [("double", "1"), ("double", "2")]
        with pytest.raises(FileNotFound, match="s3 has no such file"):
            sources.fetch("s3://models/none.onnx")
    finally:
        server.stop()


def test_a_file_and_a_folder_of_a_hub_at_a_revision(model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = servers.Hub({"onnx/net.onnx": model, "repository/1/model.onnx": model, "README.md": b"about"})
    with servers.serving(hub):
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert twice("hf:acme/net/onnx/net.onnx@v1")
        assert twice("hf:acme/net@v1/onnx/net.onnx")
        assert nnrp.load("hf://acme/net/repository").version == "1"
        with pytest.raises(FileNotFound):
            sources.fetch("hf:acme/net/none.onnx")
        with pytest.raises(FileNotFound):
            sources.fetch("hf:acme/other/net.onnx")


def test_a_file_of_a_hub_is_read_in_pieces_from_any_place_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from nnrp.repository.stores.filesystem import Hub

    large = os.urandom(9 << 20)
    with servers.serving(hub := servers.Hub({"net.onnx": large})):
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert sources.fetch("hf:acme/net/net.onnx").read_bytes() == large
        hub.asked.clear()
        store = Hub("acme/net/net.onnx")
        listing = store.look("")
        assert listing is not None
        begun, pieces = store.read(listing.files[0], 5 << 20)
        assert (begun, b"".join(pieces)) == (5 << 20, large[5 << 20 :])
        assert store.look(listing.tag) is None
    ranges = [value for _, path, headers in hub.asked if "resolve" in path for name, value in headers.items() if name.lower() == "range"]
    assert ranges
    assert ranges[0].startswith(f"bytes={5 << 20}-")


@pytest.mark.parametrize("user", [None, "bWU6U0VDUkVU"])
def test_an_artefact_of_a_registry(model: bytes, user: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = servers.Registry({"net.onnx": model}, user=user)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with servers.serving(registry):
        host = registry.url.removeprefix("http://")
        if user:
            with pytest.raises(FileNotFound, match=r"may be read here: 401|gives no right"):
                sources.fetch(f"oci:{host}/models/net:v1")
            (tmp_path / "config.json").write_text(json.dumps({"auths": {host: {"auth": user}}}))
        assert twice(f"oci:{host}/models/net:v1")
        assert twice(f"oci://{host}/models/net@sha256:{servers.sha256(registry.manifest)}")
        with pytest.raises(FileNotFound):
            sources.fetch(f"oci:{host}/models/net:v2")
        registry.content["net.onnx"] = registry.content["net.onnx"][:-1] + b"x"
        registry.named = {f"blobs/sha256:{servers.sha256(model)}": registry.content["net.onnx"]}
        registry.manifest += b" "
        with pytest.raises(InvalidModel, match="of other content"):
            sources.fetch(f"oci:{host}/models/net:v1")


def test_a_registry_sends_nobody_to_a_file_or_to_a_connection_less_secret_than_its_own(model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text('{"token": "let-me-in"}')
    trusted, secret = servers.certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    registry = servers.Registry({"net.onnx": model})
    with servers.serving(registry), servers.serving(web := servers.Registry({"net.onnx": model}), secret):
        for realm in (f"file:{tmp_path}/token", "ftp://127.0.0.1/token", ""):
            registry.realm = realm or "token"
            with pytest.raises(ConnectionFailed, match="a place for tokens that is not https"):
                sources.fetch(f"oci:{registry.url.removeprefix('http://')}/models/net:v1")
        store = Registry("127.0.0.1/models/net:v1")
        store._base = f"{web.url}/v2/models/net"
        web.realm = f"{registry.url}/token"
        with pytest.raises(ConnectionFailed, match="a place for tokens that is not https"):
            store.look("")
        with pytest.raises(ConnectionFailed, match="cannot be reached"):
            ask(f"file:{tmp_path}/token", {})
    assert not [path for _, path, _ in registry.asked if "token" in path]


def test_layers_of_an_artefact_are_the_files_of_a_folder_and_go_on_where_they_broke(model: bytes) -> None:
    weights = os.urandom(3 << 20)
    registry = servers.Registry({"1/model.onnx": model, "1/weights.bin": weights})
    with servers.serving(registry):
        registry.breaks = [len(model), 1 << 20]
        folder = sources.fetch(f"oci:{registry.url.removeprefix('http://')}/models/net:v1")
    assert (folder / "1/weights.bin").read_bytes() == weights
    assert twice(str(folder))
    assert "bytes=1048576-" in [headers.get("Range") for _, _, headers in registry.asked]


def test_no_protocol_is_loaded_before_it_is_used() -> None:
    program = "import sys, nnrp; from nnrp.repository import sources, find; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120).stdout.split()
    assert not {"fsspec", "s3fs", "huggingface_hub", "requests", "urllib.request", "rich"} & set(loaded)


# Files of this machine, and archives (the rest of these: test_archives.py)


def test_a_file_url_and_its_digest(tmp_path: Path, model: bytes) -> None:
    file = tmp_path / "a model.onnx"
    file.write_bytes(model)
    assert twice(f"file://{tmp_path}/a%20model.onnx#sha256={servers.sha256(model)}")
    with pytest.raises(InvalidModel, match="expected sha256 1111"):
        sources.fetch(f"file:{file}#sha256={'1' * 64}")
    with pytest.raises(InvalidOption, match="64 hexadecimal digits"):
        sources.fetch(f"file:{file}#sha256=12")


@pytest.mark.parametrize("pack", [tarred, zipped])
def test_an_archive_of_a_model_or_a_repository_is_unpacked_once(web: servers.Files, model: bytes, pack: Any, tmp_path: Path) -> None:
    name = "packed.tar.gz" if pack is tarred else "packed.zip"
    web.content[f"/{name}"] = pack({"double/1/model.onnx": model, "double/2/model.onnx": model})
    (tmp_path / name).write_bytes(pack({"net.onnx": model}))
    assert nnrp.load(f"{web.url}/{name}", version="2")(X)["y"].tolist() == [[2, 4, 6, 8]]
    assert nnrp.load(f"{web.url}/{name}", version="1").name == "double"
    assert twice(str(tmp_path / name))
    assert len({path for _, path, _ in web.asked}) == 1


def test_the_name_of_a_model_is_that_of_its_source(web: servers.Files, model: bytes) -> None:
    web.content["/double/model.onnx"] = model
    assert nnrp.load(f"{web.url}/double/model.onnx").name == "double"
    assert [sources.name(text) for text in ("hf:acme/net/model.onnx@v1", "oci:host:5000/models/net:v1", "s3://bucket/a/b.tar.gz")] == ["net", "net", "b"]


def test_a_folders_digest_is_that_of_its_list_as_sha256sum_writes_it(tmp_path: Path) -> None:
    for name in ("b.bin", "a/c.bin"):
        (tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / name).write_bytes(name.encode())
    listed = f"{servers.sha256(b'a/c.bin')}  a/c.bin\n{servers.sha256(b'b.bin')}  b.bin\n"
    assert cache.digest(tmp_path / "model") == servers.sha256(listed.encode())
