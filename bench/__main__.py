"""Measure us beside our peers and beside bare floors, in one run.

    python -m bench                                  everything, some ten minutes
    python -m bench --quick                          everything once, briefly: it works, but it is no result
    python -m bench --only inproc,wire               some parts
    python -m bench --write-results                  a whole run that also becomes bench/RESULTS.md

Prints tables; writes every round's figures to bench/results.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable

from . import client, growth, inproc, isolation, wire
from .machine import describe
from .setting import BENCH, OURS, BenchFailure, Options, progress
from .table import Table

# In process first: before anything has started a thread here.
PARTS: dict[str, Callable[[Options], list[Table]]] = {
    "inproc": inproc.measure,
    "isolation": isolation.measure,
    "wire": wire.measure,
    "client": client.measure,
    "growth": growth.measure,
}


def main() -> int:
    """Run the parts asked for."""
    asked = _arguments()
    options = Options(triton=not asked.without_triton, ours=asked.ours)
    if asked.quick:
        options = options.quick()
    machine = describe()
    try:
        _set_up(options)
        tables = [table for part in asked.only for table in PARTS[part](options)]
    except (BenchFailure, subprocess.SubprocessError) as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    print("\n\n".join(table.to_text() for table in tables))
    report = {"machine": machine, "quick": asked.quick, "tables": [table.to_json() for table in tables]}
    (BENCH / "results.json").write_text(json.dumps(report, indent=1) + "\n")
    if asked.write_results:
        return _write_results(machine, options, tables)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=_parts, default=list(PARTS), help=f"parts, of {','.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="one short round of everything")
    parser.add_argument("--without-triton", action="store_true", help="leave Triton out")
    parser.add_argument("--ours", default=OURS, help="command of our server; {repository}, {http}, {grpc} are filled in")
    parser.add_argument("--write-results", action="store_true", help="write bench/RESULTS.md; only a whole run may")
    asked = parser.parse_args()
    whole = asked.only == list(PARTS) and not asked.quick and not asked.without_triton and asked.ours == OURS
    if asked.write_results and not whole:
        parser.error("--write-results needs a whole run: without --only, --quick, --without-triton and --ours")
    return asked


def _parts(text: str) -> list[str]:
    asked = text.split(",")
    unknown = sorted(set(asked) - set(PARTS))
    if unknown:
        raise argparse.ArgumentTypeError(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return [part for part in PARTS if part in asked]


def _set_up(options: Options) -> None:
    words = [str(BENCH / "peers" / "setup.sh"), *([] if options.triton else ["--without-triton"])]
    progress("setting up the peers and the load generators")
    subprocess.run(words, check=True, timeout=900)
    # Idle connections need a descriptor each, here and in the servers, which inherit the limit.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _write_results(machine: dict[str, str], options: Options, tables: list[Table]) -> int:
    if any(row.ours is None for table in tables for row in table.rows):
        print("bench: RESULTS.md is not written, because something of ours is not built", file=sys.stderr)
        return 1
    facts = "\n".join(f"| {name} | {value} |" for name, value in machine.items())
    text = [
        "# Results\n",
        "Written by `python -m bench --write-results`; [README.md](README.md) says what is measured and how.\n"
        f"Each load took {options.seconds} s, in {options.rounds} rounds in turn; "
        "figures are medians, ratios the medians of the rounds' own ratios.\n",
        *(table.to_markdown() for table in tables),
        (BENCH / "bounds.md").read_text(),
        f"## Machine\n\n| | |\n| --- | --- |\n{facts}",
    ]
    (BENCH / "RESULTS.md").write_text("\n".join(text) + "\n")
    progress("wrote bench/RESULTS.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
