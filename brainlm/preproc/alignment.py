r"""Rigid alignment of one volume to a reference, by inverse-compositional Gauss-Newton.

The volume `V` shows the reference `R` under a pose `M` and an intensity scale `a`:
`V(M x) = a R(x)` for every point `x` of the head. From an estimate `M`, seek the small pose
`W(d)`, `d` = (3 shifts, 3 rotations), for which `V(M x) = a R(W(d) x)`. To first order

    V(M x)  =  a R(x) + a g(x)' J(x) d,        J(x) d = shift + rotation x (x - c),

with `g` the gradient of `R`. The products `g' J`, the *steepest-descent images* (g, (x - c) x g),
belong to the reference, so they are computed once for all volumes (Baker & Matthews 2004,
Int. J. Comput. Vis. 56:221). The least-squares solution of this linear system in `(a d, a)`,
with Huber weights against residuals that no pose explains (Huber 1964, Ann. Math. Stat.
35:73), gives the update `M <- M W(d)^-1`. Coarse levels come first, as in Thevenaz et al.
1998 (IEEE Trans. Image Process. 7:27).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..geometry import Array, pose_from_params
from .pyramid import Level, inside, sample

#: Residuals beyond this many standard deviations lose weight (95% efficient on Gaussian noise).
_HUBER = 1.345
_MAD_TO_SD = 1.4826
#: A single step of more than this many mm means that the method has lost the head.
_LOST_MM = 60.0


@dataclass(frozen=True)
class Alignment:
    """Where the head stands in one volume."""

    pose: Array  # (4, 4)
    correlation: float  # of the volume, sampled along the pose, with the reference
    converged: bool


def align(
    coefficients: NDArray,
    affine: Array,
    level: Level,
    start: Array,
    *,
    iterations: int,
    tolerance_mm: float,
) -> Alignment:
    """Find the pose of a volume, given by its spline coefficients at the level's smoothness.

    Stops when a step moves no point by more than `tolerance_mm`.
    """
    to_voxels = np.linalg.inv(affine)
    reference = level.design[:, 6]
    corners = _corners(level.points)
    pose, scale = start, None
    correlation, converged = -1.0, False
    for _ in range(iterations):
        voxels = (to_voxels @ pose @ level.points)[:3]
        values = sample(coefficients, voxels).astype(float)
        weights = inside(voxels, coefficients.shape).astype(float)
        correlation = _correlation(values, reference, weights)
        if scale is not None:
            weights *= _huber_weights(values - scale * reference, weights > 0)
        step, scale = _solve(level.design, values, weights, level.center)
        if step is None or scale is None:
            break
        pose = pose @ np.linalg.inv(step)
        moved = np.linalg.norm(((step @ corners) - corners)[:3], axis=0).max()
        if moved > _LOST_MM:
            break
        if moved < tolerance_mm:
            converged = True
            break
    return Alignment(pose, correlation, converged)


def _solve(
    design: Array, values: Array, weights: Array, center: Array
) -> tuple[Array | None, float | None]:
    """Weighted least squares in `(a d, a)`: the step `W(d)` and the scale `a`."""
    weighted = design * weights[:, None]
    try:
        solution = np.linalg.solve(weighted.T @ design, weighted.T @ values)
    except np.linalg.LinAlgError:
        return None, None
    scale = float(solution[6])
    if not np.isfinite(solution).all() or scale <= 0:
        return None, None
    return pose_from_params(solution[:6] / scale, center), scale


def _huber_weights(residual: Array, used: NDArray[np.bool_]) -> Array:
    spread = _MAD_TO_SD * float(np.median(np.abs(residual[used]))) if used.any() else 0.0
    if spread <= 0:
        return np.ones_like(residual)
    return np.minimum(1, _HUBER * spread / np.maximum(np.abs(residual), 1e-12))


def _correlation(values: Array, reference: Array, weights: Array) -> float:
    used = weights > 0
    if used.sum() < 10:
        return -1.0
    a = values[used] - values[used].mean()
    b = reference[used] - reference[used].mean()
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norm) if norm > 0 else -1.0


def _corners(points: Array) -> Array:
    """The eight corners (4, 8) of the box around the points: no point moves more than they."""
    low, high = points[:3].min(axis=1), points[:3].max(axis=1)
    grid = np.meshgrid(*zip(low, high, strict=True), indexing="ij")
    return np.vstack([np.reshape(grid, (3, -1)), np.ones(8)])
