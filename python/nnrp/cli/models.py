"""``nnrp models``."""

from __future__ import annotations

import click

from . import show


@click.command()
@click.argument("url")
@show.json_option
def models(url: str, as_json: bool) -> None:
    """List the models that a server serves.

    URL is http://HOST:PORT or grpc://HOST:PORT. Any server of the Open Inference Protocol with Triton's repository extension will do.
    """
    import nnrp

    client = nnrp.Client(url)
    found = []
    for entry in client.models():
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
