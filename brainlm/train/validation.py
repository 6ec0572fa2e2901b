"""Masked reconstruction in numbers, from sums that can be added up over any grouping.

All validations of a training look at the same windows of the val split, with the same masks. No
training looks at the test split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..model.mae import MaskedAutoencoder, Reconstruction
from ..model.mask import TokenMask, generator
from ..shards.reader import ShardReader
from ..shards.sampler import Window, batches, even_windows
from ..shards.splits import uniform_of
from .data import load_batch, share_out
from .distributed import ALONE, Ranks
from .masking import Masking
from .precision import Precision, autocast

Floats = NDArray[np.float64]
Sums = Floats

#: Columns of the shards' index that a validation is told by, where they have several values.
GROUPS = ("dataset", "site")
#: Quantiles over parcels, in percent.
_QUANTILES = {5: "q05", 25: "q25", 50: "median", 75: "q75", 95: "q95"}

#: Last axis of the sums: count, truth, truth^2, prediction, prediction^2, truth x prediction.
N_SUMS = 6


@dataclass(frozen=True, eq=False)
class Measured:
    """What a validation found."""

    row: Mapping[str, Any]  # of the log: `val_loss` and more; None: not defined
    groups: Sequence[Mapping[str, Any]] = ()  # rows of the log: one for each dataset and site
    parcel_r2: Floats | None = None  # (parcels,), NaN where not defined
    labels: pd.DataFrame | None = None  # of recordings: recording_id, true, guessed, own unit


#: What is shown a step, the model as it was validated, and what was found. On all processes.
Look = Callable[[int, MaskedAutoencoder, Measured], None]


def masked_sums(truth: Tensor, predicted: Tensor) -> Sums:
    """Sums over the entries that `truth` has, (batch, parcels, 6), in float64.

    Both are (batch, parcels, time), `truth` NaN wherever nothing was to be guessed.
    """
    counted = ~truth.isnan()
    y, p = (torch.where(counted, part, 0.0).double() for part in (truth, predicted))
    terms = (counted.double(), y, y * y, p, p * p, y * p)
    sums = torch.stack([term.sum(dim=2) for term in terms], dim=-1)
    return np.asarray(sums.cpu().numpy())


def scores(sums: Sums) -> dict[str, NDArray[np.float64]]:
    """R2, MSE and Pearson's r of sums (..., 6); NaN where undefined, never clipped.

    R2 = 1 - SSE / SST, with SST about the mean of the truth over the same entries.
    """
    n, y, yy, p, pp, yp = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = yy - 2 * yp + pp
        spread_y, spread_p = yy - y * y / n, pp - p * p / n
        r2 = np.where(spread_y > 0, 1 - error / spread_y, np.nan)
        r = np.where(
            (spread_y > 0) & (spread_p > 1e-12 * np.maximum(pp, 1e-300)),
            (yp - y * p / n) / np.sqrt(spread_y * spread_p),
            np.nan,
        )
        return {"r2": r2, "mse": np.where(n > 0, error / n, np.nan), "pearson": r}


@torch.no_grad()
def reconstruct(model: MaskedAutoencoder, signal: Tensor, mask: TokenMask) -> Reconstruction:
    """The model's guess, without dropout and without gradients."""
    was_training = model.training
    result: Reconstruction = model.eval()(signal, mask)
    model.train(was_training)
    return result


def validate(
    model: MaskedAutoencoder,
    reader: ShardReader,
    windows: Sequence[Window],
    *,
    masking: Masking,
    seed: int,
    batch_size: int,
    precision: Precision = "float32",
    ranks: Ranks = ALONE,
    passes: int = 1,
) -> Measured:
    """Reconstruct fixed windows with fixed masks, shared out among the processes.

    Masks are drawn for a batch as a whole; it goes through the model in so many `passes`, in as
    little memory as its parts take.
    """
    config = model.config
    device = next(model.parameters()).device
    tally = Tally(windows, config.parcels)
    chosen = batches(windows, batch_size)
    for first in range(0, len(chosen), ranks.world):
        # Where a model is shared out, all must go through it equally often: some for nothing.
        number = min(first + ranks.rank, len(chosen) - 1)
        batch = load_batch(reader, chosen[number], config.timepoints, device)
        source = generator(seed, "validation", number)
        whole_mask = masking.draw(model.tokenizer, batch.covered, source)
        for rows in share_out(len(chosen[number]), 0, 1, passes):
            # A small last batch leaves passes empty, in which its first window goes through idly.
            taken = slice(rows.start, rows.stop) if rows else slice(0, 1)
            mask = TokenMask(*(part[taken] for part in whole_mask))
            with autocast(precision, device):
                result = reconstruct(model, batch.signal[taken], mask)
            truth, predicted = (
                model.tokenizer.paste(part, mask.hidden)
                for part in (result.truth, result.predicted)
            )
            if rows and number == first + ranks.rank:
                tally.add(batch.recording_ids[taken], masked_sums(truth, predicted))
    tally.add_up(ranks)
    return tally.measured(reader.table)


class Tally:
    """Sums of a validation, by recording and by parcel."""

    def __init__(self, windows: Sequence[Window], parcels: int):
        """Nothing is counted yet of these windows."""
        self.names = sorted({window.recording_id for window in windows})
        self._place = {name: place for place, name in enumerate(self.names)}
        self._windows = len(windows)
        self.of_recordings = np.zeros((len(self.names), N_SUMS))
        self.of_parcels = np.zeros((parcels, N_SUMS))

    def add(self, recording_ids: Sequence[str], sums: Sums) -> None:
        """Count windows of these recordings, (windows, parcels, 6)."""
        np.add.at(
            self.of_recordings, [self._place[name] for name in recording_ids], sums.sum(axis=1)
        )
        self.of_parcels += sums.sum(axis=0)

    def add_up(self, ranks: Ranks) -> None:
        """Add what the other processes counted."""
        for sums in (self.of_recordings, self.of_parcels):
            sums[:] = ranks.total(torch.from_numpy(sums)).numpy()

    def measured(self, table: pd.DataFrame) -> Measured:
        """The scores; `table` is the shards' index."""
        found = scores(self.of_parcels.sum(axis=0))
        parcel_r2 = scores(self.of_parcels)["r2"]
        row = {
            "val_loss": float(found["mse"]),
            "val_r2": defined(found["r2"]),
            "val_pearson": defined(found["pearson"]),
            **parcel_quantiles(parcel_r2),
            "val_recordings": len(self.names),
            "val_windows": self._windows,
        }

        def score(places: NDArray[np.int64]) -> dict[str, float | None]:
            own = scores(self.of_recordings[places].sum(axis=0))
            return {name: defined(own[name]) for name in ("mse", "r2", "pearson")}

        return Measured(row, group_rows(table, self.names, score), parcel_r2)


def parcel_quantiles(parcel_r2: Floats) -> dict[str, float | None]:
    """How R2 is spread over the parcels for which it is defined."""
    known = parcel_r2[np.isfinite(parcel_r2)]
    values = np.percentile(known, list(_QUANTILES)) if len(known) else [np.nan] * len(_QUANTILES)
    return {
        f"val_r2_parcel_{name}": defined(value)
        for name, value in zip(_QUANTILES.values(), values, strict=True)
    }


def group_rows(
    table: pd.DataFrame,
    names: Sequence[str],
    score: Callable[[NDArray[np.int64]], Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """A row for each dataset and each site of the recordings `names`, if there are several.

    `score` is given the places in `names` of a group's recordings. Recordings whose site is not
    known belong to none.
    """
    rows = []
    for by in _told_by(table):
        own = table.loc[list(names), by].fillna("").astype(str).to_numpy(dtype=np.str_)
        known = sorted(set(own.tolist()) - {""})
        for group in known if len(known) > 1 else ():
            places = np.flatnonzero(own == group)
            about = {"split": "val", "by": by, "group": group, "recordings": len(places)}
            rows.append({**about, **score(places)})
    return rows


def _told_by(table: pd.DataFrame) -> list[str]:
    """The columns of `GROUPS` that an index has: those of a schema before this one lack some."""
    return [name for name in GROUPS if name in table]


def defined(value: float | Floats) -> float | None:
    """A score for the log: None where it is not defined."""
    return float(value) if np.isfinite(value) else None


def fixed_windows(
    table: pd.DataFrame, lengths: Mapping[str, int], window: int, most: int | None
) -> list[Window]:
    """`even_windows`, at most so many: evenly from all datasets and sites, always the same ones.

    Neither the seed nor the model has a say, so that trainings on the same shards can be compared.
    """
    windows = even_windows(lengths, window)
    if most is None or len(windows) <= most:
        return windows
    groups = table[_told_by(table)].fillna("").astype(str)
    group_of = dict(zip(groups.index, groups.itertuples(index=False, name=None), strict=True))
    order = sorted(
        windows, key=lambda each: (group_of[each.recording_id], uniform_of("validation", *each))
    )
    return sorted(order[(2 * place + 1) * len(order) // (2 * most)] for place in range(most))
