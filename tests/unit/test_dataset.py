"""However many ranks and workers read an epoch: the same windows, each once, the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from brainlm.errors import DataError, InputError, ResourceError
from brainlm.shards import resident as module
from brainlm.shards.dataset import ShardDataset, ShardStream
from brainlm.shards.reader import ShardReader
from brainlm.shards.resident import bytes_needed, device_resident
from brainlm.shards.sampler import Window, even_windows, random_windows
from brainlm.train.data import load_batch

from .synthetic_cohort import PARCELS, make_shards, simulate, write_recording, write_study

WINDOW = 24


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    study = write_study(
        tmp_path_factory.mktemp("dataset") / "study", {"train": 5, "val": 2, "test": 2}, runs=2
    )
    holed = simulate(0.0, 60, np.random.default_rng(1))
    holed[:, 3] = np.nan
    write_recording(study, "sub-02_task-rest_run-2", holed)
    return ShardReader(make_shards(study))


def drawn(reader, epoch=0, per_recording=3, seed=1):
    lengths = reader.lengths("train")
    return random_windows(
        lengths, window=WINDOW, seed=seed, epoch=epoch, per_recording=per_recording
    )


def options(**more):
    return {"window": WINDOW, "seed": 1, "per_recording": 3} | more


def places(batches) -> list[tuple[str, int]]:
    """(recording, start) of all items of a loader."""
    return [
        (name, int(start))
        for batch in batches
        for name, start in zip(batch["recording_id"], batch["start"], strict=True)
    ]


def test_an_epoch_has_its_windows_and_labels_their_names(reader) -> None:
    assert len(ShardDataset(reader, "train", **options())) == 30
    with pytest.raises(InputError, match="No recording has a label 'age'"):
        ShardDataset(reader, "train", labels=["age"], **options())


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"draw": "Even"}, "one of random, even, not 'Even'"),
        ({"window": 0}, "at least 1"),
        ({"per_recording": 0}, "at least 1"),
        ({"labels": "score"}, "a list of names"),
        ({"positive": {"group": "patient"}}, "not among the labels"),
        ({"labels": ["group"], "positive": {"group": "Patient"}}, "No recording has the value"),
        ({"labels": ["score"], "positive": {"score": "high"}}, "No recording has the value"),
    ],
)
def test_what_would_silently_give_something_else_is_refused(reader, wrong, told) -> None:
    """E.g. a class whose value is misspelt: its label would be 0 for all."""
    for kind in (ShardDataset, ShardStream):
        with pytest.raises(InputError, match=told):
            kind(reader, "train", **options(**wrong))


def test_an_item_says_all(reader) -> None:
    data = ShardDataset(
        reader, "train", labels=["score", "group"], positive={"group": "patient"}, **options()
    )
    for window, item in zip(drawn(reader), data, strict=True):
        assert (item["recording_id"], item["start"]) == window
        expected = reader.window(*window, WINDOW).T
        assert item["signal"].shape == (PARCELS, WINDOW)
        np.testing.assert_array_equal(item["signal"].numpy(), expected)
        np.testing.assert_array_equal(item["covered"].numpy(), ~np.isnan(expected[:, 0]))
        row = reader.table.loc[window.recording_id]
        assert item["label_score"] == row["label_score"]
        assert item["label_group"] == (row["label_group"] == "patient")


def test_a_missing_label_is_nan_and_two_classes_need_their_name(reader) -> None:
    import copy

    torn = copy.copy(reader)
    torn.table = reader.table.copy()
    torn.table.loc["sub-01_task-rest_run-1", "label_score"] = np.nan
    data = ShardDataset(torn, "train", labels=["score"], **options())
    missing = {item["recording_id"] for item in data if np.isnan(item["label_score"])}
    assert missing == {"sub-01_task-rest_run-1"}
    with pytest.raises(DataError, match="group is no number"):
        ShardDataset(reader, "train", labels=["group"], **options())


def test_epochs_differ_and_come_again(reader) -> None:
    data = ShardDataset(reader, "train", **options())
    first = data.windows()
    data.set_epoch(1)
    assert data.windows() == drawn(reader, epoch=1) != first
    data.set_epoch(0)
    assert data.windows() == first == drawn(reader)
    even = ShardDataset(reader, "val", window=WINDOW, draw="even")
    assert even.windows() == even_windows(reader.lengths("val"), WINDOW)
    even.set_epoch(5)
    assert even.windows() == even_windows(reader.lengths("val"), WINDOW)
    with pytest.raises(DataError, match="No recording of the val split has the model's 61"):
        ShardDataset(reader, "val", window=61)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_that_stay_alive_hear_of_the_next_epoch(reader, method) -> None:
    """Each epoch's windows, each once (spawned workers import torch: the stream alone there)."""
    for data in (_stream(reader), ShardDataset(reader, "train", **options())):
        if method == "spawn" and isinstance(data, ShardDataset):
            break
        loader = DataLoader(
            data,
            batch_size=4,
            num_workers=2,
            persistent_workers=True,
            multiprocessing_context=method,
        )
        for epoch in (0, 1):
            data.set_epoch(epoch)
            batches = list(loader)
            expected = drawn(reader, epoch)
            if isinstance(data, ShardDataset):
                assert places(batches) == expected  # in order, too
            assert sorted(places(batches)) == sorted(expected)
            for batch in batches:
                windows = [Window(*place) for place in places([batch])]
                ours = load_batch(reader, windows, WINDOW, torch.device("cpu"))
                torch.testing.assert_close(
                    batch["signal"], ours.signal, rtol=0, atol=0, equal_nan=True
                )
                assert torch.equal(batch["covered"], ours.covered)


def _stream(reader, **more):
    return ShardStream(reader, "train", **options(**more))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(1, 4), st.integers(1, 3), st.booleans())
def test_ranks_share_an_epoch(reader, world: int, per_recording: int, epoch: int, equal) -> None:
    parts = []
    for rank in range(world):
        stream = _stream(
            reader, rank=rank, world=world, equal_ranks=equal, per_recording=per_recording
        )
        stream.set_epoch(epoch)
        parts.append(stream.of_rank())
        assert len(stream) == len(parts[-1])
    whole = drawn(reader, epoch, per_recording)
    together = [window for part in parts for window in part]
    assert len(set(together)) == len(set(whole) & set(together))
    lost = len(whole) - len(together)
    if equal:
        assert len({len(part) for part in parts}) == 1 and 0 <= lost < world
    else:
        assert sorted(together) == sorted(whole)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def _one_rank(rank: int, world: int, port: int, index: str, queue) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world
    )
    stream = _stream(ShardReader(index))
    stream.set_epoch(2)
    loader = DataLoader(stream, batch_size=4, num_workers=2, multiprocessing_context="fork")
    queue.put((rank, stream.rank, stream.world, places(loader)))
    torch.distributed.destroy_process_group()


def test_two_processes_of_torch_distributed_read_an_epoch_once(reader) -> None:
    import multiprocessing
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    ranks = [
        context.Process(target=_one_rank, args=(rank, 2, port, str(reader.index_path), queue))
        for rank in range(2)
    ]
    for process in ranks:
        process.start()
    found = [queue.get(timeout=120) for _ in ranks]
    for process in ranks:
        process.join()
    assert sorted(entry[:3] for entry in found) == [(0, 0, 2), (1, 1, 2)]
    assert sorted(found[0][3] + found[1][3]) == sorted(drawn(reader, epoch=2))


def test_rank_and_world_of_torchrun(reader, monkeypatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert _stream(reader).of_rank() == drawn(reader)[1::3]
    with pytest.raises(ValueError, match="rank 3 of 3"):
        _stream(reader, rank=3)


# --- on the device -----------------------------------------------------------------------


def test_a_resident_split_gives_the_same_numbers(reader) -> None:
    resident = device_resident(reader, "train", "cpu")
    assert resident.data.dtype == torch.float16
    assert resident.data.nbytes == bytes_needed(reader, "train") == 10 * 60 * PARCELS * 2
    windows = drawn(reader)
    rows = resident.rows(windows, WINDOW)
    found = resident.windows(rows[4:20], WINDOW)
    expected = load_batch(reader, windows[4:20], WINDOW, torch.device("cpu")).signal
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert found.is_contiguous() and found.dtype == torch.float32
    single = device_resident(reader, "train", "cpu", torch.float32)
    assert bytes_needed(reader, "train", torch.float32) == single.data.nbytes
    torch.testing.assert_close(
        single.windows(rows[4:20], WINDOW), expected, rtol=0, atol=0, equal_nan=True
    )


def test_no_window_reaches_into_the_next_recording(reader) -> None:
    resident = device_resident(reader, "val", "cpu")
    name = next(iter(reader.lengths("val")))
    resident.rows([Window(name, 60 - WINDOW)], WINDOW)
    for start in (-1, 60 - WINDOW + 1):
        with pytest.raises(IndexError, match=f"{name} has 60 time points"):
            resident.rows([Window(name, start)], WINDOW)


def test_what_does_not_fit_is_refused_beforehand(reader, monkeypatch) -> None:
    assert module._free_bytes(torch.device("cpu")) > 2**20
    monkeypatch.setattr(module, "_free_bytes", lambda device: bytes_needed(reader, "train"))
    with pytest.raises(ResourceError, match=r"train split takes 0\.00 GB, cpu has") as caught:
        device_resident(reader, "train", "cpu")
    assert "pretrain.data: auto or mmap" in str(caught.value.fix)
