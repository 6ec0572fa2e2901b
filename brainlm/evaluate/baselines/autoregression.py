"""AR(p): each parcel goes on by its own past, with coefficients that all people share.

The coefficients are those of least squares over all train recordings. Sums of lagged products are
all that they need, so a cohort of any size is read once and never held in memory.
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

#: Orders to choose from.
ORDERS = (1, 2, 3, 5, 8, 12, 20)

#: Share of the mean squared signal that is added to it, so that what does not vary can be solved.
_RIDGE = 1e-6


@dataclass(frozen=True, eq=False)
class AutoRegression:
    """x(t) = sum over k of a(k) x(t - k), for each parcel by itself."""

    coefficients: Floats  # (order, parcels); the first is that of the time point before

    def __call__(self, past: Tensor, timepoints: int) -> Tensor:
        """The `timepoints` after `past`, (windows, parcels, time), step by step.

        What came before a past that is shorter than the order counts as 0, the mean.
        """
        weights = torch.from_numpy(self.coefficients.T[:, ::-1].copy()).to(past)
        order = weights.shape[1]
        seen = F.pad(past[:, :, -order:], (max(0, order - past.shape[2]), 0))
        for _ in range(timepoints):
            following = (seen[:, :, -order:] * weights).sum(dim=2, keepdim=True)
            seen = torch.cat([seen, following], dim=2)
        return seen[:, :, -timepoints:]


def fit_autoregression(
    series: Iterable[NDArray[np.floating[Any]]],
    error_of: Callable[[AutoRegression], float],
    orders: tuple[int, ...] = ORDERS,
) -> tuple[AutoRegression, dict[str, Any]]:
    """The order of the smallest error on validation, and what was tried.

    `series` are the train recordings, (time, parcels), scaled, NaN where a parcel has no data;
    `error_of` scores a candidate.
    """
    largest = max(orders)
    products = sum(lagged_products(one, largest) for one in series)
    assert not isinstance(products, int), "there is at least one recording"
    candidates = {order: AutoRegression(_solve(products, order)) for order in orders}
    errors = {order: error_of(candidate) for order, candidate in candidates.items()}
    best = min(errors, key=errors.__getitem__)
    tried = {str(order): defined(error) for order, error in errors.items()}
    return candidates[best], {"order": best, "tried": tried}


def lagged_products(series: NDArray[np.floating[Any]], order: int) -> Floats:
    """(parcels, order + 1, order + 1): sums over time of x(t - i) x(t - j)."""
    known = np.nan_to_num(series, nan=0.0).astype(np.float64)
    length = max(0, len(known) - order)  # a shorter recording tells nothing
    lags = np.stack([known[order - lag :][:length] for lag in range(order + 1)])
    by_parcel = lags.transpose(2, 0, 1)  # (parcels, lags, time)
    return np.asarray(by_parcel @ by_parcel.transpose(0, 2, 1))


def _solve(products: Floats, order: int) -> Floats:
    """(order, parcels): the least squares of `order` lags."""
    past = products[:, 1 : order + 1, 1 : order + 1]
    following = products[:, 1 : order + 1, 0]
    power = np.trace(past, axis1=1, axis2=2) / order
    ridge = np.where(power > 0, _RIDGE * power, 1.0)
    found = np.linalg.solve(past + ridge[:, None, None] * np.eye(order), following[..., None])
    return np.asarray(found[..., 0].T)
