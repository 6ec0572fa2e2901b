"""Reconstruction beside the network: `python -m tests.benchmarks.bench_reconstruction`.

All that `evaluate-reconstruction` does with open shards (424 parcels, float16: windows read,
hidden under each condition, guessed by the model and by both plain methods, summed up), against
the network's forward pass over the same masks, held in memory as the network takes them; and the
same for whole recordings, of which three are guessed again to be looked at. Both take turns in one
process, one thread; what is told is the ratio of the medians of their CPU time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from brainlm.evaluate.hiding import Condition, Hider, read_alike
from brainlm.evaluate.reconstruction import scored_windows, tally_conditions
from brainlm.evaluate.whole_recordings import disjoint_masks, reconstruct_whole, tiling
from brainlm.model.mae import MaskedAutoencoder
from brainlm.model.mask import generator
from brainlm.shards.reader import ShardReader
from brainlm.shards.sampler import Window
from brainlm.train.validation import reconstruct

from .gpu_model import read_preset
from .shards_folder import write_shards

RECORDINGS, TURNS, BATCH, MASKS = 8, 5, 8, 5
CONDITIONS = [Condition("random", share) for share in (0.75, 0.2, 0.9)]


def main(preset: str = "tiny") -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        reader = write_shards(Path(name), recordings=RECORDINGS, per_shard=32)
        reader.table = reader.table.assign(split="test", dataset="noise")
        config = read_preset(preset)
        model = MaskedAutoencoder(config, 40 * torch.randn(config.parcels, 3))
        model.initialize(generator(0))
        model.eval()
        _compare("masked windows", *_masked(model, reader))
        _compare("whole recordings", *_whole(model, reader))


def _masked(model: MaskedAutoencoder, reader: ShardReader) -> tuple[Callable[[], object], ...]:
    windows = scored_windows(reader, model.config.timepoints)
    hider = Hider(model, reader, 0)
    held = [
        (batch.signal, hider.mask(part, batch.covered, condition))
        for part, batch in read_alike(reader, windows, model, BATCH, lambda items, _: items)
        for condition in CONDITIONS
    ]

    def everything() -> object:
        return tally_conditions(
            model,
            reader,
            windows,
            CONDITIONS,
            seed=0,
            batch_size=BATCH,
            tick=lambda items, _: items,
        )

    return lambda: [reconstruct(model, *each) for each in held], everything


def _whole(model: MaskedAutoencoder, reader: ShardReader) -> tuple[Callable[[], object], ...]:
    windows = [
        Window(name, start)
        for name, n in reader.lengths("test").items()
        for start in tiling(n, model.config.timepoints)
    ]
    held = []
    for part, batch in read_alike(reader, windows, model, BATCH, lambda items, _: items):
        available = model.tokenizer.available(batch.covered)
        sources = [generator(0, window) for window in part]
        held += [(batch.signal, mask) for mask in disjoint_masks(available, MASKS, sources)]

    def everything() -> object:
        return reconstruct_whole(
            model,
            reader,
            masks=MASKS,
            most=RECORDINGS,
            bootstrap=100,
            seed=0,
            batch_size=BATCH,
            tick=lambda items, _: items,
        )

    return lambda: [reconstruct(model, *each) for each in held], everything


def _compare(title: str, bare: Callable[[], object], everything: Callable[[], object]) -> None:
    times: dict[str, list[float]] = {"bare": [], "whole": []}
    for turn in range(TURNS + 1):
        for name, work in (("bare", bare), ("whole", everything)):
            began = time.process_time()
            work()
            if turn:  # the first warms up
                times[name].append(time.process_time() - began)
    medians = {name: sorted(some)[len(some) // 2] for name, some in times.items()}
    share = medians["bare"] / medians["whole"]
    print(f"{title}: {medians['whole']:.2f} s, of which the network alone {share:.0%}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--preset", default="tiny")
    main(parser.parse_args().preset)
