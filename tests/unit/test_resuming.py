"""Whatever kills a training, it ends with the same bytes."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from brainlm.cli.pretrain import pretrain as command
from brainlm.errors import InputError
from brainlm.shards.reader import ShardReader
from brainlm.train.checkpointing import best_step
from brainlm.train.runtime import InterruptedTrainingError, stop_signals

from .small_training import SPLITS, STEPS, KilledError, train, train_through_kills, with_
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


@pytest.fixture(scope="module", params=["adam", "muon"])
def all_options(reader, request, tmp_path_factory):
    """A training with all that a checkpoint has to hold."""
    torch.set_num_threads(1)
    settings = with_(accumulate=2, ema_decay=0.8, precision="bf16-full", optimizer=request.param)
    return settings, train(reader, tmp_path_factory.mktemp("options"), settings=settings)


@pytest.mark.faults
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_killed_at_random_steps_it_ends_with_the_same_bytes(
    reader, unbroken, tmp_path, seed
) -> None:
    result, kills = train_through_kills(reader, tmp_path, seed, (1, 5))
    assert kills >= 2
    assert result == unbroken


@pytest.mark.faults
@pytest.mark.parametrize("seed", [3, 4])
def test_masters_and_running_means_survive_being_killed(
    reader, all_options, tmp_path, seed
) -> None:
    settings, expected = all_options
    result, kills = train_through_kills(reader, tmp_path, seed, (2, 6), settings=settings)
    assert kills >= 2
    assert result == expected


def test_a_spoilt_checkpoint_falls_back_to_the_one_before(reader, unbroken, tmp_path) -> None:
    def report(row) -> None:
        if row["step"] == 8:
            raise KilledError

    with pytest.raises(KilledError):
        train(reader, tmp_path, report=report)
    kept = sorted((tmp_path / "fingerprint").glob("step-*"))
    assert [path.stem for path in kept] == ["step-00000004", "step-00000006"]
    kept[-1].write_bytes(kept[-1].read_bytes()[:1000])
    told: list[str] = []
    assert train(reader, tmp_path, say=told.append) == unbroken
    assert "step-00000006.safetensors cannot be used" in told[0]
    assert told[1] == "Going on from step-00000004.safetensors"


def test_of_two_at_once_the_first_gives_way(reader, unbroken, tmp_path) -> None:
    """As when a job is requeued whose old process has not ended: the log holds each row once."""
    begun = []

    def report(row) -> None:
        if row["step"] == 5 and not begun:
            begun.append(train(reader, tmp_path))

    with pytest.raises(InputError, match="Another process has taken this training up") as caught:
        train(reader, tmp_path, report=report)
    log = tmp_path / "fingerprint" / "metrics.jsonl"
    assert caught.value.file == str(log)
    assert begun == [unbroken]
    assert log.read_bytes() == unbroken[1]


def test_the_last_checkpoints_and_the_best_are_kept(reader, tmp_path) -> None:
    train(reader, tmp_path, settings=with_(checkpoint_every=1))
    folder = tmp_path / "fingerprint"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = {row["val_loss"]: row["step"] for row in rows if "val_loss" in row}
    kept = {int(path.stem.removeprefix("step-")) for path in folder.glob("step-*")}
    assert kept == {STEPS - 1, STEPS, losses[min(losses)]}
    assert best_step([{"val_loss": 2, "step": 3}, {"val_loss": 1, "step": 6}, {"step": 7}]) == 6
    assert best_step([{"step": 7, "loss": 0.1}]) == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_polite_signal_saves_and_stops(reader, unbroken, tmp_path, name) -> None:
    def report(row) -> None:
        if row["step"] == 4:  # which is told while step 5 is under way
            os.kill(os.getpid(), getattr(signal, name))

    before = signal.getsignal(signal.SIGTERM)
    stopped = pytest.raises(InterruptedTrainingError, match=f"{name} after step 5 of 12")
    with stop_signals() as stop, stopped as caught:
        train(reader, tmp_path, report=report, stop=stop)
    assert caught.value.exit_code == 1
    assert signal.getsignal(signal.SIGTERM) is before
    assert (tmp_path / "fingerprint/step-00000005.safetensors").exists()
    assert train(reader, tmp_path) == unbroken


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
