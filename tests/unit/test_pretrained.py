"""The class that people use: raw series in; vectors, guesses, maps and labels out."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from brainlm.errors import DataError, InputError
from brainlm.model import BrainLM, fit_scaler
from brainlm.model.checkpoint import load_model
from brainlm.model.inference import covering_starts, even_starts
from brainlm.shards.dataset import covered_of

from .small_model import AGE, IMAGE, series, write_model

KINDS = {"parcels": {}, "image": IMAGE, "square": {**IMAGE, "padding": "square"}}


@pytest.fixture(scope="module", params=list(KINDS))
def model(request, tmp_path_factory) -> BrainLM:
    """With a head, of each way to make tokens."""
    folder = tmp_path_factory.mktemp(request.param) / "model"
    return BrainLM.from_pretrained(write_model(folder, AGE, **KINDS[request.param]))


@pytest.fixture
def plain(tmp_path: Path) -> BrainLM:
    return BrainLM.from_pretrained(write_model(tmp_path / "model"))


def _scaled(model: BrainLM, raw: np.ndarray) -> torch.Tensor:
    """One window as the network takes it, (1, parcels, time)."""
    assert model.scaler is not None
    return torch.from_numpy(model.scaler.transform(raw.T)).float()[None]


def _whole(model: BrainLM, signal: torch.Tensor) -> torch.Tensor:
    available = model.autoencoder.tokenizer.available(covered_of(signal))
    return available.nonzero()[:, 1][None]


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, brainlm.model; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        __import__("brainlm.model", fromlist=["x"]).Nothing  # noqa: B018


def test_an_embedding_is_what_the_encoder_gives(model: BrainLM) -> None:
    raw = series()
    raw[:, 2] = np.nan
    signal = _scaled(model, raw)
    with torch.no_grad():
        latents = model.autoencoder.encode(signal, _whole(model, signal))[0].numpy()
    np.testing.assert_allclose(model.embed(raw, "cls", tr=2.0), latents[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.embed(raw, "mean"), latents.mean(0), rtol=1e-5, atol=1e-6)
    scaled = model.embed(signal[0].T, "cls", scaled=True)
    np.testing.assert_allclose(scaled, latents[0], rtol=1e-5, atol=1e-6)
    whole = model.latents(raw)
    assert whole.starts == (0,)
    shown = ~np.isnan(whole.tokens[0]).any(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(shown), _whole(model, signal)[0].numpy())
    np.testing.assert_allclose(whole.tokens[0][shown], latents[1:], rtol=1e-5, atol=1e-6)


def test_a_parcels_vector_is_the_mean_of_its_tokens(model: BrainLM) -> None:
    raw = series()
    raw[:, 2] = np.nan
    found, tokens = model.embed(raw, "parcels"), model.latents(raw).tokens[0]
    assert found.shape == (8, model.config.hidden)
    for parcel in range(8):
        own = np.unique(model.token_of[:, parcel])
        expected = np.nan if parcel == 2 else tokens[own].mean(axis=0)
        np.testing.assert_allclose(found[parcel], np.broadcast_to(expected, found[0].shape), 1e-4)


def test_long_recordings_are_averaged_over_even_windows(model: BrainLM) -> None:
    raw = series(90)
    assert model.scaler is not None
    scaled = model.scaler.transform(raw.T).T
    parts = [model.embed(scaled[start : start + 40], scaled=True) for start in (0, 50)]
    np.testing.assert_allclose(model.embed(raw), np.mean(parts, axis=0), rtol=1e-4, atol=1e-6)
    assert model.latents(raw).cls.shape == (2, model.config.hidden)
    assert even_starts(90, 40) == [0, 50]


def test_looks_at_a_part_show_all_tokens_once_and_are_repeatable(model: BrainLM) -> None:
    raw = series()
    first, again = (model.latents(raw, mask_ratio=0.75, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.tokens, again.tokens)
    assert np.isnan(first.tokens).mean() < 0.3  # what the sets do not fill is left over
    other = model.latents(raw, mask_ratio=0.75, seed=4)
    assert not np.allclose(np.nan_to_num(first.tokens), np.nan_to_num(other.tokens))
    assert not np.allclose(np.nan_to_num(first.tokens), np.nan_to_num(model.latents(raw).tokens))


def test_a_parcel_that_some_looks_do_not_show_is_known_by_the_others(model: BrainLM) -> None:
    raw = series()
    found = model.embed(raw, "parcels", mask_ratio=0.9)
    assert np.isfinite(found).all()
    assert np.isfinite(model.attention(raw, mask_ratio=0.9)).all()


def test_what_is_hidden_when_is_the_seeds(model: BrainLM) -> None:
    raw = series()
    first, again, other = (model.reconstruct(raw, seed=seed).series for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other, rtol=1e-6)


def test_tokens_may_be_chosen(model: BrainLM) -> None:
    raw = series()
    signal, visible = _scaled(model, raw), [4, 0, 3]
    with torch.no_grad():
        latents = model.autoencoder.encode(signal, torch.tensor([visible]))[0]
    np.testing.assert_allclose(
        model.embed(raw, "cls", visible=visible), latents[0], rtol=1e-5, atol=1e-6
    )
    for wrong in ([0, 0], [], [-1], [10_000], [0.5, 1.7], [True, False]):
        with pytest.raises(InputError, match="visible must be"):
            model.embed(raw, visible=wrong)


def test_tokens_without_data_cannot_be_chosen(plain: BrainLM) -> None:
    raw = series()
    raw[:, 0] = np.nan
    with pytest.raises(InputError, match=r"without data \(first: 1\)"):
        plain.embed(raw, visible=[9, 1])


def test_a_missing_parcel_leaves_no_trace(model: BrainLM) -> None:
    """The very numbers of the scaler for that parcel do not matter either."""
    raw = series()
    raw[:, 4] = np.nan
    found = model.reconstruct(raw)
    assert np.isnan(found.series[:, 4]).all() and not found.hidden[:, 4].any()
    assert np.isnan(model.forecast(raw, 10)[:, 4]).all()
    assert np.isnan(model.attention(raw)[4]) and np.isfinite(model.embed(raw)).all()


@pytest.mark.parametrize("volumes", [40, 41, 79, 130])
def test_a_reconstruction_covers_every_entry_in_its_unit(model: BrainLM, volumes: int) -> None:
    raw = series(volumes)
    found = model.reconstruct(raw)
    assert found.hidden.all() and found.series.shape == raw.shape
    # An untrained network guesses about 0 in scaled units: the mean of each parcel, and its spread.
    assert np.abs(found.series.mean(axis=0) - raw.mean(axis=0)).max() < 30
    starts = covering_starts(volumes, 40)
    covered = np.concatenate([np.arange(start, start + 40) for start in starts])
    assert set(covered) == set(range(volumes)) and len(starts) == -(-volumes // 40)


def test_a_guess_does_not_see_what_it_guesses(model: BrainLM) -> None:
    raw = series()
    mask = np.zeros(raw.shape, bool)
    mask[20:24, 5] = True
    found = model.reconstruct(raw, mask)
    assert found.hidden[mask].all() and not found.hidden.all()
    np.testing.assert_array_equal(found.series[~found.hidden], raw[~found.hidden])
    np.testing.assert_array_equal(  # hidden is whole tokens, and nothing else
        found.hidden, np.isin(model.token_of, np.unique(model.token_of[mask]))
    )
    other = raw.copy()
    inside = np.flatnonzero(found.hidden[:, 5])
    other[inside, 5] = raw[inside[::-1], 5]  # the same mean, other values
    again = model.reconstruct(other, mask)
    np.testing.assert_allclose(again.series[found.hidden], found.series[found.hidden], rtol=1e-6)


def test_a_guess_is_that_of_the_network(plain: BrainLM) -> None:
    raw = series()
    mask = np.zeros(raw.shape, bool)
    mask[10:20, 2] = True  # token 9 of 32
    signal = _scaled(plain, raw)
    hidden = torch.tensor([[9]])
    visible = torch.tensor([[token for token in range(32) if token != 9]])
    with torch.no_grad():
        network = plain.autoencoder
        guess = network.decode(network.encode(signal, visible), visible, hidden)[0, 0].numpy()
    assert plain.scaler is not None
    expected = guess * plain.scaler.iqr[2] + plain.scaler.median[2] + raw[:, 2].mean()
    np.testing.assert_allclose(plain.reconstruct(raw, mask).series[10:20, 2], expected, rtol=1e-5)


def test_masks_that_do_not_fit_are_refused(plain: BrainLM) -> None:
    raw = series()
    for mask in (np.zeros((40, 7), bool), np.zeros((40, 8))):
        with pytest.raises(InputError, match="mask must be bool"):
            plain.reconstruct(raw, mask)
    with pytest.raises(InputError, match="hides nothing"):
        plain.reconstruct(raw, np.zeros(raw.shape, bool))
    with pytest.raises(InputError, match="Nothing is left"):
        plain.reconstruct(raw, np.ones(raw.shape, bool))
    for ratio in (0.0, 1.0):
        with pytest.raises(InputError, match="above 0 and below 1"):
            plain.reconstruct(raw, mask_ratio=ratio)


@pytest.mark.parametrize("timepoints", [8, 10, 13])
def test_a_forecast_is_that_of_the_network_and_of_the_past_alone(
    model: BrainLM, timepoints: int
) -> None:
    past = series(60)
    scaled = _scaled(model, past)[:, :, 60 - (40 - timepoints) :]
    window = torch.cat([scaled, torch.full((1, 8, timepoints), 9.0)], dim=2)
    with torch.no_grad():
        expected = model.autoencoder.forecast(window, timepoints)[0].numpy()
    assert model.scaler is not None
    level = past.mean(axis=0)
    found = model.forecast(past, timepoints)
    np.testing.assert_allclose(found, model.scaler.inverse(expected).T + level, rtol=1e-5)
    assert found.shape == (timepoints, 8)


def test_what_cannot_be_forecast_is_told(plain: BrainLM) -> None:
    with pytest.raises(InputError, match="between 1 and 39, not 40"):
        plain.forecast(series(), 40)
    with pytest.raises(DataError, match="29 time points, this needs at least 30"):
        plain.forecast(series(29), 10)
    assert plain.forecast(series(30), 10).shape == (10, 8)


def test_a_label_comes_in_its_own_unit(model: BrainLM) -> None:
    raw = series()
    signal = _scaled(model, raw)
    with torch.no_grad():
        output = float(model.network(signal, _whole(model, signal)))
    assert model.predict(raw, mask_ratio=0) == pytest.approx(50 + 10 * output, rel=1e-5)
    looks = model.predict(raw)  # by default as sparse as in training
    assert looks != pytest.approx(50 + 10 * output, rel=1e-7) and looks == model.predict(raw)


def test_without_a_head_there_is_no_label(plain: BrainLM) -> None:
    assert plain.head is None
    with pytest.raises(InputError, match="has no head"):
        plain.predict(series())


def test_options_with_few_values_are_checked(plain: BrainLM) -> None:
    with pytest.raises(InputError, match="pool must be one of mean, cls, parcels"):
        plain.embed(series(), "max")
    with pytest.raises(InputError, match="of must be one of cls"):
        plain.attention(series(), "tokens")
    with pytest.raises(InputError, match="layer must be mean, all or a number below 2"):
        plain.attention(series(), layer=2)
    with pytest.raises(InputError, match="mask_ratio must be at least 0 and below 1"):
        plain.embed(series(), mask_ratio=1)
    with pytest.raises(TypeError, match="unexpected keyword"):
        plain.embed(series(), repetition_time=2)  # type: ignore[call-arg]


def test_a_model_is_saved_as_it_was_read(model: BrainLM, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "copy")
    again = BrainLM.from_pretrained(tmp_path, subfolder="copy")
    np.testing.assert_array_equal(again.embed(series()), model.embed(series()))
    assert again.predict(series()) == model.predict(series()) and again.tr == 2.0
    again.save_pretrained(tmp_path / "second")
    for path in sorted((tmp_path / "copy").iterdir()):
        assert (tmp_path / "second" / path.name).read_bytes() == path.read_bytes()


def test_another_scaler_must_be_of_the_same_parcels(plain: BrainLM, tmp_path: Path) -> None:
    small = [values / 100 for values in (series(80, 1), series(80, 2))]
    with pytest.raises(DataError, match="another unit"):
        plain.embed(small[0])
    names = list(plain.parcels["name"])
    own = plain.with_scaler(fit_scaler(small, names))
    forecast = own.forecast(small[0], 10)
    assert np.abs(forecast - small[0].mean(axis=0)).max() < 1
    plain.save_pretrained(tmp_path / "copy")
    assert plain.with_scaler(tmp_path / "copy").tr == 2.0
    with pytest.raises(InputError, match=r"other parcels \(7\)"):
        plain.with_scaler(fit_scaler([values[:, :7] for values in small], names[:7]))
    other = fit_scaler(small, names)
    other.about["atlas_sha256"] = "0" * 64
    with pytest.raises(InputError, match="fitted on other parcels"):
        plain.with_scaler(other)


def test_another_scaler_must_scale_as_the_models_own(plain: BrainLM) -> None:
    """The network knows one scale and one TR; a scaler cannot teach it another."""
    raw, names = [series(80, 1), series(80, 2)], list(plain.parcels["name"])
    assert plain.with_scaler(fit_scaler(raw, names)).tr == 2.0
    with pytest.raises(InputError, match=r"TR of 0\.8 s, the model was trained at 2 s"):
        plain.with_scaler(fit_scaler(raw, names, tr=0.8))
    other = fit_scaler(raw, names, tr=2.0)
    for changes in ({"method": "recording-zscore"}, {"mean_removed": False}):
        with pytest.raises(InputError, match="train data were scaled by robust"):
            plain.with_scaler(replace(other, **changes))


def test_a_device_that_is_not_here_is_told(plain: BrainLM) -> None:
    for device in ("gpu", "cuda:99"):
        with pytest.raises(InputError, match=f"no device '{device}'"):
            plain.to(device)


def test_where_released_weights_went_stays_known_of_older_folders(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")  # its config.json tells of none
    (folder / "model.json").write_text(json.dumps({"Released": {"source": "vandijklab/brainlm"}}))
    with pytest.raises(InputError, match="must not be passed on"):
        BrainLM.from_pretrained(folder).push_to_hub("somebody/own")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": [1]}, "no usable model"),
        ({"sha256": None}, "no usable sha256"),
        ({"sha256": {}}, r"hash of normalization\.safetensors, parcels\.tsv"),
        ({"mask_ratio": "0.75"}, "no usable mask_ratio"),
        ({"head": ["age"]}, "no usable head"),
        ({"head": {**AGE, "sd": "10"}}, r"head\.sd must be of type float"),
        ({"head": {**AGE, "outputs": True}}, r"head\.outputs must be of type int"),
    ],
)
def test_settings_of_another_type_are_told(tmp_path: Path, changes: dict, told: str) -> None:
    path = write_model(tmp_path / "model") / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(DataError, match=told) as error:
        load_model(path.parent)
    assert error.value.file == str(path)


def test_what_is_no_config_is_told(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model") / "config.json"
    for content in (b"[1]", b"\xff\xfe", b"{"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"config\.json cannot be read"):
            load_model(path.parent)


def test_padding_alone_is_nothing_to_guess_from(tmp_path: Path) -> None:
    square = BrainLM.from_pretrained(write_model(tmp_path / "square", **KINDS["square"]))
    with pytest.raises(InputError, match="Nothing is left"):
        square.reconstruct(series(), np.ones((40, 8), bool))


def test_folders_that_do_not_hold_together_are_refused(tmp_path: Path) -> None:
    good = write_model(tmp_path / "model")

    def broken(**changes) -> Path:
        folder = tmp_path / "broken"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(good, folder)
        content = json.loads((folder / "config.json").read_text())
        for key, value in changes.items():
            content["model"].update(value) if key == "model" else content.update({key: value})
        (folder / "config.json").write_text(json.dumps(content))
        return folder

    with pytest.raises(DataError, match="unknown: depth") as told:
        BrainLM.from_pretrained(broken(model={"depth": 3}))
    assert "config.json" in str(told.value)
    with pytest.raises(DataError, match="unknown: unit_of_age"):
        BrainLM.from_pretrained(broken(head={**AGE, "unit_of_age": "years"}))
    with pytest.raises(DataError, match=r"weights do not fit config\.json"):
        BrainLM.from_pretrained(broken(model={"layers": 1}))
    folder = broken()
    table = (folder / "parcels.tsv").read_text().splitlines()
    (folder / "parcels.tsv").write_text("\n".join([table[0], *table[:0:-1]]) + "\n")
    with pytest.raises(DataError, match=r"parcels\.tsv is missing or is not the one"):
        BrainLM.from_pretrained(folder)
    weights = load_file(good / "model.safetensors")
    folder = broken()
    save_file({**weights, "extra": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(DataError):
        BrainLM.from_pretrained(folder)
    content = json.loads((good / "config.json").read_text())
    del content["mask_ratio"]
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"config\.json lacks mask_ratio"):
        load_model(folder)
    with pytest.raises(InputError, match="has no revision, so v2"):
        BrainLM.from_pretrained(good, revision="v2")
    with pytest.raises(InputError, match="no such folder"):
        BrainLM.from_pretrained(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"no config\.json") as told:
        BrainLM.from_pretrained(tmp_path)
    assert "choose a subfolder: broken, model" in str(told.value)
