"""The profile fitted to a cluster, and what is refused before anything is submitted."""

from __future__ import annotations

import csv
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .accounting import ACCOUNTS
from .slurm import Cluster, cluster, why_not

_PROFILE = Path(__file__).parents[2] / "config" / "profiles" / "slurm"
_RULES = Path(__file__).parents[2] / "workflow" / "rules"
_PYTHON = Path(sys.executable).parent
_QUICK = ("--slurm-init-seconds-before-status-checks", "3", "--latency-wait", "3")
#: A job without and one with a GPU. Both want more time than any partition gives.
_WORKFLOW = """\
include: "START"

rule all:
    input: "cpu.txt", "gpu.txt"

rule on_cpus:
    output: "cpu.txt"
    resources: mem_mb=100000, runtime=5000
    shell: "echo $SLURMD_NODENAME > {output}"

rule on_gpus:
    output: "gpu.txt"
    resources: mem_mb=1000, runtime=lambda wildcards, attempt: 2000 * attempt, gpu=1, cpus_per_gpu=1
    shell: "echo $SLURMD_NODENAME > {output}"
""".replace("START", str(_RULES / "start.smk"))


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that keeps accounts."""
    reason = why_not(with_accounting=True)
    if reason is not None:
        pytest.skip(f"no Slurm with accounting: {reason}")
    with cluster(tmp_path_factory.mktemp("books"), with_accounting=True) as running:
        yield running


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder with two rules and the profile as it is shipped."""
    (tmp_path / "Snakefile").write_text(_WORKFLOW)
    folder = tmp_path / "config" / "profiles" / "slurm"
    folder.mkdir(parents=True)
    shutil.copy(_PROFILE / "config.yaml", folder)
    (tmp_path / "slurm").symlink_to("config/profiles/slurm")
    return tmp_path


def run(lab: Cluster, folder: Path, *command: str, path: str = "") -> subprocess.CompletedProcess:
    """A command of this environment on a cluster."""
    path = path or f"{lab.folder / 'bin'}:{_PYTHON}:{os.environ['PATH']}"
    return subprocess.run(
        command,
        cwd=folder,
        env={**lab.environment, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_the_profile_as_filled_in_runs_with_accounts(books: Cluster, study: Path) -> None:
    assert run(books, study, "brainlm", "cluster", "profile").returncode == 0
    elsewhere = ("--profile", f"{study.name}/slurm", "--directory", study.name)
    snakefile = ("--snakefile", f"{study.name}/Snakefile")
    done = run(books, study.parent, "snakemake", *elsewhere, *snakefile, *_QUICK)
    assert done.returncode == 0, done.stdout + done.stderr

    fields = "comment,partition,account,timelimitraw,reqmem,state,submit,end"
    told = books.run("sacct", "-XnP", f"--format={fields}")
    jobs = {line.split("|")[0]: line.split("|")[1:] for line in told.splitlines()}
    # What asks for more is cut down to two days and to the memory of a node.
    cpus, gpus = jobs["rule_on_cpus"], jobs["rule_on_gpus"]
    assert cpus[:-2] == ["cpu", ACCOUNTS[0], "2880", "16000M", "COMPLETED"]
    assert gpus[:-2] == ["gpu", ACCOUNTS[0], "2000", "1000M", "COMPLETED"]
    # Two days are the limit of each, not of all that run at a time.
    assert max(cpus[-2], gpus[-2]) < min(cpus[-1], gpus[-1])
    assert (study / "gpu.txt").read_text() == "gpu1\n"

    (report,) = (study / "logs" / "efficiency").glob("efficiency_report_*.csv")
    with report.open() as lines:
        rows = list(csv.DictReader(lines))
    assert {row["RuleName"] for row in rows} == {"rule_on_cpus", "rule_on_gpus"}
    assert {float(row["RequestedMem_MB"]) for row in rows} == {1000, 16000}
    for folder in (study, study.parent):  # no logs of jobs that succeeded
        assert not list((folder / "logs").rglob("*.log"))


@pytest.mark.nightly
def test_accounts_that_slurm_or_a_partition_does_not_take(books: Cluster, study: Path) -> None:
    profile, check = ("brainlm", "cluster", "profile"), ("brainlm", "cluster", "check")
    assert run(books, study, *profile).returncode == 0
    config = study / "slurm" / "config.yaml"
    config.write_text(config.read_text().replace(f"  slurm_account: {ACCOUNTS[0]}\n", ""))
    assert run(books, study, *check).returncode == 0  # Slurm knows the default account
    done = run(books, study, "env", "SBATCH_ACCOUNT=none", *check)
    assert done.returncode == 2
    assert "Invalid account" in done.stderr
    assert f"an account of yours ({', '.join(ACCOUNTS)}" in done.stderr

    # Slurm would take the job and never start it.
    books.run("scontrol", "update", "partition=cpu", f"AllowAccounts={ACCOUNTS[1]}")
    try:
        done = run(books, study, *check)
        assert f"Partition cpu takes no jobs of account {ACCOUNTS[0]}" in done.stderr
        assert f"slurm_account: {ACCOUNTS[1]} below" in done.stderr
        told = run(books, study, *profile, "--force").stdout
        assert f"account {ACCOUNTS[1]}\n" in told
        done = run(books, study, *check)
        assert done.returncode == 0, done.stderr
    finally:
        books.run("scontrol", "update", "partition=cpu", "AllowAccounts=ALL")
    assert run(books, study, *profile, "--account", "theirs").returncode == 0
    assert "Account theirs is not among yours" in run(books, study, *check).stderr


def test_what_could_not_run_is_refused_before_the_first_job(lab: Cluster, study: Path) -> None:
    """The profile as shipped, on a cluster that keeps no accounts and has GPUs elsewhere."""
    before = len(lab.jobs())
    done = run(lab, study, "snakemake", "--profile", "slurm", *_QUICK)
    assert done.returncode == 1
    told = done.stdout + done.stderr
    assert "3 reasons" in told
    assert "sacct cannot tell how jobs fare (this cluster keeps no accounting)" in told
    assert "Rule on_cpus asks for 5000 minutes, but partition cpu gives 2880" in told
    assert "Rule on_gpus asks for 1 GPUs, and partition cpu has no GPUs" in told
    assert "gpu (2)" in told
    assert "Traceback" not in told
    assert len(lab.jobs()) == before
    with_gpus = ("--default-resources", "slurm_partition=gpu", "mem_mb=1000")
    third_try = (*with_gpus, "--slurm-status-command", "squeue", "--", "gpu.txt")
    done = run(lab, study, "snakemake", "--profile", "slurm", *_QUICK, *third_try)
    assert "asks for 2000 minutes, when tried again 6000" in done.stdout + done.stderr
    assert len(lab.jobs()) == before


@pytest.mark.nightly
def test_without_sacct_on_the_machine(lab: Cluster, study: Path, tmp_path: Path) -> None:
    """Snakemake's plugin alone would submit no job there."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo"):
        (programs / name).symlink_to(lab.folder / "bin" / name)
    for name in ("sh", "bash", "env", "which", "hostname", "id"):
        (programs / name).symlink_to(shutil.which(name))
    path = f"{programs}:{_PYTHON}"
    told = run(lab, study, "brainlm", "cluster", "profile", path=path)
    assert "CPU jobs to partition cpu, GPU jobs to gpu, no account" in told.stdout
    done = run(lab, study, "snakemake", "--profile", "slurm", *_QUICK, "cpu.txt", path=path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (study / "cpu.txt").exists()


def test_a_cluster_of_a_user_without_rights() -> None:
    """Started, used and stopped by nobody: as on a machine where one is not root."""
    if (reason := why_not()) is not None:
        pytest.skip(f"no Slurm: {reason}")
    if os.getuid() != 0:
        pytest.skip("the other tests run without root already")
    nobody = pwd.getpwnam("nobody")
    folder = Path(tempfile.mkdtemp(prefix="lab-"))
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    as_nobody = (
        "setpriv",
        f"--reuid={nobody.pw_uid}",
        f"--regid={nobody.pw_gid}",
        "--clear-groups",
    )
    lab = subprocess.Popen(
        [*as_nobody, sys.executable, "-m", "tests.cluster.slurm", str(folder)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert lab.stdout is not None
        assert lab.stdout.readline().startswith("export PATH=")
        done = subprocess.run(
            [*as_nobody, str(folder / "bin" / "srun"), "id", "-un"],
            capture_output=True,
            text=True,
            cwd="/",
            timeout=60,
        )
        assert done.stdout == "nobody\n", done.stderr
    finally:
        lab.terminate()
        lab.wait(timeout=60)
        shutil.rmtree(folder)
