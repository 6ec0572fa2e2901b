"""Which tokens the encoder sees, as index sets of constant size.

A token without data (of a parcel that is NaN) is never shown and never asked for: the functions
here take which tokens are `available`. Each sample shows the same number of tokens
(`count_visible`, set by the recording with the fewest), so that shapes stay static and no
attention mask is needed.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import torch
from torch import Tensor


class TokenMask(NamedTuple):
    """A split of the tokens of each sample."""

    visible: Tensor  # (batch, n_visible) int64, all of them available
    hidden: Tensor  # (batch, tokens - n_visible) int64
    target: Tensor  # (batch, tokens - n_visible) bool: hidden, and available


def generator(*key: object) -> torch.Generator:
    """A CPU random generator whose stream is decided by `key` alone, e.g. (seed, step)."""
    text = "\0".join(str(part) for part in key)
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(seed)


def count_visible(mask_ratio: float, fewest: int) -> int:
    """Visible tokens of each sample, when the poorest recording has `fewest` available ones."""
    return min(max(1, round((1 - mask_ratio) * fewest)), fewest - 1)


def random_mask(available: Tensor, n_visible: int, source: torch.Generator) -> TokenMask:
    """Show `n_visible` random tokens of the `available` (batch, tokens) ones, hide the others."""
    return split_tokens(available, _shuffle(available, source), n_visible)


def split_tokens(available: Tensor, order: Tensor, n_visible: int) -> TokenMask:
    """Show the first `n_visible` tokens of each row of `order` (batch, tokens)."""
    hidden = order[:, n_visible:]
    return TokenMask(order[:, :n_visible], hidden, available.gather(1, hidden))


def chosen_mask(
    available: Tensor, hide: Tensor, n_visible: int, source: torch.Generator
) -> TokenMask:
    """Hide the tokens `hide` (tokens,) or (batch, tokens); show `n_visible` of the others.

    The targets are what was to be hidden. A sample with more tokens than `n_visible` left has some
    that are neither shown nor asked for; which, is drawn.
    """
    hide = hide.to(available.device).expand_as(available)
    mask = split_tokens(available & hide, _shuffle(available & ~hide, source), n_visible)
    if not (available & ~hide).gather(1, mask.visible).all():
        raise ValueError(f"fewer than {n_visible} tokens are left to show")
    return mask


def random_parcels(covered: Tensor, count: int, source: torch.Generator) -> Tensor:
    """`count` random parcels of each sample's `covered` (batch, parcels) ones, as bool."""
    chosen = _shuffle(covered, source)[:, :count]
    return torch.zeros_like(covered).scatter(1, chosen, True) & covered


def random_partition(available: Tensor, n_visible: int, source: torch.Generator) -> Tensor:
    """Disjoint sets of `n_visible` tokens, (sets, n_visible), of one window, for one look at each.

    `available` is (tokens,). There are as many sets as the tokens fill. Read one after the other
    they show (nearly) the whole window, each at the sparsity the encoder was trained at.
    """
    order = _shuffle(available[None], source)
    sets = max(1, int(available.sum()) // n_visible)
    return order[0, : sets * n_visible].unflatten(0, (sets, n_visible))


def _shuffle(available: Tensor, source: torch.Generator) -> Tensor:
    """Token order (batch, tokens), random, the available ones first."""
    noise = torch.rand(available.shape, generator=source)
    order = torch.where(available.cpu(), noise, torch.inf).argsort(dim=1, stable=True)
    return order.to(available.device)
