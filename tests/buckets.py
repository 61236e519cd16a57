"""Small servers that speak as Google's and Azure's stores do of one bucket, `models`, as far as reading from one goes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

import servers

BUCKET = "models"
#: Azure's name and key of whoever may read; everybody knows them.
ACCOUNT, KEY = "tester", base64.b64encode(b"a key of a test").decode()
DATE = "Sun, 01 Nov 2026 00:00:00 GMT"


@dataclass
class Bucket(servers.Files):
    """What both have: objects by name, of which names with slashes look like folders."""

    def listed(self, prefix: str, delimiter: str) -> tuple[list[str], list[str]]:
        """The objects that begin so, and, where there is a delimiter, the folders instead of what is in them."""
        names = sorted(name for name in self.content if name.startswith(prefix))
        if not delimiter:
            return names, []
        folders = {prefix + name[len(prefix) :].partition(delimiter)[0] + delimiter for name in names if delimiter in name[len(prefix) :]}
        return [name for name in names if delimiter not in name[len(prefix) :]], sorted(folders)


@dataclass
class Google(Bucket):
    """Google's: objects told in JSON, and read elsewhere than they are told."""

    def answer(self, handler: servers.Handler) -> None:
        parts = urlsplit(handler.path)
        words = {key: values[0] for key, values in parse_qs(parts.query).items()}
        place = f"/storage/v1/b/{BUCKET}/o"
        path = parts.path.removeprefix("/download")
        if path == place or path == f"{place}/":
            names, folders = self.listed(words.get("prefix", ""), words.get("delimiter", ""))
            return handler.tell({"kind": "storage#objects", "items": [self._told(name) for name in names], "prefixes": folders})
        name = unquote(path.removeprefix(f"{place}/"))
        if not path.startswith(place) or name not in self.content:
            return handler.tell({"error": {"code": 404, "message": "Not Found"}}, 404)
        return self.give(handler, self.content[name]) if words.get("alt") == "media" else handler.tell(self._told(name))

    def _told(self, name: str) -> dict[str, Any]:
        body = self.content[name]
        link = f"{self.url}/download/storage/v1/b/{BUCKET}/o/{quote(name, safe='')}?alt=media"
        digest = base64.b64encode(hashlib.md5(body).digest()).decode()
        told = {"kind": "storage#object", "name": name, "bucket": BUCKET, "size": str(len(body)), "md5Hash": digest, "generation": "1", "mediaLink": link}
        return told | {"updated": "2026-11-01T00:00:00Z", "timeCreated": "2026-11-01T00:00:00Z"}


@dataclass
class Azure(Bucket):
    """Azure's: a container of blobs, told in headers and XML, for whoever signs what is asked."""

    def answer(self, handler: servers.Handler) -> None:
        parts = urlsplit(handler.path)
        words = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if not handler.headers.get("Authorization", "").startswith(f"SharedKey {ACCOUNT}:"):
            return handler.give(403, b"", {"x-ms-error-code": "AuthenticationFailed"})
        place = f"/{ACCOUNT}/{BUCKET}"
        if words.get("comp") == "list" and parts.path == place:
            return handler.give(200, "".join(self._list(words)).encode(), {"Content-Type": "application/xml"})
        if parts.path == place and words.get("restype") == "container":
            return handler.give(200, b"", self._headers(b""))
        name = unquote(parts.path.removeprefix(f"{place}/"))
        if not parts.path.startswith(f"{place}/") or name not in self.content:
            missing = "BlobNotFound" if parts.path.startswith(place) else "ContainerNotFound"
            return handler.give(404, b"", {"x-ms-error-code": missing})
        # Its clients have a header of their own for a range.
        if "x-ms-range" in handler.headers:
            handler.headers["Range"] = handler.headers["x-ms-range"]
        return self.give(handler, self.content[name], self._headers(self.content[name]))

    def _headers(self, body: bytes) -> dict[str, str]:
        digest = base64.b64encode(hashlib.md5(body).digest()).decode()
        told = {"Last-Modified": DATE, "x-ms-blob-type": "BlockBlob", "x-ms-version": "2021-12-02", "x-ms-blob-content-md5": digest}
        return told | {"x-ms-creation-time": DATE, "x-ms-request-id": "1"}

    def _list(self, words: dict[str, str]) -> Iterator[str]:
        names, folders = self.listed(words.get("prefix", ""), words.get("delimiter", ""))
        yield f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="{self.url}/{ACCOUNT}" ContainerName="{BUCKET}"><Blobs>'
        for name in names:
            body = self.content[name]
            yield f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>{DATE}</Last-Modified><Etag>0x{hashlib.md5(body).hexdigest()}</Etag>"
            yield f"<Content-Length>{len(body)}</Content-Length><BlobType>BlockBlob</BlobType></Properties></Blob>"
        for name in folders:
            yield f"<BlobPrefix><Name>{escape(name)}</Name></BlobPrefix>"
        yield "</Blobs><NextMarker /></EnumerationResults>"

    @property
    def connection(self) -> str:
        """What its clients are told of where it is and who asks."""
        return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={self.url}/{ACCOUNT};"
