"""Nuisance time series of a run, under fMRIPrep's column names."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from ..geometry import MOTION_NAMES, Array
from ..temporal import cosine_drifts
from ..tissues import Tissues
from .compcor import compcor_columns

Series = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: A tissue voxel must be at least this pure, so that its mean holds no neuronal signal.
_PURE = 0.9
#: With fewer voxels than this in the pure core, the purest are taken instead.
_FEWEST = 20
#: Interquartile range of a Gaussian, in standard deviations.
_IQR_OF_GAUSSIAN = 1.349
#: Voxels held in double precision at a time.
_BLOCK = 8192


def confounds_table(
    series: Series,
    motion: pd.DataFrame,
    tissues: dict[str, NDArray[np.intp]],
    *,
    tr: float,
    fd_threshold_mm: float,
    dvars_threshold: float,
    high_pass_s: float,
    compcor_components: int | Literal["half"],
) -> tuple[pd.DataFrame, dict[str, dict[str, Any]]]:
    """All confounds of a run, and what is to be said of each CompCor column.

    The table has T rows, NaN where undefined (differences at the first volume). `series`
    (T, n) holds the brain voxels; `tissues` names columns of it (`csf`, `white_matter`);
    `motion` has the six parameters, `framewise_displacement`, `rmsd` and a
    `non_steady_state_outlierXX` for each volume before the steady state.
    """
    unsteady = motion.filter(regex="^non_steady_state_outlier")
    start = unsteady.shape[1]
    fd = motion["framewise_displacement"].to_numpy()
    plain, standardised = dvars(series, start)
    means = {"global_signal": series.mean(axis=1, dtype=float)}
    for name, voxels in tissues.items():
        means[name] = series[:, voxels].mean(axis=1, dtype=float)
    columns: dict[str, NDArray] = {
        "framewise_displacement": fd,
        "rmsd": motion["rmsd"].to_numpy(),
        "dvars": plain,
        "std_dvars": standardised,
    }
    drifts = cosine_drifts(len(series), tr, high_pass_s)
    for number, cosine in enumerate(drifts.T):
        columns[f"cosine{number:02d}"] = cosine
    most = len(series) if compcor_components == "half" else compcor_components
    components, about = compcor_columns(series, tissues, drifts, unsteady=start, most=most)
    columns |= components
    columns |= {str(name): unsteady[name].to_numpy(dtype=int) for name in unsteady}
    outliers = outlier_volumes(fd > fd_threshold_mm, standardised > dvars_threshold, unsteady=start)
    for number, volume in enumerate(outliers):
        columns[f"motion_outlier{number:02d}"] = (np.arange(len(series)) == volume).astype(int)
    parts = [motion[list(MOTION_NAMES)], pd.DataFrame(means)]
    table = pd.concat([*map(expand, parts), pd.DataFrame(columns)], axis=1)
    return table, about


def outlier_volumes(moved: Mask, changed: Mask, *, unsteady: int) -> NDArray[np.intp]:
    """The volumes that `moved` (T,) or whose intensities `changed` (T,) beyond the thresholds.

    The first `unsteady` volumes have columns of their own. The difference of the one that
    follows them to the last of them tells about magnetisation, not about that volume.
    """
    volume = np.arange(len(moved))
    if unsteady:
        changed = changed & (volume > unsteady)
    return np.flatnonzero((moved | changed) & (volume >= unsteady))


def expand(params: pd.DataFrame) -> pd.DataFrame:
    """Each of k columns with its backward difference and both squared: 4 k columns.

    Of the six motion parameters these are the 24 of Satterthwaite et al. 2013 (NeuroImage
    64:240); with those of global signal, CSF and white matter, its 36. Names as fMRIPrep's.
    """
    columns = {}
    for name in params:
        value = params[name].to_numpy(dtype=float)
        change = np.concatenate([[np.nan], np.diff(value)])
        columns[f"{name}"] = value
        columns[f"{name}_derivative1"] = change
        columns[f"{name}_derivative1_power2"] = change**2
        columns[f"{name}_power2"] = value**2
    return pd.DataFrame(columns)


def dvars(series: Series, unsteady: int = 0) -> tuple[Array, Array]:
    """DVARS and standardised DVARS (T,) of voxels (T, n); the first volume's are NaN.

    DVARS is the root mean square over voxels of the difference between successive volumes
    (Power et al. 2012), here after scaling the run so that
    the median voxel's mean is 1000. A run without a level (its means taken out before, as some
    pipelines do) keeps its own units. DVARS is divided,
    for the standardised one, by the value that a clean run would have (Nichols 2013; Afyouni
    & Nichols 2018, NeuroImage 172:291): the mean over voxels of `sd * sqrt(2 (1 - r))`, with
    `sd` the robust standard deviation (interquartile range / 1.349) and `r` the lag-1
    autocorrelation. So 1 is a run's own quiet level. Constant voxels are left out. Level
    and quiet are measured without the first `unsteady` volumes, whose brightness would pass
    for autocorrelation.
    """
    undefined = np.full(len(series), np.nan)
    settled = series[unsteady:]
    varying = np.flatnonzero(settled.max(axis=0) > settled.min(axis=0))
    if len(varying) == 0 or len(settled) < 3:
        return undefined, undefined.copy()
    squares, expected = np.zeros(len(series) - 1), 0.0
    for begin in range(0, len(varying), _BLOCK):
        values = series[:, varying[begin : begin + _BLOCK]].astype(np.float64)
        step = np.diff(values, axis=0)
        squares += (step**2).sum(axis=1)
        expected += _expected_steps(values[unsteady:]).sum()
    plain = np.sqrt(squares / len(varying))
    level = float(np.median(settled[:, varying].mean(axis=0)))
    expected /= len(varying)
    standardised = plain / expected if expected > 0 else np.full(plain.shape, np.nan)
    scale = 1000 / level if level > expected else 1.0
    return np.concatenate([[np.nan], plain * scale]), np.concatenate([[np.nan], standardised])


def _expected_steps(values: Array) -> Array:
    """The standard deviation (n,) that successive differences of clean series (T, n) would have.

    Quartiles are taken from the sorted values without interpolation, as fMRIPrep does.
    """
    low, high = np.percentile(values, (25, 75), axis=0, method="lower")
    centered = values - values.mean(axis=0)
    lag1 = (centered[1:] * centered[:-1]).sum(axis=0) / (centered**2).sum(axis=0)
    return np.asarray((high - low) / _IQR_OF_GAUSSIAN * np.sqrt(2 * (1 - lag1)))


def tissue_voxels(tissues: Tissues, mask: Mask) -> dict[str, NDArray[np.intp]]:
    """Indices, among the voxels of `mask`, of the cores of CSF and white matter.

    Only voxels of nearly pure tissue count; those of CSF must lie away from the brain's
    surface (in the ventricles) and those of white matter away from grey matter, so that
    neither carries the cortex's signal.
    """
    size = np.linalg.norm(tissues.affine[:3, :3], axis=0)
    depth = ndimage.distance_transform_edt(tissues.brain, sampling=size)
    white = ndimage.binary_erosion(tissues.wm > 0.5)
    cores = {
        "csf": np.where(depth > 12, tissues.csf, 0),
        "white_matter": np.where(white, tissues.wm, 0),
    }
    return {name: _purest(core[mask]) for name, core in cores.items()}


def _purest(share: NDArray[np.float32]) -> NDArray[np.intp]:
    """Voxels above the purity wanted, or the few purest where there are too few."""
    pure = np.flatnonzero(share > _PURE)
    if len(pure) >= _FEWEST:
        return pure
    best = np.argsort(-share, kind="stable")[:_FEWEST]
    return np.sort(best[share[best] > 0])
