"""The encoder in the public benchmark: right units, right scale, right TR, nothing made up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlm.errors import DataError, InputError
from brainlm.model.available import shortest, tokens_with_data
from brainlm.model.benchmark import SeriesEncoder, SeriesTransform
from brainlm.model.checkpoint import LoadedModel, load_model
from brainlm.resources import share_dir
from brainlm.shards.timing import resample

from .small_model import IMAGE, write_model

ROOT = Path(__file__).resolve().parents[2]
TABLE = share_dir() / "atlases" / "A424" / "parcels.tsv"
BRAINMARKS = ROOT / ".venv-brainmarks"
SQUARE = {**IMAGE, "padding": "square"}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(write_model(tmp_path_factory.mktemp("benchmark") / "model"))


@pytest.fixture(scope="module", params=[{}, IMAGE, SQUARE], ids=["parcels", "image", "square"])
def any_model(request, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(write_model(tmp_path_factory.mktemp("any") / "model", **request.param))


def _raw(volumes: int, seed: int = 0) -> np.ndarray:
    """(time, parcels), each parcel in a unit and around a mean of its own."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((volumes, 8)) * np.arange(2, 10) + np.arange(100, 180, 10)


def _sample(raw: np.ndarray, tr: float = 2.0) -> dict:
    """As Brainmarks hands it over."""
    mean, sd = raw.mean(axis=0, keepdims=True), raw.std(axis=0, keepdims=True)
    bold = (raw - mean) / np.where(sd > 0, sd, 1)
    parts = {"bold": bold, "mean": mean, "std": sd}
    return {name: torch.from_numpy(one).float() for name, one in parts.items()} | {
        "tr": torch.tensor(tr),
        "target": 1,
    }


def _transform(model: LoadedModel, **options) -> SeriesTransform:
    return SeriesTransform(
        model.autoencoder, model.scaler, **{"tr": None, "choice": "model"} | options
    )


def test_the_signal_is_restored_and_scaled_as_in_training(loaded: LoadedModel) -> None:
    raw = _raw(40)
    sample = _transform(loaded)(_sample(raw))
    assert set(sample) == {"signal", "tr", "target"}
    np.testing.assert_allclose(sample["signal"][0], loaded.scaler.transform(raw.T), atol=1e-4)


def test_the_scaler_of_the_train_split(loaded: LoadedModel) -> None:
    train = [_raw(50, seed) + 1000 * seed for seed in range(4)]
    transform = _transform(loaded, choice="train")
    with pytest.raises(InputError, match="not fitted"):
        transform(_sample(train[0]))
    transform.fit([_sample(one) for one in train])
    centred = np.concatenate([one - one.mean(axis=0) for one in train])
    low, median, high = np.percentile(centred, [25, 50, 75], axis=0)
    wanted = (_raw(40, 9) - _raw(40, 9).mean(axis=0) - median) / (high - low)
    np.testing.assert_allclose(transform(_sample(_raw(40, 9)))["signal"][0].T, wanted, atol=1e-3)
    untouched = _transform(loaded)
    untouched.fit([_sample(one) for one in train])
    assert untouched.scaler is loaded.scaler


def test_what_cannot_be_scaled_is_told(loaded: LoadedModel) -> None:
    with pytest.raises(InputError, match="no scaler of its own"):
        SeriesTransform(loaded.autoencoder, None, tr=None, choice="model")
    with pytest.raises(InputError, match="train or model"):
        _transform(loaded, choice="both")
    with pytest.raises(DataError, match="no recording"):
        _transform(loaded, choice="train").fit([])


def test_the_models_way_of_scaling_is_kept(loaded: LoadedModel) -> None:
    """A model of z-scored series is given z-scored ones, whatever the unit."""
    own = replace(loaded.scaler, method="recording-zscore")
    transform = SeriesTransform(loaded.autoencoder, own, tr=None)
    raw = _raw(40)
    transform.fit([_sample(raw * 7)])
    found = transform(_sample(raw * 1000))["signal"][0].T
    np.testing.assert_allclose(found, (raw - raw.mean(axis=0)) / raw.std(axis=0), atol=1e-3)
    for changes in ({"method": "global-sd"}, {"mean_removed": False}):
        with pytest.raises(InputError, match="cannot be fitted on the benchmark's"):
            SeriesTransform(loaded.autoencoder, replace(loaded.scaler, **changes), tr=None)


def test_recordings_come_to_the_models_tr(loaded: LoadedModel) -> None:
    raw = _raw(30)
    found = _transform(loaded, tr=0.8)(_sample(raw, tr=2.0))["signal"]
    series = loaded.scaler.transform(resample(raw.T.astype(np.float32), 2.0, 0.8))
    assert series.shape == (8, 73)
    np.testing.assert_allclose(found[0], series[:, :40], atol=1e-4)
    np.testing.assert_allclose(found[1, :, :33], series[:, 40:], atol=1e-4)
    near = _transform(loaded, tr=2.0)(_sample(raw, tr=2.001))["signal"]
    assert int((~near[0, 0].isnan()).sum()) == 30


def test_windows_end_where_the_recording_does(loaded: LoadedModel) -> None:
    transform = _transform(loaded)
    for volumes, windows in ((10, 1), (40, 1), (49, 1), (50, 2), (80, 2), (95, 3)):
        signal = transform(_sample(_raw(volumes)))["signal"]
        assert signal.shape == (windows, 8, 40)
        joined = signal.swapaxes(0, 1).flatten(1)
        beyond = joined.isnan().all(dim=0)
        assert int((~beyond).sum()) == min(volumes, windows * 40)
        assert not joined[:, ~beyond].isnan().any()
    (window,) = transform(_sample(_raw(4)))["signal"]
    statistics = (-loaded.scaler.median / loaded.scaler.iqr)[:, None]
    np.testing.assert_allclose(window[:, 4:10], np.zeros((8, 6)), atol=np.abs(statistics).max())
    assert window[:, 10:].isnan().all()


def test_a_parcel_that_never_changes_has_no_data(loaded: LoadedModel) -> None:
    raw = _raw(40)
    raw[:, 3], raw[:, 5] = 7.0, np.nan
    signal = _transform(loaded)(_sample(raw))["signal"][0]
    assert torch.equal(signal.isnan().all(dim=1).nonzero()[:, 0], torch.tensor([3, 5]))


@settings(max_examples=15)
@given(volumes=st.integers(2, 130), flat=st.integers(0, 5), seed=st.integers(0, 9))
def test_any_recording_gives_finite_embeddings(any_model, volumes, flat, seed) -> None:
    raw = _raw(volumes, seed)
    raw[:, :flat] = 1.0
    samples = [_sample(raw), _sample(_raw(volumes, seed + 1))]
    transform = _transform(any_model, choice="train")
    transform.fit(samples)
    signal = torch.stack([transform(sample)["signal"] for sample in samples])
    with torch.no_grad():
        cls, registers, tokens = SeriesEncoder(any_model.autoencoder)({"signal": signal})
    assert cls.shape == (2, 1, 32) and registers is None
    assert tokens.shape[::2] == (2, 32) and tokens.shape[1] > 0
    assert cls.isfinite().all() and tokens.isfinite().all()


def test_nothing_beyond_the_end_is_looked_at(any_model: LoadedModel) -> None:
    model, window = any_model.autoencoder, torch.randn(1, 8, 40)
    window[:, :, 25:] = torch.nan
    seen = tokens_with_data(model.tokenizer, window)
    full = tokens_with_data(model.tokenizer, torch.zeros(1, 8, 40))
    numbers = torch.arange(40.0).expand(1, 8, 40)
    last = model.tokenizer.cut(numbers).nan_to_num(-1).amax(dim=2)
    if model.config.tokenizer == "image":
        last = last * model.config.input_scale
    rows = last.unflatten(1, (-1, 40 // model.config.patch))  # some hold nothing but padding
    last = rows.amax(dim=1, keepdim=True).expand_as(rows).flatten(1)
    assert torch.equal(seen, full & (last < 24.5))
    assert 0 < seen.sum() < full.sum()


def test_the_encoder_sees_each_recording_alone(loaded: LoadedModel) -> None:
    """CLS and tokens of a batch are those of each recording; what one lacks is its own mean."""
    encoder, transform = SeriesEncoder(loaded.autoencoder), _transform(loaded)
    gappy = _raw(55, 1)
    gappy[:, 2] = 5.0
    signals = [transform(_sample(one))["signal"] for one in (_raw(55), gappy)]
    with torch.no_grad():
        cls, _, tokens = encoder({"signal": torch.stack(signals)})
        whole = loaded.autoencoder.encode(signals[0][:1], torch.arange(32)[None])
        rest = torch.arange(0, 32, 4)
        part = loaded.autoencoder.encode(signals[0][1:], rest[None])
        wanted = (32 * whole[:, 0] + 8 * part[:, 0]) / 40
        (alone, _, own) = encoder({"signal": signals[1][None]})
    torch.testing.assert_close(cls[:1, 0], wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tokens[:1, :32], whole[:, 1:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tokens[:1, 32:], part[:, 1:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(cls[1:], alone, atol=1e-5, rtol=1e-5)
    assert tokens.shape[1] == 40 and own.shape[1] == 35
    mean = own.mean(dim=1).expand(4, -1)
    torch.testing.assert_close(tokens[1, 8:12], mean, atol=1e-5, rtol=1e-5)


def test_it_can_be_fine_tuned_as_a_whole(tmp_path: Path) -> None:
    model = load_model(write_model(tmp_path / "model"))
    encoder = SeriesEncoder(model.autoencoder)
    assert not any(weight.requires_grad for weight in encoder.parameters())
    encoder.requires_grad_(True)
    signal = torch.stack([_transform(model)(_sample(_raw(55)))["signal"]])
    cls, _, tokens = encoder({"signal": signal})
    (cls.square().sum() + tokens.square().sum()).backward()
    for part in (encoder.autoencoder.cls, encoder.autoencoder.encoder[0].mlp[0].weight):
        assert part.grad is not None and part.grad.abs().sum() > 0


def test_how_short_a_recording_may_be(any_model: LoadedModel) -> None:
    wanted = {"parcels": 10, "image": 4}[any_model.config.tokenizer]
    assert shortest(any_model.autoencoder.tokenizer, 40) == wanted


_ORDER = """
import shutil, sys
from pathlib import Path
import nibabel, numpy, pandas
from brainmarks import nisc
cache = Path(nisc.PARC_CACHE_DIR)
cache.mkdir(parents=True, exist_ok=True)
shutil.copyfile(sys.argv[1], cache / "A424.dlabel.nii")
from brainmarks.readers import a424_reader
labels = nibabel.load(sys.argv[1])
axes = (nibabel.cifti2.SeriesAxis(0, 1, 3), labels.header.get_axis(1))
series = labels.get_fdata() * [[1], [2], [3]]  # constant ones count as no data
nibabel.save(nibabel.Cifti2Image(series, axes), "series.dtseries.nii")
found = a424_reader()("series.dtseries.nii")
wanted = pandas.read_csv(sys.argv[2], sep="\\t")["index"].to_numpy()
assert found.shape == (3, 424) and numpy.abs(found[0] - wanted).max() < 1e-2, found[0]
"""


@pytest.fixture
def run(tmp_path: Path):
    """Run Python with Brainmarks installed, in a folder that it may litter."""
    if not BRAINMARKS.is_dir():
        pytest.skip("Brainmarks is not here: make brainmarks-env")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(BRAINMARKS)]),
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "TEMPLATEFLOW_HOME": str(tmp_path / "templates"),
    }

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            env=environment | more,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    return run


_ITS_TESTS = ("-m", "brainmarks.models.test_models", "brainlm_pipeline")


@pytest.mark.slow
def test_its_own_model_tests_pass(run, tmp_path: Path) -> None:
    for kind, sizes in {"parcels": {"patch": 20}, "image": {**SQUARE, "patch": 14}}.items():
        folder = write_model(tmp_path / kind, parcels=424, timepoints=200, table=TABLE, **sizes)
        done = run(*_ITS_TESTS, BRAINLM_MODEL=str(folder))
        assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert "Which model?" in run(*_ITS_TESTS).stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["13m_tiny", "111m_tiny"])
def test_they_pass_with_models_as_released(run, tmp_path, shared_data: Path, name: str) -> None:
    source = shared_data / "parity" / name
    config = json.loads((source / "meta.json").read_text())["config"]
    folder = tmp_path / "released"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes((source / "state_dict.safetensors").read_bytes())
    done = run(*_ITS_TESTS, BRAINLM_MODEL=str(folder))
    assert "2 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_its_parcels_come_in_our_order(run, shared_data: Path) -> None:
    done = run("-c", _ORDER, str(shared_data / "A424" / "A424.dlabel.nii"), str(TABLE))
    assert done.returncode == 0, done.stderr
