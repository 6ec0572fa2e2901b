"""ICA-AROMA: which independent components are head motion (Pruim et al. 2015).

Four features of each component, and a published rule on them (NeuroImage 112:267, with the
constants of the authors' program, FACTS: a component is noise if its map lies in CSF, if its
course is fast, or if a plane through (correlation with motion, share at the brain's edge) puts
it on the noise side).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Above either of these a component is noise.
CSF_THRESHOLD, FREQUENCY_THRESHOLD = 0.10, 0.35
#: The plane: offset, weight of the correlation with motion, weight of the edge fraction.
PLANE = (-19.9751070082159, 9.95127547670627, 24.8333160239175)

#: The correlation is the mean over so many random subsets of this share of the volumes.
SUBSETS, SUBSET_SHARE = 1000, 0.9
#: Power below this frequency (Hz) is drift, and not counted.
SLOWEST_HZ = 0.01


@dataclass(frozen=True)
class Regions:
    """Where noise shows, as masks over the voxels of the component maps, each (n,)."""

    csf: Mask
    edge: Mask
    outside: Mask


def subsets(volumes: int, seed: int) -> NDArray[np.intp]:
    """Row numbers (SUBSETS, m) of the random subsets, m being 90% of the volumes."""
    size = round(SUBSET_SHARE * volumes)
    draws = np.random.default_rng(seed).random((SUBSETS, volumes))
    return np.argsort(draws, axis=1)[:, :size]


def motion_correlation(mixing: Array, motion: Array, chosen: NDArray[np.intp]) -> Array:
    """How much each course (k,) of `mixing` (T, k) follows the six parameters `motion` (T, 6).

    The largest absolute correlation with any of the 36 columns of `motion_model` or, both
    squared, with their squares; its mean over the subsets of volumes `chosen` (s, m).

    The correlations in a subset follow from its sums of `x`, `y`, `xy`, `x^2` and `y^2`, and
    these, for all subsets, from products with one matrix of zeros and ones.
    """
    model = motion_model(motion)
    member = np.zeros((len(chosen), len(mixing)))
    np.put_along_axis(member, chosen, 1.0, axis=1)
    plain = _largest_correlation(member, mixing, model)
    squared = _largest_correlation(member, mixing**2, model**2)
    return np.asarray(np.maximum(plain, squared).mean(axis=0))


def motion_model(motion: Array) -> Array:
    """36 columns (T, 36) of six parameters (T, 6): with derivatives, then a frame back and forth.

    What a shift leaves open is 0, as is the first derivative.
    """
    change = np.vstack([np.zeros((1, motion.shape[1])), np.diff(motion, axis=0)])
    both = np.hstack([motion, change])
    gap = np.zeros((1, both.shape[1]))
    return np.hstack([both, np.vstack([gap, both[:-1]]), np.vstack([both[1:], gap])])


def _largest_correlation(member: Array, courses: Array, model: Array) -> Array:
    """Largest |r| (subsets, k) of each course (T, k) with any column of the model (T, p)."""
    # Centred and scaled first, so that the sums of squares do not cancel.
    x, y = _standardised(courses), _standardised(model)
    count = member.sum(axis=1, keepdims=True)
    sum_x, sum_y = member @ x, member @ y
    spread_x = member @ x**2 - sum_x**2 / count
    spread_y = member @ y**2 - sum_y**2 / count
    largest = np.zeros_like(sum_x)
    with np.errstate(divide="ignore", invalid="ignore"):
        for column in range(y.shape[1]):
            together = member @ (x * y[:, [column]]) - sum_x * sum_y[:, [column]] / count
            r = np.abs(together) / np.sqrt(spread_x * spread_y[:, [column]])
            largest = np.fmax(largest, r)
    return largest


def _standardised(columns: Array) -> Array:
    centred = columns - columns.mean(axis=0)
    spread = centred.std(axis=0)
    return np.asarray(centred / np.where(spread > 0, spread, 1))


def high_frequency_content(mixing: Array, tr: float) -> Array:
    """Where the power of each course (k,) is halved: 0 at 0.01 Hz, 1 at the Nyquist frequency.

    Of the frequencies above 0.01 Hz, the one at which the cumulative power comes nearest to
    half of the total.
    """
    power = np.abs(np.fft.rfft(mixing, axis=0)) ** 2
    frequency = np.fft.rfftfreq(len(mixing), tr)
    counted = frequency > SLOWEST_HZ
    power, frequency = power[counted], frequency[counted]
    total = power.sum(axis=0)
    share = np.cumsum(power, axis=0) / np.where(total > 0, total, 1)
    nearest = np.abs(share - 0.5).argmin(axis=0)
    nyquist = 1 / (2 * tr)
    return np.asarray((frequency[nearest] - SLOWEST_HZ) / (nyquist - SLOWEST_HZ))


def spatial_fractions(maps: NDArray, regions: Regions) -> tuple[Array, Array]:
    """Edge and CSF fraction (k,) each, of thresholded maps (k, n).

    The CSF fraction is the share of the map's absolute weight in CSF; the edge fraction that at
    the brain's edge or outside, of the weight not in CSF. A map without weight has neither.
    """
    weight = np.abs(maps).astype(np.float64)
    total = weight.sum(axis=1)
    csf = weight[:, regions.csf].sum(axis=1)
    rim = weight[:, regions.edge].sum(axis=1) + weight[:, regions.outside].sum(axis=1)
    rest = total - csf
    edge_fraction = np.divide(rim, rest, out=np.zeros_like(rim), where=rest > 0)
    csf_fraction = np.divide(csf, total, out=np.zeros_like(csf), where=total > 0)
    return edge_fraction, csf_fraction


def motion_side(metrics: pd.DataFrame) -> pd.Series:
    """On which side of the published plane each component (row) lies: above 0 is noise."""
    offset, of_motion, of_edge = PLANE
    return offset + of_motion * metrics["max_RP_corr"] + of_edge * metrics["edge_fract"]
