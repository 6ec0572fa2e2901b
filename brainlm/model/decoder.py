"""From the encoder's latents to guesses of the hidden tokens.

The cross decoder: each hidden token is a query, made of its place alone, that attends to the
encoder's output (Fu et al. 2024, CrossMAE: as good as self-attention among all tokens, and about
five times cheaper here). A hidden token is guessed from what is visible and from nothing else, so
parcels without data cannot leak in. The full decoder is the published one: all tokens, hidden and
visible, attend to each other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import ModelConfig
from .transformer import CrossBlock, SelfBlock, Wanted, run_block, tokens_at


class Decoder(nn.Module):
    """What both kinds share: the way in, the mask token, places, the way out."""

    def __init__(self, config: ModelConfig, place: nn.Module, entries: int):
        """`place` embeds tokens' places; each token has so many `entries`."""
        super().__init__()
        width = config.decoder_hidden
        self.bridge = nn.Linear(config.hidden, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.place = place
        self.norm = nn.LayerNorm(width, config.norm_eps)
        self.guess = _guess(config, entries)
        self.recompute = False  # the blocks' activations; see `run_block`

    @property
    def last_layer(self) -> nn.Linear:
        """The layer that the guesses come out of."""
        layer = self.guess if isinstance(self.guess, nn.Linear) else self.guess[-1]
        assert isinstance(layer, nn.Linear)
        return layer


class CrossDecoder(Decoder):
    """Hidden tokens ask the visible ones."""

    def __init__(self, config: ModelConfig, place: nn.Module, entries: int):
        """See `Decoder`."""
        super().__init__(config, place, entries)
        sizes = (config.decoder_hidden, config.decoder_heads, config.decoder_mlp)
        self.blocks = nn.ModuleList(
            CrossBlock(config, *sizes) for _ in range(config.decoder_layers)
        )

    def forward(
        self, latents: Tensor, visible: Tensor, hidden: Tensor, asked: Tensor | None = None
    ) -> Tensor:
        """Latents (batch, 1 + k, width of the encoder) -> guesses (batch, asked, entries).

        Of the `hidden` tokens, or of those `asked`.
        """
        context = self.bridge(latents)
        context = torch.cat([context[:, :1], context[:, 1:] + self.place(visible)], dim=1)
        x = self.mask_token + self.place(hidden if asked is None else asked)
        for block in self.blocks:
            x = run_block(block, self.recompute, x, context)
        guessed: Tensor = self.guess(self.norm(x))
        return guessed


class FullDecoder(Decoder):
    """All tokens see each other.

    Where their order counts (a convolution, landmarks) it is that of the window; else CLS and the
    visible ones stand first. The last block works out the hidden ones alone.
    """

    def __init__(self, config: ModelConfig, place: nn.Module, entries: int):
        """See `Decoder`."""
        super().__init__(config, place, entries)
        self.ordered = bool(config.conv or config.landmarks)
        sizes = (config.decoder_hidden, config.decoder_heads, config.decoder_mlp)
        self.blocks = nn.ModuleList(SelfBlock(config, *sizes) for _ in range(config.decoder_layers))

    def forward(
        self, latents: Tensor, visible: Tensor, hidden: Tensor, asked: Tensor | None = None
    ) -> Tensor:
        """Latents (batch, 1 + k, width of the encoder) -> guesses (batch, asked, entries).

        Of the `hidden` tokens, or of those `asked`.
        """
        seen = self.bridge(latents)
        shown = seen[:, 1:] + self.place(visible)
        x = torch.cat([seen[:, :1], shown, self.mask_token + self.place(hidden)], dim=1)
        wanted: Wanted = slice(seen.shape[1], None)
        if self.ordered:
            order = _standing(visible, hidden)
            x = torch.cat([x[:, :1], tokens_at(x[:, 1:], order)], dim=1)
            wanted = 1 + (hidden if asked is None else asked)
        elif asked is not None:
            wanted = 1 + _standing(visible, hidden).gather(1, asked)
        *first, last = self.blocks
        for block in first:
            x = run_block(block, self.recompute, x)
        x = run_block(last, self.recompute, x, None, wanted)
        guessed: Tensor = self.guess(self.norm(x))
        return guessed


def build_decoder(config: ModelConfig, place: nn.Module, entries: int) -> Decoder:
    """The decoder that the configuration names."""
    kind = {"cross": CrossDecoder, "full": FullDecoder}[config.decoder]
    return kind(config, place, entries)


def _guess(config: ModelConfig, entries: int) -> nn.Linear | nn.Sequential:
    """The last step: one linear layer, or two with a leaky ReLU between (published 13M)."""
    width = config.decoder_hidden
    if config.head == "linear":
        return nn.Linear(width, entries)
    return nn.Sequential(
        nn.Linear(width, width // 2), nn.LeakyReLU(0.1), nn.Linear(width // 2, entries)
    )


def _standing(visible: Tensor, hidden: Tensor) -> Tensor:
    """Where each token stands, (batch, tokens), when the visible ones come before the hidden."""
    index = torch.cat([visible, hidden], dim=1)
    place = torch.arange(index.shape[1], device=index.device).expand_as(index)
    return torch.empty_like(index).scatter(1, index, place)
