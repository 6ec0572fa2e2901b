"""Parcels as an image: what goes in comes out, and padding is neither seen nor asked for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlm.model.config import ModelConfig
from brainlm.model.mae import MaskedAutoencoder
from brainlm.model.mask import generator, random_mask
from brainlm.model.tokenizer import ImageTokenizer, fewest_tokens

SIZES = {
    "hidden": 32,
    "layers": 1,
    "heads": 2,
    "mlp": 32,
    "decoder_hidden": 32,
    "decoder_layers": 1,
    "decoder_heads": 2,
    "decoder_mlp": 32,
    "dropout": 0.0,
}


def _config(parcels: int = 424, timepoints: int = 200, patch: int = 16, **more) -> ModelConfig:
    return ModelConfig(parcels, timepoints, patch, **SIZES, tokenizer="image", **more)


def _xyz(parcels: int) -> torch.Tensor:
    """Places with many equal y."""
    return torch.randint(-70, 70, (parcels, 3), generator=generator(parcels)).float()


@pytest.mark.parametrize(
    ("patch", "native", "square"), [(16, 27 * 13, 27**2), (14, 31 * 15, 31**2)]
)
def test_the_papers_images_have_the_papers_tokens(patch: int, native: int, square: int) -> None:
    xyz = _xyz(424)
    assert ImageTokenizer(_config(patch=patch), xyz).tokens == native
    assert ImageTokenizer(_config(patch=patch, padding="square"), xyz).tokens == square


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 50),
    st.integers(1, 60),
    st.integers(2, 9),
    st.sampled_from(["none", "square"]),
    st.data(),
)
def test_what_is_cut_and_pasted_is_the_signal(parcels, timepoints, patch, padding, data) -> None:
    config = _config(parcels, timepoints, patch, padding=padding, input_scale=4.0)
    tokenizer = ImageTokenizer(config, _xyz(parcels))
    signal = torch.randn(2, parcels, timepoints, generator=generator(1))
    missing = data.draw(st.sets(st.integers(0, parcels - 1), max_size=parcels - 1))
    signal[0, list(missing)] = torch.nan
    patches = tokenizer.cut(signal)
    assert patches.shape == (2, tokenizer.tokens, patch * patch)
    everything = torch.arange(tokenizer.tokens).expand(2, -1)
    back = tokenizer.paste(patches, everything)
    torch.testing.assert_close(back, signal, equal_nan=True)
    available = tokenizer.available(~signal.isnan().any(dim=2))
    with_data = ~patches.isnan().all(dim=2)
    if padding == "none":
        assert torch.equal(available, with_data)
        assert available[1].all()
    else:
        assert available.all()
    counted = fewest_tokens(config, parcels - len(missing))
    assert 0 < counted <= int(available[0].sum())


@pytest.mark.parametrize("patch", [14, 16])
def test_the_fewest_tokens_hold_wherever_parcels_are_missing(patch: int) -> None:
    """The outermost squares hold fewer parcels than the others: fewer missing ones empty them."""
    config, xyz = _config(patch=patch), _xyz(424)
    tokenizer = ImageTokenizer(config, xyz)
    for missing in (1, patch - 5, patch - 4, patch, 3 * patch - 4, 423):
        covered = torch.ones(425 - missing, 424, dtype=torch.bool)
        for start in range(425 - missing):
            covered[start, tokenizer.order[start : start + missing]] = False
        found = tokenizer.available(covered).sum(dim=1)
        assert 0 < fewest_tokens(config, 424 - missing) <= int(found.min())


def test_without_padding_the_same_tokens_are_there_but_the_empty_ones() -> None:
    xyz = _xyz(424)
    native = MaskedAutoencoder(_config(), xyz)
    native.initialize(generator(0))
    square = MaskedAutoencoder(_config(padding="square"), xyz)
    square.load_state_dict(native.state_dict())
    signal = torch.randn(1, 424, 200, generator=generator(1))
    cut = square.tokenizer.cut(signal)
    kept = (~cut.isnan().all(dim=2))[0].nonzero()[:, 0]
    torch.testing.assert_close(cut[:, kept], native.tokenizer.cut(signal), equal_nan=True)
    index = torch.arange(len(kept))[None]
    with torch.no_grad():
        torch.testing.assert_close(
            native.encode(signal, index), square.encode(signal, kept[None]), rtol=1e-5, atol=1e-5
        )
        torch.testing.assert_close(native.decoder.place(index), square.decoder.place(kept[None]))


def test_three_equal_channels_fold_into_one() -> None:
    """A convolution over a repeated image, and the mean of three outputs, as published."""
    image = torch.randn(1, 1, 16, 16, generator=generator(1), dtype=torch.float64)
    weight = torch.randn(8, 3, 16, 16, generator=generator(2), dtype=torch.float64)
    theirs = torch.nn.functional.conv2d(image.repeat(1, 3, 1, 1), weight)
    ours = image.flatten(1) @ weight.sum(dim=1).flatten(1).T
    torch.testing.assert_close(theirs.flatten(1), ours)
    out = torch.randn(256 * 3, 8, generator=generator(3), dtype=torch.float64)
    latents = torch.randn(5, 8, generator=generator(4), dtype=torch.float64)
    mean = (latents @ out.T).unflatten(1, (256, 3)).mean(dim=2)
    torch.testing.assert_close(mean, latents @ out.unflatten(0, (256, 3)).mean(dim=1).T)


def test_a_missing_parcel_is_no_target_and_leaks_nothing() -> None:
    xyz = _xyz(40)
    model = MaskedAutoencoder(_config(40, 48, 8, decoder="full"), xyz).eval()
    model.initialize(generator(0))
    torch.nn.init.normal_(model.decoder.last_layer.weight, generator=generator(1))
    signal = torch.randn(1, 40, 48, generator=generator(2))
    signal[0, [3, 17]] = torch.nan
    available = model.tokenizer.available(~signal.isnan().any(dim=2))
    mask = random_mask(available, 12, generator(3))
    result = model(signal, mask)
    truth = model.tokenizer.paste(result.truth, mask.hidden)
    assert truth[0, [3, 17]].isnan().all() and not truth.isnan().all()
    predicted = model.tokenizer.paste(result.predicted, mask.hidden)
    expected = (predicted - truth).square().nanmean()
    assert float(result.loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    result.loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
