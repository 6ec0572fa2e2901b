"""Connectivity against a loop of numpy.corrcoef: `python -m tests.benchmarks.bench_connectivity`.

Recordings of 490 time points and 424 parcels, float32, at hand. Both take the same
ones in turn, a few at a time so that the rest of the machine weighs on both alike; the time of a
recording is the median over turns, on the wall and of the CPU. With one thread what is gained is
bound by the product of matrices, which float32 halves (numpy makes a symmetric one of both, near
what the core can do); the rest is gained by threads, where there are cores for them.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from brainlm.evaluate.baselines.correlations import correlation, in_blocks

TIMES, PARCELS, EACH = 490, 424, 64
Floats = np.ndarray[Any, np.dtype[np.float32]]


class Stored:
    """Recordings by name; a few series stand for all, so that memory tells of the method alone."""

    def __init__(self, count: int):
        rng = np.random.default_rng(0)
        shared = rng.standard_normal((count, TIMES, 1))
        noise = rng.standard_normal((count, TIMES, PARCELS))
        self.all = (0.5 * shared + noise).astype(np.float32)

    def series(self, recording_id: str) -> Floats:
        """At hand: reading is not what is compared."""
        return self.all[int(recording_id) % len(self.all)]


def main(turns: int, recordings: int) -> None:
    stored, names = Stored(EACH), [str(number) for number in range(EACH)]

    def loop() -> None:
        for name in names:
            np.corrcoef(stored.series(name), rowvar=False)

    def kept() -> list[Any]:
        return [np.corrcoef(stored.series(name), rowvar=False) for name in names]

    def ours(threads: int) -> Callable[[], Any]:
        return lambda: [None for _ in in_blocks(names, stored, threads)]

    ways = {"corrcoef, nothing kept": loop, "corrcoef": kept}
    ways |= {f"brainlm, threads: {number}": ours(number) for number in (1, 2, 4)}
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, way in ways.items():
            began = np.array([time.perf_counter(), time.process_time()])
            way()
            ended = np.array([time.perf_counter(), time.process_time()])
            took[name].append(tuple((ended - began) / EACH))
    base = np.median(took["corrcoef"], axis=0)
    for name, seconds in took.items():
        wall, cpu = np.median(seconds, axis=0)
        print(
            f"{name:26s} wall {1e3 * wall:6.2f} ms {base[0] / wall:5.2f}x"
            f"   CPU {1e3 * cpu:6.2f} ms {base[1] / cpu:5.2f}x"
        )
    series = stored.series("0")
    far = np.abs(correlation(series) - np.corrcoef(series, rowvar=False)).max()
    print(f"largest difference from corrcoef {far:.1e}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    for _ in in_blocks((str(number) for number in range(recordings)), stored, 2):
        pass
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    spent = time.perf_counter() - began
    print(f"{recordings} recordings: {spent:.1f} s, {more / 1024:.0f} MiB more than before")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--recordings", type=int, default=2000)
    options = parser.parse_args()
    main(options.turns, options.recordings)
