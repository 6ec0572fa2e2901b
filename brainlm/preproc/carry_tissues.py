"""Tissue maps for a template that has none, carried over from one that has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..geometry import Array
from ..images import Image
from ..tissues import Tissues
from .grids import resample_onto
from .masks import dilate
from .nonlinear import correlation_of
from .pyramid import voxel_sizes
from .registration import register, register_syn

#: The metric counts this far outside the brain, so that it sees where both heads end.
_RIM_MM = 7.0


@dataclass(frozen=True)
class Carried:
    """Grey and white matter of one template on another's grid, and how well they were brought."""

    gm: NDArray[np.float32]  # (x, y, z), 0 to 1
    wm: NDArray[np.float32]
    correlation_affine: float  # of the two T1w images inside the brain
    correlation: float  # after the nonlinear warp


def carry_tissues(
    source: Tissues, t1w: Image, brain: NDArray[np.bool_], onto: tuple[Array, tuple[int, ...]]
) -> Carried:
    """Bring the grey and white matter of `source` onto the grid `onto` of another template.

    `t1w` and `brain` (x, y, z) show that template, without its skull, on the grid on which the
    two are registered: an affine, then SyN. Both are heads of the same kind in nearly the same
    place, so no start is searched for. Only as much is carried as two averages of many heads
    have in common: folds that one of them blurs stay blurred.
    """
    near = dilate(brain, voxel_sizes(t1w.affine), _RIM_MM)
    donor = Image(source.t1w, source.affine)
    affine = register(t1w.data, t1w.affine, near, donor, np.eye(4), "Affine")
    moved, seen = resample_onto(donor, t1w.affine, t1w.data.shape, affine, order=3)
    moved = np.clip(moved, 0, None)
    warp, _ = register_syn(t1w.data, t1w.affine, near & seen, moved)
    warped, still_seen = resample_onto(
        Image(moved, t1w.affine), t1w.affine, t1w.data.shape, warp=warp
    )
    inside = brain & seen & still_seen
    grid, shape = onto
    gm, wm = (
        np.clip(resample_onto(Image(data, source.affine), grid, shape, affine, warp=warp)[0], 0, 1)
        for data in (source.gm, source.wm)
    )
    return Carried(
        gm=gm,
        wm=wm,
        correlation_affine=correlation_of(t1w.data[inside], moved[inside]),
        correlation=correlation_of(t1w.data[inside], warped[inside]),
    )
