"""The encoder alone, as a graph that runs without this package: torch.export, or ONNX."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..errors import InputError
from ..files import atomic_path
from .mae import MaskedAutoencoder, first_tokens

#: What one ONNX file can hold, bytes.
_ONNX_LIMIT = 2**31


class EncoderForExport(nn.Module):
    """Scaled series of all parcels in, latents of all tokens out."""

    def __init__(self, model: MaskedAutoencoder):
        """`model` is shared, not copied, and put in evaluation mode; its decoder is left out."""
        super().__init__()
        model.eval()
        self.tokenizer, self.cls = model.tokenizer, model.cls
        self.encoder, self.norm = model.encoder, model.encoder_norm
        self.eval()

    def forward(self, signal: Tensor) -> Tensor:
        """(batch, parcels, time) without NaN -> (batch, 1 + tokens, hidden), CLS first."""
        everything = torch.arange(self.tokenizer.tokens, device=signal.device)
        visible, patches = everything.expand(signal.shape[0], -1), self.tokenizer.cut(signal)
        x = first_tokens(self.tokenizer, self.cls, patches, visible)
        for block in self.encoder:
            x = block(x)
        latents: Tensor = self.norm(x)
        return latents


def export_encoder(model: MaskedAutoencoder) -> ExportedProgram:
    """The encoder as a graph that takes batches of any size."""
    config = model.config
    device = next(model.parameters()).device
    example = torch.zeros(2, config.parcels, config.timepoints, device=device)
    return torch.export.export(
        EncoderForExport(model), (example,), dynamic_shapes={"signal": {0: Dim("batch")}}
    )


def save_encoder(path: Path, model: MaskedAutoencoder) -> None:
    """Write graph and weights as one .pt2 file, for `torch.export.load`."""
    with atomic_path(path) as temporary:
        torch.export.save(export_encoder(model), temporary)


def save_onnx(path: Path, model: MaskedAutoencoder) -> None:
    """Write graph and weights as one .onnx file: input "signal", output "latents"."""
    size = sum(parameter.nbytes for parameter in model.encoder.parameters())
    if size > _ONNX_LIMIT:
        raise InputError(
            f"An ONNX file holds 2 GB, this encoder has {size / 2**30:.1f}",
            fix="use `save_encoder` (torch.export)",
        )
    try:
        program = torch.onnx.export(
            export_encoder(model), input_names=["signal"], output_names=["latents"], verbose=False
        )
    except ModuleNotFoundError as error:
        raise InputError(
            f"To write ONNX, the package {error.name} is needed, which is not installed",
            fix="`pip install onnx onnxscript`",
        ) from None
    assert program is not None
    with atomic_path(path) as temporary:
        program.save(temporary)
