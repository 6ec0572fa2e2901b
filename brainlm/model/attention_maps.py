"""Attention between tokens, told as attention between parcels.

A token's attention belongs to the parcels that it holds. In the parcel tokenizer that is one
parcel; in the image tokenizer a square holds several rows, among which it is shared out evenly.
What a parcel then gets in all is its mean over its tokens, so that maps of both tokenizers compare.
Squares of nothing but padding, and CLS itself, belong to no parcel: their share is left out, and
maps need not sum to 1. Asking tokens are averaged, not shared out: each row of a square asks as
much as the square does.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..shards.dataset import covered_of
from .mae import MaskedAutoencoder
from .tokenizer import ImageTokenizer, ParcelTokenizer

#: What `attention_map` may tell.
ATTENTION = ("cls", "parcels", "rollout")


class Belonging(NamedTuple):
    """Which visible token belongs to which parcel."""

    asked: Tensor  # (parcels, k): a parcel's mean over its tokens; 0 for parcels without any
    shares: Tensor  # (k, parcels): the same mean, of what each token shares out among its rows
    known: Tensor  # (parcels,) bool: those with a visible token

    def mean_of(self, tokens: Tensor) -> Tensor:
        """Mean of each parcel's tokens (k, width), (parcels, width); NaN without any."""
        return (self.asked @ tokens).masked_fill(~self.known[:, None], torch.nan)


def entry_tokens(tokenizer: ParcelTokenizer | ImageTokenizer) -> Tensor:
    """The token that each entry of a window is in, (parcels, time) int64."""
    index = torch.arange(tokenizer.tokens, device=tokenizer.signal_projection.weight.device)[None]
    numbers = index.float()[..., None].expand(-1, -1, tokenizer.entries)
    scale = tokenizer.scale if isinstance(tokenizer, ImageTokenizer) else 1.0
    return (tokenizer.paste(numbers, index)[0] / scale).round().long()


def belonging(
    tokenizer: ParcelTokenizer | ImageTokenizer, covered: Tensor, visible: Tensor
) -> Belonging:
    """How `visible` (k,) tokens belong to the `covered` (parcels,) parcels."""
    parcels = len(covered)
    holds = torch.zeros(tokenizer.tokens, parcels)
    where = entry_tokens(tokenizer).cpu()
    holds[where.flatten(), torch.arange(parcels).repeat_interleave(where.shape[1])] = 1.0
    holds = (holds * covered.cpu())[visible.cpu()]
    count = holds.sum(dim=0)
    asked = holds / count.clamp(min=1)
    rows = holds.sum(dim=1, keepdim=True).clamp(min=1)
    device = covered.device
    return Belonging(asked.T.to(device), (asked / rows).to(device), (count > 0).to(device))


class ClsAttention(list[Tensor]):
    """Takes each layer's attention and keeps that of CLS to the parcels, (batch, heads, parcels).

    It is handed to the encoder in the place of a list: all weights of all layers at once would not
    fit in memory (4,241 tokens: 288 MB per layer and sample with 4 heads).
    """

    def __init__(self, belonging: Belonging):
        """`belonging` of the visible tokens."""
        super().__init__()
        self.belonging = belonging

    def append(self, weights: Any) -> None:
        """Reduce (batch, heads, 1 + k, 1 + k)."""
        super().append(weights[:, :, 0, 1:] @ self.belonging.shares)


class ParcelAttention(ClsAttention):
    """Keeps the attention of parcels to parcels, (batch, heads, parcels, parcels), asking first."""

    def append(self, weights: Any) -> None:
        """Reduce (batch, heads, 1 + k, 1 + k)."""
        between = self.belonging.asked @ weights[:, :, 1:, 1:] @ self.belonging.shares
        list.append(self, between)


class Rollout(list[Tensor]):
    """Keeps the mean over heads, to follow attention through all layers (Abnar & Zuidema 2020).

    Half of what a layer hands on is its input (the shortcut), half what it attended to.
    """

    def append(self, weights: Any) -> None:
        """Reduce (batch, heads, 1 + k, 1 + k) to (batch, 1 + k, 1 + k)."""
        mean = weights.mean(dim=1)
        super().append((mean + torch.eye(mean.shape[-1], device=mean.device)) / 2)

    def of_cls(self, belonging: Belonging) -> Tensor:
        """How much of CLS after the last layer comes from each parcel, (batch, parcels)."""
        row = torch.zeros_like(self[-1][:, :1])
        row[..., 0] = 1.0
        for layer in reversed(self):
            row = row @ layer
        return row[:, 0, 1:] @ belonging.shares


@torch.no_grad()
def attention_map(
    model: MaskedAutoencoder,
    signal: Tensor,
    visible: Tensor,
    of: str,
    layer: int | str,
    head: int | str,
) -> Tensor:
    """The map of a window `signal` (parcels, time) seen at `visible` (k,) tokens.

    `of`, `layer` and `head` as `BrainLM.attention` has them. NaN for parcels without visible token.
    """
    parts = belonging(model.tokenizer, covered_of(signal), visible)
    if of == "rollout":
        if (layer, head) != (-1, "mean"):
            raise InputError("rollout goes through all layers and heads: choose none of them")
        rollout = Rollout()
        model.encode(signal[None], visible[None], rollout)
        return rollout.of_cls(parts)[0].masked_fill(~parts.known, torch.nan)
    collect = ClsAttention(parts) if of == "cls" else ParcelAttention(parts)
    model.encode(signal[None], visible[None], collect)
    found = torch.stack(list(collect))[:, 0]  # (layers, heads, ...)
    found = _along(_along(found, head, 1, "head"), layer, 0, "layer")
    found = found.masked_fill(~parts.known, torch.nan)
    return found.masked_fill(~parts.known[:, None], torch.nan) if of == "parcels" else found


def _along(values: Tensor, which: int | str, axis: int, name: str) -> Tensor:
    """One of the layers or heads, their mean, or all."""
    count = values.shape[axis]
    if which == "all":
        return values
    if which == "mean":
        return values.mean(dim=axis)
    if not isinstance(which, int | np.integer) or not -count <= which < count:
        raise InputError(f"{name} must be mean, all or a number below {count}, not {which!r}")
    return values.select(axis, int(which))
