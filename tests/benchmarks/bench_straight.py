"""From raw to parcels, through 4-D files and straight: seconds, peak memory, disk, difference.

One synthetic run of 64 x 64 x 36 voxels of 3.5 mm, 200 volumes unless told otherwise, onto the
2 mm grid, each command in its own process: `bench_straight.py [volumes]`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from brainlm.layout import Study
from tests.benchmarks.used import measure
from tests.unit.synthetic_head import centered_affine
from tests.unit.synthetic_registered import fields_of, registered_study

SHAPE, ZOOM = (64, 64, 36), 3.5
CONFIG = """
space: {resolution_mm: 2}
normalize: {transform: affine}
atlas: {name: A424approx}
denoise: {method: 36p}
"""
BY_FILES = ("resample", "confounds", "denoise", "parcellate")


def main(volumes: int = 200) -> None:
    """Print a line for each command and for each way."""
    with tempfile.TemporaryDirectory() as folder:
        params = np.random.default_rng(0).normal(0, [0.2] * 3 + [0.003] * 3, (volumes, 6))
        study, identifier = registered_study(
            Path(folder), params, affine=centered_affine(SHAPE, ZOOM), shape=SHAPE, config=CONFIG
        )
        fields = fields_of(study, identifier)
        _measure(study, "prepare-atlas")
        _measure(study, "resample", identifier)  # the first start compiles

        found = [_measure(study, verb, identifier) for verb in BY_FILES]
        for verb, (seconds, peak) in zip(BY_FILES, found, strict=True):
            print(f"{verb:22}{seconds:6.1f} CPU s   {peak:6.0f} MB")
        by_files = pd.read_parquet(study.path("timeseries", **fields))
        large = [study.path(kind, **fields) for kind in ("preproc_bold", "denoised_bold")]
        disk = sum(path.stat().st_size for path in large) / 1e6
        seconds, peak = sum(s for s, _ in found), max(p for _, p in found)
        straight_seconds, straight_peak = _measure(study, "resample-to-parcels", identifier)
        print(f"{'resample-to-parcels':22}{straight_seconds:6.1f} CPU s   {straight_peak:6.0f} MB")
        straight = pd.read_parquet(study.path("timeseries", **fields))
    print(
        f"straight is {seconds / straight_seconds:.1f}x as fast, with {straight_peak / peak:.2f} "
        f"of the peak memory and {disk:.0f} MB less on disk"
    )
    gap = np.nanmax(np.abs(straight / by_files - 1))
    print(f"largest relative difference of the parcel series {gap:.1e}")


def _measure(study: Study, verb: str, *arguments: str) -> tuple[float, float]:
    """CPU seconds and peak memory (MB) of a command in its own process."""
    command = [sys.executable, "-m", "brainlm", verb, *arguments, "--study", str(study.root)]
    used = measure(command, study.root)
    return used.cpu_s, used.peak_mb


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
