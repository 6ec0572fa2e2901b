"""What the commands that undo susceptibility distortion share: parameters decide, not files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._stage import RecordingRun

if TYPE_CHECKING:
    from ..preproc.distortion import Shift


def read_shift_of(run: RecordingRun) -> Shift | None:
    """The distortion of a run, or None where nothing is corrected."""
    from ..images import read_image
    from ..preproc.distortion import shift_from_field
    from ..provenance import read_sidecar

    if run.recording.correction(run.params["distortion"]["method"]) is None:
        return None
    path = run.input("fieldmap")
    about = read_sidecar(path)
    return shift_from_field(
        read_image(path), about["PhaseEncodingDirection"], about["TotalReadoutTime"]
    )
