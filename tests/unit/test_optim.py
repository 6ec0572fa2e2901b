"""What changes the weights, and by how much."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from brainlm.model.mask import generator
from brainlm.train.optim import (
    learning_rate_at,
    make_optimizer,
    optimizer_tensors,
    restore_optimizer,
    set_learning_rate,
)

from .small_training import with_


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_the_rate_rises_and_falls() -> None:
    rates = [learning_rate_at(step, 110, 1.0, 10 / 110) for step in range(110)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert 0 < rates[-1] < 0.001
    assert learning_rate_at(0, 1, 1.0, 0.05) == 1.0


def test_only_matrices_decay() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3))
    decaying, others = make_optimizer(dict(model.named_parameters()), 0.1, 0.05).param_groups
    assert [p.ndim for p in decaying["params"]] == [2]
    assert decaying["weight_decay"] == 0.05
    assert [p.ndim for p in others["params"]] == [1, 1, 1]
    assert others["weight_decay"] == 0


def test_the_rate_may_follow_the_batch() -> None:
    assert with_(learning_rate=0.1).peak_learning_rate == 0.1
    assert with_(base_learning_rate=0.1, batch_size=64).peak_learning_rate == 0.025


def test_adam_is_no_adamw() -> None:
    """Adam adds decay to the gradient, so it is scaled away; AdamW shrinks the weight by it."""
    ends = {}
    for kind in ("adam", "adamw"):
        weight = torch.nn.Parameter(torch.full((1, 1), 10.0))
        optimizer = make_optimizer({"weight": weight}, 0.01, 0.5, kind)
        weight.grad = torch.ones(1, 1)
        optimizer.step()
        ends[kind] = float(weight.detach())
    assert ends["adam"] == pytest.approx(9.99, abs=1e-5)
    assert ends["adamw"] == pytest.approx(9.99 - 0.01 * 0.5 * 10, abs=1e-5)


def _matrices() -> dict[str, torch.nn.Parameter]:
    shapes = {
        "encoder.0.mlp.weight": (64, 16),
        "decoder.blocks.0.mlp.weight": (16, 64),
        "decoder.guess.weight": (4, 16),
        "encoder.0.mlp.bias": (64,),
    }
    return {
        name: torch.nn.Parameter(torch.randn(shape, generator=generator(name)))
        for name, shape in shapes.items()
    }


def test_muon_takes_the_matrices_of_blocks_and_adamw_the_rest() -> None:
    """A step of Muon has about the same singular values in all directions, and AdamW's size."""
    weights, rate = _matrices(), 0.01
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    optimizer = make_optimizer(weights, 1.0, 0.0, "muon")
    set_learning_rate(optimizer, rate)
    for name, weight in weights.items():
        weight.grad = torch.randn(weight.shape, generator=generator("gradient", name))
        weight.grad[0] *= 100  # which AdamW scales away entry by entry
    optimizer.step()
    for name, weight in weights.items():
        change = (weight.detach() - before[name]) / rate
        if ".mlp.weight" not in name:
            torch.testing.assert_close(change.abs(), torch.ones_like(change), atol=1e-3, rtol=0)
            continue
        assert float(change.square().mean().sqrt()) == pytest.approx(0.2, rel=0.3)
        spread = torch.linalg.svdvals(change)
        assert float(spread.max() / spread.min()) < 3


def test_the_state_of_muon_is_saved_and_put_back() -> None:
    weights = _matrices()
    optimizer = make_optimizer(weights, 0.01, 0.05, "muon")

    def step(weights, optimizer, number) -> None:
        for name, weight in weights.items():
            weight.grad = torch.randn(weight.shape, generator=generator(number, name))
        optimizer.step()

    for number in range(3):
        step(weights, optimizer, number)
    saved = {k: v.clone() for k, v in optimizer_tensors(weights, optimizer).items()}
    assert sorted({name.split(".")[0] for name in saved}) == [
        "exp_avg",
        "exp_avg_sq",
        "momentum_buffer",
        "step",
    ]
    other = {name: torch.nn.Parameter(weight.detach().clone()) for name, weight in weights.items()}
    again = make_optimizer(other, 0.01, 0.05, "muon")
    restore_optimizer(other, again, saved)
    for pair in ((weights, optimizer), (other, again)):
        step(*pair, 3)
    assert all(torch.equal(other[name], weight) for name, weight in weights.items())

    adamw = make_optimizer(other, 0.01, 0.05, "adamw")  # as with --go-on-from
    restore_optimizer(other, adamw, saved)
    kept = {name.partition(".")[2] for name in optimizer_tensors(other, adamw)}
    assert kept == {"decoder.guess.weight", "encoder.0.mlp.bias"}
    step(other, adamw, 4)
