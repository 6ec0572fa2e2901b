"""Heads: what they read of the tokens, how many numbers they give, and what these mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from brainlm.errors import InputError
from brainlm.model import BrainLM
from brainlm.model.heads import LabelModel
from brainlm.model.label_unit import HeadCard
from brainlm.model.mae import MaskedAutoencoder
from brainlm.model.mask import generator

from .small_model import AGE, series, write_model

CARD = HeadCard.from_dict(AGE)
VISIBLE = torch.arange(6).expand(5, -1)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> MaskedAutoencoder:
    return BrainLM.from_pretrained(
        write_model(tmp_path_factory.mktemp("heads") / "model")
    ).autoencoder


def _head(encoder: MaskedAutoencoder, **options) -> LabelModel:
    model = LabelModel(encoder, 0.1, **options).eval()
    model.initialize_head(generator(0))
    return model


@pytest.mark.parametrize("layers", ["mlp", "linear"])
@pytest.mark.parametrize("pool", ["mean", "cls", "attention"])
def test_every_head_learns_classes_from_a_frozen_encoder(
    encoder: MaskedAutoencoder, layers: str, pool: str
) -> None:
    model = _head(encoder, layers=layers, pool=pool, outputs=3)
    signal = torch.randn(5, 8, 40, generator=generator(1))
    wanted = torch.tensor([0, 1, 2, 0, 1])
    trained = [*model.head.parameters(), *(model.pool.parameters() if model.pool else [])]
    optimizer = torch.optim.Adam(trained, lr=0.01)
    latents = encoder.encode(signal, VISIBLE).detach()
    first = cross_entropy(model.read(latents), wanted)
    assert first.item() == pytest.approx(np.log(3), rel=1e-5)  # it starts by knowing nothing
    for _ in range(120):
        optimizer.zero_grad()
        loss = cross_entropy(model.read(latents), wanted)
        loss.backward()
        optimizer.step()
    assert model(signal, VISIBLE).shape == (5, 3) and loss.item() < 0.3
    if model.pool is not None:
        assert model.pool.query.abs().max() > 0


def test_attention_pooling_starts_as_the_mean_and_can_choose(encoder: MaskedAutoencoder) -> None:
    latents = torch.randn(2, 7, 32, generator=generator(2))
    pool = LabelModel(encoder, 0.0, pool="attention").pool
    assert pool is not None
    torch.testing.assert_close(pool(latents), latents.mean(dim=1))
    with torch.no_grad():
        pool.query.copy_(1000 * latents[0, 3])
    torch.testing.assert_close(pool(latents[:1])[0], latents[0, 3])


def test_dropout_is_for_training_alone(encoder: MaskedAutoencoder) -> None:
    signal = torch.randn(5, 8, 40, generator=generator(1))
    model = _head(encoder, layers="linear")
    with torch.no_grad():
        model.head[0].weight.normal_(generator=generator(3))
        assert torch.equal(model(signal, VISIBLE), model(signal, VISIBLE))
        model.train()
        assert not torch.equal(model(signal, VISIBLE), model(signal, VISIBLE))


@given(
    label=st.floats(0.5, 1e4),
    mean=st.floats(-5, 5),
    sd=st.floats(0.1, 10),
    log=st.sampled_from(["none", "log", "log1p"]),
)
def test_outputs_become_labels(label: float, mean: float, sd: float, log: str) -> None:
    into = {"none": np.asarray, "log": np.log, "log1p": np.log1p}[log]
    output = (into(label) - mean) / sd
    found = replace(CARD, mean=mean, sd=sd, log=log).to_label(np.array(output))
    assert found == pytest.approx(label, rel=1e-6)


def test_classes_become_probabilities(tmp_path: Path) -> None:
    binary = replace(CARD, kind="binary", mean=0.0, sd=1.0)
    assert binary.to_label(np.array(0.0)) == 0.5
    assert replace(CARD, sigmoid=True).to_label(np.array(0.0)) == 55.0
    card = replace(CARD, kind="classes", outputs=3, pool="attention", layers="linear")
    found = card.to_label(np.log(np.array([1.0, 2.0, 5.0])) + 800)
    np.testing.assert_allclose(found, [0.125, 0.25, 0.625])
    model = BrainLM.from_pretrained(write_model(tmp_path / "model", card.to_dict()))
    found = model.predict(series())
    assert found.shape == (3,) and found.sum() == pytest.approx(1, rel=1e-5)
    assert model.head == card


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kind": "ordinal"}, "head.kind must be one of"),
        ({"pool": "max"}, "head.pool must be one of"),
        ({"sd": 0.0}, "head.sd must be above 0"),
        ({"dropout": 1.0}, "head.dropout"),
        ({"mask_ratio": 1.0}, "head.mask_ratio"),
        ({"outputs": 2}, "cannot have 2 outputs"),
        ({"kind": "classes"}, "cannot have 1 outputs"),
        ({"unit": "years", "layers": "mlp"}, "head.unit"),
        ({"colour": "red"}, "unknown: colour"),
    ],
)
def test_wrong_settings_are_told(changes: dict, told: str) -> None:
    with pytest.raises(InputError, match=told):
        HeadCard.from_dict({**AGE, **changes})
    short = {key: value for key, value in AGE.items() if key != "sd"}
    with pytest.raises(InputError, match="missing: sd"):
        HeadCard.from_dict(short)
