"""Faults while the workflow runs on a cluster: it ends with the bytes of an undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from brainlm.cluster.family import descendants, started

from . import studies
from .slurm import Cluster
from .studies import Gates, Run, running

#: The second recording of the first batch: when a fault strikes there, the first one is done.
_SECOND = ("adopt-parcels", "sub-1001_task-rest")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of four recordings whose atlas is there: two batches are all that is to be done."""
    study = studies.make_tables_study(tmp_path_factory.mktemp("template") / "whole")
    made = studies.runner.snakemake(study, "prepare_atlas_table")
    assert made.returncode == 0, made.stderr[-3000:]
    return study


@pytest.fixture(scope="module")
def undisturbed(lab: Cluster, template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The files of a run on the cluster that nothing happened to."""
    study = studies.copy_study(template, tmp_path_factory.mktemp("undisturbed") / "whole")
    done = studies.run(lab, study, "parcellations")
    assert done.process.returncode == 0, done.said()[-5000:]
    found = studies.bytes_of(study)
    assert sum(name.endswith("_timeseries.parquet") for name in found) == 4
    return found


@pytest.fixture
def study(template: Path, tmp_path: Path) -> Path:
    """A study of this test alone."""
    return studies.copy_study(template, tmp_path / "whole")


@pytest.fixture
def gates(tmp_path: Path) -> Gates:
    return Gates(tmp_path / "gates")


def _ended_well(run: Run, study: Path, undisturbed: dict) -> None:
    """It went through, and nobody can see that there was a fault."""
    assert run.end() == 0, run.said()[-5000:]
    assert studies.bytes_of(study) == undisturbed
    assert not list((study / ".snakemake" / "brainlm-runs").glob("*"))


def _alive(pid: int) -> bool:
    """And no zombie: who adopts orphans may be slow to hear of their end, or never ask."""
    return started(pid) is not None


def _wait_until_dead(lab: Cluster, pids: list[int]) -> None:
    lab.wait_for("the job's processes end", 30, lambda: not any(map(_alive, pids)))


def _job_of_first_batch(lab: Cluster) -> dict[str, str]:
    (job,) = [
        job
        for job in studies.workflow_jobs(lab, "running")
        if job["comment"] == "rule_process_batch_wildcards_0000"
    ]
    return job


def _states(lab: Cluster, after: int) -> dict[str, list[str]]:
    """State -> what these jobs were about; of jobs later than that number."""
    found: dict[str, list[str]] = {}
    for job in studies.workflow_jobs(lab):
        if int(job["id"]) > after:
            found.setdefault(job["state"], []).append(job["comment"].rpartition("_")[2])
    return {state: sorted(about) for state, about in found.items()}


def _last_job(lab: Cluster) -> int:
    return max((int(job["id"]) for job in lab.jobs()), default=0)


def test_a_cancelled_job_is_run_again_and_leaves_no_process(
    lab: Cluster, study: Path, gates: Gates, undisturbed: dict
) -> None:
    before, gate = _last_job(lab), gates.hold(*_SECOND)
    with running(lab, study, "parcellations", gates=gates) as run:
        held = gates.wait(gate)
        lab.run("scancel", _job_of_first_batch(lab)["id"])
        _wait_until_dead(lab, held)
        gates.open(gate)
        _ended_well(run, study, undisturbed)
    assert _states(lab, before) == {"CANCELLED": ["0000"], "COMPLETED": ["0000", "0001"]}


def test_a_batch_that_is_told_to_end_leaves_no_process(study: Path, gates: Gates) -> None:
    """By `kill` of its command alone, without a cluster that would end the others."""
    gate = gates.hold(*_SECOND)
    command = [sys.executable, "-m", "brainlm", "run-batch", "sub-1000_task-rest"]
    batch = subprocess.Popen(
        [*command, "sub-1001_task-rest", "--study", study],
        env={**os.environ, "PYTHONPATH": gates.path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    held = gates.wait(gate)
    family = descendants(batch.pid)
    assert set(held) <= set(family)
    batch.terminate()
    said = batch.communicate(timeout=60)[1]
    assert batch.returncode == 1
    assert "stopped by SIGTERM" in said
    assert not any(map(_alive, family))


@pytest.mark.nightly
def test_a_node_that_dies(lab: Cluster, study: Path, gates: Gates, undisturbed: dict) -> None:
    """Slurm puts the job back into its queue, Snakemake waits for it and starts no second one."""
    before, gate = _last_job(lab), gates.hold(*_SECOND)
    with running(lab, study, "parcellations", gates=gates) as run:
        held = gates.wait(gate)
        job = _job_of_first_batch(lab)
        lab.kill(job["node"])
        lab.run("scontrol", "update", f"nodename={job['node']}", "state=down", "reason=killed")
        try:
            _wait_until_dead(lab, held)
            gates.open(gate)
            # Slurm itself would wait two minutes.
            lab.run("scontrol", "update", f"jobid={job['id']}", "starttime=now")
            _ended_well(run, study, undisturbed)
        finally:
            lab.start_node(job["node"])
            lab.run("scontrol", "update", f"nodename={job['node']}", "state=resume")
    assert _states(lab, before) == {"COMPLETED": ["0000", "0001"]}


@pytest.mark.nightly
def test_a_controller_that_is_away_for_more_than_a_minute(
    lab: Cluster, study: Path, gates: Gates, undisturbed: dict
) -> None:
    before, gate = _last_job(lab), gates.hold(*_SECOND)
    with running(lab, study, "parcellations", gates=gates) as run:
        gates.wait(gate)
        lab.kill("slurmctld")
        gates.open(gate)  # the jobs end while nobody listens
        time.sleep(62)  # five questions of the executor in vain take 45 s
        lab.start_controller()
        _ended_well(run, study, undisturbed)
    assert _states(lab, before) == {"COMPLETED": ["0000", "0001"]}


def test_snakemake_killed_and_started_again_by_the_same_command(
    lab: Cluster, study: Path, gates: Gates, undisturbed: dict
) -> None:
    before, gate = _last_job(lab), gates.hold(*_SECOND)
    with running(lab, study, "parcellations", gates=gates) as killed:
        held = gates.wait(gate)
        # Which recording of a batch goes first is not said: the other batch is waited for.
        lab.wait_for("the other batch ends", 60, (study / "jobs" / "batch-0001.tsv").exists)
        other = list((study / "derivatives").rglob("sub-100[23]_*_timeseries.parquet"))
        made = [path.stat().st_mtime_ns for path in other]
        killed.kill()
        killed.end()
    assert all(map(_alive, held))  # the job runs on, with nobody to look after it
    orphan = _job_of_first_batch(lab)
    assert list((study / ".snakemake" / "locks").iterdir())
    with running(lab, study, "parcellations") as again:
        _ended_well(again, study, undisturbed)
    said = again.said()
    assert "An earlier run was killed: process " in said
    assert "Cancelling" in said and orphan["id"] in said
    assert not any(map(_alive, held))
    states = _states(lab, before)
    assert "0000" in states["CANCELLED"] and "0000" in states["COMPLETED"]
    assert len(made) == 2  # what was done is not done again
    assert [path.stat().st_mtime_ns for path in other] == made


@pytest.mark.nightly
def test_snakemake_told_to_end(lab: Cluster, study: Path, gates: Gates, undisturbed: dict) -> None:
    """SIGTERM lets running jobs end and starts no more; Ctrl-C cancels them."""
    before, gate = _last_job(lab), gates.hold("adopt-parcels")
    with running(lab, study, "parcellations", "--jobs", "1", gates=gates) as told:
        gates.wait(gate)
        told.kill(signal.SIGTERM)
        gates.open(gate)
        assert told.end() != 0
    (done,) = _states(lab, before)["COMPLETED"]
    gate = gates.hold("adopt-parcels", "record")  # another name for the same processes
    with running(lab, study, "parcellations", gates=gates) as interrupted:
        held = gates.wait(gate)
        interrupted.kill(signal.SIGINT)
        assert interrupted.end() != 0
    _wait_until_dead(lab, held)
    lab.wait_for("the job is cancelled", 60, lambda: "CANCELLED" in _states(lab, before))
    assert done not in _states(lab, before)["CANCELLED"]
    with running(lab, study, "parcellations") as again:
        _ended_well(again, study, undisturbed)
    assert "killed" not in again.said()
    assert _states(lab, before)["COMPLETED"] == ["0000", "0001"]
