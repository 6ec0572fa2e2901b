"""What the commands that make or use a nonlinear warp share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._console import say
from ._stage import RecordingRun

if TYPE_CHECKING:
    from ..preproc.nonlinear import Nonlinear
    from ..warps import Warp


def about_warp(found: Nonlinear) -> dict[str, Any]:
    """The sidecar of a warp; a field that folds is told in the log as well."""
    quality = found.quality()
    if quality["Folds"]:
        say(
            f"Warning: the warp folds in {found.folded:.2%} of the brain (smallest Jacobian "
            f"{quality['SmallestJacobian']}): look at the image, or take normalize.transform affine"
        )
    return {
        "Type": "nonlinear",
        "Units": "mm",
        "Description": "ITK displacement field (LPS, from template points), applied before the "
        "affine of the same name without desc-syn",
        **quality,
    }


def read_warp_of(run: RecordingRun) -> Warp | None:
    """The warp of a run: its T1w's, or its own without one. Parameters decide, not files."""
    from ..warps import read_warp

    if run.params["normalize"]["transform"] != "syn":
        return None
    if run.recording.anat_id is None:
        return read_warp(run.input("boldref_to_mni_warp"))
    return read_warp(run.input_of_anat("t1w_to_mni_warp"))
