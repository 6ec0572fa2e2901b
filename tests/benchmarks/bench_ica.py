"""How fast, how steady and how large spatial ICA is.

`python -m tests.benchmarks.bench_ica [RUNS]`. In so many runs of a phantom (200 volumes, 3.5 mm, on
a 3 mm grid) the rotation is sought by Picard, as `brainlm ica` does, by Picard from five starts
and by scikit-learn's FastICA, from three seeds each: CPU seconds, the share of searches that
settled, and the share of components that another seed finds again (|r| of the maps above 0.9).
Then one whole decomposition, its CPU seconds and peak memory.

`python -m tests.benchmarks.bench_ica ukb`: a run of UK Biobank's size on the 2 mm grid, synthetic
(smooth sources and noise), through search and judgement: CPU seconds, peak memory, and the part of
them that the authors' 1,000 resamplings take.
"""

from __future__ import annotations

import resource
import sys
import time
import warnings
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import ndimage
from sklearn.decomposition import FastICA

from brainlm.config import Ica
from brainlm.denoise import ica
from brainlm.denoise.aroma import motion_correlation, subsets
from brainlm.denoise.judge import find_and_judge
from brainlm.denoise.regions import template_regions
from brainlm.geometry import MOTION_NAMES
from brainlm.phantom.parameters import SPACE, Parameters
from brainlm.tissues import load_tissues
from tests.unit.true_run import TrueRun, true_runs

SEEDS = (1, 2, 3)
#: A resting run of UK Biobank.
VOLUMES, TR = 490, 0.735
Way = Callable[[np.ndarray, int], tuple[np.ndarray, bool]]


def main(runs: int = 2) -> None:
    """Print one line per way, then one for a whole decomposition."""
    phantom = Parameters(subjects=runs, two_runs=0, two_sessions=0, volumes=200, voxel_mm=3.5)
    made = true_runs(phantom, 3.0)
    white = [_whitened(run) for run in made]
    ways: dict[str, Way] = {
        "Picard": ica._rotation,
        "Picard, 5 starts": lambda maps, seed: ica._rotation(maps, seed, restarts=5),
        "FastICA": _fastica,
    }
    print(f"{'way':<18}{'CPU s':>8}{'settled':>10}{'found again':>13}")
    for name, way in ways.items():
        began = time.process_time()
        found = [[way(maps, seed) for seed in SEEDS] for maps in white]
        seconds = (time.process_time() - began) / len(SEEDS) / runs
        settled = np.mean([done for each in found for _, done in each])
        again = np.mean([_again(one, other) for each in found for one, other in _pairs(each)])
        print(f"{name:<18}{seconds:>8.1f}{settled:>10.0%}{again:>13.0%}", flush=True)

    began = time.process_time()
    done = made[0].components()
    seconds = time.process_time() - began
    print(f"{made[0].series.shape}: {done.about()}, {seconds:.0f} CPU s, peak {_peak_gb():.1f} GB")


def largest(sources: int = 40) -> None:
    """Print what a run of UK Biobank's size takes."""
    tissues, rng = load_tissues(SPACE, 2.0), np.random.default_rng(0)
    mask = tissues.brain
    places = np.argwhere(mask)
    maps = np.empty((sources, int(mask.sum())), dtype=np.float32)
    for row in maps:
        spots = np.zeros(mask.shape, dtype=np.float32)
        spots[tuple(places[rng.integers(len(row))])] = 1
        row[:] = ndimage.gaussian_filter(spots, 3)[mask]
        row /= row.max()
    courses = ndimage.gaussian_filter1d(rng.standard_normal((VOLUMES, sources)), 2, axis=0)
    series = np.empty((VOLUMES, len(row)), dtype=np.float32)
    for values, course in zip(series, courses, strict=True):
        values[:] = 1000 + 60 * course.astype(np.float32) @ maps
        values += 10 * rng.standard_normal(len(row), dtype=np.float32)
    moved = rng.standard_normal((VOLUMES, 6)).cumsum(axis=0) * 0.02
    table = pd.DataFrame(moved, columns=list(MOTION_NAMES))
    held = _peak_gb()
    began = time.process_time()
    done = find_and_judge(
        series,
        mask,
        tissues.affine,
        table,
        template_regions(tissues, mask),
        tr=TR,
        options=Ica().model_dump(),
    )
    seconds = time.process_time() - began
    began = time.process_time()
    motion_correlation(done.components.mixing, moved, subsets(VOLUMES, 1))
    resampling = time.process_time() - began
    print(
        f"{series.shape}: {done.about()}, {seconds:.0f} CPU s, peak {_peak_gb():.1f} GB (making "
        f"the data: {held:.1f}); the resamplings of {len(done.metrics)} components "
        f"{resampling:.2f} CPU s"
    )


def _peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _whitened(run: TrueRun) -> np.ndarray:
    """The maps (k, m) in which `brainlm ica` looks for a rotation of this run."""
    caught: list[np.ndarray] = []

    def catch(maps: np.ndarray, seed: int, restarts: int) -> tuple[np.ndarray, bool]:
        caught.append(maps)
        return np.eye(len(maps)), True

    search, ica._rotation = ica._rotation, catch
    try:
        run.components()
    finally:
        ica._rotation = search
    return caught[0]


def _fastica(maps: np.ndarray, seed: int) -> tuple[np.ndarray, bool]:
    count = len(maps)
    start = np.linalg.qr(np.random.default_rng(seed).standard_normal((count, count)))[0]
    search = FastICA(whiten=False, max_iter=400, tol=1e-4, w_init=start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search.fit(maps.T)
    return search.components_, search.n_iter_ < search.max_iter


def _pairs(found: list[tuple[np.ndarray, bool]]) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(combinations([rotation for rotation, _ in found], 2))


def _again(one: np.ndarray, other: np.ndarray) -> float:
    """Share of the rows of `one` (k, k) that `other` has too; both unmix the same white maps."""
    one, other = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (one, other))
    return float((np.abs(one @ other.T).max(axis=1) > 0.9).mean())


if __name__ == "__main__":
    if sys.argv[1:] == ["ukb"]:
        largest()
    else:
        main(*map(int, sys.argv[1:]))
