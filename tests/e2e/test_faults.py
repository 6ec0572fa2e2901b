"""Killed runs, and datasets with every known fault."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from . import runner


def _run_and_kill_everything(study: Path, after: float) -> bool:
    """Start the workflow and SIGKILL it with all its children; False if it ended before."""
    log = (study.parent / "killed.log").open("a")
    process = subprocess.Popen(
        runner.snakemake_command(study), stdout=log, stderr=log, start_new_session=True
    )
    try:
        process.wait(timeout=after)
        return False
    except subprocess.TimeoutExpired:
        family = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
        for child in family:
            if child.is_running():
                child.kill()
        process.wait()
        psutil.wait_procs(family, timeout=10)
        return True


@pytest.mark.faults
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_killed_run_resumes_to_the_same_bytes(
    onboarded: Path, finished: Path, tmp_path: Path, seed: int
) -> None:
    study = tmp_path / "study"
    shutil.copytree(onboarded, study, symlinks=True)
    draw = random.Random(seed)
    kills = 0
    for _ in range(4):
        kills += _run_and_kill_everything(study, after=draw.uniform(4, 25))
        if any((study / ".snakemake" / "locks").glob("*")):
            runner.snakemake(study, "--unlock")
    assert kills >= 2
    done = runner.snakemake(study)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    resumed, unbroken = runner.digest_tree(study), runner.digest_tree(finished)
    assert resumed == unbroken


@pytest.mark.faults
def test_a_killed_demo_goes_on_by_the_same_command(tmp_path: Path) -> None:
    """`brainlm demo` lifts the lock that a killed run left, and completes the phantom."""
    import sys

    command = [sys.executable, "-m", "brainlm", "demo", "--small", "--directory", str(tmp_path)]
    for moment in ("phantom", "workflow"):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        waited_for = tmp_path / ("bids" if moment == "phantom" else "study/.snakemake/locks")
        deadline = time.monotonic() + 300
        while not waited_for.exists() or not any(waited_for.iterdir()):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.1)
        time.sleep(1)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert any((tmp_path / "study" / ".snakemake" / "locks").iterdir())
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.strip().splitlines()[-1].endswith("report.html")


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


def test_every_known_fault_is_told_and_the_rest_finishes(tmp_path: Path) -> None:
    bids, study = tmp_path / "bids", tmp_path / "study"
    kinds = [part for kind in CORRUPTIONS for part in ("--corrupt", kind)]
    runner.make_phantom(bids, *kinds)
    printed = runner.onboard(bids, study)
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
    assert table.set_index("recording_id").loc[sorted(healthy), "eligible"].all()
    assert "eligible" in printed
    done = runner.snakemake(study, "parcellations")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    ineligible = set(table.loc[~table["eligible"], "recording_id"])
    parcellated = {path.name.split("_space-")[0] for path in study.rglob("*_timeseries.parquet")}
    assert parcellated == set(table["recording_id"]) - ineligible


def test_a_file_that_breaks_after_onboarding_fails_alone(
    onboarded: Path, phantom: Path, tmp_path: Path
) -> None:
    bids, study = tmp_path / "bids", tmp_path / "study"
    shutil.copytree(phantom, bids)
    runner.onboard(bids, study)
    victim = sorted(bids.glob("sub-*/**/func/*_bold.nii.gz"))[1]
    victim.write_bytes(victim.read_bytes()[:5000])
    done = runner.snakemake(study)
    assert done.returncode != 0
    name = victim.name.removesuffix("_bold.nii.gz")
    failure = json.loads((study / "qc" / "failures" / f"{name}.json").read_text())
    assert failure["stage"] == "motion"
    assert victim.name in failure["file"]
    assert (study / "reports" / "report.html").exists(), "the cohort goes on to its report"
    exclusions = pd.read_csv(study / "cohort" / "exclusions.tsv", sep="\t")
    assert list(exclusions["recording_id"]) == [name]
    assert name in (study / "logs" / "audit.log").read_text()
    cohort = pd.read_parquet(study / "cohort" / "recordings.parquet")
    assert name not in set(cohort["recording_id"])
    # Mended and onboarded again, only that recording runs anew, and all is well.
    shutil.copy(phantom / victim.relative_to(bids), victim)
    runner.onboard(bids, study)
    planned = runner.snakemake(study, "--dry-run")
    assert runner.planned_jobs(planned.stdout + planned.stderr)["estimate_motion"] == 1
    assert runner.snakemake(study).returncode == 0
    assert not list((study / "qc" / "failures").glob("*.json"))
