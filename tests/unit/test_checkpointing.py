"""Checkpoints are copied at their step, and written by a thread."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from brainlm.errors import ResourceError
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
