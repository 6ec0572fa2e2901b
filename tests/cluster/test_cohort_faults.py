"""Faults of a cohort on the cluster: bad data, too little memory, a disk that is full."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from . import studies
from .slurm import Cluster

#: Memory that no attempt's Snakemake finds enough in, and that the second one does, MB.
_TOO_LITTLE = "process_batch:mem_mb=60"
_FIRST_TOO_LITTLE = "process_batch:mem_mb=60 if attempt == 1 else 3000"


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two recordings in one batch, its atlas made."""
    study = studies.make_tables_study(tmp_path_factory.mktemp("few") / "whole", 2)
    made = studies.runner.snakemake(study, "prepare_atlas_table")
    assert made.returncode == 0, made.stderr[-3000:]
    return study


@pytest.fixture(scope="module")
def undisturbed(few: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Its files when nothing happens, made on this machine."""
    study = studies.copy_study(few, tmp_path_factory.mktemp("undisturbed") / "whole")
    batches = ("--config", "jobs={recordings_per_job: 2, cores_per_job: 1}")
    done = studies.runner.snakemake(study, "parcellations", *batches)
    assert done.returncode == 0, done.stderr[-3000:]
    return studies.bytes_of(study)


def _run(lab: Cluster, study: Path, *arguments: str, per_job: int = 2) -> tuple[int, str]:
    """The exit code of a workflow run on the lab, and what it said."""
    with studies.running(lab, study, *arguments, per_job=per_job) as run:
        return run.end(900), run.said()


@pytest.mark.nightly
def test_one_corrupt_recording_of_twenty_does_not_stop_the_others(
    lab: Cluster, tmp_path: Path
) -> None:
    """It is in the summary with its reason, and the exit code says that somebody is missing."""
    study = studies.make_tables_study(tmp_path / "twenty", 20)
    victim = tmp_path / "twenty" / "tables" / "1007.npy"
    victim.write_bytes(victim.read_bytes()[:5000])
    code, said = _run(lab, study, "qc/audit.ok", per_job=10)
    assert code != 0
    lost = "sub-1007_task-rest"
    whole = {f"sub-{1000 + number}_task-rest" for number in range(20)} - {lost}
    made = [path for path in study.rglob("*_timeseries.parquet") if path.stat().st_size]
    assert {path.name.split("_space-")[0] for path in made} == whole
    cohort = pd.read_parquet(study / "cohort" / "recordings.parquet")
    assert set(cohort["recording_id"]) == whole
    audit = pd.read_csv(study / "qc" / "audit.tsv", sep="\t").set_index("recording_id")
    assert audit["status"].value_counts().to_dict() == {"included": 19, "failed": 1}
    why = "has changed since it was onboarded"
    assert why in audit.loc[lost, "reason"]
    assert re.search(rf"^{lost} .*{why}", said, re.M)


def test_a_job_out_of_memory_is_tried_again_with_more(
    lab: Cluster, few: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    study = studies.copy_study(few, tmp_path / "whole")
    code, said = _run(lab, study, "--set-resources", _FIRST_TOO_LITTLE, "--", "parcellations")
    assert code == 0, said[-5000:]
    # Slurm calls a job FAILED that it kills for its memory without cgroups, as this one does.
    assert [job["state"] for job in _jobs_of(lab, study)] == ["FAILED", "COMPLETED"]
    assert studies.bytes_of(study) == undisturbed


@pytest.mark.nightly
def test_a_job_that_never_has_enough_memory_fails_and_its_log_says_why(
    lab: Cluster, few: Path, tmp_path: Path
) -> None:
    study = studies.copy_study(few, tmp_path / "whole")
    options = ("--set-resources", _TOO_LITTLE, "--retries", "0", "--", "parcellations")
    code, said = _run(lab, study, *options)
    assert code != 0
    (job,) = _jobs_of(lab, study)
    assert job["state"] == "FAILED"
    (named,) = re.findall(r"submitted with SLURM jobid \d+ \(log: (\S+)\)", said)
    assert "exceeded memory limit" in Path(named).read_text()
    assert not (study / "jobs" / "batch-0000.tsv").exists()


def _jobs_of(lab: Cluster, study: Path) -> list[dict[str, str]]:
    """The Slurm jobs of this study's batches."""
    mine = lab.run("squeue", "-h", "--states=all", "-o", "%A|%Z").splitlines()
    ids = {line.split("|")[0] for line in mine if line.split("|")[1] == str(study)}
    found = [job for job in studies.workflow_jobs(lab) if job["id"] in ids]
    return sorted(found, key=lambda job: int(job["id"]))


@contextlib.contextmanager
def _small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """A file system of that size on `folder` for the block."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.nightly
def test_a_full_disk_is_told_and_the_same_command_goes_on_when_there_is_room(
    lab: Cluster, few: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    with _small_disk(tmp_path / "disk", 8000):
        study = studies.copy_study(few, tmp_path / "disk" / "whole")
        ballast = tmp_path / "disk" / "ballast"
        ballast.write_bytes(bytes(shutil.disk_usage(study).free - 150_000))
        code, said = _run(lab, study, "--retries", "0", "--", "parcellations")
        assert code != 0
        assert "No space is left" in said + _logs(study)
        ballast.unlink()
        code, said = _run(lab, study, "--", "parcellations")
        assert code == 0, said[-5000:]
        assert studies.bytes_of(study) == undisturbed


def _logs(study: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in (study / "logs").rglob("*.log"))
