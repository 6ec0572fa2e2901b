"""What a GPU waits for in a training: `python -m tests.benchmarks.gpu_training`.

Needs a GPU (`--tiny` tries the script on the CPU) and the packages of the training side. Shards of
noise, 490 x 424 in float16; steps of the loop itself, of presets of config/models, bf16:

- steps/s when batches are there already; share of a step that gathering a batch takes, where the
  split lies on the device; the same steps with the loop's threads making batches, from the device
  and from files;
- how much longer steps take in which a checkpoint is saved: when its file is waited for, and when a
  thread writes it;
- the same steps under DDP of one process; the largest memory.
"""

from __future__ import annotations

import argparse
import datetime
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from brainlm.model.config import ModelConfig
from brainlm.model.flops import peak_flops
from brainlm.shards.reader import ShardReader
from brainlm.train import pretrain as training
from brainlm.train.checkpointing import Checkpoints
from brainlm.train.data import Source, ahead, open_source
from brainlm.train.masking import Masking
from brainlm.train.settings import PretrainSettings
from brainlm.train.speed import training_flops
from brainlm.train.state import TrainState

from .gpu_model import BATCHES, read_preset
from .shards_folder import write_shards

SEED, RATE = 0, 1e-4
SETTINGS = PretrainSettings(
    run="bench",
    epochs=1,
    windows_per_recording=1,
    batch_size=1,
    accumulate=1,
    optimizer="adamw",
    learning_rate=RATE,
    base_learning_rate=None,
    weight_decay=0.05,
    warmup=0.0,
    mask="random",
    mask_ratio=0.75,
    guessed=1.0,
    loss="mse",
    clip_norm=1.0,
    ema_decay=0.0,
    precision="bf16",
    compile=False,
    attention="sdpa",
    checkpoint_blocks=False,
    data="resident",
    processes=1,
    nodes=1,
    deterministic=False,
    parallel="ddp",
    checkpoint_every=100,
    keep_checkpoints=1,
    validate_windows=None,
    validate_every=None,
    stop_before_end_s=0.0,
    device="auto",
)


class Bench:
    """One network on the device, and the loop's own steps."""

    def __init__(self, config: ModelConfig, batch: int, reader: ShardReader, device: torch.device):
        """Of `batch` windows a step."""
        self.reader, self.device, self.batch = reader, device, batch
        settings = replace(SETTINGS, batch_size=batch)
        places = torch.randn(config.parcels, 3).mul(40).numpy()
        parcels = pd.DataFrame(places, columns=["x", "y", "z"])
        self.state = TrainState(config, parcels, settings, seed=SEED, device=device)
        masking = Masking.of(config, "random", 0.75, parcels, config.parcels)
        lengths = reader.lengths("train")
        per_epoch = -(-len(lengths) // batch)
        self.plan = training.Plan(
            train=lengths,
            val_windows=[],
            masking=masking,
            asking=masking,
            steps_per_epoch=per_epoch,
            total_steps=10**6,
            windows_per_epoch=len(lengths),
            validate_every=10**6,
        )
        self.flops = training_flops(config, masking) * batch
        self.resident = self.source("resident")

    def source(self, kind: str) -> Source:
        """Where windows come from."""
        timepoints = self.state.model.config.timepoints
        return open_source(kind, self.reader, timepoints, self.device)

    def maker(self, source: Source) -> Callable[[int], training.Step]:
        """What makes the batch of a step."""
        return training._step_maker(self.reader, self.plan, self.state, source, SEED)

    def step(self, source: Source, step: training.Step) -> None:
        """As the loop does it."""
        training._train_step(self.state, source, step, RATE, SEED, stopping=False)

    def seconds(self, do: Callable[[], object]) -> float:
        """Until the device is done."""
        wait(self.device)
        began = time.perf_counter()
        do()
        wait(self.device)
        return time.perf_counter() - began

    def ready(self, steps: Sequence[training.Step]) -> float:
        """Seconds a step, of batches that are there."""

        def all_steps() -> None:
            for step in steps:
                self.step(self.resident, step)

        return self.seconds(all_steps) / len(steps)

    def gathering(self, steps: Sequence[training.Step]) -> float:
        """Seconds a step, for the windows alone."""

        def all_windows() -> None:
            for step in steps:
                for piece in step.pieces:
                    self.resident.signal(piece.fetched)

        return self.seconds(all_windows) / len(steps)

    def as_the_loop(self, kind: str, count: int) -> float:
        """Seconds a step, with threads that make the batches; the first few are not counted."""
        source = self.source(kind)
        stream = ahead(self.maker(source), range(count + 5), training._THREADS)
        for _ in range(5):
            self.step(source, next(stream))

        def rest() -> None:
            for step in stream:
                self.step(source, step)

        return self.seconds(rest) / count

    def saving(self, steps: Sequence[training.Step], folder: Path, *, wait_for_it: bool) -> float:
        """Seconds for the steps, of which the first saves a checkpoint."""
        checkpoints = Checkpoints(folder, print, keep=1)
        checkpoints.save(1, self.state)  # takes the memory
        checkpoints.settle()

        def all_steps() -> None:
            for number, step in enumerate(steps):
                self.step(self.resident, step)
                if number == 0:
                    checkpoints.save(2, self.state)
                    if wait_for_it:
                        checkpoints.settle()

        spent = self.seconds(all_steps)
        checkpoints.settle()
        return spent


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(size: str, bench: Bench, count: int, folder: Path) -> None:
    """Print all that is measured of one network."""
    make = bench.maker(bench.resident)
    steps = [make(number) for number in range(count)]
    bench.ready(steps[:3])
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    ready = bench.ready(steps)
    gathering = bench.gathering(steps)
    rate = f"{1 / ready:.2f} steps/s, {bench.batch / ready:,.0f} windows/s"
    print(f"\n{size}, batch {bench.batch}: {rate}")
    if bench.device.type == "cuda":
        peak = peak_flops(torch.cuda.get_device_name())
        used = f"{bench.flops / ready / peak:.1%}" if peak else "card not known"
        memory = torch.cuda.max_memory_allocated() / 1e9
        print(f"    MFU {used}, at most {memory:.1f} GB")
    print(f"    gathering the windows on the device: {gathering / ready:.2%} of a step")
    for kind in ("resident", "mmap"):
        spent = bench.as_the_loop(kind, count)
        print(f"    batches made beside the steps, {kind}: {spent / ready:.3f} of that time")
    for wait_for_it, how in ((True, "its file is waited for"), (False, "a thread writes it")):
        spent = bench.saving(steps, folder, wait_for_it=wait_for_it)
        print(f"    a checkpoint costs {(spent - count * ready) / ready:.1f} steps when {how}")
    bench.state.trained = DistributedDataParallel(bench.state.model)
    bench.ready(steps[:3])
    print(f"    DDP of one process: {bench.ready(steps) / ready:.3f} of that time")


def _alone(device: torch.device) -> None:
    """A group of one process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)


def main() -> None:
    parser = argparse.ArgumentParser(description="What a GPU waits for in a training.")
    parser.add_argument("--sizes", nargs="+", default=["13m", "111m"], choices=list(BATCHES))
    parser.add_argument("--scale", type=float, default=1.0, help="of the batches")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--recordings", type=int, default=2000, help="of 0.4 MB each")
    parser.add_argument("--tiny", action="store_true", help="a miniature, on the CPU if need be")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not options.tiny:
        sys.exit("no GPU here: nothing was measured (--tiny tries the script on the CPU)")
    overrides: dict[str, Any] = {}
    if options.tiny:
        overrides = {"hidden": 32, "layers": 1, "heads": 2, "mlp": 32, "decoder_hidden": 32}
        overrides |= {"decoder_layers": 1, "decoder_heads": 2, "decoder_mlp": 32}
        options.scale, options.steps, options.recordings = 1e-9, 3, 4
    card = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    when = datetime.datetime.now(tz=datetime.UTC).date()
    print(f"{when}, {card}, PyTorch {torch.__version__}, {SETTINGS.precision}")
    _alone(device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reader = write_shards(folder, recordings=options.recordings, per_shard=500)
        for size in options.sizes:
            config = read_preset(size, **overrides)
            batch = max(1, round(BATCHES[size] * options.scale))
            bench = Bench(config, batch, reader, device)
            measure(size, bench, options.steps, folder / f"checkpoints-{size}")
            del bench
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
