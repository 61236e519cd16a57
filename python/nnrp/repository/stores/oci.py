"""``oci:``: artefacts in a container registry, by the registry's own protocol: a manifest, and blobs by their digests."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode, urlsplit

from nnrp.errors import ConnectionFailed, FileNotFound, InvalidModel, InvalidOption

from . import File, Listing
from .web import BEYOND, ask, chunks

#: What is asked for; an index lists manifests.
_MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_TITLE = "org.opencontainers.image.title"
#: Largest manifest, or token.
_LIMIT = 4 << 20


class Registry:
    """An artefact: its layers are the model's files, called as their titles say."""

    def __init__(self, reference: str) -> None:
        found = re.fullmatch(
            r"(?P<host>[\w.-]+(?::\d+)?)/(?P<name>[a-z0-9._/-]+)(?::(?P<tag>[\w][\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?", reference
        )
        if found is None:
            raise InvalidOption("source: expected oci:HOST/NAME:TAG or oci:HOST/NAME@sha256:DIGEST")
        self._host, self._digest = found["host"], found["digest"]
        self._wanted = found["digest"] or found["tag"] or "latest"
        self._name = found["name"]
        # As other clients do: what runs on this machine has no certificate.
        scheme = "http" if urlsplit(f"//{self._host}").hostname in ("localhost", "127.0.0.1") else "https"
        self._base = f"{scheme}://{self._host}/v2/{self._name}"
        self._secret: str | None = None

    def look(self, known: str) -> Listing | None:
        answer = self._ask(f"{self._base}/manifests/{self._wanted}", {"Accept": ", ".join(_MANIFESTS)})
        body = _body(answer)
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if self._digest and digest != self._digest:
            raise InvalidModel(f"source: expected a manifest of {self._digest}, got {digest}", expected=self._digest, got=digest)
        if known and digest == known:
            return None
        files = [_file(layer) for layer in _layers(body)]
        folder = len(files) != 1 or "/" in files[0].name
        if folder and not all(file.name for file in files):
            raise InvalidModel("source: expected a title for each of several layers")
        return Listing(digest, tuple(file if file.name else File("model", file.size, file.sha256, file.place) for file in files), folder)

    def read(self, file: File, start: int) -> tuple[int, Iterator[bytes]]:
        try:
            answer = self._ask(f"{self._base}/blobs/{file.place}", {"Range": f"bytes={start}-"} if start else {})
        except HTTPError as error:
            if error.code == BEYOND:
                return start, iter(())
            raise ConnectionFailed(f"source: {self._host} answered {error.code}", status=error.code) from error
        return start if answer.status == 206 else 0, chunks(answer)

    def close(self) -> None: ...

    def _ask(self, url: str, headers: dict[str, str]) -> Any:
        try:
            return ask(url, headers, self._secret)
        except HTTPError as error:
            if error.code != 401:
                raise
            self._secret = self._permission(error.headers.get("WWW-Authenticate", ""))
            if self._secret is None:
                raise FileNotFound(f"source: {self._host} wants credentials, and there are none here", status=401) from error
        return ask(url, headers, self._secret)

    def _permission(self, challenge: str) -> str | None:
        """The value of the Authorization header that a registry asks for: the user's own, or a token that it gives for it, or to anybody."""
        kind, _, rest = challenge.partition(" ")
        said, basic = dict(re.findall(r'(\w+)="([^"]*)"', rest)), _known(self._host)
        if kind.lower() != "bearer":
            return basic
        realm = said.get("realm", "")
        if urlsplit(realm).scheme not in ("https", urlsplit(self._base).scheme):
            raise ConnectionFailed(f"source: {self._host} names a place for tokens that is not https")
        query = {"service": said.get("service", self._host), "scope": said.get("scope", f"repository:{self._name}:pull")}
        try:
            told = json.loads(_body(ask(f"{realm}?{urlencode(query, quote_via=quote)}", {}, basic)))
        except (HTTPError, ValueError, RecursionError) as error:
            raise FileNotFound(f"source: {self._host} gives no right to read this") from error
        token = told.get("token") or told.get("access_token") if isinstance(told, dict) else None
        return f"Bearer {token}" if token else None


def _body(answer: Any) -> bytes:
    """A document, which is small."""
    body = b""
    for piece in chunks(answer):
        body += piece
        if len(body) > _LIMIT:
            raise InvalidModel(f"source: expected a document of at most {_LIMIT} bytes")
    return body


def _layers(manifest: bytes) -> list[dict[str, Any]]:
    try:
        layers: list[dict[str, Any]] = json.loads(manifest)["layers"]
        if layers and all(re.fullmatch("sha256:[0-9a-f]{64}", layer["digest"]) and int(layer["size"]) >= 0 for layer in layers):
            return layers
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidModel("source: expected the manifest of one artefact, with layers") from error
    raise InvalidModel("source: expected the manifest of one artefact, with layers by sha256")


def _file(layer: dict[str, Any]) -> File:
    title = (layer.get("annotations") or {}).get(_TITLE, "")
    return File(str(title), int(layer["size"]), layer["digest"].partition(":")[2], layer["digest"])


def _known(host: str) -> str | None:
    """What Docker's configuration keeps for a registry, where `docker login` or `oras login` put it."""
    file = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))["auths"][host]["auth"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return f"Basic {kept}" if isinstance(kept, str) and kept else None
