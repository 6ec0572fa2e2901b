"""Several processes end where one would: on the CPU, by gloo, with tiny networks."""

from __future__ import annotations

import json
import os
import signal
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as multiprocessing

from brainlm.model.checkpoint import save_weights
from brainlm.model.config import ModelConfig
from brainlm.shards.reader import ShardReader
from brainlm.shards.tensorfile import load_tensors
from brainlm.train.checkpointing import Checkpoints
from brainlm.train.data import share_out
from brainlm.train.distributed import ALONE, Ranks, first_host, joined, meeting_point, ranks_of
from brainlm.train.pretrain import pretrain
from brainlm.train.runtime import InterruptedTrainingError, StopRequest, stop_signals
from brainlm.train.settings import PretrainSettings

from .synthetic_cohort import NETWORK, make_shards, write_study
from .test_pretrain import SETTINGS

# 7 recordings in batches of 5: the last batch of an epoch has fewer windows than 4 processes.
SPLITS = {"train": 7, "val": 3, "test": 1}
CONFIG = ModelConfig.from_dict({**NETWORK, "decoder_layers": 1, "dropout": 0.0})
EXACT = replace(SETTINGS, batch_size=5, epochs=3)
STEPS = 6
#: Sums of float32 in another order, over six steps: relative to the largest entry of a tensor.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    torch.set_num_threads(1)
    study = write_study(tmp_path_factory.mktemp("distributed") / "study", SPLITS)
    return ShardReader(make_shards(study))


def _train(
    reader: ShardReader, folder: Path, settings: PretrainSettings, ranks: Ranks, kill_at: int = 0
) -> None:
    """Train and save; with `kill_at`, the last process gets a SIGTERM during that step."""

    def report(row: dict) -> None:
        pass

    with stop_signals() as stop:
        if kill_at and ranks.rank == ranks.world - 1:
            stop = _Later(kill_at)
        model = pretrain(
            reader,
            CONFIG,
            settings,
            seed=3,
            device=torch.device("cpu"),
            checkpoints=Checkpoints.below(folder, "fingerprint", str),
            report=report,
            stop=stop,
            ranks=ranks,
        )
    save_weights(folder / f"model-{ranks.rank}.safetensors", model)


class _Later(StopRequest):
    """A SIGTERM that comes when the loop looks for the n-th time: twice in each step."""

    def __init__(self, step: int) -> None:
        self._left = step

    @property
    def signal(self) -> str | None:
        self._left -= 1
        return "SIGTERM" if self._left <= 0 else None

    @signal.setter
    def signal(self, value: str | None) -> None:
        pass


def _process(rank: int, world: int, port: int, job, *given) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    with joined() as ranks:
        job(*given, ranks)


def _in_processes(world: int, job, *given) -> None:
    """Run `job(*given, ranks)` in `world` processes that know each other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Forked: what is imported need not be imported again.
    multiprocessing.start_processes(
        _process, (world, port, job, *given), nprocs=world, start_method="fork"
    )


def _rows(folder: Path) -> list[dict]:
    text = (folder / "fingerprint/metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def _check_alike(folder: Path, expected: Path, world: int) -> None:
    """Weights and log are those of `expected`, in all processes, but for rounding."""
    wanted, _ = load_tensors(expected / "model-0.safetensors")
    for rank in range(world):
        found, _ = load_tensors(folder / f"model-{rank}.safetensors")
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            largest = abs(value).max()
            assert abs(found[name] - value).max() <= TOLERANCE * max(largest, 1e-3), name
    rows, expected_rows = _rows(folder), _rows(expected)
    assert len(rows) == len(expected_rows)
    for row, expected_row in zip(rows, expected_rows, strict=True):
        assert row == pytest.approx(expected_row, rel=1e-4)


@pytest.fixture(scope="module")
def alone(reader, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    _train(reader, folder, EXACT, ALONE)
    return folder


@pytest.mark.parametrize(
    ("world", "parallel", "accumulate"),
    [(1, "ddp", 3), (2, "ddp", 1), (2, "ddp", 2), (2, "fsdp", 2), (4, "ddp", 1), (4, "fsdp", 1)],
)
def test_shared_work_has_the_result_of_one(
    reader, alone, tmp_path, world, parallel, accumulate
) -> None:
    settings = replace(EXACT, parallel=parallel, accumulate=accumulate)
    if world == 1:
        _train(reader, tmp_path, settings, ALONE)
    else:
        _in_processes(world, _train, reader, tmp_path, settings)
    _check_alike(tmp_path, alone, world)
