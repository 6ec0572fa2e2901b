from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from brainlm.images import write_image
from brainlm.preproc.slicetiming import REACH, SliceTimed, kernel_weights, to_one_moment
from brainlm.series import open_series

TR = 2.0
INTERLEAVED = [0.0, 1.0, 0.25, 1.25, 0.5, 1.5, 0.75, 1.75]


@dataclass
class InMemory:
    """Stands for a series on disk, and counts how many volumes are alive."""

    data: np.ndarray

    @property
    def shape(self):
        return self.data.shape

    @property
    def affine(self):
        return np.eye(4)

    def volumes(self):
        for number in range(self.data.shape[3]):
            yield self.data[..., number].astype(np.float32)


def signal(seconds: np.ndarray, hertz: float) -> np.ndarray:
    return 100 + np.sin(2 * np.pi * hertz * seconds + 0.7)


def acquired(times: list[float], count: int, hertz: float) -> np.ndarray:
    """(2, 2, slices, T): each slice sees the same signal at its own times."""
    when = np.arange(count)[None, :] * TR + np.array(times)[:, None]
    return np.broadcast_to(signal(when, hertz), (2, 2, len(times), count))


def corrected(data: np.ndarray, times: list[float], **options) -> tuple[np.ndarray, dict]:
    series, about = to_one_moment(InMemory(data), times, tr=TR, **{"reference": 0.5, **options})
    return np.stack(list(series.volumes()), axis=-1), about


@pytest.mark.parametrize("reference", [0.0, 0.5, 1.0])
def test_slices_meet_at_the_moment_asked_for(reference: float) -> None:
    count, hertz = 80, 0.05
    found, about = corrected(acquired(INTERLEAVED, count, hertz), INTERLEAVED, reference=reference)
    moment = reference * 1.75
    assert about == {"SliceTimingCorrected": True, "StartTime": moment}
    truth = signal(np.arange(count) * TR + moment, hertz)
    inner = slice(REACH, -REACH)
    np.testing.assert_allclose(
        found[..., inner], np.broadcast_to(truth, found.shape)[..., inner], atol=2e-3
    )
    uncorrected = np.abs(acquired(INTERLEAVED, count, hertz) - truth)[..., inner].max()
    assert uncorrected > 0.2  # so the check above can fail


def test_it_is_the_cubic_spline_of_scipy() -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(3, 2, 4, 60))
    times = [0.0, 0.5, 1.0, 1.5]
    found, _ = corrected(data, times)
    for k, time in enumerate(times):
        shift = (0.75 - time) / TR
        expected = ndimage.shift(data[:, :, k], (0, 0, -shift), order=3, mode="mirror")
        np.testing.assert_allclose(found[:, :, k], expected, atol=3e-5)


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_weights_keep_a_constant_and_are_mirror_images(first: float, second: float) -> None:
    weights = kernel_weights(np.array([first, -first, second]))
    np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-6)
    np.testing.assert_allclose(weights[:, 0], weights[::-1, 1], atol=1e-6)
    assert np.abs(weights[[0, -1]]).max() < 1e-4


def test_no_shift_changes_nothing() -> None:
    weights = kernel_weights(np.array([0.0, 1.0]))
    np.testing.assert_allclose(weights[:, 0], np.eye(2 * REACH + 1)[REACH], atol=1e-15)
    np.testing.assert_allclose(weights[:, 1], np.eye(2 * REACH + 1)[REACH + 1], atol=1e-6)


@pytest.mark.parametrize("count", [5, 6, 17, 18, 19, 20, 45])
def test_short_runs_are_mirrored_as_often_as_needed(count: int) -> None:
    data = np.random.default_rng(count).normal(size=(1, 1, 2, count))
    found, _ = corrected(data, [0.0, 1.0], reference=0.0)
    expected = ndimage.shift(data[0, 0, 1], 0.5, order=3, mode="mirror")
    np.testing.assert_allclose(found[0, 0, 1], expected, atol=1e-4)


def test_volumes_before_the_steady_state_do_not_leak() -> None:
    data = np.full((1, 1, 2, 40), 100.0)
    data[..., :3] = 900
    found, _ = corrected(data, [0.0, 1.0], ignored=3)
    np.testing.assert_array_equal(found[..., :3], 900)
    np.testing.assert_allclose(found[..., 3:], 100, rtol=1e-6)


def test_only_a_window_of_the_run_is_held() -> None:
    read = []

    class Counting(InMemory):
        def volumes(self):
            for number, volume in enumerate(super().volumes()):
                read.append(number)
                yield volume

    data = np.zeros((1, 1, 2, 100))
    series = SliceTimed(Counting(data), kernel_weights(np.array([0.2, -0.2])))
    for number, _ in enumerate(series.volumes()):
        assert len(read) <= number + REACH + 1


@pytest.mark.parametrize(
    ("times", "count", "why"),
    [
        (None, 40, "no usable SliceTiming"),
        ([0.0, 0.5, 1.0], 40, "3 slice times for 2 slices"),
        ([0.5, 0.5], 40, "acquired together"),
        ([0.0, 1.0], 4, "fewer than 5 volumes"),
    ],
)
def test_what_cannot_be_corrected_is_passed_on_with_the_reason(times, count, why) -> None:
    data = np.random.default_rng(0).normal(size=(2, 2, 2, count)).astype(np.float32)
    found, about = corrected(data, times)
    assert why in about["WhyNoSliceTiming"]
    assert about["SliceTimingCorrected"] is False
    np.testing.assert_array_equal(found, data)


def test_slices_lie_along_the_third_stored_axis_of_a_file(tmp_path: Path) -> None:
    data = acquired(INTERLEAVED, 40, 0.04).astype(np.float32)
    affine = np.array([[0, 0, 3.0, 0], [-3, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0, 1]])  # k is R
    write_image(tmp_path / "bold.nii.gz", data, affine, tr=TR)
    series, _ = to_one_moment(
        open_series(tmp_path / "bold.nii.gz"), INTERLEAVED, tr=TR, reference=0.5
    )
    found = np.stack(list(series.volumes()), axis=-1)
    np.testing.assert_allclose(found, corrected(data, INTERLEAVED)[0], rtol=1e-6)
    inner = found[..., REACH:-REACH]
    np.testing.assert_allclose(inner - inner[:, :, :1], 0, atol=4e-3)
