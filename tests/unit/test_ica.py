"""Spatial ICA: planted sources come back, in number and in shape; what cannot be is told."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from brainlm.config import Ica
from brainlm.denoise.aroma import Regions
from brainlm.denoise.dimension import laplace_evidence
from brainlm.denoise.ica import Components, spatial_ica
from brainlm.denoise.judge import Judged, find_and_judge
from brainlm.denoise.restarts import consensus
from brainlm.denoise.smoothing import smooth_in_mask, smoothness_mm
from brainlm.errors import DataError
from brainlm.geometry import FWHM_TO_SIGMA, MOTION_NAMES

SHAPE, SIZES = (24, 26, 22), np.full(3, 3.0)
VOLUMES = 120


def blob_mask() -> np.ndarray:
    grid = np.indices(SHAPE) - np.reshape((np.array(SHAPE) - 1) / 2, (3, 1, 1, 1))
    return (grid**2).sum(axis=0) < 10.5**2


def constant() -> np.ndarray:
    return np.full((VOLUMES, 1), VOLUMES**-0.5)


def planted(count: int = 5, noise: float = 1.0, seed: int = 0) -> tuple[np.ndarray, ...]:
    """A run (T, n) of `count` compact sources in white noise, with courses and maps."""
    rng = np.random.default_rng(seed)
    mask = blob_mask()
    places = rng.permutation(np.argwhere(ndimage.binary_erosion(mask, iterations=3)))[:count]
    maps = []
    for place in places:
        spot = np.zeros(SHAPE)
        spot[tuple(place)] = 1
        spot = ndimage.gaussian_filter(spot, 1.6)
        maps.append(spot[mask] / spot.max())
    courses = rng.standard_normal((VOLUMES, count))
    series = 1000 + 6 * courses @ np.array(maps)
    series += noise * 3 * rng.standard_normal(series.shape)
    return series.astype(np.float32), mask, courses, np.array(maps)


def decompose(series: np.ndarray, mask: np.ndarray, **change: object) -> Components:
    options = {"fwhm_mm": 6.0, "components": None, "seed": 1, "restarts": 1, **change}
    return spatial_ica(series, mask, SIZES, constant(), **options)  # type: ignore[arg-type]


def test_planted_sources_come_back() -> None:
    series, mask, courses, maps = planted()
    found = decompose(series, mask)
    assert found.converged and 5 <= found.mixing.shape[1] <= 9
    in_time = np.abs(np.corrcoef(courses.T, found.mixing.T)[:5, 5:])
    assert in_time.max(axis=1).min() > 0.95
    best = in_time.argmax(axis=1)
    assert len(set(best)) == 5
    in_space = np.corrcoef(maps, found.maps[best])[:5, 5:].diagonal()
    assert in_space.min() > 0.8  # signed: the bulk of a map is positive
    np.testing.assert_allclose(found.mixing.std(axis=0), 1, atol=1e-6)
    assert (np.diff(found.explained) <= 0).all() and 0 < found.explained.sum() < 1


def test_maps_are_in_units_of_the_noise() -> None:
    """Where there is no source, a map is standard Gaussian; in the source it is far from it."""
    series, mask, courses, maps = planted(count=3)
    found = decompose(series, mask, components=3)
    nearest = np.abs(np.corrcoef(courses.T, found.mixing.T)[:3, 3:]).argmax(axis=1)
    quiet = maps.max(axis=0) < 0.01
    values = found.maps[nearest][:, quiet]
    # sqrt(T) of them make one standard error: the course was fitted to T volumes.
    assert 0.8 < values.std() * np.sqrt(VOLUMES) < 1.2
    assert all(
        found.maps[k][maps[i] > 0.5].mean() > 5 * values.std() for i, k in enumerate(nearest)
    )


def test_equal_input_and_seed_give_equal_bytes() -> None:
    series, mask, _, _ = planted(seed=3)
    first, again = decompose(series, mask), decompose(series, mask)
    assert first.mixing.tobytes() == again.mixing.tobytes()
    assert first.maps.tobytes() == again.maps.tobytes()


def test_drifts_and_level_do_not_matter() -> None:
    series, mask, _, _ = planted(seed=4)
    time = np.linspace(-1, 1, VOLUMES)[:, None]
    basis = np.linalg.qr(np.hstack([np.ones_like(time), time]))[0]
    tilted = (series + 500 + 40 * time).astype(np.float32)
    plain = spatial_ica(series, mask, SIZES, basis, fwhm_mm=6, components=5, seed=1)
    other = spatial_ica(tilted, mask, SIZES, basis, fwhm_mm=6, components=5, seed=1)
    np.testing.assert_allclose(plain.mixing, other.mixing, atol=0.02)


def test_dimension_of_smooth_noise_with_sources() -> None:
    """Counting voxels as independent samples would find tens of sources in smooth noise."""
    rng = np.random.default_rng(0)
    mask = blob_mask()
    noise = rng.standard_normal((VOLUMES, int(mask.sum()))).astype(np.float32)
    smooth = smooth_in_mask(noise, mask, SIZES, 9.0)
    found = decompose(smooth, mask)
    assert found.estimated <= 3


def test_evidence_finds_the_rank() -> None:
    rng = np.random.default_rng(1)
    for rank in (1, 4, 12):
        mixed = rng.standard_normal((40, rank)) @ (3 * rng.standard_normal((rank, 3000)))
        data = mixed + rng.standard_normal((40, 3000))
        values = np.linalg.eigvalsh(data @ data.T / 3000)[::-1]
        assert 1 + laplace_evidence(values, 3000).argmax() == rank


def test_smoothing_keeps_a_constant_up_to_the_edge_and_takes_nothing_from_outside() -> None:
    mask = blob_mask()
    flat = np.full((2, int(mask.sum())), 7, dtype=np.float32)
    np.testing.assert_allclose(smooth_in_mask(flat, mask, SIZES, 6.0), 7, rtol=1e-5)


def test_smoothing_of_a_point_is_the_gaussian_asked_for() -> None:
    mask = np.ones((41, 41, 41), dtype=bool)
    point = np.zeros(mask.shape, dtype=np.float32)
    point[20, 20, 20] = 1
    smooth = smooth_in_mask(point.reshape(1, -1), mask, np.array([1.0, 2.0, 1.0]), 6.0)
    smooth = smooth.reshape(mask.shape)
    for axis, size in enumerate((1.0, 2.0, 1.0)):
        line = np.moveaxis(smooth, axis, 0)[:, 20, 20].astype(float)
        place = size * (np.arange(41) - 20)
        width = np.sqrt((line * place**2).sum() / line.sum())
        assert width == pytest.approx(6.0 * FWHM_TO_SIGMA, rel=0.03)


@pytest.mark.parametrize("fwhm", [6.0, 9.0])
def test_smoothness_of_smoothed_noise_is_that_of_the_kernel(fwhm: float) -> None:
    mask = np.ones((40, 40, 40), dtype=bool)
    noise = np.random.default_rng(2).standard_normal((6, mask.size)).astype(np.float32)
    found = smoothness_mm(smooth_in_mask(noise, mask, SIZES, fwhm), mask, SIZES)
    np.testing.assert_allclose(found, fwhm, rtol=0.1)


def test_constant_voxels_do_no_harm() -> None:
    series, mask, _, _ = planted(seed=6)
    series[:, ::7] = 3.0
    found = decompose(series, mask)
    assert np.isfinite(found.maps).all() and np.isfinite(found.mixing).all()
    assert (found.maps[:, ::7] == 0).mean() < 1  # neighbours flow in by smoothing


@pytest.mark.parametrize("value", [5.0, np.nan])
def test_a_run_without_variance_is_refused(value: float) -> None:
    mask = blob_mask()
    series = np.full((VOLUMES, int(mask.sum())), value, dtype=np.float32)
    with pytest.raises(DataError, match="nothing to decompose"):
        decompose(series, mask)


def test_noise_that_never_settles_ends_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brainlm.denoise.ica._ITERATIONS", 2)
    series, mask, _, _ = planted(seed=7)
    found = decompose(series, mask, components=20)
    assert not found.converged
    assert found.mixing.shape[1] < 20 == found.estimated


def test_an_empty_mask_is_refused() -> None:
    mask = np.zeros(SHAPE, dtype=bool)
    with pytest.raises(DataError, match="mask is empty"):
        decompose(np.zeros((VOLUMES, 0), dtype=np.float32), mask)


def test_a_short_run_has_fewer_components_than_volumes() -> None:
    series, mask, _, _ = planted(seed=8)
    short = series[:30]
    constant_of_30 = np.full((30, 1), 30**-0.5)
    found = spatial_ica(short, mask, SIZES, constant_of_30, fwhm_mm=6, components=None, seed=1)
    assert 2 <= found.mixing.shape[1] < 30
    most = spatial_ica(short, mask, SIZES, constant_of_30, fwhm_mm=6, components=99, seed=1)
    assert most.mixing.shape[1] <= 28 and np.isfinite(most.maps).all()


def test_two_volumes_are_refused() -> None:
    series, mask, _, _ = planted(seed=8)
    level = np.full((2, 1), 2**-0.5)
    with pytest.raises(DataError, match="vary in one way only"):
        spatial_ica(series[:2], mask, SIZES, level, fwhm_mm=6, components=None, seed=1)


def test_restarts_find_the_sources_too_and_stay_apart() -> None:
    series, mask, courses, _ = planted(seed=9)
    found = decompose(series, mask, components=8, restarts=3)
    in_time = np.abs(np.corrcoef(courses.T, found.mixing.T)[:5, 5:])
    assert found.converged and in_time.max(axis=1).min() > 0.95
    again = decompose(series, mask, components=8, restarts=3)
    assert (found.mixing == again.mixing).all()
    together = np.abs(np.corrcoef(found.maps)) - np.eye(8)
    assert together.max() < 0.3


def test_searches_agree_on_what_they_share() -> None:
    """Three rotations with two rows in common: these come back, and all stay orthogonal."""
    rng = np.random.default_rng(3)
    shared = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    searches = []
    for sign in (1, -1, 1):
        turn = np.eye(6)
        turn[2:, 2:] = np.linalg.qr(rng.standard_normal((4, 4)))[0]
        searches.append((turn @ shared)[rng.permutation(6)] * sign)
    agreed = consensus(searches)
    np.testing.assert_allclose(agreed @ agreed.T, np.eye(6), atol=1e-12)
    assert np.abs(agreed @ shared[:2].T).max(axis=0).min() > 0.99


def test_components_of_an_unsettled_search_are_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the features some of them would be noise."""
    series, mask, courses, _ = planted(seed=7)
    motion = pd.DataFrame(courses[:, [0] * 6], columns=list(MOTION_NAMES))
    here = np.ones(int(mask.sum()), dtype=bool)
    regions = Regions(csf=~here, edge=here, outside=~here)
    options = {**Ica().model_dump(), "components": 10}

    def judged() -> Judged:
        return find_and_judge(
            series.copy(), mask, np.diag([3.0, 3, 3, 1]), motion, regions, tr=2.0, options=options
        )

    assert "rejected" in set(judged().metrics["classification"])
    monkeypatch.setattr("brainlm.denoise.ica._ITERATIONS", 2)
    found = judged()
    assert not found.about()["Converged"] and found.about()["Rejected"] == 0
    assert set(found.metrics["rationale"]) == {"search did not settle"}
