"""Several processes fine-tune as one would: on the CPU, by gloo, with tiny networks."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from brainlm.cli.finetune import finetune as command
from brainlm.cli.pretrain import pretrain
from brainlm.model.checkpoint import build_model, load_model, save_weights
from brainlm.model.heads import LabelModel
from brainlm.model.mask import generator
from brainlm.shards.reader import ShardReader
from brainlm.shards.tensorfile import load_tensors
from brainlm.train.checkpointing import Checkpoints
from brainlm.train.distributed import ALONE, Ranks
from brainlm.train.finetune import finetune
from brainlm.train.forecasting import Forecaster, finetune_forecast
from brainlm.train.labelled import head_card, labelled_data
from brainlm.train.pretrained_task import choose_learners
from brainlm.train.repeats import repeat
from brainlm.train.runtime import InterruptedTrainingError, StopRequest, stop_signals
from brainlm.train.settings import TargetSettings
from brainlm.train.tuning import Circumstances

from .small_networks import KINDS, small_network, window
from .synthetic_cohort import (
    NETWORK,
    make_shards,
    parcel_table,
    series_path,
    write_recording,
    write_recordings,
    write_study,
)
from .test_distributed import _free_port, _in_processes
from .tuning_study import CONFIG, SCORE, SETTINGS, untrained

#: 7 in batches of 3: an epoch's last batch has a single window, for two processes.
SPLITS = {"train": 7, "val": 3, "test": 1}
EXACT = replace(SETTINGS, dropout=0.0, batch_size=3, epochs=3, patience=9)
#: As in pretraining; seen: 1.4e-4. A mean of the processes' means: 0.14 of classes, 0.17 of
#: forecasts.
TOLERANCE = 1e-3
THREE = TargetSettings("three", "classes", None, None, "zscore")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Classes of different frequency, and recordings with different numbers of parcels."""
    torch.set_num_threads(1)
    options = {"model": {"overrides": {**NETWORK, "dropout": 0.0}}}
    options["quality"] = {"min_parcels": 0.5}
    study = write_study(tmp_path_factory.mktemp("study") / "study", SPLITS, options=options)
    table = pd.read_parquet(study.path("recordings"))
    table["label_three"] = list("aaabbcaabcb")
    write_recordings(study, table)
    for number, name in enumerate(table["recording_id"]):
        series = pd.read_parquet(series_path(study, name)).to_numpy().copy()
        series[:, : number % 4] = np.nan
        write_recording(study, name, series)
    make_shards(study)
    return study


@pytest.fixture(scope="module")
def reader(study):
    return ShardReader(study.path("shards_index"))


def _learn(
    reader: ShardReader,
    folder: Path,
    what: TargetSettings | None,
    changes: dict,
    ranks: Ranks,
    *,
    report=lambda row: None,
    stop: StopRequest | None = None,
) -> None:
    """Learn a label, or (None) to forecast; save what each process ends with."""
    settings = replace(EXACT, **changes)
    around = Circumstances(
        Checkpoints(folder, str), report, stop or StopRequest(), checkpoint_every=2, ranks=ranks
    )
    if what is None:
        model = build_model(CONFIG, parcel_table())
        model.initialize(generator(0))
        finetune_forecast(model, reader, settings, seed=1, around=around)
    else:
        data = labelled_data(reader, what, CONFIG.timepoints)
        model = untrained(head=head_card(what, settings, data).to_dict())
        finetune(
            model,
            reader,
            data,
            settings,
            kind=what.kind,
            mask_ratio=0.5,
            seed=1,
            around=around,
        )
    save_weights(folder / f"model-{ranks.rank}.safetensors", model)


def _rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _check_alike(folder: Path, expected: Path, world: int) -> None:
    """Weights and log are those of `expected`, in all processes, but for rounding."""
    wanted, _ = load_tensors(expected / "model-0.safetensors")
    for rank in range(world):
        found, _ = load_tensors(folder / f"model-{rank}.safetensors")
        for name, value in wanted.items():
            if name.endswith("key_value.bias"):  # that of keys decides nothing: see pretraining
                half = len(value) // 2
                value, found[name] = value[half:], found[name][half:]
            away = float(abs(found[name] - value).max() / max(abs(value).max(), 1e-3))
            assert away <= TOLERANCE, (name, away)
    rows, expected_rows = _rows(folder), _rows(expected)
    assert len(rows) == len(expected_rows)
    for row, expected_row in zip(rows, expected_rows, strict=True):
        known = {name: value for name, value in expected_row.items() if value is not None}
        assert {name: row[name] for name in known} == pytest.approx(known, rel=1e-4, abs=1e-6)
        assert not any(row[name] is not None for name in row.keys() - known.keys())


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        (THREE, {}),
        (SCORE, {"mode": "lora", "layer_decay": 0.7, "pool": "attention"}),
        (SCORE, {"mode": "head", "pool": "cls", "head": "linear"}),
        (None, {}),
        (None, {"mode": "lora"}),
    ],
)
def test_shared_work_has_the_result_of_one(reader, tmp_path, what, changes) -> None:
    _learn(reader, tmp_path / "alone", what, changes, ALONE)
    _in_processes(2, _learn, reader, tmp_path, what, changes)
    _check_alike(tmp_path, tmp_path / "alone", 2)


@pytest.mark.parametrize("pool", ["mean", "cls", "attention", None])
@pytest.mark.parametrize("mode", ["full", "lora", "head"])
@pytest.mark.parametrize("kind", KINDS)
def test_all_that_learns_has_a_part_in_each_step(kind, mode, pool) -> None:
    """Else the processes would wait for gradients that never come. Pool None: a forecaster."""
    autoencoder = small_network(kind)
    model = LabelModel(autoencoder, 0.0, pool=pool) if pool else Forecaster(autoencoder, 10)
    choose_learners(
        autoencoder, replace(EXACT, mode=mode, lora_rank=2), decodes=pool is None, seed=0
    )
    signal = window(autoencoder.config)
    everything = torch.arange(autoencoder.tokenizer.tokens).expand(len(signal), -1)
    model(*((signal, everything) if pool else (signal,))).sum().backward()
    learning = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert learning
    assert not [name for name, weight in learning.items() if weight.grad is None]


def test_all_end_when_nothing_gets_better(reader, tmp_path) -> None:
    changes = {"learning_rate": 1e-9, "patience": 2, "epochs": 9}
    _in_processes(2, _learn, reader, tmp_path, SCORE, changes)
    rows = [row for row in _rows(tmp_path) if "val_loss" in row]
    best = min(rows, key=lambda row: row["val_loss"])["epoch"]
    assert rows[-1]["epoch"] == best + 2 < 9


def _learn_until_another_is_told_to_stop(
    reader: ShardReader, folder: Path, what: TargetSettings, changes: dict, ranks: Ranks
) -> None:
    """The first process sends a SIGUSR1 to the last one after its first step."""
    (folder / f"pid-{ranks.rank}").write_text(str(os.getpid()))

    def report(row: dict) -> None:
        if row["step"] == 1:
            os.kill(int((folder / f"pid-{ranks.world - 1}").read_text()), signal.SIGUSR1)

    with stop_signals() as stop:
        try:
            _learn(reader, folder, what, changes, ranks, report=report, stop=stop)
        except InterruptedTrainingError as error:
            (folder / f"told-{ranks.rank}.txt").write_text(error.what)


@pytest.mark.faults
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_signal_to_one_stops_all_and_others_may_go_on(reader, tmp_path, before, after) -> None:
    changes = {"mode": "lora"}
    _learn(reader, tmp_path / "alone", SCORE, changes, ALONE)
    if before == 1:
        _learn_until_another_is_told_to_stop(reader, tmp_path, SCORE, changes, ALONE)
    else:
        job = _learn_until_another_is_told_to_stop
        _in_processes(before, job, reader, tmp_path, SCORE, changes)
    told = [(tmp_path / f"told-{rank}.txt").read_text() for rank in range(before)]
    (step,) = {int(re.search(r"after step (\d+) of at most 9", each)[1]) for each in told}
    assert "SIGUSR1" in told[-1]
    assert (tmp_path / f"step-{step:08d}.safetensors").exists()
    if after == 1:
        _learn(reader, tmp_path, SCORE, changes, ALONE)
    else:
        _in_processes(after, _learn, reader, tmp_path, SCORE, changes)
    _check_alike(tmp_path, tmp_path / "alone", after)


def _repeat(reader: ShardReader, folder: Path, ranks: Ranks) -> None:
    around = Circumstances(Checkpoints(folder, str), lambda row: None, StopRequest(), ranks=ranks)
    settings = replace(EXACT, epochs=1, mode="head")
    data = labelled_data(reader, SCORE, CONFIG.timepoints)

    def once(seed: int, own: Circumstances):
        model = untrained(head=head_card(SCORE, settings, data).to_dict())
        given = {"kind": "regression", "mask_ratio": 0.5, "seed": seed, "around": own}
        return model, finetune(model, reader, data, settings, **given)

    done = repeat(once, 3, 1, around)
    (folder / f"told-{ranks.rank}.json").write_text(json.dumps(done.summary()))


def test_all_processes_keep_the_same_repeat(reader, tmp_path) -> None:
    _in_processes(2, _repeat, reader, tmp_path)
    first, second = ((tmp_path / f"told-{rank}.json").read_text() for rank in range(2))
    assert first == second
    assert json.loads(first)["repeats"] == 3


def test_the_command_shares_the_work_and_writes_once(study, tmp_path) -> None:
    """As `torchrun` starts it; the options that say how it is done make no other training."""
    own = type(study)(shutil.copytree(study.root, tmp_path / "study"))
    pretrain(own.root)
    command("score", own.root)
    folder = own.path("finetuned", run="brainlm", target="score").parent
    expected = load_model(folder).model.state_dict()
    (fingerprint,) = [path.name for path in (folder / "checkpoints").iterdir()]
    shutil.rmtree(folder)

    config = json.loads(own.path("config").read_text())
    config["finetune"] |= {"processes": 2}
    config["finetune"]["targets"].append({"name": "another"})
    own.path("config").write_text(json.dumps(config))
    done = [
        subprocess.Popen(
            [sys.executable, "-m", "brainlm", "finetune", "--target", "score", "--study", own.root],
            env={**os.environ, "RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
            | {"MASTER_PORT": port},
            stdout=subprocess.PIPE,
            text=True,
        )
        for port in [str(_free_port())]
        for rank in ("0", "1")
    ]
    told = [process.communicate(timeout=300)[0] for process in done]
    assert [process.returncode for process in done] == [0, 0]
    assert "epoch 1: val_loss" in told[0] and "fine-tuned on score" in told[0]
    assert told[1] == ""
    assert [path.name for path in (folder / "checkpoints").iterdir()] == [fingerprint]
    found = load_model(folder).model.state_dict()
    for name in ("head.0.weight", "autoencoder.encoder.0.mlp.0.weight"):
        assert (found[name] - expected[name]).abs().max() <= TOLERANCE * expected[name].abs().max()
