"""The shards as memory: what a file says is checked, what is read is not copied."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save

from brainlm.errors import DataError
from brainlm.shards.mapped import MappedFile, read_header
from brainlm.shards.reader import ShardReader, as_float32
from brainlm.shards.sampler import Window
from brainlm.shards.tensorfile import read_about

from .synthetic_cohort import PARCELS, make_shards, simulate, write_recording, write_study

ARRAYS = {
    "a": np.arange(12, dtype=np.float16).reshape(4, 3),
    "b": np.linspace(-1, 1, 10, dtype=np.float32).reshape(5, 2),
    "none": np.zeros((0, 3), np.float16),
}


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    study = write_study(
        tmp_path_factory.mktemp("reader") / "study", {"train": 4, "val": 2, "test": 2}, runs=2
    )
    holed = simulate(0.0, 60, np.random.default_rng(1))
    holed[:, 3] = np.nan
    write_recording(study, "sub-02_task-rest_run-2", holed)
    return make_shards(study)


# --- the file ----------------------------------------------------------------------------


def test_tensors_are_those_of_safetensors_and_no_copies(tmp_path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(save(ARRAYS, metadata={"brainlm": '{"x":1}'}))
    header = read_header(path)
    assert read_about(header.metadata, path) == {"x": 1}
    mapped = MappedFile(path, header)
    with safe_open(path, framework="numpy") as theirs:
        assert set(header.places) == set(theirs.keys())
        for name, place in header.places.items():
            ours = mapped.array(place)
            np.testing.assert_array_equal(ours, theirs.get_tensor(name))
            assert ours.dtype == ARRAYS[name].dtype and not ours.flags.writeable
    assert np.shares_memory(mapped.array(header.places["b"]), mapped.array(header.places["b"]))
    view = mapped.array(header.places["a"])
    del mapped
    assert view[3, 2] == 11  # the mapping stays while an array of it lives


def forged(header: dict, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"data_offsets": [0, 99999]}, "at bytes 0 to 99999"),
        ({"data_offsets": [0, 8]}, "at bytes 0 to 8"),
        ({"data_offsets": [-24, 0]}, "no counts"),
        ({"data_offsets": [2, 26]}, "at bytes 2 to 26"),
        ({"shape": [2**40, 2**40]}, "at bytes"),
        ({"shape": [4.0, 3]}, "no counts"),
        ({"shape": None}, "NoneType"),
        ({"dtype": "I64"}, "type I64"),
        ({"dtype": "F32"}, "at bytes"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, entry, why) -> None:
    path = tmp_path / "a.safetensors"
    true = {"dtype": "F16", "shape": [4, 3], "data_offsets": [0, 24]}
    path.write_bytes(forged({"a": true}, bytes(24)))
    read_header(path)
    path.write_bytes(forged({"a": true | entry}, bytes(24)))
    with pytest.raises(DataError, match=why) as caught:
        read_header(path)
    assert caught.value.file == str(path)


def test_overlap_gaps_and_what_is_named_twice_are_refused(tmp_path) -> None:
    path = tmp_path / "a.safetensors"
    entry = '{"dtype":"F16","shape":[2],"data_offsets":[%d,%d]}'
    for text, size, why in (
        (f'{{"a":{entry % (0, 4)},"b":{entry % (0, 4)}}}', 4, "begins at byte"),
        (f'{{"a":{entry % (0, 4)},"b":{entry % (6, 10)}}}', 10, "begins at byte"),
        (f'{{"a":{entry % (0, 4)},"a":{entry % (4, 8)}}}', 8, "twice"),
        (f'{{"a":{entry % (0, 4)}}}', 8, "the file at"),
        ("[]", 0, "cut short"),
    ):
        path.write_bytes(len(text).to_bytes(8, "little") + text.encode() + bytes(size))
        with pytest.raises(DataError, match=why):
            read_header(path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damage_reads_past_the_end(tmp_path_factory, data) -> None:
    """Any bytes changed, any end cut off: a DataError, or arrays that lie inside the file."""
    whole = bytearray(save(ARRAYS, metadata={"brainlm": "{}"}))
    for place in data.draw(st.lists(st.integers(0, len(whole) - 90), max_size=3)):
        whole[place] = data.draw(st.sampled_from(b'0123456789{}[]",:-e\xff\x00'))
    cut = data.draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))
    path = tmp_path_factory.mktemp("damage") / "a.safetensors"
    path.write_bytes(whole[:cut])
    try:
        header = read_header(path)
    except DataError:
        return
    mapped = MappedFile(path, header)
    assert sum(mapped.array(place).nbytes for place in header.places.values()) <= cut
    for place in header.places.values():
        mapped.array(place).sum()


# --- the reader --------------------------------------------------------------------------


def test_every_half_is_cast_exactly() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(256, 256)
    for stored in (halves, halves[3:7], halves[:, 5:9]):
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(as_float32(stored), stored.astype(np.float32))
    single = np.ones((2, 2), np.float32)
    assert as_float32(single).flags.writeable and not np.shares_memory(as_float32(single), single)


def test_views_windows_and_stacks_agree(index) -> None:
    reader = ShardReader(index)
    name = "sub-02_task-rest_run-2"
    view = reader.view(name)
    assert view.shape == (60, PARCELS) and view.dtype == np.float16 and not view.flags.writeable
    assert np.shares_memory(view, reader.view(name))
    assert np.isnan(view[:, 3]).all() and not np.isnan(np.delete(view, 3, 1)).any()
    np.testing.assert_array_equal(reader.series(name), view.astype(np.float32))
    windows = [Window(name, 3), Window("sub-05_task-rest_run-1", 0)]
    stack = reader.stack(windows, 20)
    assert stack.dtype == np.float16
    for start in (-10_000, 41, 10_000):
        with pytest.raises(IndexError, match="has 60 time points, not"):
            reader.stack([windows[0], Window(windows[0].recording_id, start)], 20)
    for values, (recording, start) in zip(stack, windows, strict=True):
        found = reader.window(recording, start, 20)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(values.astype(np.float32), found)
    assert reader.lengths("val") == dict.fromkeys(reader.recordings("val")["recording_id"], 60)
    for start, length in ((-1, 5), (41, 20), (0, 61), (3, -1)):
        with pytest.raises(IndexError, match="has 60 time points"):
            reader.window(name, start, length)


def test_what_is_asked_for_ahead_lies_inside_the_file(index, monkeypatch) -> None:
    """Whole pages that hold the window, and no more than one on either side."""
    import mmap

    reader = ShardReader(index)
    name = "sub-04_task-rest_run-2"
    shard, place = reader._place_of(name)
    reader.view(name)
    mapped = reader._mapped[shard]
    asked = []

    class Noted:
        def madvise(self, option: int, begin: int, count: int) -> None:
            asked.append((option, begin, begin + count))

    monkeypatch.setattr(mapped, "_bytes", Noted())
    reader.fetch([Window(name, 11), Window(name, 50)], 24)
    row = PARCELS * 2
    for (option, begin, end), first, last in zip(asked, (11, 50), (35, 60), strict=True):
        assert option == mmap.MADV_WILLNEED and begin % mmap.PAGESIZE == 0
        assert 0 <= place.offset + first * row - begin < mmap.PAGESIZE
        assert end == place.offset + last * row  # not beyond the recording


def test_a_folder_opens_as_its_index_does(index) -> None:
    assert ShardReader(index.parent).table.equals(ShardReader(index).table)


def test_a_reader_opens_no_shard_before_it_is_asked(index) -> None:
    reader = ShardReader(index)
    assert reader._mapped == {}
    reader.window("sub-01_task-rest_run-1", 0, 5)
    assert list(reader._mapped) == [reader.table.loc["sub-01_task-rest_run-1", "shard"]]


def _sums(reader: ShardReader, names: list[str], queue) -> None:
    queue.put([float(np.nansum(reader.window(name, 7, 31))) for name in names])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_read_the_same(index, method) -> None:
    reader = ShardReader(index)
    names = list(reader.table.index)
    expected = [float(np.nansum(reader.window(name, 7, 31))) for name in names]  # maps all
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    several = [context.Process(target=_sums, args=(reader, names, queue)) for _ in range(2)]
    for process in several:
        process.start()
    assert [queue.get(timeout=60) for _ in several] == [expected, expected]
    for process in several:
        process.join()


def test_pickled_by_path_not_by_content(index) -> None:
    reader = ShardReader(index)
    reader.series("sub-01_task-rest_run-1")
    again = pickle.loads(pickle.dumps(reader))
    assert again._mapped == {}
    np.testing.assert_array_equal(
        again.series("sub-01_task-rest_run-1"), reader.series("sub-01_task-rest_run-1")
    )


def test_index_and_shards_must_agree(index, tmp_path) -> None:
    import shutil

    folder = shutil.copytree(index.parent, tmp_path / "shards")
    table = pd.read_parquet(folder / "index.parquet")
    name = table["recording_id"].iloc[0]
    longer = table.assign(n_timepoints=table["n_timepoints"].where(table.index != 0, 61))
    other = table.assign(recording_id=table["recording_id"].replace(name, "sub-99_task-rest"))
    for wrong, why in ((longer, "is stored as"), (other, "does not hold sub-99_task-rest")):
        wrong.to_parquet(folder / "index.parquet")
        with pytest.raises(DataError, match=why):
            ShardReader(folder)
    table.to_parquet(folder / "index.parquet")
    reader = ShardReader(folder)
    shard = folder / reader.table.loc[name, "shard"]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-2])
    with pytest.raises(DataError, match="cut short"):
        ShardReader(folder)
    with pytest.raises(DataError, match="cut short"):  # opened before, cut since
        reader.window(name, 0, 5)
    shard.write_bytes(whole.replace(b'"train"', b'"trayn"').replace(b'\\"train', b'\\"trayn'))
    with pytest.raises(DataError, match="was replaced"):
        reader.window(name, 0, 5)
    shard.unlink()
    with pytest.raises(DataError, match="does not exist"):
        ShardReader(folder)


def test_reading_and_exporting_need_no_torch() -> None:
    code = (
        "import sys, brainlm.shards.reader, brainlm.shards.export\n"
        "sys.exit(str({'torch', 'nibabel', 'typer', 'pydantic'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
