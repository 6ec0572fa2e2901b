"""Several processes end where one would: on the CPU, by gloo, with tiny networks."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch._dynamo  # these two take long: once here, not in each process
import torch.distributed.fsdp
import torch.multiprocessing as multiprocessing
from hypothesis import given
from hypothesis import strategies as st

from brainlm.cli.pretrain import pretrain as command
from brainlm.errors import DataError, InputError
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

from .small_training import SETTINGS
from .synthetic_cohort import NETWORK, make_shards, write_study

# 7 recordings in batches of 5: the last batch of an epoch has fewer windows than 4 processes.
SPLITS = {"train": 7, "val": 3, "test": 1}
CONFIG = ModelConfig.from_dict({**NETWORK, "decoder_layers": 1, "dropout": 0.0})
EXACT = replace(SETTINGS, batch_size=5, epochs=3)
#: Sums of float32 in another order, over six steps of Adam, relative to the largest entry of a
#: tensor. Seen: 2e-4. A mean of the processes' means, instead of that of all entries: 0.2.
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    torch.set_num_threads(1)
    study = write_study(tmp_path_factory.mktemp("distributed") / "study", SPLITS)
    return ShardReader(make_shards(study))


def _train(
    reader: ShardReader,
    folder: Path,
    settings: PretrainSettings,
    ranks: Ranks,
    *,
    report=lambda row: None,
    stop: StopRequest | None = None,
) -> None:
    """Train, and save what each process ends with."""
    model = pretrain(
        reader,
        CONFIG,
        settings,
        seed=3,
        device=torch.device("cpu"),
        checkpoints=Checkpoints.below(folder, "fingerprint", str),
        report=report,
        stop=stop or StopRequest(),
        ranks=ranks,
    )
    save_weights(folder / f"model-{ranks.rank}.safetensors", model)


def _process(rank: int, world: int, port: int, job, *given) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    with joined() as ranks:
        job(*given, ranks)


def _in_processes(world: int, job, *given) -> None:
    """Run `job(*given, ranks)` in `world` processes that know each other."""
    running = _start(world, job, *given)
    while not running.join():
        pass


def _start(world: int, job, *given) -> multiprocessing.ProcessContext:
    port = _free_port()
    # Forked: what is imported need not be imported again.
    return multiprocessing.start_processes(
        _process, (world, port, job, *given), nprocs=world, join=False, start_method="fork"
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
            if name.endswith("key_value.bias"):
                # Attention does not depend on the keys' bias: its gradient is but rounding, which
                # Adam scales up. The values' bias is the other half.
                half = len(value) // 2
                value, found[name] = value[half:], found[name][half:]
            away = float(abs(found[name] - value).max() / max(abs(value).max(), 1e-3))
            assert away <= TOLERANCE, (name, away)
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
    [(1, "ddp", 3), (2, "ddp", 1), (2, "ddp", 2), (2, "fsdp", 2)],
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


@pytest.mark.slow  # where cores are few and busy
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_four_processes_too_though_two_have_no_window_in_the_end(
    reader, tmp_path, parallel
) -> None:
    """A single epoch, of two steps: four processes wait for each other a lot on few cores."""
    settings = replace(EXACT, parallel=parallel, epochs=1)
    _train(reader, tmp_path / "alone", settings, ALONE)
    _in_processes(4, _train, reader, tmp_path, settings)
    _check_alike(tmp_path, tmp_path / "alone", 4)


def test_a_process_by_itself_imports_neither_fsdp_nor_the_compiler() -> None:
    """They take as long as all else that an evaluation imports."""
    code = """
import sys
import brainlm.evaluate.forecasts, brainlm.train.tracking.shown
import torch
from brainlm.train.distributed import is_part, whole
from brainlm.train.runtime import set_up
set_up("cpu", 1)
assert torch.are_deterministic_algorithms_enabled()
assert not is_part(whole(torch.zeros(1)))
late = {"torch.distributed.fsdp", "torch.distributed.tensor", "torch._inductor", "torch._dynamo"}
assert not late & set(sys.modules), late & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def _refused(reader, folder: Path, settings: PretrainSettings, ranks: Ranks) -> None:
    with pytest.raises(InputError, match="muon, which needs matrices whole"):
        _train(reader, folder, settings, ranks)


def test_muon_steps_alike_in_all_processes_and_needs_whole_matrices(reader, tmp_path) -> None:
    settings = replace(EXACT, optimizer="muon")
    _in_processes(2, _train, reader, tmp_path, settings)
    first, second = ((tmp_path / f"model-{rank}.safetensors").read_bytes() for rank in range(2))
    assert first == second
    _train(reader, tmp_path / "alone", settings, ALONE)
    for row, expected in zip(_rows(tmp_path), _rows(tmp_path / "alone"), strict=True):
        assert row == pytest.approx(expected, rel=0.01)  # it rounds to bf16
    _in_processes(2, _refused, reader, tmp_path, replace(settings, parallel="fsdp"))


def _train_until_another_is_told_to_stop(
    reader: ShardReader, folder: Path, settings: PretrainSettings, ranks: Ranks
) -> None:
    """The first process sends a signal to the last one after its first step."""
    sent = signal.SIGTERM if ranks.world == 1 else signal.SIGUSR1
    (folder / f"pid-{ranks.rank}").write_text(str(os.getpid()))

    def report(row: dict) -> None:
        if row["step"] == 1:
            os.kill(int((folder / f"pid-{ranks.world - 1}").read_text()), sent)

    with stop_signals() as stop:
        try:
            _train(reader, folder, settings, ranks, report=report, stop=stop)
        except InterruptedTrainingError as error:
            told = {"what": error.what, "exit_code": error.exit_code}
            (folder / f"told-{ranks.rank}.json").write_text(json.dumps(told))


@pytest.mark.faults
@pytest.mark.parametrize(
    ("before", "parallel", "after"), [(2, "ddp", 1), (2, "ddp", 2), (2, "fsdp", 1), (1, "fsdp", 2)]
)
def test_a_signal_to_one_stops_all_and_others_may_go_on(
    reader, alone, tmp_path, before, parallel, after
) -> None:
    settings = replace(EXACT, parallel=parallel)
    if before == 1:
        _train_until_another_is_told_to_stop(reader, tmp_path, settings, ALONE)
    else:
        _in_processes(before, _train_until_another_is_told_to_stop, reader, tmp_path, settings)
    told = [json.loads((tmp_path / f"told-{rank}.json").read_text()) for rank in range(before)]
    steps = {int(re.search(r"after step (\d+) of 6", each["what"])[1]) for each in told}
    assert len(steps) == 1
    assert steps < {2, 3, 4, 5}
    assert {each["exit_code"] for each in told} == {1}
    if before > 1:
        assert "what another process was told" in told[0]["what"]
        assert "SIGUSR1" in told[-1]["what"]
    assert (tmp_path / f"fingerprint/step-{steps.pop():08d}.safetensors").exists()
    if after == 1:
        _train(reader, tmp_path, settings, ALONE)
    else:
        _in_processes(after, _train, reader, tmp_path, settings)
    _check_alike(tmp_path, alone, after)


def _explode(reader, folder: Path, settings: PretrainSettings, ranks: Ranks) -> None:
    try:
        _train(reader, folder, settings, ranks)
    except DataError as error:
        (folder / f"told-{ranks.rank}.txt").write_text(error.what)


def test_all_processes_say_the_same_of_a_loss_that_explodes(reader, tmp_path) -> None:
    settings = replace(EXACT, learning_rate=1e30, warmup=0.0)
    _in_processes(2, _explode, reader, tmp_path, settings)
    first, second = ((tmp_path / f"told-{rank}.txt").read_text() for rank in range(2))
    assert first == second
    assert re.search(r"at step \d+; the batch held sub-", first)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_masters_and_running_means_are_the_same_in_all_processes(
    reader, tmp_path, parallel
) -> None:
    settings = replace(EXACT, precision="bf16-full", ema_decay=0.5, accumulate=2, parallel=parallel)
    _in_processes(2, _train, reader, tmp_path, settings)
    first, second = ((tmp_path / f"model-{rank}.safetensors").read_bytes() for rank in range(2))
    assert first == second
    _train(reader, tmp_path / "alone", settings, ALONE)
    losses, expected = (
        [row["val_loss"] for row in _rows(folder) if "val_loss" in row]
        for folder in (tmp_path, tmp_path / "alone")
    )
    assert losses == pytest.approx(expected, rel=0.02)


def test_the_command_shares_the_work_and_writes_once(tmp_path) -> None:
    """As `srun` starts it: one task of a step on each of two nodes."""
    options = {"model": {"overrides": {**NETWORK, "dropout": 0.0}}}
    study = write_study(tmp_path / "study", SPLITS, options=options)
    make_shards(study)
    command(study.root)
    folder = study.path("model", run="brainlm").parent
    expected, _ = load_tensors(folder / "model.safetensors")
    sidecar = (folder / "model.json").read_text()
    shutil.rmtree(folder)

    slurm = {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "localhost",
        "MASTER_PORT": str(_free_port()),
    }
    tasks = [
        subprocess.Popen(
            [sys.executable, "-m", "brainlm", "pretrain", "--study", str(study.root)],
            env={**os.environ, **slurm, "SLURM_PROCID": rank, "SLURM_LOCALID": "0"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    told = [task.communicate(timeout=300)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0]
    assert "epoch 1: val_loss" in told[0]
    assert told[1] == ""
    found, _ = load_tensors(folder / "model.safetensors")
    name = "decoder.guess.weight"
    assert abs(found[name] - expected[name]).max() <= TOLERANCE * abs(expected[name]).max()
    assert (folder / "model.json").read_text() == sidecar


@given(count=st.integers(1, 40), world=st.integers(1, 9), passes=st.integers(1, 4))
def test_each_window_is_taken_once_and_evenly(count, world, passes) -> None:
    parts = [share_out(count, rank, world, passes) for rank in range(world)]
    assert [row for part in parts for rows in part for row in rows] == list(range(count))
    assert {len(part) for part in parts} == {passes}
    sizes = [len(rows) for part in parts for rows in part]
    assert max(sizes) - min(sizes) <= 1


def test_processes_are_known_by_torchrun_and_by_slurm() -> None:
    torchrun = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "a"}
    assert ranks_of(torchrun) == Ranks(3, 4, 1)
    assert meeting_point({**torchrun, "MASTER_PORT": "1"}) == "env://"
    step = {
        "SLURM_PROCID": "5",
        "SLURM_STEP_NUM_TASKS": "8",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_NODELIST": "gpu[03-04],big7",
        "SLURM_JOB_ID": "1234567",
    }
    assert ranks_of(step) == Ranks(5, 8, 1)
    assert meeting_point(step) == "tcp://gpu03:34567"
    assert meeting_point({**step, "MASTER_ADDR": "b", "MASTER_PORT": "9"}) == "tcp://b:9"
    batch_script = {"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}
    assert ranks_of(batch_script) == ALONE
    assert ranks_of({**step, "SLURM_STEP_NUM_TASKS": "1"}) == ALONE


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("n1", "n1"), ("n1,n2", "n1"), ("gpu[3,5]", "gpu3"), ("r[01-02]-n,x", "r01-n")],
)
def test_the_first_of_slurms_nodes(nodes, first) -> None:
    assert first_host(nodes) == first


def _die(reader, folder: Path, settings: PretrainSettings, ranks: Ranks) -> None:
    """The last process is killed when the first one has told its third step."""
    (folder / f"pid-{ranks.rank}").write_text(str(os.getpid()))

    def report(row: dict) -> None:
        if row["step"] == 3:
            os.kill(int((folder / f"pid-{ranks.world - 1}").read_text()), signal.SIGKILL)

    _train(reader, folder, replace(settings, epochs=1000), ranks, report=report)


@pytest.mark.faults
def test_when_one_dies_the_others_do_not_wait_for_it(reader, tmp_path) -> None:
    running = _start(2, _die, reader, tmp_path, EXACT)
    for process in running.processes:
        process.join(60)
    assert [process.exitcode for process in running.processes] == [1, -signal.SIGKILL]
    assert list((tmp_path / "fingerprint").glob("step-*"))
