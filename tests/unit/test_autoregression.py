"""Linear forecasters, on dynamics that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from brainlm.evaluate.baselines.autoregression import fit_autoregression, lagged_products
from brainlm.evaluate.baselines.persistence import mean, persistence
from brainlm.evaluate.baselines.vector_autoregression import fit_vector_autoregression

#: An oscillation that dies away; each parcel has its own period.
_PERIODS = np.array([8.0, 14.0, 25.0])
_DAMPING = 0.97
_AR2 = np.stack([2 * _DAMPING * np.cos(2 * np.pi / _PERIODS), np.full(3, -(_DAMPING**2))])
#: The first parcel drives the second, which drives the third.
_CHAIN = np.array([[0.9, 0.6, 0.0], [0.0, 0.5, 0.6], [0.0, 0.0, 0.5]])


def _oscillating(rng: np.random.Generator, length: int = 400) -> np.ndarray:
    x = np.zeros((length + 100, 3))
    for t in range(2, len(x)):
        x[t] = _AR2[0] * x[t - 1] + _AR2[1] * x[t - 2] + rng.standard_normal(3)
    return x[100:].astype(np.float32)


def _driven(rng: np.random.Generator, length: int = 400) -> np.ndarray:
    x = np.zeros((length + 100, 3))
    for t in range(1, len(x)):
        x[t] = x[t - 1] @ _CHAIN + rng.standard_normal(3)
    return x[100:].astype(np.float32)


def _cohort(make, count: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [make(rng) for _ in range(count)]


def _error(forecaster, series: list[np.ndarray], future: int = 5) -> float:
    x = torch.from_numpy(np.stack(series)).transpose(1, 2)
    guess = forecaster(x[:, :, :-future], future)
    assert guess.shape == (len(series), 3, future)
    return float((guess - x[:, :, -future:]).square().mean())


def test_coefficients_are_those_that_made_the_series() -> None:
    val, test = (_cohort(_oscillating, 60, seed) for seed in (1, 2))
    model, tried = fit_autoregression(_cohort(_oscillating, 20, 0), lambda m: _error(m, val))
    assert tried["order"] >= 2
    assert set(tried["tried"]) == {"1", "2", "3", "5", "8", "12", "20"}
    two, _ = fit_autoregression(_cohort(_oscillating, 20, 0), lambda m: 0.0, orders=(2,))
    assert two.coefficients == pytest.approx(_AR2, abs=0.03)
    assert _error(model, test) < 0.75 * _error(persistence, test)
    assert _error(model, test) < 0.75 * _error(mean, test)


def test_a_forecast_is_the_recursion() -> None:
    model, _ = fit_autoregression(_cohort(_oscillating, 4, 0), lambda m: 0.0, orders=(3,))
    past = _oscillating(np.random.default_rng(5))[:50]
    wanted = [*past.astype(float)]
    for _ in range(7):
        wanted.append(sum(a * wanted[-1 - k] for k, a in enumerate(model.coefficients)))
    found = model(torch.from_numpy(past.T[None]).double(), 7)
    assert found[0].T.numpy() == pytest.approx(np.stack(wanted[-7:]), rel=1e-9)


def test_parcels_without_data_are_left_out_of_the_sums() -> None:
    whole = _oscillating(np.random.default_rng(0))
    holed = whole.copy()
    holed[:, 1] = np.nan
    found = lagged_products(holed, 4)
    assert (found[1] == 0).all()
    assert (found[[0, 2]] == lagged_products(whole, 4)[[0, 2]]).all()
    model, _ = fit_autoregression([holed], lambda m: 0.0, orders=(2,))
    assert (model.coefficients[:, 1] == 0).all()


def test_what_drives_a_parcel_is_found_by_var_alone() -> None:
    train, val, test = (_cohort(_driven, count, seed) for seed, count in enumerate((40, 60, 60)))
    var, tried = fit_vector_autoregression(train, lambda m: _error(m, val))
    one, _ = fit_vector_autoregression(train, lambda m: 0.0, orders=(1,), penalties=(1e-4,))
    ar, _ = fit_autoregression(train, lambda m: _error(m, val))
    assert one.coefficients[0] == pytest.approx(_CHAIN, abs=0.03)
    assert tried["order"] in (1, 2, 3)
    assert _error(var, test) < 0.9 * _error(ar, test)


def test_a_var_forecast_is_the_recursion() -> None:
    train = _cohort(_driven, 5, 0)
    model, _ = fit_vector_autoregression(train, lambda m: 0.0, orders=(2,), penalties=(1e-3,))
    past = train[0][:50]
    wanted = [*past.astype(float)]
    for _ in range(6):
        wanted.append(wanted[-1] @ model.coefficients[0] + wanted[-2] @ model.coefficients[1])
    found = model(torch.from_numpy(past.T[None]).double(), 6)
    assert found[0].T.numpy() == pytest.approx(np.stack(wanted[-6:]), rel=1e-9)


def test_a_candidate_that_explodes_is_not_chosen() -> None:
    rng = np.random.default_rng(0)
    growing = [np.cumsum(rng.standard_normal((200, 3)), axis=0).astype(np.float32) for _ in "ab"]
    errors = {1: 3.0, 2: float("inf"), 3: float("inf")}
    model, tried = fit_vector_autoregression(
        growing, lambda m: errors[len(m.coefficients)], penalties=(1e-2,)
    )
    assert tried["order"] == 1
    assert len(model.coefficients) == 1
    assert set(tried["tried"].values()) == {3.0, None}  # JSON knows no infinity


@pytest.mark.parametrize("fit", [fit_autoregression, fit_vector_autoregression])
@pytest.mark.parametrize("length", [1, 2, 10, 19, 20])
def test_recordings_too_short_for_the_lags_tell_nothing(fit, length: int) -> None:
    whole = _cohort(_oscillating, 3, 0)
    wanted, _ = fit(whole, lambda m: 0.0)
    found, _ = fit([*whole, whole[0][:length]], lambda m: 0.0)
    if fit is fit_autoregression or length < 3:
        assert (found.coefficients == wanted.coefficients).all()
    else:
        assert np.isfinite(found.coefficients).all()


@pytest.mark.parametrize("fit", [fit_autoregression, fit_vector_autoregression])
def test_before_a_short_past_stands_the_mean(fit) -> None:
    model, _ = fit(_cohort(_oscillating, 3, 0), lambda m: 0.0, orders=(3,))
    past = torch.randn(2, 3, 2)
    longer = torch.cat([torch.zeros(2, 3, 4), past], dim=2)
    assert torch.equal(model(past, 5), model(longer, 5))
    assert model(past[:, :, :1], 5).shape == (2, 3, 5)
