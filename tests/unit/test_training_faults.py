"""What a cluster does to a training: time limits, full disks, processes and files that go away."""

from __future__ import annotations

import hashlib
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from brainlm.cli.pretrain import pretrain as command
from brainlm.errors import DataError, ResourceError
from brainlm.layout import Study
from brainlm.shards.reader import ShardReader
from brainlm.shards.tensorfile import load_tensors, save_tensors
from brainlm.train.distributed import Ranks
from brainlm.train.intact import DataCheck
from brainlm.train.runtime import InterruptedTrainingError, StopRequest, seconds_left

from .synthetic_cohort import make_shards, write_study

SPLITS = {"train": 5, "val": 2, "test": 2}
#: What a training ends with; the other files tell its options too.
NAMES = ("model.safetensors", "metrics.jsonl")
NOW = 1_800_000_000.0
JOB = {"SLURM_JOB_START_TIME": f"{NOW - 3600:.0f}", "SLURM_JOB_END_TIME": f"{NOW + 600:.0f}"}

pytestmark = pytest.mark.faults


def _pretrain(study: Study, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the real command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "brainlm", "pretrain", "--study", str(study.root)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def _goes_on(study: Study, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command again, here; the checkpoint that it went on from."""
    capsys.readouterr()
    command(study.root)
    return capsys.readouterr().out.partition("Going on from ")[2].partition(".safetensors")[0]


def _results(study: Study) -> dict[str, bytes]:
    folder = study.path("model", run="brainlm").parent
    return {name: (folder / name).read_bytes() for name in NAMES}


def _study(folder: Path, **pretrain: object) -> Study:
    """Three steps an epoch."""
    options = {"pretrain": {"epochs": 3, "batch_size": 2, "device": "cpu", **pretrain}}
    study = write_study(folder, SPLITS, options=options)
    make_shards(study)
    return study


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> dict[str, bytes]:
    torch.set_num_threads(1)
    study = _study(tmp_path_factory.mktemp("unbroken") / "study")
    command(study.root)
    return _results(study)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 480.0),
        ({"SLURM_JOB_START_TIME": ""}, math.inf),
        ({"SLURM_JOB_END_TIME": f"{NOW + 60}"}, 0.0),  # less than it takes: one step is done
        ({"SLURM_JOB_END_TIME": f"{NOW - 60}"}, math.inf),  # our clock runs ahead
        ({"SLURM_JOB_START_TIME": f"{NOW + 300}"}, math.inf),  # it lags behind
        ({"SLURM_JOB_START_TIME": f"{NOW + 30}"}, 480.0),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"}, 480.0),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}, math.inf),
    ],
)
def test_the_time_that_is_left_is_told_by_slurm(changes, expected) -> None:
    assert seconds_left({**JOB, **changes}, 120, NOW) == expected
    assert seconds_left({**JOB, **changes}, 0, NOW) == math.inf
    assert seconds_left({}, 120, NOW) == math.inf


def test_a_wall_clock_that_is_set_changes_no_limit(monkeypatch) -> None:
    now = [100.0]
    stop = StopRequest(480.0, clock=lambda: now[0])
    for jump in (-1e9, 1e9):
        monkeypatch.setattr(time, "time", lambda jump=jump: NOW + jump)
        assert stop.wanted is None
    now[0] += 479.9
    assert stop.wanted is None
    now[0] += 0.2
    assert stop.wanted == "the time limit of the job"
    stop.signal = "SIGUSR1"
    assert stop.wanted == "SIGUSR1"
    assert StopRequest().wanted is None


def test_before_the_time_limit_it_saves_and_stops_by_itself(unbroken, tmp_path, capsys) -> None:
    study = _study(tmp_path / "study", stop_before_end_s=3000)
    done = _pretrain(study, SLURM_JOB_END_TIME=f"{time.time() + 2900:.0f}")
    assert done.returncode == 1
    assert "Stopped by the time limit of the job after step 1 of 9" in done.stderr
    assert _goes_on(study, capsys) == "step-00000001"
    assert _results(study) == unbroken


#: The real command, whose write of a checkpoint stops half-way, or between write and rename.
STUCK = """
import sys, time
from pathlib import Path
from brainlm.cli import main
from brainlm.train import checkpointing
real = checkpointing.save_tensors
how, reached, study = sys.argv[1:]
def stuck(path, tensors, about):
    real(path, tensors, about)
    if about["step"] == 5:
        if how == "half":
            path.write_bytes(path.read_bytes()[:1000])
        Path(reached).touch()
        time.sleep(60)
checkpointing.save_tensors = stuck
sys.argv = ["brainlm", "pretrain", "--study", study]
main()
"""


@pytest.mark.parametrize("how", ["whole", pytest.param("half", marks=pytest.mark.slow)])
def test_killed_while_the_thread_writes_it_goes_on_from_the_one_before(
    unbroken, tmp_path, capsys, how
) -> None:
    study = _study(tmp_path / "study", checkpoint_every=1)
    reached = tmp_path / "reached"
    call = [sys.executable, "-c", STUCK, how, str(reached), str(study.root)]
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not reached.exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    (folder,) = (study.path("model", run="brainlm").parent / "checkpoints").iterdir()
    (left,) = folder.glob(".tmp-*")
    left.rename(left.with_name(".tmp-gone-1-step-00000005.safetensors"))  # of another machine
    os.utime(folder / "step-00000003.safetensors", (2e9, 2e9))  # clocks mean nothing
    assert _goes_on(study, capsys) == "step-00000004"
    assert not list(folder.glob(".tmp-*"))
    assert _results(study) == unbroken


def _small_disk(folder: Path) -> Iterator[None]:
    """A file system of 1 MB."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("nothing may be mounted here")
        yield
    finally:
        subprocess.run(["umount", str(folder)], capture_output=True, check=False)


def test_a_full_disk_stops_the_training_with_its_name(unbroken, tmp_path, capsys) -> None:
    """Checkpoints of 0.25 MB, and room for three; then the disk is given more of it."""
    study = _study(tmp_path / "study", checkpoint_every=1, keep_checkpoints=9)
    disk = study.path("model", run="brainlm").parent / "checkpoints"
    disk.parent.mkdir(parents=True)
    for _ in _small_disk(disk):
        with pytest.raises(ResourceError, match="No space is left on the disk") as caught:
            command(study.root)
        assert str(caught.value.file).startswith(str(disk))
        assert str(caught.value.fix).startswith("free some space")
        larger = ["mount", "-o", "remount,size=50m", str(disk)]
        subprocess.run(larger, capture_output=True, check=True)
        assert _goes_on(study, capsys).startswith("step-0000000")
        assert _results(study) == unbroken


def test_a_file_that_may_not_grow_is_told_as_such(unbroken, tmp_path, capsys, monkeypatch) -> None:
    """As with a quota: here a limit on the size of files."""
    study = _study(tmp_path / "study", checkpoint_every=1, stop_before_end_s=3000)
    with monkeypatch.context() as patch, pytest.raises(InterruptedTrainingError):
        patch.setenv("SLURM_JOB_END_TIME", f"{time.time() + 2900:.0f}")
        command(study.root)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            command(study.root)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "step-0000000" in caught.value.filename
    assert _goes_on(study, capsys) == "step-00000001"
    assert _results(study) == unbroken


def _flip(study: Study, split: str) -> tuple[Path, str]:
    """Flip the last byte's lowest bit of a split's last recording; which file and recording."""
    reader = ShardReader(study.path("shards_index"))
    row = reader.recordings(split).iloc[-1]
    path = reader.folder / row["shard"]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return path, str(row["recording_id"])


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_flipped_bit_is_no_number_to_learn_from(unbroken, tmp_path, capsys, split) -> None:
    """It is told before anything is saved: mended, the training ends as if nothing had been."""
    study = _study(tmp_path / "study", checkpoint_every=1)
    path, name = _flip(study, split)
    with pytest.raises(DataError, match=rf"{name}: its bytes have changed") as caught:
        command(study.root)
    assert caught.value.file == str(path)
    (folder,) = (study.path("model", run="brainlm").parent / "checkpoints").iterdir()
    assert not list(folder.glob("step-*"))
    _flip(study, split)
    assert _goes_on(study, capsys) == ""
    assert _results(study) == unbroken


def test_no_process_saves_before_all_have_looked(tmp_path, monkeypatch) -> None:
    """The second of two finds the fault; the first hears of it."""
    study = _study(tmp_path / "study")
    _, name = _flip(study, "train")
    reader = ShardReader(study.path("shards_index"))
    names = [*reader.lengths("train"), *reader.lengths("val")]
    rank = names.index(name) % 2
    monkeypatch.setattr(Ranks, "total", lambda self, values: values)
    with DataCheck(reader, Ranks(1 - rank, 2)) as intact:
        intact.settle()
        intact.settle()
    with DataCheck(reader, Ranks(rank, 2)) as intact, pytest.raises(DataError, match=name):
        intact.settle()
    monkeypatch.setattr(Ranks, "total", lambda self, values: values + 1)
    with (
        DataCheck(reader, Ranks(1 - rank, 2)) as intact,
        pytest.raises(DataError, match="Another process has found"),
    ):
        intact.settle()


def _remove(path: Path) -> None:
    path.unlink()


def _shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _spoil_header(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_remove, "train-00000.safetensors does not exist"),
        (_shorten, "cut short, damaged"),
        (_spoil_header, "damaged|does not hold|not written by"),
    ],
)
def test_a_shard_that_is_missing_or_cut_is_told_before_the_first_step(
    tmp_path, capsys, spoil, told
) -> None:
    study = _study(tmp_path / "study")
    shard = study.path("shards_index").with_name("train-00000.safetensors")
    spoil(shard)
    with pytest.raises(DataError, match=told) as caught:
        command(study.root)
    assert caught.value.file == str(shard)
    assert caught.value.fix
    assert not study.path("model", run="brainlm").parent.exists()


def test_recordings_shorter_than_the_window_are_left_out_and_told(tmp_path, capsys) -> None:
    study = _study(tmp_path / "study", epochs=1)
    (name,) = _cut_short(study, "train", 39)
    command(study.root)
    told = capsys.readouterr()
    assert "1 train recordings are shorter than the model's 40 volumes" in told.err + told.out
    assert name in told.err + told.out
    log = study.path("model_log", run="brainlm").read_text()
    rows = [json.loads(line) for line in log.splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2]  # four recordings, by two


def _cut_short(study: Study, split: str, length: int) -> list[str]:
    """Make the shards anew with a recording of `length` time points."""
    reader = ShardReader(study.path("shards_index"))
    row = reader.recordings(split).iloc[0]
    path = reader.folder / row["shard"]
    tensors, about = load_tensors(path)
    tensors[row["recording_id"]] = tensors[row["recording_id"]][:length].copy()
    save_tensors(path, tensors, about)
    table = reader.table.reset_index(drop=True)
    chosen = table["recording_id"] == row["recording_id"]
    table.loc[chosen, "n_timepoints"] = length
    digest = hashlib.sha256(tensors[row["recording_id"]].tobytes()).hexdigest()
    table.loc[chosen, "sha256"] = digest
    table.to_parquet(reader.index_path, index=False)
    return [str(row["recording_id"])]


#: The real command, of which one process fails at its third step.
FAILING = """
import os, signal, sys
from brainlm.cli import main
from brainlm.errors import DataError
from brainlm.train import pretrain as training
real, number = training._train_step, []
def step(*given, **options):
    number.append(0)
    if os.environ["RANK"] == "1" and len(number) == 3:
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise DataError("what really happened", file="it.txt", fix="mend it")
    return real(*given, **options)
training._train_step = step
how, study = sys.argv[1:]
sys.argv = ["brainlm", "pretrain", "--study", study]
main()
"""


@pytest.mark.parametrize("how", ["error", pytest.param("killed", marks=pytest.mark.slow)])
def test_the_first_error_of_many_processes_stands_out(tmp_path, how) -> None:
    """As torchrun tells it, to the person who reads the log."""
    study = _study(tmp_path / "study", checkpoint_every=1)
    script = tmp_path / "failing.py"
    script.write_text(FAILING)
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    begun = time.monotonic()
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", str(script), how, str(study.root)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert time.monotonic() - begun < 60
    assert done.returncode == 1
    first, *others = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    cause = done.stderr.partition("Root Cause (first observed failure)")[2]
    if how == "error":
        assert first == "Error: what really happened"
        assert "what really happened\n  file: it.txt\n  fix:  mend it" in cause
    else:
        others.append(first)
        assert "SIGKILL" in cause
    lost = "Error: Another process of the training has ended, and this one with it"
    assert set(others) <= {lost}
    assert done.stderr.count("Traceback") == 1  # torchrun's own
