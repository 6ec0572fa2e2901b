"""Heads that read a label from the encoder's output."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .mae import MaskedAutoencoder


class MlpHead(nn.Sequential):
    """Three layers, hidden -> hidden / 2 -> hidden / 2 -> 1, with dropout (Ortega Caro 2024)."""

    def __init__(self, hidden: int, dropout: float):
        """`hidden` is the width of the encoder."""
        half = hidden // 2
        super().__init__(
            nn.Linear(hidden, half),
            nn.Dropout(dropout),
            nn.ReLU(),
            nn.Linear(half, half),
            nn.Dropout(dropout),
            nn.ReLU(),
            nn.Linear(half, 1),
        )


class LabelModel(nn.Module):
    """Encoder + head: one number per window (a z-scored label, or a logit).

    The head reads the mean over the CLS token and all visible tokens: pretraining asks little
    of CLS alone, since each guess may look at the tokens themselves.
    """

    def __init__(self, autoencoder: MaskedAutoencoder, dropout: float):
        """Put a new head on a (pretrained) autoencoder."""
        super().__init__()
        self.autoencoder = autoencoder
        self.head = MlpHead(autoencoder.config.hidden, dropout)

    def initialize_head(self, source: torch.Generator) -> None:
        """Draw the head's weights; the last layer starts at zero: the mean label."""
        layers = [module for module in self.head if isinstance(module, nn.Linear)]
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight, generator=source)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(layers[-1].weight)

    def forward(self, signal: Tensor, visible: Tensor) -> Tensor:
        """(batch, parcels, time) seen at tokens `visible` (batch, k) -> (batch,)."""
        latents = self.autoencoder.encode(signal, visible)
        out: Tensor = self.head(latents.mean(dim=1))
        return out.squeeze(-1)
