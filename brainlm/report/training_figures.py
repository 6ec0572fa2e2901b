"""Pictures of a training: functions from numbers to figures. No name of a recording is in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ..train.tracking.shown import Guesses, Trace
from .charts import runs_of
from .style import (
    AMBER,
    BLUE,
    GREEN,
    GREY,
    INK,
    MUTED,
    PURPLE,
    RC,
    RULE,
    SKY,
    VERMILION,
    light_grid,
)

Floats = NDArray[np.float64]

_DPI = 150
_DASHED = (0, (4, 3))
_DARKER = LinearSegmentedColormap.from_list("darker", ["#f2f2f2", "#000000"])
#: Groups are told apart by colour and by shape.
_COLORS = (BLUE, VERMILION, GREEN, AMBER, PURPLE, SKY, INK, GREY)
_SHAPES = ("o", "s", "^", "D", "v", "P", "X", "*")


@rc_context(RC)
def reconstruction(traces: Sequence[Trace], names: Sequence[str], title: str) -> Figure:
    """What was hidden of some parcels of a window, and what the model guessed; `names` of all."""
    figure = Figure(figsize=(8.4, 0.75 + 1.15 * len(traces)), layout="constrained", dpi=_DPI)
    panels = figure.subplots(len(traces), 1, sharex=True, squeeze=False)[:, 0]
    for axes, trace in zip(panels, traces, strict=True):
        hidden = ~np.isnan(trace.guessed)
        time = np.arange(len(hidden))
        for start, stop in runs_of(hidden):
            axes.axvspan(start - 0.5, stop - 0.5, color=RULE, alpha=0.6, lw=0)
        axes.plot(time, trace.true, color=INK, linewidth=1, label="true")
        # A run of one time point would be no line.
        for start, stop in runs_of(hidden):
            line = {"marker": ".", "markersize": 3} if stop - start == 1 else {}
            axes.plot(
                time[start:stop],
                trace.guessed[start:stop],
                color=VERMILION,
                linewidth=1.6,
                **line,
            )
        told = (
            f"{names[trace.parcel]}: R² {_number(_r2(trace.true[hidden], trace.guessed[hidden]))}"
        )
        axes.set_title(told, fontweight="normal", fontsize=8.5, pad=3)
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.margins(x=0)
    panels[0].plot([], [], color=VERMILION, linewidth=1.6, label="guessed where hidden (grey)")
    panels[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.1)
    panels[-1].set_xlabel("volume of the window")
    figure.supylabel("scaled signal", fontsize=9, color=INK)
    figure.suptitle(title, x=0.01, ha="left", fontsize=9.5, fontweight="bold")
    return figure


@rc_context(RC)
def scatter(found: Guesses, title: str) -> Figure:
    """Guessed against true values, as the number of entries in small squares."""
    figure, axes = _one(4.8, 4.3, f"{title}: R² {_number(found.r2)}")
    edges = found.edges
    axes.plot(edges[[0, -1]], edges[[0, -1]], color=VERMILION, linewidth=1, label="guessed = true")
    mesh = axes.pcolormesh(
        edges,
        edges,
        np.where(found.counts > 0, found.counts, np.nan).T,
        cmap=_DARKER,
        norm=LogNorm(1, max(2.0, float(found.counts.max()))),
        rasterized=True,
    )
    bar = figure.colorbar(mesh, ax=axes, shrink=0.85, label="entries (logarithmic)")
    bar.outline.set_visible(False)
    axes.legend(loc="upper left")
    axes.set(xlabel="true (scaled signal)", ylabel="guessed (scaled signal)", aspect="equal")
    return figure


@rc_context(RC)
def parcel_histogram(parcel_r2: Floats, title: str) -> Figure:
    """How R2 is spread over parcels."""
    figure, axes = _one(5.2, 3.1, title)
    known = parcel_r2[np.isfinite(parcel_r2)]
    # A parcel that is far off must not squeeze the others into one bar: it counts in the first.
    low, high = (float(end) for end in np.percentile(known, [1, 100]))
    edges = np.linspace(low, high if high > low else low + 0.1, min(30, len(known) // 3 + 6))
    axes.hist(np.maximum(known, low), bins=list(edges), color=BLUE, rwidth=0.9)
    quarter, middle, last = np.percentile(known, [25, 50, 75])
    axes.axvspan(quarter, last, color=RULE, alpha=0.6, lw=0, zorder=0)
    axes.axvline(middle, color=INK, linewidth=1, linestyle=_DASHED)
    below = int((known < low).sum())
    told = f"dashed: median {_number(middle)}; grey: middle half of the parcels"
    if below:
        told += f"; first bar: {below} lie below"
    axes.set(xlabel=f"R² of a parcel\n{told}", ylabel="parcels")
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    light_grid(axes)
    return figure


@rc_context(RC)
def labels(
    table: pd.DataFrame, label: str, kind: str, classes: Sequence[str], title: str
) -> Figure:
    """Predicted against true labels of the val recordings: true, guessed or guessed_0, ..."""
    figure, axes = _one(4.8, 4.2, title)
    true = table["true"].to_numpy(float)
    if kind == "classes":
        _confusion(axes, true.astype(int), table.filter(like="guessed_").to_numpy(float), classes)
        axes.set(xlabel=f"predicted {label}", ylabel=f"true {label}")
        return figure
    guessed = table["guessed"].to_numpy(float)
    dots: dict[str, Any] = {
        "linestyle": "none",
        "marker": "o",
        "color": BLUE,
        "alpha": 0.7 if len(true) < 500 else 0.3,
        "markersize": 5 if len(true) < 500 else 3,
        "markeredgewidth": 0,
        "rasterized": len(true) > 2000,
    }
    if kind == "binary":
        aside = ((np.arange(len(true)) * 0.618034) % 1 - 0.5) * 0.5  # even, not random
        axes.plot(true + aside, guessed, **dots)
        axes.axhline(0.5, color=GREY, linewidth=1, linestyle=_DASHED)
        counts = [int((true == value).sum()) for value in (0, 1)]
        axes.set_xticks([0, 1], [f"true 0\n(n = {counts[0]})", f"true 1\n(n = {counts[1]})"])
        axes.set(xlim=(-0.5, 1.5), ylim=(-0.03, 1.03), ylabel=f"predicted probability of {label}")
    else:
        both = np.concatenate([true, guessed])
        pad = 0.05 * float(np.ptp(both)) or 1.0
        ends = [float(both.min()) - pad, float(both.max()) + pad]
        axes.plot(ends, ends, color=GREY, linewidth=1)
        axes.plot(true, guessed, **dots)
        axes.set(xlabel=f"true {label}", ylabel=f"predicted {label}", aspect="equal")
        axes.set(xlim=ends, ylim=ends)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5))
    light_grid(axes)
    return figure


def _confusion(
    axes: Axes, true: NDArray[np.int64], guessed: Floats, classes: Sequence[str]
) -> None:
    """Recordings by true and most probable class; shaded by the share of the true class."""
    counts = np.zeros((guessed.shape[1],) * 2, int)
    np.add.at(counts, (true, guessed.argmax(axis=1)), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap=_DARKER, vmin=0, vmax=1.0)
    for row, column in np.ndindex(*counts.shape):
        color = "white" if share[row, column] > 0.5 else INK
        axes.text(
            column, row, str(counts[row, column]), ha="center", va="center", color=color, fontsize=9
        )
    names = list(classes) or [str(number) for number in range(len(counts))]
    axes.set_xticks(range(len(counts)), names, rotation=30 if len(names) > 4 else 0)
    axes.set_yticks(range(len(counts)), names)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)


@rc_context(RC)
def map_of_recordings(
    places: Floats,
    axes_names: tuple[str, str],
    colored_by: str | None,
    values: Sequence[Any],
    title: str,
) -> Figure:
    """Recordings by two numbers each, coloured by a group (text) or by a quantity."""
    figure, axes = _one(5.2, 4.2, title)
    size = 26 if len(places) < 150 else 14
    if colored_by is None:
        axes.scatter(places[:, 0], places[:, 1], s=size, color=BLUE, alpha=0.75, linewidths=0)
    elif all(isinstance(value, int | float) for value in values):
        found = axes.scatter(
            places[:, 0], places[:, 1], s=size, c=list(values), cmap="cividis", linewidths=0
        )
        bar = figure.colorbar(found, ax=axes, shrink=0.85, label=colored_by)
        bar.outline.set_visible(False)
    else:
        _groups(axes, places, [str(value) for value in values], size)
        axes.legend(
            title=colored_by, loc="upper left", bbox_to_anchor=(1, 1), handletextpad=0.2
        ).get_title().set_fontsize(8)
    axes.set(xlabel=axes_names[0], ylabel=axes_names[1])
    axes.tick_params(length=0, labelbottom=False, labelleft=False)
    return figure


def _groups(axes: Axes, places: Floats, groups: Sequence[str], size: float) -> None:
    """The largest groups have a colour and a shape each; the others are grey dots."""
    counts = pd.Series(groups).value_counts()
    names = sorted(counts.index, key=lambda name: (-counts[name], name))
    own, rest = (names, []) if len(names) <= len(_COLORS) else (names[:7], names[7:])
    styles = dict(zip(own, zip(_COLORS, _SHAPES, strict=True), strict=False))
    whose = np.array(groups)
    for name, (color, shape) in styles.items():
        chosen = places[whose == name]
        axes.scatter(
            chosen[:, 0],
            chosen[:, 1],
            s=size,
            color=color,
            marker=shape,
            alpha=0.8,
            linewidths=0,
            label=f"{name} (n = {len(chosen)})",
        )
    if rest:
        chosen = places[np.isin(whose, rest)]
        told = f"{len(rest)} others (n = {len(chosen)})"
        axes.scatter(chosen[:, 0], chosen[:, 1], s=size / 2, color=GREY, marker=".", label=told)


def _one(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained", dpi=_DPI)
    axes = figure.subplots()
    axes.set_title(title, loc="left")
    axes.title.set_color(INK)
    axes.tick_params(colors=MUTED)
    return figure, axes


def _r2(true: Floats, guessed: Floats) -> float:
    spread = float(((true - true.mean()) ** 2).sum())
    return 1 - float(((true - guessed) ** 2).sum()) / spread if spread > 0 else float("nan")


def _number(value: float) -> str:
    """Two digits, with a true minus sign; n/a where there is none."""
    return f"{value:.2f}".replace("-", "−") if np.isfinite(value) else "n/a"
