"""What the quality-control figure of a recording shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..geometry import Array


@dataclass(frozen=True)
class Reference:
    """The reference volume of a run and the brain in it."""

    image: NDArray[np.float32]  # (x, y, z)
    mask: NDArray[np.bool_]  # (x, y, z)
    affine: Array  # (4, 4)


@dataclass(frozen=True)
class QCData:
    """All that the figure shows of one recording of T volumes."""

    recording_id: str
    tr: float  # s
    confounds: pd.DataFrame  # (T, ...) trans_* mm, rot_* rad, FD mm, std_dvars, motion_outlier*
    fd_threshold: float  # mm
    dvars_threshold: float
    carpets: dict[str, NDArray[np.floating]]  # title -> (rows, T), in SD; rows sorted by tissue
    tissue: NDArray[np.int8]  # (rows,), keys of TISSUES; 0: of none
    scale: str  # what ±2 SD refers to
    reference: Reference | None
    coverage: NDArray[np.floating]  # (parcels,), share of usable voxels
    min_coverage: float
    atlas: str
    motion_known: bool = True

    @property
    def outliers(self) -> NDArray[np.intp]:
        """Indices of the outlier volumes: those that a `motion_outlierXX` column marks."""
        columns = [name for name in self.confounds if str(name).startswith("motion_outlier")]
        return np.flatnonzero(self.confounds[columns].to_numpy(dtype=float).any(axis=1))

    @property
    def seconds(self) -> NDArray[np.float64]:
        """Start of each volume, s."""
        return np.arange(len(self.confounds), dtype=np.float64) * self.tr

    def summary(self) -> dict[str, float | int]:
        """The figure's numbers, as its sidecar holds them."""
        covered = {"ParcelsCovered": round(float((self.coverage >= self.min_coverage).mean()), 4)}
        if not self.motion_known:
            return covered
        fd = self.confounds["framewise_displacement"].to_numpy(dtype=float)
        return {
            "MeanFramewiseDisplacement": round(float(np.nanmean(fd)), 4),
            "MaxFramewiseDisplacement": round(float(np.nanmax(fd)), 4),
            "OutlierVolumes": len(self.outliers),
            **covered,
        }
