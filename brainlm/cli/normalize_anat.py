"""`brainlm normalize-anat`: a T1w image to the template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from ._console import warn
from ._single_thread import pin_libraries
from ._stage import (
    HERE,
    AnatArg,
    OnDataError,
    OnDataErrorOption,
    ParamsOption,
    StudyOption,
    anat_stage,
)
from ._warp import about_warp


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("normalize-anat")(normalize_anat)


def normalize_anat(
    anat_id: AnatArg,
    study: StudyOption = HERE,
    params: ParamsOption = None,
    on_data_error: OnDataErrorOption = OnDataError.stop,
) -> None:
    """Register one T1w image to the template, once for all runs that it serves.

    Affine, by mutual information (ANTs), from the best start of a coarse search; the T1w may
    show the skull or not. Where `normalize.transform` is syn, a nonlinear warp goes on from
    there. Writes the affine (from-T1w_to-MNI, an ITK text file), the warp (an ITK displacement
    field, applied before the affine) and the bias-corrected brain. The sidecars tell how alike
    brain and template are.
    """
    pin_libraries()
    from ..geometry import write_itk_affines
    from ..images import read_image, write_image
    from ..preproc.checks import check_anatomy
    from ..preproc.normalize import check_anatomy_quality
    from ..preproc.normalize import normalize_anat as normalize
    from ..tissues import load_tissues
    from ..warps import write_warp

    with anat_stage(
        "normalize-anat",
        anat_id,
        study,
        params,
        on_data_error,
        outputs=_outputs,
        software=("antspyx", "nibabel", "nilearn", "numpy", "scipy"),
    ) as run:
        raw, file = run.recording.t1w, run.recording.t1w_path
        assert raw is not None and file is not None  # the table was searched by its T1w
        t1w = check_anatomy(read_image(file), file)
        run.raw_source(raw, run.recording.t1w_sha256)
        tissues = load_tissues(run.template(), run.params["normalize"]["resolution_mm"])
        found = normalize(t1w, tissues, run.params["normalize"]["transform"])
        check_anatomy_quality(found, str(file))

        quality = found.quality()
        if found.doubtful:
            warn(f"{anat_id}: look at this T1w and where it went: {quality}")
        with run.output("t1w_to_mni", about={"Type": "affine", **quality}) as path:
            write_itk_affines(path, [found.t1w_to_mni])
        if found.nonlinear is not None:
            with run.output("t1w_to_mni_warp", about=about_warp(found.nonlinear)) as path:
                write_warp(path, found.nonlinear.warp)
        about = {"SkullStripped": True, "BiasCorrected": True}
        with run.output("t1w_brain", about=about) as path:
            write_image(path, found.brain, t1w.affine, atomic=False)


def _outputs(params: Mapping[str, Any]) -> tuple[str, ...]:
    nonlinear = params["normalize"]["transform"] == "syn"
    return ("t1w_to_mni", "t1w_brain", *(("t1w_to_mni_warp",) if nonlinear else ()))
