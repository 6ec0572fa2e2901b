"""CompCor: principal components of voxels that hold noise and no neuronal signal.

Behzadi et al. 2007 (NeuroImage 37:90). *Anatomical*: voxels deep in white matter and in the
ventricles. *Temporal*: the voxels that vary most, which lie in and near vessels and CSF. Names
and definitions are fMRIPrep's, so that nilearn's `load_confounds` reads the table: drifts and
mean are taken out of each voxel, each is scaled to unit variance, and of the components as
many are kept as explain half of the variance, up to a limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..geometry import Array

Series = NDArray[np.float32]
Voxels = NDArray[np.intp]

#: Components are kept until they explain this share of the variance (fMRIPrep's default).
_EXPLAINED = 0.5
#: tCompCor looks at this share of the brain: the most variable voxels (Behzadi et al. 2007).
_MOST_VARIABLE = 0.02
#: Voxels held in double precision at a time; fixes the order of sums, too.
_BLOCK = 8192
#: A voxel (by its residual / its level) or a component (by its eigenvalue / the largest) that
#: is smaller than this is rounding. float32 holds 7 digits.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Components:
    """The k leading components of a set of voxels."""

    series: Array  # (T, k), unit length, orthogonal; 0 in volumes not at steady state
    singular_values: Array  # (k,), of voxel series in units of their standard deviation
    explained: Array  # (k,), share of the variance


def compcor_columns(
    series: Series,
    tissues: dict[str, Voxels],
    drifts: Array,
    *,
    unsteady: int,
    most: int,
) -> tuple[dict[str, Array], dict[str, dict[str, Any]]]:
    """CompCor columns of a run, each (T,), and what the sidecar says of each.

    `series` (T, n) holds the brain's voxels; `tissues` names columns of it (`csf`,
    `white_matter`); `drifts` (T, d) are the high-pass cosines; the first `unsteady` volumes
    are left out. `a_comp_cor` is of both tissues together, `c_` of CSF, `w_` of white matter,
    `t_` of the most variable voxels. No set has more than `most` columns; one with too
    few voxels or volumes has fewer, or none.
    """
    if most == 0:
        return {}, {}
    basis = _trend_basis(drifts[unsteady:])
    csf, white = tissues["csf"], tissues["white_matter"]
    sets = {
        "a": ("aCompCor", "combined", np.union1d(csf, white)),
        "c": ("aCompCor", "CSF", csf),
        "w": ("aCompCor", "WM", white),
        "t": ("tCompCor", None, most_variable(series[unsteady:], basis)),
    }
    columns: dict[str, Array] = {}
    about: dict[str, dict[str, Any]] = {}
    for prefix, (method, mask, voxels) in sets.items():
        found = leading_components(series[unsteady:], voxels, basis, most=most)
        for number, component in enumerate(found.series.T):
            name = f"{prefix}_comp_cor_{number:02d}"
            columns[name] = np.concatenate([np.zeros(unsteady), component])
            about[name] = {
                "Method": method,
                **({"Mask": mask} if mask else {}),
                "SingularValue": _rounded(found.singular_values[number]),
                "VarianceExplained": _rounded(found.explained[number]),
                "CumulativeVarianceExplained": _rounded(found.explained[: number + 1].sum()),
                "Retained": True,
            }
    return columns, about


def leading_components(series: Series, voxels: Voxels, basis: Array, *, most: int) -> Components:
    """The principal components over time of the `voxels` of `series` (T, n).

    `basis` (T, b), orthonormal, is what is taken out of each voxel first. The left singular
    vectors of the T x voxels matrix are the eigenvectors of its T x T Gram matrix, which is
    summed block by block, so memory does not grow with the voxels. The sign is such that the
    largest absolute value of each component is positive.
    """
    count = len(series)
    gram, used = np.zeros((count, count)), 0
    for values, level in _residuals(series, voxels, basis):
        length = np.linalg.norm(values, axis=0)
        varying = length > _ROUNDING * np.sqrt(count) * level
        scaled = values[:, varying] / length[varying]
        gram += scaled @ scaled.T
        used += int(varying.sum())
    # Of the whole space, `basis` is empty by construction and the rest of it holds `used` series.
    rank = min(most, used, count - basis.shape[1])
    if rank <= 0:
        return Components(np.zeros((count, 0)), np.zeros(0), np.zeros(0))
    eigenvalues, vectors = np.linalg.eigh(gram)
    values, vectors = eigenvalues[::-1][:rank], vectors[:, ::-1][:, :rank]
    explained = values / used  # each voxel adds 1 to the trace
    enough = int(np.searchsorted(np.cumsum(explained), _EXPLAINED - 1e-9)) + 1
    kept = min(enough, int((values > _ROUNDING * values[0]).sum()))
    vectors = vectors[:, :kept]
    largest = np.abs(vectors).argmax(axis=0)
    vectors = vectors * np.sign(vectors[largest, np.arange(kept)])
    return Components(vectors, np.sqrt(values[:kept] * count), explained[:kept])


def most_variable(series: Series, basis: Array) -> Voxels:
    """The 2% of the voxels of `series` (T, n) that vary most once `basis` (T, b) is taken out.

    At least one; of voxels that vary alike, the first.
    """
    every = np.arange(series.shape[1])
    if len(every) == 0 or len(series) <= basis.shape[1]:
        return every[:0]
    spread = np.concatenate(
        [np.linalg.norm(values, axis=0) for values, _ in _residuals(series, every, basis)]
    )
    wanted = int(np.ceil(_MOST_VARIABLE * len(every)))
    return np.sort(np.argsort(-spread, kind="stable")[:wanted])


def _trend_basis(drifts: Array) -> Array:
    """An orthonormal basis (T, b) of a constant and `drifts` (T, d); b is at most T."""
    columns = np.hstack([np.ones((len(drifts), 1)), drifts])
    left, values, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(left[:, values > 1e-10 * values.max(initial=0)])


def _residuals(series: Series, voxels: Voxels, basis: Array) -> Iterator[tuple[Array, Array]]:
    """Blocks of voxel series (T, m) without `basis` (T, b), and the largest value of each (m,)."""
    for begin in range(0, len(voxels), _BLOCK):
        values = series[:, voxels[begin : begin + _BLOCK]].astype(np.float64)
        level = np.abs(values).max(axis=0, initial=0)
        yield values - basis @ (basis.T @ values), level


def _rounded(value: float) -> float:
    """As precise as the table, so that a last bit does not change the sidecar."""
    return float(f"{value:.8g}")
