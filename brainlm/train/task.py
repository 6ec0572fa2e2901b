"""What the loop of fine-tuning asks of whatever is learned (a label, a forecast)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..model.mae import MaskedAutoencoder
from ..shards.sampler import Window
from .distributed import Ranks
from .validation import Measured


class Loss(NamedTuple):
    """A weighted mean in two parts, each of which can be added up over processes."""

    total: Tensor  # () the weighted sum of the errors
    weight: Tensor  # () the sum of their weights

    @property
    def mean(self) -> Tensor:
        """The loss, ()."""
        return self.total / self.weight


class Pace(Protocol):
    """How the loop goes."""

    @property
    def epochs(self) -> int:
        """Most passes over the train split."""

    @property
    def patience(self) -> int:
        """Epochs without a lower validation loss after which it ends."""

    @property
    def batch_size(self) -> int:
        """Windows per step."""

    @property
    def learning_rate(self) -> float | None:
        """Peak rate; None: the task's own."""

    @property
    def weight_decay(self) -> float:
        """Of matrices."""


class Task(Protocol):
    """What is learned."""

    @property
    def model(self) -> nn.Module:
        """The network, on its device; it is changed."""

    @property
    def autoencoder(self) -> MaskedAutoencoder | None:
        """The pretrained part of it, of which pictures are made; None: there is none."""

    @property
    def window(self) -> int:
        """Time points of what it is shown in training."""

    @property
    def train(self) -> Mapping[str, int]:
        """Recordings to learn from -> time points."""

    @property
    def usual_rate(self) -> float:
        """The peak rate that suits the network."""

    def choose_learners(self, seed: int) -> None:
        """Leave `requires_grad` to the weights that are to learn; once, before any step."""

    def rate_share(self, name: str) -> float:
        """The share of the learning rate that a weight of `model` gets."""

    def fetch(self, windows: Sequence[Window], rows: Sequence[int], key: object) -> Any:
        """What can be done of a step ahead of it, in another thread, on the CPU alone.

        For some `rows` of the batch `windows`; what is drawn, by `key` for the whole batch, is the
        same whatever the other rows.
        """

    def loss(self, trained: nn.Module, fetched: Any) -> Loss:
        """Of what `fetch` made.

        `trained` is `model`, or what averages its gradients over processes: its forward pass is
        the one to call.
        """

    def validate(self, ranks: Ranks) -> Measured:
        """What is measured on the val split; the network is in eval mode.

        The processes share the work, and all get the numbers that one would.
        """


def gathered(
    part: NDArray[np.float64], rows: range, count: int, ranks: Ranks
) -> NDArray[np.float64]:
    """All `count` rows of a table, of which this process has `rows` as its `part` (rows, columns).

    Nothing is rounded: each row is added to zeros alone.
    """
    table = torch.zeros(count, part.shape[1], dtype=torch.float64)
    table[rows.start : rows.stop] = torch.from_numpy(part)
    return np.asarray(ranks.total(table).numpy())
