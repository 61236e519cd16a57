"""``nnrp models``."""

from __future__ import annotations

from typing import Any

import click

from nnrp.errors import RuntimeFailure

from . import show


@click.command()
@click.argument("url")
@show.json_option
def models(url: str, as_json: bool) -> None:
    """List the models that a server serves.

    URL is http://HOST:PORT or grpc://HOST:PORT. Any server of the Open Inference Protocol with Triton's repository extension will do.
    """
    import nnrp

    show.stop_at_once()
    client = nnrp.Client(url)
    found = []
    for entry in _entries(client.models()):
        metadata = client.metadata(entry["name"], entry.get("version") or None) if entry.get("state", "READY") == "READY" else {}
        found.append({**entry, "inputs": metadata.get("inputs", []), "outputs": metadata.get("outputs", [])})
    if as_json:
        show.document(found)
        return
    show.table(
        ["model", "version", "state", "inputs", "outputs"],
        [
            [entry["name"], entry.get("version", ""), entry.get("state", ""), show.signature(entry["inputs"]), show.signature(entry["outputs"])]
            for entry in found
        ],
    )


def _entries(told: Any) -> list[dict[str, Any]]:
    """The index, if it is one: another server may answer anything."""
    if not isinstance(told, list) or not all(isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in told):
        raise RuntimeFailure(f"the server's index: expected a list of objects with a name, got {told!r:.96}", reason="UNSPECIFIED")
    return told
