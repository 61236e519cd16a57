"""``https:`` and ``http:``, by the standard library, which takes proxies and certificates from the environment."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator, Mapping
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

from nnrp.errors import ConnectionFailed, FileNotFound, InvalidOption

from . import CHUNK, File, Listing

#: Seconds without a byte after which a server is given up.
TIMEOUT = 30
UNCHANGED, BEYOND = 304, 416


class _Redirects(HTTPRedirectHandler):
    """Follows a server elsewhere, but never from a connection that is secret to one that is not."""

    def redirect_request(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str) -> Request | None:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise ConnectionFailed("source: the server sends from https to another protocol, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


# Not all that the library has: a server must not send to a file of this machine, or to FTP.
_opener = OpenerDirector()
for _handler in (ProxyHandler, UnknownHandler, HTTPHandler, HTTPSHandler, _Redirects, HTTPDefaultErrorHandler, HTTPErrorProcessor):
    _opener.add_handler(_handler())


def ask(url: str, headers: Mapping[str, str], secret: str | None = None) -> Any:
    """Send a request and give the answer's head; its body is read from it.

    Args:
        url: where to.
        headers: what to say besides.
        secret: the value of an Authorization header, which goes to no other server.

    Raises:
        FileNotFound, ConnectionFailed: as `Store.look` says. Neither names more of the URL than its server.
        HTTPError: 304, 401 and 416, for the caller to say what they mean.
    """
    request, host = Request(url, headers={"User-Agent": "nnrp", **headers}), urlsplit(url).hostname
    if secret:
        request.add_unredirected_header("Authorization", secret)
    try:
        return _opener.open(request, timeout=TIMEOUT)
    except ConnectionFailed:
        raise
    except HTTPError as error:
        if error.code in (UNCHANGED, BEYOND) or (error.code == 401 and secret is None):
            raise
        if error.code in (401, 403, 404, 410):
            raise FileNotFound(f"source: {host} has no such file, or none that may be read here: {error.code}", status=error.code) from error
        raise ConnectionFailed(f"source: {host} answered {error.code}", status=error.code) from error
    except (URLError, http.client.HTTPException, OSError) as error:
        why = error.reason if isinstance(error, URLError) and isinstance(error.reason, Exception) else error
        raise ConnectionFailed(f"source: {host} cannot be reached: {type(why).__name__}") from error


def chunks(answer: Any) -> Iterator[bytes]:
    """Give an answer's body piece by piece, and fail where it ends before its length."""
    left = answer.length
    try:
        while chunk := answer.read(CHUNK):
            left = None if left is None else left - len(chunk)
            yield chunk
    except (http.client.HTTPException, OSError) as error:
        raise ConnectionFailed(f"source: the connection broke: {type(error).__name__}") from error
    finally:
        answer.close()
    if left:
        raise ConnectionFailed(f"source: the connection ended {left} bytes too early")


class Web:
    """A file behind a URL."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.username or parts.password or not parts.hostname:
            raise InvalidOption("source: expected https://HOST/PATH without a user and a password")
        self._url = url
        self._name = unquote(parts.path).rpartition("/")[2] or "model"
        self._answer: Any = None

    def look(self, known: str) -> Listing | None:
        condition = "If-None-Match" if known.startswith('"') else "If-Modified-Since"
        try:
            self._answer = ask(self._url, {condition: known} if known else {})
        except HTTPError as error:
            if error.code == UNCHANGED and known:
                return None
            if error.code == UNCHANGED:
                message = f"source: {urlsplit(self._url).hostname} answered {error.code}, that it is as before, and nothing of it is here"
                raise ConnectionFailed(message, status=error.code) from error
            raise FileNotFound(f"source: {urlsplit(self._url).hostname} wants credentials, or answers {error.code}", status=error.code) from error
        told = self._answer.headers
        # A weak tag stands for what is alike, not for the same bytes.
        tag = told.get("ETag", "") if told.get("ETag", "").startswith('"') else told.get("Last-Modified", "")
        return Listing(tag, (File(self._name, self._answer.length, place=tag),))

    def read(self, file: File, start: int) -> tuple[int, Iterator[bytes]]:
        answer, self._answer = self._answer, None
        if start == 0 and answer is not None:
            return 0, chunks(answer)
        if answer is not None:
            answer.close()
        try:
            # Without a tag nobody knows whether the rest belongs to what came before.
            answer = ask(self._url, {"Range": f"bytes={start}-", "If-Range": file.place} if start and file.place else {})
        except HTTPError as error:
            if error.code == BEYOND:
                return start, iter(())
            raise ConnectionFailed(f"source: the server answered {error.code}", status=error.code) from error
        came = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", "")) if answer.status == 206 else None
        began = int(came[1]) if came else 0
        if began > start:
            answer.close()
            raise ConnectionFailed(f"source: the server was asked for the bytes from {start} on, and begins at {began}")
        return began, chunks(answer)

    def close(self) -> None:
        if self._answer is not None:
            self._answer.close()
