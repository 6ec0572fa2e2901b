"""Attention between tokens becomes attention between parcels, whatever a token is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from brainlm.errors import InputError
from brainlm.model import BrainLM
from brainlm.model.attention_maps import belonging, entry_tokens
from brainlm.shards.dataset import covered_of

from .small_model import IMAGE, series, write_model

KINDS = {"parcels": {}, "image": IMAGE, "square": {**IMAGE, "padding": "square"}}


@pytest.fixture(scope="module", params=list(KINDS))
def model(request, tmp_path_factory) -> BrainLM:
    folder = tmp_path_factory.mktemp(request.param) / "model"
    return BrainLM.from_pretrained(write_model(folder, **KINDS[request.param]))


def _weights(model: BrainLM, raw: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
    """All weights (layers, heads, 1 + k, 1 + k), and the visible tokens' numbers."""
    assert model.scaler is not None
    signal = torch.from_numpy(model.scaler.transform(raw.T)).float()[None]
    visible = model.autoencoder.tokenizer.available(covered_of(signal)).nonzero()[:, 1]
    collected: list[torch.Tensor] = []
    with torch.no_grad():
        model.autoencoder.encode(signal, visible[None], collected)
    return torch.stack(collected)[:, 0].double(), visible.numpy()


def test_each_entry_is_in_the_token_that_is_cut_from_it(model: BrainLM) -> None:
    tokenizer = model.autoencoder.tokenizer
    signal = torch.arange(320.0).reshape(1, 8, 40)
    patches = tokenizer.cut(signal)[0] * getattr(tokenizer, "scale", 1.0)
    where = entry_tokens(tokenizer)
    for parcel, time in ((0, 0), (3, 17), (7, 39)):
        token = patches[where[parcel, time]]
        assert torch.isclose(token, signal[0, parcel, time], rtol=1e-6).any()


def test_cls_attention_is_shared_out_and_averaged(model: BrainLM) -> None:
    """Against a plain loop over tokens, rows and parcels."""
    raw = series()
    raw[:, 6] = np.nan
    weights, visible = _weights(model, raw)
    rows_of = {
        token: [p for p in range(8) if p != 6 and token in model.token_of[:, p]]
        for token in visible
    }
    expected = np.full((2, 2, 8), np.nan)
    for parcel in range(8):
        own = [k for k, token in enumerate(visible) if parcel in rows_of[token]]
        if own:
            shares = [weights[:, :, 0, 1 + k] / len(rows_of[visible[k]]) for k in own]
            expected[:, :, parcel] = torch.stack(shares).mean(dim=0)
    found = model.attention(raw, layer="all", head="all")
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.isnan(found[..., 6]).all() and np.isfinite(found[..., :6]).all()
    np.testing.assert_allclose(model.attention(raw), expected[-1].mean(axis=0), rtol=1e-4)
    chosen = model.attention(raw, layer=0, head=1)
    np.testing.assert_allclose(chosen, expected[0, 1], rtol=1e-4)
    layers = model.attention(raw, layer="all")
    np.testing.assert_allclose(layers, expected.mean(axis=1), rtol=1e-4)


def test_parcels_attend_to_parcels(model: BrainLM) -> None:
    raw = series()
    weights, visible = _weights(model, raw)
    parts = belonging(
        model.autoencoder.tokenizer, torch.ones(8, dtype=torch.bool), torch.from_numpy(visible)
    )
    torch.testing.assert_close(parts.asked.sum(dim=1), torch.ones(8))  # a mean
    found = model.attention(raw, "parcels", layer=0, head=0)
    assert found.shape == (8, 8)
    for parcel in (0, 5):
        own = [k for k, token in enumerate(visible) if token in model.token_of[:, parcel]]
        asked = weights[0, 0, 1:, 1:][own].mean(dim=0)
        np.testing.assert_allclose(found[parcel], asked @ parts.shares.double(), rtol=1e-4)


def test_no_attention_is_lost_but_that_to_cls_and_padding(model: BrainLM) -> None:
    """Times its number of tokens, what parcels get is all that CLS gave to tokens with data."""
    raw = series()
    weights, visible = _weights(model, raw)
    with_data = np.isin(visible, model.token_of)
    tokens = np.array([len(np.unique(model.token_of[:, p])) for p in range(8)])
    found = (model.attention(raw, layer=0, head=0) * tokens).sum()
    assert found == pytest.approx(float(weights[0, 0, 0, 1:][with_data].sum()), rel=1e-4)


def test_rollout_follows_all_layers(model: BrainLM) -> None:
    raw = series()
    weights, visible = _weights(model, raw)
    both = [(layer.mean(dim=0) + torch.eye(layer.shape[-1])) / 2 for layer in weights]
    parts = belonging(
        model.autoencoder.tokenizer, torch.ones(8, dtype=torch.bool), torch.from_numpy(visible)
    )
    expected = (both[1] @ both[0])[0, 1:] @ parts.shares.double()
    np.testing.assert_allclose(model.attention(raw, "rollout"), expected, rtol=1e-4)


def test_layers_and_heads_may_be_counted_by_numpy_and_rollout_has_none(model: BrainLM) -> None:
    raw = series()
    np.testing.assert_array_equal(
        model.attention(raw, layer=np.int64(0)), model.attention(raw, layer=0)
    )
    for options in ({"layer": 0}, {"head": "all"}):
        with pytest.raises(InputError, match="all layers and heads"):
            model.attention(raw, "rollout", **options)
