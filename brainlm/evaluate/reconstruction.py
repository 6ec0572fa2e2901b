"""Masked reconstruction of held-out subjects, beside what needs no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ..model.mae import MaskedAutoencoder
from ..shards.reader import ShardReader
from ..shards.sampler import Window, check_any_window, even_windows
from ..train.data import fewest_parcels
from .hiding import MODEL, Condition, Guessed, Hider, Read, Tick, read_alike
from .tally import Tally, listed

Floats = NDArray[np.float32]

_TRACE_RECORDINGS = 3
_TRACE_QUANTILES = (0.9, 0.5, 0.1)


@dataclass(frozen=True)
class ReconstructionResult:
    """Scores, and a few traces to look at."""

    metrics: dict[str, Any]
    traces: pd.DataFrame  # recording_id, parcel, t, true, predicted, masked


#: Is told of a batch what was hidden of it, and how it was guessed.
Look = Callable[[Read, Condition, Guessed], None]


def evaluate_reconstruction(
    model: MaskedAutoencoder,
    reader: ShardReader,
    *,
    main: Condition,
    others: Sequence[Condition],
    bootstrap: int,
    seed: int,
    batch_size: int,
    tick: Tick,
) -> ReconstructionResult:
    """Score the test split on fixed windows with fixed masks, one per (seed, recording, start).

    `metrics` and `baselines` are those of the `main` condition over all test subjects.
    """
    conditions = list(dict.fromkeys([main, *others]))
    windows = scored_windows(reader, model.config.timepoints)
    kept = _Kept(windows, main)
    tallies = tally_conditions(
        model, reader, windows, conditions, seed=seed, batch_size=batch_size, tick=tick, look=kept
    )
    told = {name: tally.told(bootstrap, seed) for name, tally in tallies.items()}
    everybody = tallies[main].cohorts[0]
    per_parcel = tallies[main].parcel_r2(everybody)
    whole = told[main][0]
    own, *plain = main.methods
    metrics = {
        "task": "reconstruction",
        "metrics": whole["methods"][own],
        "baselines": {name: whole["methods"][name] for name in plain},
        "per_parcel_r2": listed(per_parcel),
        "median_parcel_r2": whole["median_parcel_r2"],
        "n_subjects": whole["n_subjects"],
        **({"n_units": whole["n_units"]} if "n_units" in whole else {}),
        "n_recordings": whole["n_recordings"],
        "n_windows": len(windows),
        "mask_ratio": main.share,
        "conditions": [
            {**asdict(condition), "cohorts": cohorts} for condition, cohorts in told.items()
        ],
        "bootstrap": bootstrap,
        "seed": seed,
    }
    return ReconstructionResult(metrics, kept.traces(per_parcel))


def scored_windows(reader: ShardReader, timepoints: int) -> list[Window]:
    """The windows that every model of such windows is scored on; refuses what cannot be scored."""
    lengths = reader.lengths("test")
    check_any_window(lengths, timepoints, "test")
    fewest_parcels(reader, ("test",))  # refuses a recording without data, by its name
    return even_windows(lengths, timepoints)


def tally_conditions(
    model: MaskedAutoencoder,
    reader: ShardReader,
    windows: Sequence[Window],
    conditions: Sequence[Condition],
    *,
    seed: int,
    batch_size: int,
    tick: Tick,
    look: Look | None = None,
) -> dict[Condition, Tally]:
    """Read each window once and hide it as each of the conditions says."""
    recordings = sorted({window.recording_id for window in windows})
    tallies = {each: Tally(reader, recordings, each.methods) for each in conditions}
    hider = Hider(model, reader, seed)
    for read in read_alike(reader, windows, model, batch_size, tick):
        part, batch = read
        for condition in conditions:
            guessed = hider.guess(part, batch.signal, condition)
            tallies[condition].add(batch.recording_ids, guessed)
            if look is not None:
                look(read, condition, guessed)
    return tallies


class _Kept:
    """Keeps the first window of the first few recordings, under one condition."""

    def __init__(self, windows: Sequence[Window], condition: Condition):
        names = sorted({window.recording_id for window in windows})[:_TRACE_RECORDINGS]
        self.condition = condition
        self.wanted = {min(w for w in windows if w.recording_id == name) for name in names}
        self.seen: dict[Window, tuple[Floats, Floats]] = {}  # true, predicted: (parcels, time)

    def __call__(self, read: Read, condition: Condition, guessed: Guessed) -> None:
        part, batch = read
        for row, window in enumerate(part if condition == self.condition else ()):
            if window in self.wanted:
                hidden = ~guessed.truth[row].isnan()
                predicted = guessed.guesses[MODEL][row].where(hidden, torch.nan)
                self.seen[window] = (batch.signal[row].cpu().numpy(), predicted.cpu().numpy())

    def traces(self, parcel_r2: NDArray[np.float64]) -> pd.DataFrame:
        """Whole windows of a well, a middling and a badly reconstructed parcel."""
        known = np.flatnonzero(np.isfinite(parcel_r2))
        order = known[np.argsort(parcel_r2[known], kind="stable")]
        if not len(order):
            order = np.arange(len(parcel_r2))
        chosen = [int(order[round(q * (len(order) - 1))]) for q in _TRACE_QUANTILES]
        return pd.concat(
            [
                pd.DataFrame(
                    {
                        "recording_id": window.recording_id,
                        "parcel": parcel,
                        "t": np.arange(true.shape[1]),
                        "true": true[parcel].astype(float),
                        "predicted": predicted[parcel],
                        "masked": ~np.isnan(predicted[parcel]),
                    }
                )
                for window, (true, predicted) in sorted(self.seen.items())
                for parcel in dict.fromkeys(chosen)
            ],
            ignore_index=True,
        )
