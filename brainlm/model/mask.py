"""Which tokens the encoder sees, as index sets of constant size.

A token is patch `n` of parcel `p`, index `p * patches + n`. A parcel without data (NaN) has no
tokens to show and none to guess: its tokens are never visible and never targets. Each sample
shows the same number of tokens (`count_visible`, set by the recording with the fewest parcels),
so that shapes stay static and no attention mask is needed.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import torch
from torch import Tensor


class TokenMask(NamedTuple):
    """A split of the tokens of each sample."""

    visible: Tensor  # (batch, n_visible) int64, all of parcels with data
    hidden: Tensor  # (batch, tokens - n_visible) int64
    target: Tensor  # (batch, tokens - n_visible) bool: hidden, and of a parcel with data


def generator(*key: object) -> torch.Generator:
    """A CPU random generator whose stream is decided by `key` alone, e.g. (seed, step)."""
    text = "\0".join(str(part) for part in key)
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(seed)


def count_visible(mask_ratio: float, fewest_parcels: int, patches: int) -> int:
    """Visible tokens of each sample, when the poorest recording has `fewest_parcels`."""
    tokens = fewest_parcels * patches
    return min(max(1, round((1 - mask_ratio) * tokens)), tokens - 1)


def random_mask(
    covered: Tensor, patches: int, n_visible: int, source: torch.Generator
) -> TokenMask:
    """Show `n_visible` random tokens of the `covered` (batch, parcels) ones, hide the others."""
    order, with_data = _shuffle(covered, patches, source)
    hidden = order[:, n_visible:]
    return TokenMask(order[:, :n_visible], hidden, with_data.gather(1, hidden))


def random_partition(
    covered: Tensor, patches: int, n_visible: int, source: torch.Generator
) -> Tensor:
    """Disjoint sets of `n_visible` tokens, (sets, n_visible), of one window, for one look at each.

    `covered` is (parcels,). There are as many sets as the tokens fill. Read one after the other
    they show (nearly) the whole window, each at the sparsity the encoder was trained at.
    """
    order, with_data = _shuffle(covered[None], patches, source)
    sets = max(1, int(with_data.sum()) // n_visible)
    return order[0, : sets * n_visible].unflatten(0, (sets, n_visible))


def _shuffle(covered: Tensor, patches: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """Token order (batch, tokens), those with data first; and which tokens have data."""
    with_data = covered.cpu().repeat_interleave(patches, dim=1)
    noise = torch.rand(with_data.shape, generator=source)
    order = torch.where(with_data, noise, torch.inf).argsort(dim=1, stable=True)
    return order.to(covered.device), with_data.to(covered.device)
