"""The template's tissues on the grid of a study: grey matter, white matter, CSF, brain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .geometry import Array
from .images import Image, load_template

Map = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Tissues:
    """Tissue shares (0 to 1) on one grid, each (x, y, z)."""

    t1w: Map  # intensity, 0 to 1, skull-stripped
    gm: Map
    wm: Map
    csf: Map
    brain: Mask
    affine: Array

    @property
    def labels(self) -> NDArray[np.int8]:
        """The most likely tissue: 1 grey matter, 2 white matter, 3 CSF, 0 outside the brain."""
        best = np.argmax([self.gm, self.wm, self.csf], axis=0) + 1
        return np.where(self.brain, best, 0).astype(np.int8)

    def epi_contrast(self) -> Map:
        """What the template would look like to EPI: T2*-weighted, CSF brightest.

        The weights 0.85, 0.65 and 1.2 of grey matter, white matter and CSF let a boldref be
        registered where there is no T1w; to the T1w contrast it would not be.
        """
        return np.asarray(0.85 * self.gm + 0.65 * self.wm + 1.2 * self.csf, dtype=np.float32)


def load_tissues(template: str, zoom: float) -> Tissues:
    """Read the tissues on the grid of `zoom` mm that `load_template` gives.

    The template has no CSF map; CSF is what is brain and neither grey nor white matter.
    """
    maps = {name: load_template(template, name, zoom) for name in ("T1w", "GM", "WM", "brain")}
    brain = maps["brain"].data
    gm, wm = maps["GM"].data * brain, maps["WM"].data * brain
    return Tissues(
        t1w=maps["T1w"].data,
        gm=gm,
        wm=wm,
        csf=np.clip(brain - gm - wm, 0, 1),
        brain=brain > 0.5,
        affine=maps["T1w"].affine,
    )


def tissues_on(mask: Image, template: str, file: str | Path) -> Tissues:
    """The tissues on the grid of a normalised `mask` (x, y, z), which must be the template's."""
    tissues = load_tissues(template, round(mask.zooms[0], 4))
    if tissues.brain.shape != mask.data.shape or not np.allclose(
        tissues.affine, mask.affine, atol=1e-3
    ):
        raise InputError(
            f"This mask does not lie on a grid of {template}",
            file=file,
            fix="give the mask that came with the normalised series, and its template",
        )
    return tissues
