from __future__ import annotations

import numpy as np
import pytest

from brainlm.preproc.steady_state import global_means, non_steady_volumes, spikes


def quiet(seed: int, count: int = 200) -> np.ndarray:
    """The global mean of a run that is settled: 0.4%, autocorrelated, with a drift of 1%."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 1, count + 50)
    for index in range(1, len(noise)):
        noise[index] += 0.5 * noise[index - 1]
    drift = rng.uniform(-0.5, 0.5) * np.linspace(-1, 1, count)
    return 600 * (1 + 0.01 * drift + 0.004 * noise[50:] / noise.std())


@pytest.mark.parametrize("excess", [(1.2,), (1.6, 1.35, 1.2), (1.6, 1.3, 1.15, 1.07, 1.03)])
def test_bright_volumes_at_the_start_are_counted(excess: tuple[float, ...]) -> None:
    for seed in range(20):
        means = quiet(seed)
        means[: len(excess)] *= excess
        assert non_steady_volumes(means) == len(excess)


def test_quiet_runs_raise_no_alarm() -> None:
    alarms = sum(non_steady_volumes(quiet(seed)) > 0 for seed in range(200))
    assert alarms <= 2


def test_short_quiet_runs_raise_few_alarms() -> None:
    assert sum(non_steady_volumes(quiet(seed, 12)) > 0 for seed in range(200)) <= 4


def test_a_spike_later_in_the_run_is_not_counted() -> None:
    means = quiet(3)
    means[20:22] *= 1.5
    assert non_steady_volumes(means) == 0
    means[0] *= 1.3
    assert non_steady_volumes(means) == 1


@pytest.mark.parametrize("count", [1, 2, 5, 30, 80])
def test_constant_runs_are_settled(count: int) -> None:
    assert non_steady_volumes(np.full(count, 7.0)) == 0
    assert non_steady_volumes(np.zeros(count)) == 0


def test_one_bright_volume_before_a_constant_run() -> None:
    assert non_steady_volumes(np.array([9.0, 7, 7, 7, 7, 7])) == 1


def test_global_means_are_of_all_voxels() -> None:
    bold = np.random.default_rng(0).random((3, 4, 5, 6), dtype=np.float32)
    expected = bold.astype(float).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(global_means(np.moveaxis(bold, -1, 0)), expected, rtol=1e-12)


def test_spikes_are_named_as_fmriprep_names_them() -> None:
    columns = spikes(2, 4)
    assert {name: column.tolist() for name, column in columns.items()} == {
        "non_steady_state_outlier00": [1, 0, 0, 0],
        "non_steady_state_outlier01": [0, 1, 0, 0],
    }
    assert spikes(0, 4) == {}
