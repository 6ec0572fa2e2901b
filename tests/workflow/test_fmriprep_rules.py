"""The rule of fMRIPrep: what is planned, and what makes a job stale."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml

from brainlm.dag import Dag
from brainlm.dag_fmriprep import FmriprepJobs
from brainlm.errors import InputError
from brainlm.fmriprep.images import find_image, write_pin
from brainlm.resources import share_dir
from tests.unit.fmriprep_study import make_machine, make_study, recorded

RULES = share_dir() / "workflow" / "rules"
SNAKEFILE = f"""
configfile: "config/config.yaml"
include: "{RULES / "common.smk"}"
include: "{RULES / "fmriprep.smk"}"

rule jobs:
    default_target: True
    input:
        fmriprep_jobs.manifests(),
"""
SIF = "engine: fmriprep\nspace: {template: MNI152NLin6Asym}\nfmriprep: {image: ../image.sif}\n"


def jobs_of(study: Path) -> FmriprepJobs:
    content = yaml.safe_load((study / "config" / "config.yaml").read_text())
    return FmriprepJobs(Dag(content, study), study)


def named(job: str) -> SimpleNamespace:
    return SimpleNamespace(job=job)


def snakemake(study: Path, environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    (study / "Snakefile").write_text(SNAKEFILE)
    command = [sys.executable, "-m", "snakemake", "--cores", "4", "--keep-going"]
    done = subprocess.run(
        [*command, "--resources", "mem_mb=40000", *arguments],
        cwd=study,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_recordings_find_the_manifest_of_their_job(tmp_path: Path) -> None:
    jobs = jobs_of(make_study(tmp_path))
    assert jobs.manifests() == [
        "derivatives/fmriprep-jobs/sub-01.json",
        "derivatives/fmriprep-jobs/sub-02.json",
    ]
    wildcards = SimpleNamespace(recording="sub-01_task-rest_run-2")
    assert jobs.manifest_of(wildcards) == "derivatives/fmriprep-jobs/sub-01.json"
    assert jobs.raw(named("sub-02")) == [
        "../bids data/sub-02/func/sub-02_task-rest_bold.nii.gz",
        "../bids data/sub-02/anat/sub-02_T1w.nii.gz",
    ]
    assert jobs.mem_mb(named("sub-01")) > 12_000
    assert jobs.runtime(named("sub-01")) > jobs.runtime(named("sub-02"))
    with pytest.raises(InputError, match="sub-03 is no job"):
        jobs.raw(named("sub-03"))


@pytest.mark.parametrize(
    ("column", "value"), [("slice_timing", "[0.0, 1.0]"), ("pe_direction", "i"), ("tr", 1.25)]
)
def test_a_mended_json_file_makes_its_job_stale(tmp_path: Path, column: str, value: object) -> None:
    """fMRIPrep reads these beside the images, whose bytes stay the same."""
    study = make_study(tmp_path)
    before = {name: jobs_of(study).content(named(name)) for name in ("sub-01", "sub-02")}
    path = study / "onboarding" / "recordings.parquet"
    table = pd.read_parquet(path)
    table.loc[0, column] = value
    table.to_parquet(path)
    assert jobs_of(study).content(named("sub-01")) != before["sub-01"]
    assert jobs_of(study).content(named("sub-02")) == before["sub-02"]


def test_a_new_image_or_a_mended_file_makes_a_job_stale_and_no_other(tmp_path: Path) -> None:
    from dataclasses import replace

    study = make_study(tmp_path)
    before = {name: jobs_of(study).content(named(name)) for name in ("sub-01", "sub-02")}
    path = study / "onboarding" / "recordings.parquet"
    table = pd.read_parquet(path)
    table.loc[0, "bold_sha256"] = "0" * 64
    table.to_parquet(path)
    after = jobs_of(study)
    assert after.content(named("sub-01")) != before["sub-01"]
    assert after.content(named("sub-02")) == before["sub-02"]
    write_pin(replace(find_image("fmriprep"), digest=f"sha256:{'0' * 64}"), study)
    assert jobs_of(study).content(named("sub-02")) != before["sub-02"]


def test_where_things_lie_makes_nothing_stale_and_what_is_asked_for_does(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    options = jobs_of(study).study.options("fmriprep")
    config = study / "config" / "config.yaml"
    config.write_text("bids_dir: ../bids data\ncontainers: {work_dir: /scratch, runtime: docker}\n")
    assert jobs_of(study).study.options("fmriprep") == options
    config.write_text("bids_dir: ../bids data\nfmriprep: {freesurfer: true}\n")
    assert jobs_of(study).study.options("fmriprep") != options


def test_snakemake_runs_a_job_for_each_subject_and_goes_on_past_bad_data(tmp_path: Path) -> None:
    """Through the shell, with blanks in every path; the engine is the stand-in."""
    machine = make_machine(tmp_path, "apptainer")
    machine["PATH"] = f"{machine['PATH']}:{os.environ['PATH']}"
    study = make_study(tmp_path, config=SIF)
    code, said = snakemake(study, machine)
    assert code == 0, said
    folder = study / "derivatives" / "fmriprep-jobs"
    assert sorted(path.name for path in folder.glob("*.json")) == ["sub-01.json", "sub-02.json"]
    assert len(recorded(machine)) == 2
    command = recorded(machine)[0]
    assert command[command.index("--nprocs") + 1] == "4"
    assert snakemake(study, machine)[1].count("Nothing to be done") == 1

    (folder / "sub-01.json").unlink()
    code, said = snakemake(study, {**machine, "FAKE_MODE": "crash"})
    assert code == 0, said
    assert (folder / "sub-01.json").stat().st_size == 0
    assert len(list((study / "qc" / "failures").iterdir())) == 2
    assert (folder / "sub-02.json").stat().st_size > 0
