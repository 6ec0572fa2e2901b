"""Nonlinear normalisation: the field itself, how it is found, and what it does."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from brainlm.errors import DataError
from brainlm.geometry import pose_from_params, write_itk_affines
from brainlm.images import Image, write_image
from brainlm.preproc.grids import resample_onto
from brainlm.preproc.masks import dice
from brainlm.preproc.nonlinear import Nonlinear, warp_boldref
from brainlm.preproc.normalize import normalize_anat
from brainlm.preproc.resample import Resampler, StandardGrid
from brainlm.series import open_series
from brainlm.warps import Warp, read_warp, write_warp

from .synthetic_head import (
    centered_affine,
    tissues,
)
from .synthetic_warp import AFFINE, COARSE, deformed, errors


def random_warp(zoom: float = 5.0, size_mm: float = 4.0) -> Warp:
    rng = np.random.default_rng(3)
    shape = (34, 40, 34)
    noise = np.stack([ndimage.gaussian_filter(rng.normal(size=shape), 3) for _ in range(3)], -1)
    field = size_mm * noise / np.abs(noise).max()
    affine = centered_affine(shape, zoom) @ np.diag([-1.0, 1, 1, 1])  # stored right to left
    affine[0, 3] *= -1
    return Warp(field.astype(np.float32), affine)


# --- the field ---------------------------------------------------------------------------


def test_a_warp_comes_back_from_its_file_the_same(tmp_path: Path) -> None:
    warp = random_warp()
    for name in ("a.nii.gz", "b.nii.gz"):
        write_warp(tmp_path / name, warp)
    found = read_warp(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(found.displacement, warp.displacement)
    np.testing.assert_allclose(found.affine, warp.affine, atol=1e-5)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    header = nib.load(tmp_path / "a.nii.gz").header
    assert header["dim"][0] == 5 and header["dim"][4] == 1 and header["dim"][5] == 3
    assert header["intent_code"] == 1007
    write_image(tmp_path / "c.nii.gz", np.zeros((4, 4, 4), np.float32), np.eye(4))
    with pytest.raises(DataError, match="no displacement field"):
        read_warp(tmp_path / "c.nii.gz")


def test_ants_applies_our_files_as_we_do(tmp_path: Path) -> None:
    """Matrix and field, handed to ANTs as files, move an image as `resample_onto` does."""
    import ants

    warp, grid = random_warp(), tissues(4.0)
    image = Image(tissues(2.0).t1w, tissues(2.0).affine)
    ours, seen = resample_onto(image, grid.affine, grid.brain.shape, AFFINE, warp=warp)
    write_warp(tmp_path / "warp.nii.gz", warp)
    write_itk_affines(tmp_path / "affine.txt", [AFFINE])
    for name, data, affine in (
        ("moving.nii.gz", image.data, image.affine),
        ("fixed.nii.gz", grid.t1w, grid.affine),
    ):
        write_image(tmp_path / name, data, affine)
    theirs = ants.apply_transforms(
        ants.image_read(str(tmp_path / "fixed.nii.gz")),
        ants.image_read(str(tmp_path / "moving.nii.gz")),
        # In the order in which points of the fixed image pass through them.
        [str(tmp_path / "warp.nii.gz"), str(tmp_path / "affine.txt")],
    ).numpy()
    inner = ndimage.binary_erosion(seen, iterations=2)
    assert np.abs(ours - theirs)[inner].max() < 2e-3  # of 1; without the warp, 0.5 and more


def test_the_jacobian_of_a_known_field() -> None:
    matrix = np.array([[0.1, 0.02, 0], [0, -0.2, 0.05], [0.03, 0, 0.3]])
    affine = pose_from_params([1, 2, 3, 0.3, 0.2, 0.1], np.zeros(3)) @ np.diag([2.0, 3, -4, 1])
    places = np.moveaxis(np.indices((5, 6, 7)), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    found = Warp((places @ matrix.T).astype(np.float32), affine).jacobian()
    np.testing.assert_allclose(found, np.linalg.det(np.eye(3) + matrix), atol=1e-4)


def test_a_field_that_folds_is_flagged() -> None:
    field = np.zeros((8, 8, 8, 3), dtype=np.float32)
    field[4, :, :, 0] = 20
    brain = np.ones((8, 8, 8), dtype=bool)
    warp, none = Warp(field, np.diag([3.0, 3, 3, 1])), Warp(0 * field, np.diag([3.0, 3, 3, 1]))
    found = Nonlinear(warp, none, 0.5, 0.6, brain)
    assert found.quality()["Folds"] and found.folded == pytest.approx(1 / 8)
    assert found.quality()["MaxDisplacement"] == 20
    sound = Nonlinear(none, none, 0.5, 0.6, brain).quality()
    assert not sound["Folds"] and sound["SmallestJacobian"] == 1


# --- resampling --------------------------------------------------------------------------


def test_resampling_through_a_warp_is_what_scipy_computes(tmp_path: Path) -> None:
    """The same composition, written out with scipy's interpolators and no code of ours."""
    from scipy.interpolate import RegularGridInterpolator

    rng = np.random.default_rng(0)
    shape, zoom = (60, 70, 60), 3.5
    raw = ndimage.gaussian_filter(rng.normal(0, 1, (*shape, 2)), (2, 2, 2, 0)) * 4000 + 1000
    affine = centered_affine(shape, zoom)
    write_image(tmp_path / "x_bold.nii.gz", raw.astype(np.float32), affine)
    poses = [pose_from_params([1, -2, 3, 0.02, 0.01, -0.03], np.zeros(3)), np.eye(4)]
    grid, warp = StandardGrid(tissues(6.0).affine, tissues(6.0).brain), random_warp()
    series = open_series(tmp_path / "x_bold.nii.gz")
    resampler = Resampler(series, np.array(poses), AFFINE, grid, order=1, warp=warp)
    found = np.stack(list(resampler.volumes()), axis=-1)

    x = np.argwhere(grid.brain) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    axes = [np.arange(length) for length in warp.displacement.shape[:3]]
    field = RegularGridInterpolator(axes, warp.displacement.astype(float))
    to_voxel = np.linalg.inv(warp.affine)
    x = x + field(x @ to_voxel[:3, :3].T + to_voxel[:3, 3])
    for volume, pose in enumerate(poses):
        pull = np.linalg.inv(affine) @ pose @ AFFINE
        voxels = x @ pull[:3, :3].T + pull[:3, 3]
        here = ((voxels >= 0) & (voxels <= np.array(shape) - 1)).all(axis=1)
        assert here.mean() > 0.95
        image = RegularGridInterpolator(
            [np.arange(length) for length in shape], raw[..., volume].astype(np.float32)
        )
        np.testing.assert_allclose(
            found[grid.brain][here, volume], image(voxels[here]), rtol=1e-5, atol=1e-2
        )


def test_a_warp_of_zeros_changes_no_byte(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    data = rng.normal(500, 50, (60, 70, 60, 3)).astype(np.float32)
    write_image(tmp_path / "x.nii.gz", data, centered_affine((60, 70, 60), 3.5))
    series = open_series(tmp_path / "x.nii.gz")
    grid = StandardGrid(tissues(4.0).affine, tissues(4.0).brain)
    zeros = Warp(0 * random_warp().displacement, random_warp().affine)
    poses = np.array(
        [pose_from_params([0.3 * k, 0, 0, 0.01 * k, 0, 0], np.zeros(3)) for k in (0, 1, 2)]
    )
    with_warp, without = (
        Resampler(series, poses, AFFINE, grid, order=3, warp=warp) for warp in (zeros, None)
    )
    for first, second in zip(with_warp.volumes(), without.volumes(), strict=True):
        assert first.tobytes() == second.tobytes()
    np.testing.assert_array_equal(with_warp.mask(), without.mask())


# --- registration ------------------------------------------------------------------------


def test_syn_more_than_halves_what_the_affine_leaves() -> None:
    fine = tissues(2.0)
    t1w = deformed(800 * fine.t1w, fine.affine, 4.0, 54)
    found = normalize_anat(t1w, tissues(COARSE), "syn")
    assert found.nonlinear is not None
    before, after = (errors(found.t1w_to_mni, warp) for warp in (None, found.nonlinear.warp))
    assert before > 2 and after < 0.5 * before, (before, after)
    quality = found.nonlinear.quality()
    assert quality["SmallestJacobian"] > 0.2 and not quality["Folds"]
    assert quality["CorrelationNonlinear"] > quality["CorrelationAffine"] + 0.02
    # The inverse carries the brain mask back; by the affine alone its Dice is 0.94.
    truth = deformed(fine.brain.astype(np.float32), fine.affine, 4.0, 54).data > 0.5
    assert dice(found.brain > 0, truth) > 0.96


def test_syn_works_from_a_boldref_alone() -> None:
    fine = tissues(2.0)
    boldref = deformed(1000 * fine.epi_contrast(), fine.affine, 4.0, 54)
    found = warp_boldref(boldref, AFFINE, tissues(COARSE))
    before, after = (errors(AFFINE, warp) for warp in (None, found.warp))
    assert after < 0.5 * before, (before, after)


def test_t1w_stays_affine_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    fine = tissues(4.0)
    monkeypatch.setattr("brainlm.preproc.normalize.warp_t1w", None)  # calling it would fail
    found = normalize_anat(Image(800 * fine.t1w, fine.affine), tissues(8.0))
    assert found.nonlinear is None
