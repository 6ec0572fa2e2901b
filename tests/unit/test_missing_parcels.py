"""A parcel without data teaches nothing, is not asked for, and does not pass for a signal."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlm.errors import InputError
from brainlm.model.mae import MaskedAutoencoder
from brainlm.model.mask import TokenMask, generator, make_mask

from .small_networks import KINDS, places, small_config, small_network, window

NETWORKS = {kind: small_network(kind) for kind in KINDS}


def _with_gaps(kind: str, missing: set[int]) -> tuple[torch.Tensor, TokenMask]:
    """A window without these parcels in its first sample, and a mask."""
    model = NETWORKS[kind]
    signal = window(model.config)
    signal[0, sorted(missing)] = torch.nan
    covered = ~signal.isnan().any(dim=2)
    return signal, make_mask(model.tokenizer, covered, "random", 0.5, generator("mask"))


def _missing(parcels: int):
    return st.sets(st.integers(0, parcels - 1), min_size=1, max_size=parcels - 3)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KINDS), st.sampled_from(["mse", "mae"]), st.data())
def test_the_loss_is_over_hidden_entries_with_data_alone(kind, loss, data) -> None:
    model = NETWORKS[kind]
    missing = data.draw(_missing(model.config.parcels))
    signal, mask = _with_gaps(kind, missing)
    with torch.no_grad():
        result = model(signal, mask, loss)
    truth, predicted = (
        model.tokenizer.paste(part, mask.hidden) for part in (result.truth, result.predicted)
    )
    hidden = torch.zeros(2, model.tokenizer.tokens, dtype=torch.bool).scatter(1, mask.hidden, True)
    entries = hidden[..., None].float().expand(-1, -1, model.tokenizer.entries)
    everything = torch.arange(model.tokenizer.tokens).expand(2, -1)
    asked = model.tokenizer.paste(entries.contiguous(), everything) > 0
    assert torch.equal(~truth.isnan(), asked & ~signal.isnan())
    torch.testing.assert_close(truth[~truth.isnan()], signal[~truth.isnan()])
    scale = model.config.input_scale
    error = ((predicted - signal) / scale)[asked & ~signal.isnan()]
    expected = error.square().mean() if loss == "mse" else error.abs().mean()
    torch.testing.assert_close(result.loss, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_parcel_has_no_gradient_and_spoils_none(kind: str) -> None:
    signal, mask = _with_gaps(kind, {1, 4})
    signal.requires_grad_()
    model = small_network(kind)
    model(signal, mask).loss.backward()
    assert signal.grad is not None
    gone = signal.isnan()
    assert gone.any() and (signal.grad[gone] == 0).all()
    assert signal.grad.isfinite().all() and (signal.grad[~gone] != 0).any()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("kind", ["image", "crossed", "square"])
def test_what_stands_under_a_gap_changes_nothing(kind: str) -> None:
    """Cut, a gap is NaN, of whatever bits; only whether there is data counts."""
    model = NETWORKS[kind]
    signal, mask = _with_gaps(kind, {1, 4})
    other = signal.clone()
    bits = torch.tensor([0x7FC00001, 0x7FC12345], dtype=torch.int32).view(torch.float32)
    other[0, [1, 4]] = bits[:, None]
    assert torch.equal(model(signal, mask).predicted, model(other, mask).predicted)


def _one_square(kind: str) -> tuple[MaskedAutoencoder, torch.Tensor, torch.Tensor]:
    """A network, a window, and the number of a square in the midst of the image."""
    model = small_network(kind)
    return model, window(model.config, batch=1), torch.tensor([[model.tokenizer.row + 1]])


@pytest.mark.parametrize("kind", ["image", "square"])
def test_a_gap_in_a_square_is_no_zero(kind: str) -> None:
    model, signal, square = _one_square(kind)
    where = model.tokenizer.cut(torch.arange(21.0)[None, :, None].expand(1, 21, 30))
    parcel = int(where[0, square[0, 0]].nan_to_num(0).max() * model.config.input_scale + 0.5)
    outputs = []
    for filling in (torch.nan, 0.0, -5.6):
        changed = signal.clone()
        changed[0, parcel] = filling
        with torch.no_grad():
            outputs.append(model.encode(changed, square))
    gap, zero, mark = outputs
    assert not torch.allclose(gap, zero, atol=1e-3)
    torch.testing.assert_close(gap, mark, rtol=1e-4, atol=1e-5)  # where learning begins
    if kind == "image":
        torch.nn.init.normal_(model.tokenizer.no_data, generator=generator("mark"))
        changed[0, parcel] = torch.nan
        with torch.no_grad():
            assert not torch.allclose(model.encode(changed, square), mark, atol=1e-3)


def test_the_mark_of_a_gap_is_learned() -> None:
    signal, mask = _with_gaps("image", {1, 4})
    model = small_network("image")
    model(signal, mask).loss.backward()
    assert model.tokenizer.no_data.grad.abs().sum() > 0
    names = dict(MaskedAutoencoder(small_config("square"), places(21)).named_parameters())
    assert "tokenizer.no_data" not in names  # the released ones' is fixed


@pytest.mark.parametrize("kind", KINDS)
def test_the_future_is_guessed_without_the_missing(kind: str) -> None:
    """By recordings with the same gaps, with others, and with none."""
    model = NETWORKS[kind]
    steps = 13  # ends within a token
    signal = window(model.config, batch=3)
    gaps = signal.clone()
    gaps[:2, [1, 4]] = torch.nan
    with torch.no_grad():
        mixed = model.forecast(gaps, steps)
        both = model.forecast(gaps[:2], steps)
        whole = model.forecast(signal, steps)
        blind = []
        for filling in (1e30, torch.nan):
            later = gaps.clone()
            later[:, :, -steps:] = filling
            blind.append(model.forecast(later, steps))
    assert mixed.shape == (3, model.config.parcels, steps) and mixed.isfinite().all()
    torch.testing.assert_close(mixed[:2], both, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mixed[2:], whole[2:], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(both, whole[:2], atol=1e-3)
    assert torch.equal(blind[0], mixed) and torch.equal(blind[1], mixed)
    for none in (0, model.config.timepoints, -3):
        with pytest.raises(InputError, match="timepoints must be from 1 to"):
            model.forecast(signal, none)


@pytest.mark.parametrize("kind", ["image", "square"])
def test_a_gap_stays_a_gap_where_the_future_is_blanked(kind: str) -> None:
    tokenizer = NETWORKS[kind].tokenizer
    signal, _ = _with_gaps(kind, {1, 4})
    everything = torch.arange(tokenizer.tokens).expand(2, -1)
    blanked = tokenizer.paste(tokenizer.blank(tokenizer.cut(signal), 13), everything)
    expected = signal.clone()
    expected[:, :, -13:] = 0.0
    expected[0, [1, 4]] = torch.nan
    torch.testing.assert_close(blanked, expected, equal_nan=True)
