"""Networks that learn to forecast from nothing, as fairly as the model they are compared with.

The same train windows, the same loop (which can be killed and goes on), the same error on the
same validation windows to stop by and to choose by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from ..model.mask import generator
from ..shards.reader import ShardReader
from ..shards.sampler import Window, check_any_window, even_windows
from ..train.data import MappedSource
from ..train.distributed import Ranks
from ..train.task import Loss
from ..train.tuning import Circumstances, tune
from ..train.validation import Measured
from .baselines import latent_ode, lstm, neural_ode
from .baselines.networks import ForecastNetwork
from .forecasters import Horizon
from .forecasts import forecast_error
from .from_nothing import NetworkPace, NetworkTask
from .trials import best_of

#: Method -> its network, made of parcels and a size, and (size, peak rate) to choose from.
NETWORKS: dict[str, tuple[Callable[[int, int], ForecastNetwork], Sequence[tuple[int, float]]]] = {
    "lstm": (lstm.LSTMForecaster, lstm.SEARCH),
    "neural-ode": (neural_ode.NeuralODEForecaster, neural_ode.SEARCH),
    "latent-ode": (latent_ode.LatentODEForecaster, latent_ode.SEARCH),
}


@dataclass(frozen=True, eq=False)
class ForecastNetworkTask(NetworkTask):
    """Learning to forecast from nothing: what `tuning.tune` asks for."""

    model: ForecastNetwork
    reader: ShardReader
    train: Mapping[str, int]
    val_windows: Sequence[Window]
    horizon: Horizon

    @property
    def window(self) -> int:
        """Past and future together."""
        return self.horizon.window

    def fetch(self, windows: Sequence[Window], rows: Sequence[int], key: object) -> Tensor:
        """The windows of these rows, as the shards hold them; nothing is drawn."""
        return self._source.fetch([windows[row] for row in rows])

    def loss(self, trained: nn.Module, fetched: Tensor) -> Loss:
        """The network's own loss of these windows."""
        signal, future = self._source.signal(fetched), self.horizon.future
        loss = self.model.loss(signal[:, :, :-future], signal[:, :, -future:])
        weight = torch.tensor(float(len(signal)), device=loss.device)
        return Loss(loss * weight, weight)

    def validate(self, ranks: Ranks) -> Measured:
        """Squared error of the future of the validation windows."""
        error = forecast_error(self.model, self.reader, self.val_windows, **self.horizon.how)
        return Measured({"val_loss": error})

    @cached_property
    def _source(self) -> MappedSource:
        return MappedSource(self.reader, self.window, self.horizon.device)


def fit_network(
    method: str,
    reader: ShardReader,
    horizon: Horizon,
    *,
    epochs: int,
    patience: int,
    search: bool,
    seed: int,
    around: Callable[[str], Circumstances],
) -> tuple[ForecastNetwork, dict[str, Any]]:
    """The network of the lowest validation error among its settings, and what was tried.

    `around` tells the circumstances of the setting of a name (its folder of checkpoints).
    """
    make, settings = NETWORKS[method]
    train, val = reader.lengths("train"), reader.lengths("val")
    for split, lengths in (("train", train), ("val", val)):
        check_any_window(lengths, horizon.window, split)
    long_enough = {name: length for name, length in train.items() if length >= horizon.window}
    chosen: dict[str, dict[str, Any]] = {}

    def trial(name: str, size: int, rate: float) -> tuple[ForecastNetwork, float]:
        network = _made(make, horizon.device, (reader.n_parcels, size), (seed, method, size, rate))
        val_windows = even_windows(val, horizon.window)
        task = ForecastNetworkTask(network, reader, long_enough, val_windows, horizon)
        pace = NetworkPace(epochs, patience, horizon.batch_size, rate)
        row = tune(task, pace, seed, around(name))
        chosen[name] = {"size": size, "rate": rate, "epoch": row["epoch"]}
        return network, row["val_loss"]

    names = {
        f"size-{size}-rate-{rate:g}": (size, rate)
        for size, rate in (settings if search else settings[:1])
    }
    network, best, tried = best_of({name: partial(trial, name, *of) for name, of in names.items()})
    return network.eval(), {**chosen[best], "tried": tried}


def _made(
    make: Callable[[int, int], ForecastNetwork],
    device: torch.device,
    sizes: tuple[int, int],
    key: tuple[object, ...],
) -> ForecastNetwork:
    """A network whose first weights are decided by `key`."""
    with torch.random.fork_rng():
        torch.manual_seed(generator(*key).initial_seed())
        return make(*sizes).to(device)
