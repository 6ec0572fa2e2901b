"""Registration and bias correction by ANTs, between images in our own conventions.

Images are handed over on axis-aligned RAS grids that this package made, so that ITK's demands
on headers (no shear, LPS) never meet raw data.
"""

from __future__ import annotations

import contextlib
import tempfile
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..geometry import Array, read_itk_affines
from ..images import Image
from ..warps import Warp
from .grids import resample_onto
from .pyramid import voxel_sizes

#: Voxel size on which the bias field is fitted.
_FIELD_MM = 8.0

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

#: SyN: cross-correlation over 5 voxels each way; steps at 4, 2 and 1 times the voxel size.
#: On heads with known deformation, mutual information (ANTs' default) left twice the error.
_SYN_RADIUS = 2
_SYN_ITERATIONS = (40, 20, 10)


def register(
    fixed: NDArray,
    affine: Array,
    mask: NDArray[np.bool_],
    moving: Image,
    start: Array,
    kind: Literal["Rigid", "Affine"],
) -> Array:
    """The transform (4, 4) from fixed to moving points that maximises mutual information.

    `fixed` and `mask` (x, y, z) stand on the grid `affine`. The moving image is first brought
    onto that grid along `start`, so ANTs sees two images of one frame and finds the rest
    (Avants et al. 2011, NeuroImage 54:2033; metric of Mattes et al. 2003). Only points of the
    mask that the moving image covers count.
    """
    import ants

    moved, seen = resample_onto(moving, affine, fixed.shape, start, order=3)
    usable = mask & seen
    if usable.sum() < 500:
        raise DataError(
            "The two images to register do not overlap in space",
            fix="check the affines (sform, qform) of the run and of its T1w",
        )
    with tempfile.TemporaryDirectory(prefix="brainlm-") as folder:
        result = ants.registration(
            fixed=to_ants(fixed, affine),
            moving=to_ants(np.clip(moved, 0, None), affine),
            type_of_transform=kind,
            mask=to_ants(usable, affine),
            outprefix=f"{folder}/",
            random_seed=1,
            aff_metric="mattes",
            aff_sampling=32,
            aff_random_sampling_rate=0.5,
            aff_iterations=(100, 50, 20),
            aff_shrink_factors=(3, 2, 1),
            aff_smoothing_sigmas=(2, 1, 0),
        )
        return start @ _read_linear(result["fwdtransforms"])


def register_syn(
    fixed: NDArray,
    affine: Array,
    mask: NDArray[np.bool_],
    moved: NDArray,
    stiffness: float = 0.0,
    restrict: tuple[float, ...] | None = None,
) -> tuple[Warp, Warp]:
    """The displacement of fixed to moving points by SyN, and the displacement back.

    All images (x, y, z) stand on the grid `affine`; `moved` has been brought there linearly and
    freed of its bias. The metric is local cross-correlation inside `mask` (Avants et al. 2008).
    `stiffness` is the variance (voxels^2) of the Gaussian that smooths the whole field after
    each step; 0 smooths the steps alone. `restrict` (3,) weighs movement along each world axis.
    """
    import ants

    with tempfile.TemporaryDirectory(prefix="brainlm-") as folder:
        result = ants.registration(
            fixed=to_ants(fixed, affine),
            moving=to_ants(moved, affine),
            type_of_transform="SyNOnly",
            initial_transform="Identity",
            mask=to_ants(mask, affine),
            outprefix=f"{folder}/",
            random_seed=1,
            syn_metric="CC",
            syn_sampling=_SYN_RADIUS,
            reg_iterations=_SYN_ITERATIONS,
            total_sigma=stiffness,
            restrict_transformation=restrict,
        )
        forward, back = (
            _read_field([name for name in result[key] if name.endswith("Warp.nii.gz")], affine)
            for key in ("fwdtransforms", "invtransforms")
        )
    return forward, back


def correct_bias(image: NDArray, affine: Array, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The smooth gain field (x, y, z) of an image, by N4 (Tustison et al. 2010, IEEE TMI 29:1310).

    Divide the image by it. Scaled to a mean of 1 inside `mask`. The field is fitted on voxels
    of about 8 mm, which it varies far more slowly than.
    """
    import ants

    sizes = voxel_sizes(affine)
    upright = np.diag([*sizes, 1.0])  # how the grid stands in the world is of no matter here
    source = to_ants(np.clip(image, 0, None), upright)
    with contextlib.redirect_stdout(None):
        field = ants.n4_bias_field_correction(
            source,
            mask=to_ants(mask, upright),
            shrink_factor=max(1, round(_FIELD_MM / float(sizes.min()))),
            convergence={"iters": [40, 30], "tol": 1e-5},
            spline_param=[2, 2, 2],
            return_bias_field=True,
        ).numpy()
    gain = np.where(np.isfinite(field) & (field > 0), field, 1.0)
    return np.asarray(gain / gain[mask].mean(), dtype=np.float32)


def to_ants(data: NDArray, affine: Array) -> Any:
    """An ANTs image of `data` (x, y, z)."""
    import ants

    lps = _LPS @ affine
    spacing = voxel_sizes(affine)
    return ants.from_numpy(
        np.ascontiguousarray(data, dtype=np.float32),
        origin=lps[:3, 3].tolist(),
        spacing=spacing.tolist(),
        direction=lps[:3, :3] / spacing,
    )


def _read_field(names: list[str], affine: Array) -> Warp:
    """The one displacement field that `ants.registration` left, in RAS."""
    import ants

    (name,) = names
    vectors = ants.image_read(name).numpy() * np.diag(_LPS)[:3]
    return Warp(np.ascontiguousarray(vectors, dtype=np.float32), affine)


def _read_linear(names: list[str]) -> Array:
    """The one linear transform that `ants.registration` left, as a RAS matrix."""
    import ants

    (name,) = names
    transform = ants.read_transform(name)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as text:
        text.write("Parameters: " + " ".join(repr(float(v)) for v in transform.parameters) + "\n")
        fixed = " ".join(repr(float(v)) for v in transform.fixed_parameters)
        text.write(f"FixedParameters: {fixed}\n")
        text.flush()
        (matrix,) = read_itk_affines(text.name)
    return matrix
