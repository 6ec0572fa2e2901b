"""Forecasting what follows a stretch of a recording, scored for any method alike.

A forecaster is anything that takes the past of windows and says what follows. Of each method the
sums of its guesses are kept, by subject and step into the future: scores, their intervals and
tests between methods follow from them without a second look at the data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..shards.reader import ShardReader
from ..shards.sampler import Window, batches
from ..train.data import load_batch
from ..train.validation import N_SUMS, Sums, masked_sums, scores
from .units import families_column

#: Columns of the table of a method, beside `cohort`, `subject` (and `family`) and `step`:
#: `masked_sums`, in order.
SUM_COLUMNS = ("n", "truth", "truth2", "guess", "guess2", "product")


class Forecaster(Protocol):
    """What can say how windows go on."""

    def __call__(self, past: Tensor, timepoints: int) -> Tensor:
        """(windows, parcels, timepoints) after `past`, (windows, parcels, time), both scaled.

        A parcel without data is NaN in `past`; what is said of it counts for nothing.
        """


@torch.no_grad()
def forecasted(
    forecaster: Forecaster,
    reader: ShardReader,
    windows: Sequence[Window],
    *,
    window: int,
    future: int,
    batch_size: int,
    device: torch.device,
) -> Iterator[tuple[Window, Sums]]:
    """Each window with the sums of its guesses over parcels, (future, 6)."""
    for some in batches(windows, batch_size):
        signal = load_batch(reader, some, window, device).signal
        past, truth = signal[:, :, :-future], signal[:, :, -future:]
        guessed = forecaster(past, future).float()
        by_step = masked_sums(truth.transpose(1, 2), guessed.transpose(1, 2))
        yield from zip(some, by_step, strict=True)


def forecast_error(
    forecaster: Forecaster, reader: ShardReader, windows: Sequence[Window], **how: object
) -> float:
    """Mean squared error over all entries of the windows' future; infinite if it explodes."""
    total: Sums = np.zeros(N_SUMS)
    with np.errstate(invalid="ignore", over="ignore"):
        for _, sums in forecasted(forecaster, reader, windows, **how):  # type: ignore[arg-type]
            total = total + sums.sum(axis=0)
    error = float(scores(total)["mse"])
    return error if np.isfinite(error) else float("inf")


def forecast_table(
    forecaster: Forecaster, reader: ShardReader, windows: Sequence[Window], **how: object
) -> pd.DataFrame:
    """A row for each cohort (dataset), subject and step (1 is the first of the future): sums."""
    about = reader.table
    by_subject: dict[tuple[str, str], Sums] = {}
    for window, sums in forecasted(forecaster, reader, windows, **how):  # type: ignore[arg-type]
        row = about.loc[window.recording_id]
        key = (str(row.get("dataset", "")), str(row["subject"]))
        by_subject[key] = by_subject.get(key, np.zeros_like(sums)) + sums
    parts = []
    families = families_column(about, people := sorted(set(about["subject"].astype(str))))
    family_of = {name: dict(zip(people, column, strict=True)) for name, column in families.items()}
    for (cohort, subject), sums in sorted(by_subject.items()):
        part = pd.DataFrame(sums, columns=list(SUM_COLUMNS))
        part.insert(0, "step", np.arange(1, len(sums) + 1))
        for name, of in family_of.items():
            part.insert(0, name, of[subject])
        part.insert(0, "subject", subject)
        part.insert(0, "cohort", cohort)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def sums_by_subject(table: pd.DataFrame) -> tuple[NDArray[np.str_], Sums]:
    """Subjects, and their sums (subjects, steps, 6), of one cohort's rows or of all.

    Whoever was scanned in two cohorts is one subject where both are looked at.
    """
    whole = table.groupby(["subject", "step"], sort=True)[list(SUM_COLUMNS)].sum()
    subjects = whole.index.get_level_values(0).unique().to_numpy(dtype=np.str_)
    return subjects, whole.to_numpy().reshape(len(subjects), -1, N_SUMS)
