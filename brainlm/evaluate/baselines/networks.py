"""What forecasting networks have in common that are trained from scratch."""

from __future__ import annotations

from torch import Tensor, nn

from ...train import forecasting


class ForecastNetwork(nn.Module):
    """A network that forecasts; calling it is calling a `forecasts.Forecaster`."""

    def forward(self, past: Tensor, timepoints: int) -> Tensor:
        """What follows; parcels without data are read as 0, their mean."""
        return self.follow(past.nan_to_num(nan=0.0), timepoints)

    def follow(self, past: Tensor, timepoints: int) -> Tensor:
        """(windows, parcels, timepoints) after (windows, parcels, time)."""
        raise NotImplementedError

    def loss(self, past: Tensor, truth: Tensor) -> Tensor:
        """Mean squared error over the entries that `truth`, (windows, parcels, future), has; ()."""
        return squared_error(self(past, truth.shape[2]), truth)


def squared_error(guessed: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error over the entries of `truth` that are not NaN, ()."""
    error = forecasting.squared_error(guessed, truth)
    return error.total / error.weight.clamp(min=1)


def begin_with_the_mean(last: nn.Linear) -> None:
    """Let a network's first guess be 0, the mean of each parcel: a good one for what is noisy."""
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
