"""Masked reconstruction of held-out subjects, beside what needs no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ..model.config import ModelConfig
from ..model.mae import MaskedAutoencoder
from ..model.mask import count_visible, generator, random_mask
from ..shards.reader import ShardReader
from ..shards.sampler import Window, check_any_window, even_windows
from ..train.data import fewest_parcels, load_batch
from ..train.validation import N_SUMS, Sums, masked_sums, reconstruct, scores
from .baselines.interpolation import interpolate_hidden
from .statistics import scores_with_ci

#: The model, and the two guesses that need none: the recording's own mean (0 after scaling),
#: and a line in time between the visible patches of the same parcel.
GUESSERS = ("brainlm", "zero", "interpolation")

_TRACE_RECORDINGS = 3
_TRACE_QUANTILES = (0.9, 0.5, 0.1)


@dataclass(frozen=True)
class ReconstructionResult:
    """Scores, and a few traces to look at."""

    metrics: dict[str, Any]
    traces: pd.DataFrame  # recording_id, parcel, t, true, predicted, masked


def evaluate_reconstruction(
    model: MaskedAutoencoder,
    reader: ShardReader,
    *,
    mask_ratio: float,
    bootstrap: int,
    seed: int,
) -> ReconstructionResult:
    """Score the test split on fixed windows with fixed masks, one per (seed, recording)."""
    config = model.config
    lengths = reader.lengths("test")
    check_any_window(lengths, config.timepoints, "test")
    windows = even_windows(lengths, config.timepoints)
    fewest_parcels(reader, ("test",))  # refuses a recording without data, by its name
    subject_of = reader.table["subject"].astype(str).to_dict()
    subjects = sorted({subject_of[window.recording_id] for window in windows})
    row = {subject: number for number, subject in enumerate(subjects)}
    sums: dict[str, Sums] = {
        name: np.zeros((len(subjects), config.parcels, N_SUMS)) for name in GUESSERS
    }
    shown: dict[str, _Seen] = {}
    for window in windows:
        seen = _look(model, reader, window, mask_ratio, seed)
        for name in GUESSERS:
            subject = row[subject_of[window.recording_id]]
            sums[name][subject] += seen.sums(name)
        if len(shown) < _TRACE_RECORDINGS:
            shown.setdefault(window.recording_id, seen)

    table = {name: scores_with_ci(sums[name].sum(axis=1), bootstrap, seed) for name in GUESSERS}
    per_parcel = scores(sums["brainlm"].sum(axis=0))["r2"]
    finite = per_parcel[np.isfinite(per_parcel)]
    metrics = {
        "task": "reconstruction",
        "metrics": table.pop("brainlm"),
        "baselines": table,
        "per_parcel_r2": [float(v) if np.isfinite(v) else None for v in per_parcel],
        "median_parcel_r2": float(np.median(finite)) if len(finite) else None,
        "n_subjects": len(subjects),
        "n_recordings": len({window.recording_id for window in windows}),
        "n_windows": len(windows),
        "mask_ratio": mask_ratio,
        "bootstrap": bootstrap,
        "seed": seed,
    }
    return ReconstructionResult(metrics, _traces(shown, per_parcel, config))


@dataclass(frozen=True)
class _Seen:
    """One window, what was hidden of it, and what each guesser makes of that."""

    signal: NDArray[np.float32]  # (parcels, time)
    truth: torch.Tensor  # (1, parcels, time), NaN where nothing was to be guessed
    guesses: Mapping[str, torch.Tensor]  # (1, parcels, time)

    def sums(self, name: str) -> Sums:
        """(parcels, 6) of one guesser."""
        return masked_sums(self.truth, self.guesses[name])[0]


def _look(
    model: MaskedAutoencoder, reader: ShardReader, window: Window, mask_ratio: float, seed: int
) -> _Seen:
    """Hide `mask_ratio` of this very recording's tokens, however many parcels it covers."""
    config, tokenizer = model.config, model.tokenizer
    device = next(model.parameters()).device
    batch = load_batch(reader, [window], config.timepoints, device)
    source = generator(seed, "test", window.recording_id, window.start)
    available = tokenizer.available(batch.covered)
    n_visible = count_visible(mask_ratio, int(available.sum()))
    mask = random_mask(available, n_visible, source)
    result = reconstruct(model, batch.signal, mask)
    truth, predicted = (
        tokenizer.paste(part, mask.hidden).cpu() for part in (result.truth, result.predicted)
    )
    signal = batch.signal[0].cpu().numpy()
    known = truth[0].isnan().numpy() & ~np.isnan(signal)
    interpolated = torch.from_numpy(interpolate_hidden(signal, known))[None]
    return _Seen(
        signal=signal,
        truth=truth,
        guesses={
            "brainlm": predicted,
            "zero": torch.zeros_like(truth),
            "interpolation": interpolated,
        },
    )


def _traces(
    shown: Mapping[str, _Seen], per_parcel: NDArray[np.float64], config: ModelConfig
) -> pd.DataFrame:
    """Whole windows of a well, a middling and a badly reconstructed parcel."""
    order = np.argsort(np.where(np.isfinite(per_parcel), per_parcel, -np.inf), kind="stable")
    order = order[np.isfinite(per_parcel[order])]
    if not len(order):
        order = np.arange(config.parcels)
    chosen = [int(order[round(q * (len(order) - 1))]) for q in _TRACE_QUANTILES]
    parts = []
    for recording_id, seen in shown.items():
        predicted = seen.guesses["brainlm"][0].numpy()
        for parcel in dict.fromkeys(chosen):
            parts.append(
                pd.DataFrame(
                    {
                        "recording_id": recording_id,
                        "parcel": parcel,
                        "t": np.arange(config.timepoints),
                        "true": seen.signal[parcel].astype(float),
                        "predicted": predicted[parcel],
                        "masked": ~np.isnan(predicted[parcel]),
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)
