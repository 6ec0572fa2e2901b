"""Training learns, and its options do what they say."""

from __future__ import annotations

import contextlib
import copy
import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from brainlm.config import Finetune, Pretrain, Target
from brainlm.errors import DataError, InputError
from brainlm.model.checkpoint import build_model
from brainlm.model.mae import MaskedAutoencoder
from brainlm.model.mask import generator
from brainlm.shards.reader import ShardReader
from brainlm.shards.tensorfile import load_tensors
from brainlm.train import pretrain as training
from brainlm.train.masking import Masking
from brainlm.train.settings import (
    FinetuneSettings,
    PretrainSettings,
    TargetSettings,
    read_settings,
)
from brainlm.train.state import TrainState
from brainlm.train.validation import validate

from .small_training import CONFIG, SETTINGS, SPLITS, STEPS, train, with_
from .synthetic_cohort import make_shards, write_study


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    study = write_study(tmp_path_factory.mktemp("training") / "study", SPLITS)
    return ShardReader(make_shards(study))


@pytest.fixture(scope="module")
def unbroken(reader, tmp_path_factory):
    torch.set_num_threads(1)
    return train(reader, tmp_path_factory.mktemp("unbroken"))


@pytest.mark.parametrize(
    ("section", "mirror"),
    [(Pretrain, PretrainSettings), (Finetune, FinetuneSettings), (Target, TargetSettings)],
)
def test_settings_mirror_the_config(section, mirror) -> None:
    assert [field.name for field in fields(mirror)] == list(section.model_fields)
    assert all(field.default is field.default_factory for field in fields(mirror))


def test_settings_are_read_strictly() -> None:
    content = Pretrain().model_dump(mode="json")
    assert read_settings(PretrainSettings, "pretrain", content).epochs == 100
    with pytest.raises(InputError, match="epoch"):
        read_settings(PretrainSettings, "pretrain", {**content, "epoch": 3})


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_it_learns_to_guess_what_is_hidden(tmp_path, optimizer) -> None:
    study = write_study(tmp_path / "study", {"train": 12, "val": 4, "test": 1}, runs=2)
    reader = ShardReader(make_shards(study))
    settings = read_settings(
        PretrainSettings,
        "pretrain",
        {
            **vars(SETTINGS),
            "epochs": 15,
            "batch_size": 8,
            "windows_per_recording": 4,
            "optimizer": optimizer,
        },
    )
    rows: list[dict] = []
    train(reader, tmp_path, settings=settings, report=rows.append)
    r2 = [row["val_r2"] for row in rows if "val_r2" in row]
    assert abs(r2[0]) < 0.2  # it starts from the recording's mean
    assert r2[-1] > 0.3
    losses = [row["loss"] for row in rows if "loss" in row]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])


def test_the_log_has_a_row_for_each_step_and_epoch(unbroken) -> None:
    rows = [json.loads(line) for line in unbroken[1].decode().splitlines()]
    steps = [row for row in rows if "loss" in row]
    assert [row["step"] for row in steps] == list(range(1, STEPS + 1))
    assert set(steps[0]) == {"step", "epoch", "loss", "lr", "grad_norm"}
    assert [row["epoch"] for row in rows if "val_r2" in row] == [1, 2, 3, 4]


def test_it_trains_on_train_and_watches_val_without_dropout(reader) -> None:
    plan = training.make_plan(reader, CONFIG, SETTINGS)
    assert set(plan.train) == set(reader.recordings("train")["recording_id"])
    assert {w.recording_id for w in plan.val_windows} == set(
        reader.recordings("val")["recording_id"]
    )
    model = build_model(CONFIG, reader.parcels)
    assert isinstance(model, MaskedAutoencoder)
    model.initialize(generator(0))
    torch.nn.init.normal_(model.decoder.guess.weight, generator=generator(1))
    model.train()
    watch = {"masking": Masking("random", 0.75, 8), "seed": 1, "batch_size": 2}
    first, second = (validate(model, reader, plan.val_windows, **watch) for _ in range(2))
    assert (first.row, first.groups) == (second.row, second.groups)
    assert model.training


def test_it_is_repeatable_and_follows_the_seed(reader, unbroken, tmp_path) -> None:
    assert train(reader, tmp_path / "again") == unbroken


def test_a_loss_that_explodes_names_the_recordings(reader, tmp_path) -> None:
    settings = read_settings(
        PretrainSettings, "pretrain", {**vars(SETTINGS), "learning_rate": 1e30, "warmup": 0.0}
    )
    with pytest.raises(DataError, match=r"the batch held sub-\d\d_task-rest_run-1"):
        train(reader, tmp_path, settings=settings)


def test_a_validation_that_explodes_names_the_recordings_and_is_not_saved(reader, tmp_path) -> None:
    """Of one step an epoch, whose loss is of the weights before: only the validation tells."""
    settings = with_(batch_size=8, learning_rate=1e30, warmup=0.0)
    told = r"The validation loss is (nan|inf) after step 1; the batch held sub-\d\d_task-rest_run-1"
    with pytest.raises(DataError, match=told):
        train(reader, tmp_path, settings=settings)
    folder = tmp_path / "fingerprint"
    assert not list(folder.glob("step-*"))
    assert [json.loads(line)["step"] for line in (folder / "metrics.jsonl").open()] == [1]


def test_recordings_that_are_all_too_short_are_refused(tmp_path) -> None:
    study = write_study(tmp_path / "study", SPLITS, volumes=30)
    reader = ShardReader(make_shards(study))
    with pytest.raises(DataError, match="No recording of the train split has the model's 40"):
        train(reader, tmp_path / "run")


def test_the_running_mean_is_what_is_validated_and_kept(reader, tmp_path) -> None:
    """With a share of nearly 1, the mean stays where the weights began; they do not."""
    settings = with_(ema_decay=1 - 1e-9)
    rows: list[dict] = []
    train(reader, tmp_path, settings=settings, report=rows.append)
    state = TrainState(CONFIG, reader.parcels, settings, seed=3, device=torch.device("cpu"))
    start = {name: value.clone() for name, value in state.model.state_dict().items()}
    kept, _ = load_tensors(tmp_path / "model.safetensors")
    for name, value in kept.items():
        np.testing.assert_allclose(value, start[name], atol=1e-6)
    validated = [row["val_loss"] for row in rows if "val_loss" in row]
    assert validated == pytest.approx([validated[0]] * len(validated), rel=1e-5)
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(set(losses)) == STEPS

    saved = sorted((tmp_path / "fingerprint").glob("step-*"))[-1]
    tensors, _ = load_tensors(saved)
    assert not np.allclose(tensors["model.cls"], tensors["ema.cls"], atol=1e-4)


def test_a_loss_that_is_none_is_told_a_step_late_and_never_saved(
    reader, tmp_path, monkeypatch
) -> None:
    """The batch that is named is that of the step, not the one under way."""
    broken = 4
    plan = training.make_plan(reader, CONFIG, SETTINGS)
    held = {
        window.recording_id
        for window in training.epoch_batches(plan, CONFIG, SETTINGS, 3, broken // 3)[broken % 3]
    }
    step_of = training._train_step

    def poisoned(state, source, step, *rest, **options):
        outcome = step_of(state, source, step, *rest, **options)
        return outcome * torch.nan if step.number == broken else outcome

    monkeypatch.setattr(training, "_train_step", poisoned)
    with pytest.raises(DataError) as caught:
        train(reader, tmp_path)
    assert f"at step {broken + 1}; the batch held {', '.join(sorted(held))}" in caught.value.what
    kept = sorted(path.stem for path in (tmp_path / "fingerprint").glob("step-*"))
    assert kept[-1] == "step-00000004"


@pytest.mark.parametrize(
    "changes",
    [
        {"mask": "future"},
        {"mask": "parcels"},
        {"mask": "networks", "mask_ratio": 0.5},
        {"loss": "mae"},
        {"guessed": 0.25},
        {"learning_rate": 0.001},
    ],
)
def test_what_decides_the_result_changes_it(reader, unbroken, tmp_path, changes) -> None:
    reader = copy.copy(reader)
    reader.parcels = reader.parcels.assign(yeo7_network=["A", "B"] * 4)
    _, log = train(reader, tmp_path, settings=with_(**changes))
    assert log != unbroken[1]
    rows = [json.loads(line) for line in log.decode().splitlines()]
    assert all(math.isfinite(row["loss"]) for row in rows if "loss" in row)


def test_attention_kernels_are_chosen_for_the_windows_at_hand(reader, tmp_path, monkeypatch):
    asked = []

    def note(shapes, dtype, device):
        asked.append((shapes, dtype))
        return contextlib.nullcontext()

    monkeypatch.setattr(training, "fastest_kernels", note)
    train(reader, tmp_path / "sdpa", settings=with_(epochs=1, precision="bf16"))
    train(reader, tmp_path / "eager", settings=with_(epochs=1, attention="eager"))
    ((encoder, decoder), dtype), *others = asked
    assert not others and dtype == torch.bfloat16
    assert encoder == (2, 1, 9, 9, 32, 1)  # windows, heads, CLS and 8 visible, width, layers
    assert decoder == (2, 1, 24, 9, 32, 1)


@pytest.mark.parametrize("changes", [{"attention": "eager"}, {"checkpoint_blocks": True}])
def test_how_it_is_computed_does_not(reader, tmp_path, changes) -> None:
    """But for rounding; without dropout, of which the attention backends draw their own."""
    config = replace(CONFIG, dropout=0.0)
    _, log = train(reader, tmp_path / "as ever", config=config)
    _, other = train(reader, tmp_path / "else", config=config, settings=with_(**changes))
    for row, expected in zip(other.decode().splitlines(), log.decode().splitlines(), strict=True):
        assert json.loads(row) == pytest.approx(json.loads(expected), rel=1e-3)
