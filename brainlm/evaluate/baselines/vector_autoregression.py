"""VAR(p): every parcel goes on by the past of all parcels; a linear model of the whole brain.

Fitted by ridge regression from sums over all train recordings, (order x parcels)^2 numbers, so a
cohort of any size is read once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from ...train.validation import defined

Floats = NDArray[np.float64]

#: Orders and penalties to choose from; a penalty is a share of the mean squared signal.
ORDERS = (1, 2, 3)
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True, eq=False)
class VectorAutoRegression:
    """x(t) = sum over k of x(t - k) A(k)."""

    coefficients: Floats  # (order, parcels, parcels): from a parcel of the past to one that follows

    def __call__(self, past: Tensor, timepoints: int) -> Tensor:
        """The `timepoints` after `past`, (windows, parcels, time), step by step.

        What came before a past that is shorter than the order counts as 0, the mean.
        """
        order, parcels, _ = self.coefficients.shape
        past = F.pad(past, (max(0, order - past.shape[2]), 0))
        weights = torch.from_numpy(self.coefficients.reshape(-1, parcels)).to(past)
        seen = list(past[:, :, -order:].nan_to_num(nan=0.0).unbind(dim=2))
        for _ in range(timepoints):
            lags = torch.cat(seen[: -order - 1 : -1], dim=1)  # the latest first
            seen.append(lags @ weights)
        return torch.stack(seen[-timepoints:], dim=2)


def fit_vector_autoregression(
    series: Iterable[NDArray[np.floating[Any]]],
    error_of: Callable[[VectorAutoRegression], float],
    orders: tuple[int, ...] = ORDERS,
    penalties: tuple[float, ...] = PENALTIES,
) -> tuple[VectorAutoRegression, dict[str, Any]]:
    """The order and penalty of the smallest error on validation, and what was tried.

    `series` and `error_of` as in `fit_autoregression`.
    """
    past, following, parcels = _sums(series, max(orders))
    best: tuple[float, VectorAutoRegression, dict[str, Any]] | None = None
    tried = {}
    for order in orders:
        size = order * parcels
        values, vectors = np.linalg.eigh(past[:size, :size])
        turned = vectors.T @ following[:size]
        for penalty in penalties:
            held = np.maximum(values, 0) + penalty * max(values.mean(), np.finfo(float).tiny)
            weights = (vectors / held) @ turned
            candidate = VectorAutoRegression(weights.reshape(order, parcels, parcels))
            error = error_of(candidate)
            tried[f"order {order}, penalty {penalty:g}"] = defined(error)
            if best is None or error < best[0]:
                best = (error, candidate, {"order": order, "penalty": penalty})
    assert best is not None
    return best[1], {**best[2], "tried": tried}


def _sums(series: Iterable[NDArray[np.floating[Any]]], order: int) -> tuple[Floats, Floats, int]:
    """Over time and recordings: lags x lags, lags x what follows; and the number of parcels."""
    past = following = np.zeros(())
    parcels = 0
    for one in series:
        known = np.nan_to_num(one, nan=0.0).astype(np.float64)
        parcels = known.shape[1]
        length = max(0, len(known) - order)
        lags = np.hstack([known[order - lag :][:length] for lag in range(1, order + 1)])
        past = past + lags.T @ lags
        following = following + lags.T @ known[order:]
    return past, following, parcels
