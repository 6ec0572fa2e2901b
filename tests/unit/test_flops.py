"""Costs are those that PyTorch counts, operation by operation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from brainlm.model.config import ModelConfig
from brainlm.model.flops import STEP, forward_flops, peak_flops
from brainlm.model.mae import MaskedAutoencoder
from brainlm.model.mask import generator, random_mask
from brainlm.model.tokenizer import count_tokens

PARCELS = ModelConfig(
    parcels=30,
    timepoints=40,
    patch=10,
    hidden=48,
    layers=2,
    heads=4,
    mlp=80,
    decoder_hidden=32,
    decoder_layers=3,
    decoder_heads=2,
    decoder_mlp=56,
    dropout=0.0,
)
IMAGE = replace(PARCELS, tokenizer="image", patch=8)
KINDS = {
    "parcels": PARCELS,
    "parcels, full": replace(PARCELS, decoder="full", head="mlp"),
    "image": IMAGE,
    "image, full, padded": replace(IMAGE, padding="square", decoder="full"),
}


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
def test_forward_is_what_pytorch_counts(config: ModelConfig) -> None:
    model, mask, signal = _setting(config, n_visible=7)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(signal, mask)
    # Places of parcels are worked out once a batch, whatever its size, and so are not counted.
    # The decoder does so for the visible tokens and for the hidden ones.
    once = _place(config, config.hidden) + 2 * _place(config, config.decoder_hidden)
    assert counter.get_total_flops() - once == forward_flops(config, 7)


def _place(config: ModelConfig, width: int) -> int:
    if config.tokenizer == "image":
        return 0
    return 2 * config.parcels * (3 * width // 2 + width**2)


def test_a_step_is_three_forwards() -> None:
    model, mask, signal = _setting(IMAGE, n_visible=7)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(signal, mask).loss.backward()
    # Of the first layer no gradient of its input is needed.
    saved = 2 * 7 * IMAGE.patch**2 * IMAGE.hidden
    assert counter.get_total_flops() + saved == STEP * forward_flops(IMAGE, 7)


def _setting(config: ModelConfig, n_visible: int):
    model = MaskedAutoencoder(config, torch.randn(config.parcels, 3))
    available = torch.ones(1, count_tokens(config), dtype=torch.bool)
    mask = random_mask(available, n_visible, generator(0))
    return model, mask, torch.randn(1, config.parcels, config.timepoints)


@pytest.mark.parametrize(
    ("card", "rate"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200 NVL", 835e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("Tesla T4", None),
    ],
)
def test_rates_of_cards(card: str, rate: float | None) -> None:
    assert peak_flops(card) == rate
