"""The machine around a training: device, threads, determinism, and when it has to end."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from ..cluster import own_job
from ..errors import InputError, ResourceError
from .distributed import ranks_of

#: Seconds by which clocks of a cluster may well differ.
_SKEW = 60.0


class InterruptedTrainingError(ResourceError):
    """The cluster asked us to stop; a checkpoint is safe."""

    def __init__(self, stop: StopRequest, folder: Path, *, begun: int, step: int, total: str):
        """Say who asked; `folder` holds the checkpoints, and `begun` is the step it started at."""
        super().__init__(
            f"Stopped by {stop.wanted or 'what another process was told'} after step {step} of "
            f"{total}; a checkpoint is safe",
            fix="run the same command again (or let Snakemake do so): it goes on there",
        )
        self.folder, self.step = folder, step
        #: Whether the job's time was over before two steps were done.
        self.hardly_begun = stop.timed_out and step - begun < 2


class StopRequest:
    """Whether an end was asked for: by a signal, or because the job's time is nearly over."""

    def __init__(
        self, seconds_left: float = math.inf, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """No signal yet. What time is left is known once and for all: wall clocks may be set."""
        self.signal: str | None = None
        self._clock, self._end = clock, clock() + seconds_left

    @property
    def wanted(self) -> str | None:
        """Who asked for an end, in words; None: nobody. The loops look at each step's end."""
        if self.signal is None and self.timed_out:
            return "the time limit of the job"
        return self.signal

    @property
    def timed_out(self) -> bool:
        """Whether the job's time is nearly over."""
        return self._clock() >= self._end

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Note the signal."""
        self.signal = signal.Signals(number).name


@contextlib.contextmanager
def stop_signals(before_end_s: float = 0.0) -> Iterator[StopRequest]:
    """Within the block, SIGTERM and SIGUSR1 ask for an end instead of making one.

    Slurm sends one of them before it takes a node away (`--signal`, preemption, time limit). Who
    did not ask it to is stopped all the same `before_end_s` seconds before the job's end (0: not).
    """
    request = StopRequest(seconds_left(os.environ, before_end_s, time.time()))
    numbers = (signal.SIGTERM, signal.SIGUSR1)
    before: dict[int, Any] = {number: signal.signal(number, request.receive) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def seconds_left(environment: Mapping[str, str], before_end_s: float, now: float) -> float:
    """Seconds until `before_end_s` before the end of the Slurm job; infinite where it is not known.

    `now`: seconds since the epoch. A job that has not begun by this machine's clock, or is over,
    tells that the clock is not that of Slurm's controller: no end is seen then. Several processes
    stop together, so the clock of the first one's machine counts alone. Where the job's variables
    do not tell the end, Slurm is asked.
    """
    if not before_end_s or not ranks_of(environment).first:
        return math.inf
    try:
        end = float(environment["SLURM_JOB_END_TIME"])
        start = float(environment.get("SLURM_JOB_START_TIME", "-inf"))
    except (KeyError, ValueError):
        return max(0.0, own_job.seconds_left(environment) - before_end_s)
    if not start - _SKEW <= now < end:
        return math.inf
    return max(0.0, end - now - before_end_s)


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
    # Not `use_deterministic_algorithms`, which imports the compiler to tell it, too: half a second
    # of every job. Who compiles tells it.
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    torch.set_num_threads(threads)
    return chosen


def describe(device: torch.device, threads: int) -> dict[str, Any]:
    """What decides the last bits of a training, for fingerprints and sidecars."""
    if device.type == "cuda":
        return {"Device": "cuda", "Torch": torch.__version__}
    return {"Device": "cpu", "Threads": threads, "Torch": torch.__version__}
