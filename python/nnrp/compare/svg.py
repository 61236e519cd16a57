"""Three small charts as SVG, with logarithmic axes: errors and latencies of runtimes lie orders of magnitude apart.

Written here because each is some twenty lines, while the chart libraries for Python bring megabytes of script, or pages that load it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

_WIDTH, _LEFT, _RIGHT, _ROW, _AXIS = 900, 200, 40, 26, 30
_PLOT_HEIGHT, _LINE, _TOP = 340, 14, 40
#: The palette of Okabe and Ito, which people with any color vision tell apart.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#b5a900")
#: Errors of 0 are drawn here, at the axis.
_LEAST = 1e-12
_MOST_BARS = 200


@dataclass(frozen=True)
class Point:
    """One candidate: its median latency and its largest relative error."""

    name: str
    color: int
    ms: float
    error: float | None


@dataclass(frozen=True)
class Bar:
    """One output of one candidate."""

    output: str
    name: str
    color: int
    error: float
    tolerance: float


@dataclass(frozen=True)
class Strip:
    """One candidate's latencies."""

    name: str
    color: int
    samples_ms: Sequence[float]


Scale = Callable[[float], float]


def scatter(points: Sequence[Point]) -> str:
    """Draw error over latency."""
    if not points:
        return ""
    x, marks = _scale([point.ms for point in points], _LEFT, _WIDTH - _RIGHT)
    y, heights = _scale([_shown(point.error) for point in points], _PLOT_HEIGHT - _AXIS, _TOP)
    parts = [_vertical(x(value), _TOP, _PLOT_HEIGHT - _AXIS, f"{value:g} ms") for value in marks]
    for value in heights:
        line = f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        parts.append(line + _text(_LEFT - 8, y(value) + 4, _power(value), "end"))
    taken: list[tuple[float, float, float]] = []
    for point in points:
        at, height = x(point.ms), y(_shown(point.error))
        told = f"{point.name}: {point.ms:.3f} ms, {_error(point.error)}"
        parts.append(f'<circle class="mark" cx="{at:.1f}" cy="{height:.1f}" r="6" fill="{_color(point.color)}"><title>{escape(told)}</title></circle>')
        right = at > (_LEFT + _WIDTH) / 2
        parts.append(_text(at + (-10 if right else 10), _free(taken, at, height - 8, point.name, right), point.name, "end" if right else "start"))
    return _svg(_PLOT_HEIGHT, "Largest relative error over median latency", parts)


def _free(taken: list[tuple[float, float, float]], x: float, y: float, text: str, leftward: bool) -> float:
    """Find a height for a label where no other one lies, upwards of y."""
    long = 8.0 * len(text) + 10
    begin, end = (x - long, x) if leftward else (x, x + long)
    while y > _LINE and any(abs(y - height) < _LINE and begin < other_end and other_begin < end for other_begin, other_end, height in taken):
        y -= _LINE
    taken.append((begin, end, y))
    return y


def bars(given: Sequence[Bar]) -> str:
    """Draw each output's errors, one bar a candidate, with a tick at the tolerance."""
    shown = sorted(given[:_MOST_BARS], key=lambda bar: bar.output)
    if not shown:
        return ""
    height = _ROW * (len(shown) + len({bar.output for bar in shown})) + _AXIS
    x, marks = _scale([_shown(value) for bar in shown for value in (bar.error, bar.tolerance)], _LEFT, _WIDTH - _RIGHT)
    parts, top, output = [_vertical(x(value), 0, height - _AXIS, _power(value)) for value in marks], 0, ""
    for bar in shown:
        if bar.output != output:
            output = bar.output
            parts.append(f'<g font-weight="600">{_text(4, top + 17, output, "start")}</g>')
            top += _ROW
        told = f"{bar.output}, {bar.name}: {_error(bar.error)}, tolerance {bar.tolerance:.1e}"
        wide = max(2.0, x(_shown(bar.error)) - _LEFT)
        drawn = f'<rect class="mark" x="{_LEFT}" y="{top + 5}" width="{wide:.1f}" height="{_ROW - 10}" fill="{_color(bar.color)}">'
        parts.append(f"{drawn}<title>{escape(told)}</title></rect>" + _text(_LEFT - 8, top + 17, bar.name, "end"))
        if bar.tolerance > 0:
            at = x(bar.tolerance)
            parts.append(f'<line class="limit" x1="{at:.1f}" x2="{at:.1f}" y1="{top + 1}" y2="{top + _ROW - 1}"/>')
        top += _ROW
    return _svg(height, "Largest relative error of each output", parts)


def strips(given: Sequence[Strip]) -> str:
    """Draw the distribution of latencies, one row a candidate."""
    if not given:
        return ""
    height = _ROW * len(given) + _AXIS
    quantiles = [np.percentile(strip.samples_ms, (1, 25, 50, 75, 99)) for strip in given]
    x, marks = _scale([float(value) for row in quantiles for value in row], _LEFT, _WIDTH - _RIGHT)
    parts = [_vertical(x(value), 0, height - _AXIS, f"{value:g} ms") for value in marks]
    for index, (strip, row) in enumerate(zip(given, quantiles, strict=True)):
        p1, p25, p50, p75, p99 = (x(float(value)) for value in row)
        middle, color = index * _ROW + _ROW / 2, _color(strip.color)
        told = f"{strip.name}: p1 {row[0]:.3f}, p25 {row[1]:.3f}, p50 {row[2]:.3f}, p75 {row[3]:.3f}, p99 {row[4]:.3f} ms of {len(strip.samples_ms)} runs"
        parts.append(f"<g><title>{escape(told)}</title>")
        parts.append(f'<line x1="{p1:.1f}" x2="{p99:.1f}" y1="{middle}" y2="{middle}" stroke="{color}" stroke-width="2"/>')
        parts.append(f'<rect x="{p25:.1f}" y="{middle - 7}" width="{max(1.0, p75 - p25):.1f}" height="14" fill="{color}" fill-opacity=".5"/>')
        parts.append(f'<line x1="{p50:.1f}" x2="{p50:.1f}" y1="{middle - 9}" y2="{middle + 9}" stroke="{color}" stroke-width="3"/></g>')
        parts.append(_text(_LEFT - 8, middle + 4, strip.name, "end"))
    return _svg(height, "Distribution of latencies", parts)


def _scale(values: Sequence[float], low: float, high: float) -> tuple[Scale, list[float]]:
    """A logarithmic scale over whole powers of ten, or finer steps where all lie close, and its marks."""
    bottom, top = min(values), max(values)
    marks = [digit * 10.0**power for power in range(math.floor(math.log10(bottom)) - 1, math.ceil(math.log10(top)) + 2) for digit in (1, 2, 3, 5, 7)]
    if top / bottom > 50:
        marks = [mark for mark in marks if f"{mark:e}".startswith("1.0")]
    first = max((mark for mark in marks if mark <= bottom * (1 + 1e-9)), default=marks[0])
    last = min((mark for mark in marks if mark >= top and mark > first), default=marks[-1])
    a, b = math.log10(first), math.log10(last)
    inside = [mark for mark in marks if first <= mark <= last]
    return lambda value: low + (math.log10(max(value, first)) - a) / (b - a) * (high - low), inside[:: max(1, len(inside) // 8)]


def _shown(error: float | None) -> float:
    return min(max(error or 0.0, _LEAST), 1e6)


def _error(error: float | None) -> str:
    return "error 0" if not error else f"error {error:.1e}"


def _power(value: float) -> str:
    return "0" if value <= _LEAST else f"{value:.0e}"


def _color(index: int) -> str:
    return _COLORS[index % len(_COLORS)]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _vertical(x: float, top: float, bottom: float, text: str) -> str:
    return f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>' + _text(x, bottom + 18, text, "middle")


def _svg(height: float, label: str, parts: Iterable[str]) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(label)}">' + "\n".join(parts) + "</svg>"
