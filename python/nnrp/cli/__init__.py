"""The command line: serve models, ask them, look into them."""

from __future__ import annotations

import json
import sys

import click

from nnrp.errors import NnrpError

from .infer import infer
from .inspect import inspect
from .models import models
from .serve import serve
from .version import version


@click.group(name="nnrp", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def app() -> None:
    """One interface over every neural-network runtime: serve a model, ask it, look into it."""


for command in (serve, infer, models, inspect, version):
    app.add_command(command)


def main() -> None:
    """Run the command line; errors of the specification become one line, or one JSON object with ``--json``."""
    try:
        app()
    except NnrpError as error:
        if "--json" in sys.argv:
            print(json.dumps({"error": error.message, "code": error.code, "reason": error.reason, "details": error.details}), file=sys.stderr)
        else:
            print(f"nnrp: {error.message} ({error.code}, {error.reason})", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)
