"""Fine-tuning on forecasting: the last time points of a window, from those before.

The whole past is shown, as `BrainLM.forecast` shows it, and the error of the future alone counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..model.mae import MaskedAutoencoder
from ..shards.reader import ShardReader
from ..shards.sampler import Window, batches, check_any_window, even_windows
from .data import MappedSource, share_out
from .distributed import ALONE, Ranks
from .pretrained_task import PretrainedTask
from .settings import FinetuneSettings
from .task import Loss
from .tuning import Circumstances, tune
from .validation import Measured, Tally, masked_sums, scores


class Forecaster(nn.Module):
    """The network as it is trained here: its forward pass is the forecast."""

    def __init__(self, autoencoder: MaskedAutoencoder, timepoints: int):
        """To forecast so many `timepoints`, the last of a window."""
        super().__init__()
        self.autoencoder = autoencoder
        self.timepoints = timepoints

    def forward(self, signal: Tensor) -> Tensor:
        """(windows, parcels, window) -> (windows, parcels, timepoints), scaled."""
        return self.autoencoder.forecast(signal, self.timepoints)


@dataclass(frozen=True, eq=False)
class ForecastTask(PretrainedTask):
    """Learning to forecast: what `tuning.tune` asks for."""

    model: Forecaster
    reader: ShardReader
    train: Mapping[str, int]
    val_windows: Sequence[Window]
    settings: FinetuneSettings
    decodes = True

    @property
    def autoencoder(self) -> MaskedAutoencoder:
        """All of it that learns."""
        return self.model.autoencoder

    def fetch(self, windows: Sequence[Window], rows: Sequence[int], key: object) -> Tensor:
        """The windows of these rows, as the shards hold them; nothing is drawn."""
        return self._source.fetch([windows[row] for row in rows])

    def loss(self, trained: nn.Module, fetched: Tensor) -> Loss:
        """Mean squared error over the future's entries with data."""
        signal = self._source.signal(fetched)
        return squared_error(trained(signal), signal[:, :, -self.model.timepoints :])

    def validate(self, ranks: Ranks = ALONE) -> Measured:
        """How good the forecasts of fixed windows are."""
        return forecast_tally(self, self.val_windows, ranks).measured(self.reader.table)

    def signal(self, windows: Sequence[Window]) -> Tensor:
        """(windows, parcels, time), scaled, on the device."""
        return self._source.signal(self._source.fetch(windows))

    @cached_property
    def _source(self) -> MappedSource:
        length, device = self.autoencoder.config.timepoints, self.autoencoder.cls.device
        return MappedSource(self.reader, length, device)


def persistence(past: Tensor, timepoints: int) -> Tensor:
    """The plainest forecast: the last value of each parcel goes on, `timepoints` times.

    `past` is (windows, parcels, time).
    """
    return past[:, :, -1:].expand(-1, -1, timepoints)


def squared_error(guessed: Tensor, truth: Tensor) -> Loss:
    """Over the entries of `truth` that are not NaN."""
    known = ~truth.isnan()
    error = torch.where(known, guessed - truth, 0.0).float()
    return Loss(error.square().sum(), known.sum())


@torch.no_grad()
def forecast_tally(
    task: ForecastTask,
    windows: Sequence[Window],
    ranks: Ranks = ALONE,
    forecast: Callable[[Tensor], Tensor] | None = None,
) -> Tally:
    """Sums over all entries of the windows' future; the processes share the work.

    Of the task's network, or of what else makes a `forecast` of whole windows.
    """
    forecast, future = forecast or task.model, task.model.timepoints
    chosen = batches(windows, task.settings.batch_size)
    tally = Tally(windows, task.autoencoder.config.parcels)
    for row in share_out(len(chosen), ranks.rank, ranks.world, passes=1)[0]:
        signal = task.signal(chosen[row])
        sums = masked_sums(signal[:, :, -future:], forecast(signal).float())
        tally.add([window.recording_id for window in chosen[row]], sums)
    tally.add_up(ranks)
    return tally


def forecast_scores(
    task: ForecastTask,
    windows: Sequence[Window],
    forecast: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, float]:
    """mse, and r2 and pearson where they are defined, over all entries of the windows' future."""
    sums = forecast_tally(task, windows, forecast=forecast).of_parcels.sum(axis=0)
    found = {name: float(value) for name, value in scores(sums).items()}
    return {name: value for name, value in found.items() if name == "mse" or value == value}


def compared(task: ForecastTask, pretrained: MaskedAutoencoder) -> dict[str, float]:
    """Validation scores of the task's network, of the one it began as, and of persistence."""
    future = task.model.timepoints
    forecasts: dict[str, Callable[[Tensor], Tensor]] = {
        "fine-tuned": task.model.eval(),
        "before fine-tuning": Forecaster(pretrained, future).eval(),
        "last value": lambda signal: persistence(signal[:, :, :-future], future),
    }
    return {
        f"{score} ({name})": value
        for name, forecast in forecasts.items()
        for score, value in forecast_scores(task, task.val_windows, forecast=forecast).items()
    }


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


def check_future(future: int, window: int) -> None:
    """Refuse windows without a past."""
    if future >= window:
        raise InputError(
            f"finetune.forecast_timepoints is {future}, but the model's window is {window}",
            fix=f"choose less than {window}, e.g. {max(1, window // 10)}",
        )


def forecast_task(
    model: MaskedAutoencoder, reader: ShardReader, settings: FinetuneSettings
) -> ForecastTask:
    """Check and gather what there is to learn from."""
    window, future = model.config.timepoints, settings.forecast_timepoints
    check_future(future, window)
    train, val = reader.lengths("train"), reader.lengths("val")
    for split, lengths in (("train", train), ("val", val)):
        check_any_window(lengths, window, split)
    long_enough = {name: length for name, length in train.items() if length >= window}
    return ForecastTask(
        Forecaster(model, future),
        reader,
        long_enough,
        even_windows(val, window),
        settings,
    )
