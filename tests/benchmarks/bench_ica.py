"""How fast, how steady and how large spatial ICA is.

`python -m tests.benchmarks.bench_ica [VOLUMES]`. The rotation is sought in smooth planted maps by
Picard, as `brainlm ica` does, and by scikit-learn's FastICA, from three seeds: CPU seconds, and
the share of components of the first seed that the others find again (|r| of the maps above 0.9).
Then one whole decomposition, its CPU seconds and peak memory.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable

import numpy as np
from scipy import ndimage
from sklearn.decomposition import FastICA

from brainlm.denoise.ica import _rotation, spatial_ica

COUNT, SHAPE, SIZES = 40, (60, 72, 60), np.full(3, 3.0)
SEEDS = (1, 2, 3)


def main(volumes: int = 200) -> None:
    """Print one line per way, then one for the whole."""
    mask = np.ones(SHAPE, dtype=bool)
    rng = np.random.default_rng(0)
    maps = np.stack([_blobs(rng) for _ in range(COUNT)])
    mixed = rng.standard_normal((COUNT, COUNT)) @ maps[:, ::5]
    _, _, right = np.linalg.svd(mixed, full_matrices=False)
    whitened = right * np.sqrt(mixed.shape[1])
    ways: dict[str, Callable[[int], np.ndarray]] = {
        "Picard": lambda seed: _rotation(whitened, seed)[0],
        "FastICA": lambda seed: _fastica(whitened, seed),
    }
    print(f"{'way':<9}{'CPU s':>8}{'found again':>13}")
    for name, way in ways.items():
        began = time.process_time()
        found = [way(seed) for seed in SEEDS]
        seconds = (time.process_time() - began) / len(SEEDS)
        again = [(np.abs(found[0] @ one.T).max(axis=1) > 0.9).mean() for one in found[1:]]
        print(f"{name:<9}{seconds:>8.1f}{np.mean(again):>13.0%}")

    courses = rng.standard_normal((volumes, COUNT))
    series = (courses @ maps).astype(np.float32) + 1000
    series += rng.standard_normal(series.shape, dtype=np.float32)
    drifts = np.full((volumes, 1), volumes**-0.5)
    began = time.process_time()
    done = spatial_ica(series, mask, SIZES, drifts, fwhm_mm=6.0, components=None, seed=1)
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{volumes} volumes of {mask.sum()} voxels: {done.mixing.shape[1]} components, "
        f"{seconds:.0f} CPU s, peak {peak:.1f} GB"
    )


def _fastica(whitened: np.ndarray, seed: int) -> np.ndarray:
    count = len(whitened)
    start = np.linalg.qr(np.random.default_rng(seed).standard_normal((count, count)))[0]
    search = FastICA(whiten=False, max_iter=400, tol=5e-4, w_init=start)
    return search.fit(whitened.T).components_


def _blobs(rng: np.random.Generator) -> np.ndarray:
    spots = ndimage.gaussian_filter((rng.random(SHAPE) > 0.99995).astype(float), 2.5)
    return np.asarray((spots / spots.std()).ravel())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
