"""Networks trained from nothing on one label, as fairly as the model they are compared with.

The same recordings, the same scale of the label, the same loop (which can be killed and goes on);
rate and epoch are chosen by the loss on the validation split.
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
from ..shards.sampler import Window, batches, even_windows
from ..train.data import MappedSource
from ..train.distributed import Ranks
from ..train.label_scores import measured_labels
from ..train.labelled import LabelledData, loss_function
from ..train.task import Loss
from ..train.tuning import Circumstances, tune
from ..train.validation import Measured
from .baselines.recording_networks import NETWORKS, RecordingNetwork, graph_of
from .from_nothing import NetworkPace, NetworkTask
from .trials import best_of

Floats = NDArray[np.float64]

#: Peak learning rates to choose from on validation.
_RATES = (1e-3, 3e-4)
#: Train recordings, at most, whose mean connectivity makes the graph.
_FOR_GRAPH = 200


class Fetched(NamedTuple):
    """Windows on their way to the network."""

    stored: Tensor
    recording_ids: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class RecordingTask(NetworkTask):
    """Learning a label from nothing: what `tuning.tune` asks for."""

    model: RecordingNetwork
    reader: ShardReader
    data: LabelledData
    kind: str
    loss_of: Callable[[Tensor, Sequence[str]], Loss]
    window: int
    batch_size: int
    device: torch.device

    @property
    def train(self) -> Mapping[str, int]:
        """Recordings of the train split that have the label."""
        return self.data.lengths["train"]

    def fetch(self, windows: Sequence[Window], rows: Sequence[int], key: object) -> Fetched:
        """The windows of these rows, as the shards hold them; nothing is drawn."""
        chosen = [windows[row] for row in rows]
        names = tuple(window.recording_id for window in chosen)
        return Fetched(self._source.fetch(chosen), names)

    def loss(self, trained: nn.Module, fetched: Fetched) -> Loss:
        """Of these windows."""
        return self.loss_of(trained(self._source.signal(fetched.stored)), fetched.recording_ids)

    def validate(self, ranks: Ranks) -> Measured:
        """The loss of the recordings' predictions, and how good they are in the label's unit."""
        names, outputs = self.outputs("val")
        return measured_labels(
            self.kind,
            float(self.loss_of(torch.from_numpy(outputs).float(), names).mean),
            names,
            self.data.truth(names),
            self.data.to_label(self.kind, outputs),
            self.reader.table,
        )

    @torch.no_grad()
    def outputs(self, split: str) -> tuple[list[str], Floats]:
        """Recordings, and the network's outputs averaged over even windows of each."""
        self.model.eval()
        found: dict[str, list[Floats]] = {}
        for some in batches(even_windows(self.data.lengths[split], self.window), self.batch_size):
            guessed = self.model(self._source.signal(self._source.fetch(some)))
            for window, value in zip(some, guessed.double().cpu().numpy(), strict=True):
                found.setdefault(window.recording_id, []).append(value)
        names = sorted(found)
        return names, np.array([np.mean(found[name], axis=0) for name in names])

    @cached_property
    def _source(self) -> MappedSource:
        return MappedSource(self.reader, self.window, self.device)


def predict_by_network(
    method: str,
    reader: ShardReader,
    data: LabelledData,
    *,
    kind: str,
    class_weights: str,
    window: int,
    pace: NetworkPace,
    search: bool,
    seed: int,
    device: torch.device,
    around: Callable[[str], Circumstances],
) -> tuple[list[str], Floats, dict[str, Any]]:
    """Test recordings, their predictions in the label's unit, and what was chosen.

    `around` tells the circumstances of the setting of a name (its folder of checkpoints).
    """
    graph = train_graph(reader, sorted(data.lengths["train"]))
    loss_of = loss_function(kind, data, class_weights)
    chosen: dict[str, dict[str, Any]] = {}

    def trial(name: str, rate: float) -> tuple[RecordingTask, float]:
        with torch.random.fork_rng():
            torch.manual_seed(generator(seed, method, rate).initial_seed())
            network = NETWORKS[method](reader.n_parcels, window, len(data.classes) or 1, graph)
        task = RecordingTask(
            network.to(device), reader, data, kind, loss_of, window, pace.batch_size, device
        )
        row = tune(task, pace.at(rate), seed, around(name))
        chosen[name] = {"rate": rate, "epoch": row["epoch"]}
        return task, row["val_loss"]

    rates = {f"rate-{rate:g}": rate for rate in (_RATES if search else _RATES[:1])}
    task, best, tried = best_of({name: partial(trial, name, rate) for name, rate in rates.items()})
    names, outputs = task.outputs("test")
    return names, data.to_label(kind, outputs), {**chosen[best], "tried": tried}


def train_graph(reader: ShardReader, train: Sequence[str]) -> Tensor:
    """By the mean correlation over train recordings, (parcels, parcels) float32."""
    every = max(1, len(train) // _FOR_GRAPH)
    total = np.zeros((reader.n_parcels, reader.n_parcels))
    for name in list(train)[::every][:_FOR_GRAPH]:
        with np.errstate(invalid="ignore", divide="ignore"):
            r = np.corrcoef(reader.series(name), rowvar=False)
        total += np.nan_to_num(r)
    return graph_of(torch.from_numpy(total)).float()
