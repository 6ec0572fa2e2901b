"""`brainlm normalize-bold`: the reference volume of a run to the template."""

from __future__ import annotations

import typer

from ._distortion import read_reference
from ._single_thread import pin_libraries
from ._stage import (
    HERE,
    OnDataError,
    OnDataErrorOption,
    ParamsOption,
    RecordingArg,
    StudyOption,
    recording_stage,
)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("normalize-bold")(normalize_bold)


def normalize_bold(
    recording_id: RecordingArg,
    study: StudyOption = HERE,
    params: ParamsOption = None,
    on_data_error: OnDataErrorOption = OnDataError.stop,
) -> None:
    """Find the way from a run's reference volume to the template.

    With a T1w: rigidly to its brain (also written, from-boldref_to-T1w), then on along the
    T1w's own transform. Without: affinely to the template shown in EPI contrast (warp-bold
    goes on from there where `normalize.transform` is syn). The reference is the undistorted
    one where the run has a field (`brainlm fieldmap`). Fails on runs whose brain then does
    not lie on the template's (a wrong affine in the header).
    """
    pin_libraries()
    from ..geometry import read_itk_affines, write_itk_affines
    from ..images import read_image
    from ..preproc.normalize import (
        bold_to_t1w,
        bold_to_template,
        check_overlap,
        check_same_place,
        even_out,
        overlap_with_template,
    )
    from ..tissues import load_tissues

    with recording_stage(
        "normalize-bold",
        recording_id,
        study,
        params,
        on_data_error,
        outputs=("boldref_to_mni",),
        software=("antspyx", "nibabel", "nilearn", "numpy", "scipy"),
    ) as run:
        boldref, mask = read_reference(run)
        boldref = even_out(boldref, mask.data > 0)
        zoom = run.params["normalize"]["resolution_mm"]
        tissues = load_tissues(run.template(), zoom)
        to_t1w = None
        if run.recording.anat_id is None:
            to_mni = bold_to_template(boldref, tissues)
        else:
            brain = read_image(run.input_of_anat("t1w_brain"))
            (t1w_to_mni,) = read_itk_affines(run.input_of_anat("t1w_to_mni"))
            to_t1w = bold_to_t1w(boldref, brain, zoom)
            check_same_place(to_t1w, brain, str(run.recording.bold_path))
            # Points of the template go to the T1w first, then on to the run.
            to_mni = to_t1w @ t1w_to_mni
        overlap = overlap_with_template(mask, to_mni, tissues)
        check_overlap(overlap, str(run.recording.bold_path))

        if to_t1w is not None:
            with run.output("boldref_to_t1w", about={"Type": "rigid"}) as path:
                write_itk_affines(path, [to_t1w])
        about = {
            "Type": "affine",
            "Through": "template in EPI contrast" if to_t1w is None else "T1w",
            "MaskDice": round(overlap.dice, 4),
            "BrainInFieldOfView": round(overlap.brain_in_view, 4),
        }
        with run.output("boldref_to_mni", about=about) as path:
            write_itk_affines(path, [to_mni])
