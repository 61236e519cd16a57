"""A function that says that it has begun, and never ends."""

import threading
from pathlib import Path
from typing import Any


def wait(x: Any) -> Any:
    """Make the file that is named, and wait."""
    Path(x[0].decode() if isinstance(x[0], bytes) else x[0]).touch()
    threading.Event().wait()
