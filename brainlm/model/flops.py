"""How much a window costs to compute: the matrix products alone, as utilisations (MFU) count them.

Padding, norms, softmax, convolutions and the optimiser are left out, and so is whatever is computed
twice to save memory. A training step counts as three forward passes: itself and, for the
gradients of inputs and weights, twice as much backward.
"""

from __future__ import annotations

from .config import ModelConfig
from .tokenizer import count_tokens

#: Forward passes that a step of training counts for.
STEP = 3

#: Dense bfloat16 rate, with float32 sums, that makers publish, by part of the name PyTorch gives.
_PEAK = {
    "B200": 2250e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "GH200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "A40": 150e12,
    "A10": 125e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}


def forward_flops(config: ModelConfig, n_visible: int, n_asked: int | None = None) -> float:
    """Floating-point operations of one window, of which the encoder sees `n_visible` tokens.

    `n_asked` of the others are guessed, by default all. Attention by landmarks is counted as if it
    were exact.
    """
    tokens, entries = count_tokens(config), config.patch
    if config.tokenizer == "image":
        entries = config.patch**2
    hidden, width = config.hidden, config.decoder_hidden
    seen, guessed = 1 + n_visible, tokens - n_visible if n_asked is None else n_asked
    total = _linear(n_visible, entries, hidden)
    total += config.layers * _block(seen, seen, hidden, config.mlp)
    total += _linear(seen, hidden, width)
    whole = 1 + tokens
    if config.decoder == "cross":
        total += config.decoder_layers * _block(guessed, seen, width, config.decoder_mlp)
    else:  # the last of its blocks works out the hidden tokens alone
        total += (config.decoder_layers - 1) * _block(whole, whole, width, config.decoder_mlp)
        total += _block(guessed, whole, width, config.decoder_mlp)
    if config.head == "linear":
        return total + _linear(guessed, width, entries)
    return total + _linear(guessed, width, width // 2) + _linear(guessed, width // 2, entries)


def _block(n: int, m: int, width: int, mlp: int) -> float:
    """Attention of `n` tokens to `m`, and an MLP."""
    projections = 2 * _linear(n, width, width) + _linear(m, width, 2 * width)
    attention = 2 * 2.0 * n * m * width
    return projections + attention + 2 * _linear(n, width, mlp)


def _linear(n: int, width_in: int, width_out: int) -> float:
    return 2.0 * n * width_in * width_out


def peak_flops(card: str) -> float | None:
    """Operations per second that a graphics card called `card` could do; None if not known."""
    words = card.split()
    for name, rate in _PEAK.items():
        parts = name.split()
        if all(any(word.split("-")[0] == part for word in words) for part in parts):
            return rate
    return None
