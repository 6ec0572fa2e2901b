"""FSL's displacement fields: literal coordinates, and warps whose truth is known in world mm."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from brainlm.errors import DataError, InputError
from brainlm.geometry import pose_from_params
from brainlm.images import write_image
from brainlm.preproc.adopt import Adopted, Grid
from brainlm.preproc.fnirt import RunToTemplate, fsl_from_voxel, read_fnirt_field
from brainlm.series import open_series

#: From the template to the run's world, before the waves.
AFFINE = pose_from_params([3, -40, 12, 0.2, -0.1, 0.15], np.zeros(3)) @ np.diag([1.1, 0.9, 1.05, 1])


def truth(points: np.ndarray) -> np.ndarray:
    """Where template points (n, 3) lie in the run: an affine, and waves of 4 mm."""
    waves = 4 * np.sin(points[:, [1, 2, 0]] * 2 * np.pi / 90 + [0.4, 1.0, 2.0])
    return (points + waves) @ AFFINE[:3, :3].T + AFFINE[:3, 3]


def grid(order: str, zooms: tuple[float, ...], shape: tuple[int, ...], center=(0, -18, 10)):
    """An upright affine in RAS or LAS order around a place of the world."""
    affine = np.diag([-zooms[0] if order == "LAS" else zooms[0], *zooms[1:], 1.0])
    affine[:3, 3] = np.array(center) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def points_of(found: RunToTemplate, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """World coordinates (n, 3) in the run of every voxel of a grid, in C order."""
    return found.to_run((voxels_of(shape) @ affine[:3, :3].T + affine[:3, 3]).T).T


def voxels_of(shape: tuple[int, ...]) -> np.ndarray:
    return np.array(list(itertools.product(*map(range, shape))), dtype=float)


def in_fsl_mm(voxels: np.ndarray, order: str, zooms, shape) -> np.ndarray:
    """FSL's millimetres, told apart from the code under test: RAS counts x from its end."""
    turned = voxels.copy()
    if order == "RAS":
        turned[:, 0] = shape[0] - 1 - voxels[:, 0]
    return turned * zooms


def write_field(path: Path, data, affine, intent: int = 2006) -> Path:
    image = nib.Nifti1Image(np.asarray(data, np.float32), affine)
    image.header["intent_code"] = intent
    image.to_filename(path)
    return path


def make(folder: Path, ref_order: str, run_order: str, *, absolute=False, intent=2006):
    """A run, and the field by which FSL would lead from the template to it."""
    ref_zooms, ref_shape = (4.0, 4.0, 4.0), (40, 48, 40)
    run_zooms, run_shape = (3.0, 3.5, 4.5), (60, 64, 44)
    ref = grid(ref_order, ref_zooms, ref_shape)
    run = grid(run_order, run_zooms, run_shape, AFFINE[:3, :3] @ [0, -18, 10] + AFFINE[:3, 3])
    write_image(folder / "run.nii.gz", np.ones((*run_shape, 3), np.float32), run, tr=0.7)
    voxels = voxels_of(ref_shape)
    there = truth(voxels @ ref[:3, :3].T + ref[:3, 3])
    back = np.linalg.inv(run)
    target = in_fsl_mm(there @ back[:3, :3].T + back[:3, 3], run_order, run_zooms, run_shape)
    field = target - (0 if absolute else in_fsl_mm(voxels, ref_order, ref_zooms, ref_shape))
    path = write_field(folder / "warp.nii.gz", field.reshape(*ref_shape, 3), ref, intent)
    return path, open_series(folder / "run.nii.gz")


def test_the_millimetres_of_fsl():
    las, ras = grid("LAS", (2, 2, 3), (5, 6, 7)), grid("RAS", (2, 2, 3), (5, 6, 7))
    np.testing.assert_array_equal(fsl_from_voxel((5, 6, 7), las, (2, 2, 3)), np.diag([2, 2, 3, 1]))
    first, last = [0, 0, 0, 1], [4, 5, 6, 1]
    matrix = fsl_from_voxel((5, 6, 7), ras, (2, 2, 3))
    np.testing.assert_array_equal(matrix @ first, [8, 0, 0, 1])
    np.testing.assert_array_equal(matrix @ last, [0, 10, 18, 1])


@pytest.mark.parametrize(
    ("ref_order", "run_order", "first"),
    [("LAS", "LAS", 0), ("RAS", "LAS", 3), ("LAS", "RAS", 4), ("RAS", "RAS", 1)],
)
def test_a_field_of_zeros_joins_the_corners_of_the_two_images(
    tmp_path, ref_order, run_order, first
):
    """Voxels of 2 mm, 4 along x in the template and 5 in the run; `first` is where voxel 0 lies."""
    ref = grid(ref_order, (2, 2, 2), (4, 4, 4), (0, 0, 0))
    run = grid(run_order, (2, 2, 2), (5, 4, 4), (100, 0, 0))
    write_image(tmp_path / "run.nii.gz", np.ones((5, 4, 4, 2), np.float32), run, tr=1.0)
    path = write_field(tmp_path / "w.nii.gz", np.zeros((4, 4, 4, 3)), ref)
    found = read_fnirt_field(path, open_series(tmp_path / "run.nii.gz"))
    expected = run @ [first, 0, 0, 1]
    np.testing.assert_allclose(points_of(found, ref, (4, 4, 4))[0], expected[:3], atol=1e-5)


@pytest.mark.parametrize("run_order", ["LAS", "RAS"])
@pytest.mark.parametrize("ref_order", ["LAS", "RAS"])
def test_a_known_warp_comes_out_in_world_mm(tmp_path, ref_order, run_order):
    path, run = make(tmp_path, ref_order, run_order)
    found = read_fnirt_field(path, run)
    assert not found.absolute
    assert np.abs(found.warp.displacement).max() < 12  # the affine is in the matrix
    other = grid("RAS", (5, 3, 6), (24, 40, 20))  # another grid than the field's, inside it
    points = voxels_of((24, 40, 20)) @ other[:3, :3].T + other[:3, 3]
    error = np.linalg.norm(points_of(found, other, (24, 40, 20)) - truth(points), axis=1)
    assert error.max() < 0.12  # linear between knots of 4 mm: waves of 4 mm bend by that much
    on_grid = np.linalg.norm(
        points_of(found, nib.load(path).affine, (40, 48, 40))
        - truth(
            voxels_of((40, 48, 40)) @ nib.load(path).affine[:3, :3].T + nib.load(path).affine[:3, 3]
        ),
        axis=1,
    )
    assert on_grid.max() < 1e-3


@pytest.mark.parametrize("intent", [0, 1006])
def test_absolute_and_relative_fields_are_told_apart_as_fsl_does(tmp_path, intent):
    for absolute in (True, False):
        path, run = make(tmp_path, "LAS", "RAS", absolute=absolute, intent=intent)
        found = read_fnirt_field(path, run)
        assert found.absolute is absolute
        here = np.array([[10.0, -20, 30]])
        at = np.eye(4)
        at[:3, 3] = here[0]
        np.testing.assert_allclose(points_of(found, at, (1, 1, 1)), truth(here), atol=0.1)


def test_beyond_the_field_the_affine_goes_on(tmp_path):
    path, run = make(tmp_path, "LAS", "LAS")
    found = read_fnirt_field(path, run)
    at = np.eye(4)
    at[:3, 3] = 0, -18, 200
    expected = found.matrix @ at[:, 3]
    np.testing.assert_allclose(points_of(found, at, (1, 1, 1))[0], expected[:3])
    assert np.linalg.norm(points_of(found, at, (1, 1, 1)) - truth(at[:3, 3][None])) < 12


@pytest.mark.parametrize("run_order", ["LAS", "RAS"])
def test_a_run_is_brought_to_the_template_volume_by_volume(tmp_path, run_order):
    """The run shows a pattern of its world; on the template it must stand where the warp says."""

    def pattern(points):
        x, y, z = points.T * 2 * np.pi / 60
        return 500 + 100 * np.sin(x) + 80 * np.cos(y + 0.3) + 60 * np.sin(z + x)

    path, run = make(tmp_path, "LAS", run_order)
    world = voxels_of(run.shape[:3]) @ run.affine[:3, :3].T + run.affine[:3, 3]
    volume = pattern(world).reshape(run.shape[:3])
    data = np.stack([volume, volume + 10, volume + 50], axis=-1).astype(np.float32)
    write_image(tmp_path / "run.nii.gz", data, run.affine, tr=0.7)
    run = open_series(tmp_path / "run.nii.gz")
    shape = (20, 24, 20)
    target = grid("RAS", (4, 4, 4), shape)
    brain = np.zeros(shape, dtype=bool)
    brain[3:-3, 3:-3, 3:-3] = True
    way = read_fnirt_field(path, run).to_run
    adopted = Adopted(run, Grid(target, brain), None, order=3, way=way)
    volumes = np.stack(list(adopted.volumes()), axis=-1)
    points = voxels_of(shape) @ target[:3, :3].T + target[:3, 3]
    expected = pattern(truth(points)).reshape(shape)
    np.testing.assert_allclose(volumes[brain][:, 0], expected[brain], atol=1.5)
    np.testing.assert_allclose(volumes[brain][:, 1], expected[brain] + 10, atol=1.5)
    assert (adopted.mask() == brain).all()


@pytest.mark.parametrize("code", [2007, 2008, 2009])
def test_coefficients_are_refused_with_the_command_that_helps(tmp_path, code):
    path, run = make(tmp_path, "LAS", "LAS", intent=code)
    with pytest.raises(InputError, match="coefficients") as caught:
        read_fnirt_field(path, run)
    assert "fnirtfileutils" in str(caught.value) and "--withaff" in str(caught.value)


def test_other_files_are_refused(tmp_path):
    path, run = make(tmp_path, "LAS", "LAS")
    good = nib.load(path)
    data = good.get_fdata()
    cases = [
        (data[..., None, :], InputError, "but a field of ITK"),
        (data[..., 0], InputError, "but an image of shape"),
        (np.where(data > 20, np.nan, data), DataError, "NaN or inf"),
    ]
    for content, kind, fault in cases:
        write_field(path, content, good.affine)
        with pytest.raises(kind, match=fault) as caught:
            read_fnirt_field(path, run)
        assert caught.value.file == str(path)
    write_field(path, data, good.affine, intent=2016)
    with pytest.raises(InputError, match="but a file of topup"):
        read_fnirt_field(path, run)
    x = np.indices(data.shape[:3])[0] * 4.0
    for factor, fault in ((-2.0, "swaps left and right"), (9.0, "times as large")):
        write_field(path, np.stack([x * factor, 0 * x, 0 * x], axis=-1), good.affine)
        with pytest.raises(DataError, match=fault):
            read_fnirt_field(path, run)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match="cannot be read"):
        read_fnirt_field(path, run)
    with pytest.raises(DataError, match="does not exist"):
        read_fnirt_field(tmp_path / "none.nii.gz", run)
