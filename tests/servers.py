"""Small servers that speak the protocols of sources, each over a folder or a dictionary, on this machine."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import json
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Files:
    """What a file server has, what it was asked, and how it misbehaves.

    Attributes:
        content: path → bytes.
        breaks: after how many bytes of an answer the connection ends, once each.
        asked: method, path and headers of each request.
        tags: answer with an ETag, and heed what is asked by it.
        moved: path → the URL that it answers with instead.
        lengths: say how long an answer is.
        skips: how many bytes later than asked for an answer of a range begins.
        stubborn: answer that nothing has changed, whatever is asked.
    """

    content: dict[str, bytes]
    breaks: list[int] = field(default_factory=list)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    tags: bool = True
    moved: dict[str, str] = field(default_factory=dict)
    lengths: bool = True
    skips: int = 0
    stubborn: bool = False
    url: str = ""

    def answer(self, handler: Handler) -> None:
        path = unquote(urlsplit(handler.path).path)
        if self.stubborn:
            return handler.give(304, b"")
        if path in self.moved:
            return handler.give(302, b"", {"Location": self.moved[path]})
        if path not in self.content:
            return handler.give(404, b"")
        return self.give(handler, self.content[path])

    def give(self, handler: Handler, body: bytes, headers: dict[str, str] | None = None) -> None:
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        told = {**(headers or {}), **({"ETag": tag} if self.tags else {})}
        if self.tags and handler.headers.get("If-None-Match") == tag:
            return handler.give(304, b"", told)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", ""))
        if wanted is None or handler.headers.get("If-Range", tag) != tag:
            return handler.give(200, body, told, self)
        start, end = int(wanted[1]) + self.skips, min(int(wanted[2] or len(body) - 1), len(body) - 1)
        if start >= len(body):
            return handler.give(416, b"", {"Content-Range": f"bytes */{len(body)}"})
        return handler.give(206, body[start : end + 1], {**told, "Content-Range": f"bytes {start}-{end}/{len(body)}"}, self)


class Handler(BaseHTTPRequestHandler):
    """Hands each request to its server's `answer`."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        files: Any = self.server.files  # type: ignore[attr-defined]
        length = int(self.headers.get("Content-Length", 0))
        self.body = self.rfile.read(length)
        files.asked.append((self.command, self.path, dict(self.headers.items())))
        files.answer(self)

    do_HEAD = do_POST = do_GET  # noqa: N815 - the library's own way of naming

    def give(self, status: int, body: bytes, headers: dict[str, str] | None = None, files: Files | None = None) -> None:
        cut = files.breaks.pop(0) if files and files.breaks and self.command == "GET" else None
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if files is None or files.lengths:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if cut is None else body[:cut])
        if cut is not None or (files is not None and not files.lengths):
            self.close_connection = True

    def tell(self, document: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.give(status, json.dumps(document).encode(), {"Content-Type": "application/json", **(headers or {})})


class Server(ThreadingHTTPServer):
    """Says nothing of clients that leave in the middle."""

    def handle_error(self, *_: Any) -> None: ...


@contextmanager
def serving(files: Any, secret: ssl.SSLContext | None = None) -> Iterator[str]:
    """Run a server for as long as the block lasts, over TLS where it is given a secret; gives its URL."""
    server = Server(("127.0.0.1", 0), Handler)
    server.files = files  # type: ignore[attr-defined]
    files.url = f"{'https' if secret else 'http'}://127.0.0.1:{server.server_port}"
    if secret:
        server.socket = secret.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield files.url
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Make a certificate for this machine; gives its file, and what a server needs."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nnrp-tests")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    public, private = folder / "certificate.pem", folder / "key.pem"
    public.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    private.write_bytes(key.private_bytes(*plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return public, context


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@dataclass
class Registry(Files):
    """An OCI registry with one artefact, ``models/net:v1``; whoever reads it needs a token, which it gives to anybody, or to `user`."""

    user: str | None = None
    realm: str | None = None
    named: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kind = {"mediaType": "application/vnd.nnrp.model"}
        layers = [
            {**kind, "digest": f"sha256:{sha256(body)}", "size": len(body), "annotations": {"org.opencontainers.image.title": name}}
            for name, body in self.content.items()
        ]
        empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": f"sha256:{sha256(b'{}')}", "size": 2}
        manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": empty, "layers": layers}
        self.manifest = json.dumps(manifest).encode()

    def answer(self, handler: Handler) -> None:
        parts = urlsplit(handler.path)
        if parts.path == "/token":
            basic = handler.headers.get("Authorization")
            if self.user and basic != f"Basic {self.user}":
                return handler.tell({"errors": [{"code": "DENIED"}]}, 401)
            assert parse_qs(parts.query)["scope"] == ["repository:models/net:pull"]
            return handler.tell({"token": "let-me-in"})
        if handler.headers.get("Authorization") != "Bearer let-me-in":
            challenge = f'Bearer realm="{self.realm or self.url + "/token"}",service="test",scope="repository:models/net:pull"'
            return handler.tell({"errors": [{"code": "UNAUTHORIZED"}]}, 401, {"WWW-Authenticate": challenge})
        _, _, what = parts.path.partition("/v2/models/net/")
        if what in ("manifests/v1", f"manifests/sha256:{sha256(self.manifest)}"):
            return handler.give(200, self.manifest, {"Content-Type": "application/vnd.oci.image.manifest.v1+json"})
        blobs = {f"blobs/sha256:{sha256(body)}": body for body in self.content.values()} | self.named
        return self.give(handler, blobs[what]) if what in blobs else handler.tell({"errors": [{"code": "NAME_UNKNOWN"}]}, 404)


@dataclass
class Hub(Files):
    """Hugging Face's hub with one repository, ``acme/net``, at one commit."""

    commit: str = "c" * 40

    def answer(self, handler: Handler) -> None:
        path = unquote(urlsplit(handler.path).path)
        if re.fullmatch(rf"/api/models/acme/net(/revision/(main|v1|{self.commit}))?", path):
            return handler.tell({"_id": "1", "id": "acme/net", "sha": self.commit, "private": False, "siblings": [], "tags": [], "downloads": 0, "likes": 0})
        if found := re.fullmatch(rf"/api/models/acme/net/tree/{self.commit}/?(.*)", path):
            return handler.tell(list(self._tree(found[1].strip("/"), "recursive=true" in handler.path.lower())))
        if found := re.fullmatch(rf"/acme/net/resolve/{self.commit}/(.*)", path):
            if found[1] in self.content:
                return self.give(handler, self.content[found[1]], {"X-Repo-Commit": self.commit})
            return handler.give(404, b"", {"X-Error-Code": "EntryNotFound"})
        return handler.give(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _tree(self, folder: str, recursive: bool) -> Iterator[dict[str, Any]]:
        seen = set()
        for name, body in self.content.items():
            below = name.removeprefix(f"{folder}/") if folder else name
            if folder and below == name:
                continue
            first, slash, _ = below.partition("/")
            parent = f"{folder}/{first}".strip("/")
            if slash and parent not in seen:
                seen.add(parent)
                yield {"type": "directory", "oid": "d" * 40, "size": 0, "path": parent}
            if recursive or not slash:
                yield {"type": "file", "oid": hashlib.sha1(body).hexdigest(), "size": len(body), "path": name}
