"""Vectors of a cohort, beside the network alone: `python -m tests.benchmarks.bench_embed`.

All that `brainlm embed` does between the open shards and the merged table (424 parcels, float16;
windows read, cast, turned, pooled, written in parts), against the network's forward pass over the
same windows in batches of the same size, held in memory as the network takes them. Both take turns
in one process, one thread for the network; what is told is the ratio of the medians, of
wall time and (which other work on the machine moves less) of CPU time over all threads. Presets:
tiny and 13m; 111m and others by `--presets`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from brainlm.evaluate.embedding_stream import EmbeddingStream, batch_of
from brainlm.model.mae import MaskedAutoencoder
from brainlm.model.mask import generator
from brainlm.shards.dataset import as_signal
from brainlm.shards.reader import ShardReader
from brainlm.shards.sampler import batches, even_windows

from .gpu_model import read_preset
from .shards_folder import write_shards

#: Preset -> recordings (of two windows each), and turns.
SIZES = {"tiny": (24, 5), "13m": (3, 3), "111m": (4, 3)}


def main(presets: tuple[str, ...] = ("tiny", "13m"), device: str = "cpu") -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "shards").mkdir()
        most = max(SIZES[preset][0] for preset in presets)
        reader = write_shards(folder / "shards", recordings=most, per_shard=32)
        for preset in presets:
            _compare(preset, reader, folder, device)


def _compare(preset: str, reader: ShardReader, folder: Path, device: str) -> None:
    config = read_preset(preset)
    model = MaskedAutoencoder(config, 40 * torch.randn(config.parcels, 3))
    model.initialize(generator(0))
    model = model.to(device).eval()
    recordings, turns = SIZES[preset]
    names = sorted(reader.table.index)[:recordings]
    batch = min(batch_of(model), recordings)  # no batch has to be filled up: parts are short here
    lengths = {name: int(reader.table["n_timepoints"][name]) for name in names}
    windows = even_windows(lengths, config.timepoints)
    ready = [
        as_signal(torch.from_numpy(reader.stack(some, config.timepoints)).to(device))
        for some in batches(windows, batch)
    ]
    available = model.tokenizer.available(torch.ones(1, config.parcels, dtype=torch.bool))
    visible = available[0].nonzero()[:, 0].to(device)

    @torch.no_grad()
    def bare() -> None:
        for signal in ready:
            model.encode(signal, visible.expand(len(signal), -1))

    def whole() -> None:
        parts = folder / "parts" / "of"
        stream = EmbeddingStream(model, reader, names, parts, batch, recordings)
        for _ in stream.run():
            pass
        stream.merge(folder / "vectors.parquet")
        stream.forget()

    times: dict[str, list[tuple[float, float]]] = {"bare": [], "whole": []}
    for turn in range(turns + 1):
        for title, work in (("bare", bare), ("whole", whole)):
            began, used = time.perf_counter(), time.process_time()
            work()
            if device == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first one warms up
                times[title].append((time.perf_counter() - began, time.process_time() - used))
    (alone, cpu), (embedded, all_cpu) = (
        len(windows) / np.median(times[key], axis=0) for key in ("bare", "whole")
    )
    print(
        f"{preset:5s} {len(windows)} windows, batches of {batch}: network alone {alone:.2f} "
        f"windows/s, embed {embedded:.2f} ({embedded / alone:.0%}); per CPU second {cpu:.2f} and "
        f"{all_cpu:.2f} ({all_cpu / cpu:.0%})",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--presets", nargs="+", default=["tiny", "13m"], choices=list(SIZES))
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    main(tuple(arguments.presets), arguments.device)
