"""Heads that read a label from the encoder's output."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .mae import MaskedAutoencoder


class MlpHead(nn.Sequential):
    """Three layers with dropout: hidden, hidden / 2 twice, outputs (Ortega Caro et al. 2024)."""

    def __init__(self, hidden: int, dropout: float, outputs: int = 1):
        """`hidden` is the width of the encoder."""
        half = hidden // 2
        super().__init__(
            nn.Linear(hidden, half),
            nn.Dropout(dropout),
            nn.ReLU(),
            nn.Linear(half, half),
            nn.Dropout(dropout),
            nn.ReLU(),
            nn.Linear(half, outputs),
        )


class LinearHead(nn.Sequential):
    """One layer: with a frozen encoder, the linear probe."""

    def __init__(self, hidden: int, dropout: float, outputs: int = 1):
        """`dropout` is not used: it is that of the encoder's output (`LabelModel`)."""
        super().__init__(nn.Linear(hidden, outputs))


class AttentionPool(nn.Module):
    """A mean over tokens, weighted by how well each one answers a learned question.

    At the start all weigh the same, which is the plain mean.
    """

    def __init__(self, hidden: int):
        """`hidden` is the width of the encoder."""
        super().__init__()
        self.query = nn.Parameter(torch.zeros(hidden))

    def forward(self, latents: Tensor) -> Tensor:
        """(batch, tokens, hidden) -> (batch, hidden)."""
        likeness = latents @ self.query / latents.shape[-1] ** 0.5
        mean: Tensor = (likeness.softmax(dim=1)[..., None] * latents).sum(dim=1)
        return mean


_HEADS: dict[str, type[MlpHead] | type[LinearHead]] = {"mlp": MlpHead, "linear": LinearHead}


class LabelModel(nn.Module):
    """Encoder + head: one number per window (a scaled label, or a logit), or one per class.

    By default the head reads the mean over the CLS token and all visible tokens: pretraining asks
    little of CLS alone, since each guess may look at the tokens themselves.
    """

    def __init__(
        self,
        autoencoder: MaskedAutoencoder,
        dropout: float,
        *,
        pool: str = "mean",
        layers: str = "mlp",
        outputs: int = 1,
    ):
        """Put a new head on a (pretrained) autoencoder; `pool` and `layers` as in `HeadCard`.

        `dropout` is that of the encoder's output and of the head.
        """
        super().__init__()
        hidden = autoencoder.config.hidden
        self.autoencoder = autoencoder
        self.pooling = pool
        self.pool = AttentionPool(hidden) if pool == "attention" else None
        self.dropout = nn.Dropout(dropout)
        self.head = _HEADS[layers](hidden, dropout, outputs)

    def initialize_head(self, source: torch.Generator) -> None:
        """Draw the head's weights; the last layer starts at zero: the mean label."""
        layers = [module for module in self.head if isinstance(module, nn.Linear)]
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight, generator=source)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(layers[-1].weight)
        if self.pool is not None:
            nn.init.zeros_(self.pool.query)

    def forward(self, signal: Tensor, visible: Tensor) -> Tensor:
        """(batch, parcels, time) seen at tokens `visible` (batch, k) -> as `read`."""
        return self.read(self.autoencoder.encode(signal, visible))

    def read(self, latents: Tensor) -> Tensor:
        """Latents (batch, 1 + k, hidden), CLS first -> (batch,), or (batch, classes)."""
        out: Tensor = self.head(self.pooled(self.dropout(latents)))
        return out.squeeze(-1)

    def pooled(self, latents: Tensor) -> Tensor:
        """What the head reads of latents (batch, 1 + k, hidden): (batch, hidden)."""
        if self.pool is None:
            return pooled_of(latents, self.pooling)
        mean: Tensor = self.pool(latents)
        return mean


def pooled_of(latents: Tensor, pool: str) -> Tensor:
    """One vector per window, (batch, hidden), of latents (batch, 1 + k, hidden), CLS first.

    `cls` is the first token, `mean` that over CLS and all visible tokens, as the authors take it.
    """
    return latents[:, 0] if pool == "cls" else latents.mean(dim=1)
