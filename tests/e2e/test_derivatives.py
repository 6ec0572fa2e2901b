"""Parcel series that somebody else has made, through the whole workflow to a report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from . import runner


def test_from_tables_to_a_report(demo: Path, tmp_path: Path) -> None:
    """The demo's own parcels, given back as one table per recording without names."""
    tables = tmp_path / "tables"
    tables.mkdir()
    found = sorted((demo / "study/derivatives/brainlm").rglob("*stat-mean_timeseries.parquet"))
    names = []
    for path in found:
        if path.stat().st_size:
            name = path.name.split("_space-")[0]
            np.save(tables / f"{name}_seg-A424_stat-mean_timeseries.npy", pd.read_parquet(path))
            names.append(name)
    about = json.loads(found[0].with_suffix(".json").read_text())
    study = tmp_path / "study"
    people = demo / "bids/participants.tsv"
    settings = [
        "name=tables",
        "eligibility.min_volumes=20",
        f"derivatives.tr={1 / about['SamplingFrequency']}",
        "pretrain.epochs=1",
        "finetune={epochs: 1, targets: [{name: age}]}",
        "quality.min_parcels=0.1",
        "split={train: 0.5, val: 0.25}",
    ]
    options = [part for setting in settings for part in ("--set", setting)]
    done = runner.brainlm(
        *("onboard", tables, "--study", study, "--engine", "derivatives"),
        *("--participants", people, *options),
    )
    assert done.returncode == 0, done.stderr
    assert f"{len(names)} eligible" in done.stdout
    ran = runner.snakemake(study)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    ours = next((study / "derivatives/brainlm").rglob(f"{names[0]}*_timeseries.parquet"))
    theirs = next(path for path in found if path.name.startswith(names[0]))
    pd.testing.assert_frame_equal(pd.read_parquet(ours), pd.read_parquet(theirs))
    report = (study / "reports/report.html").read_text()
    assert "head motion not known" in report and "Not done by this workflow" in report
    again = runner.snakemake(study)
    assert "Nothing to be done" in again.stdout + again.stderr
