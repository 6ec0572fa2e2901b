"""Latent parcel signals: a switching network model seen through a haemodynamic response.

A hidden Markov chain visits four brain states. In each state nine networks (the seven of
Yeo et al. 2011, subcortex and cerebellum) fluctuate with their own covariance. A parcel
follows its network, its neighbours (also across the midline) and itself; the sum is convolved
with the canonical double-gamma response (Friston et al. 1998; peak at 5 s, undershoot at
15 s). Traits set network amplitudes, couplings and the time spent in states: see `EFFECTS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.signal import fftconvolve, lfilter
from scipy.stats import gamma

from .parameters import stream
from .traits import Traits

Array = NDArray[np.float64]

GROUPS = (
    "Visual",
    "Somatomotor",
    "Dorsal Attention",
    "Ventral Attention",
    "Limbic",
    "Frontoparietal",
    "Default",
    "subcortex",
    "cerebellum",
)
_VIS, _SOM, _DAN, _VAN, _LIM, _FPN, _DMN, _SUB, _CER = range(9)

#: The planted effects, as `z`: age and score in SDs of their uniform ranges, sex as -1 / 1.
EFFECTS: dict[str, dict[str, object]] = {
    "age": {
        "amplitude": "Default x exp(-0.30 z), Somatomotor x exp(+0.12 z)",
        "coupling": "Default's loading on the task state is -0.6 + 0.2 z",
        "marker": "log(SD of the Default parcels / SD of all parcels)",
        "log_amplitude_per_sd": {"Default": -0.30, "Somatomotor": 0.12},
    },
    "sex": {
        "amplitude": "subcortex x exp(+0.20 z)",
        "coupling": "Somatomotor's loading on the sensory state is 0.5 + 0.4 z",
        "marker": "log(SD of the subcortical parcels / SD of all parcels)",
        "log_amplitude_per_sd": {"subcortex": 0.20},
    },
    "score": {
        "amplitude": "Limbic x exp(+0.30 z)",
        "occupancy": "weight of the default state x exp(0.5 z)",
        "marker": "log(SD of the Limbic parcels / SD of all parcels)",
        "log_amplitude_per_sd": {"Limbic": 0.30},
    },
}
#: The network whose relative amplitude is the marker of each trait.
MARKER_GROUP = {"age": "Default", "sex": "subcortex", "score": "Limbic"}

_STEP = 0.2  # s, of the simulation
_MEMORY = 2.0  # s, of the neural fluctuations
_DWELL = 15.0  # s, mean stay in a state
_SHARES = {"network": 0.45, "neighbours": 0.35, "own": 0.20}  # of each parcel's variance
_REACH = 18.0  # mm, of the correlation between neighbours
_ACROSS = 0.5  # weight of the mirrored neighbour


@dataclass(frozen=True)
class Latent:
    """Parcel signals on the fine time grid of the simulation."""

    series: NDArray[np.float32]  # (steps, parcels), in % of the baseline
    states: NDArray[np.int64]  # (steps,)
    step: float = _STEP  # s

    def at(self, times: Array) -> NDArray[np.float32]:
        """The signals (times, parcels) at `times` in s, linear between the steps of 0.2 s."""
        place = np.asarray(times) / self.step
        before = np.clip(np.floor(place).astype(int), 0, len(self.series) - 2)
        share = (place - before)[:, None].astype(np.float32)
        return np.asarray(self.series[before] * (1 - share) + self.series[before + 1] * share)


def group_of(table: pd.DataFrame) -> NDArray[np.int64]:
    """Index into `GROUPS` (parcels,) of each row of the atlas table."""
    names = table["yeo7_network"].where(table["structure"] == "cortex", table["structure"])
    lookup = {name: index for index, name in enumerate(GROUPS)}
    return np.asarray(names.map(lookup), dtype=np.int64)


def simulate(
    table: pd.DataFrame, traits: Traits, seconds: float, percent: float, rng: np.random.Generator
) -> Latent:
    """Draw the latent signals of one run of `seconds`; `percent` is their SD at mean traits."""
    groups = group_of(table)
    response = haemodynamic_response(_STEP)
    lead = len(response) + round(5 * _MEMORY / _STEP)  # run in, to be stationary from time 0
    steps = int(np.ceil(seconds / _STEP)) + 2
    n = lead + steps

    states = _draw_states(n, state_weights(traits), rng)
    networks = np.empty((n, len(GROUPS)))
    innovations = rng.standard_normal((n, len(GROUPS)))
    for state, covariance in enumerate(state_covariances(traits)):
        here = states == state
        networks[here] = innovations[here] @ np.linalg.cholesky(covariance).T

    xyz = table[["x", "y", "z"]].to_numpy(dtype=float)
    neighbours = rng.standard_normal((n, len(table))) @ _neighbour_mixing(xyz.tobytes()).T
    drive = (
        np.sqrt(_SHARES["network"]) * networks[:, groups]
        + np.sqrt(_SHARES["neighbours"]) * neighbours
        + np.sqrt(_SHARES["own"]) * rng.standard_normal((n, len(table)))
    )
    memory = np.exp(-_STEP / _MEMORY)
    neural = lfilter([np.sqrt(1 - memory**2)], [1, -memory], drive, axis=0)
    bold = fftconvolve(neural, response[:, None], axes=0)[lead:n]
    amplitude = percent * network_amplitudes(traits)[groups] * _parcel_gains(len(table))
    bold *= amplitude / _response_sd(response, memory)
    return Latent(bold.astype(np.float32), states[lead:])


def network_amplitudes(traits: Traits) -> Array:
    """Amplitude (9,) of each network relative to a subject of mean traits."""
    log = np.zeros(len(GROUPS))
    for effect, z in zip(EFFECTS.values(), traits.standard, strict=True):
        slopes = effect["log_amplitude_per_sd"]
        assert isinstance(slopes, dict)
        for name, slope in slopes.items():
            log[GROUPS.index(name)] += slope * z
    return np.exp(log)


def state_covariances(traits: Traits) -> Array:
    """Correlations (4, 9, 9) of the networks in the states: sensory, task, default, integrated.

    One factor per state: a network with loading `l` shares `l` of its SD with the others.
    """
    age, sex, _ = traits.standard
    loadings = np.zeros((4, len(GROUPS)))
    loadings[0, [_VIS, _SOM, _DAN, _CER]] = 0.8, 0.5 + 0.4 * sex, 0.5, 0.4
    loadings[1, [_DAN, _FPN, _VAN, _DMN]] = 0.8, 0.8, 0.6, -0.6 + 0.2 * age
    loadings[2, [_DMN, _LIM, _SUB, _DAN]] = 0.8, 0.7, 0.5, -0.5
    loadings[3] = 0.6
    covariance = loadings[:, :, None] * loadings[:, None, :]
    diagonal = np.arange(len(GROUPS))
    covariance[:, diagonal, diagonal] = 1
    return covariance


def state_weights(traits: Traits) -> Array:
    """Stationary share (4,) of time in each state."""
    weights = np.array([1.0, 1.0, np.exp(0.5 * traits.standard[2]), 0.7])
    return weights / weights.sum()


def haemodynamic_response(step: float) -> Array:
    """Double-gamma response (32 s at `step`), with sum 1."""
    time = np.arange(0, 32, step)
    response = gamma.pdf(time, 6) - gamma.pdf(time, 16) / 6
    return np.asarray(response / response.sum())


def trait_markers(series: NDArray[np.floating[Any]], groups: NDArray[np.int64]) -> dict[str, float]:
    """What in a run's parcel series (T, parcels) shows each trait; NaN parcels are left out."""
    sd = series.std(axis=0)
    return {
        trait: float(np.log(np.nanmean(sd[groups == GROUPS.index(name)]) / np.nanmean(sd)))
        for trait, name in MARKER_GROUP.items()
    }


def _draw_states(n: int, weights: Array, rng: np.random.Generator) -> NDArray[np.int64]:
    """Markov chain (n,): at each step leave with the same chance, to a state drawn by weight."""
    leaves = rng.uniform(size=n) < _STEP / _DWELL
    leaves[0] = True
    drawn = rng.choice(len(weights), size=int(leaves.sum()), p=weights)
    return np.asarray(drawn[np.cumsum(leaves) - 1])


@cache
def _neighbour_mixing(xyz_bytes: bytes) -> Array:
    """Square root (parcels, parcels) of the correlation that neighbours share.

    A Gaussian field over the brain plus half of its mirror image, so that homotopic parcels
    go together.
    """
    xyz = np.frombuffer(xyz_bytes).reshape(-1, 3)

    def kernel(a: Array, b: Array) -> Array:
        distance = ((a[:, None] - b[None]) ** 2).sum(axis=-1)
        return np.asarray(np.exp(-distance / (2 * _REACH**2)))

    covariance = (1 + _ACROSS**2) * kernel(xyz, xyz) + 2 * _ACROSS * kernel(xyz * [-1, 1, 1], xyz)
    sd = np.sqrt(np.diag(covariance))
    covariance /= sd[:, None] * sd[None]
    return np.asarray(np.linalg.cholesky(covariance + 1e-6 * np.eye(len(xyz))))


def _parcel_gains(parcels: int) -> Array:
    """Amplitude (parcels,) of each parcel in everybody: the same for every seed."""
    return np.asarray(stream(0, "parcel gains").uniform(0.8, 1.2, parcels))


def _response_sd(response: Array, memory: float) -> float:
    """SD of a unit first-order process after convolution with `response` (exact)."""
    lags = np.abs(np.subtract.outer(np.arange(len(response)), np.arange(len(response))))
    return float(np.sqrt(response @ memory**lags @ response))
