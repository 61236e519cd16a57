"""``nnrp version``."""

from __future__ import annotations

import platform

from . import show


def version(json: show.Json = False) -> None:
    """Say which version this is, and which runtimes it finds."""
    import nnrp

    about = {
        "nnrp": nnrp.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system().lower()}-{platform.machine()}",
        "runtimes": nnrp.runtimes.installed(),
    }
    if json:
        show.as_json(about)
        return
    runtimes = ", ".join(f"{name} {number or 'not installed'}" for name, number in about["runtimes"].items())
    print(f"nnrp {about['nnrp']} (Python {about['python']}, {about['platform']}; runtimes: {runtimes})")
