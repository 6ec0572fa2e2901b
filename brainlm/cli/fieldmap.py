"""`brainlm fieldmap`: the off-resonance of a run, and its reference volume undistorted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

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
    from ..images import Image


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("fieldmap")(fieldmap)


def fieldmap(
    recording_id: RecordingArg,
    study: StudyOption = HERE,
    params: ParamsOption = None,
    on_data_error: OnDataErrorOption = OnDataError.stop,
) -> None:
    """Find the field that distorts a run, and undo the distortion of its reference volume.

    From the field map that onboarding found for the run: a field in Hz, one or two phase images
    with a magnitude, or EPIs of opposite phase encoding (one will do; the run is then the other).
    With `distortion.method: syn`, a run without a field map is warped to its T1w along the
    phase-encoding axis instead. Writes the field in Hz on the grid of the reference, and the
    reference and its mask undistorted; normalize-bold starts from these, and resample looks each
    point up where EPI shows it. The sidecar tells what was used and how large the shifts are.
    """
    pin_libraries()
    import numpy as np

    from ..errors import DataError, InputError
    from ..images import Image, read_image, write_image
    from ..preproc.distortion import shift_from_field, size_of, unwarp, unwarp_mask

    with recording_stage(
        "fieldmap",
        recording_id,
        study,
        params,
        on_data_error,
        outputs=("fieldmap", "unwarped_boldref", "unwarped_mask"),
        software=("antspyx", "nibabel", "numpy", "scikit-image", "scipy"),
    ) as run:
        recording = run.recording
        way = recording.correction(run.params["distortion"]["method"])
        if way is None:
            raise InputError(
                f"{recording_id} is not corrected for distortion",
                fix="it has no usable field map (see `notes` in onboarding/recordings.tsv), or "
                "distortion.method says so",
            )
        boldref, mask = read_image(run.input("boldref")), read_image(run.input("foreground_mask"))
        brain = mask.data > 0
        if way == "syn":
            field, about = _from_anatomy(run, boldref, brain)
        elif recording.fmap_kind is None:
            raise DataError(
                "The run has no usable field map, and distortion.method is fieldmap",
                file=recording.bold_path,
                fix="`notes` in onboarding/recordings.tsv says why; auto leaves such runs as they "
                "are, syn corrects them by their T1w",
            )
        else:
            field, about = _from_field_map(run, boldref, brain)
        shift = shift_from_field(field, about["PhaseEncodingDirection"], about["TotalReadoutTime"])
        about |= {
            "Units": "Hz",
            "OntoGridOf": "boldref",
            "Description": "Tissue at voxel v is seen at v + shift, in voxels along the axis of "
            "PhaseEncodingDirection: field x TotalReadoutTime, negative for a direction with -",
            **size_of(shift, brain),
        }
        with run.output("fieldmap", about=about) as path:
            write_image(path, field.data, field.affine, atomic=False)
        undistorted = unwarp(boldref, shift)
        with run.output("unwarped_boldref", about={"SkullStripped": False}) as path:
            write_image(path, undistorted, boldref.affine, atomic=False)
        inside = unwarp_mask(Image(brain.astype(np.float32), mask.affine), shift)
        with run.output("unwarped_mask", about={"Type": "Brain"}) as path:
            write_image(path, inside.astype(np.uint8), mask.affine, atomic=False)


def _from_field_map(run: RecordingRun, boldref: Image, brain: Any) -> tuple[Image, dict[str, Any]]:
    """The field on the grid of the reference, from the files in fmap/, and what to tell of it."""
    from ..preproc.measured import field_from_map

    recording = run.recording
    direction, readout_s = recording.pe_direction, recording.total_readout_time
    assert recording.fmap_kind is not None and direction is not None and readout_s is not None
    return field_from_map(
        recording.fmap_kind,
        _read_files(run),
        recording.fmap_about,
        boldref,
        brain,
        direction=direction,
        readout_s=readout_s,
        zoom=run.params["normalize"]["resolution_mm"],
        file=run.bids_dir / recording.fmap[0],
    )


def _read_files(run: RecordingRun) -> list[Image]:
    """The files of the field map, each the mean of its volumes."""
    from ..images import read_image
    from ..preproc.measured import mean_volume

    recording, images = run.recording, []
    for path, fingerprint in zip(recording.fmap, recording.fmap_sha256, strict=True):
        run.raw_source(path, fingerprint)
        images.append(mean_volume(read_image(run.bids_dir / path)))
    return images


def _from_anatomy(run: RecordingRun, boldref: Image, brain: Any) -> tuple[Image, dict[str, Any]]:
    """The field that a warp to the T1w along the phase-encoding axis stands for."""
    from ..images import read_image
    from ..preproc.fieldless import NOMINAL_READOUT_S, field_from_anatomy

    recording = run.recording
    assert recording.pe_direction is not None
    readout_s = recording.total_readout_time or NOMINAL_READOUT_S
    anatomy = read_image(run.input_of_anat("t1w_brain"))
    field = field_from_anatomy(
        boldref,
        brain,
        anatomy,
        direction=recording.pe_direction,
        readout_s=readout_s,
        zoom=run.params["normalize"]["resolution_mm"],
    )
    return field, {
        "Method": "syn",
        "PhaseEncodingDirection": recording.pe_direction,
        "TotalReadoutTime": readout_s,
        "TotalReadoutTimeAssumed": recording.total_readout_time is None,
    }
