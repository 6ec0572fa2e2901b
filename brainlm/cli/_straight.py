"""From the brain of a run, held in memory, to its parcels: the common end of the straight ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ._stage import RecordingRun

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..geometry import Array

#: Packages whose versions go into the sidecars.
SOFTWARE = (
    "nibabel",
    "nilearn",
    "numpy",
    "pandas",
    "pyarrow",
    "safetensors",
    "python-picard",
    "scipy",
)


def to_parcels(
    run: RecordingRun,
    series: NDArray[np.float32],
    mask: NDArray[np.bool_],
    affine: Array,
    further: Mapping[str, Any],
) -> None:
    """Find components where they are asked for, denoise `series` (T, n) in place, parcellate.

    `mask` (x, y, z) and `affine` place the voxels; `further` goes into the parcels' sidecars,
    and tells of volumes that the series had lost before.
    """
    from ..series import in_volumes
    from ._scrubbing import scrubbing_of
    from .denoise import clean_and_sample, design_of
    from .ica import write_components
    from .parcellate import write_parcels

    if run.params["denoise"]["method"] == "aroma":
        write_components(run, series, mask, affine, run.path("confounds"))
    design = design_of(run, run.path("confounds"))
    done = clean_and_sample(run, series, mask, design, scrubbing_of(further))
    volumes = (volume.ravel(order="F") for volume in in_volumes(series, mask, design.volumes))
    write_parcels(run, volumes, mask, affine, {**further, **scrubbing_of(done)})


def outputs_with_components(params: Mapping[str, Any], *kinds: str) -> tuple[str, ...]:
    """The `kinds` of file, and those of the components where the parameters ask for them."""
    from .ica import OUTPUTS

    return (*kinds, *(OUTPUTS if params["denoise"]["method"] == "aroma" else ()))
