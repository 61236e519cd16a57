"""The command line: serve models, ask them, look into them."""

from __future__ import annotations

import json
import sys

import typer

from nnrp.errors import NnrpError

from .infer import infer
from .inspect import inspect
from .models import models
from .serve import serve
from .version import version

app = typer.Typer(
    name="nnrp",
    help="One interface over every neural-network runtime: serve a model, ask it, look into it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (serve, infer, models, inspect, version):
    app.command()(command)


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
