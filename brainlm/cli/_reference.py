"""The reference volume of a run, as the commands that register it want it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._stage import RecordingRun

if TYPE_CHECKING:
    from ..images import Image
    from ..preproc.masks import Mask


def read_reference(run: RecordingRun) -> tuple[Image, Mask]:
    """The reference volume, its intensities evened, and the mask of its bright object."""
    from ..preproc.normalize import even_out

    boldref, mask = read_raw_reference(run)
    return even_out(boldref, mask), mask


def read_raw_reference(run: RecordingRun) -> tuple[Image, Mask]:
    """The reference volume and the mask of its bright object."""
    from ..images import read_image

    boldref, foreground = reference_kinds(run)
    return read_image(run.input(boldref)), read_image(run.input(foreground)).data > 0


def reference_kinds(run: RecordingRun) -> tuple[str, str]:
    """The kinds of file that hold a run's reference volume and the mask of its bright object.

    Both are the undistorted ones where the run's distortion is corrected: parameters decide,
    not files.
    """
    from ..recordings import REFERENCE

    corrected = run.recording.correction(run.params["distortion"]["method"])
    return REFERENCE[corrected is not None]
