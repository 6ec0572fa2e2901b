"""What a model told of a label of two classes, as curves."""

from __future__ import annotations

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray

from .style import BLUE, GREY, RC, light_grid

Floats = NDArray[np.float64]


@rc_context(RC)
def curves_figure(true: Floats, chance: Floats, target: str) -> Figure:
    """ROC, and precision over recall, of chances (recordings,) of class 1; dashed: at random."""
    hits, calls = _found(true == 1, chance)
    positives, negatives = int((true == 1).sum()), int((true != 1).sum())
    recall, passed = hits / positives, (calls - hits) / negatives
    figure = Figure(figsize=(7.4, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    dashed = {"color": GREY, "linewidth": 1, "linestyle": (0, (4, 3))}
    left.plot([0, 1], [0, 1], **dashed)
    left.plot(np.r_[0, passed], np.r_[0, recall], color=BLUE, linewidth=1.8)
    left.set(xlabel="false positives", ylabel="true positives", title=f"{target}: ROC")
    right.axhline(positives / len(true), **dashed)
    right.step(np.r_[0, recall], np.r_[1, hits / calls], color=BLUE, linewidth=1.8, where="pre")
    right.set(xlabel="recall", ylabel="precision", title="Precision and recall")
    for axes in (left, right):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
        light_grid(axes)
    return figure


def _found(positive: NDArray[np.bool_], chance: Floats) -> tuple[Floats, Floats]:
    """Positives and recordings that each threshold calls, the strictest first."""
    order = np.argsort(-chance, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(chance[order]) != 0, True])
    return np.cumsum(positive[order])[ends].astype(float), (ends + 1).astype(float)
