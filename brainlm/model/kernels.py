"""Which of PyTorch's fused attention kernels is the fastest here: measured, once.

PyTorch tries flash, memory-efficient and cuDNN attention in a fixed order. Which one wins depends
on the GPU, the shapes and the dtype (on an H100 often cuDNN's), so a training may time them on its
own shapes before it starts. A choice by the clock can change the last bits from run to run: under
deterministic algorithms nothing is measured and PyTorch's order stays.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from .attention import attend
from .config import ModelConfig

CANDIDATES = (
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
)
_WARM_UP, _REPEATS = 3, 10


class Shape(NamedTuple):
    """Of one attention: `queries` look at `keys`, in so many `layers`."""

    batch: int
    heads: int
    queries: int
    keys: int
    width: int  # of a head
    layers: int


def attention_shapes(config: ModelConfig, tokens: int, batch: int, n_visible: int) -> list[Shape]:
    """The attentions of a step that shows `n_visible` of `tokens` tokens."""
    c, seen = config, n_visible + 1
    queries, keys = (tokens - n_visible, seen) if c.decoder == "cross" else (tokens + 1, tokens + 1)
    narrow = c.decoder_hidden // c.decoder_heads
    return [
        Shape(batch, c.heads, seen, seen, c.hidden // c.heads, c.layers),
        Shape(batch, c.decoder_heads, queries, keys, narrow, c.decoder_layers),
    ]


@contextlib.contextmanager
def fastest_kernels(
    shapes: list[Shape], dtype: torch.dtype, device: torch.device
) -> Iterator[tuple[SDPBackend, ...]]:
    """Within the block, attention tries the kernels in the order measured; yields that order.

    Empty, and nothing changed, where there is no choice: on the CPU, or told to be deterministic.
    """
    if device.type != "cuda" or torch.are_deterministic_algorithms_enabled():
        yield ()
        return
    name = torch.cuda.get_device_name(device)
    order = _measured(name, tuple(shapes), dtype, device)
    with sdpa_kernel([*order, SDPBackend.MATH], set_priority=True):
        yield order


def ranked(
    shapes: tuple[Shape, ...], seconds: Callable[[SDPBackend, Shape], float]
) -> tuple[SDPBackend, ...]:
    """Kernels, the fastest over all layers first; those that cannot run (inf) are last."""
    total = {
        kernel: sum(seconds(kernel, shape) * shape.layers for shape in shapes)
        for kernel in CANDIDATES
    }
    return tuple(sorted(CANDIDATES, key=total.__getitem__))


@cache
def _measured(
    name: str, shapes: tuple[Shape, ...], dtype: torch.dtype, device: torch.device
) -> tuple[SDPBackend, ...]:
    """`ranked` by the clock, remembered by the device's `name`, shapes and dtype."""
    return ranked(shapes, lambda kernel, shape: _seconds(kernel, shape, dtype, device))


def _seconds(kernel: SDPBackend, shape: Shape, dtype: torch.dtype, device: torch.device) -> float:
    """Forward and backward of one attention by `kernel`; inf where it cannot."""
    batch, heads, queries, keys, width, _ = shape
    parts = [
        torch.randn(batch, n, heads, width, device=device, dtype=dtype).requires_grad_()
        for n in (queries, keys, keys)
    ]
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    try:
        with sdpa_kernel(kernel):
            for turn in range(_WARM_UP + _REPEATS):
                if turn == _WARM_UP:
                    began.record()
                mixed = attend(*(part.transpose(1, 2) for part in parts))
                torch.autograd.grad(mixed, parts, mixed)
            ended.record()
    except RuntimeError:  # what PyTorch says when this kernel does not take these shapes
        return float("inf")
    torch.cuda.synchronize(device)
    return began.elapsed_time(ended) / 1000 / _REPEATS
