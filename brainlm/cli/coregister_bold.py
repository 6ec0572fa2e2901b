"""`brainlm coregister-bold`: the reference volume of a run to the T1w of the same head.

A stage of its own, and not a second output of normalize-bold: Snakemake knows a rule's outputs
before it knows the recording, and only recordings with a T1w need this one.
"""

from __future__ import annotations

import typer

from ._reference import read_reference
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
    app.command("coregister-bold")(coregister_bold)


def coregister_bold(
    recording_id: RecordingArg,
    study: StudyOption = HERE,
    params: ParamsOption = None,
    on_data_error: OnDataErrorOption = OnDataError.stop,
) -> None:
    """Register a run's reference volume rigidly to the brain of its T1w.

    By mutual information (ANTs), then refined at the boundary of the white matter (Greve and
    Fischl 2009) where that proves itself: fitted to either hemisphere, it must fit the other
    better. Writes from-boldref_to-T1w; the sidecar tells how well the boundary fits. Fails where
    BOLD and T1w have nothing in common. Only for runs with a T1w.
    """
    pin_libraries()
    from ..errors import InputError
    from ..geometry import read_itk_affines, write_itk_affines
    from ..images import read_image
    from ..preproc.coregister import check_coregistration, coregister
    from ..preproc.normalize import bold_to_t1w, check_same_place
    from ..tissues import load_tissues

    with recording_stage(
        "coregister-bold",
        recording_id,
        study,
        params,
        on_data_error,
        outputs=("boldref_to_t1w",),
        software=("antspyx", "nibabel", "nilearn", "numpy", "scipy"),
    ) as run:
        if run.recording.anat_id is None:
            raise InputError(
                f"{recording_id} has no T1w to register to",
                fix="normalize-bold takes it to the template itself",
            )
        boldref, mask = read_reference(run)
        brain = read_image(run.input_of_anat("t1w_brain"))
        (t1w_to_mni,) = read_itk_affines(run.input_of_anat("t1w_to_mni"))
        zoom = run.params["normalize"]["resolution_mm"]
        tissues = load_tissues(run.template(), zoom)
        file = str(run.recording.bold_path)
        start = bold_to_t1w(boldref, brain, zoom)
        check_same_place(start, brain, file)
        found = coregister(boldref, mask, brain, t1w_to_mni, tissues, start)
        check_coregistration(found, file)
        with run.output("boldref_to_t1w", about={"Type": "rigid", **found.quality()}) as path:
            write_itk_affines(path, [found.boldref_to_t1w])
