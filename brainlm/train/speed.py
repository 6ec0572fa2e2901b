"""How fast a training is, and when it will end: told to people, never written among results."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import torch

from ..model.config import ModelConfig
from ..model.flops import STEP, forward_flops, peak_flops
from ..model.mask import count_asked
from ..model.tokenizer import count_tokens
from .masking import Masking

#: Steps over which speed is averaged.
_STEPS = 50


class Speed(NamedTuple):
    """Of the last steps."""

    recordings_per_s: float  # windows, over all processes
    utilisation: float | None  # share of the GPUs' bf16 peak (MFU); None: not known, or no GPU
    seconds_left: float  # in training; validation comes on top


class Speedometer:
    """Watches steps go by."""

    def __init__(
        self,
        total_steps: int,
        windows_per_step: float,
        flops_per_window: float,
        peak: float | None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        """`peak`: operations per second of all the processes' GPUs together."""
        self._total, self._windows, self._clock = total_steps, windows_per_step, clock
        self._flops, self._peak = flops_per_window, peak
        self._seen: deque[tuple[int, float]] = deque(maxlen=_STEPS + 1)

    def note(self, step: int) -> Speed | None:
        """The speed once `step` is done; None at the first step that is seen."""
        self._seen.append((step, self._clock()))
        (first, start), (last, end) = self._seen[0], self._seen[-1]
        if last == first or end <= start:
            return None
        steps_per_s = (last - first) / (end - start)
        rate = steps_per_s * self._windows
        used = rate * self._flops / self._peak if self._peak else None
        return Speed(rate, used, (self._total - step) / steps_per_s)


def training_flops(config: ModelConfig, masking: Masking) -> float:
    """Operations that training on one window takes (matrix products)."""
    asked = count_asked(count_tokens(config) - masking.n_visible, masking.guessed)
    return STEP * forward_flops(config, masking.n_visible, asked)


def peak_of(device: torch.device, world: int) -> float | None:
    """Operations per second in bf16 of `world` GPUs like this one; None where it is not known."""
    if device.type != "cuda":
        return None
    one = peak_flops(torch.cuda.get_device_name(device))
    return one and one * world
