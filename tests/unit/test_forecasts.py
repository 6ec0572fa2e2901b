"""Forecasts scored alike, and compared on the same subjects."""

from __future__ import annotations

import json
import os
import shutil
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from brainlm.cli.compare_forecasts import compare_forecasts as compare_command
from brainlm.cli.finetune import finetune
from brainlm.cli.pretrain import pretrain
from brainlm.cli.score_forecast import score_forecast
from brainlm.config import load_config
from brainlm.errors import DataError, InputError
from brainlm.evaluate.baselines.persistence import mean, persistence
from brainlm.evaluate.forecast_scores import ALL, compare_forecasts
from brainlm.evaluate.forecasters import ModelForecaster
from brainlm.evaluate.forecasts import SUM_COLUMNS, forecast_error, forecast_table, sums_by_subject
from brainlm.files import read_json
from brainlm.layout import Study
from brainlm.model.checkpoint import load_model
from brainlm.model.mask import generator
from brainlm.provenance import sidecar_path
from brainlm.shards.reader import ShardReader
from brainlm.shards.sampler import even_windows
from brainlm.train import tuning
from brainlm.train.runtime import InterruptedTrainingError
from brainlm.train.validation import scores

from .synthetic_cohort import make_shards, params, write_study

WINDOW, FUTURE = 40, 8
HOW = {"window": WINDOW, "future": FUTURE, "batch_size": 3, "device": torch.device("cpu")}


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> ShardReader:
    """12 test subjects of two recordings with two windows each; one parcel of one is missing."""
    study = write_study(
        tmp_path_factory.mktemp("forecasts") / "study",
        {"train": 4, "val": 2, "test": 12},
        volumes=90,
        runs=2,
    )
    return ShardReader(make_shards(study))


@pytest.fixture(scope="module")
def windows(reader):
    return even_windows(reader.lengths("test"), WINDOW)


def _noisy(sd: float):
    """A forecaster that knows the future but for noise; it must be shown whole windows in order."""

    def table(reader, windows) -> pd.DataFrame:
        rng = np.random.default_rng(0)
        futures = iter(
            [reader.window(w.recording_id, w.start, WINDOW)[-FUTURE:].T for w in windows]
        )

        def guess(past, timepoints):
            true = np.stack([next(futures) for _ in range(len(past))])
            return torch.from_numpy(np.nan_to_num(true + sd * rng.standard_normal(true.shape)))

        return forecast_table(guess, reader, windows, **HOW)

    return table


def test_sums_give_the_scores_of_the_entries_themselves(reader, windows) -> None:
    table = forecast_table(persistence, reader, windows, **HOW)
    assert list(table.columns) == ["cohort", "subject", "step", *SUM_COLUMNS]
    subjects, sums = sums_by_subject(table)
    assert (len(subjects), sums.shape) == (12, (12, FUTURE, 6))
    assert len(set(reader.table.loc[[w.recording_id for w in windows], "subject"])) == 12
    for step in (0, FUTURE - 1):
        true, guess = [], []
        for window in windows:
            values = reader.window(window.recording_id, window.start, WINDOW)
            true.append(values[WINDOW - FUTURE + step])
            guess.append(values[WINDOW - FUTURE - 1])
        y, p = np.concatenate(true), np.concatenate(guess)
        found = scores(sums.sum(axis=0)[step])
        assert found["mse"] == pytest.approx(np.nanmean((y - p) ** 2), rel=1e-5)
        assert found["pearson"] == pytest.approx(np.corrcoef(y, p)[0, 1], rel=1e-4)
        r2 = 1 - ((y - p) ** 2).sum() / ((y - y.mean()) ** 2).sum()
        assert found["r2"] == pytest.approx(r2, rel=1e-4)


def test_the_past_alone_is_shown_and_holes_count_for_nothing(reader, windows, monkeypatch) -> None:
    real = ShardReader.stack

    def holed(self, some, length):
        stored = real(self, some, length).copy()
        stored[:, :, 2] = np.nan
        return stored

    monkeypatch.setattr(ShardReader, "stack", holed)
    seen = []

    def forecaster(past, timepoints):
        seen.append(past)
        return past.new_zeros(len(past), past.shape[1], timepoints)

    table = forecast_table(forecaster, reader, windows, **HOW)
    past = torch.cat(seen)
    assert past.shape == (len(windows), 8, WINDOW - FUTURE)
    assert past[:, 2].isnan().all()
    assert not past[:, [0, 7]].isnan().any()
    assert table["n"].sum() == len(windows) * 7 * FUTURE


def test_an_exploding_forecast_is_infinitely_wrong(reader, windows) -> None:
    def exploding(past, timepoints):
        return torch.full((len(past), past.shape[1], timepoints), float("inf"))

    assert forecast_error(exploding, reader, windows, **HOW) == float("inf")
    assert np.isfinite(forecast_error(mean, reader, windows, **HOW))


def test_the_better_method_is_found_better_step_by_step(reader, windows) -> None:
    tables = {name: _noisy(sd)(reader, windows) for name, sd in (("good", 0.3), ("bad", 0.9))}
    tables["mean"] = forecast_table(mean, reader, windows, **HOW)
    found = compare_forecasts(tables, reference="good", trained_on={"ukb"}, bootstrap=200, seed=0)
    [whole] = found.metrics["cohorts"]
    assert (whole["cohort"], whole["n_subjects"]) == (ALL, 12)
    good, bad = whole["methods"]["good"], whole["methods"]["bad"]
    assert good["metrics"]["mse"]["value"] == pytest.approx(0.09, rel=0.1)
    assert good["metrics"]["mse"]["ci_low"] < 0.09 < good["metrics"]["mse"]["ci_high"] * 1.1
    assert len(good["by_step"]) == FUTURE
    assert "p_holm" not in good
    assert bad["p_holm"] < 0.01
    assert max(bad["p_holm_by_step"]) < 0.05
    assert bad["mse_more_than_reference"] == pytest.approx(0.81 - 0.09, rel=0.1)
    tidy = found.table
    assert len(tidy) == 3 * (1 + FUTURE) * 3
    one = tidy[(tidy.method == "bad") & (tidy.step == "all") & (tidy.metric == "mse")].iloc[0]
    assert one.value == bad["metrics"]["mse"]["value"]
    assert one.p_holm == bad["p_holm"]


def test_a_method_that_exploded_has_no_scores_and_no_p(reader, windows) -> None:
    def exploding(past, timepoints):
        return torch.full((len(past), past.shape[1], timepoints), float("inf"))

    tables = {
        "mean": forecast_table(mean, reader, windows, **HOW),
        "worse": forecast_table(exploding, reader, windows, **HOW),
    }
    found = compare_forecasts(
        tables, reference="mean", trained_on={"ukb"}, bootstrap=20, seed=0
    ).metrics
    worse = found["cohorts"][0]["methods"]["worse"]
    assert worse["metrics"]["mse"]["value"] is None
    assert (worse["mse_more_than_reference"], worse["p"], worse["p_holm"]) == (None, None, None)
    json.dumps(found, allow_nan=False)


def test_methods_alike_are_not_told_apart(reader, windows) -> None:
    """Equal errors on average: the one errs in half of the subjects, the other in the rest."""
    table = forecast_table(mean, reader, windows, **HOW)
    other = table.copy()
    sign = np.where(other["subject"].astype(int) % 2 == 0, 1, -1)
    other["guess2"] += 0.1 * sign * other["n"]
    found = compare_forecasts(
        {"a": table, "b": other}, reference="a", trained_on={"ukb"}, bootstrap=100, seed=0
    )
    assert found.metrics["cohorts"][0]["methods"]["b"]["p_holm"] > 0.5


def test_cohorts_are_told_apart(reader, windows) -> None:
    table = forecast_table(mean, reader, windows, **HOW)
    table["cohort"] = np.where(table["subject"].astype(int) % 3 == 0, "hcp", "ukb")
    found = compare_forecasts(
        {"a": table}, reference="a", trained_on={"ukb"}, bootstrap=100, seed=0
    )
    told = {one["cohort"]: one["n_subjects"] for one in found.metrics["cohorts"]}
    assert told == {"all": 12, "hcp": 4, "ukb": 8}
    external = {one["cohort"]: one["external"] for one in found.metrics["cohorts"]}
    assert external == {"all": False, "hcp": True, "ukb": False}
    reasons = found.metrics["cohorts"][1]["methods"]["a"]["metrics"]["r2"]["reason"]
    assert "bootstrap needs 10" in reasons


def test_whoever_is_in_two_cohorts_is_one_subject_of_all(reader, windows) -> None:
    table = forecast_table(mean, reader, windows, **HOW)
    again = table[table["subject"] == table["subject"].iloc[0]].assign(cohort="second")
    both = pd.concat([table, again], ignore_index=True)
    subjects, sums = sums_by_subject(both)
    assert (len(subjects), sums.shape) == (12, (12, FUTURE, 6))
    assert sums[0] == pytest.approx(2 * sums_by_subject(table)[1][0])


def test_forecasts_of_other_data_are_not_compared(reader, windows) -> None:
    table = forecast_table(mean, reader, windows, **HOW)
    fewer = table[table["subject"] != table["subject"].iloc[0]]
    other = table.assign(truth2=table["truth2"] * 1.01)
    for wrong in (fewer, other):
        with pytest.raises(DataError, match="different test data"):
            compare_forecasts(
                {"a": table, "b": wrong}, reference="a", trained_on={"ukb"}, bootstrap=100, seed=0
            )


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    """A study with a pretrained and a fine-tuned network of a few steps."""
    tuning = {"forecast": True, "forecast_timepoints": FUTURE, "epochs": 1}
    study = write_study(
        tmp_path_factory.mktemp("commands") / "study",
        {"train": 6, "val": 3, "test": 10},
        volumes=90,
        options={"finetune": tuning, "pretrain": {"epochs": 1, "device": "cpu"}},
    )
    make_shards(study)
    pretrain(study.root)
    finetune(None, study.root, task="forecast")
    finetune(None, study.root, task="forecast-untrained")
    return study


def _score(study: Study, method: str) -> Path:
    score_forecast(method, study.root)
    return study.path("forecast_sums", run="brainlm", method=method)


def test_the_commands_compare_models_and_baselines(study, capsys) -> None:
    methods = ("brainlm", "untrained", "zero-shot", "mean", "persistence", "ar", "var")
    sidecars = {method: read_json(sidecar_path(_score(study, method))) for method in methods}
    assert sidecars["ar"]["Chosen"]["order"] in (1, 2, 3, 5, 8, 12, 20)
    assert set(sidecars["persistence"]["Chosen"]) == {"val_mse"}
    chosen = sidecars["ar"]["Chosen"]  # what was tried, and the error of the one taken
    assert min(chosen["tried"].values()) == pytest.approx(chosen["val_mse"])
    assert len(chosen["tried"]) == 7
    of_model = [name for name in sidecars["brainlm"]["Sources"] if "models/" in name]
    assert of_model == ["models/brainlm-forecast/model.safetensors"]
    assert not [name for name in sidecars["ar"]["Sources"] if "models/" in name]
    before = study.path("forecast_sums", run="brainlm", method="var").read_bytes()
    assert _score(study, "var").read_bytes() == before

    chosen = json.loads(params(study, "compare-forecasts"))
    chosen["forecasts"]["methods"] = list(methods)
    capsys.readouterr()
    compare_command(study.root, json.dumps(chosen))
    assert "10 test subjects: r2 " in capsys.readouterr().out
    found = read_json(study.path("forecast", run="brainlm"))
    assert found["chosen"]["ar"] == sidecars["ar"]["Chosen"]
    assert set(found["cohorts"][0]["methods"]) == set(methods)
    assert found["reference"] == "brainlm"
    tidy = pd.read_csv(study.path("forecast_scores", run="brainlm"), sep="\t")
    assert set(tidy["method"]) == set(methods)
    # The study's parcels follow slow factors: what was a moment ago tells more than the mean does.
    error = tidy[(tidy.metric == "mse") & (tidy.step == "1")].set_index("method")["value"]
    assert error["ar"] < error["persistence"] < error["mean"]


def test_a_network_goes_on_where_it_was_stopped(study, monkeypatch) -> None:
    """Stopped at each third step, an LSTM ends with the same sums."""
    chosen = json.loads(params(study, "score-forecast"))
    chosen["forecasts"] |= {"search": False, "epochs": 3, "batch_size": 2}
    chosen["pretrain"]["checkpoint_every"] = 1
    command = partial(score_forecast, "lstm", study.root, json.dumps(chosen))
    command()
    wanted = study.path("forecast_sums", run="brainlm", method="lstm").read_bytes()
    shutil.rmtree(study.root / "evaluation/brainlm/forecast/checkpoints/lstm")

    steps = 0
    real = tuning._train_step

    def stopped_at_times(*given, **named):
        nonlocal steps
        steps += 1
        if steps % 3 == 0:
            os.kill(os.getpid(), signal.SIGUSR1)
        return real(*given, **named)

    monkeypatch.setattr(tuning, "_train_step", stopped_at_times)
    interruptions = 0
    while True:
        try:
            command()
            break
        except InterruptedTrainingError:
            interruptions += 1
    assert interruptions >= 2
    assert study.path("forecast_sums", run="brainlm", method="lstm").read_bytes() == wanted


def test_a_network_of_other_windows_is_not_taken_up(study) -> None:
    """Checkpoints of a longer window are another training's."""
    chosen = json.loads(params(study, "score-forecast"))
    chosen["forecasts"] |= {"search": False, "epochs": 1}
    folder = study.root / "evaluation/brainlm/forecast/checkpoints/lstm"
    shutil.rmtree(folder, ignore_errors=True)
    for timepoints in (WINDOW, WINDOW - 10):
        chosen["model"]["timepoints"] = timepoints
        score_forecast("lstm", study.root, json.dumps(chosen))
    assert len(list(folder.glob("*/*/metrics.jsonl"))) == 2


def test_without_pretraining_all_weights_learn(study, tmp_path) -> None:
    """Whatever the pretrained model's fine-tuning leaves alone."""
    copy = Study(shutil.copytree(study.root, tmp_path / "study"))
    card = copy.path("model", run="brainlm").with_name("config.json")
    card.write_text(json.dumps(read_json(card) | {"released": {"model": "13M"}}))
    chosen = json.loads(params(copy, "finetune"))
    chosen["finetune"] |= {"mode": "head", "layer_decay": 0.5}
    for task in ("forecast", "forecast-untrained"):
        finetune(None, copy.root, json.dumps(chosen), task=task)
    pretrained, tuned, untrained = (
        load_model(copy.path(kind, run="brainlm").parent).autoencoder
        for kind in ("model", "forecaster", "untrained_forecaster")
    )
    kept = pretrained.encoder.state_dict()
    assert all(torch.equal(kept[name], w) for name, w in tuned.encoder.state_dict().items())
    pretrained.initialize(generator(load_config(copy.path("config")).seed, "weights"))
    begun = dict(pretrained.named_parameters())
    assert all(
        not torch.equal(begun[name], w)
        for name, w in untrained.named_parameters()
        if name.startswith("encoder") and w.ndim == 2
    )
    of_tuned, of_untrained = (
        copy.path(kind, run="brainlm").with_name("README.md").read_text()
        for kind in ("forecaster", "untrained_forecaster")
    )
    assert "- mode: head" in of_tuned and "must not be passed on" in of_tuned
    assert "- mode: full" in of_untrained and "are not the weights" in of_untrained


def test_without_pretraining_it_begins_at_random_weights(study) -> None:
    """As the pretrained network began, and not where that ended."""
    begun = {}
    for kind in ("forecaster", "untrained_forecaster"):
        sidecar = read_json(sidecar_path(study.path(kind, run="brainlm")))
        begun[kind] = sidecar["ValidationScores"]["mse (before fine-tuning)"]
    config = load_config(study.path("config"))
    loaded = load_model(study.path("model", run="brainlm").parent)
    reader = ShardReader(study.path("shards_index"))
    loaded.autoencoder.initialize(generator(config.seed, "weights"))
    horizon = {**HOW, "batch_size": config.finetune.batch_size}
    val = even_windows(reader.lengths("val"), WINDOW)
    untrained = ModelForecaster(loaded.autoencoder)
    found = forecast_error(untrained, reader, val, **horizon)
    assert begun["untrained_forecaster"] == pytest.approx(found, rel=1e-5)
    assert begun["forecaster"] != pytest.approx(found, rel=1e-3)


def test_a_method_that_is_none_is_named(study) -> None:
    with pytest.raises(InputError, match=r"oracle(.|\n)*persistence"):
        score_forecast("oracle", study.root)


@pytest.mark.parametrize("method", ["mean", "ar", "lstm", "zero-shot"])
def test_windows_without_a_past_are_refused(study, method: str) -> None:
    chosen = json.loads(params(study, "score-forecast"))
    chosen["finetune"]["forecast_timepoints"] = WINDOW
    with pytest.raises(InputError, match="forecast_timepoints is 40"):
        score_forecast(method, study.root, json.dumps(chosen))


@pytest.mark.parametrize("method", ["mean", "ar", "var", "lstm"])
def test_nobody_to_validate_on_is_told(study, tmp_path, method: str) -> None:
    copy = Study(shutil.copytree(study.root, tmp_path / "study"))
    index = copy.path("shards_index")
    table = pd.read_parquet(index)
    table[table["split"] != "val"].to_parquet(index)
    with pytest.raises(DataError, match="val"):
        score_forecast(method, copy.root)
