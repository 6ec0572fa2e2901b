"""The cohort at population scale: `python -m tests.benchmarks.bench_cohort`.

Drawing splits of 60,000 subjects (120,000 recordings), as every job of the workflow does when it
is parsed, beside reading the recordings table, which it does as well. Resampling a recording of
490 x 424, beside reading it (bytes, hash, decoding, check of every value). And what `brainlm
cohort` does for one recording, file by file. Best of some runs, CPU seconds, in one process.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from brainlm.cli._cohort_files import read_all_finished
from brainlm.cli._parcel_series import parcel_names, read_recording
from brainlm.cli._stage import StageRun
from brainlm.layout import Study
from brainlm.provenance import sha256_file
from brainlm.recordings import COLUMNS, read_rows
from brainlm.shards.splits import assign
from brainlm.shards.subjects import columns_asked
from brainlm.shards.timing import resample
from tests.unit import synthetic_cohort as synthetic

N_RECORDINGS, SUBJECTS_OF_A_FAMILY = 120_000, 2
N_FILES, VOLUMES, PARCELS = 40, 490, 424


def main() -> None:
    """Print all tables."""
    with tempfile.TemporaryDirectory() as folder:
        drawing(Path(folder) / "large")
        reading(Path(folder) / "study")


def best_of(runs: int, work: Callable[[], Any]) -> float:
    """Least CPU seconds of one run."""
    taken = []
    for _ in range(runs):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def drawing(root: Path) -> None:
    """Splits of 60,000 subjects, beside reading the table that says who they are."""
    path = Study(root).path("recordings")
    path.parent.mkdir(parents=True)
    (root / "config").mkdir()
    large_table().to_parquet(path)
    plain = {"table": None, "train": 0.8, "val": 0.1, "salt": "brainlm", "bins": 4}
    print("splits of 60,000 subjects      CPU s  beside reading the table")
    for name, asked in (
        ("by hash", {}),
        ("families", {"family": "fam"}),
        ("an external site", {"external": {"site": ["S3"]}}),
        ("strata, first draw", {"stratify": ["site", "sex", "age"]}),
        ("strata, drawn before", {"stratify": ["site", "sex", "age"]}),
    ):
        options = {**plain, "stratify": [], "family": None, "external": {}, **asked}
        further = columns_asked(options)
        rows = read_rows(path, further)
        read = best_of(3, lambda further=further: read_rows(path, further))
        taken = best_of(3, lambda rows=rows, options=options: assign(rows, options, root))
        print(f"{name:28s}  {taken:6.2f}  {taken / read:.2f}")
        ledger = assign(rows, options, root).ledger
        if ledger is not None:
            Study(root).path("split_ledger").write_text(ledger.text())


def large_table() -> pd.DataFrame:
    """Two runs of each subject, two subjects of each family."""
    number = np.arange(N_RECORDINGS)
    subject = number // 2
    names = pd.Series(subject).map("{:07d}".format)
    table = pd.DataFrame({"subject": names, "site": "S" + pd.Series(subject % 22).astype(str)})
    table["recording_id"] = "sub-" + names + "_run-" + pd.Series(number % 2).astype(str)
    table["tr"], table["n_volumes"], table["eligible"] = 0.735, 490, True
    rng = np.random.default_rng(0)
    labels = pd.DataFrame(
        {
            "label_age": rng.normal(60, 8, N_RECORDINGS // 2)[subject].round(1),
            "label_sex": np.array(["F", "M"])[subject % 2],
            "label_fam": (subject // SUBJECTS_OF_A_FAMILY).astype(float),
        }
    )
    return pd.concat([table.reindex(columns=list(COLUMNS)).astype(COLUMNS), labels], axis=1)


def reading(root: Path) -> None:
    """Resampling beside reading; and what selecting the cohort costs for each recording."""
    parcels = pd.DataFrame({"index": range(1, PARCELS + 1)})
    parcels["name"] = [f"P{number}" for number in parcels["index"]]
    synthetic.parcel_table = lambda: parcels.assign(x=0.0, y=0.0, z=0.0)
    noise = np.random.default_rng(0).standard_normal((VOLUMES, PARCELS)).astype(np.float32)
    synthetic.simulate = lambda score, volumes, rng: 1000 + 10 * noise
    study = synthetic.write_study(root, {"train": N_FILES}, volumes=VOLUMES)
    run = StageRun("cohort", root, None)
    ids = list(pd.read_parquet(run.path("recordings"))["recording_id"])
    names = parcel_names(run.path("atlas_table"))
    path = synthetic.series_path(study, ids[0])
    row = {
        "timeseries": study.relative(path),
        "timeseries_sha256": sha256_file(path),
        "censored": [],
        "resampled": False,
        "n_timepoints": VOLUMES,
    }
    read = best_of(20, lambda: read_recording(root, row, names))
    print(f"\nreading a recording of {VOLUMES} x {PARCELS}: {1000 * read:.1f} ms")
    values = read_recording(root, row, names).values
    print("resampling it      CPU ms  beside reading")
    for source_tr, tr in ((0.735, 0.72), (0.72, 0.735), (0.735, 2.0), (2.0, 0.735)):
        taken = best_of(20, lambda times=(source_tr, tr): resample(values, *times))
        print(f"{source_tr:5g} to {tr:5g} s  {1000 * taken:8.1f}  {taken / read:.2f}")
    taken = best_of(3, lambda: read_all_finished(run, ids, lambda items, total: items)) / N_FILES
    print(f"\nselecting the cohort, for each recording: {1000 * taken:.1f} ms")


if __name__ == "__main__":
    main()
