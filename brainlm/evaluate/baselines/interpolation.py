"""Guess hidden entries by a line in time between the visible ones of the same parcel."""

from __future__ import annotations

import torch
from torch import Tensor


def interpolate_hidden(signal: Tensor, known: Tensor) -> Tensor:
    """Fill in what is not `known` of `signal`, both (..., parcels, time).

    Before the first and after the last known time point the nearest one holds; a parcel
    of which nothing is known is guessed as 0, the recording's mean.
    """
    last = signal.shape[-1] - 1
    when = torch.arange(last + 1, device=signal.device).expand(known.shape)
    before = torch.where(known, when, -1).cummax(dim=-1).values
    after = torch.where(known, when, last + 1).flip(-1).cummin(dim=-1).values.flip(-1)
    left = torch.where(before >= 0, before, after).clamp(max=last)
    right = torch.where(after <= last, after, left)
    left_value, right_value = (signal.gather(-1, place) for place in (left, right))
    share = (when - left).to(signal.dtype) / (right - left).clamp(min=1)
    line = left_value + share * (right_value - left_value)
    return torch.where(known.any(dim=-1, keepdim=True), line, 0.0)
