"""Head motion of a run: slow drift, breathing and jerks; the head's pose at each volume.

Convention (`brainlm/geometry.py`): the head's own movement relative to the FIRST volume, in
mm and rad, about the centre of the BOLD grid. The first volume's parameters are all 0.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from ..geometry import MOTION_NAMES, Array, pose_from_params

FD_RADIUS_MM = 50.0  # Power et al. 2012
#: Nodding and sinking move a lying head most.
_SHARES = np.array([0.5, 0.7, 1.2, 1.2, 0.5, 0.6])
_DRIFT = 0.3  # SD over the run, mm at `motion_mm` 1
_BREATHING = 0.03  # mm
_JERK = 0.3  # mean size, mm; none is above 2.5 times that
_SECONDS_PER_JERK = 40.0
_STAYING = 0.3  # share of jerks after which the head does not come back


def draw_motion(
    volumes: int, tr: float, motion_mm: float, breathing: Array, rng: np.random.Generator
) -> Array:
    """Six rigid parameters (volumes, 6); `breathing` (volumes,) is between -1 and 1.

    Rotations are scaled so that 1 mm stands for 1 mm at 50 mm from the centre.
    """
    scale = motion_mm * rng.lognormal(0, 0.35)
    walk = gaussian_filter1d(rng.standard_normal((volumes, 6)).cumsum(axis=0), 10 / tr, axis=0)
    walk -= walk.mean(axis=0)
    drift = _DRIFT * walk / np.maximum(walk.std(axis=0), 1e-9)
    nod = _BREATHING * breathing[:, None] * np.array([0, 0.3, 1, 1, 0, 0])
    params = scale * (_SHARES * (drift + _jerks(volumes, tr, rng)) + nod)
    params[:, 3:] /= FD_RADIUS_MM
    return np.asarray(params - params[0])


def poses(params: Array, center: Array) -> list[Array]:
    """The pose (4, 4) of each row of `params`."""
    return [pose_from_params(row, center) for row in params]


def motion_table(params: Array) -> pd.DataFrame:
    """Columns trans_x ... rot_z (mm, rad) and framewise_displacement (mm; NaN at first)."""
    table = pd.DataFrame(params, columns=list(MOTION_NAMES))
    table["framewise_displacement"] = framewise_displacement(params)
    return table


def framewise_displacement(params: Array) -> Array:
    """FD (volumes,) of Power et al. 2012: sum of |steps|, rotations at 50 mm; NaN at first."""
    steps = np.abs(np.diff(params, axis=0))
    fd = steps[:, :3].sum(axis=1) + FD_RADIUS_MM * steps[:, 3:].sum(axis=1)
    return np.concatenate([[np.nan], fd])


def spin_history(params: Array, tr: float) -> Array:
    """Through-plane movement (volumes,) in mm that the magnetisation still remembers.

    Tissue that changes slices has not been excited at its usual times; the error decays
    with T1 (1.4 s, grey matter at 3 T).
    """
    through = np.abs(np.diff(params[:, 2], prepend=0))
    through += FD_RADIUS_MM * np.abs(np.diff(params[:, 3], prepend=0))
    kept = np.exp(-tr / 1.4)
    memory = np.zeros(len(params))
    for t in range(1, len(params)):
        memory[t] = kept * memory[t - 1] + through[t]
    return memory


def _jerks(volumes: int, tr: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Sudden movements (volumes, 6): some stay, the others fade within a few volumes."""
    moves = np.zeros((volumes, 6))
    for _ in range(rng.poisson(volumes * tr / _SECONDS_PER_JERK)):
        onset = int(rng.integers(1, volumes))
        size = _JERK * min(rng.exponential(), 2.5) * np.clip(rng.standard_normal(6), -2, 2)
        after = np.arange(volumes - onset)
        stays = rng.uniform() < _STAYING
        course = np.ones(len(after)) if stays else np.exp(-after * tr / rng.uniform(2, 6))
        moves[onset:] += course[:, None] * size
    return moves
