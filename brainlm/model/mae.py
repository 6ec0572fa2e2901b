"""The masked autoencoder: show a quarter of the tokens, guess the others.

He et al. (2022) for images, Ortega Caro et al. (ICLR 2024) for parcels. Only the visible
tokens enter the encoder. In the decoder each hidden token is a query, made of its place alone,
that attends to the encoder's output (Fu et al. 2024, CrossMAE: as good as a decoder with
self-attention among all tokens, and about five times cheaper here). A hidden token is therefore
guessed from what is visible and from nothing else, so parcels without data cannot leak in.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .config import ModelConfig
from .mask import TokenMask
from .tokenizer import ParcelTokenizer, TokenPlace
from .transformer import Attention, DecoderBlock, EncoderBlock

_INIT_STD = 0.02


class Reconstruction(NamedTuple):
    """What the model makes of a masked window."""

    loss: Tensor  # () mean squared error over the target tokens
    predicted: Tensor  # (batch, hidden tokens, patch)
    truth: Tensor  # (batch, hidden tokens, patch); 0 where there is no target


class MaskedAutoencoder(nn.Module):
    """Encoder, decoder and loss."""

    def __init__(self, config: ModelConfig, xyz_mm: Tensor):
        """`xyz_mm`: (parcels, 3) centroids in MNI mm, in atlas order."""
        super().__init__()
        if tuple(xyz_mm.shape) != (config.parcels, 3):
            raise ValueError(f"need {config.parcels} x 3 coordinates, got {tuple(xyz_mm.shape)}")
        c = self.config = config
        self.tokenizer = ParcelTokenizer(xyz_mm, c.patch, c.patches, c.hidden)
        self.cls = nn.Parameter(torch.zeros(1, 1, c.hidden))
        self.encoder = nn.ModuleList(
            EncoderBlock(c.hidden, c.heads, c.mlp, c.dropout) for _ in range(c.layers)
        )
        self.encoder_norm = nn.LayerNorm(c.hidden)
        self.bridge = nn.Linear(c.hidden, c.decoder_hidden)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, c.decoder_hidden))
        self.decoder_place = TokenPlace(xyz_mm, c.patches, c.decoder_hidden)
        self.decoder = nn.ModuleList(
            DecoderBlock(c.decoder_hidden, c.decoder_heads, c.decoder_mlp, c.dropout)
            for _ in range(c.decoder_layers)
        )
        self.decoder_norm = nn.LayerNorm(c.decoder_hidden)
        self.guess = nn.Linear(c.decoder_hidden, c.patch)

    def initialize(self, source: torch.Generator) -> None:
        """Draw all weights from `source`: Xavier-uniform matrices, zero biases (as ViT-MAE).

        At first attention looks at near tokens, and every guess is 0, the recording's mean.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=source)
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, Attention):
                module.look_at_similar()
        for token in (self.cls, self.mask_token):
            nn.init.normal_(token, std=_INIT_STD, generator=source)
        nn.init.zeros_(self.guess.weight)

    def encode(self, signal: Tensor, visible: Tensor) -> Tensor:
        """Latents (batch, 1 + k, hidden), CLS first, of the `visible` (batch, k) tokens.

        `signal`: (batch, parcels, time), scaled; NaN is allowed in tokens that are not visible.
        """
        patches = _take(self.tokenizer.cut(signal), visible)
        tokens = self.tokenizer(patches, visible)
        x = torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], dim=1)
        for block in self.encoder:
            x = block(x)
        latents: Tensor = self.encoder_norm(x)
        return latents

    def decode(self, latents: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        """Guessed patches (batch, k, patch) of the `hidden` (batch, k) tokens.

        `latents` are those of `encode` for the `visible` tokens, whose places are told again.
        """
        context = self.bridge(latents)
        context = torch.cat([context[:, :1], context[:, 1:] + self.decoder_place(visible)], dim=1)
        x = self.mask_token + self.decoder_place(hidden)
        for block in self.decoder:
            x = block(x, context)
        guessed: Tensor = self.guess(self.decoder_norm(x))
        return guessed

    def forward(self, signal: Tensor, mask: TokenMask) -> Reconstruction:
        """Guess the hidden tokens of `signal` (batch, parcels, time) and compare."""
        predicted = self.decode(self.encode(signal, mask.visible), mask.visible, mask.hidden)
        truth = _take(self.tokenizer.cut(signal), mask.hidden)
        counted = mask.target[..., None]
        truth = torch.where(counted, truth, 0.0)
        squares = torch.where(counted, (predicted - truth).square(), 0.0)
        loss = squares.sum() / (mask.target.sum() * self.config.patch)
        return Reconstruction(loss, predicted, truth)


def _take(patches: Tensor, index: Tensor) -> Tensor:
    """Choose patches (batch, k, patch) by `index` (batch, k)."""
    return patches.gather(1, index[..., None].expand(-1, -1, patches.shape[-1]))
