"""Models that others serve."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import unquote, urlsplit

from nnrp import _nnrp
from nnrp.errors import ConnectionFailed, InvalidOption, ModelNotFound
from nnrp.model import Model

LISTED = 16
#: Sizes of dimensions have 64 bits, and no more digits.
MOST, DIGITS = 1 << 63, 21


class Client(_nnrp.Client):
    """A server of the Open Inference Protocol, seen from outside.

    Args:
        url: "http://host:port" for REST or "grpc://host:port". Nothing is sent yet.

    Example:
        >>> client = nnrp.Client("http://127.0.0.1:8000")
        >>> client.model("double")(np.float32([1, 2, 3]))
        {'y': array([3., 5., 7.], dtype=float32)}
    """

    __slots__ = ()

    def models(self) -> list[dict[str, str]]:
        """List the server's models: one dict for each version, with name, version, state and reason."""
        told: list[dict[str, str]] = json.loads(self._ask("index"))
        return told

    def model(self, name: str, version: str | None = None) -> Model:
        """Give a model of the server, to be called as if it were here; without a version, the server chooses at each call."""
        return Model(self, name, version)

    def metadata(self, model: str | None = None, version: str | None = None) -> dict[str, Any]:
        """Tell the server's metadata, or a model's when it is named."""
        return self._metadata(model or "", version or "")

    def live(self) -> bool:
        """Tell whether the server answers at all."""
        return self._ask("live") == "true"

    def ready(self, model: str | None = None, version: str | None = None) -> bool:
        """Tell whether the server, or a model when it is named, takes requests."""
        return self._ask("ready", model or "", version or "") == "true"

    def _metadata(self, name: str, version: str) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self._ask("metadata", name, version))
        return told

    def _signature(self, name: str, version: str) -> dict[str, Any]:
        told = self._metadata(name, version)
        if not isinstance(told, dict) or not all(isinstance(told.get(side), list) and all(map(_is_spec, told[side])) for side in ("inputs", "outputs")):
            message = f"the metadata of model '{name}' cannot be read: expected inputs and outputs with name, datatype and shape"
            raise ConnectionFailed(message, model=name)
        return told | {"version": version}


def _is_spec(told: Any) -> bool:
    """Whether it is what metadata tell of a tensor; protobuf's JSON writes whole numbers as text."""
    if not isinstance(told, dict) or not all(isinstance(told.get(key), str) for key in ("name", "datatype")) or not isinstance(told.get("shape"), list):
        return False
    plain = all(isinstance(dim, int) or (isinstance(dim, str) and dim.removeprefix("-").isdecimal() and len(dim) < DIGITS) for dim in told["shape"])
    return plain and all(-MOST <= int(dim) < MOST for dim in told["shape"])


def connect(url: str, model: str | None = None, version: str | None = None) -> Model:
    """Find a model behind a server; what comes back is the same Model that `load` gives.

    Args:
        url: "http://host:port" for REST or "grpc://host:port", also with a path: "http://host:port/v2/models/NAME/versions/VERSION".
        model: the model's name; may be left out when the server has one model.
        version: default: the server's choice, at each call.

    Raises:
        ConnectionFailed: nobody listens there.
        ModelNotFound, VersionNotFound: the server has no such model, or several and none was named.
        InvalidOption: not such a URL.

    Example:
        >>> model = nnrp.connect("grpc://127.0.0.1:8001", "double")
        >>> model(np.array([1, 2, 3], np.float32))
        {'y': array([3., 5., 7.], dtype=float32)}
    """
    server, named, numbered = _split(url)
    client = Client(server)
    return client.model(model or named or _only(client), version or numbered)


def _split(url: str) -> tuple[str, str | None, str | None]:
    expected = "expected http://host:port or grpc://host:port, and at most /v2/models/NAME/versions/VERSION"
    shown = re.sub(r"//.*@", "//…@", url)[:96]
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidOption(f"url: {expected}, got '{shown}'") from error
    server = f"{parts.scheme}://{parts.netloc}"
    match [unquote(part) for part in parts.path.split("/") if part]:
        case []:
            return server, None, None
        case ["v2", "models", name]:
            return server, name, None
        case ["v2", "models", name, "versions", version]:
            return server, name, version
    raise InvalidOption(f"url: {expected}, got '{shown}'")


def _only(client: Client) -> str:
    names = sorted({entry["name"] for entry in client.models()})
    if len(names) == 1:
        return names[0]
    listed = ", ".join(f"'{name}'" for name in names[:LISTED]) + (" …" if len(names) > LISTED else "")
    raise ModelNotFound(f"model: expected a name, because the server has {len(names)} models{': ' + listed if names else ''}", models=names[:LISTED])
