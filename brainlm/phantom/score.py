"""How well a pipeline recovers what the phantom knows: motion, parcel signals, traits."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DataError
from ..geometry import MOTION_NAMES, pose_from_params

Array = NDArray[np.float64]

_HEAD_RADIUS_MM = 80.0  # Jenkinson 1999


@dataclass(frozen=True)
class MotionScore:
    """Estimated against true motion of one run."""

    fd_r: float  # correlation of framewise displacement
    displacement_mm: float  # mean over volumes of the RMS error of position in the head
    trans_mm: float  # mean absolute error of the translations
    rot_deg: float  # mean absolute error of the rotations

    def to_json(self) -> dict[str, float | None]:
        """As JSON, with null for what could not be computed."""
        return {name: finite(value) for name, value in asdict(self).items()}


def score_motion(estimated: pd.DataFrame, truth: pd.DataFrame) -> MotionScore:
    """Compare two motion tables (trans_x ... rot_z in mm and rad, framewise_displacement).

    Their reference volumes may differ: both are expressed relative to the volume where the
    estimate is nearest to no movement, as `M inv(M_ref)`, before they are compared.
    """
    if len(estimated) != len(truth):
        raise DataError(
            f"The motion table has {len(estimated)} volumes, the truth has {len(truth)}",
            fix="the study was made from another dataset: onboard the phantom again",
        )
    mine, true = _poses(estimated), _poses(truth)
    reference = int(rms_displacement(mine - np.eye(4)).argmin())
    mine = mine @ np.linalg.inv(mine[reference])
    true = true @ np.linalg.inv(true[reference])
    # Small angles: the relative turn's off-diagonal elements are the errors in rad.
    turn = np.swapaxes(true[:, :3, :3], 1, 2) @ mine[:, :3, :3]
    angles = np.stack([turn[:, 2, 1], turn[:, 0, 2], turn[:, 1, 0]], axis=1)
    return MotionScore(
        fd_r=correlation(
            estimated["framewise_displacement"].to_numpy(dtype=float)[:, None],
            truth["framewise_displacement"].to_numpy(dtype=float)[:, None],
        )[0],
        displacement_mm=float(rms_displacement(mine - true).mean()),
        trans_mm=float(np.abs(mine[:, :3, 3] - true[:, :3, 3]).mean()),
        rot_deg=float(np.rad2deg(np.abs(angles).mean())),
    )


def rms_displacement(difference: Array) -> Array:
    """RMS over a sphere of 80 mm of how far two affines (n, 4, 4) take a point apart, mm.

    `sqrt(R^2 / 5 trace(A'A) + t't)` for the difference `[A t]` (Jenkinson 1999, FMRIB
    TR99MJ1).
    """
    turn, shift = difference[:, :3, :3], difference[:, :3, 3]
    squares = _HEAD_RADIUS_MM**2 / 5 * (turn**2).sum(axis=(1, 2)) + (shift**2).sum(axis=1)
    return np.asarray(np.sqrt(squares))


def score_series(
    recovered: pd.DataFrame, truth: pd.DataFrame, tr: float, high_pass_s: float
) -> pd.Series:
    """Correlation over time of each parcel's series with the true one, both high-passed.

    Both tables hold one row per volume and one column per parcel. A parcel that the
    pipeline left out (NaN) or that does not vary gets NaN.
    """
    if len(recovered) != len(truth):
        raise DataError(
            f"The parcel series has {len(recovered)} volumes, the truth has {len(truth)}",
            fix="the study was made from another dataset: onboard the phantom again",
        )
    absent = [name for name in truth.columns if name not in recovered.columns]
    if absent:
        raise DataError(
            f"The parcel series lacks {len(absent)} parcels of the truth, e.g. {absent[0]}",
            fix="parcellate with A424 or A424approx",
        )
    mine = high_passed(recovered[list(truth.columns)].to_numpy(dtype=float), tr, high_pass_s)
    true = high_passed(truth.to_numpy(dtype=float), tr, high_pass_s)
    return pd.Series(correlation(mine, true), index=truth.columns)


def high_passed(series: Array, tr: float, cutoff_s: float) -> Array:
    """Residuals of `series` (T, n) after its mean and the cosines slower than `cutoff_s` s.

    The cosines are those of the type-II discrete transform, up to order
    `floor(2 T tr / cutoff)`, as in SPM and fMRIPrep; 0 takes away the mean alone.
    """
    n = len(series)
    order = int(np.floor(2 * n * tr / cutoff_s)) if cutoff_s else 0
    time = (np.arange(n) + 0.5) / n
    slow = np.cos(np.pi * time[:, None] * np.arange(min(order, n - 1) + 1))
    slow /= np.linalg.norm(slow, axis=0)
    return np.asarray(series - slow @ (slow.T @ series))


def correlation(a: Array, b: Array) -> Array:
    """Pearson's r of each column (n,), over the rows finite in both; NaN if one is constant."""
    result = np.full(a.shape[1], np.nan)
    for column, (x, y) in enumerate(zip(a.T, b.T, strict=True)):
        known = np.isfinite(x) & np.isfinite(y)
        if known.sum() > 2:
            x, y = x[known] - x[known].mean(), y[known] - y[known].mean()
            scale = np.sqrt((x @ x) * (y @ y))
            if scale > 1e-12:
                result[column] = x @ y / scale
    return result


def looks_flipped(recovered: pd.DataFrame, truth: pd.DataFrame) -> bool:
    """Whether the series fit better when left and right parcels are exchanged."""
    names = [name for name in truth.columns if mirror_name(name) in truth.columns]
    mine = recovered[names].to_numpy(dtype=float)
    straight = correlation(mine, truth[names].to_numpy(dtype=float))
    crossed = correlation(mine, truth[[mirror_name(name) for name in names]].to_numpy(dtype=float))
    return bool(np.nanmedian(crossed - straight) > 0)


def mirror_name(parcel: str) -> str:
    """The other side's parcel of A424: `R_V1_ROI` of `L_V1_ROI`; empty in the midline."""
    for left, right in (("Left_", "Right_"), ("L_", "R_")):
        for one, other in ((left, right), (right, left)):
            if parcel.startswith(one):
                return other + parcel.removeprefix(one)
    if parcel.endswith(("_L", "_R")):
        return parcel[:-1] + ("R" if parcel.endswith("L") else "L")
    return ""


def trait_recovery(
    markers: pd.DataFrame, true_markers: pd.DataFrame, traits: pd.DataFrame
) -> dict[str, dict[str, float | None]]:
    """How far each trait's marker follows the trait over subjects: true and recovered.

    All three tables have one row per subject; `traits` holds the planted values as numbers.
    """
    return {
        str(trait): {
            "marker_r_true": finite(
                correlation(_column(true_markers, trait), _column(traits, trait))[0]
            ),
            "marker_r_recovered": finite(
                correlation(_column(markers, trait), _column(traits, trait))[0]
            ),
        }
        for trait in traits.columns
    }


def finite(value: float) -> float | None:
    """`value` rounded to 6 digits for JSON, or None where it is NaN."""
    return round(float(value), 6) if np.isfinite(value) else None


def _column(table: pd.DataFrame, name: str) -> Array:
    return table[[name]].to_numpy(dtype=float)


def _poses(table: pd.DataFrame) -> Array:
    """Poses (volumes, 4, 4) about the centre that both tables share."""
    rows = table[list(MOTION_NAMES)].to_numpy(dtype=float)
    return np.stack([pose_from_params(row, np.zeros(3)) for row in rows])
