"""Checkpoints are copied at their step, and written by a thread."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlm.errors import DataError, ResourceError
from brainlm.shards.tensorfile import load_tensors, save_tensors
from brainlm.train import checkpointing
from brainlm.train.checkpointing import Checkpoints, TrainingLog
from brainlm.train.distributed import ALONE


class _Counter:
    """A state of one tensor."""

    ranks = ALONE

    def __init__(self) -> None:
        self.value = torch.zeros(1000)

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"value": self.value}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        self.value.copy_(tensors["value"])


def _values(checkpoints: Checkpoints) -> dict[str, float]:
    """Step of each file -> what it holds, all of it the same."""
    found = {}
    for path in sorted(checkpoints.folder.glob("step-*")):
        (value,) = np.unique(load_tensors(path)[0]["value"])
        found[path.stem[-1:]] = float(value)
    return found


@pytest.fixture
def slowly(monkeypatch) -> Iterator[threading.Event]:
    """No checkpoint is written before this is set."""
    may_write = threading.Event()

    def save(*given: object) -> None:
        assert may_write.wait(20)
        save_tensors(*given)

    monkeypatch.setattr(checkpointing, "save_tensors", save)
    yield may_write
    may_write.set()


def test_a_checkpoint_is_of_its_step_though_training_goes_on(slowly, tmp_path) -> None:
    checkpoints, state = Checkpoints(tmp_path, print), _Counter()
    checkpoints.log.append({"step": 1})
    state.value.fill_(1)
    checkpoints.save(1, state)
    state.value.fill_(2)
    checkpoints.log.append({"step": 2})
    assert _values(checkpoints) == {}
    threading.Timer(0.1, slowly.set).start()
    checkpoints.save(2, state)  # waits for the one before
    assert _values(checkpoints)["1"] == 1
    state.value.fill_(3)
    checkpoints.settle()
    assert _values(checkpoints) == {"1": 1, "2": 2}
    (tmp_path / "step-00000002.safetensors").unlink()
    assert Checkpoints(tmp_path, print).resume(state) == 1
    assert state.value.unique().tolist() == [1]
    assert checkpoints.log.rows() == [{"step": 1}]  # as long as it was when the copy was made


def test_the_best_epoch_is_that_of_the_copy(slowly, tmp_path) -> None:
    """One that is validated while the thread writes has no checkpoint yet."""
    checkpoints, state = Checkpoints(tmp_path, print, keep=1), _Counter()
    slowly.set()
    for step in (1, 2):
        checkpoints.log.append({"step": step, "val_loss": step})
        checkpoints.save(step, state)
        checkpoints.settle()
    slowly.clear()
    checkpoints.save(3, state)
    checkpoints.log.append({"step": 4, "val_loss": 0.5})
    slowly.set()
    checkpoints.settle()
    assert set(_values(checkpoints)) == {"1", "3"}


def test_what_the_thread_runs_into_is_raised_at_the_next_occasion(monkeypatch, tmp_path) -> None:
    told: list[str] = []
    checkpoints, state = Checkpoints(tmp_path, told.append), _Counter()
    checkpoints.save(1, state)
    checkpoints.settle()

    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpointing, "save_tensors", full)
    checkpoints.save(2, state)
    with pytest.raises(ResourceError, match="No space is left") as caught:
        checkpoints.save(3, state)
    assert caught.value.file == str(tmp_path / "step-00000002.safetensors")
    checkpoints.settle()  # it is raised once
    with pytest.raises(ResourceError), checkpoints.settled():
        checkpoints.save(4, state)
    with pytest.raises(KeyError), checkpoints.settled():
        checkpoints.save(5, state)
        raise KeyError  # the first error stands
    assert told[-1].startswith("Besides, the last checkpoint could not be written: No space")
    assert {path.name for path in tmp_path.iterdir()} == {
        "metrics.jsonl",
        "step-00000001.safetensors",
    }


def _saved(folder: Path, state: _Counter, steps: int) -> Checkpoints:
    checkpoints = Checkpoints(folder, print)
    for step in range(1, steps + 1):
        state.value.fill_(step)
        checkpoints.log.append({"step": step})
        checkpoints.save(step, state)
    checkpoints.settle()
    return checkpoints


@settings(max_examples=30, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_falls_back_to_the_checkpoint_before(share, bit) -> None:
    with TemporaryDirectory() as folder:
        state = _Counter()
        _saved(Path(folder), state, 2)
        newest = Path(folder) / "step-00000002.safetensors"
        content = bytearray(newest.read_bytes())
        content[int(share * len(content))] ^= 1 << bit
        newest.write_bytes(content)
        told: list[str] = []
        assert Checkpoints(Path(folder), told.append).resume(state) == 1
        assert state.value.unique().tolist() == [1]
        assert "step-00000002.safetensors cannot be used" in told[0]


def test_a_best_checkpoint_that_has_changed_is_refused_by_name(tmp_path) -> None:
    state = _Counter()
    checkpoints = _saved(tmp_path, state, 2)
    path = tmp_path / "step-00000001.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="bytes have changed") as caught:
        checkpoints.load(1, state)
    assert caught.value.file == str(path)
    assert state.value.unique().tolist() == [2]


def test_a_checkpoint_of_an_earlier_version_has_no_checksum(tmp_path) -> None:
    state, values = _Counter(), np.full(1000, 7, np.float32)
    path = tmp_path / "step-00000003.safetensors"
    save_tensors(path, {"value": values}, {"step": 3, "log_bytes": 0})
    assert Checkpoints(tmp_path, print).resume(state) == 3
    assert state.value.unique().tolist() == [7]


def test_without_its_log_no_checkpoint_is_thrown_away(tmp_path) -> None:
    state = _Counter()
    checkpoints = _saved(tmp_path, state, 2)
    log = checkpoints.log.path.read_bytes()
    checkpoints.log.path.write_bytes(log[:-1])
    with pytest.raises(DataError, match="shorter than when step-00000002") as caught:
        Checkpoints(tmp_path, print).resume(state)
    assert caught.value.file == str(checkpoints.log.path)
    assert set(_values(checkpoints)) == {"1", "2"}
    checkpoints.log.path.write_bytes(log)
    assert Checkpoints(tmp_path, print).resume(state) == 2


def test_a_log_that_the_disk_refuses_is_named(monkeypatch, tmp_path) -> None:
    log = TrainingLog(tmp_path / "metrics.jsonl")
    log.append({"step": 1})
    for number, told in ((errno.ENOSPC, "No space is left"), (errno.EFBIG, "File too large")):

        def refuse(*given: object, number: int = number, **options: object) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", refuse)
            with pytest.raises((ResourceError, OSError), match=told) as caught:
                log.append({"step": 2})
        named = getattr(caught.value, "file", None) or getattr(caught.value, "filename", None)
        assert named == str(log.path)
    assert log.rows() == [{"step": 1}]
