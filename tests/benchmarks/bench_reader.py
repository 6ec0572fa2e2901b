"""Random windows from shards and from what others use: `python -m tests.benchmarks.bench_reader`.

64 recordings of 490 x 424, 8 windows of 200 time points of each, batches of 16 as float32 tensors
(batch, parcels, time) and what is covered, one thread, no workers, all in one run, the best of
three passes (Hugging Face: one pass of 32 windows):

- ours: `ShardDataset` in a DataLoader, `load_batch` as the training calls it, and a split that is
  resident in memory;
- the way of BrainLM's authors: Hugging Face `datasets`, Arrow lists of float32, `set_transform`,
  the row's lists to a tensor, then the window;
- a .npy file per recording, opened with `mmap_mode="r"` for each window, in both types;
- WebDataset: tars of .npy read in order, one window of each recording (it has no random access);
- safetensors' own `get_slice` on handles that stay open.

Cold: the files' pages are dropped before each pass (fsync, posix_fadvise DONTNEED, nothing mapped
at the time), and opening counts; how much of them mincore then still finds in memory is printed.
Opening: 200 shards of 400 recordings each, headers alone.
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import mmap
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch.utils.data import DataLoader

from brainlm.shards.dataset import ShardDataset, covered_of
from brainlm.shards.export import export
from brainlm.shards.mapped import read_header
from brainlm.shards.reader import ShardReader
from brainlm.shards.resident import device_resident
from brainlm.shards.sampler import Window, batches, random_windows
from brainlm.train.data import load_batch

from .shards_folder import write_shards

RECORDINGS, EACH, TIMES, LENGTH, BATCH = 64, 8, 490, 200, 16
FEW = 32
CPU = torch.device("cpu")
Pass = Callable[[], int]  # reads windows, returns how many


def main() -> None:
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
        folder = Path(name)
        (folder / "shards").mkdir()
        reader = write_shards(folder / "shards", recordings=RECORDINGS, per_shard=32)
        for to in ("npy", "webdataset"):
            for _ in export(reader, to, folder / to, ["train"]):
                pass
        _write_single(reader, folder / "npy32")
        _write_arrow(reader, folder / "arrow")
        del reader  # and with it what it has mapped
        ways = {
            "ours, ShardDataset + DataLoader": (_map_style, folder / "shards"),
            "ours, load_batch": (_as_training, folder / "shards"),
            "ours, resident": (_resident, folder / "shards"),
            "safetensors get_slice": (_get_slice, folder / "shards"),
            ".npy float16": (_npy, folder / "npy/train"),
            ".npy float32": (_npy, folder / "npy32"),
            "WebDataset": (_webdataset, folder / "webdataset"),
            "Hugging Face, as the authors": (_hugging_face, folder / "arrow"),
        }
        cold = {what: _cold(make, place) for what, (make, place) in ways.items()}
        warm = {what: _warm(make, place) for what, (make, place) in ways.items()}
        best = max(rate for what, rate in warm.items() if what.startswith((".npy", "Web")))
        best_cold = max(
            rate for what, (rate, _) in cold.items() if what.startswith((".npy", "Web"))
        )
        theirs = warm["Hugging Face, as the authors"]
        theirs_cold = cold["Hugging Face, as the authors"][0]
        print("windows/s                          warm     cold   (still in memory)")
        for what in ways:
            rate, left = cold[what]
            print(f"{what:32s} {warm[what]:8.0f} {rate:8.0f}   {left:.0%}")
        for what in [what for what in ways if what.startswith("ours")]:
            print(
                f"{what}: warm {warm[what] / theirs:.0f}x Hugging Face, {warm[what] / best:.2f}x "
                f"the best of the others; cold {cold[what][0] / theirs_cold:.0f}x, "
                f"{cold[what][0] / best_cold:.2f}x"
            )
        _views_against_slices(ShardReader(folder / "shards"))
        _opening(folder)


def _drawn(reader: ShardReader, epoch: int = 0) -> list[Window]:
    return random_windows(
        reader.lengths("train"), window=LENGTH, seed=0, epoch=epoch, per_recording=EACH
    )


def _starts(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, TIMES - LENGTH + 1, n)


def _stacked(arrays: Iterable[np.ndarray]) -> torch.Tensor:
    """(batch, parcels, time) float32, of windows (time, parcels), and what is covered, as ours."""
    stacked = torch.from_numpy(np.stack(list(arrays)))
    signal = stacked.transpose(1, 2).contiguous().float()
    covered_of(signal)
    return signal


def _map_style(folder: Path) -> Pass:
    data = ShardDataset(ShardReader(folder), "train", window=LENGTH, per_recording=EACH)
    loader = DataLoader(data, batch_size=BATCH)
    return lambda: sum(len(batch["signal"]) for batch in loader)


def _as_training(folder: Path) -> Pass:
    reader = ShardReader(folder)
    windows = _drawn(reader)
    return lambda: sum(
        len(load_batch(reader, batch, LENGTH, CPU).signal) for batch in batches(windows, BATCH)
    )


def _resident(folder: Path) -> Pass:
    reader = ShardReader(folder)
    resident, windows = device_resident(reader, "train", CPU), _drawn(reader)

    def once() -> int:
        rows = resident.rows(windows, LENGTH)
        signals = (resident.windows(some, LENGTH) for some in rows.split(BATCH))
        return sum(len(covered_of(signal)) for signal in signals)

    return once


def _get_slice(folder: Path) -> Pass:
    reader = ShardReader(folder)
    windows = _drawn(reader)
    shard = reader.table["shard"].to_dict()
    handles = {name: safe_open(folder / name, framework="numpy") for name in set(shard.values())}

    def window(recording: str, start: int) -> np.ndarray:
        handle: Any = handles[shard[recording]]
        return handle.get_slice(recording)[start : start + LENGTH]

    return lambda: sum(len(_stacked(window(*w) for w in some)) for some in batches(windows, BATCH))


def _npy(folder: Path) -> Pass:
    order = np.random.default_rng(1).permutation(np.repeat(sorted(folder.glob("*.npy")), EACH))
    places = list(zip(order, _starts(len(order)), strict=True))

    def window(path: Path, start: int) -> np.ndarray:
        return np.load(path, mmap_mode="r")[start : start + LENGTH]

    return lambda: sum(len(_stacked(window(*p) for p in some)) for some in batches(places, BATCH))


def _webdataset(folder: Path) -> Pass:
    import webdataset

    tars = sorted(map(str, folder.glob("*.tar")))
    starts = _starts(RECORDINGS)

    def once() -> int:
        found = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).decode()
        windows = (item["npy"][s : s + LENGTH] for item, s in zip(found, starts, strict=True))
        return sum(len(_stacked(some)) for some in batches(list(windows), BATCH))

    return once


def _hugging_face(folder: Path) -> Pass:
    from datasets import load_from_disk

    starts = iter(_starts(10_000).tolist())

    def to_window(rows: dict[str, list[Any]]) -> dict[str, list[torch.Tensor]]:
        start = next(starts)
        whole = (torch.tensor(lists, dtype=torch.float32) for lists in rows["Raw_Recording"])
        return {"signal": [series[:, start : start + LENGTH] for series in whole]}

    data = load_from_disk(str(folder))
    data.set_transform(to_window)
    order = np.random.default_rng(1).permutation(RECORDINGS)[:FEW].tolist()
    loader = DataLoader(data, batch_size=BATCH, sampler=order)
    return lambda: sum(len(batch["signal"]) for batch in loader)


def _write_single(reader: ShardReader, folder: Path) -> None:
    folder.mkdir()
    for name in reader.table.index:
        np.save(folder / f"{name}.npy", reader.series(name))


def _write_arrow(reader: ShardReader, folder: Path) -> None:
    """Parcels x time in lists of float32, as the authors' toolkit writes it; one column."""
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    rows = [reader.series(name).T for name in reader.table.index]
    Dataset.from_dict({"Raw_Recording": rows}).save_to_disk(folder)


def _warm(make: Callable[[Path], Pass], folder: Path) -> float:
    once = make(folder)
    once()
    return max(_rate(once) for _ in range(1 if make is _hugging_face else 3))


def _cold(make: Callable[[Path], Pass], folder: Path) -> tuple[float, float]:
    """Windows/s of a first pass, opening included, and the share that was in memory before.

    The best of five, before each of which the pages are dropped.
    """
    rates, share = [], 0.0
    for _ in range(5):
        share = max(share, _drop_pages(folder))
        rates.append(_rate(lambda: make(folder)()))
    return max(rates), share


def _drop_pages(folder: Path) -> float:
    """Put a folder's files out of memory; the share of them that stays."""
    gc.collect()  # nothing may be mapped
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        with path.open("rb+") as handle:
            os.fsync(handle.fileno())
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    left = sum(_pages_in_memory(path) for path in files)
    pages = sum(-(-path.stat().st_size // mmap.PAGESIZE) for path in files)
    return left / pages


def _pages_in_memory(path: Path) -> int:
    """How many of a file's pages the page cache holds (mincore)."""
    size = path.stat().st_size
    with (
        path.open("rb") as handle,
        mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_COPY) as mapped,
    ):
        there = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        start = ctypes.c_char.from_buffer(mapped)
        address = ctypes.c_void_p(ctypes.addressof(start))
        failed = ctypes.CDLL(None, use_errno=True).mincore(address, ctypes.c_size_t(size), there)
        del start
        if failed:
            raise OSError(ctypes.get_errno(), "mincore")
        return sum(page & 1 for page in there)


def _rate(once: Pass) -> float:
    began = time.perf_counter()
    count = once()
    return count / (time.perf_counter() - began)


def _views_against_slices(reader: ShardReader) -> None:
    """Windows as they are stored, one and a batch, and one as float32; microseconds per window."""
    windows = _drawn(reader)
    shard = reader.table["shard"].to_dict()
    handles: dict[str, Any] = {
        name: safe_open(reader.folder / name, framework="numpy") for name in set(shard.values())
    }

    def theirs(window: Window) -> np.ndarray:
        whole = handles[shard[window.recording_id]].get_slice(window.recording_id)
        return whole[window.start : window.start + LENGTH]

    def each(read: Callable[[Window], Any]) -> float:
        return 1e6 / max(_rate(lambda: len([read(w) is None for w in windows])) for _ in range(5))

    def batch(read: Callable[[list[Window]], Any]) -> float:
        return 1e6 / max(
            _rate(lambda: sum(len(read(list(some))) for some in batches(windows, BATCH)))
            for _ in range(5)
        )

    view = each(lambda w: reader.stored_window(*w, LENGTH))
    copy = each(lambda w: reader.stored_window(*w, LENGTH).copy())
    stack = batch(lambda some: reader.stack(some, LENGTH))
    their_stack = batch(lambda some: np.stack([theirs(w) for w in some]))
    cast = each(lambda w: reader.window(*w, LENGTH))
    astype = each(lambda w: reader.stored_window(*w, LENGTH).astype(np.float32))
    print(
        f"one window, us: view {view:.1f}, copied {copy:.1f}, get_slice {each(theirs):.1f}; "
        f"in a batch of {BATCH}: ours {stack:.1f}, get_slice {their_stack:.1f}; as float32: ours "
        f"{cast:.0f}, astype {astype:.0f}"
    )


def _opening(folder: Path) -> None:
    """200 headers of 400 recordings each, over files without content."""
    names = [f"sub-{number:06d}_ses-2_task-rest" for number in range(400)]
    size = TIMES * 424 * 2
    header: dict[str, Any] = {
        name: {"dtype": "F16", "shape": [TIMES, 424], "data_offsets": [i * size, (i + 1) * size]}
        for i, name in enumerate(names)
    }
    header["__metadata__"] = {"brainlm": json.dumps({"tr": dict.fromkeys(names, 0.735)})}
    text = json.dumps(header, separators=(",", ":")).encode()
    paths = [folder / f"{number}.safetensors" for number in range(200)]
    for path in paths:
        with path.open("wb") as handle:
            handle.write(len(text).to_bytes(8, "little") + text)
            handle.truncate(8 + len(text) + 400 * size)  # sparse: takes no disk
    began = time.perf_counter()
    for path in paths:
        read_header(path).about(path)
    ours = time.perf_counter() - began
    began = time.perf_counter()
    for path in paths:
        safe_open(path, framework="numpy").metadata()
    theirs = time.perf_counter() - began
    print(f"opening 200 shards of 80,000 recordings: {ours:.2f} s (safe_open {theirs:.2f} s)")


if __name__ == "__main__":
    main()
