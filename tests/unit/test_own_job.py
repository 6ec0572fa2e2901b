"""A job's way back into the queue, as far as it goes without a queue."""

from __future__ import annotations

import math
import os
import stat
import time
from pathlib import Path

import pytest

from brainlm.cli.pretrain import pretrain
from brainlm.cluster.own_job import name_of, put_back, seconds_left, seconds_of
from brainlm.files import read_json
from brainlm.layout import Study
from brainlm.train.runtime import InterruptedTrainingError

from .synthetic_cohort import make_shards, write_study


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder first on PATH; what is said to squeue and scontrol there goes to `asked`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    for name in ("squeue", "scontrol"):
        script = folder / name
        script.write_text(
            f'#!/bin/sh\necho "$(basename $0) $*" >> {folder}/asked\ncat {folder}/{name}.says\n'
            f"test ! -e {folder}/{name}.fails || {{ echo not allowed >&2; exit 1; }}\n"
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        (folder / f"{name}.says").write_text("RUNNING rule_x\n" if name == "squeue" else "")
    return folder


def test_the_name_of_a_job() -> None:
    assert name_of({}) is None
    assert name_of({"SLURM_JOB_ID": "7"}) == "7"
    task = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    assert name_of(task) == "7_3"


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("3:00", 180),
        ("59", 59),
        ("1:02:03", 3723),
        ("2-00:00:10", 172810),
        ("UNLIMITED", math.inf),
        ("INVALID", math.inf),
        ("", math.inf),
    ],
)
def test_times_as_squeue_tells_them(told: str, seconds: float) -> None:
    assert seconds_of(told) == seconds


def test_slurm_is_asked_for_the_time_left(commands: Path) -> None:
    (commands / "squeue.says").write_text("10:00\n")
    assert seconds_left({"SLURM_JOB_ID": "7"}) == 600
    assert seconds_left({}) == math.inf
    (commands / "squeue.says").write_text("0:00\n")  # by a clock that is wrong
    assert seconds_left({"SLURM_JOB_ID": "7"}) == math.inf
    (commands / "squeue.fails").touch()
    assert seconds_left({"SLURM_JOB_ID": "7"}) == math.inf


def test_a_job_is_put_back_for_as_long_as_it_gets_further(commands: Path, tmp_path: Path) -> None:
    notes = tmp_path / "requeued.json"
    assert put_back("7", notes, 10) is None
    assert put_back("7", notes, 20) is None
    assert (commands / "asked").read_text().count("scontrol requeue 7\n") == 2
    assert put_back("7", notes, 20) == "it was at step 20 the time before, and has come no further"
    assert (commands / "asked").read_text().count("scontrol") == 2
    assert read_json(notes) == {"step": 20, "times": 3}


def test_a_cancelled_job_stays_cancelled(commands: Path, tmp_path: Path) -> None:
    (commands / "squeue.says").write_text("COMPLETING rule_x\n")
    assert put_back("7", tmp_path / "requeued.json", 10) == "its state is COMPLETING"
    assert "scontrol" not in (commands / "asked").read_text()


def test_a_job_with_a_whole_workflow_in_it_is_let_alone(commands: Path, tmp_path: Path) -> None:
    (commands / "squeue.says").write_text("RUNNING (null)\n")
    told = put_back("7", tmp_path / "requeued.json", 10)
    assert told == "it was not submitted by Snakemake for a rule"
    assert "scontrol" not in (commands / "asked").read_text()


def test_what_slurm_says_against_it_is_told(commands: Path, tmp_path: Path) -> None:
    (commands / "scontrol.fails").touch()
    assert put_back("7", tmp_path / "requeued.json", 10) == "not allowed"
    for name in ("squeue", "scontrol"):
        (commands / name).unlink()
    assert "squeue" in str(put_back("7", tmp_path / "requeued.json", 20))


@pytest.mark.parametrize("asked", [True, False])
def test_a_time_limit_without_time_to_train_ends_in_a_failure(
    commands: Path, tmp_path: Path, monkeypatch, capsys, asked: bool
) -> None:
    study = _study(tmp_path, stop_before_end_s=3000)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_END_TIME", f"{time.time() + 2900:.0f}")
    with pytest.raises(InterruptedTrainingError, match="after step 1 of 9"):
        pretrain(study.root, requeue=asked)
    told = capsys.readouterr().err
    assert ("Job 7 is not put back into the queue: its time limit leaves no time" in told) == asked
    assert not (commands / "asked").exists()


def _study(folder: Path, **options: float) -> Study:
    settings = {"epochs": 3, "batch_size": 2, "device": "cpu", **options}
    study = write_study(
        folder / "study", {"train": 5, "val": 2, "test": 2}, options={"pretrain": settings}
    )
    make_shards(study)
    return study
