"""What watching a training costs: `python -m tests.benchmarks.bench_watching`.

- A validation (48 windows of 424 parcels of 48 recordings, preset `tiny`, one thread) beside the
  same windows going through the same network with nothing added up.
- A set of figures beside a validation of 4,096 windows, which is worked out from the former.
- A row of the log told to TensorBoard: how long the training stands still for it, and how many
  rows the thread takes in.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch

from brainlm.cli._training_figures import (
    Gallery,
    show_guesses,
    show_map,
    show_parcels,
    some_windows,
)
from brainlm.model.mae import MaskedAutoencoder
from brainlm.model.mask import generator
from brainlm.shards.reader import ShardReader
from brainlm.shards.sampler import Window, batches
from brainlm.train.data import load_batch
from brainlm.train.masking import Masking
from brainlm.train.tracking.notes import Notes
from brainlm.train.tracking.shown import cls_vectors, guesses, masked_guess
from brainlm.train.tracking.tensorboard import TensorBoard
from brainlm.train.tracking.trackers import Trackers
from brainlm.train.validation import reconstruct, validate

from .gpu_model import read_preset
from .shards_folder import write_shards

RECORDINGS, BATCH, MOST, ROWS, TURNS = 48, 8, 4096, 20_000, 3
CPU = torch.device("cpu")


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        reader = write_shards(folder, recordings=RECORDINGS, per_shard=RECORDINGS)
        config = read_preset("tiny")
        model = MaskedAutoencoder(config, torch.randn(config.parcels, 3))
        model.initialize(generator(0))
        windows = [Window(name, 0) for name in reader.table["recording_id"]]
        masking = Masking.of(config, "random", 0.75, reader.parcels, config.parcels)
        alone, whole = _validation(model, reader, windows, masking)
        print(f"validation / the network alone: {whole / alone:.3f} ({whole:.2f} s, {alone:.2f} s)")
        figures = _figures(model, reader, windows, masking, folder)
        share = figures / (whole * MOST / len(windows))
        print(f"figures: {figures:.1f} s, {share:.1%} of a validation of {MOST:,} windows")
        _rows(folder)


def _validation(
    model: MaskedAutoencoder, reader: ShardReader, windows: list[Window], masking: Masking
) -> tuple[float, float]:
    """Seconds, the best of some turns: the network alone, and the validation."""
    alone, whole = [], []
    for _ in range(TURNS):
        began = time.perf_counter()
        for number, some in enumerate(batches(windows, BATCH)):
            batch = load_batch(reader, some, model.config.timepoints, CPU)
            source = generator(0, "validation", number)
            reconstruct(model, batch.signal, masking.draw(model.tokenizer, batch.covered, source))
        alone.append(time.perf_counter() - began)
        began = time.perf_counter()
        validate(model, reader, windows, masking=masking, seed=0, batch_size=BATCH)
        whole.append(time.perf_counter() - began)
    return min(alone), min(whole)


def _figures(
    model: MaskedAutoencoder,
    reader: ShardReader,
    windows: list[Window],
    masking: Masking,
    folder: Path,
) -> float:
    """Seconds of the four figures, as after a validation: 16 windows, all recordings on the map."""
    measured = validate(model, reader, windows, masking=masking, seed=0, batch_size=BATCH)
    gallery = Gallery(folder / "figures", Trackers([], folder / "log", print), first=True)
    names = [window.recording_id for window in windows]
    began = time.perf_counter()
    guess = masked_guess(model, masking, 0, "float32")
    length = model.config.timepoints
    found = guesses(reader, some_windows(windows), length, CPU, guess, BATCH)
    vectors = cls_vectors(model, reader, names, "float32")
    show_guesses(gallery, 1, found, [str(name) for name in reader.parcels["name"]])
    show_parcels(gallery, 1, measured)
    show_map(gallery, 1, vectors, None, [])
    return time.perf_counter() - began


def _rows(folder: Path) -> None:
    row = {"epoch": 1, "lr": 1e-3, "loss": 0.5, "grad_norm": 0.4}
    board = TensorBoard(folder / "tensorboard", Notes(folder))
    trackers = Trackers([board], folder / "log", print)
    began = time.perf_counter()
    for step in range(1, ROWS + 1):
        trackers.row({"step": step, **row})
    told = time.perf_counter() - began
    trackers.close(600)
    through = time.perf_counter() - began
    print(
        f"a row told to TensorBoard: {told / ROWS * 1e6:.0f} us of the training's time; "
        f"{ROWS / through:,.0f} rows/s go through"
    )


if __name__ == "__main__":
    main()
