"""The machine around a training: device, threads, determinism, signals."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch

from ..errors import InputError, ResourceError


class InterruptedTrainingError(ResourceError):
    """The cluster asked us to stop; a checkpoint is safe."""


class StopRequest:
    """Whether a signal asked for an end."""

    def __init__(self) -> None:
        """No signal yet."""
        self.signal: str | None = None

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Note the signal; the loop looks at the next step's end."""
        self.signal = signal.Signals(number).name


@contextlib.contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Within the block, SIGTERM and SIGUSR1 ask for an end instead of making one.

    Slurm sends one of them before it takes a node away (`--signal`, preemption, time limit).
    """
    request = StopRequest()
    numbers = (signal.SIGTERM, signal.SIGUSR1)
    before: dict[int, Any] = {number: signal.signal(number, request.receive) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def set_up(device: str, threads: int, *, deterministic: bool = True) -> torch.device:
    """Choose the device and, unless speed comes first, make PyTorch deterministic.

    On the CPU, sums are shared out among the threads, so bytes are equal only for an equal
    number of threads; it is part of what the sidecars record.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise InputError(
            "pretrain.device is cuda, but PyTorch sees no GPU",
            fix="set pretrain.device to auto or cpu, ask Slurm for a GPU, or install a CUDA build",
        )
    chosen = torch.device("cuda" if available and device != "cpu" else "cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS's deterministic mode
    torch.use_deterministic_algorithms(deterministic)
    torch.set_num_threads(threads)
    return chosen


def describe(device: torch.device, threads: int) -> dict[str, Any]:
    """What decides the last bits of a training, for fingerprints and sidecars."""
    if device.type == "cuda":
        return {"Device": "cuda", "Torch": torch.__version__}
    return {"Device": "cpu", "Threads": threads, "Torch": torch.__version__}
