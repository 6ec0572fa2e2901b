"""The encoder alone, as a graph that runs without this package (torch.export, ONNX)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..files import atomic_path
from .mae import MaskedAutoencoder


class EncoderForExport(nn.Module):
    """Scaled series of all parcels in, latents of all tokens out."""

    def __init__(self, model: MaskedAutoencoder):
        """`model` is shared, not copied; its dropout is not part of the graph."""
        super().__init__()
        self.model = model.eval()

    def forward(self, signal: Tensor) -> Tensor:
        """(batch, parcels, time) without NaN -> (batch, 1 + tokens, hidden), CLS first."""
        tokens = torch.arange(self.model.tokenizer.tokens, device=signal.device)
        return self.model.encode(signal, tokens.expand(signal.shape[0], -1))


def export_encoder(model: MaskedAutoencoder) -> ExportedProgram:
    """The encoder as a graph that takes batches of any size."""
    config = model.config
    device = next(model.parameters()).device
    example = torch.zeros(2, config.parcels, config.timepoints, device=device)
    return torch.export.export(
        EncoderForExport(model), (example,), dynamic_shapes={"signal": {0: Dim("batch")}}
    )


def save_encoder(path: Path, model: MaskedAutoencoder) -> None:
    """Write the graph and the weights as one .pt2 file, for `torch.export.load`."""
    with atomic_path(path) as temporary:
        torch.export.save(export_encoder(model), temporary)
