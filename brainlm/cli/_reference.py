"""The reference volume of a run, as the commands that register it want it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._stage import RecordingRun

if TYPE_CHECKING:
    from ..images import Image
    from ..preproc.masks import Mask


def read_reference(run: RecordingRun) -> tuple[Image, Mask]:
    """The reference volume, evened, and the mask of its bright object."""
    from ..images import read_image
    from ..preproc.normalize import even_out

    mask = read_image(run.input("foreground_mask")).data > 0
    return even_out(read_image(run.input("boldref")), mask), mask
