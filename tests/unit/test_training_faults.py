"""What a cluster does to a training: time limits, full disks, processes and files that go away."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from brainlm.layout import Study
from brainlm.train.runtime import StopRequest, seconds_left

from .synthetic_cohort import make_shards, write_study

SPLITS = {"train": 5, "val": 2, "test": 2}
NAMES = ("model.safetensors", "metrics.jsonl", "README.md", "model.json")
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
    study = _study(tmp_path_factory.mktemp("unbroken") / "study")
    done = _pretrain(study)
    assert done.returncode == 0, done.stderr
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


def test_before_the_time_limit_it_saves_and_stops_by_itself(unbroken, tmp_path) -> None:
    study = _study(tmp_path / "study")
    done = _pretrain(study, SLURM_JOB_END_TIME=f"{time.time() + 119:.0f}")
    assert done.returncode == 1
    assert "Stopped by the time limit of the job after step 1 of 9" in done.stderr
    again = _pretrain(study)
    assert "Going on from step-00000001" in again.stdout
    assert _results(study) == unbroken
