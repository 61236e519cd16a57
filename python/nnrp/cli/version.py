"""``nnrp version``."""

from __future__ import annotations

import platform

import click

from . import show


@click.command()
@show.json_option
def version(as_json: bool) -> None:
    """Say which version this is, and which runtimes it finds."""
    import nnrp

    about = {
        "nnrp": nnrp.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system().lower()}-{platform.machine()}",
    }
    runtimes = nnrp.runtimes.installed()
    if as_json:
        show.document({**about, "runtimes": runtimes})
        return
    found = ", ".join(f"{name} {number or 'not installed'}" for name, number in runtimes.items())
    print(f"nnrp {about['nnrp']} (Python {about['python']}, {about['platform']}; runtimes: {found})")
