"""The workflow stays plannable when the cohort grows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from brainlm.resources import share_dir

from ..benchmarks.bench_dag import dry_run
from ..forked_snakemake import run_snakemake
from .empty_study import make_study


@pytest.mark.slow
def test_ten_thousand_recordings_are_planned_within_their_limits() -> None:
    """By the Slurm profile; and what each further recording costs does not grow with them."""
    few, many = dry_run("batches", 2000), dry_run("batches", 10_000)
    assert many.cpu_s < 60
    assert many.peak_mb < 1200
    assert many.cpu_s < 5 * few.cpu_s + 5


def _planned(study: Path, *arguments: str) -> dict[str, int]:
    where = ("--snakefile", str(share_dir() / "Snakefile"), "--directory", str(study))
    done = run_snakemake(*where, "--dry-run", "--quiet", "host", "rules", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    table = (done.stdout + done.stderr).partition("Job stats:")[2]
    return {rule: int(count) for rule, count in re.findall(r"^([a-z_]+)\s+(\d+)$", table, re.M)}


def test_a_part_of_the_recordings_can_be_planned_at_a_time(tmp_path: Path) -> None:
    """`--batch`, of Snakemake, for whom planning all at once takes too much memory."""
    make_study(tmp_path, 12)
    stages = ("--config", "jobs={recordings_per_job: 1}", "--cores", "2")
    target = ("--", "parcellations")
    for part in ("1/3", "2/3"):
        planned = _planned(tmp_path, *stages, "--batch", f"parcellations={part}", *target)
        assert planned["estimate_motion"] == planned["parcellate_bold"] == 4
        assert "parcellations" not in planned
    in_batches = ("--config", "jobs={recordings_per_job: 2}", "--cores", "2")
    planned = _planned(tmp_path, *in_batches, "--batch", "parcellations=1/3", *target)
    assert planned["process_batch"] == 2
