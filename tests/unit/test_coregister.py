"""BOLD on the boundary of a T1w's white matter, and the brain mask that follows."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from brainlm.errors import DataError
from brainlm.geometry import pose_from_params
from brainlm.images import Image
from brainlm.preproc.boundary import find_boundary
from brainlm.preproc.brainmask import pull_brain, refine_mask
from brainlm.preproc.coregister import Coregistration, check_coregistration, coregister
from brainlm.preproc.masks import dice, foreground_mask
from brainlm.tissues import Tissues

from .synthetic_head import (
    brain_points,
    centered_affine,
    mean_displacement,
    sample_head,
    tissues,
)

SHAPE, ZOOM = (46, 55, 46), 4.0
IN_BOLD = pose_from_params([-3, 5, 4, -0.06, 0.02, 0.05], np.zeros(3))  # T1w to BOLD points


@cache
def pair() -> tuple[Image, np.ndarray, Image]:
    """A noisy BOLD reference, its mask, and the T1w brain of the same head (the template's)."""
    affine = centered_affine(SHAPE, ZOOM)
    noise = np.random.default_rng(0).normal(0, 15, SHAPE)
    data = np.abs(sample_head(IN_BOLD, affine, SHAPE) + noise).astype(np.float32)
    fine = tissues(2.0)
    mask = foreground_mask(data, np.full(3, ZOOM))
    return Image(data, affine), mask, Image(800 * fine.t1w * fine.brain, fine.affine)


def placed(error: list[float], boldref: Image | None = None) -> tuple[float, float, Coregistration]:
    """mm off before and after `coregister` with a start that is wrong by a pose."""
    own, mask, brain = pair()
    start = IN_BOLD @ pose_from_params(error, np.array([0, -18, 10.0]))
    found = coregister(boldref or own, mask, brain, np.eye(4), tissues(ZOOM), start)
    points = brain_points()
    return (
        mean_displacement(start, IN_BOLD, points),
        mean_displacement(found.boldref_to_t1w, IN_BOLD, points),
        found,
    )


def test_a_wrong_start_is_mended_and_a_right_one_kept() -> None:
    before, after, found = placed([0, 2, -1, 0.02, 0, 0])
    assert before > 2 and after < 0.7 and found.refined
    assert found.cost < 0.9 * found.cost_of_start
    assert found.mutual_information > found.mutual_information_of_start
    assert found.right_signed > 0.9 and found.mask_dice > 0.9 and not found.quality()["Doubtful"]
    before, after, found = placed([0.05, 0, 0.05, 0, 0, 0])
    assert after == before < 0.1 and not found.refined


def test_images_without_relation_are_refused_and_odd_contrast_is_not() -> None:
    _, _, lost = placed([0, 10, 4, 0.1, 0, 0.05])
    assert lost.hopeless and not lost.refined and lost.quality()["Doubtful"]
    with pytest.raises(DataError, match="do not match") as caught:
        check_coregistration(lost, "x_bold.nii.gz")
    assert "same subject" in str(caught.value.fix)

    boldref, mask, _ = pair()
    inverted = Image(np.where(mask, 2000 - boldref.data, 0).astype(np.float32), boldref.affine)
    _, _, odd = placed([0.1, 0, 0, 0, 0, 0], inverted)
    assert not odd.hopeless and not odd.refined and odd.quality()["Doubtful"]
    check_coregistration(odd, "x")


def test_a_boundary_is_where_the_white_ends_and_points_out_of_it() -> None:
    """A ball of white matter, 30 mm, in a shell of grey to 40 mm, in an oblique grid."""
    size, zoom = 70, 1.5
    affine = pose_from_params([10, -4, 6, 0.3, -0.2, 0.1], np.zeros(3)) @ np.diag([zoom] * 3 + [1])
    center = affine @ np.array([34.5, 34.5, 34.5, 1])
    voxels = np.vstack([np.indices((size,) * 3).reshape(3, -1), np.ones(size**3)])
    radius = np.linalg.norm((affine @ voxels - center[:, None])[:3], axis=0).reshape((size,) * 3)
    white, grey, csf = radius < 30, (radius >= 30) & (radius < 40), (radius >= 40) & (radius < 45)
    noise = np.random.default_rng(0).normal(0, 15, radius.shape)
    t1w = np.where(radius < 45, 800 * white + 500 * grey + 200 * csf + noise, 0)
    maps = [part.astype(np.float32) for part in (grey, white, csf)]
    template = Tissues(t1w.astype(np.float32), *maps, radius < 45, affine)
    found = find_boundary(Image(t1w.astype(np.float32), affine), np.eye(4), template)
    outward = found.points - center[:3, None]
    distance = np.linalg.norm(outward, axis=0)
    assert distance.size > 3000
    assert abs(distance.mean() - 30) < 0.3 and distance.std() < 0.5
    assert ((found.normals * outward / distance).sum(axis=0) > 0.9).mean() > 0.95
    np.testing.assert_allclose(np.linalg.norm(found.normals, axis=0), 1, atol=1e-6)


def test_eyes_leave_the_mask_and_lost_signal_stays_out() -> None:
    boldref, _, brain = pair()
    share, _ = pull_brain(brain, boldref.affine, SHAPE, IN_BOLD)
    true = share > 0.5
    points = np.moveaxis(np.indices(SHAPE), 0, -1) @ boldref.affine[:3, :3].T
    points = points + boldref.affine[:3, 3] - (IN_BOLD @ [0, -18, 10, 1])[:3]
    eyes = np.zeros(SHAPE, dtype=bool)
    for side in (-32, 32):
        eyes |= np.linalg.norm(points - [side, 72, -40], axis=-1) < 16
    hole = np.linalg.norm(points - [0, 58, -30], axis=-1) < 14
    data = np.where(eyes & ~true, 1200, boldref.data) * ~hole
    bright = foreground_mask(data, np.full(3, ZOOM))
    found = refine_mask(bright, share, np.full(3, ZOOM))
    assert (bright & eyes & ~true).sum() > 100  # they would have been taken for brain
    assert dice(found, true & ~hole) > dice(bright, true & ~hole) + 0.004
    assert (found & eyes & ~ndimage.binary_dilation(true, iterations=2)).sum() == 0
    assert (found & ndimage.binary_erosion(hole & true)).sum() == 0
