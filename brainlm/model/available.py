"""Windows as they come: parcels without data, recordings that end early.

Only what is there enters the encoder, so nothing has to be filled in: a token is either seen whole,
or left out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import DataError
from .mae import MaskedAutoencoder
from .tokenizer import ImageTokenizer, ParcelTokenizer


class Latents(NamedTuple):
    """The encoder's output where each sample may show other tokens."""

    cls: Tensor  # (batch, hidden)
    tokens: Tensor  # (batch, tokens, hidden), 0 where nothing was seen
    seen: Tensor  # (batch, tokens) bool


def tokens_with_data(tokenizer: ParcelTokenizer | ImageTokenizer, signal: Tensor) -> Tensor:
    """Tokens (batch, tokens) bool of windows (batch, parcels, time) that hold data, and whole.

    A parcel that is NaN has none; a time point that is NaN in all parcels is beyond the end of the
    recording, and tokens that reach beyond it are out.
    """
    missing = signal.isnan()
    available = tokenizer.available(~missing.all(dim=2))
    beyond = missing.all(dim=1).sum(dim=1)
    for length in beyond.unique().tolist():
        if length:
            gone = tokenizer.last(length).to(signal.device)
            available = available & ~(gone & (beyond == length)[:, None])
    return available


def shortest(tokenizer: ParcelTokenizer | ImageTokenizer, timepoints: int) -> int:
    """Time points that a recording needs to have one whole token, of windows of `timepoints`."""
    empty = tokenizer.last(timepoints)
    for length in range(1, timepoints):
        if not torch.equal(tokenizer.last(timepoints - length), empty):
            return length
    return timepoints


def encode_available(autoencoder: MaskedAutoencoder, signal: Tensor) -> Latents:
    """Encode windows (batch, parcels, time), each by all of its tokens that hold data.

    Windows that show the same tokens are encoded together. Scaled; NaN: no data.
    """
    seen = tokens_with_data(autoencoder.tokenizer, signal)
    width = autoencoder.config.hidden
    if not seen.any(dim=1).all():
        raise DataError("A window has no token with data: no parcel of it has any")
    cls = signal.new_zeros(len(signal), width)
    tokens = signal.new_zeros(*seen.shape, width)
    patterns, group = seen.unique(dim=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        rows = (group == number).nonzero()[:, 0]
        visible = pattern.nonzero()[:, 0].expand(len(rows), -1)
        latents = autoencoder.encode(signal[rows], visible).to(signal.dtype)
        cls[rows] = latents[:, 0]
        tokens[rows[:, None], visible] = latents[:, 1:]
    return Latents(cls, tokens, seen)
