"""The distortion of a run without a field map, guessed from its T1w.

The reference volume is warped to the brain of its own T1w by SyN, along the phase-encoding axis
only, after the T1w's contrast has been turned into EPI's (Wang et al. 2017, Front. Neuroinform.
11:17). Where EPI has lost its signal there is nothing to go by: this is the last resort.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..images import Image
from .distortion import axis_and_sign, shift_from_field, unwarp
from .fieldmap import upright
from .grids import resample_onto, shrink
from .masks import dilate
from .pyramid import voxel_sizes
from .registration import correct_bias, register, register_syn

Mask = NDArray[np.bool_]

#: Where the readout time is not known, it only turns a shift into Hz and back; any value does.
NOMINAL_READOUT_S = 0.03
#: The first registration sees the distorted image; the second starts from what SyN made of it.
_PASSES = 2
_RIM_MM = 6.0
#: Variance (voxels^2) of the smoothing of the whole field after each step of SyN.
_STIFFNESS = 6.0
#: SD of the smoothing of the result, mm.
_SMOOTH_MM = 8.0


def field_from_anatomy(
    boldref: Image,
    mask: Mask,
    brain: Image,
    *,
    direction: str,
    readout_s: float,
    zoom: float,
) -> Image:
    """The field (x, y, z) in Hz on the grid of `boldref`, its median in the brain at 0.

    `brain` is the skull-stripped, bias-corrected T1w.
    """
    axis, sign = axis_and_sign(direction)
    gain = correct_bias(boldref.data, boldref.affine, mask)
    even = Image(boldref.data / gain, boldref.affine)
    target = like_epi(shrink(brain, zoom))
    sizes = voxel_sizes(boldref.affine)
    flat = np.diag([*sizes, 1.0])  # the stored axes as world axes, so that one can be singled out
    along = tuple(float(k == axis) for k in range(3))
    pose, field = np.eye(4), Image(np.zeros_like(gain), boldref.affine)
    for _ in range(_PASSES):
        straight = Image(unwarp(even, shift_from_field(field, direction, readout_s)), even.affine)
        grid, fixed, near = upright(straight, mask, zoom)
        pose = register(fixed, grid, near, target, pose, "Rigid")
        shown, _ = resample_onto(target, boldref.affine, gain.shape, pose, order=1)
        inside = dilate(shown > 0, sizes, _RIM_MM)
        moving = np.where(dilate(shown > 0, sizes, 2 * _RIM_MM), even.data, 0)
        warp, _ = register_syn(shown, flat, inside, moving, _STIFFNESS, restrict=along)
        mm = ndimage.gaussian_filter(warp.displacement[..., axis], _SMOOTH_MM / sizes)
        hz = sign * mm / sizes[axis] / readout_s
        field = Image((hz - np.median(hz[mask])).astype(np.float32), boldref.affine)
    return field


def like_epi(brain: Image) -> Image:
    """A T1w brain with its contrast turned around: fluid brightest, white matter darkest."""
    inside = brain.data > 0
    top = float(np.percentile(brain.data[inside], 99))
    turned = np.where(inside, np.clip(1.5 - brain.data / top, 0.2, None), 0)
    return Image(turned.astype(np.float32), brain.affine)
