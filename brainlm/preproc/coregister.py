"""BOLD to the T1w of the same head: by mutual information, refined and judged at a boundary.

Where the two images lie on each other, the BOLD reference is brighter outside the white matter
than inside, nearly everywhere along its surface (Greve & Fischl 2009, NeuroImage 48:63). That
holds whatever the gain of the coils, and where signal is lost the other places decide.

On phantoms mutual information alone is right to 0.2 mm and refinement adds as much again of its own
error; on a real run it moved the brain by 1.3 mm, to a better place. So it is taken only
where it proves itself: fitted to either hemisphere, it must lower the cost of the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from ..errors import DataError
from ..geometry import Array, pose_from_params
from ..images import Image
from ..tissues import Tissues
from .boundary import Boundary, find_boundary
from .brainmask import pull_brain
from .grids import resample_onto, shrink
from .masks import Mask, dice
from .pyramid import inside, sample, spline_coefficients
from .search import binned, mutual_information

#: Contrast counts up to about a tenth of the mean. Steeper (Greve: 0.5 per %), the best place of a
#: phantom lay 0.8 mm off the truth; at this slope 0.3 mm.
_SLOPE = 10.0
#: The refined cost must be lower by this share on each half that was not fitted. Where mutual
#: information was right, phantoms gave no gain at all; the real run gave 0.14 and 0.16.
_PROVEN = 0.05
#: No refinement goes farther than this (mm, or about as much by turning).
_FARTHEST_MM = 6.0
#: Below this share of boundary with grey brighter than white there is nothing to refine.
_RELATED = 0.6
#: Good pairs: phantoms 0.93 to 0.99, the real run 0.88. T1w of another subject: 0.57 to 0.80.
DOUBTFUL_SHARE = 0.8
#: Closer to chance (0.5) than this, the images have nothing in common: 10 mm off, the wrong side.
_CHANCE = 0.045
_FEWEST_POINTS = 500
_INFORMATION_MM = 3.0


@dataclass(frozen=True)
class Coregistration:
    """Where a BOLD reference lies on its T1w, and what speaks for it."""

    boldref_to_t1w: Array  # (4, 4), T1w points to BOLD points
    refined: bool  # by the boundary; else by mutual information alone
    moved_mm: float  # mean over the boundary, by which the refinement differs, taken or not
    cost: float  # of the boundary, 0 to 2; 1 where the images are unrelated
    cost_of_start: float  # the same by mutual information alone
    right_signed: float  # share of the boundary where grey is brighter than white
    points: int  # of the boundary that the run shows
    mutual_information: float  # nats, inside the brain
    mutual_information_of_start: float
    mask_dice: float  # of the run's mask with the T1w's brain, inside the field of view

    @property
    def judged(self) -> bool:
        """Whether the run shows enough of the boundary to tell."""
        return self.points >= _FEWEST_POINTS

    @property
    def hopeless(self) -> bool:
        """Whether the images cannot lie on each other; an inverted contrast is not hopeless."""
        return self.judged and abs(self.right_signed - 0.5) < _CHANCE

    def quality(self) -> dict[str, float | bool | int]:
        """The numbers that tell whether to trust it, as sidecar fields."""
        return {
            "BoundaryRefined": self.refined,
            "BoundaryRefinementMoves": round(self.moved_mm, 3),
            "BoundaryCost": round(self.cost, 4),
            "BoundaryCostOfStart": round(self.cost_of_start, 4),
            "BoundaryRightSigned": round(self.right_signed, 4),
            "BoundaryPoints": self.points,
            "MutualInformation": round(self.mutual_information, 4),
            "MutualInformationOfStart": round(self.mutual_information_of_start, 4),
            "MaskDice": round(self.mask_dice, 4),
            "Doubtful": not self.judged or self.right_signed < DOUBTFUL_SHARE,
        }


def coregister(
    boldref: Image, mask: Mask, t1w_brain: Image, t1w_to_mni: Array, tissues: Tissues, start: Array
) -> Coregistration:
    """Refine where an evened BOLD reference (x, y, z) with its mask lies on the T1w's brain.

    `start` (4, 4) is where mutual information put it (`normalize.bold_to_t1w`).
    """
    boundary = find_boundary(t1w_brain, t1w_to_mni, tissues)
    fit = BoundaryFit(boundary, boldref, mask, start)
    best, moved, taken = start, 0.0, False
    if fit.enough and fit.right_signed(start) > _RELATED:
        better = refine(fit, start)
        gap = (better - start) @ np.vstack([fit.points, np.ones(fit.points.shape[1])])
        moved = float(np.linalg.norm(gap[:3], axis=0).mean())
        taken = proves_itself(boundary.hemispheres(t1w_to_mni), boldref, mask, start)
        best = better if taken else start
    share, seen = pull_brain(t1w_brain, boldref.affine, mask.shape, best)
    return Coregistration(
        boldref_to_t1w=best,
        refined=taken,
        moved_mm=moved,
        cost=fit.cost(best),
        cost_of_start=fit.cost(start),
        right_signed=fit.right_signed(best),
        points=fit.points.shape[1],
        mutual_information=_information(t1w_brain, boldref, best),
        mutual_information_of_start=_information(t1w_brain, boldref, start),
        mask_dice=dice(mask & seen, (share > 0.5) & seen),
    )


def check_coregistration(found: Coregistration, file: str) -> None:
    """Refuse a run that does not lie on its T1w at all."""
    if found.hopeless:
        raise DataError(
            f"BOLD and T1w do not match: along the edge of the white matter, grey matter is "
            f"brighter at {found.right_signed:.0%} of {found.points} places, as by chance",
            file=file,
            fix="look at both: same subject, same side left? If the T1w is wrong, remove it: "
            "without one, BOLD is registered to the template",
        )


class BoundaryFit:
    """How a BOLD reference lies on the points of a boundary that it shows."""

    def __init__(self, boundary: Boundary, boldref: Image, mask: Mask, start: Array):
        """`start` (4, 4) decides which points count: those with both sides inside `mask`."""
        self._coefficients = spline_coefficients(boldref.data, boldref.affine)
        self._to_voxels = np.linalg.inv(boldref.affine)
        shown = np.ones(boundary.points.shape[1], dtype=bool)
        for side in (boundary.inside, boundary.outside):
            voxels = self._voxels(side, start)
            nearest = np.clip(np.rint(voxels).T, 0, np.array(mask.shape) - 1).astype(int)
            shown &= inside(voxels, mask.shape) & mask[tuple(nearest.T)]
        self._sides = boundary.outside[:, shown], boundary.inside[:, shown]
        self.points = boundary.points[:, shown]

    @property
    def enough(self) -> bool:
        """Whether the points are enough to fit or to judge by."""
        return self.points.shape[1] >= _FEWEST_POINTS

    def contrast(self, transform: Array) -> Array:
        """(grey - white) / mean at each point (n,)."""
        grey, white = (
            sample(self._coefficients, self._voxels(side, transform)).astype(float)
            for side in self._sides
        )
        return np.asarray((grey - white) / np.maximum((np.abs(grey) + np.abs(white)) / 2, 1e-6))

    def cost(self, transform: Array) -> float:
        """Mean over points of 1 - tanh(slope contrast); 1, as by chance, without points."""
        contrast = self.contrast(transform)
        return float(np.mean(1 - np.tanh(_SLOPE * contrast))) if contrast.size else 1.0

    def right_signed(self, transform: Array) -> float:
        """Share of the points where grey is brighter than white."""
        contrast = self.contrast(transform)
        return float((contrast > 0).mean()) if contrast.size else 0.5

    def _voxels(self, points: Array, transform: Array) -> Array:
        pull = self._to_voxels @ transform
        return np.asarray(pull[:3, :3] @ points + pull[:3, 3:])


def refine(fit: BoundaryFit, start: Array) -> Array:
    """The rigid transform (4, 4) near `start` of the least cost (Powell's method)."""
    # Radians are scaled so that one unit moves the brain's surface by about a mm.
    units = np.array([1, 1, 1, 0.02, 0.02, 0.02])
    center = fit.points.mean(axis=1)

    def moved(x: Array) -> Array:
        return np.asarray(start @ pose_from_params(x * units, center))

    found = minimize(
        lambda x: fit.cost(moved(x)),
        np.zeros(6),
        method="Powell",
        bounds=[(-_FARTHEST_MM, _FARTHEST_MM)] * 6,
        options={"xtol": 0.01, "ftol": 1e-5, "maxiter": 10},
    )
    return moved(found.x)


def proves_itself(
    halves: tuple[Boundary, Boundary], boldref: Image, mask: Mask, start: Array
) -> bool:
    """Whether refinement on each half of the boundary lowers the cost of the other."""
    fits = [BoundaryFit(half, boldref, mask, start) for half in halves]
    return all(fit.enough for fit in fits) and all(
        other.cost(refine(own, start)) < (1 - _PROVEN) * other.cost(start)
        for own, other in (fits, fits[::-1])
    )


def _information(t1w_brain: Image, boldref: Image, transform: Array) -> float:
    """Mutual information (nats) of the two images in the brain, on voxels of about 3 mm."""
    brain = shrink(t1w_brain, _INFORMATION_MM)
    inner = brain.data > 0
    moved, seen = resample_onto(boldref, brain.affine, brain.data.shape, transform)
    usable = inner & seen
    return mutual_information(binned(brain.data[usable]), binned(moved[usable]))
