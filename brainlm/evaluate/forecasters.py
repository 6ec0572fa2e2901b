"""The methods of forecasting by their names: the model, and what it is compared with.

Everything that is fitted is fitted on the train split, and chosen on the validation split, at the
very horizon that is tested.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..model.mae import MaskedAutoencoder
from ..shards.reader import ShardReader
from ..shards.sampler import check_any_window, even_windows
from ..train.forecasting import check_future
from .baselines.autoregression import fit_autoregression
from .baselines.persistence import mean, persistence
from .baselines.vector_autoregression import fit_vector_autoregression
from .forecasts import Forecaster, forecast_error

#: Methods that take no training by steps.
LINEAR = ("mean", "persistence", "ar", "var")


@dataclass(frozen=True)
class Horizon:
    """What is to be forecast."""

    window: int  # time points of past and future together
    future: int
    batch_size: int
    device: torch.device

    def __post_init__(self) -> None:
        """Refuse windows without a past."""
        check_future(self.future, self.window)

    @property
    def how(self) -> dict[str, Any]:
        """As `forecasts.forecasted` wants it."""
        return vars(self)


@dataclass(frozen=True, eq=False)
class ModelForecaster:
    """A masked autoencoder to which the future is hidden."""

    model: MaskedAutoencoder

    def __call__(self, past: Tensor, timepoints: int) -> Tensor:
        """The `timepoints` after `past`."""
        hidden = past.new_zeros(*past.shape[:2], timepoints)
        return self.model.eval().forecast(torch.cat([past, hidden], dim=2), timepoints)


def fit_linear(
    method: str, reader: ShardReader, horizon: Horizon
) -> tuple[Forecaster, dict[str, Any]]:
    """A forecaster that takes no training by steps, and what was chosen."""
    if method == "mean":
        return mean, {}
    if method == "persistence":
        return persistence, {}
    val = reader.lengths("val")
    check_any_window(val, horizon.window, "val")
    windows = even_windows(val, horizon.window)

    def error_of(candidate: Forecaster) -> float:
        return forecast_error(candidate, reader, windows, **horizon.how)

    if method == "ar":
        return fit_autoregression(_train_series(reader), error_of)
    return fit_vector_autoregression(_train_series(reader), error_of)


def _train_series(reader: ShardReader) -> Iterator[NDArray[np.float32]]:
    for name in sorted(reader.lengths("train")):
        yield reader.series(name)
