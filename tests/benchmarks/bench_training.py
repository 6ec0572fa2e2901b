"""What a training waits for besides its network: `python -m tests.benchmarks.bench_training`.

- Batches: windows of 200 time points and their masks, as the loop has them made ahead (64
  recordings of 490 x 424 in float16, batches of 64), by one and by two threads; beside them the
  windows alone as BrainLM's authors load them (Hugging Face `datasets`, Arrow lists, 32 windows),
  and what a step of the network on this CPU takes in.
- What a GPU could take in is arithmetic: its published peak, 40% of it used, and the operations of
  a step (`brainlm/model/flops.py`). Nothing of it was measured on one.
- Hashing the shards, which is done beside the first steps.
- Checkpoints of the 111M network (weights and two moments, float32): how long the loop stands still
  when it waits for the disk, and when a thread writes; and the memory that the copy takes.
- Opening that network from its folder: largest memory of a process.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from brainlm.config import Pretrain
from brainlm.model.flops import peak_flops
from brainlm.model.mae import MaskedAutoencoder, build_on_meta
from brainlm.model.mask import generator
from brainlm.shards.reader import ShardReader
from brainlm.train import pretrain as training
from brainlm.train.checkpointing import Checkpoints
from brainlm.train.data import MappedSource, ahead
from brainlm.train.distributed import ALONE
from brainlm.train.intact import DataCheck
from brainlm.train.masking import Masking
from brainlm.train.settings import PretrainSettings, read_settings
from brainlm.train.speed import training_flops

from .bench_reader import FEW, _hugging_face, _rate, _write_arrow
from .gpu_model import read_preset
from .shards_folder import write_shards

RECORDINGS, BATCH, STEPS, SEED = 64, 64, 24, 0
CPU = torch.device("cpu")
USED = 0.4  # of a GPU's peak
UKB = 61_038  # recordings to train on (Ortega Caro et al. 2024)


def main() -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
        folder = Path(name)
        (folder / "shards").mkdir()
        reader = write_shards(folder / "shards", recordings=RECORDINGS, per_shard=32)
        _write_arrow(reader, folder / "arrow")
        theirs = _rate(_hugging_face(folder / "arrow"))
        print(f"windows/s, Hugging Face as the authors: {theirs:.0f} ({FEW} windows)")
        for size in ("13m", "111m"):
            _batches(size, reader, theirs)
        _hashes(reader)
        del reader
        _checkpoints(folder / "checkpoints")
    _opening()


def _batches(size: str, reader: ShardReader, theirs: float) -> None:
    """Windows and masks ahead of a network's steps."""
    config = read_preset(size)
    masking = Masking.of(config, "random", 0.75, reader.parcels, config.parcels)
    one, two = (_made_ahead(size, reader, masking, threads) for threads in (1, 2))
    eaten = _step_rate(size, masking)
    print(
        f"{size}: made ahead {one:.0f} windows/s by one thread, {two:.0f} by two: "
        f"{one / theirs:.0f}x and {two / theirs:.0f}x Hugging Face; a step here takes in "
        f"{eaten:.2f}/s, {one / eaten:.0f}x less"
    )
    for card in ("H100", "H200"):
        peak = peak_flops(card)
        assert peak is not None
        wanted = USED * peak / training_flops(config, masking)
        print(
            f"    arithmetic: an {card} at {USED:.0%} of its peak would take in {wanted:.0f}/s; "
            f"one thread here makes {one / wanted:.2f} of that, the loop has {training._THREADS}"
        )


def _hashes(reader: ShardReader) -> None:
    """Of all recordings, as each training compares them with the index."""
    names = list(reader.lengths("train"))
    sums = [hashlib.sha256(reader.view(name)).hexdigest() for name in names]
    reader.table["sha256"] = sums

    def once() -> int:
        with DataCheck(reader, ALONE) as intact:
            intact.settle()
        return sum(reader.view(name).nbytes for name in names)

    rate = _rate(once)
    split = UKB * 490 * 424 * 2
    print(
        f"hashing: {rate / 1e9:.2f} GB/s; arithmetic: {split / rate:.0f} s for the "
        f"{split / 1e9:.0f} GB of UK Biobank's train split, where the disk is as fast"
    )


def _made_ahead(size: str, reader: ShardReader, masking: Masking, threads: int) -> float:
    """Windows per second, the best of three passes."""
    config = read_preset(size)
    content = {**Pretrain().model_dump(mode="json"), "batch_size": BATCH}
    settings = read_settings(PretrainSettings, "pretrain", content)
    lengths = reader.lengths("train")
    plan = training.Plan(lengths, [], masking, masking, len(lengths) // BATCH, STEPS, len(lengths))
    network = build_on_meta(config, 40 * torch.randn(config.parcels, 3))
    # All that making a batch asks of a training's state.
    state: Any = SimpleNamespace(
        model=network, tokenizer=network.tokenizer, settings=settings, ranks=ALONE
    )
    source = MappedSource(reader, config.timepoints, CPU)
    torch.set_num_threads(1)

    def once() -> int:
        make = training._step_maker(reader, plan, state, source, SEED)
        return sum(len(step.windows) for step in ahead(make, range(STEPS), threads))

    return _rate(once)


def _step_rate(size: str, masking: Masking) -> float:
    """Windows per second of forward and backward on this CPU, two threads, the better of two."""
    torch.set_num_threads(2)
    config = read_preset(size)
    network = MaskedAutoencoder(config, 40 * torch.randn(config.parcels, 3))
    network.initialize(generator("weights"))
    signal = torch.randn(1, config.parcels, config.timepoints)
    covered = torch.ones(1, config.parcels, dtype=torch.bool)
    mask = masking.draw(network.tokenizer, covered, generator(0))
    best = float("inf")
    for _ in range(2):
        began = time.perf_counter()
        network(signal, mask).loss.backward()
        best = min(best, time.perf_counter() - began)
    return 1 / best


class _State:
    """As large as a training of the 111M."""

    ranks = ALONE

    def __init__(self) -> None:
        config = read_preset("111m")
        network = build_on_meta(config, torch.zeros(config.parcels, 3))
        self.values = {
            f"{kind}.{name}": torch.randn(weight.shape)
            for kind in ("model", "exp_avg", "exp_avg_sq")
            for name, weight in network.named_parameters()
        }

    def tensors(self) -> dict[str, Tensor]:
        return self.values

    def restore(self, tensors: Any) -> None:
        raise NotImplementedError


def _checkpoints(folder: Path) -> None:
    torch.set_num_threads(1)
    state, checkpoints = _State(), Checkpoints(folder, print, keep=1)
    size = sum(value.nbytes for value in state.values.values())
    before = _memory("VmRSS")
    first = _seconds(lambda: checkpoints.save(1, state))
    checkpoints.settle()
    copy = _memory("VmRSS") - before
    waited, stood = [], []
    for step in range(2, 8, 2):
        waited.append(_seconds(lambda at=step: (checkpoints.save(at, state), checkpoints.settle())))
        stood.append(_seconds(lambda at=step: checkpoints.save(at + 1, state)))
        checkpoints.settle()
    one, other = min(waited), min(stood)
    print(
        f"a checkpoint of {size / 1e9:.2f} GB: {one:.2f} s when the disk is waited for, "
        f"{other:.2f} s when a thread writes ({one / other:.1f}x less; the first time "
        f"{first:.2f} s); the copy takes {copy:.2f} GB"
    )


def _opening() -> None:
    """Of a process of its own, beside one that only imports what it needs."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
        peaks = [
            float(
                subprocess.run(
                    [sys.executable, "-m", "tests.benchmarks.bench_training", what, name],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout.splitlines()[-1]
            )
            for what in ("write", "import", "open")
        ]
    print(f"opening the 111M (0.45 GB): {peaks[2] - peaks[1]:.2f} GB of memory at most")


def _one(what: str, folder: Path) -> None:
    """Write the network's folder, open it, or do neither; print the process's largest memory."""
    from brainlm.atlas import load_table
    from brainlm.model.checkpoint import load_model
    from tests.unit.small_model import write_model

    if what == "write":
        load_table().to_csv(folder / "parcels.tsv", sep="\t", index=False)
        sizes = read_preset("111m").to_dict()
        del sizes["head"]  # there a head for labels
        write_model(folder / "model", table=folder / "parcels.tsv", **sizes)
    elif what == "open":
        load_model(folder / "model")
    print(_memory("VmHWM"))


def _memory(field: str) -> float:
    """Of this process, GB."""
    found = re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) / 1e6


def _seconds(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _one(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
