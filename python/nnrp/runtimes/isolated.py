"""A process of its own for one model: ``python -m nnrp.runtimes.isolated``, which the engine of another process starts."""

from __future__ import annotations

import json
import os
import sys

from nnrp.engine import Engine


def main() -> None:
    """Host the model that the engine describes, until that engine is gone or wants no more."""
    plugins, *descriptors = sys.argv[1:]
    engine = Engine(plugins=json.loads(plugins))
    engine._host([int(descriptor) for descriptor in descriptors], engine._bring)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # Not through the interpreter's end, which would wait for runs that nobody can stop.
    os._exit(0)


if __name__ == "__main__":
    main()
