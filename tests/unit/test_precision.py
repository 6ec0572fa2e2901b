"""Training in 16 bits: the same losses within their accuracy, and no update lost."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from brainlm.errors import InputError
from brainlm.model.config import ModelConfig
from brainlm.model.mae import MaskedAutoencoder
from brainlm.model.mask import generator, random_mask
from brainlm.model.place import ParcelPlace, RawParcelPlace
from brainlm.train.precision import (
    MasterWeights,
    Weights,
    autocast,
    choose_precision,
    weights_of,
)

from .synthetic_cohort import NETWORK, parcel_table

CPU = torch.device("cpu")
CONFIG = ModelConfig.from_dict({**NETWORK, "decoder_layers": 1, "dropout": 0.0})


def _model() -> MaskedAutoencoder:
    model = MaskedAutoencoder(CONFIG, torch.tensor(parcel_table()[["x", "y", "z"]].to_numpy()))
    model.initialize(generator(1))
    return model


def _losses(precision: str, steps: int = 30) -> tuple[list[float], MaskedAutoencoder]:
    """Losses of a short training on one batch."""
    model = _model()
    weights = weights_of(model, choose_precision(precision, CPU), sharded=False)
    optimizer = torch.optim.AdamW(weights.named.values(), lr=0.001)
    time = torch.arange(40) / 40
    signal = torch.sin(time * torch.arange(1, 9)[None, :, None]).expand(4, 8, 40)
    available = torch.ones(4, 32, dtype=torch.bool)
    losses = []
    for step in range(steps):
        with autocast(choose_precision(precision, CPU), CPU):
            loss = model(signal, random_mask(available, 8, generator(step))).loss
        weights.forget_gradients()
        loss.backward()
        weights.take_gradients()
        optimizer.step()
        weights.give_back()
        losses.append(float(loss.detach()))
    return losses, model


@pytest.mark.parametrize("precision", ["bf16", "bf16-full"])
def test_half_the_bits_learn_as_well(precision) -> None:
    exact, _ = _losses("float32")
    half, model = _losses(precision)
    assert exact[-1] < 0.5 * exact[0]
    assert half != exact
    torch.testing.assert_close(torch.tensor(half), torch.tensor(exact), rtol=0.15, atol=0.01)
    held = {parameter.dtype for parameter in model.parameters() if parameter.ndim > 1}
    assert held == {torch.bfloat16 if precision == "bf16-full" else torch.float32}
    assert model.encoder_norm.weight.dtype == torch.float32
    assert {b.dtype for b in model.buffers()} == {b.dtype for b in _model().buffers()}


@pytest.mark.parametrize("kind", [ParcelPlace, RawParcelPlace])
@pytest.mark.parametrize("precision", ["bf16", "bf16-full"])
def test_places_keep_their_tenths_of_millimetres(kind, precision) -> None:
    """In bf16 100.0 and 100.2 mm are the same place."""
    torch.manual_seed(0)
    place = kind(torch.tensor([[100.0, -70.0, 40.0], [100.2, -70.0, 40.0]]), 1, 64)
    index = torch.tensor([[0, 1]])
    exact = place(index)[0]
    weights_of(place, precision, sharded=False)
    with autocast(precision, CPU):
        near, other = place(index)[0]
    assert (near - other).norm() > 0.5 * (exact[0] - exact[1]).norm() > 0


def test_small_updates_add_up_in_the_masters_alone() -> None:
    """A thousand steps of 1/1000 make 1; in bf16 each of them is rounded away."""
    model, plain = (nn.Linear(1, 1, bias=False) for _ in range(2))
    for layer in (model, plain):
        nn.init.ones_(layer.weight)
    plain.bfloat16()
    masters = MasterWeights(model)
    steps = [
        (masters.named["weight"], torch.optim.SGD(masters.named.values(), lr=1e-3)),
        (plain.weight, torch.optim.SGD(plain.parameters(), lr=1e-3)),
    ]
    for _ in range(1000):
        model.weight.grad = torch.ones_like(model.weight)
        masters.take_gradients()
        plain.weight.grad = torch.ones_like(plain.weight)
        for weight, optimizer in steps:
            optimizer.step()
            weight.grad = None
        masters.give_back()
    assert float(masters.named["weight"].detach()) == pytest.approx(0, abs=1e-4)
    assert float(model.weight.detach()) == pytest.approx(0, abs=1e-4)
    assert float(plain.weight.detach()) == 1


def test_gradients_of_many_passes_are_added_in_float32() -> None:
    model = nn.Linear(1, 1, bias=False)
    masters = MasterWeights(model)
    for gradient in [256.0] + [1.0] * 256:  # in bf16, 256 + 1 is 256
        model.weight.grad = torch.full_like(model.weight, gradient)
        masters.take_gradients()
        assert model.weight.grad is None
    assert float(masters.named["weight"].grad) == 512
    masters.forget_gradients()
    assert masters.named["weight"].grad is None


def test_only_bf16_full_without_shards_needs_masters() -> None:
    model = _model()
    before = copy.deepcopy(model.state_dict())
    assert type(weights_of(model, "bf16", sharded=False)) is Weights
    assert type(weights_of(model, "bf16-full", sharded=True)) is Weights
    assert weights_of(model, "float32", sharded=False).named["cls"] is model.cls
    masters = weights_of(model, "bf16-full", sharded=False)
    assert model.cls.dtype == torch.bfloat16
    for name, master in masters.named.items():
        torch.testing.assert_close(master.detach(), before[name], rtol=0, atol=0)


def test_auto_follows_the_device(monkeypatch) -> None:
    gpu = torch.device("cuda")
    assert choose_precision("auto", CPU) == "float32"
    assert choose_precision("bf16-full", CPU) == "bf16-full"
    for has, auto in ((True, "bf16"), (False, "float32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has, **_: has)
        assert choose_precision("auto", gpu) == auto
    with pytest.raises(InputError, match="this GPU has no bf16"):
        choose_precision("bf16", gpu)
    with pytest.raises(InputError, match="no precision 'fp16'"):
        choose_precision("fp16", CPU)
