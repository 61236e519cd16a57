"""The command line: serve models, ask them, look into them."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from nnrp.errors import NnrpError
from nnrp.runtimes.package import plain

from . import show

COMMANDS = ("serve", "infer", "models", "runtimes", "inspect", "compare", "convert", "conform", "version")


class Commands(click.Group):
    """The commands, each imported when it is asked for: a server keeps none of the others in memory."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List them in the order in which one needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Give one by its name."""
        if cmd_name not in COMMANDS:
            # What was meant is looked for among these.
            self.commands = {name: _command(name) for name in COMMANDS}
            return None
        return _command(cmd_name)


def _command(name: str) -> click.Command:
    command: click.Command = getattr(import_module(f"{__name__}.{name}"), name)
    return command


@click.group(name="nnrp", cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def app() -> None:
    """One interface over every neural-network runtime: serve a model, ask it, look into it."""


def main() -> None:
    """Run the command line; errors of the specification become one line, or one JSON object with ``--json``."""
    try:
        app()
    except NnrpError as error:
        show.failure(error)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        # A full disk behind standard output, for one; what commands write elsewhere they tell of themselves.
        print(plain(f"nnrp: {error.strerror or type(error).__name__}"), file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
