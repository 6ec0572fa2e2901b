"""What a cluster does to a training: time limits, full disks, processes and files that go away."""

from __future__ import annotations

import errno
import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from brainlm.cli.pretrain import pretrain as command
from brainlm.errors import ResourceError
from brainlm.layout import Study
from brainlm.shards.tensorfile import load_tensors, save_tensors
from brainlm.train import checkpointing
from brainlm.train.checkpointing import Checkpoints
from brainlm.train.distributed import ALONE
from brainlm.train.runtime import InterruptedTrainingError, StopRequest, seconds_left

from .synthetic_cohort import make_shards, write_study

SPLITS = {"train": 5, "val": 2, "test": 2}
#: What a training ends with; the other files tell its options too.
NAMES = ("model.safetensors", "metrics.jsonl")
NOW = 1_800_000_000.0
JOB = {"SLURM_JOB_START_TIME": f"{NOW - 3600:.0f}", "SLURM_JOB_END_TIME": f"{NOW + 600:.0f}"}

pytestmark = pytest.mark.faults


def _pretrain(study: Study, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the real command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "brainlm", "pretrain", "--study", str(study.root)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def _goes_on(study: Study, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command again, here; the checkpoint that it went on from."""
    capsys.readouterr()
    command(study.root)
    return capsys.readouterr().out.partition("Going on from ")[2].partition(".safetensors")[0]


def _results(study: Study) -> dict[str, bytes]:
    folder = study.path("model", run="brainlm").parent
    return {name: (folder / name).read_bytes() for name in NAMES}


def _study(folder: Path, **pretrain: object) -> Study:
    """Three steps an epoch."""
    options = {"pretrain": {"epochs": 3, "batch_size": 2, "device": "cpu", **pretrain}}
    study = write_study(folder, SPLITS, options=options)
    make_shards(study)
    return study


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> dict[str, bytes]:
    torch.set_num_threads(1)
    study = _study(tmp_path_factory.mktemp("unbroken") / "study")
    command(study.root)
    return _results(study)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 480.0),
        ({"SLURM_JOB_START_TIME": ""}, math.inf),
        ({"SLURM_JOB_END_TIME": f"{NOW + 60}"}, 0.0),  # less than it takes: one step is done
        ({"SLURM_JOB_END_TIME": f"{NOW - 60}"}, math.inf),  # our clock runs ahead
        ({"SLURM_JOB_START_TIME": f"{NOW + 300}"}, math.inf),  # it lags behind
        ({"SLURM_JOB_START_TIME": f"{NOW + 30}"}, 480.0),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"}, 480.0),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}, math.inf),
    ],
)
def test_the_time_that_is_left_is_told_by_slurm(changes, expected) -> None:
    assert seconds_left({**JOB, **changes}, 120, NOW) == expected
    assert seconds_left({**JOB, **changes}, 0, NOW) == math.inf
    assert seconds_left({}, 120, NOW) == math.inf


def test_a_wall_clock_that_is_set_changes_no_limit(monkeypatch) -> None:
    now = [100.0]
    stop = StopRequest(480.0, clock=lambda: now[0])
    for jump in (-1e9, 1e9):
        monkeypatch.setattr(time, "time", lambda jump=jump: NOW + jump)
        assert stop.wanted is None
    now[0] += 479.9
    assert stop.wanted is None
    now[0] += 0.2
    assert stop.wanted == "the time limit of the job"
    stop.signal = "SIGUSR1"
    assert stop.wanted == "SIGUSR1"
    assert StopRequest().wanted is None


def test_before_the_time_limit_it_saves_and_stops_by_itself(unbroken, tmp_path, capsys) -> None:
    study = _study(tmp_path / "study")
    done = _pretrain(study, SLURM_JOB_END_TIME=f"{time.time() + 119:.0f}")
    assert done.returncode == 1
    assert "Stopped by the time limit of the job after step 1 of 9" in done.stderr
    assert _goes_on(study, capsys) == "step-00000001"
    assert _results(study) == unbroken


class _Counter:
    """A state of one tensor."""

    ranks = ALONE

    def __init__(self) -> None:
        self.value = torch.zeros(1000)

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"value": self.value}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        self.value.copy_(tensors["value"])


def _values(checkpoints: Checkpoints) -> dict[str, float]:
    """Step of each file -> what it holds, all of it the same."""
    found = {}
    for path in sorted(checkpoints.folder.glob("step-*")):
        (value,) = np.unique(load_tensors(path)[0]["value"])
        found[path.stem[-1:]] = float(value)
    return found


@pytest.fixture
def slowly(monkeypatch) -> Iterator[threading.Event]:
    """No checkpoint is written before this is set."""
    may_write = threading.Event()

    def save(*given: object) -> None:
        assert may_write.wait(20)
        save_tensors(*given)

    monkeypatch.setattr(checkpointing, "save_tensors", save)
    yield may_write
    may_write.set()


def test_a_checkpoint_is_of_its_step_though_training_goes_on(slowly, tmp_path) -> None:
    checkpoints, state = Checkpoints(tmp_path, print), _Counter()
    checkpoints.log.append({"step": 1})
    state.value.fill_(1)
    checkpoints.save(1, state)
    state.value.fill_(2)
    checkpoints.log.append({"step": 2})
    assert _values(checkpoints) == {}
    threading.Timer(0.1, slowly.set).start()
    checkpoints.save(2, state)  # waits for the one before
    assert _values(checkpoints)["1"] == 1
    state.value.fill_(3)
    checkpoints.settle()
    assert _values(checkpoints) == {"1": 1, "2": 2}
    (tmp_path / "step-00000002.safetensors").unlink()
    assert Checkpoints(tmp_path, print).resume(state) == 1
    assert state.value.unique().tolist() == [1]
    assert checkpoints.log.rows() == [{"step": 1}]  # as long as it was when the copy was made


def test_the_best_epoch_is_that_of_the_copy(slowly, tmp_path) -> None:
    """One that is validated while the thread writes has no checkpoint yet."""
    checkpoints, state = Checkpoints(tmp_path, print, keep=1), _Counter()
    slowly.set()
    for step in (1, 2):
        checkpoints.log.append({"step": step, "val_loss": step})
        checkpoints.save(step, state)
        checkpoints.settle()
    slowly.clear()
    checkpoints.save(3, state)
    checkpoints.log.append({"step": 4, "val_loss": 0.5})
    slowly.set()
    checkpoints.settle()
    assert set(_values(checkpoints)) == {"1", "3"}


def test_what_the_thread_runs_into_is_raised_at_the_next_occasion(monkeypatch, tmp_path) -> None:
    told: list[str] = []
    checkpoints, state = Checkpoints(tmp_path, told.append), _Counter()
    checkpoints.save(1, state)
    checkpoints.settle()

    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpointing, "save_tensors", full)
    checkpoints.save(2, state)
    with pytest.raises(ResourceError, match="No space is left") as caught:
        checkpoints.save(3, state)
    assert caught.value.file == str(tmp_path / "step-00000002.safetensors")
    checkpoints.settle()  # it is raised once
    with pytest.raises(ResourceError), checkpoints.settled():
        checkpoints.save(4, state)
    with pytest.raises(KeyError), checkpoints.settled():
        checkpoints.save(5, state)
        raise KeyError  # the first error stands
    assert told[-1].startswith("Besides, the last checkpoint could not be written: No space")
    assert {path.name for path in tmp_path.iterdir()} == {
        "metrics.jsonl",
        "step-00000001.safetensors",
    }


#: The real command, whose write of a checkpoint stops half-way, or between write and rename.
STUCK = """
import sys, time
from pathlib import Path
from brainlm.cli import main
from brainlm.train import checkpointing
real = checkpointing.save_tensors
how, reached, study = sys.argv[1:]
def stuck(path, tensors, about):
    real(path, tensors, about)
    if about["step"] == 5:
        if how == "half":
            path.write_bytes(path.read_bytes()[:1000])
        Path(reached).touch()
        time.sleep(60)
checkpointing.save_tensors = stuck
sys.argv = ["brainlm", "pretrain", "--study", study]
main()
"""


@pytest.mark.parametrize("how", ["half", "whole"])
def test_killed_while_the_thread_writes_it_goes_on_from_the_one_before(
    unbroken, tmp_path, capsys, how
) -> None:
    study = _study(tmp_path / "study", checkpoint_every=1)
    reached = tmp_path / "reached"
    call = [sys.executable, "-c", STUCK, how, str(reached), str(study.root)]
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not reached.exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    (folder,) = (study.path("model", run="brainlm").parent / "checkpoints").iterdir()
    (left,) = folder.glob(".tmp-*")
    left.rename(left.with_name(".tmp-gone-1-step-00000005.safetensors"))  # of another machine
    os.utime(folder / "step-00000003.safetensors", (2e9, 2e9))  # clocks mean nothing
    assert _goes_on(study, capsys) == "step-00000004"
    assert not list(folder.glob(".tmp-*"))
    assert _results(study) == unbroken


def _small_disk(folder: Path) -> Iterator[None]:
    """A file system of 1 MB."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("nothing may be mounted here")
        yield
    finally:
        subprocess.run(["umount", str(folder)], capture_output=True, check=False)


def test_a_full_disk_stops_the_training_with_its_name(unbroken, tmp_path, capsys) -> None:
    """Checkpoints of 0.25 MB, and room for three; then the disk is given more of it."""
    study = _study(tmp_path / "study", checkpoint_every=1, keep_checkpoints=9)
    disk = study.path("model", run="brainlm").parent / "checkpoints"
    disk.parent.mkdir(parents=True)
    for _ in _small_disk(disk):
        done = _pretrain(study)
        assert done.returncode == 1
        first, *others = done.stderr.splitlines()
        assert first == "Error: No space is left on the disk (or the quota is used up)"
        assert others[0].startswith(f"  file: {disk}") and others[1].startswith("  fix:  free")
        larger = ["mount", "-o", "remount,size=50m", str(disk)]
        subprocess.run(larger, capture_output=True, check=True)
        assert _goes_on(study, capsys).startswith("step-0000000")
        assert _results(study) == unbroken


def test_a_file_that_may_not_grow_is_told_as_such(unbroken, tmp_path, capsys, monkeypatch) -> None:
    """As with a quota: here a limit on the size of files."""
    study = _study(tmp_path / "study", checkpoint_every=1)
    with monkeypatch.context() as patch, pytest.raises(InterruptedTrainingError):
        patch.setenv("SLURM_JOB_END_TIME", f"{time.time() + 119:.0f}")
        command(study.root)
    done = subprocess.run(
        [sys.executable, "-m", "brainlm", "pretrain", "--study", str(study.root)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "Error: File too large"
    assert "step-0000000" in done.stderr.splitlines()[1]
    assert _goes_on(study, capsys) == "step-00000001"
    assert _results(study) == unbroken
