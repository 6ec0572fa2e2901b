"""Fine-tuning on forecasting: the last time points of a window, from those before.

The whole past is shown, as `BrainLM.forecast` shows it, and the error of the future alone counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..model.mae import MaskedAutoencoder
from ..shards.reader import ShardReader
from ..shards.sampler import Window, batches, check_any_window, even_windows
from .data import load_batch
from .settings import FinetuneSettings
from .tuning import Circumstances, tune
from .validation import masked_sums, scores


@dataclass(frozen=True, eq=False)
class ForecastTask:
    """Learning to forecast: what `tuning.tune` asks for."""

    model: MaskedAutoencoder
    reader: ShardReader
    train: Mapping[str, int]
    val_windows: Sequence[Window]
    timepoints: int  # of the future
    batch_size: int
    decodes = True

    @property
    def autoencoder(self) -> MaskedAutoencoder:
        """All of it."""
        return self.model

    def loss(self, windows: Sequence[Window], step: int) -> Tensor:
        """Mean squared error over the future's entries with data."""
        truth, guessed = self.forecast(windows)
        known = ~truth.isnan()
        error = torch.where(known, guessed - truth, 0.0).float()
        return error.square().sum() / known.sum().clamp(min=1)

    def validate(self) -> dict[str, float]:
        """Error, R2 and r over all entries of fixed windows."""
        found = forecast_scores(self, self.val_windows)
        return {"val_loss": found.pop("mse"), **{f"val_{name}": v for name, v in found.items()}}

    def forecast(self, windows: Sequence[Window]) -> tuple[Tensor, Tensor]:
        """The future and its forecast, (windows, parcels, timepoints), scaled."""
        length, device = self.model.config.timepoints, self.model.cls.device
        signal = load_batch(self.reader, windows, length, device).signal
        guessed = self.model.forecast(signal, self.timepoints)
        return signal[:, :, -self.timepoints :], guessed


@torch.no_grad()
def forecast_scores(task: ForecastTask, windows: Sequence[Window]) -> dict[str, float]:
    """mse, and r2 and pearson where they are defined, over all entries of the windows' future."""
    sums = sum(
        masked_sums(*(part.float() for part in task.forecast(some))).sum((0, 1))
        for some in batches(windows, task.batch_size)
    )
    found = {name: float(value) for name, value in scores(sums).items()}
    return {name: value for name, value in found.items() if name == "mse" or value == value}


def finetune_forecast(
    model: MaskedAutoencoder,
    reader: ShardReader,
    settings: FinetuneSettings,
    *,
    seed: int,
    around: Circumstances,
) -> dict[str, Any]:
    """Train the pretrained `model`, on its device; it ends as its best epoch's.

    Returns that epoch's row of the log.
    """
    task = forecast_task(model, reader, settings)
    return tune(task, settings, seed, around)


def forecast_task(
    model: MaskedAutoencoder, reader: ShardReader, settings: FinetuneSettings
) -> ForecastTask:
    """Check and gather what there is to learn from."""
    window, future = model.config.timepoints, settings.forecast_timepoints
    if future >= window:
        raise InputError(
            f"finetune.forecast_timepoints is {future}, but the model's window is {window}",
            fix=f"choose less than {window}, e.g. {max(1, window // 10)}",
        )
    train, val = reader.lengths("train"), reader.lengths("val")
    for split, lengths in (("train", train), ("val", val)):
        check_any_window(lengths, window, split)
    long_enough = {name: length for name, length in train.items() if length >= window}
    return ForecastTask(
        model, reader, long_enough, even_windows(val, window), future, settings.batch_size
    )
