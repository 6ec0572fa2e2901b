from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from brainlm.errors import DataError
from brainlm.geometry import (
    grid_center,
    params_from_pose,
    pose_from_params,
    read_itk_affines,
    rotation,
    template_grid,
    write_itk_affines,
)

MM = st.floats(-50, 50)
ANGLE = st.floats(-1.2, 1.2)


@given(st.tuples(MM, MM, MM, ANGLE, ANGLE, ANGLE), st.tuples(MM, MM, MM))
def test_params_and_pose_are_inverse(params: tuple, center: tuple) -> None:
    pose = pose_from_params(params, np.array(center))
    np.testing.assert_allclose(params_from_pose(pose, np.array(center)), params, atol=1e-9)
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)


def test_rotation_equals_scipy_extrinsic_xyz() -> None:
    angles = [0.1, -0.2, 0.3]
    np.testing.assert_allclose(rotation(angles), Rotation.from_euler("xyz", angles).as_matrix())


def test_signs_of_the_convention() -> None:
    center = np.array([5.0, 6.0, 7.0])
    point = np.array([15.0, 6.0, 7.0, 1.0])  # 10 mm to the right of the centre
    right = pose_from_params([2, 0, 0, 0, 0, 0], center) @ point
    np.testing.assert_allclose(right[:3], [17, 6, 7])
    # Right-handed about +S: what is on the right moves to the front (+A).
    yaw = pose_from_params([0, 0, 0, 0, 0, np.pi / 2], center) @ point
    np.testing.assert_allclose(yaw[:3], [5, 16, 7], atol=1e-12)
    still = pose_from_params([0, 0, 0, 0.3, 0.2, 0.1], center) @ np.array([*center, 1])
    np.testing.assert_allclose(still[:3], center)


def test_itk_files_round_trip(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    matrices = [np.vstack([rng.normal(size=(3, 4)), [0, 0, 0, 1]]) for _ in range(3)]
    write_itk_affines(tmp_path / "x.txt", matrices)
    for read, written in zip(read_itk_affines(tmp_path / "x.txt"), matrices, strict=True):
        np.testing.assert_allclose(read, written, rtol=0, atol=1e-12)


def test_ants_reads_our_transforms_as_we_mean_them(tmp_path: Path) -> None:
    ants = pytest.importorskip("ants")
    pose = pose_from_params([3, -4, 5, 0.1, 0.2, -0.3], np.array([1.0, 2.0, 3.0]))
    write_itk_affines(tmp_path / "x.txt", [pose])
    transform = ants.read_transform(str(tmp_path / "x.txt"))
    ras = np.array([10.0, 20.0, 30.0])
    lps = transform.apply_to_point([-10.0, -20.0, 30.0])
    expected = (pose @ [*ras, 1])[:3]
    np.testing.assert_allclose([-lps[0], -lps[1], lps[2]], expected, atol=1e-5)


def test_a_broken_itk_file_names_itself(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("#Insight Transform File V1.0\n")
    with pytest.raises(DataError) as caught:
        read_itk_affines(tmp_path / "x.txt")
    assert str(tmp_path / "x.txt") in str(caught.value)


def test_template_grid_covers_and_nests() -> None:
    affine = np.array([[1.0, 0, 0, -98], [0, 1, 0, -134], [0, 0, 1, -72], [0, 0, 0, 1]])
    two, shape = template_grid(affine, (197, 233, 189), 2)
    assert shape == (99, 117, 95)
    np.testing.assert_allclose(two[:3, 3], affine[:3, 3])
    np.testing.assert_allclose(np.diag(two)[:3], 2)
    np.testing.assert_allclose(grid_center((3, 3, 3), np.eye(4)), [1, 1, 1])
