"""How much of a cohort's functional connectivity goes with head motion (QC-FC).

Each edge's correlation, across subjects, with mean framewise displacement, and whether that
depends on how far its parcels are apart: motion strengthens short edges most (Power et al. 2012;
benchmarks of Ciric et al. 2017, NeuroImage 154:174).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from .measures import connectivity

Floats = NDArray[np.float64]

#: With fewer subjects a correlation across them says nothing.
LEAST_SUBJECTS = 10
_FISHER_LIMIT = 0.999_999


@dataclass(frozen=True)
class MotionLinks:
    """Correlation with motion of each edge that enough subjects have."""

    r: Floats  # (edges,)
    distance: Floats  # (edges,) mm
    subjects: int

    @property
    def median(self) -> float:
        """Median of the absolute correlations."""
        return float(np.median(np.abs(self.r)))

    @property
    def by_chance(self) -> float:
        """What that median would be if nothing went with motion."""
        return float(stats.norm.ppf(0.75) / np.sqrt(self.subjects - 1))

    @property
    def p(self) -> Floats:
        """Two-sided p of each edge, not corrected."""
        free = self.subjects - 2
        t = self.r * np.sqrt(free / np.clip(1 - self.r**2, 1e-12, None))
        return np.asarray(2 * stats.t.sf(np.abs(t), free))

    @property
    def significant(self) -> float:
        """Share of the edges with p below 0.05, not corrected: 5% by chance."""
        return float((self.p < 0.05).mean())

    @property
    def distance_dependence(self) -> float:
        """Spearman correlation between an edge's length and its link with motion."""
        return float(stats.spearmanr(self.distance, self.r).statistic)


def motion_links(runs: Iterable[tuple[float, NDArray]], centres: Floats) -> MotionLinks | None:
    """From mean FD (mm) and parcel series (T, parcels) of one run of each subject, read one by one.

    `centres` (parcels, 3) are in mm. An edge counts if nine of ten subjects have it. None: too few
    subjects, or all moved alike.
    """
    edges = np.triu_indices(len(centres), 1)
    count, x, xx, y, yy, xy = np.zeros((6, len(edges[0])))
    moved = []
    for fd, series in runs:
        values = connectivity(series)[edges]
        has = np.isfinite(values)
        z = np.arctanh(np.clip(np.where(has, values, 0), -_FISHER_LIMIT, _FISHER_LIMIT))
        moved.append(fd)
        count += has
        x += has * fd
        xx += has * fd**2
        y += z
        yy += z * z
        xy += z * fd
    if len(moved) < LEAST_SUBJECTS or np.ptp(moved) == 0:
        return None
    kept = count >= 0.9 * len(moved)
    count, x, xx, y, yy, xy = (sums[kept] for sums in (count, x, xx, y, yy, xy))
    spread = (xx - x * x / count) * (yy - y * y / count)
    known = spread > 0
    if not known.any():
        return None
    r = (xy - x * y / count)[known] / np.sqrt(spread[known])
    apart = np.linalg.norm(centres[edges[0]] - centres[edges[1]], axis=1)
    return MotionLinks(np.clip(r, -1, 1), apart[kept][known], len(moved))
