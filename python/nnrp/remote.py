"""Models that others serve."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from nnrp._nnrp import Client, Model
from nnrp.errors import InvalidOption, ModelNotFound

LISTED = 16


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
    name = model or named or _only(client)
    return client.model(name, version or numbered)


def _split(url: str) -> tuple[str, str | None, str | None]:
    parts = urlsplit(url)
    server = f"{parts.scheme}://{parts.netloc}"
    match [unquote(part) for part in parts.path.split("/") if part]:
        case []:
            return server, None, None
        case ["v2", "models", name]:
            return server, name, None
        case ["v2", "models", name, "versions", version]:
            return server, name, version
    raise InvalidOption(f"url: expected http://host:port or grpc://host:port, and at most /v2/models/NAME/versions/VERSION, got '{url[:96]}'")


def _only(client: Client) -> str:
    names = sorted({entry["name"] for entry in client.models()})
    if len(names) == 1:
        return names[0]
    listed = ", ".join(f"'{name}'" for name in names[:LISTED]) + (" …" if len(names) > LISTED else "")
    raise ModelNotFound(f"model: expected a name, because the server has {len(names)} models{': ' + listed if names else ''}", models=names[:LISTED])
