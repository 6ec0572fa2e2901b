"""What stands for each parcel of a recording when its network is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..model.inference import even_starts
from ..model.mae import MaskedAutoencoder
from ..shards.reader import ShardReader
from .attention_recordings import mean_attention, signal_of
from .parcel_networks_knn import asked_parcels, distances, scores, tell

Floats = NDArray[np.float64]

#: What stands for a parcel: to which parcels it attends; that, and which attend to it.
SIDES = ("rows", "both")


@dataclass(frozen=True)
class AttentionChoice:
    """Which attention stands for a parcel."""

    layer: int | str  # a number, or mean
    head: int | str
    side: str

    @property
    def name(self) -> str:
        """As the list of what was tried has it."""
        return f"layer {self.layer}, head {self.head}, {self.side}"


def attention_features(between: Floats, covered: NDArray[np.bool_], side: str) -> Floats:
    """(covered parcels, n) of attention between parcels (asking, asked), among those with data.

    A parcel's attention to itself says nothing of its network: the mean of its row stands there.
    """
    among = between[np.ix_(covered, covered)]
    other = ~np.eye(len(among), dtype=bool)
    mean = np.divide((among * other).sum(axis=1), max(len(among) - 1, 1))
    rows = np.where(other, among, mean[:, None])
    if side == "rows":
        return rows
    columns_mean = np.divide((among * other).sum(axis=0), max(len(among) - 1, 1))
    return np.hstack([rows, np.where(other, among, columns_mean[None]).T])


def whole_windows(signal: Tensor, window: int) -> Tensor:
    """The even windows of a recording, one after the other: (parcels, windows x time)."""
    starts = even_starts(signal.shape[1], window)
    return torch.cat([signal[:, start : start + window] for start in starts], dim=1)


def connectivity_features(series: Floats) -> Floats:
    """Each parcel's correlations with all, (parcels, parcels), of `series` (parcels, time)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.nan_to_num(np.corrcoef(series)))


def choose_attention(
    model: MaskedAutoencoder,
    reader: ShardReader,
    names: Sequence[str],
    networks: NDArray[np.int64],
    seed: int,
) -> tuple[AttentionChoice, dict[str, float]]:
    """The attention that tells networks best in validation recordings, and what was tried.

    First the layer (or their mean) and the side, heads averaged; then one head of that layer.
    """
    layers, heads = model.config.layers, model.config.heads
    first = [
        AttentionChoice(layer, "mean", side)
        for layer in (*range(layers), *(["mean"] if layers > 1 else []))
        for side in SIDES
    ]
    tried = _try(model, reader, names, networks, first, seed)
    best = max(tried, key=lambda choice: tried[choice])
    if heads > 1:
        single = [AttentionChoice(best.layer, head, best.side) for head in range(heads)]
        tried |= _try(model, reader, names, networks, single, seed)
        best = max(tried, key=lambda choice: tried[choice])
    return best, {choice.name: score for choice, score in tried.items()}


def _try(
    model: MaskedAutoencoder,
    reader: ShardReader,
    names: Sequence[str],
    networks: NDArray[np.int64],
    choices: Sequence[AttentionChoice],
    seed: int,
) -> dict[AttentionChoice, float]:
    """Mean accuracy of each choice over these recordings."""
    found: dict[AttentionChoice, list[float]] = {choice: [] for choice in choices}
    for name in names:
        signal = signal_of(model, reader, name)
        covered = ~torch.isnan(signal[:, 0]).cpu().numpy()
        among = networks[covered]
        asked = asked_parcels(among, seed, name)
        for choice, between in _maps(model, signal, choices):
            features = attention_features(between, covered, choice.side)
            told = tell(distances(features), among, asked)
            found[choice].append(scores(among[asked], told.networks)["accuracy"])
    return {choice: float(np.mean(values)) for choice, values in found.items()}


def _maps(
    model: MaskedAutoencoder, signal: Tensor, choices: Sequence[AttentionChoice]
) -> Iterator[tuple[AttentionChoice, Floats]]:
    """The attention between parcels of each choice; the network is asked once for all."""
    same_head = len({choice.head for choice in choices}) == 1
    if same_head:
        maps = mean_attention(model, signal, "parcels", "all", choices[0].head)
        for choice in choices:
            yield choice, maps.mean(axis=0) if choice.layer == "mean" else maps[int(choice.layer)]
        return
    maps = mean_attention(model, signal, "parcels", choices[0].layer, "all")
    for choice in choices:
        yield choice, maps[int(choice.head)]
