"""The way of a run to the template, through its T1w or without one, and the brain on its grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..geometry import Array
from ..images import Image
from ..tissues import Tissues
from .brainmask import pull_brain, refine_mask
from .masks import Mask, dice
from .normalize import Overlap, bold_to_template, check_overlap, even_out, overlap_with_template
from .pyramid import voxel_sizes


@dataclass(frozen=True)
class Through:
    """A run's way through its T1w."""

    boldref_to_t1w: Array  # (4, 4)
    t1w_to_mni: Array  # (4, 4)
    t1w_brain: Image  # 0 outside the brain


@dataclass(frozen=True)
class Placement:
    """Where a run lies."""

    boldref_to_mni: Array  # (4, 4)
    mask: Mask  # (x, y, z), the run's brain
    overlap: Overlap
    dice_with_foreground: float
    through: str

    def quality(self) -> dict[str, float | str]:
        """What the sidecar of the transform says."""
        return {
            "Through": self.through,
            "MaskDice": round(self.overlap.dice, 4),
            "BrainInFieldOfView": round(self.overlap.brain_in_view, 4),
        }


def place_bold(
    boldref: Image, foreground: Mask, tissues: Tissues, through: Through | None, file: str | Path
) -> Placement:
    """Bring a run's reference (x, y, z) to the template; `foreground` is its bright object.

    Through the T1w where there is one, else by the template in EPI contrast. The brain is what of
    the bright object the T1w's brain, or the template's, says is brain. A run whose brain does not
    lie on the template's is refused (`file` is named).
    """
    if through is None:
        to_brain = to_mni = bold_to_template(even_out(boldref, foreground), tissues)
        brain = Image(tissues.brain, tissues.affine)
    else:
        to_brain, brain = through.boldref_to_t1w, through.t1w_brain
        # Points of the template go to the T1w first, then on to the run.
        to_mni = to_brain @ through.t1w_to_mni
    bright = Image(foreground.astype(np.float32), boldref.affine)
    overlap = overlap_with_template(bright, to_mni, tissues)
    check_overlap(overlap, str(file))
    share, _ = pull_brain(brain, boldref.affine, foreground.shape, to_brain)
    mask = refine_mask(foreground, share, voxel_sizes(boldref.affine))
    return Placement(
        boldref_to_mni=to_mni,
        mask=mask,
        overlap=overlap,
        dice_with_foreground=dice(mask, foreground),
        through="template in EPI contrast" if through is None else "T1w",
    )
