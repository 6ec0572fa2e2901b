"""The cluster itself: it must be a real one, and leave nothing behind."""

from __future__ import annotations

import os
import time
from pathlib import Path

from brainlm.cluster.family import started

from .slurm import Cluster, cluster


def test_jobs_run_on_nodes_that_are_asked_for(lab: Cluster) -> None:
    assert lab.run("srun", "-p", "cpu", "printenv", "SLURMD_NODENAME").strip() in ("cpu1", "cpu2")
    on_gpu = ("srun", "-p", "gpu", "--gres=gpu:1", "printenv", "CUDA_VISIBLE_DEVICES")
    assert lab.run(*on_gpu).strip() in ("0", "1")
    refused = lab.run("srun", "-p", "gpu", "--gres=gpu:3", "true", check=False)
    assert refused == ""


def test_a_job_on_a_node_that_dies_is_put_back_into_the_queue(lab: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/sh\nsleep 300\n")
    job = lab.run("sbatch", "--parsable", "-w", "cpu2", "-o", tmp_path / "out", script).strip()

    def state() -> str:
        return {one["id"]: one["state"] for one in lab.jobs()}[job]

    lab.wait_for("the job runs", 30, lambda: state() == "RUNNING")
    lab.kill("cpu2")
    lab.run("scontrol", "update", "nodename=cpu2", "state=down", "reason=killed")
    lab.wait_for("the job waits again", 30, lambda: state() == "PENDING")
    lab.run("scancel", job)
    lab.start_node("cpu2")
    lab.run("scontrol", "update", "nodename=cpu2", "state=resume")


def test_nothing_is_left_running(tmp_path: Path) -> None:
    marker = f"sleep 9{os.getpid()}"
    with cluster(tmp_path / "lab") as lab:
        script = tmp_path / "job.sh"
        script.write_text(f"#!/bin/sh\n{marker}\n")
        lab.run("sbatch", "-o", tmp_path / "out", script)
        lab.wait_for("the job runs", 30, lambda: bool(_running(marker)))
        daemons = [process.pid for process in lab.processes.values()]
    end = time.monotonic() + 10
    while _running(marker) and time.monotonic() < end:
        time.sleep(0.1)
    assert not _running(marker)
    assert not any(started(pid) for pid in daemons)


def _running(command: str) -> list[int]:
    """Processes with this command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError:
            continue
        if line == command:
            found.append(int(folder.name))
    return found
