"""What disturbs the BOLD signal in time: heart, breathing, drift and artefacts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from ..geometry import Array

_STEP = 0.1  # s, of the phases
#: RMS distance, mm, of a typical run's head from its mean place; rotations at 50 mm.
_TYPICAL_MM = 0.8


@dataclass(frozen=True)
class Rhythm:
    """A wandering oscillation, e.g. the pulse; slow sampling aliases it as in a scanner."""

    phase: Array  # (steps,) rad at multiples of 0.1 s
    overtone: float

    def at(self, times: Array) -> Array:
        """Its value at `times` in s, between -1 and 1."""
        phase = self.phase_at(times)
        wave = np.sin(phase) + self.overtone * np.sin(2 * phase)
        return np.asarray(wave / (1 + self.overtone))

    def phase_at(self, times: Array) -> Array:
        """Its phase at `times` in s, rad."""
        return np.asarray(np.interp(times, np.arange(len(self.phase)) * _STEP, self.phase))


def draw_rhythm(
    seconds: float, low: float, high: float, overtone: float, rng: np.random.Generator
) -> Rhythm:
    """A rhythm of a mean rate between `low` and `high` Hz that wanders by 5% over 10 s."""
    steps = int(np.ceil(seconds / _STEP)) + 2
    wander = gaussian_filter1d(rng.standard_normal(steps), 10 / _STEP)
    wander /= max(wander.std(), 1e-9)
    rate = rng.uniform(low, high) * np.clip(1 + 0.05 * wander, 0.5, 1.5)
    phase = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.cumsum(rate) * _STEP
    return Rhythm(phase, overtone)


def draw_drifts(volumes: int, rng: np.random.Generator) -> Array:
    """Three slow courses (volumes, 3), each with SD 1: line, parabola, slow wave."""
    x = np.linspace(-1, 1, volumes)
    wave = np.cos(np.pi * x * rng.uniform(0.8, 1.6) + rng.uniform(0, 2 * np.pi))
    courses = np.stack([x, x**2, wave], axis=1)
    courses -= courses.mean(axis=0)
    return np.asarray(courses / np.maximum(courses.std(axis=0), 1e-9))


@dataclass(frozen=True)
class Artefacts:
    """Structured artefacts; all 0 when switched off."""

    edge: Array  # (volumes,) course of the head-edge component, SD 1 in a typical run
    spikes: Array  # (volumes, 4): size in % of baseline, slice, waves in x and y
    dropouts: NDArray[np.float32]  # (volumes, slices): the share of signal that is lost


def draw_artefacts(params: Array, slices: int, on: bool, rng: np.random.Generator) -> Artefacts:
    """Draw for a run with motion `params` (volumes, 6).

    The edge component follows the motion parameters, as residual motion does, plus a wave
    of its own, and is the stronger the more the head moves; about 1% of the volumes hold a
    spike and 0.7% a slice that lost signal.
    """
    volumes = len(params)
    spikes = np.zeros((volumes, 4))
    dropouts = np.zeros((volumes, slices), dtype=np.float32)
    if not on:
        return Artefacts(np.zeros(volumes), spikes, dropouts)
    scaled = (params - params.mean(axis=0)) * [1, 1, 1, 50, 50, 50]
    size = np.sqrt((scaled**2).sum(axis=1).mean()) / _TYPICAL_MM
    edge = scaled @ rng.standard_normal(6)
    edge = edge / max(edge.std(), 1e-9) + 0.5 * rng.standard_normal(volumes)
    for t in rng.choice(volumes, size=max(1, round(0.01 * volumes)), replace=False):
        spikes[t] = rng.uniform(4, 12), rng.integers(slices), *rng.uniform(3, 9, 2)
    for t in rng.choice(volumes, size=max(1, round(0.007 * volumes)), replace=False):
        dropouts[t, rng.integers(slices // 4, max(slices // 4 + 1, 3 * slices // 4))] = rng.uniform(
            0.3, 0.8
        )
    edge = size * (edge - edge.mean()) / max(edge.std(), 1e-9)
    return Artefacts(edge, spikes, dropouts)
