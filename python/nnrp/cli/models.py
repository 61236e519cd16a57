"""``nnrp models``."""

from __future__ import annotations

from typing import Annotated

import typer

from . import show


def models(
    url: Annotated[str, typer.Argument(help="A server: http://HOST:PORT or grpc://HOST:PORT.")],
    json: show.Json = False,
) -> None:
    """List the models that a server serves.

    Any server of the Open Inference Protocol with Triton's repository extension will do.
    """
    import nnrp

    client = nnrp.Client(url)
    found = []
    for entry in client.models():
        metadata = client.metadata(entry["name"], entry.get("version") or None) if entry.get("state", "READY") == "READY" else {}
        found.append({**entry, "inputs": metadata.get("inputs", []), "outputs": metadata.get("outputs", [])})
    if json:
        show.as_json(found)
        return
    show.table(
        ["model", "version", "state", "inputs", "outputs"],
        [
            [entry["name"], entry.get("version", ""), entry.get("state", ""), show.signature(entry["inputs"]), show.signature(entry["outputs"])]
            for entry in found
        ],
    )
