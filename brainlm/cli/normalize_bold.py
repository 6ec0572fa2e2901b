"""`brainlm normalize-bold`: the reference volume of a run to the template."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from ._reference import read_raw_reference
from ._single_thread import pin_libraries
from ._stage import (
    HERE,
    OnDataError,
    OnDataErrorOption,
    ParamsOption,
    RecordingArg,
    RecordingRun,
    StudyOption,
    recording_stage,
)

if TYPE_CHECKING:
    from ..preproc.place import Through


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("normalize-bold")(normalize_bold)


def normalize_bold(
    recording_id: RecordingArg,
    study: StudyOption = HERE,
    params: ParamsOption = None,
    on_data_error: OnDataErrorOption = OnDataError.stop,
) -> None:
    """Find the way from a run's reference volume to the template, and its brain.

    With a T1w: as coregister-bold found it, then on along the T1w's own transform. Without:
    affinely to the template shown in EPI contrast (warp-bold goes on from there where
    `normalize.transform` is syn). Writes that transform and the run's brain mask: of the bright
    object that motion found, what the T1w's brain, or the template's, says is brain. The
    reference is the undistorted one where the run has a field (`brainlm fieldmap`). Fails on
    runs whose brain does not lie on the template's (a wrong affine in the header).
    """
    pin_libraries()
    import numpy as np

    from ..geometry import write_itk_affines
    from ..images import write_image
    from ..preproc.place import place_bold
    from ..tissues import load_tissues

    with recording_stage(
        "normalize-bold",
        recording_id,
        study,
        params,
        on_data_error,
        outputs=("boldref_to_mni", "bold_mask"),
        software=("antspyx", "nibabel", "nilearn", "numpy", "scipy"),
    ) as run:
        tissues = load_tissues(run.template(), run.params["normalize"]["resolution_mm"])
        if run.recording.anat_id is None:
            _forget_coregistration(run)
        boldref, foreground = read_raw_reference(run)
        through = _through_t1w(run) if run.recording.anat_id else None
        found = place_bold(boldref, foreground, tissues, through, run.recording.bold_path)
        with run.output("boldref_to_mni", about={"Type": "affine", **found.quality()}) as path:
            write_itk_affines(path, [found.boldref_to_mni])
        about = {"Type": "Brain", "DiceWithForeground": round(found.dice_with_foreground, 4)}
        with run.output("bold_mask", about=about) as path:
            write_image(path, found.mask.astype(np.uint8), boldref.affine, atomic=False)


def _through_t1w(run: RecordingRun) -> Through:
    from ..geometry import read_itk_affines
    from ..images import read_image
    from ..preproc.place import Through

    (to_t1w,) = read_itk_affines(run.input("boldref_to_t1w"))
    (t1w_to_mni,) = read_itk_affines(run.input_of_anat("t1w_to_mni"))
    return Through(to_t1w, t1w_to_mni, read_image(run.input_of_anat("t1w_brain")))


def _forget_coregistration(run: RecordingRun) -> None:
    """Remove what an earlier T1w of this run left, its failure too: nothing makes it any more."""
    from ..files import read_json
    from ..provenance import sidecar_path

    path = run.path("boldref_to_t1w")
    sidecar_path(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    ledger = run.path("failure")
    if ledger.exists() and read_json(ledger)["stage"] == "coregister-bold":
        ledger.unlink()
