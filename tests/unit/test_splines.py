from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from brainlm.preproc.splines import sample_cubic


def scipys(coefficients: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    return ndimage.map_coordinates(coefficients, voxels, order=3, prefilter=False, mode="mirror")


@given(
    shape=st.tuples(*[st.integers(2, 9)] * 3),
    seed=st.integers(0, 1000),
    reach=st.floats(0, 25),
)
def test_it_is_scipys_spline_inside_and_far_outside(shape, seed, reach) -> None:
    rng = np.random.default_rng(seed)
    coefficients = rng.normal(size=shape).astype(np.float32)
    voxels = rng.uniform(-reach, np.array(shape)[:, None] - 1 + reach, size=(3, 40))
    found = sample_cubic(coefficients, voxels)
    np.testing.assert_allclose(found, scipys(coefficients, voxels), atol=5e-6)


def test_a_spline_of_its_own_coefficients_goes_through_the_voxels() -> None:
    volume = np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32)
    coefficients = ndimage.spline_filter(volume, 3, output=np.float32, mode="mirror")
    voxels = np.argwhere(np.ones(volume.shape)).T.astype(float)
    np.testing.assert_allclose(sample_cubic(coefficients, voxels), volume.ravel(), atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 5, 5), (5, 1, 4), (1, 1, 1)])
def test_a_single_slice_is_constant_across(shape: tuple[int, ...]) -> None:
    coefficients = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    thin = shape.index(1)
    voxels = np.full((3, 5), 0.3)
    voxels[thin] = np.linspace(-2, 2, 5)
    found = sample_cubic(coefficients, voxels)
    np.testing.assert_allclose(found, found[0], rtol=1e-5)


def test_storage_order_and_threads_change_no_bit() -> None:
    rng = np.random.default_rng(0)
    coefficients = rng.normal(size=(20, 21, 22)).astype(np.float32)
    voxels = rng.uniform(0, 19, size=(3, 5000))
    expected = sample_cubic(coefficients, voxels)
    np.testing.assert_array_equal(sample_cubic(np.asfortranarray(coefficients), voxels), expected)
    with ThreadPoolExecutor(4) as pool:
        parts = list(
            pool.map(lambda part: sample_cubic(coefficients, part), np.split(voxels, 50, 1))
        )
    np.testing.assert_array_equal(np.concatenate(parts), expected)
