"""`brainlm warp-bold`: a run without a T1w to the template, beyond the affine.

A stage of its own, and not a second output of normalize-bold: Snakemake knows a rule's outputs
before it knows the recording, and only some recordings need this one.
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
from ._warp import about_warp


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("warp-bold")(warp_bold)


def warp_bold(
    recording_id: RecordingArg,
    study: StudyOption = HERE,
    params: ParamsOption = None,
    on_data_error: OnDataErrorOption = OnDataError.stop,
) -> None:
    """Warp a run that has no T1w nonlinearly to the template in EPI contrast.

    Goes on from the affine of normalize-bold by SyN (ANTs). Writes an ITK displacement field,
    applied before that affine; its sidecar tells how large and how smooth it is. Only for
    `normalize.transform: syn`; a run with a T1w goes through the warp of normalize-anat.
    """
    pin_libraries()
    from ..errors import InputError
    from ..geometry import read_itk_affines
    from ..preproc.nonlinear import warp_boldref
    from ..tissues import load_tissues
    from ..warps import write_warp

    with recording_stage(
        "warp-bold",
        recording_id,
        study,
        params,
        on_data_error,
        outputs=("boldref_to_mni_warp",),
        software=("antspyx", "nibabel", "nilearn", "numpy", "scipy"),
    ) as run:
        options = run.params["normalize"]
        if options["transform"] != "syn" or run.recording.anat_id is not None:
            raise InputError(
                f"{recording_id} needs no warp of its own: "
                + ("it goes through its T1w's" if run.recording.anat_id else "the way is affine"),
                fix="warp-bold is for runs without a T1w where normalize.transform is syn",
            )
        (to_mni,) = read_itk_affines(run.input("boldref_to_mni"))
        boldref, _ = read_reference(run)
        tissues = load_tissues(run.template(), options["resolution_mm"])
        found = warp_boldref(boldref, to_mni, tissues)
        with run.output("boldref_to_mni_warp", about=about_warp(found)) as path:
            write_warp(path, found.warp)
