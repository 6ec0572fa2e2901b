"""Masked reconstruction in numbers, from sums that can be added up over any grouping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..model.mae import MaskedAutoencoder, Reconstruction
from ..model.mask import TokenMask, generator
from ..shards.reader import ShardReader
from ..shards.sampler import Window, batches
from .data import load_batch
from .distributed import ALONE, Ranks
from .masking import Masking
from .precision import Precision, autocast

Sums = NDArray[np.float64]

#: Last axis of the sums: count, truth, truth^2, prediction, prediction^2, truth x prediction.
N_SUMS = 6


def masked_sums(truth: Tensor, predicted: Tensor) -> Sums:
    """Sums over the entries that `truth` has, (batch, parcels, 6), in float64.

    Both are (batch, parcels, time), `truth` NaN wherever nothing was to be guessed.
    """
    counted = ~truth.isnan()
    y, p = (torch.where(counted, part, 0.0).double() for part in (truth, predicted))
    terms = torch.stack([counted.double(), y, y * y, p, p * p, y * p], dim=-1)
    return np.asarray(terms.sum(dim=2).cpu().numpy())


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
) -> dict[str, Any]:
    """Squared error and R2 on fixed windows with fixed masks, shared out among the processes."""
    config = model.config
    device = next(model.parameters()).device
    total = np.zeros(N_SUMS)
    chosen = batches(windows, batch_size)
    for first in range(0, len(chosen), ranks.world):
        # Where a model is shared out, all must go through it equally often: some for nothing.
        number = min(first + ranks.rank, len(chosen) - 1)
        batch = load_batch(reader, chosen[number], config.timepoints, device)
        source = generator(seed, "validation", number)
        mask = masking.draw(model.tokenizer, batch.covered, source)
        with autocast(precision, device):
            result = reconstruct(model, batch.signal, mask)
        truth, predicted = (
            model.tokenizer.paste(part, mask.hidden) for part in (result.truth, result.predicted)
        )
        if number == first + ranks.rank:
            total += masked_sums(truth, predicted).sum((0, 1))
    found = scores(ranks.total(torch.from_numpy(total)).numpy())
    return {
        "val_loss": float(found["mse"]),
        "val_r2": float(found["r2"]) if np.isfinite(found["r2"]) else None,
    }
