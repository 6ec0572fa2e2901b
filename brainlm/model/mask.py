"""Which tokens the encoder sees, as index sets of constant size.

A token without data (of a parcel that is NaN) is never shown and never asked for: the functions
here take which tokens are `available`. Each sample shows the same number of tokens, set by the
recording with the fewest, so that shapes stay static and no attention mask is needed.

A sample's mask is decided by the generator and by its place in the batch: not by who else is in it.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..errors import InputError

if TYPE_CHECKING:
    from .tokenizer import ImageTokenizer, ParcelTokenizer

#: A whole look for less than this share of it would cost more than it shows.
_LEFT_OUT = 0.05

KINDS = ("random", "future", "parcels", "networks")


class TokenMask(NamedTuple):
    """A split of the tokens of each sample; `given_mask` makes one of any choice of tokens."""

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


def future_timepoints(ratio: float, timepoints: int) -> int:
    """Time points that a share of a window is, at least one."""
    return max(1, round(ratio * timepoints))


def make_mask(
    tokenizer: ParcelTokenizer | ImageTokenizer,
    covered: Tensor,
    kind: str,
    ratio: float,
    source: torch.Generator,
    *,
    groups: Tensor | None = None,
    n_visible: int | None = None,
) -> TokenMask:
    """Hide about `ratio` of each sample's tokens; `covered` (batch, parcels): which have data.

    random    any tokens
    future    those that hold any of the last `ratio` of the time points
    parcels   whole parcels; of an image whole rows of squares (parcels that are neighbours in y)
    networks  all parcels of some networks, as many as fit; `groups`: (parcels,) the number of a
              parcel's network, -1 for none (such parcels are never hidden)

    `n_visible` tokens of each sample are shown: those of `tokenizer.count_shown` in a training, so
    that shapes are the same for all batches; else as many as this batch allows. Where a sample has
    more that are not to be hidden, some are neither shown nor asked for; which, is drawn.
    """
    _check_asked(tokenizer, covered, kind, ratio, groups)
    available = tokenizer.available(covered)
    if kind == "random":
        count = count_visible(ratio, _fewest(available)) if n_visible is None else n_visible
        return _shown(available, _shuffle(available, source), count)
    if kind == "parcels":
        row = tokenizer.row
        rows = available.unflatten(1, (-1, row)).any(2)
        count = count_visible(ratio, _fewest(rows)) * row if n_visible is None else n_visible
        if count % row:
            raise ValueError(f"{count} tokens are no whole rows of {row}")
        order = _shuffle(rows, source)[..., None] * row + torch.arange(row, device=rows.device)
        return _shown(available, order.flatten(1), count)
    if kind == "future":
        hide = tokenizer.last(future_timepoints(ratio, tokenizer.config.timepoints))
        hide = hide.to(available.device)
        count = _fewest(available & ~hide) if n_visible is None else n_visible
        return chosen_mask(available, hide, count, source)
    assert groups is not None  # kind is networks
    count = count_visible(ratio, _fewest(available)) if n_visible is None else n_visible
    first, second = _branches(source)
    members = [groups.to(available.device) == number for number in range(int(groups.max()) + 1)]
    tokens = tokenizer.of_parcels(torch.stack(members))
    return chosen_mask(available, _some_of(tokens, available, count, first), count, second)


def given_mask(available: Tensor, visible: Tensor) -> TokenMask:
    """Show the tokens `visible` (batch, k), in their order, and hide and ask for all others."""
    outside = (visible < 0) | (visible >= available.shape[1])
    shown = torch.zeros_like(available).scatter(1, visible.masked_fill(outside, 0), True)
    if outside.any() or (shown.sum(dim=1) != visible.shape[1]).any():
        raise InputError(
            "This mask shows a token twice, or one that is not there",
            fix=f"give each sample different numbers from 0 to {available.shape[1] - 1}",
        )
    hidden = shown.to(torch.uint8).argsort(dim=1, stable=True)[:, : -visible.shape[1]]
    mask = TokenMask(visible, hidden, available.gather(1, hidden))
    _check_left(available, mask, visible.shape[1])
    return mask


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
    _check_left(available & ~hide, mask, n_visible)
    return mask


def count_asked(hidden: int, share: float) -> int:
    """Tokens that `ask_for` asks for, of so many `hidden` ones."""
    return max(1, round(share * hidden))


def ask_for(mask: TokenMask, share: float) -> TokenMask:
    """The same tokens shown, but only a `share` of the hidden ones asked for, of a random mask.

    Its hidden tokens are in random order, those with data first. For the cross decoder alone, to
    which tokens that are not asked for do not exist; each that is costs it as much as any other (Fu
    et al. 2024 ask for a quarter).
    """
    count = count_asked(mask.hidden.shape[1], share)
    return TokenMask(mask.visible, mask.hidden[:, :count], mask.target[:, :count])


def random_parcels(covered: Tensor, count: int, source: torch.Generator) -> Tensor:
    """`count` random parcels of each sample's `covered` (batch, parcels) ones, as bool."""
    chosen = _shuffle(covered, source)[:, :count]
    return torch.zeros_like(covered).scatter(1, chosen, True) & covered


def random_partition(available: Tensor, n_visible: int, source: torch.Generator) -> Tensor:
    """Sets of `n_visible` tokens, (sets, n_visible), of one window, for one look at each.

    `available` is (tokens,). Together the sets show the window, each at the sparsity the encoder
    was trained at. They share no token, but for the last one, which the first tokens fill up; it is
    left out where less than `_LEFT_OUT` of it would be new.
    """
    order = _shuffle(available[None], source)
    _shown(available[None], order, n_visible)  # there are so many
    order = order[0, : int(available.sum())]
    sets = max(1, math.ceil(len(order) / n_visible - _LEFT_OUT))
    place = torch.arange(sets * n_visible, device=order.device) % len(order)
    return order[place].unflatten(0, (sets, n_visible))


def _check_asked(
    tokenizer: ParcelTokenizer | ImageTokenizer,
    covered: Tensor,
    kind: str,
    ratio: float,
    groups: Tensor | None,
) -> None:
    """Refuse what `make_mask` cannot do, or would do in another sense than meant."""
    parcels = tokenizer.config.parcels
    networks = groups is not None and groups.shape == (parcels,) and bool((groups >= 0).any())
    if kind not in KINDS or (kind == "networks" and not networks):
        raise InputError(
            f"There is no mask {kind!r}"
            if kind not in KINDS
            else f"Masks by network need networks: a number for each of {parcels} parcels",
            fix=f"choose of {', '.join(KINDS)}; networks come with the atlas (parcels.tsv)",
        )
    if not 0 <= ratio <= 1:
        raise InputError(
            f"The share of masked tokens must be from 0 to 1, not {ratio:g}",
            fix="give 0.75 to hide three quarters",
        )
    if covered.shape[1:] != (parcels,):
        raise InputError(
            f"covered must be (batch, {parcels} parcels), not {tuple(covered.shape)}",
            fix="say of each parcel of the network whether there is data",
        )


def _some_of(groups: Tensor, available: Tensor, n_visible: int, source: torch.Generator) -> Tensor:
    """Tokens (batch, tokens) of `groups` (n, tokens), drawn one by one, that leave `n_visible`."""
    drawn = torch.rand(len(available), len(groups), generator=source).to(available.device)
    hide = torch.zeros_like(available)
    for chosen in drawn.argsort(dim=1, stable=True).unbind(1):
        more = hide | (groups[chosen] & available)
        fits = (available & ~more).sum(dim=1) >= n_visible
        hide = torch.where(fits[:, None], more, hide)
    if not hide.any(dim=1).all():
        raise InputError(
            "No network is small enough to be hidden at this share of masked tokens",
            fix="mask more, or choose a model with parcel tokens: a square of an image holds "
            "parcels of several networks",
        )
    return hide


def _shown(available: Tensor, order: Tensor, n_visible: int) -> TokenMask:
    """`split_tokens`, where there is something to show."""
    mask = split_tokens(available, order, n_visible)
    _check_left(available, mask, n_visible)
    return mask


def _check_left(left: Tensor, mask: TokenMask, n_visible: int) -> None:
    """What is shown must be among the tokens that are `left` (batch, tokens) to show."""
    enough = 1 <= n_visible <= left.shape[1] and left.gather(1, mask.visible).all()
    if not enough:
        raise InputError(
            f"A recording has fewer than {max(n_visible, 1)} tokens left to show",
            fix="show fewer of its tokens, or leave out recordings with few parcels",
        )


def _branches(source: torch.Generator) -> tuple[torch.Generator, torch.Generator]:
    """Two streams of `source`, so that how much is drawn of one does not shift the other."""
    one, other = torch.randint(2**62, (2,), generator=source).tolist()
    return torch.Generator().manual_seed(one), torch.Generator().manual_seed(other)


def _fewest(chosen: Tensor) -> int:
    """Of (batch, n) bool, the count in the poorest sample."""
    return int(chosen.sum(dim=1).min())


def _shuffle(available: Tensor, source: torch.Generator) -> Tensor:
    """Order (batch, n), random, the available ones first."""
    noise = torch.rand(available.shape, generator=source).to(available.device)
    return torch.where(available, noise, torch.inf).argsort(dim=1, stable=True)
