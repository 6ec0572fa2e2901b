"""Small networks of the kinds that presets are of, and of those that can be imported."""

from __future__ import annotations

from typing import Any

import torch

from brainlm.model.config import ModelConfig
from brainlm.model.mae import MaskedAutoencoder
from brainlm.model.mask import generator

_SIZES: dict[str, Any] = {
    "hidden": 32,
    "layers": 2,
    "heads": 2,
    "mlp": 48,
    "decoder_hidden": 16,
    "decoder_layers": 2,
    "decoder_heads": 2,
    "decoder_mlp": 32,
}
_PARCELS = {"parcels": 8, "timepoints": 40, "patch": 10}
_IMAGE = {"parcels": 21, "timepoints": 30, "patch": 8, "tokenizer": "image", "input_scale": 5.6}
_13M = {"place": "linear", "norm": "post", "conv": 5, "decoder": "full", "head": "mlp"}
_NETWORKS: dict[str, dict[str, Any]] = {
    "parcels": _PARCELS,  # tiny
    "convolution": {**_PARCELS, **_13M},  # 13m
    "image": {**_IMAGE, "decoder": "full", "missing": "learned"},  # 111m, 650m
    "crossed": {**_IMAGE, "missing": "learned"},
    "square": {**_IMAGE, "decoder": "full", "padding": "square"},  # as released
    "landmarks": {**_PARCELS, **_13M, "landmarks": 4},
}
KINDS = tuple(_NETWORKS)


def small_network(kind: str, *, dropout: float = 0.0, seed: int = 0) -> MaskedAutoencoder:
    """A network of this kind, past the start at which every guess is 0."""
    config = small_config(kind, dropout=dropout)
    model = MaskedAutoencoder(config, places(config.parcels))
    model.initialize(generator(seed))
    torch.nn.init.normal_(model.decoder.last_layer.weight, std=0.1, generator=generator("last"))
    return model.eval()


def small_config(kind: str, *, dropout: float = 0.0) -> ModelConfig:
    return ModelConfig(**_SIZES, **_NETWORKS[kind], dropout=dropout)


def places(parcels: int) -> torch.Tensor:
    """Coordinates (parcels, 3) in mm."""
    return 40 * torch.randn(parcels, 3, generator=generator("places"))


def window(config: ModelConfig, batch: int = 2) -> torch.Tensor:
    """Scaled series (batch, parcels, time) without gaps."""
    shape = (batch, config.parcels, config.timepoints)
    return torch.randn(shape, generator=generator("window"))
