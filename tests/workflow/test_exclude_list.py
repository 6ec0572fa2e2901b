"""The exclusion list makes the cohort stale, and nothing before it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from brainlm.resources import share_dir

from .empty_study import make_study
from .test_dag import counts, snakemake

TARGETS = ("cohort/recordings.parquet", "reports/qc/index.html")


def run(study: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(share_dir() / "Snakefile")]
    command += ["--directory", str(study), *arguments, *TARGETS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def pretend_it_ran(study: Path) -> None:
    """Every output as an empty file, which Snakemake takes note of as if it had made it."""
    lines = run(study, "--summary").splitlines()
    for line in lines[1:]:
        path = study / line.split("\t")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    run(study, "--touch", "--cores", "1")


def test_a_new_list_and_none_again_make_the_cohort_anew_and_nothing_before(tmp_path):
    make_study(tmp_path, 2, "parcels")
    asked = set(counts(snakemake(tmp_path, "qc")))
    assert {"adopt_parcels", "draw_qc", "write_quality_page"} <= asked
    assert "select_cohort" not in asked  # the page needs no cohort
    pretend_it_ran(tmp_path)
    assert "Nothing to be done" in snakemake(tmp_path, *TARGETS)
    listed = tmp_path / "config" / "exclude.tsv"
    name = "sub-000000_task-rest"
    stale = {"select_cohort": 1, "write_quality_page": 1}
    listed.write_text(f"recording_id\treason\n{name}\tx\n")
    assert counts(snakemake(tmp_path, *TARGETS)) == stale
    run(tmp_path, "--touch", "--cores", "1")
    listed.unlink()
    assert counts(snakemake(tmp_path, *TARGETS)) == stale
