"""Command lines and resources of trainings, as the Slurm plugin itself reads them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.iocontainers import ResourceList
from snakemake_executor_plugin_slurm.submit_string import get_submit_command
from snakemake_executor_plugin_slurm.utils import set_gres_string
from snakemake_executor_plugin_slurm_jobstep import get_cpu_setting, get_gpu_setting

from brainlm.cluster.launch import Launch
from brainlm.cluster.preflight import partition_chooser
from brainlm.cluster.profile import Choice, partitions_text
from brainlm.cluster.site import Partition

#: What the executor says of a job besides its resources.
_ABOUT = {
    "run_uuid": "run",
    "slurm_logfile": "log",
    "comment_str": "rule",
    "account": "",
    "partition": "",
    "workdir": "",
}


def _asked(launch: Launch) -> tuple[set[str], set[str]]:
    """What the job asks Slurm for, and what its step asks for (which `mpi` jobs have not)."""
    job = SimpleNamespace(threads=1, resources=ResourceList(fromdict=launch.resources))
    job.is_group = lambda: False
    words = get_submit_command(job, _ABOUT).split("--comment rule")[1] + set_gres_string(job)
    step = f"{get_cpu_setting(job, 'gpu' in launch.resources)} {get_gpu_setting(job)}"
    return set(words.split()), set() if "mpi" in launch.resources else set(step.split())


@pytest.mark.parametrize(
    ("launch", "job", "step"),
    [
        (Launch(gpus=0), "--ntasks=1 --cpus-per-task=1", "--cpus-per-task=1"),
        (Launch(), "--gpus=1 --cpus-per-gpu=8", "--gpus=1 --cpus-per-gpu=8"),
        (Launch(4), "--gpus=4 --cpus-per-gpu=8", "--gpus=4 --cpus-per-gpu=8"),
        (Launch(gres="gpu"), "--gres=gpu:1 --cpus-per-task=8", "--cpus-per-task=8"),
        (Launch(4, gres="gpu:a100"), "--gres=gpu:a100:4 --cpus-per-task=32", "--cpus-per-task=32"),
        (
            Launch(gres="gpu:1g.10gb"),
            "--gres=gpu:1g.10gb:1 --cpus-per-task=8",
            "--cpus-per-task=8",
        ),
        (
            Launch(4, 2),
            "--nodes=2 --ntasks-per-node=4 --gres=gpu:4 --cpus-per-task=8",
            "",
        ),
        (
            Launch(1, 3, gres="gpu:a100"),
            "--nodes=3 --ntasks=3 --gres=gpu:a100:1 --cpus-per-task=8",
            "",
        ),
        (Launch(1, 2, gpus=0), "--nodes=2 --ntasks=2 --cpus-per-task=1", ""),
    ],
)
def test_what_a_training_asks_slurm_for(launch: Launch, job: str, step: str) -> None:
    assert _asked(launch) == (set(job.split()), set(step.split()))


@pytest.mark.parametrize(
    ("launch", "partition"),
    [
        (Launch(), "gpu"),
        (Launch(4), "gpu"),
        (Launch(4, gres="gpu:a100"), "gpu"),
        (Launch(gres="gpu:1g.10gb"), "gpu"),
        (Launch(4, 2), "gpu"),
        (Launch(1, 3, gres="gpu:a100"), "gpu"),
        (Launch(gpus=0), "cpu"),
        (Launch(1, 2, gpus=0), "cpu"),
    ],
)
def test_the_table_of_partitions_knows_jobs_with_gpus(
    launch: Launch, partition: str, tmp_path: Path
) -> None:
    """By number, by name, and of several nodes."""
    table = tmp_path / "partitions.yaml"
    places = Partition("cpu", nodes=9), Partition("gpu", nodes=2, gpu_nodes=2, gpus=8)
    table.write_text(partitions_text(Choice(*places, None)))
    job = SimpleNamespace(name="rule", threads=1)
    job.resources = ResourceList(fromdict=launch.resources)
    assert partition_chooser(table)(job) == partition


def test_command_lines() -> None:
    assert Launch().command == "brainlm"
    assert Launch(2).command.startswith("torchrun --standalone --nproc-per-node 2 ")
    assert Launch(2).command.endswith(" -m brainlm")
    words = Launch(2, 3).command
    assert words.startswith("srun --jobid ${SLURM_JOB_ID:?")
    assert " --nodes=3 --ntasks=6 --ntasks-per-node=2 --cpus-per-task=8 " in words
    assert words.endswith(" --kill-on-bad-exit=1 brainlm")


def test_several_nodes_without_slurm_end_with_what_to_do() -> None:
    command = ["bash", "-euo", "pipefail", "-c", f"{Launch(nodes=2).command} pretrain"]
    done = subprocess.run(command, env={}, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "a training on several nodes runs in a Slurm job: snakemake --profile" in done.stderr
