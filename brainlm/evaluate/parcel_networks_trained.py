"""Autoencoders whose idea of each parcel is compared with the model's attention.

They learn from nothing on train recordings, with as much of each window hidden as the model had, by
the loop of fine-tuning (which can be killed and goes on); their setting is chosen by the same error
in validation recordings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..model.mask import generator
from ..shards.reader import ShardReader
from ..shards.sampler import Window, batches, check_any_window
from ..shards.splits import uniform_of
from ..train.data import MappedSource
from ..train.distributed import Ranks
from ..train.task import Loss
from ..train.tuning import Circumstances, tune
from ..train.validation import Measured, fixed_windows
from .baselines.graph_autoencoder import GraphAutoencoder
from .baselines.parcel_autoencoder import ParcelAutoencoder
from .baselines.variational import VariationalAutoencoder
from .from_nothing import NetworkPace, NetworkTask
from .label_networks import train_graph
from .trials import best_of

#: Method -> what makes its network of the window, a size and the graph.
AUTOENCODERS: dict[str, Callable[[int, int, Tensor], ParcelAutoencoder]] = {
    "vae": VariationalAutoencoder,
    "gcn": GraphAutoencoder,
}
#: Sizes and peak learning rates to choose from on validation.
SEARCH = [(size, rate) for size in (32, 64) for rate in (3e-3, 1e-3)]
#: Windows, at most, that a validation looks at.
_VAL_WINDOWS = 512


@dataclass(frozen=True)
class Hiding:
    """How much of a window is hidden: this share of the patches of each parcel."""

    window: int
    patch: int
    ratio: float

    def drawn(self, parcels: int, *key: object) -> Tensor:
        """(parcels, window) bool, True where hidden, decided by `key`."""
        patches = -(-self.window // self.patch)
        hidden = torch.rand(parcels, patches, generator=generator(*key)) < self.ratio
        return hidden.repeat_interleave(self.patch, dim=1)[:, : self.window]


class Fetched(NamedTuple):
    """Windows on their way to the network."""

    stored: Tensor
    hidden: Tensor  # (windows, parcels, time) bool


@dataclass(frozen=True, eq=False)
class AutoencoderTask(NetworkTask):
    """Learning to tell windows from parts of them: what `tuning.tune` asks for."""

    model: ParcelAutoencoder
    reader: ShardReader
    train: Mapping[str, int]
    val_windows: Sequence[Window]
    hiding: Hiding
    batch_size: int
    seed: int
    device: torch.device

    @property
    def window(self) -> int:
        """Time points."""
        return self.hiding.window

    def fetch(self, windows: Sequence[Window], rows: Sequence[int], key: object) -> Fetched:
        """The windows of these rows as the shards hold them, and what is hidden of each."""
        keys = [(self.seed, "hidden", key, row) for row in rows]
        return self._fetched([windows[row] for row in rows], keys)

    def loss(self, trained: nn.Module, fetched: Fetched) -> Loss:
        """Mean squared error of all entries with data, and what else the network has."""
        signal, known, shown = self._shown(fetched)
        guess, more = trained(shown)
        weight = known.sum().float()
        return Loss(((guess - signal).square() * known).sum() + more * weight, weight)

    def validate(self, ranks: Ranks) -> Measured:
        """The same error of the validation windows, partly hidden in ways of their own.

        Of all entries, not of the hidden ones alone: from a quarter of one parcel nobody tells the
        rest, and a network that was chosen by that would have learned nothing of what it sees.
        """
        total, count = 0.0, 0.0
        for some in batches(self.val_windows, self.batch_size):
            keys = [(self.seed, "hidden", window.recording_id, window.start) for window in some]
            fetched = self._fetched(some, keys)
            signal, known, shown = self._shown(fetched)
            guess = self.model(shown)[0]
            total += float(((guess - signal).square() * known).sum(dtype=torch.float64))
            count += float(known.sum())
        return Measured({"val_loss": total / max(count, 1.0)})

    def _fetched(self, windows: Sequence[Window], keys: Sequence[tuple[object, ...]]) -> Fetched:
        parcels = self.reader.n_parcels
        hidden = torch.stack([self.hiding.drawn(parcels, *key) for key in keys])
        return Fetched(self._source.fetch(windows), hidden)

    def _shown(self, fetched: Fetched) -> tuple[Tensor, Tensor, Tensor]:
        """The windows, where they have data, and what the network sees; 0 elsewhere."""
        signal = self._source.signal(fetched.stored)
        known = ~signal.isnan()
        signal = signal.nan_to_num(nan=0.0)
        return signal, known, signal.masked_fill(fetched.hidden.to(self.device), 0.0)

    @cached_property
    def _source(self) -> MappedSource:
        return MappedSource(self.reader, self.window, self.device)


def fit_autoencoder(
    method: str,
    reader: ShardReader,
    hiding: Hiding,
    pace: NetworkPace,
    *,
    most: int,
    search: bool,
    seed: int,
    device: torch.device,
    around: Callable[[str], Circumstances],
) -> tuple[ParcelAutoencoder, dict[str, Any]]:
    """The network of the lowest validation error among its settings, and what was tried.

    It learns from at most `most` train recordings. `around` tells the circumstances of the setting
    of a name (its folder of checkpoints).
    """
    lengths = {split: reader.lengths(split) for split in ("train", "val")}
    for split, of_split in lengths.items():
        check_any_window(of_split, hiding.window, split)
    train = _drawn([n for n, t in lengths["train"].items() if t >= hiding.window], most, seed)
    windows = fixed_windows(reader.table, lengths["val"], hiding.window, _VAL_WINDOWS)
    graph = train_graph(reader, train)
    chosen: dict[str, dict[str, Any]] = {}

    def trial(name: str, size: int, rate: float) -> tuple[ParcelAutoencoder, float]:
        with torch.random.fork_rng():
            torch.manual_seed(generator(seed, method, size, rate).initial_seed())
            network = AUTOENCODERS[method](hiding.window, size, graph).to(device)
        task = AutoencoderTask(
            network,
            reader,
            {name: lengths["train"][name] for name in train},
            windows,
            hiding,
            pace.batch_size,
            seed,
            device,
        )
        row = tune(task, pace.at(rate), seed, around(name))
        chosen[name] = {"size": size, "rate": rate, "epoch": row["epoch"]}
        return network, row["val_loss"]

    settings = {
        f"size-{size}-rate-{rate:g}": (size, rate)
        for size, rate in (SEARCH if search else SEARCH[:1])
    }
    network, best, tried = best_of(
        {name: partial(trial, name, *of) for name, of in settings.items()}
    )
    return network.eval(), {**chosen[best], "n_train": len(train), "tried": tried}


@torch.no_grad()
def represent(network: ParcelAutoencoder, signal: Tensor, window: int) -> NDArray[np.float64]:
    """What a network makes of each parcel of a recording, (parcels, windows x numbers).

    `signal`: (parcels, windows x time), the windows one after the other.
    """
    cut = signal.nan_to_num(nan=0.0).unfold(1, window, window).transpose(0, 1)
    found = network.represent(cut.contiguous()).transpose(0, 1).flatten(1)
    return np.asarray(found.double().cpu().numpy())


def _drawn(names: Sequence[str], most: int, seed: int) -> list[str]:
    """At most so many of the recordings, those that the seed draws, by name."""
    return sorted(sorted(names, key=lambda name: uniform_of("autoencoder", seed, name))[:most])
