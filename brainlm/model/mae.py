"""The masked autoencoder: show a quarter of the tokens, guess the others.

He et al. (2022) for images, Ortega Caro et al. (ICLR 2024) for parcels. Only the visible
tokens enter the encoder. What a token is, is the tokenizer's to say; how the hidden ones are
guessed, the decoder's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import InputError
from .attention import check_backend
from .config import ModelConfig
from .decoder import build_decoder
from .mask import TokenMask
from .place import RawParcelPlace
from .tokenizer import ImageTokenizer, ParcelTokenizer
from .transformer import Attention, SelfBlock, TokenConvolution, run_block, tokens_at

_INIT_STD = 0.02
_LOSSES: dict[str, Callable[[Tensor], Tensor]] = {"mse": torch.square, "mae": torch.abs}
_TOKENIZERS: dict[str, type[ParcelTokenizer] | type[ImageTokenizer]] = {
    "parcels": ParcelTokenizer,
    "image": ImageTokenizer,
}


class Reconstruction(NamedTuple):
    """What the model makes of a masked window."""

    loss: Tensor  # () float32: mean error over the entries with data of the target tokens
    predicted: Tensor  # (batch, hidden tokens, entries)
    truth: Tensor  # (batch, hidden tokens, entries); NaN where there is no target


class MaskedAutoencoder(nn.Module):
    """Encoder, decoder and loss."""

    def __init__(self, config: ModelConfig, xyz_mm: Tensor):
        """`xyz_mm`: (parcels, 3) centroids in MNI mm, in atlas order."""
        super().__init__()
        if tuple(xyz_mm.shape) != (config.parcels, 3):
            raise ValueError(f"need {config.parcels} x 3 coordinates, got {tuple(xyz_mm.shape)}")
        c = self.config = config
        self.tokenizer: ParcelTokenizer | ImageTokenizer = _TOKENIZERS[c.tokenizer](c, xyz_mm)
        self.cls = nn.Parameter(torch.zeros(1, 1, c.hidden))
        self.encoder = nn.ModuleList(
            SelfBlock(c, c.hidden, c.heads, c.mlp) for _ in range(c.layers)
        )
        self.encoder_norm = nn.LayerNorm(c.hidden, c.norm_eps)
        place = self.tokenizer.place_of(c, xyz_mm, c.decoder_hidden)
        self.decoder = build_decoder(c, place, self.tokenizer.entries)
        self.recompute = False  # the encoder's activations; see `checkpoint_blocks`

    def set_attention(self, backend: str) -> None:
        """Choose who computes attention (`attention.BACKENDS`); to rounding it changes nothing."""
        check_backend(backend, self.config.landmarks)
        for module in self.modules():
            if isinstance(module, Attention):
                module.backend = backend

    def checkpoint_blocks(self, on: bool) -> None:
        """Whether to keep no activations inside blocks and work them out again going backward."""
        self.recompute = self.decoder.recompute = on

    def initialize(self, source: torch.Generator) -> None:
        """Draw all weights from `source`: Xavier-uniform matrices, zero biases (as ViT-MAE).

        At first attention looks at near tokens, and every guess is 0, the recording's mean.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=source)
                nn.init.zeros_(module.bias)
            elif isinstance(module, TokenConvolution):
                nn.init.normal_(module.weight, std=_INIT_STD, generator=source)
        for module in self.modules():
            if isinstance(module, Attention):
                module.look_at_similar()
            elif isinstance(module, RawParcelPlace):  # millimetres: keep tokens about as large as 1
                nn.init.normal_(module.xyz_projection.weight, std=_INIT_STD, generator=source)
        for token in (self.cls, self.decoder.mask_token):
            nn.init.normal_(token, std=_INIT_STD, generator=source)
        nn.init.zeros_(self.decoder.last_layer.weight)

    def encode(
        self, signal: Tensor, visible: Tensor, weights: list[Tensor] | None = None
    ) -> Tensor:
        """Latents (batch, 1 + k, hidden), CLS first, of the `visible` (batch, k) tokens.

        `signal`: (batch, parcels, time), scaled; NaN is allowed in tokens that are not visible.
        A list for `weights` gets the attention of each layer, (batch, heads, 1 + k, 1 + k).
        """
        return self.encode_patches(self.tokenizer.cut(signal), visible, weights)

    def encode_patches(
        self, patches: Tensor, visible: Tensor, weights: list[Tensor] | None = None
    ) -> Tensor:
        """`encode`, of a signal that is cut already (batch, tokens, entries)."""
        x = first_tokens(self.tokenizer, self.cls, patches, visible)
        for block in self.encoder:
            x = run_block(block, self.recompute and weights is None, x, weights)
        latents: Tensor = self.encoder_norm(x)
        return latents

    def decode(
        self, latents: Tensor, visible: Tensor, hidden: Tensor, asked: Tensor | None = None
    ) -> Tensor:
        """Guessed patches (batch, k, entries) of the `hidden` (batch, k) tokens, or those `asked`.

        `latents` are those of `encode` for the `visible` tokens, whose places are told again.
        """
        guessed: Tensor = self.decoder(latents, visible, hidden, asked)
        return guessed

    def forecast(self, signal: Tensor, timepoints: int) -> Tensor:
        """Guess the last `timepoints` of windows (batch, parcels, time) from those before.

        (batch, parcels, timepoints), scaled. Tokens of the future alone are hidden; in one that
        reaches into it the future is set to 0, so that not one entry too many is withheld
        (`predict_last_pixel` of the authors). Parcels without data are not shown; there is a guess
        for them as well. What stands in the future, NaN too, changes nothing.
        """
        window = self.config.timepoints
        if not 0 < timepoints < window:
            raise InputError(f"timepoints must be from 1 to {window - 1}, not {timepoints}")
        covered = ~signal[:, :, :-timepoints].isnan().any(dim=2)
        if not (covered == covered[0]).all():  # then not all show equally many tokens
            return torch.cat([self.forecast(one, timepoints) for one in signal.split(1)])
        signal = signal.clone()  # a gap of the past goes on in the future, and no other is there
        signal[:, :, -timepoints:] = torch.where(covered, 0.0, torch.nan)[..., None]
        tokens = torch.arange(self.tokenizer.tokens, device=signal.device)
        shown = self.tokenizer.available(covered[:1])[0]
        shown = shown & ~self.tokenizer.last(timepoints, wholly=True).to(signal.device)
        asked = self.tokenizer.last(timepoints).to(signal.device)
        visible, hidden, asked = (
            tokens[chosen].expand(signal.shape[0], -1) for chosen in (shown, ~shown, asked)
        )
        patches = self.tokenizer.blank(self.tokenizer.cut(signal), timepoints)
        guessed = self.decode(self.encode_patches(patches, visible), visible, hidden, asked)
        return self.tokenizer.paste(guessed, asked)[:, :, -timepoints:]

    def forward(self, signal: Tensor, mask: TokenMask, loss: str = "mse") -> Reconstruction:
        """Guess the hidden tokens of `signal` (batch, parcels, time) and compare.

        `loss` is the mean of the squared ("mse") or absolute ("mae") error, in units of the
        tokenizer. Only entries with data of target tokens count; without any it is 0. Whatever
        the network's precision, it is worked out in float32.
        """
        if loss not in _LOSSES:
            raise InputError(f"There is no loss {loss!r}", fix=f"choose of {', '.join(_LOSSES)}")
        patches = self.tokenizer.cut(signal)
        latents = self.encode_patches(patches, mask.visible)
        predicted = self.decode(latents, mask.visible, mask.hidden)
        truth = torch.where(
            mask.target[..., None], tokens_at(patches, mask.hidden), torch.nan
        ).float()
        counted = ~truth.isnan()
        error = torch.where(counted, predicted.float() - truth, 0.0)
        total = _LOSSES[loss](error).sum()
        return Reconstruction(total / counted.sum().clamp(min=1), predicted, truth)


def first_tokens(
    tokenizer: ParcelTokenizer | ImageTokenizer, cls: Tensor, patches: Tensor, visible: Tensor
) -> Tensor:
    """What the encoder begins with, (batch, 1 + k, hidden): CLS, and the `visible` tokens."""
    tokens = tokenizer(tokens_at(patches, visible), visible)
    return torch.cat([cls.expand(tokens.shape[0], -1, -1), tokens], dim=1)


def build_on_meta(config: ModelConfig, xyz_mm: Tensor) -> MaskedAutoencoder:
    """A network whose weights take no memory and have no values, until `give_weights`.

    Fixed tables (places, the order of parcels) are small, made as ever, and true: never call
    `to_empty` on it, which would lose them.
    """
    with torch.device("meta"):
        return MaskedAutoencoder(config, xyz_mm)


def give_weights(
    model: nn.Module, state: Mapping[str, Tensor], device: torch.device | str = "cpu"
) -> None:
    """Make `state` the weights of a network built on meta, all of them, without a copy on the CPU.

    With tensors that are mapped from a file, memory is that of the pages touched.
    """
    model.load_state_dict(dict(state), strict=True, assign=True)
    model.to(device)
