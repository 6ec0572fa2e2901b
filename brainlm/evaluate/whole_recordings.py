"""Whole recordings guessed: every entry is hidden exactly once, by masks that share no token.

Windows tile the recording. Where two lie over each other, the middle of what they share parts them:
each time point counts in the window that sees more around it. Of each window the tokens are dealt
into disjoint sets by the seed; each set is hidden in turn, and guessed from all the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError
from ..model.inference import covering_starts
from ..model.mae import MaskedAutoencoder
from ..model.mask import TokenMask, generator
from ..shards.reader import ShardReader
from ..shards.sampler import Window
from ..shards.splits import uniform_of
from ..train.validation import reconstruct
from .baselines.interpolation import interpolate_hidden
from .hiding import LINES, MEAN, MODEL, Guessed, Tick, read_alike, shown_entries
from .tally import Tally, listed

Floats = NDArray[np.float32]

METHODS = (MODEL, MEAN, LINES)

#: Of recordings and, in each, of parcels: how well the one to look at is guessed, by its rank.
_TRACE_QUANTILES = {"well": 0.9, "middling": 0.5, "badly": 0.1}


@dataclass(frozen=True)
class WholeResult:
    """Scores over all entries, and traces of whole recordings."""

    metrics: dict[str, Any]
    traces: pd.DataFrame  # how, recording_id, parcel, r2, t, true, predicted


def reconstruct_whole(
    model: MaskedAutoencoder,
    reader: ShardReader,
    *,
    masks: int,
    most: int,
    bootstrap: int,
    seed: int,
    batch_size: int,
    tick: Tick,
) -> WholeResult:
    """Guess all of at most `most` test recordings, each hidden in `masks` turns."""
    names = drawn_recordings(reader, model.config.timepoints, most, seed)
    lengths = reader.lengths("test")
    tiles = {name: tiling(lengths[name], model.config.timepoints) for name in names}
    windows = [Window(name, start) for name in names for start in tiles[name]]
    tally = Tally(reader, names, METHODS)
    for part, batch in read_alike(reader, windows, model, batch_size, tick):
        guessed = guess_all(model, part, batch.signal, masks, seed)
        for row, window in enumerate(part):
            first, beyond = tiles[window.recording_id][window.start]
            guessed.truth[row, :, :first] = torch.nan  # counted in its neighbours
            guessed.truth[row, :, beyond:] = torch.nan
        tally.add(batch.recording_ids, guessed)
    cohorts = tally.told(bootstrap, seed)
    for cohort, told in zip(tally.cohorts, cohorts, strict=True):
        told["per_parcel_r2"] = listed(tally.parcel_r2(cohort))
    chosen = _by_rank(tally.recording_r2())
    again = {
        name: _guess_recording(model, reader, name, masks=masks, seed=seed, batch_size=batch_size)
        for name in set(chosen.values())
    }
    traces = [_trace(how, name, *again[name]) for how, name in chosen.items()]
    metrics = {"masks": masks, "most_recordings": most, "cohorts": cohorts}
    return WholeResult(metrics, pd.concat(traces, ignore_index=True))


def drawn_recordings(reader: ShardReader, timepoints: int, most: int, seed: int) -> list[str]:
    """Test recordings that hold a window, by name; more than `most` are drawn from by the seed."""
    long_enough = [name for name, n in reader.lengths("test").items() if n >= timepoints]
    drawn = sorted(long_enough, key=lambda name: uniform_of("whole", seed, name))
    return sorted(drawn[:most])


def tiling(n: int, window: int) -> dict[int, tuple[int, int]]:
    """Starts of windows that hold all `n` time points -> which of a window's own points count.

    Half-open, counted from the window's start; each time point counts in one window.
    """
    starts = covering_starts(n, window)
    cuts = [(one + window + other) // 2 for one, other in pairwise(starts)]
    edges = [0, *cuts, n]
    return {
        start: (edges[place] - start, edges[place + 1] - start)
        for place, start in enumerate(starts)
    }


@torch.no_grad()
def guess_all(
    model: MaskedAutoencoder, windows: Sequence[Window], signal: Tensor, masks: int, seed: int
) -> Guessed:
    """Every entry with data guessed once; `signal` (batch, parcels, time) of windows alike."""
    available = model.tokenizer.available(~signal.isnan().any(dim=2))
    sources = [generator(seed, "whole", each.recording_id, each.start) for each in windows]
    guesses = {method: torch.full_like(signal, torch.nan) for method in METHODS}
    guesses[MEAN] = torch.zeros_like(signal)
    for mask in disjoint_masks(available, masks, sources):
        result = reconstruct(model, signal, mask)
        truth, predicted = (
            model.tokenizer.paste(part, mask.hidden) for part in (result.truth, result.predicted)
        )
        lines = interpolate_hidden(signal, shown_entries(model, mask) & ~signal.isnan())
        for method, guess in ((MODEL, predicted), (LINES, lines)):
            guesses[method] = torch.where(truth.isnan(), guesses[method], guess)
    return Guessed(signal.clone(), guesses)


def disjoint_masks(
    available: Tensor, masks: int, sources: Sequence[torch.Generator]
) -> Iterator[TokenMask]:
    """Masks whose targets together are all `available` (batch, tokens), each token once.

    All samples have equally many, dealt as evenly as can be in an order drawn from their `sources`.
    """
    count = int(available[0].sum())
    masks = min(masks, count)
    if masks < 2:
        raise InputError(
            f"A window with {count} token(s) in {masks} mask(s) leaves nothing to guess from",
            fix="set evaluate.whole_masks to 2 or more, or to 0 to leave this out",
        )
    noise = torch.stack([torch.rand(available.shape[1], generator=each) for each in sources])
    noise = noise.to(available.device)
    order = torch.where(available, noise, torch.inf).argsort(dim=1, stable=True)
    own, without = order[:, :count], order[:, count:]
    edges = [count * part // masks for part in range(masks + 1)]
    for first, beyond in pairwise(edges):
        visible = torch.cat([own[:, :first], own[:, beyond:]], dim=1)
        hidden = torch.cat([own[:, first:beyond], without], dim=1)
        yield TokenMask(visible, hidden, available.gather(1, hidden))


def _by_rank(scores: pd.Series) -> dict[str, Any]:
    """How well -> the name at that rank; those without a score come in where no other has one."""
    known = scores.dropna()
    ranked = (known if len(known) else scores.fillna(0.0)).sort_values(kind="stable")
    return {how: ranked.index[round(q * (len(ranked) - 1))] for how, q in _TRACE_QUANTILES.items()}


def _guess_recording(
    model: MaskedAutoencoder,
    reader: ShardReader,
    name: str,
    *,
    masks: int,
    seed: int,
    batch_size: int,
) -> tuple[Floats, Floats]:
    """A whole recording, true and guessed, both (parcels, time)."""
    length = reader.lengths("test")[name]
    tiles = tiling(length, model.config.timepoints)
    true = np.full((reader.n_parcels, length), np.nan, np.float32)
    guess = true.copy()
    windows = [Window(name, start) for start in tiles]
    for part, batch in read_alike(reader, windows, model, batch_size, lambda items, _: items):
        guessed = guess_all(model, part, batch.signal, masks, seed)
        for row, window in enumerate(part):
            first, beyond = tiles[window.start]
            own = slice(window.start + first, window.start + beyond)
            true[:, own] = guessed.truth[row, :, first:beyond].cpu().numpy()
            guess[:, own] = guessed.guesses[MODEL][row, :, first:beyond].cpu().numpy()
    return true, guess


def _trace(how: str, name: str, true: Floats, guess: Floats) -> pd.DataFrame:
    """The parcel that is guessed as well in this recording as this one among recordings."""
    spread = true.var(axis=1)
    r2 = 1 - np.square(true - guess).mean(axis=1) / np.where(spread > 0, spread, np.nan)
    parcel = int(_by_rank(pd.Series(r2))[how])
    return pd.DataFrame(
        {
            "how": how,
            "recording_id": name,
            "parcel": parcel,
            "r2": float(r2[parcel]),
            "t": np.arange(true.shape[1]),
            "true": true[parcel].astype(float),
            "predicted": guess[parcel].astype(float),
        }
    )
