"""Networks that learn to forecast from nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from brainlm.evaluate.baselines.latent_ode import LatentODEForecaster
from brainlm.evaluate.baselines.lstm import LSTMForecaster
from brainlm.evaluate.baselines.networks import squared_error
from brainlm.evaluate.baselines.neural_ode import NeuralODEForecaster
from brainlm.evaluate.baselines.odes import solve
from brainlm.evaluate.baselines.persistence import mean, persistence
from brainlm.evaluate.forecast_networks import NETWORKS, fit_network
from brainlm.evaluate.forecasters import Horizon
from brainlm.evaluate.forecasts import forecast_error
from brainlm.shards.reader import ShardReader
from brainlm.shards.sampler import even_windows

from .synthetic_cohort import make_shards, write_recording, write_study
from .tuning_study import around_of

MAKERS = [(LSTMForecaster, 16), (NeuralODEForecaster, 8), (LatentODEForecaster, 8)]
WINDOW, FUTURE = 40, 8


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def _waves(rng: np.random.Generator, volumes: int = 120) -> np.ndarray:
    """All parcels swing at one period, each with its own phase: the past tells the future."""
    t = np.arange(volumes)[:, None] + rng.uniform(0, 16)
    clean = np.sin(2 * np.pi * (t / 16 + np.arange(8) / 8))
    return (100 + 3 * clean + 0.3 * rng.standard_normal(clean.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> ShardReader:
    folder = tmp_path_factory.mktemp("networks") / "study"
    study = write_study(folder, {"train": 12, "val": 4, "test": 6}, volumes=120)
    rng = np.random.default_rng(4)
    for row in pd.read_parquet(study.path("recordings")).itertuples():
        write_recording(study, row.recording_id, _waves(rng))
    return ShardReader(make_shards(study))


def _horizon() -> Horizon:
    return Horizon(WINDOW, FUTURE, 4, torch.device("cpu"))


@pytest.mark.parametrize(("make", "size"), MAKERS)
def test_a_forecast_begins_at_the_mean_and_reads_no_holes(make, size) -> None:
    torch.manual_seed(0)
    network = make(5, size)
    past = torch.randn(3, 5, 30)
    past[1, 2] = torch.nan
    assert (network(past, 7) == torch.zeros(3, 5, 7)).all()
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn_like(weight) * 0.3)
    guess = network(past, 7)
    assert guess.shape == (3, 5, 7)
    assert guess.isfinite().all()
    filled = past.clone()
    filled[1, 2] = 0
    assert (network(filled, 7) == guess).all()
    # Windows do not see each other.
    assert torch.allclose(network(past[:1], 7), guess[:1], atol=1e-4)


@pytest.mark.parametrize(("make", "size"), MAKERS)
def test_an_lstm_or_ode_forecast_hangs_on_the_past_alone(make, size) -> None:
    network = make(4, size)
    with torch.no_grad():
        network.head.weight.normal_()
    past = torch.randn(2, 4, 30)
    shorter, longer = network(past, 3), network(past, 9)
    assert torch.allclose(longer[:, :, :3], shorter, atol=1e-6)
    other = past.clone()
    other[0, :, -1] += 1
    changed = network(other, 3)
    assert not torch.allclose(changed[0], shorter[0])
    assert torch.equal(changed[1], shorter[1])


def test_the_solver_follows_a_known_equation() -> None:
    """z' = A z has the solution exp(A t) z."""
    turning = torch.tensor([[0.0, 0.3], [-0.3, -0.05]], dtype=torch.float64)

    class Linear(torch.nn.Module):
        def forward(self, t, state):
            return state @ turning.T

    start = torch.tensor([[1.0, 0.5], [-2.0, 0.1]], dtype=torch.float64)
    found = solve(Linear(), start, 6)
    exact = torch.stack([start @ torch.matrix_exp(turning * t).T for t in range(1, 7)], dim=1)
    assert torch.allclose(found, exact, atol=1e-3)  # Euler would be off by 0.1


def test_missing_entries_are_no_error() -> None:
    truth = torch.tensor([[[1.0, torch.nan], [3.0, 4.0]]])
    assert squared_error(torch.zeros(1, 2, 2), truth) == pytest.approx((1 + 9 + 16) / 3)


@pytest.mark.parametrize("method", sorted(NETWORKS))
def test_each_network_learns_a_planted_dynamic(reader, tmp_path, method) -> None:
    network, chosen = fit_network(
        method,
        reader,
        _horizon(),
        epochs=50,
        patience=50,
        search=False,
        seed=1,
        around=lambda name: around_of(tmp_path / name),
    )
    windows = even_windows(reader.lengths("test"), WINDOW)
    errors = {
        name: forecast_error(one, reader, windows, **_horizon().how)
        for name, one in (("network", network), ("mean", mean), ("last", persistence))
    }
    assert errors["network"] < 0.5 * min(errors["mean"], errors["last"])
    assert len(chosen["tried"]) == 1


def test_the_setting_of_the_lowest_validation_error_is_taken(reader, tmp_path, monkeypatch) -> None:
    make, _ = NETWORKS["lstm"]
    monkeypatch.setitem(NETWORKS, "lstm", (make, [(8, 1e-9), (16, 1e-2), (8, 2e-9)]))
    network, chosen = fit_network(
        "lstm",
        reader,
        _horizon(),
        epochs=4,
        patience=4,
        search=True,
        seed=1,
        around=lambda name: around_of(tmp_path / name),
    )
    assert (chosen["size"], chosen["rate"]) == (16, 1e-2)
    assert len(chosen["tried"]) == 3
    windows = even_windows(reader.lengths("val"), WINDOW)
    again = forecast_error(network, reader, windows, **_horizon().how)
    assert again == pytest.approx(min(chosen["tried"].values()), rel=1e-6)


def test_an_lstm_can_stay_where_it_is() -> None:
    """Before its units have learned anything, a share of 1 is persistence."""
    network = LSTMForecaster(4, 8)
    past = torch.randn(2, 4, 20)
    with torch.no_grad():
        network.stays.fill_(1.0)
    torch.testing.assert_close(network(past, 5), persistence(past, 5))
