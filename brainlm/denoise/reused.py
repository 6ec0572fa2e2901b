"""Components that another pipeline found: fMRIPrep up to 23.0, or fMRIPost-AROMA, by MELODIC."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DataError
from ..geometry import Array
from .aroma import Regions
from .components import ACCEPTED, REJECTED
from .design import orthonormal
from .ica import Components
from .judge import Judged, judged
from .scrub import unsteady_volumes

#: Voxels per block: bounds the memory in double precision.
_BLOCK = 8192
_AGAIN = "make it anew with the pipeline that wrote it, or set derivatives.components: own"


def reuse_components(
    series: NDArray[np.float32],
    table: pd.DataFrame,
    regions: Regions,
    mixing_file: Path,
    verdict_file: Path,
    *,
    tr: float,
    seed: int,
) -> Judged:
    """Their courses and verdict; maps and features are ours, of the voxels `series` (T, n)."""
    mixing = read_their_mixing(mixing_file, len(series))
    noise = read_their_noise(verdict_file, mixing.shape[1])
    maps, explained, kept = maps_of(series, mixing, unsteady_volumes(table))
    found = Components(mixing, maps, explained, kept, estimated=mixing.shape[1], converged=True)
    mine = judged(found, table, regions, tr=tr, seed=seed)
    metrics = mine.metrics.assign(
        classification=np.where(noise, REJECTED, ACCEPTED), rationale=np.where(noise, "theirs", "")
    )
    return replace(mine, metrics=metrics)


def read_their_mixing(path: Path, n_volumes: int) -> Array:
    """Courses (T, k), with or without a line of names; those of volumes that MELODIC did not see
    (before the steady state) are 0.
    """
    try:
        first = path.read_text(encoding="utf-8").split("\n", 1)[0].split()
        named = any(not _is_number(word) for word in first)
        mixing = np.loadtxt(path, skiprows=int(named), ndmin=2)
    except (ValueError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"The courses cannot be read: {reason}", file=path, fix=_AGAIN) from None
    if not np.isfinite(mixing).all():
        raise DataError("The courses of the components hold NaN or inf", file=path, fix=_AGAIN)
    if len(mixing) != n_volumes or mixing.shape[1] >= n_volumes:
        raise DataError(
            f"The table holds {mixing.shape[1]} courses of {len(mixing)} volumes, the series has "
            f"{n_volumes} volumes",
            file=path,
            fix=_AGAIN,
        )
    return np.asarray(mixing)


def read_their_noise(path: Path, count: int) -> NDArray[np.bool_]:
    """Which components (k,) they call noise.

    fMRIPrep wrote their numbers, from 1, between commas (`AROMAnoiseICs.csv`); fMRIPost-AROMA
    writes a table with a row for each and a column `classification`.
    """
    try:
        if path.suffix == ".csv":
            words = path.read_text(encoding="utf-8").replace(",", " ").split()
            numbers = np.array([int(float(word)) for word in words], dtype=int) - 1
            if numbers.size and not (numbers.min() >= 0 and numbers.max() < count):
                raise ValueError(f"it names component {numbers.max() + 1} of {count}")
            return np.isin(np.arange(count), numbers)
        said = pd.read_csv(path, sep="\t")["classification"]
    except (ValueError, KeyError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"Which components are noise cannot be read: {reason}", file=path, fix=_AGAIN
        ) from None
    if len(said) != count or not said.isin([ACCEPTED, REJECTED]).all():
        raise DataError(
            f"The table does not call each of the {count} components {ACCEPTED} or {REJECTED}",
            file=path,
            fix=_AGAIN,
        )
    return (said == REJECTED).to_numpy()


def maps_of(
    series: NDArray[np.float32], mixing: Array, unsteady: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], Array, float]:
    """Maps (k, n) of courses (T, k), in standard errors; their shares of the variance, and all's.

    Each voxel's series is fitted by all courses together; its mean, a straight line and the
    `unsteady` volumes (T,), which MELODIC did not see, apart.
    """
    count = len(series)
    apart = np.eye(count)[:, unsteady]
    trend = orthonormal(np.column_stack([np.ones(count), np.linspace(-1, 1, count), apart]))
    courses = mixing - trend @ (trend.T @ mixing)
    inverse = np.linalg.pinv(courses.T @ courses)
    freedom = max(count - trend.shape[1] - courses.shape[1], 1)
    maps = np.zeros((courses.shape[1], series.shape[1]), dtype=np.float32)
    power, total, rest = np.zeros(courses.shape[1]), 0.0, 0.0
    for begin in range(0, series.shape[1], _BLOCK):
        values = series[:, begin : begin + _BLOCK].astype(np.float64)
        values -= trend @ (trend.T @ values)
        level = np.sqrt((values**2).mean(axis=0))
        values /= np.where(level > 0, level, 1)
        weights = inverse @ (courses.T @ values)
        left = ((values - courses @ weights) ** 2).sum(axis=0)
        error = np.sqrt(np.outer(np.diag(inverse), left / freedom))
        block = np.divide(weights, error, out=np.zeros_like(weights), where=error > 0)
        maps[:, begin : begin + _BLOCK] = block
        power += (weights**2).sum(axis=1)
        total += float((values**2).sum())
        rest += float(left.sum())
    if not total:
        raise DataError(
            "No voxel of the series varies",
            fix="look at the preprocessed series; denoise.method: none does without components",
        )
    return maps, power * (courses**2).sum(axis=0) / total, 1 - rest / total


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
