"""Training learns, and whatever kills it, it ends with the same bytes."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlm.cli import pretrain as pretrain_command
from brainlm.cli.pretrain import pretrain as command
from brainlm.config import Finetune, Pretrain, Target
from brainlm.errors import DataError, InputError
from brainlm.model.checkpoint import build_model, load_model, save_weights
from brainlm.model.config import ModelConfig
from brainlm.model.mae import MaskedAutoencoder
from brainlm.model.mask import generator, make_mask
from brainlm.shards.reader import ShardReader
from brainlm.shards.sampler import Window
from brainlm.shards.tensorfile import load_tensors
from brainlm.train import masking
from brainlm.train import pretrain as training
from brainlm.train.checkpointing import Checkpoints, best_step
from brainlm.train.data import Coverage, MappedSource, ResidentSource, ahead, open_source
from brainlm.train.masking import Masking, network_numbers
from brainlm.train.optim import learning_rate_at, make_optimizer
from brainlm.train.pretrain import pretrain
from brainlm.train.runtime import InterruptedTrainingError, StopRequest, stop_signals
from brainlm.train.settings import (
    FinetuneSettings,
    PretrainSettings,
    TargetSettings,
    read_settings,
)
from brainlm.train.state import TrainState
from brainlm.train.validation import validate

from .synthetic_cohort import FIELDS, NETWORK, make_shards, params, write_study

SPLITS = {"train": 5, "val": 2, "test": 2}
CONFIG = ModelConfig.from_dict({**NETWORK, "decoder_layers": 1, "dropout": 0.1})
SETTINGS = PretrainSettings(
    run="brainlm",
    epochs=4,
    windows_per_recording=1,
    batch_size=2,
    accumulate=1,
    optimizer="adamw",
    learning_rate=0.005,
    base_learning_rate=None,
    weight_decay=0.05,
    warmup=0.1,
    mask="random",
    mask_ratio=0.75,
    guessed=1.0,
    loss="mse",
    clip_norm=1.0,
    ema_decay=0.0,
    precision="auto",
    compile=False,
    attention="sdpa",
    checkpoint_blocks=False,
    data="auto",
    processes=1,
    deterministic=True,
    parallel="ddp",
    checkpoint_every=2,
    keep_checkpoints=2,
    stop_before_end_s=120.0,
    device="cpu",
)
STEPS = 12  # 4 epochs of ceil(5 / 2) steps


class KilledError(Exception):
    """Stands for SIGKILL: nothing in the loop catches it."""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = write_study(tmp_path_factory.mktemp("pretrain") / "study", SPLITS)
    make_shards(study)
    return study


@pytest.fixture(scope="module")
def reader(study):
    return ShardReader(study.path("shards_index"))


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def _train(
    reader,
    folder: Path,
    *,
    settings=SETTINGS,
    config=CONFIG,
    report=lambda row: None,
    stop=None,
    say=str,
):
    """Train; return what ends up in the files: weights and log."""
    checkpoints = Checkpoints.below(folder, "fingerprint", say)
    model = pretrain(
        reader,
        config,
        settings,
        seed=3,
        device=torch.device("cpu"),
        checkpoints=checkpoints,
        report=report,
        stop=stop or StopRequest(),
    )
    save_weights(folder / "model.safetensors", model)
    return (folder / "model.safetensors").read_bytes(), checkpoints.log.path.read_bytes()


@pytest.fixture(scope="module")
def unbroken(reader, tmp_path_factory):
    torch.set_num_threads(1)
    return _train(reader, tmp_path_factory.mktemp("unbroken"))


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


def test_the_rate_rises_and_falls() -> None:
    rates = [learning_rate_at(step, 110, 1.0, 10 / 110) for step in range(110)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert 0 < rates[-1] < 0.001
    assert learning_rate_at(0, 1, 1.0, 0.05) == 1.0


def test_only_matrices_decay() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3))
    decaying, others = make_optimizer(dict(model.named_parameters()), 0.1, 0.05).param_groups
    assert [p.ndim for p in decaying["params"]] == [2]
    assert decaying["weight_decay"] == 0.05
    assert [p.ndim for p in others["params"]] == [1, 1, 1]
    assert others["weight_decay"] == 0


def test_it_learns_to_guess_what_is_hidden(tmp_path) -> None:
    study = write_study(tmp_path / "study", {"train": 12, "val": 4, "test": 1}, runs=2)
    reader = ShardReader(make_shards(study))
    settings = read_settings(
        PretrainSettings,
        "pretrain",
        {**vars(SETTINGS), "epochs": 15, "batch_size": 8, "windows_per_recording": 4},
    )
    rows: list[dict] = []
    _train(reader, tmp_path, settings=settings, report=rows.append)
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


def test_each_step_has_its_own_masks_and_each_epoch_its_own_windows(
    reader, tmp_path, monkeypatch
) -> None:
    seen: list[torch.Tensor] = []

    def record(*arguments, **options):
        mask = make_mask(*arguments, **options)
        seen.append(mask.visible[0])
        return mask

    monkeypatch.setattr(masking, "make_mask", record)
    _train(reader, tmp_path)
    assert len({tuple(visible.tolist()) for visible in seen}) == STEPS + 1  # validation's
    plan = training.make_plan(reader, CONFIG, SETTINGS)
    one, two = (training.epoch_batches(plan, CONFIG, SETTINGS, 3, epoch) for epoch in (0, 1))
    assert {w.start for batch in one for w in batch} != {w.start for batch in two for w in batch}


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
    assert first == second
    assert model.training


def test_it_is_repeatable_and_follows_the_seed(reader, unbroken, tmp_path) -> None:
    assert _train(reader, tmp_path / "again") == unbroken


@pytest.mark.faults
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_killed_at_random_steps_it_ends_with_the_same_bytes(
    reader, unbroken, tmp_path, seed
) -> None:
    draw = random.Random(seed)
    kills = 0
    while True:
        left = draw.randint(1, 5)

        def report(row) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise KilledError

        try:
            result = _train(reader, tmp_path, report=report)
            break
        except KilledError:
            kills += 1
    assert kills >= 2
    assert result == unbroken


def test_a_spoilt_checkpoint_falls_back_to_the_one_before(reader, unbroken, tmp_path) -> None:
    def report(row) -> None:
        if row["step"] == 8:
            raise KilledError

    with pytest.raises(KilledError):
        _train(reader, tmp_path, report=report)
    kept = sorted((tmp_path / "fingerprint").glob("step-*"))
    assert [path.stem for path in kept] == ["step-00000004", "step-00000006"]
    kept[-1].write_bytes(kept[-1].read_bytes()[:1000])
    told: list[str] = []
    assert _train(reader, tmp_path, say=told.append) == unbroken
    assert "step-00000006.safetensors cannot be used" in told[0]
    assert told[1] == "Going on from step-00000004.safetensors"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_polite_signal_saves_and_stops(reader, unbroken, tmp_path, name) -> None:
    def report(row) -> None:
        if row["step"] == 4:  # which is told while step 5 is under way
            os.kill(os.getpid(), getattr(signal, name))

    before = signal.getsignal(signal.SIGTERM)
    stopped = pytest.raises(InterruptedTrainingError, match=f"{name} after step 5 of 12")
    with stop_signals() as stop, stopped as caught:
        _train(reader, tmp_path, report=report, stop=stop)
    assert caught.value.exit_code == 1
    assert signal.getsignal(signal.SIGTERM) is before
    assert (tmp_path / "fingerprint/step-00000005.safetensors").exists()
    assert _train(reader, tmp_path) == unbroken


def test_a_loss_that_explodes_names_the_recordings(reader, tmp_path) -> None:
    settings = read_settings(
        PretrainSettings, "pretrain", {**vars(SETTINGS), "learning_rate": 1e30, "warmup": 0.0}
    )
    with pytest.raises(DataError, match=r"the batch held sub-\d\d_task-rest_run-1"):
        _train(reader, tmp_path, settings=settings)


def test_recordings_that_are_all_too_short_are_refused(tmp_path) -> None:
    study = write_study(tmp_path / "study", SPLITS, volumes=30)
    reader = ShardReader(make_shards(study))
    with pytest.raises(DataError, match="No recording of the train split has the model's 40"):
        _train(reader, tmp_path / "run")


def test_the_command_writes_a_whole_folder_and_starts_afresh_on_changes(study, capsys) -> None:
    command(study.root, params(study, "pretrain"))
    folder = study.path("model", run="brainlm").parent
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "checkpoints",
        "config.json",
        "metrics.json",
        "metrics.jsonl",
        "model.json",
        "model.safetensors",
        "normalization.safetensors",
        "parcels.tsv",
    }
    loaded = load_model(folder)
    assert loaded.config.parcels == 8
    assert "never for decisions about a person" in (folder / "README.md").read_text()
    sidecar = json.loads((folder / "model.json").read_text())
    assert sidecar["Device"] == "cpu"
    assert "shards/index.parquet" in sidecar["Sources"]
    assert str(study.root) not in (folder / "model.json").read_text()
    files = [path for path in folder.iterdir() if path.is_file()]
    before = {path.name: path.read_bytes() for path in files}

    for path in files:
        path.unlink()
    capsys.readouterr()
    command(study.root, params(study, "pretrain"))
    assert "Going on from step-00000006" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in files} == before

    config = study.path("config")
    text = config.read_text()
    config.write_text(text.replace('"epochs": 2, "batch_size"', '"epochs": 1, "batch_size"'))
    command(study.root)
    config.write_text(text)
    assert "starts afresh" in capsys.readouterr().out
    rows = (folder / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["epoch"] == 1


def test_moved_parcels_start_afresh(tmp_path, capsys) -> None:
    study = write_study(tmp_path / "study", SPLITS)
    make_shards(study)
    command(study.root)
    index = study.path("shards_index").read_bytes()
    atlas = study.path("atlas_table", **FIELDS)
    table = pd.read_csv(atlas, sep="\t")
    table.assign(y=table["x"]).to_csv(atlas, sep="\t", index=False)
    make_shards(study)
    assert study.path("shards_index").read_bytes() == index
    capsys.readouterr()
    command(study.root)
    assert "Going on from" not in capsys.readouterr().out


def test_older_weights_never_stand_beside_a_newer_config(study, monkeypatch) -> None:
    def killed(*arguments: object) -> None:
        raise KilledError

    command(study.root)
    weights = study.path("model", run="brainlm")
    monkeypatch.setattr(pretrain_command.shutil, "copyfile", killed)
    with pytest.raises(KilledError):
        command(study.root)
    assert weights.with_name("config.json").exists()
    assert not weights.exists()


@pytest.mark.faults
def test_sigkill_of_the_real_command_changes_nothing(tmp_path) -> None:
    options = {
        "pretrain": {
            "epochs": 12,
            "batch_size": 1,
            "checkpoint_every": 7,
            "device": "cpu",
            "accumulate": 2,
            "ema_decay": 0.9,
            "precision": "bf16-full",
        }
    }
    study = write_study(tmp_path / "study", SPLITS, options=options)
    make_shards(study)
    command(study.root)
    folder = study.path("model", run="brainlm").parent
    names = ("model.safetensors", "metrics.jsonl", "README.md", "model.json")
    unbroken = {name: (folder / name).read_bytes() for name in names}
    checkpoints = folder / "checkpoints"
    for path in [*checkpoints.glob("*/*"), *(folder / name for name in names)]:
        path.unlink()

    call = [sys.executable, "-m", "brainlm", "pretrain", "--study", str(study.root)]
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(checkpoints.glob("*/step-0000002*")) and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "model.safetensors").exists()
    command(study.root)
    assert {name: (folder / name).read_bytes() for name in names} == unbroken
    assert math.isfinite(json.loads(unbroken["metrics.jsonl"].splitlines()[-1])["val_loss"])


def _with(**changes) -> PretrainSettings:
    return replace(SETTINGS, **changes)


@pytest.fixture(scope="module")
def all_options(reader, tmp_path_factory):
    """A training with all that a checkpoint has to hold."""
    torch.set_num_threads(1)
    settings = _with(accumulate=2, ema_decay=0.8, precision="bf16-full", optimizer="adam")
    return settings, _train(reader, tmp_path_factory.mktemp("options"), settings=settings)


@pytest.mark.faults
@pytest.mark.parametrize("seed", [3, 4])
def test_masters_and_running_means_survive_being_killed(
    reader, all_options, tmp_path, seed
) -> None:
    settings, expected = all_options
    draw = random.Random(seed)
    kills = 0
    while True:
        left = draw.randint(2, 6)

        def report(row) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise KilledError

        try:
            result = _train(reader, tmp_path, settings=settings, report=report)
            break
        except KilledError:
            kills += 1
    assert kills >= 2
    assert result == expected


def test_windows_are_the_same_from_memory_and_from_files(reader, unbroken, tmp_path) -> None:
    assert isinstance(open_source("auto", reader, 40, torch.device("cpu")), MappedSource)
    assert isinstance(open_source("resident", reader, 40, torch.device("cpu")), ResidentSource)
    assert _train(reader, tmp_path, settings=_with(data="resident")) == unbroken


def test_the_rate_may_follow_the_batch() -> None:
    assert _with(learning_rate=0.1).peak_learning_rate == 0.1
    assert _with(base_learning_rate=0.1, batch_size=64).peak_learning_rate == 0.025


def test_adam_is_no_adamw() -> None:
    """Adam adds decay to the gradient, so it is scaled away; AdamW shrinks the weight by it."""
    ends = {}
    for kind in ("adam", "adamw"):
        weight = torch.nn.Parameter(torch.full((1, 1), 10.0))
        optimizer = make_optimizer({"weight": weight}, 0.01, 0.5, kind)
        weight.grad = torch.ones(1, 1)
        optimizer.step()
        ends[kind] = float(weight.detach())
    assert ends["adam"] == pytest.approx(9.99, abs=1e-5)
    assert ends["adamw"] == pytest.approx(9.99 - 0.01 * 0.5 * 10, abs=1e-5)


def test_the_running_mean_is_what_is_validated_and_kept(reader, tmp_path) -> None:
    """With a share of nearly 1, the mean stays where the weights began; they do not."""
    settings = _with(ema_decay=1 - 1e-9)
    rows: list[dict] = []
    _train(reader, tmp_path, settings=settings, report=rows.append)
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


def test_the_last_checkpoints_and_the_best_are_kept(reader, tmp_path) -> None:
    _train(reader, tmp_path, settings=_with(checkpoint_every=1))
    folder = tmp_path / "fingerprint"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = {row["val_loss"]: row["step"] for row in rows if "val_loss" in row}
    kept = {int(path.stem.removeprefix("step-")) for path in folder.glob("step-*")}
    assert kept == {STEPS - 1, STEPS, losses[min(losses)]}
    assert best_step([{"val_loss": 2, "step": 3}, {"val_loss": 1, "step": 6}, {"step": 7}]) == 6
    assert best_step([{"step": 7, "loss": 0.1}]) == 0


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
        _train(reader, tmp_path)
    assert f"at step {broken + 1}; the batch held {', '.join(sorted(held))}" in caught.value.what
    kept = sorted(path.stem for path in (tmp_path / "fingerprint").glob("step-*"))
    assert kept[-1] == "step-00000004"


def test_what_is_made_ahead_comes_in_order_and_fails_where_it_is_used() -> None:
    made: list[int] = []

    def make(key: int) -> int:
        if key == 5:
            raise KilledError
        made.append(key)
        return 10 * key

    stream = ahead(make, range(9))
    assert next(stream) == 0
    seen = []
    with pytest.raises(KilledError):
        for value in stream:
            assert len(made) <= len(seen) + 5
            seen.append(value)
    assert seen == [10, 20, 30, 40]
    closed = ahead(make, range(4))
    next(closed)
    closed.close()
    assert list(ahead(make, range(5), threads=3)) == [0, 10, 20, 30, 40]


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
    _, log = _train(reader, tmp_path, settings=_with(**changes))
    assert log != unbroken[1]
    rows = [json.loads(line) for line in log.decode().splitlines()]
    assert all(math.isfinite(row["loss"]) for row in rows if "loss" in row)


def test_a_step_may_guess_a_part_of_what_is_hidden(reader) -> None:
    plan = training.make_plan(reader, CONFIG, _with(guessed=0.25))
    tokenizer = MaskedAutoencoder(CONFIG, torch.randn(8, 3)).tokenizer
    covered = torch.ones(3, 8, dtype=torch.bool)
    covered[1, :2] = False
    part, whole = (
        masks.draw(tokenizer, covered, generator(0)) for masks in (plan.asking, plan.masking)
    )
    assert part.visible.equal(whole.visible)
    assert part.hidden.shape == (3, 6) and whole.hidden.shape == (3, 24)
    assert part.hidden.equal(whole.hidden[:, :6])
    assert part.target.all()  # tokens without data come last
    for settings_, config in (
        (_with(guessed=0.25, mask="future"), CONFIG),
        (_with(guessed=0.25), replace(CONFIG, decoder="full")),
    ):
        with pytest.raises(InputError, match=r"guessed is 0\.25"):
            training.make_plan(reader, config, settings_)


def test_attention_kernels_are_chosen_for_the_windows_at_hand(reader, tmp_path, monkeypatch):
    asked = []

    def note(shapes, dtype, device):
        asked.append((shapes, dtype))
        return contextlib.nullcontext()

    monkeypatch.setattr(training, "fastest_kernels", note)
    _train(reader, tmp_path / "sdpa", settings=_with(epochs=1, precision="bf16"))
    _train(reader, tmp_path / "eager", settings=_with(epochs=1, attention="eager"))
    ((encoder, decoder), dtype), *others = asked
    assert not others and dtype == torch.bfloat16
    assert encoder == (2, 1, 9, 9, 32, 1)  # windows, heads, CLS and 8 visible, width, layers
    assert decoder == (2, 1, 24, 9, 32, 1)


@pytest.mark.parametrize("changes", [{"attention": "eager"}, {"checkpoint_blocks": True}])
def test_how_it_is_computed_does_not(reader, tmp_path, changes) -> None:
    """But for rounding; without dropout, of which the attention backends draw their own."""
    config = replace(CONFIG, dropout=0.0)
    _, log = _train(reader, tmp_path / "as ever", config=config)
    _, other = _train(reader, tmp_path / "else", config=config, settings=_with(**changes))
    for row, expected in zip(other.decode().splitlines(), log.decode().splitlines(), strict=True):
        assert json.loads(row) == pytest.approx(json.loads(expected), rel=1e-3)


def test_networks_are_numbered_and_parcels_without_one_are_not() -> None:
    table = pd.DataFrame({"yeo7_network": ["Visual", None, "Default", "Visual"]})
    assert network_numbers(table).tolist() == [1, -1, 0, 1]
    with pytest.raises(InputError, match="yeo7_network"):
        network_numbers(pd.DataFrame({"name": ["a", "b"]}))


def test_a_pass_without_anything_to_guess_teaches_nothing(reader, tmp_path, monkeypatch) -> None:
    """As where no whole network fits into a window's share of hidden tokens."""

    def nothing(*arguments, **options):
        mask = make_mask(*arguments, **options)
        mask.target[:1] = False
        return mask

    monkeypatch.setattr(masking, "make_mask", nothing)
    _, log = _train(reader, tmp_path, settings=_with(accumulate=2))
    rows = [json.loads(line) for line in log.decode().splitlines()]
    assert all(math.isfinite(row["loss"]) for row in rows if "loss" in row)
    # The last window of an odd number is alone in its step.
    assert [row["loss"] for row in rows if "loss" in row][2] == 0


@given(
    rows=st.lists(st.integers(0, 20), min_size=1, max_size=9, unique=True),
    kind=st.sampled_from(["random", "parcels", "future"]),
)
@settings(deadline=None, max_examples=40)
def test_masks_of_some_rows_are_those_of_the_batch(reader, rows, kind) -> None:
    """Whoever takes which rows; 21 windows are two full groups and one that is not."""
    config = replace(CONFIG, dropout=0.0)
    hiding = Masking.of(config, kind, 0.5, reader.parcels, 8)
    tokenizer = build_model(config, reader.parcels).tokenizer
    coverage, names = Coverage(reader), list(reader.lengths("train"))
    windows = [Window(names[row % len(names)], row) for row in range(21)]
    given = (tokenizer, coverage, windows)
    whole = hiding.of_rows(*given, range(21), ("key", 1))
    some = hiding.of_rows(*given, rows, ("key", 1))
    for part, expected in zip(some, whole, strict=True):
        assert torch.equal(part, expected[rows])
    assert len({tuple(row.tolist()) for row in whole.visible}) > (15 if kind != "future" else 0)
    other = hiding.of_rows(*given, range(21), ("key", 2))
    assert not torch.equal(other.visible, whole.visible)
