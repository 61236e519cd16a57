"""A comparison as one HTML document that loads nothing: its styles and its charts are within."""

from __future__ import annotations

from html import escape
from string import Template

from . import svg
from .report import VERDICTS, Report, Result
from .table import explained, number

# The policy forbids the page to load anything, whatever names and texts it shows.
_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: light-dark(#222, #ddd); --faint: light-dark(#ccc, #555);
        --good: light-dark(#17803d, #5fd08a); --bad: light-dark(#c22, #ff8080); }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--faint); vertical-align: top; }
th.n, td.n { text-align: right; } .same, .within { color: var(--good); } .differs, .failed { color: var(--bad); font-weight: 600; } .best { font-weight: 700; }
dt { font-weight: 600; margin-top: .6rem; } dd { margin-left: 1.2rem; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; fill: var(--ink); }
svg .axis, svg .grid { stroke: var(--faint); } svg .mark { stroke: none; } svg .limit { stroke: var(--ink); stroke-dasharray: 3 3; }
</style>
</head>
<body>
<h1>$title</h1>
<p>$about</p>
<table>
<thead><tr>$head</tr></thead>
<tbody>
$rows
</tbody>
</table>
$charts
<h2>In words</h2>
<dl>$words</dl>
</body>
</html>
""")
_COLUMNS = ("Candidate", "Verdict", "Largest error", "Relative", "Mean", "p50 ms", "p99 ms", "Load s", "Memory MB")


def write(report: Report) -> str:
    """Write the document."""
    models = sorted({result.candidate.path.name for result in report.results})
    head = "".join(f'<th{" class=n" if index > 1 else ""} scope="col">{column}</th>' for index, column in enumerate(_COLUMNS))
    words = [(result.name, explained(result)) for result in report.results] + [("Inputs", list(report.about))]
    words += [("Not as it was pinned", list(report.stale))] * bool(report.stale) + [("Notes", list(report.notes))] * bool(report.notes)
    return _PAGE.substitute(
        title=escape(f"{', '.join(models)}: {len(report.results)} candidates"),
        about=f"Measured against <b>{escape(report.reference)}</b>. Relative errors are shares of the largest element of the reference's output.",
        head=head,
        rows="\n".join(_row(result, result is report.fastest) for result in report.results),
        charts="\n".join(f"<h2>{title}</h2>\n{chart}" for title, chart in _charts(report) if chart),
        words="".join(f"<dt>{escape(name)}</dt>" + "".join(f"<dd>{escape(line)}</dd>" for line in lines) for name, lines in words),
    )


def _row(result: Result, fastest: bool) -> str:
    errors = [number(result.largest(field)) if result.differences else "" for field in ("max_abs", "max_rel", "mean_abs")]
    times = ["", ""] if result.latency is None else [f"{result.latency.at(50):.3f}", f"{result.latency.at(99):.3f}"]
    taken = ["" if result.load_s is None else f"{result.load_s:.2f}", "" if result.memory_bytes is None else f"{result.memory_bytes / 1e6:.1f}"]
    cells = "".join(f'<td class="n{" best" if fastest and index == len(errors) else ""}">{cell}</td>' for index, cell in enumerate([*errors, *times, *taken]))
    return f'<tr><th scope="row">{escape(result.name)}</th><td class="{result.verdict}">{VERDICTS[result.verdict]}</td>{cells}</tr>'


def _charts(report: Report) -> list[tuple[str, str]]:
    timed = [(index, result) for index, result in enumerate(report.results) if result.latency is not None]
    points = [
        svg.Point(result.name, index, result.latency.at(50), 0.0 if result.is_reference else result.largest("max_rel"))
        for index, result in timed
        if result.latency and (result.is_reference or result.largest("max_rel") is not None)
    ]
    bars = [
        svg.Bar(one.output, result.name, index, one.max_rel, one.tolerance)
        for index, result in enumerate(report.results)
        for one in result.differences
        if one.max_rel is not None
    ]
    strips = [svg.Strip(result.name, index, result.latency.samples_ms) for index, result in timed if result.latency]
    return [
        ("Error beside latency: left is faster, lower is closer", svg.scatter(points)),
        ("Largest relative error of each output, and its tolerance", svg.bars(bars)),
        ("Latency: half of the answers lie in the box, the line is the median, the whiskers are p1 and p99", svg.strips(strips)),
    ]
