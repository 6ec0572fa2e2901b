"""Exactness, time and memory of scaling: `python -m tests.benchmarks.bench_scaler`.

2,000 synthetic recordings (490 volumes, 424 parcels, float32 parquet as the pipeline writes them;
amplitudes differ between people and parcels, neighbours in time are alike). `brainlm scale` as a
process of its own, imports included, one thread, against a process that reads every file once
with the same reader and does nothing else; for 500, 1,000 and 2,000 recordings; then the same in
parts, as the workflow does it. Times are CPU seconds, for other work on the machine moves those
little; memory is the process' VmHWM. Some parcels are compared with numpy.percentile on everything
at once.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from scipy.signal import lfilter

from brainlm.atlas import load_table
from brainlm.layout import Study
from brainlm.parcellate.extract import ParcelSeries
from brainlm.parcellate.tables import write_series
from brainlm.shards.plan import write_plan
from brainlm.shards.scaler import load_scaler

COUNTS = (500, 1000, 2000)
VOLUMES, PARCELS, COHORT = 490, 424, 77_298
SHARD = 500
#: A process' CPU seconds and its largest memory, kB, when it ends.
_THEN_COST = """
import atexit, re, sys, time
peak = lambda: re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
atexit.register(lambda: print(time.process_time(), peak()))
"""
_COMMAND = "from brainlm.cli import main; main()"
_READ = """
from pathlib import Path
import pyarrow.parquet as pq
from brainlm.cli._parcel_series import parcel_names, read_recording
root = Path(sys.argv[1])
names = parcel_names(Path(sys.argv[2]))
for plan in sorted((root / "cohort/plan").glob("*.parquet")):
    for row in pq.read_table(plan).to_pylist():
        read_recording(root, row, names)
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        study = Study(Path(name))
        rows = _write_recordings(study)
        params = json.dumps(
            {
                "scale": {"method": "robust", "remove_mean": True, "fitted": None},
                "timing": {"tr": None, "tolerance": 0.01, "other": "resample"},
                "atlas": {"name": "A424"},
            }
        )
        seconds = []
        for count in COUNTS:
            _write_plans(study, rows[:count])
            reading, _ = _cost(_READ, study.root, _atlas_table(study))
            scaling, peak = _cost(_COMMAND, "scale", *_at(study, params))
            seconds.append(scaling)
            print(
                f"{count} recordings: brainlm scale {scaling:.1f} s, at most {peak:.0f} MB   "
                f"reading alone {reading:.1f} s   ratio {scaling / reading:.2f}",
                flush=True,
            )
        _exactness(study, rows)
        slope = (seconds[-1] - seconds[0]) / (COUNTS[-1] - COUNTS[0])
        print(
            f"growth: {seconds[1] / seconds[0]:.2f}x and {seconds[2] / seconds[1]:.2f}x for twice "
            f"the recordings; {slope * 1e3:.1f} ms for each more; {COHORT:,} recordings at that "
            f"pace: {slope * COHORT / 3600:.2f} h of one core"
        )
        _in_parts(study, params)


def _write_recordings(study: Study) -> list[dict[str, Any]]:
    """Files of the largest cohort, and a plan's rows of them."""
    table = load_table()
    _atlas_table(study).parent.mkdir(parents=True)
    table.to_csv(_atlas_table(study), sep="\t", index=False)
    names = [str(name) for name in table["name"]]
    rng = np.random.default_rng(0)
    of_parcel = rng.lognormal(3, 0.4, PARCELS)
    nothing = np.zeros(PARCELS, int)
    rows = []
    for number in range(max(COUNTS)):
        noise = rng.standard_normal((VOLUMES, PARCELS), np.float32)
        values = lfilter([0.7], [1, -0.7], noise, axis=0) * of_parcel * rng.lognormal(0, 0.35)
        series = (5000 + values).astype(np.float32)
        recording = f"sub-{number:05d}_task-rest"
        path = study.root / f"series/{recording}.parquet"
        path.parent.mkdir(exist_ok=True)
        write_series(path, names, ParcelSeries(series, nothing, nothing))
        rows.append(
            {
                "recording_id": recording,
                "subject": f"{number:05d}",
                "family": None,
                "timeseries": study.relative(path),
                "timeseries_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "source_tr": 0.735,
                "tr": 0.735,
                "resampled": False,
                "n_timepoints": VOLUMES,
                "censored": [],
            }
        )
    return rows


def _write_plans(study: Study, rows: list[dict[str, Any]]) -> None:
    for first in range(0, len(rows), SHARD):
        path = study.path("shard_plan", shard=f"train-{first // SHARD:05d}")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_plan(path, pd.DataFrame(rows[first : first + SHARD]))


def _exactness(study: Study, rows: list[dict[str, Any]]) -> None:
    """Some parcels against numpy on everything at once."""
    scaler = load_scaler(study.path("scaler"))
    checked = np.linspace(0, PARCELS - 1, 8).astype(int)
    names = [str(name) for name in load_table()["name"]]
    everything = np.empty((len(checked), len(rows) * VOLUMES))
    for number, row in enumerate(rows):
        table = pq.read_table(
            study.root / row["timeseries"], columns=[names[parcel] for parcel in checked]
        )
        series = np.stack([column.to_numpy() for column in table.columns]).astype(np.float64)
        series -= series.mean(axis=1, keepdims=True)
        everything[:, number * VOLUMES : (number + 1) * VOLUMES] = series
    low, median, high = np.percentile(everything, [25, 50, 75], axis=1)
    equal = (median == scaler.median[checked]) & (high - low == scaler.iqr[checked])
    print(
        f"against numpy.percentile of {everything.shape[1]:,} values: {int(equal.sum())} of "
        f"{len(checked)} parcels equal to the last bit"
    )


def _in_parts(study: Study, params: str) -> None:
    """As the workflow does it: intervals, a part for each shard, and their gathering."""
    by_hand = study.path("scaler").read_bytes()
    atlas = json.dumps({"atlas": {"name": "A424"}})
    sample = json.dumps({key: json.loads(params)[key] for key in ("scale", "atlas")})
    bracketing, bracketing_peak = _cost(_COMMAND, "scale-brackets", *_at(study, sample))
    parts = [
        _cost(_COMMAND, "scale-part", path.stem, *_at(study, atlas))
        for path in sorted(study.path("shard_plan", shard="any").parent.glob("*.parquet"))
    ]
    size = sum(
        path.stat().st_size
        for path in study.path("scaler_part", shard="any").parent.glob("train-*.safetensors")
    )
    gathering, gathering_peak = _cost(_COMMAND, "scale", *_at(study, params))
    kept = size / (max(COUNTS) * VOLUMES * PARCELS * 8)
    print(
        f"in {len(parts)} parts: brackets {bracketing:.1f} s, {bracketing_peak:.0f} MB   parts "
        f"{sum(cost for cost, _ in parts):.1f} s, each at most {max(p for _, p in parts):.0f} MB   "
        f"gathering {gathering:.1f} s, {gathering_peak:.0f} MB   equal bytes: "
        f"{study.path('scaler').read_bytes() == by_hand}\n"
        f"parts hold {size / 1e6:.0f} MB, {kept:.1%} of the values; for {COHORT:,} recordings "
        f"about {size / 1e9 * (COHORT / max(COUNTS)) ** 0.75:.1f} GB"
    )


def _atlas_table(study: Study) -> Path:
    return study.path("atlas_table", atlas="A424")


def _at(study: Study, params: str) -> list[str]:
    return ["--study", str(study.root), "--params", params]


def _cost(code: str, *arguments: object) -> tuple[float, float]:
    """CPU seconds and largest memory, MB, of a process."""
    done = subprocess.run(
        [sys.executable, "-c", _THEN_COST + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, peak = done.stdout.split()[-2:]
    return float(seconds), int(peak) / 1024


if __name__ == "__main__":
    main()
