"""Forecasts that need no fitting: all stays as it is, or goes back to its mean."""

from __future__ import annotations

from torch import Tensor


def persistence(past: Tensor, timepoints: int) -> Tensor:
    """The last value of each parcel, `timepoints` times; `past` is (windows, parcels, time)."""
    return past[:, :, -1:].expand(-1, -1, timepoints)


def mean(past: Tensor, timepoints: int) -> Tensor:
    """0, which is each parcel's mean over its recording once scaled."""
    return past.new_zeros(*past.shape[:2], timepoints)
