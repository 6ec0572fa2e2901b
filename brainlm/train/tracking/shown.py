"""Numbers of the pictures of a training: guesses of hidden stretches, vectors of recordings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...model.inference import encode, even_starts, looks
from ...model.mae import MaskedAutoencoder
from ...model.mask import generator
from ...shards.dataset import as_signal
from ...shards.reader import ShardReader
from ...shards.sampler import Window, batches
from ..data import Batch, load_batch
from ..distributed import is_part
from ..label_scores import regression_scores
from ..masking import Masking
from ..precision import Precision, autocast
from ..validation import reconstruct

Floats = NDArray[np.float64]

#: Truth and guess of a batch, (batch, parcels, time); truth is NaN where nothing was guessed.
Guess = Callable[[Batch, int], tuple[Tensor, Tensor]]

_TRACES = 5
_BINS = 90
#: Per thousand of the entries that may lie outside the picture, at either end.
_OUTSIDE = 2


@dataclass(frozen=True, eq=False)
class Trace:
    """A parcel of one window."""

    parcel: int
    true: Floats  # (time,), scaled
    guessed: Floats  # (time,), NaN where it was shown


@dataclass(frozen=True, eq=False)
class Guesses:
    """What a model makes of what is hidden from it."""

    traces: Sequence[Trace]
    counts: Floats  # (bins, bins) entries by truth and guess
    edges: Floats  # (bins + 1,) of both
    r2: float


def guesses(
    reader: ShardReader,
    windows: Sequence[Window],
    length: int,
    device: torch.device,
    guess: Guess,
    batch_size: int,
) -> Guesses:
    """Have these windows guessed; the traces are of the first."""
    traces: list[Trace] = []
    truths, guessed = [], []
    for number, some in enumerate(batches(windows, batch_size)):
        batch = load_batch(reader, some, length, device)
        truth, predicted = (part.float().cpu() for part in guess(batch, number))
        known = ~truth.isnan()
        if not traces:
            traces = _traces(batch.signal[0].cpu(), known[0], predicted[0])
        truths.append(truth[known].double().numpy())
        guessed.append(predicted[known].double().numpy())
    truth_of_all, guessed_of_all = np.concatenate(truths), np.concatenate(guessed)
    return Guesses(
        traces,
        *_histogram(truth_of_all, guessed_of_all),
        regression_scores(truth_of_all, guessed_of_all)["r2"],
    )


def masked_guess(
    model: MaskedAutoencoder, masking: Masking, seed: int, precision: Precision
) -> Guess:
    """Guesses as a pretraining's validation makes them, of masks of their own."""

    def guess(batch: Batch, number: int) -> tuple[Tensor, Tensor]:
        mask = masking.draw(model.tokenizer, batch.covered, generator(seed, "shown", number))
        with autocast(precision, batch.signal.device):
            result = reconstruct(model, batch.signal, mask)
        truth, predicted = (
            model.tokenizer.paste(part, mask.hidden) for part in (result.truth, result.predicted)
        )
        return truth, predicted

    return guess


def forecast_guess(model: MaskedAutoencoder, timepoints: int, precision: Precision) -> Guess:
    """Forecasts of the last time points of a window."""

    @torch.no_grad()
    def guess(batch: Batch, number: int) -> tuple[Tensor, Tensor]:
        was_training = model.training
        with autocast(precision, batch.signal.device):
            found = model.eval().forecast(batch.signal, timepoints).float()
        model.train(was_training)
        truth, predicted = (torch.full_like(batch.signal, torch.nan) for _ in range(2))
        truth[:, :, -timepoints:] = batch.signal[:, :, -timepoints:]
        predicted[:, :, -timepoints:] = found
        return truth, predicted

    return guess


@torch.no_grad()
def cls_vectors(
    model: MaskedAutoencoder, reader: ShardReader, names: Sequence[str], precision: Precision
) -> Floats | None:
    """CLS of the middle window of each recording, shown whole, (recordings, hidden).

    None where each process holds only a part of the model.
    """
    if any(is_part(parameter) for parameter in model.parameters()):
        return None
    device, length = model.cls.device, model.config.timepoints
    was_training = model.training
    model.eval()
    vectors = []
    for name in names:
        values = as_signal(torch.from_numpy(reader.series(name))[None])[0].to(device)
        starts = even_starts(values.shape[1], length)
        some = looks(model, values, starts[len(starts) // 2 :][:1])
        with autocast(precision, device):
            vectors += [latents[:, 0].double().cpu() for _, latents in encode(model, some, 1)]
    model.train(was_training)
    return torch.cat(vectors).numpy()


def spread(names: Sequence[str], most: int) -> list[str]:
    """At most so many of the names, evenly spread."""
    if len(names) <= most:
        return list(names)
    return [names[place * len(names) // most] for place in range(most)]


def _traces(signal: Tensor, known: Tensor, predicted: Tensor) -> list[Trace]:
    """Some parcels of a window of which something was hidden, evenly spread over the atlas."""
    parcels = known.any(dim=1).nonzero()[:, 0].tolist()
    chosen = sorted({parcels[(2 * n + 1) * len(parcels) // (2 * _TRACES)] for n in range(_TRACES)})
    guessed = torch.where(known, predicted, torch.nan).double().numpy()
    true = signal.double().numpy()
    return [Trace(parcel, true[parcel], guessed[parcel]) for parcel in chosen]


def _histogram(truth: Floats, guessed: Floats) -> tuple[Floats, Floats]:
    """Entries by truth and guess; the few outermost are left out of the picture."""
    share = _OUTSIDE / 1000
    ends = np.quantile(truth, [share, 1 - share]), np.quantile(guessed, [share, 1 - share])
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    return np.histogram2d(truth, guessed, bins=[edges, edges])[0], edges
