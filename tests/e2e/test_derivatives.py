"""Parcel series that somebody else has made, through the whole workflow to a report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from . import runner

SETTINGS = (
    "derivatives.tr=0.735",
    "model.overrides={timepoints: 40, patch: 20}",
    "eligibility.min_volumes=40",
    "pretrain.epochs=1",
    "finetune={epochs: 1, targets: [{name: age}]}",
    "split={train: 0.5, val: 0.25}",
    "evaluate.tasks=[reconstruction]",  # the demo's tests run all
)


def test_from_tables_to_a_report(tmp_path: Path) -> None:
    """What a machine-learning researcher has: arrays without names, and a table of ages."""
    tables, study = tmp_path / "tables", tmp_path / "study"
    tables.mkdir()
    random = np.random.default_rng(0)
    mixing = random.normal(size=(10, 424))
    given, people = {}, ["participant_id\tage"]
    for number in range(10):
        course = random.normal(size=(50, 10)).cumsum(axis=0)
        series = (1000 + course @ mixing + random.normal(size=(50, 424))).astype(np.float32)
        series[:, 404] = 0  # what the authors' tool writes for a parcel without voxels
        np.save(tables / f"{1000 + number}.npy", series)
        given[f"sub-{1000 + number}_task-rest"] = series
        people.append(f"{1000 + number}\t{50 + number}")
    (tmp_path / "people.tsv").write_text("\n".join(people) + "\n")
    options = [part for setting in SETTINGS for part in ("--set", setting)]
    done = runner.brainlm(
        *("onboard", tables, "--study", study, "--engine", "derivatives"),
        *("--participants", tmp_path / "people.tsv", *options),
    )
    assert done.returncode == 0, done.stderr
    assert "10 eligible" in done.stdout
    ran = runner.snakemake(study)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    for name, series in given.items():
        path = next((study / "derivatives/brainlm").rglob(f"{name}_*_timeseries.parquet"))
        found = pd.read_parquet(path).to_numpy()
        assert np.isnan(found[:, 404]).all()
        np.testing.assert_array_equal(np.delete(found, 404, 1), np.delete(series, 404, 1))
    report = (study / "reports/report.html").read_text()
    assert "head motion not known" in report
    assert "denoising, parcellation and preprocessing by a pipeline that is not named" in report
    again = runner.snakemake(study)
    assert "Nothing to be done" in again.stdout + again.stderr
