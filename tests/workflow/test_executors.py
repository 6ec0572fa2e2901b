"""Other engines than Slurm: their profiles plan the workflow, and jobs go through their commands.

The engines themselves are shell scripts (small_engines.py); the plugins are the true ones.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from brainlm.resources import share_dir

from . import small_engines
from .empty_study import make_study

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / ".venv-executors"
PROFILES = share_dir() / "config" / "profiles"
STATUS = PROFILES / "sge" / "status.sh"
ATLAS = "atlas/atlas-A424approx_space-MNI152NLin2009aSym_res-4_dseg.nii.gz"


class Site:
    """A study of 60 empty recordings on a machine with an engine."""

    def __init__(self, root: Path, engine: str) -> None:
        self.engine, self.study, self.jobs = engine, root / "study", root / "jobs"
        make_study(self.study, 60)
        config = self.study / "config" / "config.yaml"
        content = yaml.safe_load(config.read_text())
        content["atlas"]["name"], content["space"]["resolution_mm"] = "A424approx", 4
        config.write_text(yaml.safe_dump(content))
        (self.study / "config" / "profiles").symlink_to(PROFILES)
        small_engines.install(engine, root / "bin", self.jobs)
        self.environment = {
            **os.environ,
            "PATH": f"{root / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT}:{PLUGINS}",
        }

    def command(self, *arguments: str) -> list[str]:
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(share_dir() / "Snakefile")]
        command += ["--profile", f"config/profiles/{self.engine}", "--latency-wait", "5"]
        return [*command, *arguments]

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.study,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def arguments(self, job: int) -> list[str]:
        return (self.jobs / str(job) / "args").read_text().splitlines()


@pytest.fixture(params=["sge", "lsf"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    return needing_plugins(tmp_path, request.param)


def needing_plugins(root: Path, engine: str) -> Site:
    if not (PLUGINS / ".installed").exists():
        pytest.skip("the plugins of other engines are not here: make executors")
    return Site(root, engine)


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


@pytest.mark.slow
def test_a_profile_plans_all_of_the_workflow_in_batches(site: Site) -> None:
    done = site.snakemake("--dry-run", "--quiet", "rules")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    counts = dict(re.findall(r"^([a-z_]+) +(\d+)$", said, re.M))
    assert counts["process_batch"] == str(-(-60 // 25)) and counts["write_report"] == "1"
    assert not any(site.jobs.glob("[0-9]*")), "a dry run submits nothing"


@pytest.mark.slow
def test_a_job_goes_through_the_engine(site: Site) -> None:
    done = site.snakemake("--jobs", "2", ATLAS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (site.study / ATLAS).stat().st_size
    assert not (site.jobs / "2").exists()
    words = " ".join(site.arguments(1))
    if site.engine == "sge":
        assert "-N brainlm.prepare_atlas -l h_rt=600,h_vmem=2000M" in words and "-pe" not in words
        assert [path.name for path in (site.study / ".snakemake" / "sge").iterdir()] == ["1"]
    else:
        assert " -W 10 -n 1 -R rusage[mem=2000.0] " in words


@pytest.mark.nightly
@pytest.mark.slow
def test_a_job_that_fails_is_tried_again_and_then_told(site: Site) -> None:
    config = site.study / "config" / "config.yaml"
    config.write_text(config.read_text().replace("name: A424approx", "name: A424"))
    target = ATLAS.replace("A424approx", "A424")
    site.environment["BRAINLM_CACHE"] = str(site.study / "empty")
    done = site.snakemake("--jobs", "2", "--retries", "1", target)
    said = done.stdout + done.stderr
    assert done.returncode and "is drawn in MNI152NLin6Asym" in said, said
    assert (site.jobs / "2").exists() and not (site.jobs / "3").exists()


@pytest.mark.nightly
@pytest.mark.slow
def test_jobs_of_a_killed_snakemake_are_taken_up_and_not_doubled(tmp_path: Path) -> None:
    site = needing_plugins(tmp_path, "sge")
    (site.jobs / "hold").touch()
    command, first = site.command("--jobs", "2", ATLAS), site.jobs / "1" / "pid"
    with (tmp_path / "said").open("w") as said:
        running = subprocess.Popen(command, cwd=site.study, env=site.environment, stderr=said)
        wait_for(lambda: "external jobid '1'" in (tmp_path / "said").read_text())
        running.kill()
        running.wait()
    assert first.exists()
    with (tmp_path / "again").open("w") as said:
        running = subprocess.Popen(command, cwd=site.study, env=site.environment, stderr=said)
        wait_for(lambda: "Resuming incomplete job" in (tmp_path / "again").read_text())
        (site.jobs / "hold").unlink()
        assert running.wait(timeout=300) == 0, (tmp_path / "again").read_text()
    assert (site.study / ATLAS).stat().st_size and not (site.jobs / "2").exists()


# --- the scripts of Grid Engine, alone ---------------------------------------------------------


@pytest.fixture
def grid(tmp_path: Path) -> Site:
    return Site(tmp_path, "sge")


def submit(site: Site, script: str, *numbers: int) -> str:
    (site.study / "job.sh").write_text(script)
    command = ["sh", str(PROFILES / "sge" / "submit.sh"), "a_rule", *map(str, numbers), "job.sh"]
    done = subprocess.run(
        command, cwd=site.study, env=site.environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def status(site: Site, job: str) -> str:
    command = ["sh", str(STATUS), job]
    done = subprocess.run(
        command, cwd=site.study, env=site.environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def ended(site: Site, job: str) -> None:
    wait_for(lambda: not (site.jobs / job / "pid").exists())


def test_resources_are_those_of_one_slot(grid: Site) -> None:
    job = submit(grid, "exit 0", 4, 10001, 90, 2)
    words = " ".join(grid.arguments(int(job)))
    assert "h_rt=5400,h_vmem=2501M" in words
    assert "-pe smp 4" in words and "-l gpu=2" in words


@pytest.mark.parametrize(("code", "said"), [(0, "success\n"), (1, "failed\n"), (137, "failed\n")])
def test_a_job_tells_how_it_ended(grid: Site, code: int, said: str) -> None:
    job = submit(grid, f"exit {code}", 1, 100, 1, 0)
    ended(grid, job)
    assert status(grid, job) == said


def test_a_killed_job_has_failed_once_its_word_cannot_come_any_more(grid: Site) -> None:
    job = submit(grid, "sleep 600", 1, 100, 1, 0)
    assert status(grid, job) == "running\n"
    subprocess.run(["qdel", job], env=grid.environment, check=True)
    assert status(grid, job) == "running\n"
    gone = grid.study / ".snakemake" / "sge" / f"{job}.gone"
    os.utime(gone, (time.time() - 180,) * 2)
    assert status(grid, job) == "failed\n"


def test_a_master_that_is_away_does_not_make_jobs_fail(grid: Site, tmp_path: Path) -> None:
    job = submit(grid, "sleep 600", 1, 100, 1, 0)
    qstat = tmp_path / "bin" / "qstat"
    there = qstat.read_text()
    qstat.write_text("#!/bin/sh\necho 'error: unable to contact qmaster' >&2\nexit 1\n")
    assert status(grid, job) == "running\n"
    assert not (grid.study / ".snakemake" / "sge" / f"{job}.gone").exists()
    qstat.write_text(there)
    subprocess.run(["qdel", job], env=grid.environment, check=True)


def test_a_job_in_error_does_not_wait_for_ever(grid: Site, tmp_path: Path) -> None:
    job = submit(grid, "sleep 600", 1, 100, 1, 0)
    qstat = tmp_path / "bin" / "qstat"
    qstat.write_text(qstat.read_text().replace(" me r ", " me Eqw "))
    assert status(grid, job) == "failed\n"
    assert not (grid.jobs / job / "pid").exists(), "it is taken out of the queue"


def test_the_profile_of_lsf_names_every_rule_for_a_gpu() -> None:
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    blocks = re.split(r"^ *rule ", rules, flags=re.M)[1:]
    asking = {
        block.partition(":")[0]
        for block in blocks
        if re.search(r"\*\*study\.\w+\.resources,", block)
    }
    profile = yaml.safe_load((PROFILES / "lsf" / "config.yaml").read_text())
    assert set(profile["set-resources"]) == asking
