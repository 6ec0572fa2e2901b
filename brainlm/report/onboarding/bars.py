"""Histograms as small inline SVG: text that prints, a few hundred bytes for any number of runs."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

_WIDTH, _HEIGHT = 420, 150
_LEFT, _BOTTOM, _TOP = 40, 26, 12
_BINS, _DISTINCT = 24, 12


def histogram(
    values: NDArray[np.float64], included: NDArray[np.bool_], unit: str, limits: Sequence[float]
) -> Markup:
    """Runs by a quantity: those that are eligible, and on top of them those that are not.

    A few different values get a bar each, with its name; many are counted in bins. `limits` are
    drawn as dashed lines.
    """
    known = np.isfinite(values)
    values, included = values[known], included[known]
    if not len(values):
        return Markup('<p class="pending">Known of no recording</p>')
    different = np.unique(values)
    if len(different) <= _DISTINCT:
        names = [f"{value:.4g}" for value in different]
        counts = [
            [int(np.sum(values[which] == v)) for v in different] for which in (included, ~included)
        ]
        return _draw(names, counts, unit, [])
    edges = np.linspace(values.min(), values.max(), _BINS + 1)
    counts = [np.histogram(values[which], edges)[0].tolist() for which in (included, ~included)]
    span = edges[-1] - edges[0]
    marks = [(limit - edges[0]) / span for limit in limits if edges[0] < limit < edges[-1]]
    return _draw_binned(edges, counts, unit, marks)


def small_histogram(edges: Sequence[float], counts: Sequence[float]) -> Markup:
    """A label's histogram, for a row of a table."""
    if not counts:
        return Markup("")
    width, height, top = 132, 30, max(*counts, 1)
    step = width / len(counts)
    bars = "".join(
        f'<rect x="{step * at:.1f}" y="{height - height * count / top:.1f}" '
        f'width="{max(step - 1, 0.6):.1f}" height="{height * count / top:.1f}"/>'
        for at, count in enumerate(counts)
        if count
    )
    told = f"{edges[0]:.4g} to {edges[-1]:.4g}"
    return Markup(
        f'<svg class="spark" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="histogram from {told}"><title>{told}</title>{bars}</svg>'
    )


def _draw(
    names: Sequence[str], counts: Sequence[Sequence[int]], unit: str, marks: Sequence[float]
) -> Markup:
    """Bars with a name each."""
    step = (_WIDTH - _LEFT) / len(names)
    every = max(1, round(46 / step))
    ticks = [(_LEFT + step * (at + 0.5), name) for at, name in enumerate(names) if at % every == 0]
    return _svg(counts, min(step - 4, 46), step, ticks, unit, marks)


def _draw_binned(
    edges: NDArray[np.float64], counts: Sequence[Sequence[int]], unit: str, marks: Sequence[float]
) -> Markup:
    span = _WIDTH - _LEFT - 14
    ticks = [
        (_LEFT + span * share, f"{edges[0] + share * (edges[-1] - edges[0]):.3g}")
        for share in (0, 0.25, 0.5, 0.75, 1)
    ]
    step = span / len(counts[0])
    return _svg(counts, step - 1.5, step, ticks, unit, marks)


def _svg(
    counts: Sequence[Sequence[int]],
    width: float,
    step: float,
    ticks: Sequence[tuple[float, str]],
    unit: str,
    marks: Sequence[float],
) -> Markup:
    floor = _HEIGHT - _BOTTOM
    top = max(1, *(a + b for a, b in zip(*counts, strict=True)))
    scale = (floor - _TOP) / top
    parts = [
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH}" y1="{floor}" y2="{floor}"/>',
        f'<text class="tick end" x="{_LEFT - 6}" y="{_TOP + 4}">{top:,}</text>',
        f'<text class="tick end" x="{_LEFT - 6}" y="{floor}">0</text>',
    ]
    for at, (inside, outside) in enumerate(zip(*counts, strict=True)):
        x = _LEFT + step * at + (step - width) / 2
        for kind, low, count in (("in", 0, inside), ("out", inside, outside)):
            if count:
                y = floor - scale * (low + count)
                parts.append(
                    f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
                    f'height="{max(scale * count, 0.8):.1f}"><title>{count:,}</title></rect>'
                )
    parts += [
        f'<text class="tick" x="{x:.1f}" y="{floor + 14}">{escape(name)}</text>'
        for x, name in ticks
    ]
    span = step * len(counts[0])
    parts += [
        f'<line class="limit" x1="{_LEFT + span * share:.1f}" x2="{_LEFT + span * share:.1f}" '
        f'y1="{_TOP - 8}" y2="{floor}"/>'
        for share in marks
    ]
    label = f"recordings by {unit}"
    return Markup(
        f'<svg class="bars" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
