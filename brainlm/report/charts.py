"""The report's charts: plain functions from arrays to an SVG `data:` address."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from .metrics import Estimate, MetricTable, metric_name, smaller_is_better
from .style import AMBER, BLUE, GREY, INK, MUTED, RC, RULE, VERMILION, light_grid, to_svg_uri

_HALF, _WIDE = 5.2, 10.6  # widths of charts, inches at 72 units each


@rc_context(RC)
def histogram(
    values: NDArray[np.floating],
    included: NDArray[np.bool_],
    label: str,
    limit: float | None = None,
) -> str:
    """Recordings by one quantity; those left out of the cohort on top, in another colour."""
    figure, axes = _one_axes(_HALF, 2.3)
    low, high = float(values.min()), float(values.max())
    if limit is not None:
        low, high = min(low, limit), max(high, limit)
    pad = 0.04 * (high - low) or max(abs(high) * 0.05, 0.05)
    edges = np.linspace(low - pad, high + pad, int(np.clip(len(values), 12, 36)) + 1)
    counts = [np.histogram(values[chosen], edges)[0] for chosen in (included, ~included)]
    middle, width = (edges[:-1] + edges[1:]) / 2, 0.9 * np.diff(edges)
    axes.bar(middle, counts[0], width, color=BLUE, label="in the cohort")
    if counts[1].any():
        axes.bar(middle, counts[1], width, counts[0], color=AMBER, label="left out")
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=2,
            borderaxespad=0.1,
            handlelength=1,
            handleheight=1,
        )
    if limit is not None:
        axes.axvline(limit, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        label = f"{label}; dashed: limit {limit:g}"
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set(xlabel=label, ylabel="recordings")
    light_grid(axes)
    return to_svg_uri(figure)


@rc_context(RC)
def parcel_histogram(values: NDArray[np.floating], label: str) -> str:
    """Parcels by one quantity, with the median marked."""
    figure, axes = _one_axes(_HALF, 2.3)
    axes.hist(values, bins=30, color=BLUE, rwidth=0.9)
    middle = float(np.median(values))
    axes.axvline(middle, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set(xlabel=f"{label}; dashed: median {middle:.2f}", ylabel="parcels")
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    light_grid(axes)
    return to_svg_uri(figure)


def dots(table: MetricTable) -> str:
    """`dots_figure` as an address."""
    return to_svg_uri(dots_figure(table))


@rc_context(RC)
def dots_figure(table: MetricTable) -> Figure:
    """Dot and whisker of every method, one panel for each metric, sharing the names."""
    count = len(table.methods)
    figure = Figure(figsize=(_WIDE, 0.95 + 0.32 * count), layout="constrained")
    figure.get_layout_engine().set(wspace=0.05)  # type: ignore[union-attr, call-arg]
    panels = figure.subplots(1, len(table.metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, table.metrics, strict=True):
        estimates = [method.estimates[metric] for method in table.methods]
        low, high = _reach(estimates, floor=-0.5 if metric == "r2" else None)
        if low < 0 < high:
            axes.axvline(0, color=GREY, linewidth=0.8)
        for place, (method, estimate) in enumerate(zip(table.methods, estimates, strict=True)):
            _draw_dot(axes, estimate, place, BLUE if method.is_model else MUTED, low)
        axes.set(xlim=(low, high), ylim=(count - 0.4, -0.6))
        better = "smaller is better" if smaller_is_better(metric) else "larger is better"
        axes.set_xlabel(f"{metric_name(metric)}  ({better})")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        light_grid(axes, "x")
    panels[0].set_yticks(range(count), [method.name for method in table.methods])
    panels[0].tick_params(axis="y", labelsize=9, labelcolor=INK)
    return figure


def _draw_dot(axes: Axes, estimate: Estimate, place: int, color: str, low: float) -> None:
    if estimate.value is None:
        axes.text(low, place, " n/a", color=MUTED, va="center", fontsize=8)
        return
    if estimate.value < low:
        style: dict[str, Any] = {"textcoords": "offset points", "color": color, "va": "center"}
        axes.annotate("◂", (low, place), xytext=(3, 0), fontsize=11, **style)
        axes.annotate(estimate.text, (low, place), xytext=(12, 0), fontsize=8, **style)
        return
    if estimate.low is not None and estimate.high is not None:
        axes.plot([estimate.low, estimate.high], [place, place], color=color, linewidth=1.6)
    axes.plot(estimate.value, place, marker="o", color=color, markersize=6.5)


def _reach(estimates: Sequence[Estimate], floor: float | None) -> tuple[float, float]:
    """Axis limits around all intervals, cut at `floor` where a hopeless method would squeeze."""
    ends = [
        end
        for estimate in estimates
        for end in (estimate.value, estimate.low, estimate.high)
        if end is not None
    ] or [0.0, 1.0]
    low, high = min(ends), max(ends)
    if floor is not None:
        low, high = max(low, floor), max(high, 0.0)
    pad = 0.06 * (high - low) or 0.1 * abs(high) or 0.1
    return low - pad, high + pad


@rc_context(RC)
def reconstruction_traces(traces: pd.DataFrame, most: int = 3) -> str:
    """True and predicted parcel series; the spans hidden from the model are shaded."""
    series = list(traces.groupby(["recording_id", "parcel"], sort=False))[:most]
    figure = Figure(figsize=(_WIDE, 0.5 + 1.45 * len(series)), layout="constrained")
    panels = figure.subplots(len(series), 1, sharex=True, squeeze=False)[:, 0]
    for axes, ((recording, parcel), part) in zip(panels, series, strict=True):
        part = part.sort_values("t")
        time, masked = part["t"].to_numpy(), part["masked"].to_numpy(bool)
        for start, stop in runs_of(masked):
            axes.axvspan(time[start] - 0.5, time[stop - 1] + 0.5, color=RULE, alpha=0.6, lw=0)
        predicted = part["predicted"].to_numpy(float)
        axes.plot(time, part["true"], color=INK, linewidth=1, label="true")
        axes.plot(
            time,
            np.where(masked, predicted, np.nan),
            color=VERMILION,
            linewidth=1.7,
            label="predicted where masked",
        )
        axes.set_title(f"{recording}, parcel {parcel}", fontweight="normal", fontsize=8.5)
        axes.set_ylabel("z")
        axes.margins(x=0)
    panels[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.1)
    panels[-1].set_xlabel("volume of the window")
    return to_svg_uri(figure)


def prediction_scatter(
    true: NDArray[np.floating], predicted: NDArray[np.floating], target: str, binary: bool
) -> str:
    """`scatter_figure` as an address."""
    return to_svg_uri(scatter_figure(true, predicted, target, binary))


@rc_context(RC)
def scatter_figure(
    true: NDArray[np.floating], predicted: NDArray[np.floating], target: str, binary: bool
) -> Figure:
    """Predicted against true values of the test subjects."""
    figure, axes = _one_axes(_HALF, 3.0)
    style: dict[str, Any] = {
        "linestyle": "none",
        "marker": "o",
        "color": BLUE,
        "alpha": 0.75,
        "markersize": 5.5,
    }
    many = len(true) > 2000
    if binary:
        spread = ((np.arange(len(true)) * 0.618034) % 1 - 0.5) * 0.3  # even, not random
        axes.plot(true + spread, predicted, rasterized=many, **style)
        axes.axhline(0.5, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        axes.set(xlim=(-0.5, 1.5), ylim=(-0.03, 1.03), ylabel=f"predicted probability of {target}")
        axes.set_xticks([0, 1], ["true 0", "true 1"])
    else:
        both = np.concatenate([true, predicted])
        low, high = float(both.min()), float(both.max())
        pad = 0.06 * (high - low) or 1.0
        axes.plot([low - pad, high + pad], [low - pad, high + pad], color=GREY, linewidth=1)
        axes.plot(true, predicted, rasterized=many, **style)
        axes.set(xlabel=f"true {target}", ylabel=f"predicted {target}")
    light_grid(axes)
    return figure


@rc_context(RC)
def scaler_plot(median: NDArray[np.floating], iqr: NDArray[np.floating]) -> str:
    """Median and interquartile range of every parcel over the train split."""
    figure = Figure(figsize=(_WIDE, 2.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, values, name in ((left, median, "median"), (right, iqr, "interquartile range")):
        axes.plot(np.arange(1, len(values) + 1), values, ".", color=BLUE, markersize=3)
        axes.set(xlabel="parcel", ylabel=name)
        axes.margins(x=0.01)
        light_grid(axes)
    right.set_ylim(bottom=0)
    return to_svg_uri(figure)


def runs_of(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Half-open ranges of consecutive True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def thin(values: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """Means of consecutive values, so that at most `most` remain."""
    if len(values) <= most:
        return values
    return np.array([part.mean() for part in np.array_split(values, most)])


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centred moving mean over a twentieth of the curve; it narrows towards both ends."""
    reach = len(values) // 40
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    half = np.minimum(reach, np.minimum(index, len(values) - 1 - index))
    return np.asarray((sums[index + half + 1] - sums[index - half]) / (2 * half + 1))


def _one_axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()
