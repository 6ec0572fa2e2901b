"""How a training went: its loss, and R2 on the validation split."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .charts import smooth, thin
from .style import BLUE, GREEN, INK, MUTED, RC, VERMILION, light_grid, to_svg_uri

_POINTS = 800  # most points of a drawn curve
_DASHED = (0, (4, 3))
#: Quantiles over parcels as the log calls them.
_BAND = ("val_r2_parcel_q05", "val_r2_parcel_q95")
_MEDIAN = "val_r2_parcel_median"


@rc_context(RC)
def learning_curve(
    steps: pd.DataFrame,
    validations: pd.DataFrame,
    levels: Sequence[tuple[str, float]] = (),
    loss: str = "mse",
) -> str:
    """Loss by step (light: each; dark: smoothed) and in validation; below it R2, if it is known.

    `loss` is what the steps lowered (`pretrain.loss`); validation is always by squared errors.
    """
    scores = "val_r2" in validations and validations["val_r2"].notna().any()
    figure = Figure(figsize=(10.6, 5.2 if scores else 3.1), layout="constrained")
    panels = figure.subplots(2 if scores else 1, 1, sharex=True, squeeze=False)[:, 0]
    _losses(panels[0], steps, validations, levels)
    squared = "loss (MSE of masked tokens)"
    panels[0].set_ylabel(squared if loss == "mse" else "masked tokens: MAE (train), MSE")
    if scores:
        _r2(panels[1], validations)
    if len(validations):
        best = validations["step"].iloc[int(validations["val_loss"].to_numpy(float).argmin())]
        dotted = (0, (1, 2))
        for axes in panels:
            axes.axvline(best, color=INK, linewidth=0.9, linestyle=dotted)
        panels[0].plot(
            [],
            [],
            color=INK,
            linewidth=0.9,
            linestyle=dotted,
            label=f"lowest validation loss (step {best:,})",
        )
    for axes in panels:
        axes.margins(x=0.01)
        light_grid(axes)
    panels[0].legend(loc="lower left", ncols=4)
    if scores:
        panels[1].legend(loc="upper left", ncols=3)
    panels[-1].set_xlabel("step")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return to_svg_uri(figure)


def _losses(
    axes: Axes,
    steps: pd.DataFrame,
    validations: pd.DataFrame,
    levels: Sequence[tuple[str, float]],
) -> None:
    if len(steps):
        every = thin(steps["step"].to_numpy(float), _POINTS)
        loss = thin(steps["loss"].to_numpy(float), _POINTS)
        axes.plot(every, loss, color=BLUE, alpha=0.28, linewidth=0.9)
        axes.plot(every, smooth(loss), color=BLUE, linewidth=1.8, label="train")
    if len(validations):
        marker = "o" if len(validations) <= 40 else None
        line = {"linewidth": 1.6, "markersize": 4}
        axes.plot(
            validations["step"],
            validations["val_loss"],
            color=VERMILION,
            marker=marker,
            label="validation",
            **line,  # type: ignore[arg-type]
        )
    for name, level in levels:
        axes.axhline(level, color=MUTED, linewidth=1, linestyle=_DASHED, label=name)
    axes.set_ylim(bottom=0)


def _r2(axes: Axes, validations: pd.DataFrame) -> None:
    """Of all entries, and of parcels where the log says it: a single bad one may be far below."""
    if {*_BAND, _MEDIAN} <= set(validations):
        low, high = (validations[name].astype(float) for name in _BAND)
        axes.fill_between(
            validations["step"], low, high, color=GREEN, alpha=0.2, lw=0, label="90% of parcels"
        )
        axes.plot(
            validations["step"],
            validations[_MEDIAN],
            color=GREEN,
            linewidth=1.4,
            label="median parcel",
        )
    axes.plot(
        validations["step"],
        validations["val_r2"].astype(float),
        color=VERMILION,
        linewidth=1.6,
        label="all parcels together",
    )
    axes.set(ylabel="validation R²")
