"""A trained network on one recording: which windows, which tokens of them, and what comes out.

A network that was pretrained with three quarters of the tokens hidden has never seen a whole
window. It may be shown one all the same (one look, nothing drawn), or several random sets of
tokens that together cover the window, each as sparse as in training; the looks are averaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError
from ..shards.dataset import covered_of
from ..shards.sampler import batches, even_windows
from .attention_maps import entry_tokens
from .heads import LabelModel
from .mae import MaskedAutoencoder
from .mask import count_visible, generator, random_partition


@dataclass(frozen=True, eq=False)
class Look:
    """A window, and the tokens of it that are shown."""

    start: int  # time point of the recording where the window begins
    signal: Tensor  # (parcels, time), scaled; NaN: no data
    visible: Tensor  # (k,) numbers of tokens
    available: Tensor  # (tokens,) bool


def even_starts(n: int, window: int) -> list[int]:
    """Starts of the windows of validation and test, evenly spread, none over another."""
    return [start for _, start in even_windows({"": n}, window)]


def covering_starts(n: int, window: int) -> list[int]:
    """Starts of the fewest windows that hold every time point; they may lie over each other."""
    count = -(-n // window)
    return [round(i * (n - window) / max(count - 1, 1)) for i in range(count)]


def looks(
    model: MaskedAutoencoder,
    values: Tensor,
    starts: Sequence[int],
    mask_ratio: float = 0.0,
    seed: int = 0,
) -> list[Look]:
    """All looks at a recording `values` (parcels, time), on the model's device.

    `mask_ratio` 0 shows whole windows; else each look shows so few tokens, drawn from (seed, start)
    alone, and all looks at a window together show (nearly) all.
    """
    _check_ratio(mask_ratio)
    found = []
    for whole in _windows(model, values, starts):
        tokens = whole.visible
        if mask_ratio:
            count = max(1, count_visible(mask_ratio, len(tokens)))
            source = generator(seed, "views", whole.start)
            sets = list(random_partition(whole.available, count, source))
        else:
            sets = [tokens]
        found += [replace(whole, visible=some) for some in sets]
    return found


def chosen(
    model: MaskedAutoencoder, values: Tensor, starts: Sequence[int], visible: Sequence[int]
) -> list[Look]:
    """One look at each window, at the tokens `visible`."""
    return [
        replace(whole, visible=_checked(visible, whole.available))
        for whole in _windows(model, values, starts)
    ]


def turns(
    model: MaskedAutoencoder, values: Tensor, starts: Sequence[int], mask_ratio: float, seed: int
) -> list[Look]:
    """Looks in which each token is hidden at least once, each hiding `mask_ratio` of them."""
    _check_ratio(mask_ratio, least=True)
    found = []
    for whole in _windows(model, values, starts):
        n = len(whole.visible)
        if n < 2:
            raise InputError("A window has one token with data, so nothing can be guessed from it")
        n_visible = count_visible(mask_ratio, n)
        draw = torch.randperm(n, generator=generator(seed, "turns", whole.start))
        order = whole.visible[draw.to(whole.visible.device)]
        for turn in range(-(-n // (n - n_visible))):
            found.append(replace(whole, visible=order.roll(-turn * (n - n_visible))[-n_visible:]))
    return found


def hiding(
    model: MaskedAutoencoder, values: Tensor, starts: Sequence[int], hidden: Tensor
) -> list[Look]:
    """Looks at windows with only tokens shown that hold none of the `hidden` (parcels, time).

    Windows of which nothing is to be hidden are left out.
    """
    token_of = entry_tokens(model.tokenizer).to(hidden.device)
    found = []
    holds = torch.zeros(model.tokenizer.tokens, dtype=torch.bool, device=hidden.device)
    holds[token_of[covered_of(values)]] = True  # data, not padding alone
    for whole in _windows(model, values, starts):
        gone = torch.zeros_like(whole.available)
        gone[token_of[hidden[:, whole.start : whole.start + token_of.shape[1]]]] = True
        left = (whole.available & ~gone).nonzero()[:, 0]
        if not holds[left].any():
            raise InputError(
                "Nothing is left to show: the mask touches every token of a window with data",
                fix="hide less; a token is hidden as soon as one of its entries is",
            )
        if len(left) < len(whole.visible):
            found.append(replace(whole, visible=left))
    if not found:
        raise InputError("The mask hides nothing that has data")
    return found


@torch.no_grad()
def encode(
    model: MaskedAutoencoder, some: Sequence[Look], batch_size: int
) -> Iterator[tuple[Sequence[Look], Tensor]]:
    """Latents (batch, 1 + k, hidden) of the looks, batch by batch, CLS first."""
    for part in batches(some, batch_size):
        signal = torch.stack([look.signal for look in part])
        yield part, model.encode(signal, torch.stack([look.visible for look in part]))


@torch.no_grad()
def mean_output(model: LabelModel, some: Sequence[Look], batch_size: int) -> NDArray[np.float64]:
    """What the head says of the looks, on average: (), or of several classes (classes,)."""
    outputs = [
        model.read(latents).double().cpu().numpy()
        for _, latents in encode(model.autoencoder, some, batch_size)
    ]
    return np.asarray(np.concatenate(outputs).mean(axis=0))


def stitch(model: MaskedAutoencoder, some: Sequence[Look], values: Tensor) -> Tensor:
    """Guesses of what each look hides, (parcels, time) scaled, in the place of its window.

    The mean where several looks guess an entry; NaN where none does.
    """
    total, count = (torch.zeros_like(values, dtype=torch.float64) for _ in range(2))
    for look in some:
        shown = torch.zeros_like(look.available)
        shown[look.visible] = True
        guessed = _guess(model, look, asked=look.available & ~shown)
        window = slice(look.start, look.start + guessed.shape[1])
        total[:, window] += guessed.nan_to_num()
        count[:, window] += ~guessed.isnan()
    return total / count


def forecast(model: MaskedAutoencoder, past: Tensor, timepoints: int) -> Tensor:
    """The `timepoints` after `past` (parcels, window - timepoints), scaled, NaN without data.

    As `MaskedAutoencoder.forecast`, of recordings that lack parcels, too: of the future 0 is shown
    where a token reaches into it, and tokens of the future alone are hidden.
    """
    tokenizer = model.tokenizer
    window = torch.cat([past, past[:, :1].expand(-1, timepoints)], dim=1)  # of NaN as the past is
    (whole,) = _windows(model, window, [0])
    missing = tokenizer.cut(torch.where(window.isnan(), torch.nan, 0.0)[None]).isnan()
    missing &= ~tokenizer.cut(torch.zeros_like(window)[None]).isnan()  # that is padding, not data
    patches = tokenizer.blank(tokenizer.cut(window[None]), timepoints)
    patches = patches.masked_fill(missing, torch.nan)
    gone = tokenizer.last(timepoints, wholly=True).to(past.device)
    look = replace(whole, visible=(whole.available & ~gone).nonzero()[:, 0])
    asked = tokenizer.last(timepoints).to(past.device) & whole.available
    return _guess(model, look, asked, patches)[:, -timepoints:]


@torch.no_grad()
def _guess(
    model: MaskedAutoencoder, look: Look, asked: Tensor, patches: Tensor | None = None
) -> Tensor:
    """Guesses of the tokens `asked` (tokens,) bool, (parcels, time) scaled, NaN elsewhere.

    `patches` (1, tokens, entries) are those of the look's signal, cut, unless told otherwise.
    """
    shown = torch.zeros_like(look.available)
    shown[look.visible] = True
    hidden, wanted = (~shown).nonzero().T, asked.nonzero().T
    visible = look.visible[None]
    cut = model.tokenizer.cut(look.signal[None]) if patches is None else patches
    guessed = model.decode(model.encode_patches(cut, visible), visible, hidden, wanted)
    out = model.tokenizer.paste(guessed, wanted)[0]
    return out.masked_fill(~covered_of(look.signal)[:, None], torch.nan)


def _windows(model: MaskedAutoencoder, values: Tensor, starts: Sequence[int]) -> list[Look]:
    """Whole windows: all tokens that have data are shown."""
    available = model.tokenizer.available(covered_of(values)[None])[0]
    length = model.config.timepoints
    return [
        Look(start, values[:, start : start + length], available.nonzero()[:, 0], available)
        for start in starts
    ]


def _check_ratio(mask_ratio: float, *, least: bool = False) -> None:
    if not 0 <= mask_ratio < 1 or (least and not mask_ratio):
        span = "above 0 and below 1" if least else "at least 0 and below 1"
        raise InputError(f"mask_ratio must be {span}, not {mask_ratio:g}")


def _checked(visible: Sequence[int], available: Tensor) -> Tensor:
    """Numbers of tokens as a tensor; refuses those that are not there, or have no data."""
    tokens = torch.as_tensor(visible, device=available.device)
    whole = not tokens.is_floating_point() and tokens.dtype != torch.bool
    if not whole or tokens.ndim != 1 or not len(tokens) or len(tokens.unique()) < len(tokens):
        raise InputError("visible must be a list of numbers of tokens, each once")
    tokens = tokens.long()
    if int(tokens.min()) < 0 or int(tokens.max()) >= len(available):
        raise InputError(f"visible must be numbers of tokens from 0 to {len(available) - 1}")
    if not available[tokens].all():
        first = int(tokens[~available[tokens]][0])
        raise InputError(f"visible names tokens without data (first: {first})")
    return tokens
