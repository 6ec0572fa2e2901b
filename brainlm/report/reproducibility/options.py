"""What whoever makes the reproducibility report decides: how much is read, and what is assumed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any


def quietly(items: Iterable[Any], what: str, total: int | None = None) -> Iterator[Any]:
    """Where nobody watches, there is no progress to tell."""
    del what, total
    yield from items


@dataclass(frozen=True)
class Energy:
    """What the estimate of energy takes each part to draw, as no meter was read."""

    cpu_w_per_core: float = 12.0  # a server's CPU at work, shared out among its cores
    memory_w_per_gb: float = 0.4
    gpu_w: float = 400.0  # where a training has not recorded its GPU's own limit
    pue: float = 1.5  # what a centre draws in all, by what its computers draw


@dataclass(frozen=True)
class Options:
    """How far the report looks."""

    raw: bool = False  # raw files are read whole as well
    fast: bool = False  # of large files the size and both ends are compared
    energy: Energy = field(default_factory=Energy)
    progress: Callable[[Iterable[Any], str, int | None], Iterator[Any]] = quietly
