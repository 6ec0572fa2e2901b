"""Where a head stands in the template's space: T1w to template, BOLD to T1w or to template.

Every transform returned here maps points of the target to points of the source (mm), as
`from-source_to-target` files do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..errors import DataError
from ..geometry import Array
from ..images import Image
from ..tissues import Tissues
from .grids import resample_onto, shrink, world_points
from .masks import dice, dilate
from .nonlinear import Nonlinear, correlation_of, warp_t1w
from .pyramid import voxel_sizes
from .registration import correct_bias, register
from .search import search_start

#: Around the brain, its edge helps the metric; farther out, skull and scalp mislead it.
_RIM_MM = 6.0
#: Below this the affine cannot be right: phantoms and the real run tried gave 0.94 to 0.98.
HOPELESS_DICE = 0.5
#: A subject's BOLD and T1w share the scanner's coordinates; a gap beyond this is a wrong header.
FARTHEST_MM = 80.0
#: Below this a T1w does not look like the template. Phantoms gave 0.83 and more, a real one 0.75;
#: noise, boxes and heads that were registered wrongly 0.35 and less, a ball 0.43.
HOPELESS_CORRELATION = 0.4
DOUBTFUL_CORRELATION = 0.55
#: A T1w that shows less of the brain than this cannot be placed: a slab of 30 mm was 11 mm off.
HOPELESS_VIEW = 0.4
DOUBTFUL_VIEW = 0.9


@dataclass(frozen=True)
class Anatomy:
    """A T1w image brought to the template."""

    t1w_to_mni: Array  # (4, 4)
    brain: NDArray[np.float32]  # (x, y, z) on the T1w grid, bias-corrected, 0 outside the brain
    correlation: float  # with the template, inside its brain
    white_matter_dice: float  # of the brightest voxels with the template's white matter
    brain_in_view: float  # share of the template's brain inside the field of view
    nonlinear: Nonlinear | None = None  # goes before the affine

    @property
    def doubtful(self) -> bool:
        """Whether somebody should look at it."""
        return self.correlation < DOUBTFUL_CORRELATION or self.brain_in_view < DOUBTFUL_VIEW

    def quality(self) -> dict[str, float | bool]:
        """The numbers that tell whether to trust it, as sidecar fields."""
        return {
            "CorrelationWithTemplate": round(self.correlation, 4),
            "WhiteMatterDice": round(self.white_matter_dice, 4),
            "BrainInView": round(self.brain_in_view, 4),
            "Doubtful": self.doubtful,
        }


def normalize_anat(
    t1w: Image, tissues: Tissues, kind: Literal["affine", "syn"] = "affine"
) -> Anatomy:
    """Register a T1w (x, y, z), with or without its skull, to the template's grid.

    The affine maximises mutual information inside the template's brain and a rim around it,
    from the best start of a coarse search; "syn" goes on from there. The template's brain
    mask, moved back, gives the brain; inside it the intensity bias is estimated (N4) and
    divided out. `correlation` and `white_matter_dice` judge the affine in either case.
    """
    grid, shape = tissues.affine, tissues.brain.shape
    near = dilate(tissues.brain, voxel_sizes(grid), _RIM_MM)
    small = shrink(t1w, float(voxel_sizes(grid).min()))
    start = search_start(tissues.t1w, grid, near, small)
    transform = register(tissues.t1w, grid, near, small, start, "Affine")

    moved, seen = resample_onto(small, grid, shape, transform)
    visible = tissues.brain & seen
    gain = correct_bias(moved, grid, visible)
    corrected = (moved / gain)[visible]
    nonlinear = warp_t1w(small, gain, transform, tissues) if kind == "syn" else None
    brain = tissues.brain.astype(np.float32)
    if nonlinear is not None:
        brain, _ = resample_onto(Image(brain, grid), grid, shape, warp=nonlinear.inverse)
    return Anatomy(
        t1w_to_mni=transform,
        brain=_extract_brain(t1w, transform, Image(brain, grid), gain),
        correlation=correlation_of(corrected, tissues.t1w[visible]),
        white_matter_dice=_brightest_dice(corrected, tissues.wm[visible] > 0.5),
        brain_in_view=float(visible.sum() / tissues.brain.sum()),
        nonlinear=nonlinear,
    )


def even_out(boldref: Image, mask: NDArray[np.bool_]) -> Image:
    """The BOLD reference without the gain of its receive coils, which would shift the metric.

    A gain of +-14% across the head moved the optimum by 0.26 mm on a synthetic head.
    """
    return Image(boldref.data / correct_bias(boldref.data, boldref.affine, mask), boldref.affine)


def bold_to_t1w(boldref: Image, t1w_brain: Image, zoom: float) -> Array:
    """Register the BOLD reference rigidly to the brain of the same subject: boldref_to_t1w."""
    fixed = _around_brain(t1w_brain, zoom)
    near = dilate(fixed.data > 0, voxel_sizes(fixed.affine), _RIM_MM)
    start = search_start(fixed.data, fixed.affine, near, boldref)
    return register(fixed.data, fixed.affine, near, boldref, start, "Rigid")


def bold_to_template(boldref: Image, tissues: Tissues) -> Array:
    """Register the BOLD reference to the template itself, shown as EPI would: boldref_to_mni."""
    target = tissues.epi_contrast()
    near = dilate(tissues.brain, voxel_sizes(tissues.affine), _RIM_MM)
    start = search_start(target, tissues.affine, near, boldref)
    return register(target, tissues.affine, near, boldref, start, "Affine")


@dataclass(frozen=True)
class Overlap:
    """How the brain mask of a run lies on the template's brain."""

    dice: float  # inside the run's field of view
    brain_in_view: float  # share of the template's brain inside the field of view

    @property
    def hopeless(self) -> bool:
        """Whether the registration must have failed."""
        return self.dice < HOPELESS_DICE or self.brain_in_view < HOPELESS_DICE / 2


def overlap_with_template(mask: Image, boldref_to_mni: Array, tissues: Tissues) -> Overlap:
    """Move the run's brain mask to the template and compare."""
    moved, seen = resample_onto(mask, tissues.affine, tissues.brain.shape, boldref_to_mni)
    return Overlap(
        dice=dice((moved > 0.5) & seen, tissues.brain & seen),
        brain_in_view=float((tissues.brain & seen).sum() / tissues.brain.sum()),
    )


def check_anatomy_quality(anatomy: Anatomy, file: str) -> None:
    """Refuse a T1w that nothing could bring to the template."""
    if anatomy.correlation < HOPELESS_CORRELATION:
        raise DataError(
            f"The T1w does not look like the template after registration "
            f"(correlation {anatomy.correlation:.2f}, below {HOPELESS_CORRELATION})",
            file=file,
            fix="look at it: is it a whole head, T1-weighted, with a true affine? "
            "If not, remove it: without a T1w, BOLD is registered to the template",
        )
    if anatomy.brain_in_view < HOPELESS_VIEW:
        raise DataError(
            f"The T1w shows {anatomy.brain_in_view:.0%} of the brain, too little to place it",
            file=file,
            fix="use one of the whole head, or remove it: without a T1w, BOLD is registered to "
            "the template",
        )


def check_overlap(overlap: Overlap, file: str) -> None:
    """Refuse a run whose brain does not lie on the template's."""
    if overlap.hopeless:
        raise DataError(
            f"BOLD and template do not overlap after registration (Dice {overlap.dice:.2f}, "
            f"{overlap.brain_in_view:.0%} of the brain in the field of view)",
            file=file,
            fix="a wrong affine is the usual cause: check sform and qform of the run and its T1w",
        )


def check_same_place(boldref_to_t1w: Array, t1w_brain: Image, file: str) -> None:
    """Refuse a run that registration had to carry far: then not even left and right are sure."""
    center = world_points(t1w_brain.affine, t1w_brain.data > 0).mean(axis=1)
    gap = float(np.linalg.norm((boldref_to_t1w @ center - center)[:3]))
    if gap > FARTHEST_MM:
        raise DataError(
            f"BOLD and T1w do not overlap: their headers put the brain {gap:.0f} mm apart",
            file=file,
            fix="a wrong affine: check sform and qform of the run and its T1w",
        )


def _extract_brain(
    t1w: Image, transform: Array, brain: Image, gain: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The T1w inside `brain`, divided by the gain field; work only near it.

    `brain` (share, 0 to 1) and `gain` stand on the template's grid, which `transform` maps.
    """
    inside = world_points(brain.affine, brain.data > 0.5)
    corners = np.linalg.inv(t1w.affine) @ transform @ inside
    low = np.clip(np.floor(corners[:3].min(axis=1)), 0, np.array(t1w.data.shape) - 1).astype(int)
    high = np.clip(np.ceil(corners[:3].max(axis=1)) + 1, 1, t1w.data.shape).astype(int)
    box = tuple(slice(a, max(b, a + 1)) for a, b in zip(low, high, strict=True))

    pull = np.linalg.inv(brain.affine) @ np.linalg.inv(transform) @ t1w.affine
    offset = pull[:3, :3] @ low + pull[:3, 3]
    part = t1w.data[box]
    share = ndimage.affine_transform(brain.data, pull[:3, :3], offset, part.shape, order=1)
    field = ndimage.affine_transform(
        gain, pull[:3, :3], offset, part.shape, order=1, mode="nearest"
    )
    result = np.zeros(t1w.data.shape, dtype=np.float32)
    result[box] = np.where(share > 0.5, np.clip(part, 0, None) / field, 0)
    return result


def _around_brain(brain: Image, zoom: float, margin_mm: float = 15.0) -> Image:
    """The brain on an axis-aligned RAS grid of `zoom` mm that holds it with a margin."""
    small = shrink(brain, zoom)
    world = world_points(small.affine, small.data > 0)[:3]
    if world.shape[1] == 0:
        raise DataError("The T1w's brain is empty", fix="rerun normalize-anat, look at its T1w")
    low, high = world.min(axis=1) - margin_mm, world.max(axis=1) + margin_mm
    shape = tuple(int(np.ceil(length / zoom)) + 1 for length in high - low)
    affine = np.diag([zoom, zoom, zoom, 1.0])
    affine[:3, 3] = low
    data, _ = resample_onto(small, affine, shape)
    return Image(np.clip(data, 0, None), affine)


def _brightest_dice(values: NDArray, white: NDArray[np.bool_]) -> float:
    """Dice of the template's white matter with as many of the brightest voxels."""
    brightest = np.zeros(values.shape, dtype=bool)
    brightest[np.argsort(-values, kind="stable")[: int(white.sum())]] = True
    return dice(brightest, white)
