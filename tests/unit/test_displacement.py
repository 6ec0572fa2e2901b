from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from brainlm.geometry import framewise_displacement, pose_from_params
from brainlm.preproc.motion import rms_displacement


def test_framewise_displacement_by_hand() -> None:
    params = np.zeros((3, 6))
    params[1] = [0.1, -0.2, 0.3, 0.01, 0, -0.02]
    fd = framewise_displacement(params, 50.0)
    assert np.isnan(fd[0])
    np.testing.assert_allclose(fd[1:], [0.6 + 50 * 0.03] * 2)


@pytest.mark.parametrize("seed", range(4))
def test_rms_displacement_by_integration_over_the_ball(seed: int) -> None:
    rng = np.random.default_rng(seed)
    center = rng.normal(0, 20, 3)
    rows = rng.normal(0, [3, 3, 3, 0.05, 0.05, 0.05], (3, 6))
    poses = np.array([pose_from_params(row, rng.normal(0, 30, 3)) for row in rows])
    axis = np.arange(-80, 81, 2.5)
    lattice = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    ball = lattice[(lattice**2).sum(axis=1) <= 80**2] + center
    points = np.hstack([ball, np.ones((len(ball), 1))])
    by_hand = [
        np.sqrt((((later - earlier) @ points.T) ** 2).sum(axis=0).mean())
        for earlier, later in pairwise(poses)
    ]
    found = rms_displacement(poses, center)
    assert np.isnan(found[0])
    np.testing.assert_allclose(found[1:], by_hand, rtol=2e-3)


def test_rms_displacement_of_a_shift_and_of_a_turn_by_hand() -> None:
    center = np.array([4.0, -9.0, 30.0])
    rows = [[0, 0, 0, 0, 0, 0], [0.3, 0, -0.4, 0, 0, 0], [0.3, 0, -0.4, 0, 0.02, 0]]
    found = rms_displacement(np.array([pose_from_params(row, center) for row in rows]), center)
    # A turn moves points by 2 sin(angle / 2) times their distance from the axis, whose mean
    # square over a ball is 2/5 of the radius squared.
    assert found[1] == pytest.approx(0.5)
    assert found[2] == pytest.approx(2 * np.sin(0.01) * 80 * np.sqrt(2 / 5))
