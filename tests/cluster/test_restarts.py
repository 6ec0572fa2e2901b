"""Faults while the workflow runs on a cluster: it ends with the bytes of an undisturbed run."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import studies
from .slurm import Cluster


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


def test_undisturbed(undisturbed: dict) -> None:
    assert undisturbed
