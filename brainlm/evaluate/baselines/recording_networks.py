"""Networks that read a label from windows of a recording: baselines of BrainLM's paper.

They take what BrainLM takes, windows of scaled parcels, and are trained from nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

_HIDDEN = 64
_DROPOUT = 0.1
_FILTER = 9  # volumes
#: Parcels that a parcel is joined to in the graph: those it goes along with most.
_NEIGHBOURS = 10


class RecordingNetwork(nn.Module):
    """Windows (windows, parcels, time), NaN where a parcel has no data -> outputs."""

    def __init__(self, outputs: int):
        """One output for a number or two classes, else one for each class."""
        super().__init__()
        self.outputs = outputs
        self.dropout = nn.Dropout(_DROPOUT)
        self.head = nn.Linear(_HIDDEN, outputs)
        nn.init.zeros_(self.head.weight)  # begin with the mean label
        nn.init.zeros_(self.head.bias)

    def forward(self, signal: Tensor) -> Tensor:
        """(windows,), or of several classes (windows, classes)."""
        found = self.head(self.dropout(self.read(signal.nan_to_num(nan=0.0))))
        return found.squeeze(1) if self.outputs == 1 else found

    def read(self, signal: Tensor) -> Tensor:
        """(windows, hidden)."""
        raise NotImplementedError


class RecordingLSTM(RecordingNetwork):
    """Reads time point by time point; what it holds is averaged over time."""

    def __init__(self, parcels: int, window: int, outputs: int, graph: Tensor):
        """`graph` counts for nothing."""
        super().__init__(outputs)
        self.cell = nn.LSTM(parcels, _HIDDEN, batch_first=True)

    def read(self, signal: Tensor) -> Tensor:
        """The mean over time of what the units hold."""
        return self.cell(signal.transpose(1, 2))[0].mean(dim=1)


class RecordingMLP(RecordingNetwork):
    """Three layers on all entries of a window."""

    def __init__(self, parcels: int, window: int, outputs: int, graph: Tensor):
        """`graph` counts for nothing."""
        super().__init__(outputs)
        self.layers = nn.Sequential(
            nn.Linear(parcels * window, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, _HIDDEN), nn.ReLU()
        )

    def read(self, signal: Tensor) -> Tensor:
        """Of the whole window at once."""
        return self.layers(signal.flatten(1))


class RecordingGCN(RecordingNetwork):
    """Graph convolutions (Kipf & Welling 2017) over what filters say of each parcel's series.

    The filters run over time and are the same for all parcels; what passes them is averaged over
    time. On raw series, whose phases tell nothing, graph convolutions learned next to nothing.
    """

    graph: Tensor

    def __init__(self, parcels: int, window: int, outputs: int, graph: Tensor):
        """`graph`: (parcels, parcels), how much each parcel takes of each."""
        super().__init__(outputs)
        self.register_buffer("graph", graph)
        self.filters = nn.Conv1d(1, _HIDDEN, _FILTER, padding="same")
        self.layers = nn.ModuleList([nn.Linear(_HIDDEN, _HIDDEN) for _ in range(2)])

    def read(self, signal: Tensor) -> Tensor:
        """The mean over parcels of what two graph convolutions make of them."""
        windows, parcels, time = signal.shape
        passed = F.relu(self.filters(signal.reshape(windows * parcels, 1, time)))
        nodes = passed.mean(dim=2).view(windows, parcels, _HIDDEN)
        for layer in self.layers:
            nodes = F.relu(self.graph @ layer(nodes))
        return nodes.mean(dim=1)


#: Method -> what makes its network of parcels, window, outputs and graph.
NETWORKS: dict[str, Callable[[int, int, int, Tensor], RecordingNetwork]] = {
    "lstm": RecordingLSTM,
    "gcn": RecordingGCN,
    "mlp-raw": RecordingMLP,
}


def graph_of(connectivity: Tensor) -> Tensor:
    """The graph of a mean connectivity (parcels, parcels): D^-1/2 (A + I) D^-1/2.

    A parcel is joined to the ten that it goes along with most (of few parcels, to a quarter of
    them), and to those that it is among the ten of.
    """
    r = connectivity.nan_to_num(nan=0.0).clone().fill_diagonal_(-torch.inf)
    nearest = r.topk(max(1, min(_NEIGHBOURS, len(r) // 4)), dim=1).indices
    joined = torch.zeros_like(r).scatter_(1, nearest, 1.0)
    joined = torch.maximum(joined, joined.T) + torch.eye(len(r), dtype=r.dtype)
    share = joined.sum(dim=1).rsqrt()
    return share[:, None] * joined * share
