"""Killed runs, and datasets with every known fault."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml

from brainlm.layout import Study

from ..unit.synthetic_cohort import make_shards, write_study
from . import runner


def _run_and_kill_everything(command: list[str], when: Callable[[], bool]) -> bool:
    """Start the command and SIGKILL it with all its children; False if it ended before."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=runner.environment(),
    )
    while not when():
        if process.poll() is not None:
            return False
        time.sleep(0.02)
    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    for child in family:
        if child.is_running():
            child.kill()
    process.wait()
    psutil.wait_procs(family, timeout=10)
    return True


def _after(seconds: float) -> Callable[[], bool]:
    """Whether so many seconds have passed since the first time it was asked."""
    began: list[float] = []

    def passed() -> bool:
        began.append(time.monotonic())
        return began[-1] - began[0] >= seconds

    return passed


@pytest.mark.faults
def test_a_workflow_killed_at_random_times_ends_with_the_same_bytes(
    demo: Path, demo_copy: Path
) -> None:
    """From the raw files of one recording to the model; a run lifts the lock of a killed one."""
    study = demo_copy / "study"
    victim = sorted(study.rglob("*_timeseries.parquet"))[0].name.split("_space-")[0]
    for made in (f"derivatives/brainlm/{victim.split('_')[0]}", "cohort", "shards", "models/tiny"):
        shutil.rmtree(study / made)
    draw = random.Random(0)
    # After a job has begun, not after some seconds, which mean another one on each machine.
    for job in (f"coregister-bold/**/{victim}", f"confounds/**/{victim}", "pretrain"):
        (log,) = (study / "logs").glob(f"{job}.log")
        pause = _after(draw.uniform(0, 1.5))
        log.unlink()
        command = runner.snakemake_command(study, "pretrain")
        assert _run_and_kill_everything(
            command, lambda log=log, pause=pause: log.exists() and pause()
        )
    done = runner.snakemake(study, "pretrain")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert runner.digest_tree(study) == runner.digest_tree(demo / "study")


@pytest.mark.nightly
@pytest.mark.faults
@pytest.mark.parametrize("seed", [0, 1])
def test_a_demo_killed_at_random_times_ends_with_the_same_bytes(
    demo: Path, tmp_path: Path, seed: int
) -> None:
    """The same command completes a half-made phantom, too."""
    command = runner.demo_command(tmp_path)
    draw = random.Random(seed)
    for _ in range(3):
        assert _run_and_kill_everything(command, _after(draw.uniform(2, 25)))
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=runner.environment()
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    resumed, unbroken = runner.digest_tree(tmp_path), runner.digest_tree(demo)
    assert resumed == unbroken


#: Kind of fault -> (eligible, a word of the reason, or of the note where it was mended).
CORRUPTIONS = {
    "missing-tr": (False, "RepetitionTime"),
    "tr-in-ms": (True, "ms"),
    "truncated-gz": (False, "truncated"),
    "nan-volumes": (False, "NaN"),
    "wrong-affine": (False, "overlap"),
    "too-short": (False, "20 volumes"),
    "duplicate-id": (False, "more than one file"),
    "empty-t1w": (True, "T1w"),
    "uneven-runs": (True, "volumes"),
    # Mirrored data with an unchanged header: nothing at this stage can tell.
    "flipped-left-right": (True, ""),
}


@pytest.mark.slow
def test_every_known_fault_is_told_and_the_rest_finishes(tmp_path: Path) -> None:
    bids, study = tmp_path / "bids", tmp_path / "study"
    kinds = [part for kind in CORRUPTIONS for part in ("--corrupt", kind)]
    size = ("--subjects", 1, "--two-runs", 0, "--two-sessions", 0, "--volumes", 60)
    made = runner.brainlm("phantom", bids, *size, "--voxel-mm", 6, "--t1w-mm", 4, *kinds)
    assert made.returncode == 0, made.stderr
    settings = (
        "eligibility.min_volumes=50",
        "space.resolution_mm=6",
        "atlas.name=A424approx",
        "normalize.transform=affine",
        "denoise.method=motion24",
    )
    printed = runner.onboard(bids, study, *settings)
    truth = json.loads((bids / "derivatives" / "phantom-truth" / "phantom.json").read_text())
    table = pd.read_parquet(study / "onboarding" / "recordings.parquet")
    healthy = set(table["recording_id"])
    for kind, (eligible, word) in CORRUPTIONS.items():
        subject = truth["corrupted"][kind]["subject"].removeprefix("sub-")
        rows = table[table["subject"] == subject]
        assert len(rows), kind
        healthy -= set(rows["recording_id"])
        assert rows["eligible"].all() == eligible, (kind, rows["reason"].tolist())
        told = " ".join(rows["notes" if eligible else "reason"].fillna(""))
        assert word in told, (kind, told)
    assert len(healthy) == 1
    assert table.set_index("recording_id").loc[sorted(healthy), "eligible"].all()
    assert "eligible" in printed
    done = runner.snakemake(study, "parcellations")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    ineligible = set(table.loc[~table["eligible"], "recording_id"])
    parcellated = {path.name.split("_space-")[0] for path in study.rglob("*_timeseries.parquet")}
    assert parcellated == set(table["recording_id"]) - ineligible


@pytest.mark.slow
def test_a_file_that_breaks_after_onboarding_fails_alone(demo: Path, demo_copy: Path) -> None:
    bids, study = demo_copy / "bids", demo_copy / "study"
    before = runner.digest_tree(study)
    cohort_before = pd.read_parquet(study / "cohort" / "recordings.parquet")
    train = cohort_before.loc[cohort_before["split"] == "train", "recording_id"]
    name = sorted(train)[-1]
    config = study / "config" / "config.yaml"
    as_it_was = config.read_text()
    settings = yaml.safe_load(as_it_was)
    assert settings["finetune"]["targets"]
    # Two subjects are left to train on: enough for a model, too few for a label.
    settings["finetune"]["targets"] = []
    settings["finetune"]["forecast"] = False
    settings["evaluate"]["tasks"] = []
    config.write_text(yaml.safe_dump(settings))
    (victim,) = bids.glob(f"sub-*/**/func/{name}_bold.nii.gz")
    victim.write_bytes(victim.read_bytes()[:5000])
    done = runner.snakemake(study)
    assert done.returncode != 0
    failure = json.loads((study / "qc" / "failures" / f"{name}.json").read_text())
    assert failure["stage"] == "motion"
    assert victim.name in failure["file"]
    assert name in (study / "logs" / "audit.log").read_text()
    # The cohort went on to its report.
    assert failure["what"] in (study / "reports/report.html").read_text()
    exclusions = pd.read_csv(study / "cohort" / "exclusions.tsv", sep="\t")
    assert list(exclusions["recording_id"]) == [name]
    cohort = pd.read_parquet(study / "cohort" / "recordings.parquet")
    assert set(cohort_before["recording_id"]) - set(cohort["recording_id"]) == {name}
    # Mended and onboarded again, only that recording runs anew, and all is as it was.
    config.write_text(as_it_was)
    shutil.copy(demo / victim.relative_to(demo_copy), victim)
    runner.onboard(bids, study)
    planned = runner.snakemake(study, "--dry-run")
    assert runner.planned_jobs(planned.stdout + planned.stderr)["estimate_motion"] == 1
    assert runner.snakemake(study, "pretrain").returncode == 0
    assert not list((study / "qc" / "failures").glob("*.json"))
    made = ("derivatives/", "cohort/", "shards/", "models/tiny/")
    assert _only(made, runner.digest_tree(study)) == _only(made, before) != {}


def _only(folders: tuple[str, ...], digests: dict[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in digests.items() if name.startswith(folders)}


def _long_training(root: Path) -> Study:
    """Some seconds of training, of shards that are there."""
    options = {"pretrain": {"epochs": 60, "batch_size": 2, "device": "cpu", "checkpoint_every": 5}}
    study = write_study(root, {"train": 5, "val": 2, "test": 2}, options=options)
    make_shards(study)
    return study


@pytest.mark.slow
@pytest.mark.faults
def test_a_training_that_is_told_to_stop_is_started_again_by_the_workflow(tmp_path: Path) -> None:
    """As a cluster does before it takes a node away; `retries` of the profile is what helps."""
    broken, whole = (_long_training(tmp_path / name) for name in ("broken", "whole"))
    only = ("--allowed-rules", "pretrain_model", "--", "models/brainlm/model.safetensors")
    command = runner.snakemake_command(broken.root, *only)
    workflow = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=broken.root
    )
    folder = broken.path("model", run="brainlm").parent / "checkpoints"
    deadline = time.monotonic() + 120
    while not list(folder.glob("*/step-*")) and time.monotonic() < deadline:
        assert workflow.poll() is None
        time.sleep(0.01)
    trainings = [
        child
        for child in psutil.Process(workflow.pid).children(recursive=True)
        if "pretrain" in child.cmdline() and "python" in child.cmdline()[0]
    ]
    trainings[-1].terminate()
    told = workflow.communicate(timeout=300)[0]
    assert workflow.returncode == 0, told
    assert "Stopped by SIGTERM after step" in told
    assert "Going on from step-" in (broken.root / "logs/pretrain.log").read_text()
    unbroken = runner.snakemake(whole.root, *only)
    assert unbroken.returncode == 0, unbroken.stdout + unbroken.stderr
    for name in ("model.safetensors", "metrics.jsonl", "model.json"):
        found, expected = (
            (study.root / "models/brainlm" / name).read_bytes() for study in (broken, whole)
        )
        assert found == expected
