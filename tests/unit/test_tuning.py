"""The loop of fine-tuning: what learns, how fast, from where it goes on, which repeat is kept."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from brainlm.cli.finetune import finetune as command
from brainlm.cli.pretrain import pretrain as pretrain_command
from brainlm.errors import DataError, InputError
from brainlm.model import BrainLM
from brainlm.model.checkpoint import load_model
from brainlm.model.mask import generator
from brainlm.model.transformer import Attention
from brainlm.shards.reader import ShardReader
from brainlm.shards.sampler import even_windows
from brainlm.train.finetune import LabelTask, predict
from brainlm.train.forecasting import compared, finetune_forecast, forecast_scores, forecast_task
from brainlm.train.labelled import head_card, labelled_data
from brainlm.train.lora import LowRank, adapt, merge
from brainlm.train.masking import Masking
from brainlm.train.optim import learning_rate_at
from brainlm.train.pretrained_task import rate_share
from brainlm.train.repeats import repeat, seed_of_repeat
from brainlm.train.runtime import InterruptedTrainingError, StopRequest

from .synthetic_cohort import make_shards, write_recording, write_study
from .tuning_study import CONFIG, GROUP, SCORE, SETTINGS, around_of, make_study, tune, untrained


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = make_study(tmp_path_factory.mktemp("tuning"))
    pretrain_command(study.root)
    return study


@pytest.fixture(scope="module")
def reader(study):
    return ShardReader(study.path("shards_index"))


@pytest.fixture(scope="module")
def waves(tmp_path_factory):
    """Shards of waves, whose future is their past again, and a model pretrained on them."""
    study = write_study(
        tmp_path_factory.mktemp("waves") / "study", {"train": 8, "val": 4, "test": 1}
    )
    rng = np.random.default_rng(0)
    for row in pd.read_parquet(study.path("recordings")).itertuples():
        phase = 2 * np.pi * (np.arange(60)[:, None] / 10 + rng.uniform() + np.arange(8) / 16)
        wave = 100 + np.sin(phase) + 0.1 * rng.standard_normal((60, 8))
        write_recording(study, row.recording_id, wave.astype(np.float32))
    make_shards(study)
    pretrain_command(study.root)
    model = load_model(study.path("model", run="brainlm").parent).autoencoder
    return ShardReader(study.path("shards_index")), model


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


class KilledError(Exception):
    """As abrupt as an exception can be."""


# --- low rank ---------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_merged_low_rank_layers_are_the_layers_they_were(rank, before, after, seed) -> None:
    torch.manual_seed(seed)
    parent = nn.ModuleDict({"mlp": nn.Sequential(nn.Linear(before, after), nn.GELU())})
    plain = parent["mlp"][0]
    x = torch.randn(3, 2, before)
    untouched = parent["mlp"](x)
    adapt(parent, rank, generator(seed))
    assert isinstance(parent["mlp"][0], LowRank)
    assert torch.equal(parent["mlp"](x), untouched)
    nn.init.normal_(parent["mlp"][0].up)
    changed = parent["mlp"](x)
    merge(parent)
    assert parent["mlp"][0] is plain
    torch.testing.assert_close(parent["mlp"](x), changed, rtol=1e-5, atol=1e-5)


def test_low_rank_learning_changes_matrices_of_the_encoder_by_that_rank(reader) -> None:
    model, data, rows = tune(reader, SCORE, mode="lora", lora_rank=2, epochs=12)
    assert not [module for module in model.modules() if isinstance(module, LowRank)]
    before = untrained(head=head_card(SCORE, SETTINGS, data).to_dict()).state_dict()
    changed = {
        name: value - before[name]
        for name, value in model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    encoder = {name for name in changed if name.startswith("autoencoder.")}
    layers = [
        name.removeprefix("autoencoder.")
        for name, module in untrained().named_modules()
        if isinstance(module, nn.Linear) and ".encoder." in name
    ]
    assert encoder == {f"autoencoder.{name}.weight" for name in layers}
    for name in encoder:
        assert torch.linalg.matrix_rank(changed[name], tol=1e-4) == 2, name
    assert rows[-1]["val_loss"] < rows[0]["val_loss"]


def test_low_rank_in_the_decoder_of_a_forecaster(waves, tmp_path) -> None:
    reader, model = waves[0], copy.deepcopy(waves[1])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wanted = replace(SETTINGS, mode="lora", epochs=1)
    finetune_forecast(model, reader, wanted, seed=0, around=around_of(tmp_path))
    changed = {name for name, value in model.state_dict().items() if (value != before[name]).any()}
    assert changed and all(name.endswith("weight") for name in changed)
    assert {name.split(".")[0] for name in changed} == {"encoder", "decoder"}


# --- rates -----------------------------------------------------------------------------------


def test_deeper_layers_learn_more_slowly() -> None:
    shares = {
        name: rate_share(f"autoencoder.{name}", 12, 0.5)
        for name in ("cls", "tokenizer.signal.weight", "encoder.0.x", "encoder.11.x", "decoder.x")
    }
    assert shares["cls"] == shares["tokenizer.signal.weight"] == 0.5**13
    assert (shares["encoder.0.x"], shares["encoder.11.x"]) == (0.5**12, 0.5)
    assert rate_share("autoencoder.encoder_norm.weight", 12, 0.5) == 1.0
    assert rate_share("head.0.weight", 12, 0.5) == shares["decoder.x"] == 1.0


def test_where_no_rate_is_asked_for_it_suits_the_width(reader, tmp_path) -> None:
    around = around_of(tmp_path)
    tune(reader, SCORE, around=around, learning_rate=None, epochs=2)
    rates = [row["lr"] for row in around.checkpoints.log.rows() if "lr" in row]
    peak = 0.001 * 64 / CONFIG.hidden
    assert rates == [learning_rate_at(step, len(rates), peak, 0.05) for step in range(len(rates))]
    assert max(rates) > 0.9 * peak


def test_a_layer_of_no_rate_stays_and_the_head_learns(reader) -> None:
    model, data, _ = tune(reader, SCORE, layer_decay=1e-12, weight_decay=0.0, epochs=1)
    before = untrained(head=head_card(SCORE, SETTINGS, data).to_dict()).state_dict()
    for name, value in model.state_dict().items():
        near = torch.allclose(value, before[name], atol=1e-7)
        below = any(part in name for part in (".encoder.", "tokenizer", "cls", "decoder"))
        assert near == below or "norm" in name, name


# --- kills and signals ------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"mode": "lora", "layer_decay": 0.7}])
def test_killed_at_random_steps_it_ends_with_the_same_weights(reader, tmp_path, changes) -> None:
    wanted = {"epochs": 5, "patience": 2, **changes}
    whole, _, rows = tune(reader, SCORE, tmp_path / "whole", **wanted)
    rng, kills = np.random.default_rng(3), 0
    while True:
        left = [int(rng.integers(3, 14))]

        def die(row: dict, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise KilledError

        try:
            around = around_of(tmp_path / "broken", die, every=2)
            again, _, found = tune(reader, SCORE, around=around, **wanted)
            break
        except KilledError:
            kills += 1
    assert kills >= 2
    assert found == rows
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_signal_saves_and_stops(reader, tmp_path) -> None:
    stop = StopRequest()

    def ask(row: dict) -> None:
        if row["step"] == 3:
            stop.signal = "SIGUSR1"

    around = around_of(tmp_path, ask, stop)
    with pytest.raises(InterruptedTrainingError, match="SIGUSR1 after step 4 of at most 12"):
        tune(reader, SCORE, around=around, epochs=2)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000004.safetensors"]


def test_it_ends_when_nothing_gets_better(reader) -> None:
    _, _, rows = tune(reader, SCORE, learning_rate=1e-9, patience=3, epochs=40)
    best = min(rows, key=lambda row: row["val_loss"])["epoch"]
    assert rows[-1]["epoch"] == min(40, best + 3)


def test_a_loss_that_is_no_number_names_the_recordings(reader) -> None:
    with pytest.raises(DataError, match="the batch held sub-"):
        tune(reader, SCORE, learning_rate=1e30, epochs=3)


def test_bf16_matrices_end_as_float32_ones(reader, tmp_path) -> None:
    around = around_of(tmp_path)._replace(precision="bf16-full")
    model, data, _ = tune(reader, SCORE, around=around, mode="head", epochs=1)
    before = untrained(head=head_card(SCORE, SETTINGS, data).to_dict()).state_dict()
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32, name
        if name.startswith("autoencoder."):
            assert torch.equal(value, before[name]), name
    assert not torch.equal(model.state_dict()["head.0.weight"], before["head.0.weight"])


# --- labels and heads -------------------------------------------------------------------------


def test_test_labels_change_nothing(reader, monkeypatch) -> None:
    before, data, _ = tune(reader, SCORE, epochs=2)
    table = reader.table.copy()
    tested = (table["split"] == "test").to_numpy()
    table.loc[tested, "label_score"] = 1e6
    monkeypatch.setattr(reader, "table", table)
    after, changed, _ = tune(reader, SCORE, epochs=2)
    assert changed.values != data.values
    assert changed.scale == data.scale
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name]), name


def test_a_new_head_reads_differences_not_levels(reader) -> None:
    data = labelled_data(reader, SCORE, CONFIG.timepoints)
    found = []
    for gain, offset in ((1.0, 0.0), (0.05, 30.0)):
        model = untrained()
        model.initialize_head(generator(0))
        model.autoencoder.encoder_norm.weight.data *= gain
        model.autoencoder.encoder_norm.bias.data += offset
        task = LabelTask(
            model,
            reader,
            data,
            "regression",
            lambda *some: torch.zeros(()),
            Masking("random", 0.5, 16),
            0,
            SETTINGS,
        )
        task.standardize()
        (signal, _), _ = task.look(even_windows(data.lengths["train"], 40), "start")
        everything = torch.arange(32).expand(len(signal), -1)
        with torch.no_grad():
            pooled = model.pooled(model.autoencoder.encode(signal, everything))
            found.append(model.head[0](pooled))
            merged = model.head[0].merged()
            torch.testing.assert_close(merged(pooled), found[-1], rtol=1e-3, atol=2e-3)
    first, moved = found
    assert first.std(dim=0).mean() > 0.1
    torch.testing.assert_close(first, moved, rtol=0.01, atol=0.02)


def test_an_attentive_pool_and_a_linear_head_learn_as_well(reader) -> None:
    model, _, rows = tune(reader, SCORE, pool="attention", head="linear", epochs=20)
    assert len(model.head) == 1
    assert model.pool.query.abs().max() > 0.01
    assert min(row["val_loss"] for row in rows) < 0.5 * rows[0]["val_loss"]


def test_several_classes_are_found_in_new_subjects(reader, monkeypatch) -> None:
    table = reader.table.copy()
    score = table["label_score"].astype(float)
    table["label_three"] = np.select([score < -0.4, score < 0.4], ["low", "middle"], "top")
    monkeypatch.setattr(reader, "table", table)
    three = replace(SCORE, name="three", kind="classes")
    model, data, _ = tune(reader, three, pool="attention", head="linear", patience=40)
    assert data.classes == ("low", "middle", "top")
    card = head_card(three, SETTINGS, data)
    assert (card.outputs, card.classes) == (3, data.classes)
    lengths = data.lengths["test"]
    found = predict(model, reader, lengths, mask_ratio=0.5, seed=1, batch_size=4)
    chance = card.to_label(np.stack([found[name] for name in sorted(lengths)]))
    truth = data.truth(sorted(lengths))
    np.testing.assert_allclose(chance.sum(axis=1), 1)
    assert (chance.argmax(axis=1) == truth).mean() > 0.6
    with pytest.raises(DataError, match="has 2 classes"):
        labelled_data(reader, replace(GROUP, kind="classes", positive=None), CONFIG.timepoints)


# --- forecasting ------------------------------------------------------------------------------


def test_a_forecast_is_learned_and_sees_nothing_of_the_future(waves, tmp_path) -> None:
    reader, model = waves[0], copy.deepcopy(waves[1])
    wanted = replace(SETTINGS, epochs=15, batch_size=2)
    task = forecast_task(model, reader, wanted)
    before = forecast_scores(task, task.val_windows)
    best = finetune_forecast(model, reader, wanted, seed=0, around=around_of(tmp_path))
    after = forecast_scores(task, task.val_windows)
    assert after["mse"] == pytest.approx(best["val_loss"])
    assert after["mse"] < 0.6 * before["mse"]
    assert after["r2"] > 0.3
    signal = task.signal(task.val_windows[:2])
    guess = task.model(signal)
    stack = reader.stack

    def other_future(windows, length):
        values = stack(windows, length).copy()
        values[:, -10:] += 7
        return values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "stack", other_future)
        changed = task.signal(task.val_windows[:2])
    assert torch.equal(guess, task.model(changed))
    torch.testing.assert_close(changed[:, :, -10:], signal[:, :, -10:] + 7, rtol=0, atol=0.02)


def test_persistence_and_the_start_stand_beside_a_forecast(waves) -> None:
    reader, model = waves
    trained, before = copy.deepcopy(model), copy.deepcopy(model)
    torch.nn.init.normal_(trained.decoder.last_layer.weight, generator=generator(0))
    task = forecast_task(trained, reader, SETTINGS)
    found = compared(task, before)
    windows = [reader.window(*window, 40) for window in task.val_windows]
    future, last = (np.stack([w[part] for w in windows]) for part in (slice(30, 40), slice(29, 30)))
    error = future - last
    assert found["mse (last value)"] == pytest.approx(float((error**2).mean()), rel=1e-4)
    r2 = 1 - (error**2).sum() / ((future - future.mean()) ** 2).sum()
    assert found["r2 (last value)"] == pytest.approx(float(r2), rel=1e-4)
    own = forecast_scores(task, task.val_windows)
    assert found["mse (fine-tuned)"] == own["mse"]
    assert found["mse (before fine-tuning)"] != own["mse"]


def test_only_the_future_counts(waves, monkeypatch) -> None:
    task = forecast_task(waves[1], waves[0], SETTINGS)
    monkeypatch.setattr(type(task.model), "forward", lambda self, x: x[:, :, -10:] + 2.0)
    loss = task.loss(task.model, task.fetch(task.val_windows, [0, 2], 0))
    assert float(loss.mean) == pytest.approx(4.0)
    assert int(loss.weight) == 2 * 8 * 10


def test_a_future_as_long_as_the_window_is_refused(waves) -> None:
    with pytest.raises(InputError, match="forecast_timepoints is 40, but the model's window is 40"):
        forecast_task(waves[1], waves[0], replace(SETTINGS, forecast_timepoints=40))


# --- repeats, and the command -----------------------------------------------------------------


def test_the_best_of_all_repeats_is_kept(tmp_path) -> None:
    losses, seeds = iter([0.5, 0.2, 0.4]), []

    def once(seed, around):
        seeds.append(seed)
        assert around.checkpoints.folder.parent == tmp_path
        return f"model {len(seeds)}", {"val_loss": next(losses), "epoch": len(seeds)}

    done = repeat(once, 3, 7, around_of(tmp_path))
    told = done.summary()
    assert (done.model, told["best_repeat"], told["epoch"]) == ("model 2", 2, 2)
    assert told["val_loss_mean"] == pytest.approx(1.1 / 3)
    assert told["val_loss_sd"] == pytest.approx(np.std([0.5, 0.2, 0.4], ddof=1))
    assert seeds == [seed_of_repeat(7, number) for number in range(3)]
    assert seeds[0] == 7 and len(set(seeds)) == 3


def test_the_command_repeats_and_forecasts(study, tmp_path) -> None:
    own = type(study)(shutil.copytree(study.root, tmp_path / "study"))
    config = json.loads(own.path("config").read_text())
    config["finetune"] |= {"repeats": 2, "epochs": 1, "forecast_timepoints": 10, "mode": "lora"}
    config["finetune"]["targets"] = [{"name": "group", "kind": "binary", "positive": "patient"}]
    own.path("config").write_text(json.dumps(config))
    command("group", own.root)
    folder = own.path("finetuned", run="brainlm", target="group").parent
    about = json.loads((folder / "model.json").read_text())["Repeats"]
    assert about["repeats"] == 2 and len(set(about["val_loss_of_each"])) == 2
    assert about["val_loss"] == min(about["val_loss_of_each"])
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {row["repeat"] for row in rows} == {1, 2}
    series = np.random.default_rng(0).normal(100, 1, (60, 8))
    assert 0 < BrainLM.from_pretrained(folder).predict(series) < 1

    command(None, own.root, task="forecast")
    folder = own.path("forecaster", run="brainlm").parent
    assert BrainLM.from_pretrained(folder).forecast(series, 10).shape == (10, 8)
    pretrained = load_model(own.path("model", run="brainlm").parent).model.state_dict()
    tuned = load_model(folder).model.state_dict()
    assert pretrained.keys() == tuned.keys()
    assert any(not torch.equal(value, tuned[name]) for name, value in pretrained.items())
    about = json.loads((folder / "model.json").read_text())
    scores, repeats = about["ValidationScores"], about["Repeats"]
    assert scores["mse (fine-tuned)"] == pytest.approx(repeats["val_loss"], rel=1e-5)
    assert scores["mse (before fine-tuning)"] > scores["mse (fine-tuned)"]
    card = (folder / "README.md").read_text()
    for score in ("mse", "r2", "pearson"):
        told = f"- {score} (last value): {scores[f'{score} (last value)']:.4g}"
        assert told in card
    for arguments in ({"target": "group", "task": "forecast"}, {"task": "label"}):
        with pytest.raises(InputError, match="--target NAME, --task forecast or"):
            command(study=own.root, **arguments)


def test_attention_and_checkpointing_are_those_of_pretraining(study, tmp_path, monkeypatch) -> None:
    own = type(study)(shutil.copytree(study.root, tmp_path / "study"))
    config = json.loads(own.path("config").read_text())
    config["pretrain"] |= {"attention": "eager", "checkpoint_blocks": True}
    config["finetune"]["epochs"] = 1
    own.path("config").write_text(json.dumps(config))
    seen = []

    def note(model, *arguments, **named):
        attention = next(part for part in model.modules() if isinstance(part, Attention))
        seen.append((attention.backend, model.autoencoder.recompute))
        raise KilledError

    monkeypatch.setattr("brainlm.train.finetune.finetune", note)
    with pytest.raises(KilledError):
        command("score", own.root)
    assert seen == [("eager", True)]
