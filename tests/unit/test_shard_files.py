"""A shard's bytes: equal to safetensors' own, exact, kept where they are right, never half."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from brainlm.cli.cohort import cohort
from brainlm.cli.index_shards import index_shards
from brainlm.cli.scale import scale
from brainlm.cli.write_shard import write_shard
from brainlm.errors import DataError, ResourceError
from brainlm.shards.packing import pack
from brainlm.shards.scaler import METHODS, Scaler, load_scaler, save_scaler
from brainlm.shards.series import Series
from brainlm.shards.tensorfile import about_of, open_tensors, save_tensors
from brainlm.shards.tensorstream import write_stream

from .synthetic_cohort import (
    add_wave,
    make_shards,
    parcel_table,
    simulate,
    write_recording,
    write_study,
)

SPLITS = {"train": 4, "val": 2, "test": 2}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = write_study(tmp_path_factory.mktemp("files") / "study", SPLITS)
    make_shards(study)
    return study


@pytest.fixture
def copied(study, tmp_path):
    """A copy of the study, hard links between its files included, that may be spoilt."""
    subprocess.run(["cp", "-a", str(study.root), str(tmp_path / "study")], check=True)
    return type(study)(tmp_path / "study")


def shard(study, name: str) -> Path:
    return study.path("shard", shard=name)


def inodes(study) -> dict[str, int]:
    return {path.stem: path.stat().st_ino for path in shard(study, "x").parent.glob("*-*.saf*")}


# --- one file ----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text('abü_-1"\\', min_size=1, max_size=9),
        st.tuples(st.integers(1, 7), st.integers(1, 5)),
        max_size=5,
    ),
    st.sampled_from(["float16", "float32"]),
    st.text('aü"', max_size=6),
)
def test_a_stream_gives_the_bytes_that_safetensors_gives(tmp_path_factory, shapes, dtype, text):
    folder = tmp_path_factory.mktemp("stream")
    rng = np.random.default_rng(0)
    tensors = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    about = {"text": "x" * 40}

    def passing():
        for name in sorted(tensors):
            about["text"] = text  # known only now
            yield tensors[name]

    write_stream(folder / "ours", shapes, dtype, passing(), about)
    handle = open_tensors(folder / "ours")
    assert about_of(handle, folder / "ours") == about
    from safetensors.numpy import save_file

    save_file(tensors, str(folder / "theirs"), metadata=handle.metadata())
    assert (folder / "ours").read_bytes() == (folder / "theirs").read_bytes()


def test_what_was_not_announced_is_refused(tmp_path):
    for shape, dtype in (((2, 3), "float16"), ((3, 2), "float32")):
        with pytest.raises(ValueError, match="not as announced"):
            write_stream(tmp_path / "x", {"a": (3, 2)}, "float16", [np.zeros(shape, dtype)], {})
    with pytest.raises(ValueError, match="has grown"):
        about = {}
        stream = (about.update(more="x" * 99) or np.zeros((3, 2), "float16") for _ in range(1))
        write_stream(tmp_path / "x", {"a": (3, 2)}, "float16", stream, about)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40),
        elements=st.floats(-(2.0**40), 2.0**40, width=32),
    ),
    st.sampled_from(["float16", "float32"]),
    st.sampled_from(sorted(METHODS)),
    st.integers(0, 99),
)
def test_packing_is_the_transform_rounded_once(values, dtype, method, seed):
    parcels, time = values.shape
    rng = np.random.default_rng(seed)
    scaler = Scaler(
        rng.normal(0, 5, parcels),
        10 ** rng.uniform(-6, 3, parcels),
        rng.random(parcels) > 0.2,
        method,
        {"global_sd": 3.0, "global_p99": 9.0, "minimum": -1e3, "maximum": 1e3},
    )
    counted = rng.random(time) > 0.3
    values[: parcels // 3] = np.nan
    packed = pack(Series(values, counted), scaler, dtype)
    exact = scaler.transform(values, counted)
    limit = float(np.finfo(dtype).max)
    inside = np.clip(exact, -limit, limit)
    np.testing.assert_array_equal(packed.values, inside.astype(dtype).T)
    assert packed.n_clipped == int((np.abs(exact) > limit).sum())
    assert packed.n_parcels == int((~np.isnan(exact[:, 0])).sum())
    error = (inside.astype(dtype).astype(np.float64) - inside)[~np.isnan(inside[:, 0])]
    assert packed.error_max == pytest.approx(np.abs(error).max(initial=0), rel=1e-5)
    rms = np.sqrt(np.mean(error**2)) if error.size else 0
    assert packed.error_rms == pytest.approx(rms, rel=1e-5)
    assert packed.sha256 == hashlib.sha256(packed.values.tobytes()).hexdigest()


@pytest.mark.parametrize("method", ["robust", "recording-minmax"])
def test_blocks_of_parcels_change_nothing(method):
    """More than what is held in float64 at a time; one of the methods looks at all parcels."""
    rng = np.random.default_rng(0)
    values = (1000 + rng.standard_normal((150, 500))).astype(np.float32)
    usable = rng.random(150) > 0.1
    scaler = Scaler(rng.standard_normal(150), 1 + rng.random(150), usable, method)
    packed = pack(Series(values, np.ones(500, bool)), scaler, "float32")
    np.testing.assert_array_equal(packed.values, scaler.transform(values).astype("f4").T)
    with pytest.raises(DataError, match="has 149 parcels, the scaler 150"):
        pack(Series(values[1:], np.ones(500, bool)), scaler, "float32")


# --- kept, appended, rewritten -----------------------------------------------------------------


def contents(study) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in shard(study, "x").parent.glob("*-*.saf*")}


def snakemake_deletes(study) -> None:
    """As before a job starts: what its rule declares."""
    for path in shard(study, "x").parent.glob("*-*.safetensors"):
        path.unlink()
    shutil.rmtree(study.path("shard_part", shard="x").parent)


def test_a_second_wave_appends_and_touches_nothing_else(copied):
    before, bytes_before = inodes(copied), shard(copied, "val-00000").read_bytes()
    part = copied.path("shard_part", shard="val-00000")
    facts = part.read_bytes()
    os.utime(shard(copied, "val-00000"), (1e9, 1e9))
    add_wave(copied, ["val", "test"])
    cohort(copied.root)
    scale(copied.root)
    snakemake_deletes(copied)
    started = time.time()
    write_shard(None, copied.root)
    index_shards(copied.root)
    after = inodes(copied)
    assert set(after) == {*before, "val-w1-00000", "test-w1-00000"}
    assert {name: after[name] for name in before} == before
    assert shard(copied, "val-00000").read_bytes() == bytes_before
    assert part.read_bytes() == facts
    assert shard(copied, "val-00000").stat().st_mtime > started - 1  # else it counts as stale
    index = pd.read_parquet(copied.path("shards_index")).set_index("recording_id")
    assert index.loc["sub-90_task-rest_run-1", "shard"] == "val-w1-00000.safetensors"
    assert index["wave"].value_counts().to_dict() == {0: 8, 1: 2}


def test_more_to_train_on_changes_the_scaler_and_all_shards(copied):
    """Unless the scaler is one that was fitted elsewhere, or before, and frozen."""
    before = contents(copied)
    add_wave(copied, ["train"])
    cohort(copied.root)
    scale(copied.root)
    write_shard(None, copied.root)
    after = contents(copied)
    assert all(after[name] != before[name] for name in before)
    index_shards(copied.root)
    config = json.loads(copied.path("config").read_text())
    config["scale"] = {"fitted": "shards/normalization.safetensors"}
    copied.path("config").write_text(json.dumps(config))
    with_frozen = inodes(copied)
    for wave in (2, 3):  # its own scaler, over and over
        add_wave(copied, ["train", "train"], wave=wave)
        cohort(copied.root)
        snakemake_deletes(copied)
        scale(copied.root)
        write_shard(None, copied.root)
        index_shards(copied.root)
        assert with_frozen.items() < inodes(copied).items()
        with_frozen = inodes(copied)


def test_another_type_rewrites_and_a_deleted_shard_comes_back(copied):
    bytes_before = shard(copied, "train-00000").read_bytes()
    before, contents_before = inodes(copied), contents(copied)
    shard(copied, "train-00000").unlink()
    write_shard("train-00000", copied.root)
    assert inodes(copied) == before  # of its second name
    shutil.rmtree(shard(copied, "x").parent / ".kept")
    shard(copied, "train-00000").unlink()
    write_shard("train-00000", copied.root)
    assert shard(copied, "train-00000").read_bytes() == bytes_before
    config = copied.path("config")
    changed = config.read_text().replace('"model"', '"shards": {"dtype": "float32"}, "model"')
    config.write_text(changed)
    write_shard(None, copied.root)
    assert not set(contents_before.values()) & set(contents(copied).values())
    assert shard(copied, "train-00000").stat().st_size > len(bytes_before) + 240 * 8 * 2 - 8


def test_an_edited_shard_is_not_kept(copied):
    """The two names share their bytes, so an edit strikes both: the hashes tell."""
    path = shard(copied, "test-00000")
    whole = path.read_bytes()
    with path.open("r+b") as handle:
        handle.seek(-10, os.SEEK_END)
        handle.write(b"edit")
    write_shard("test-00000", copied.root)
    assert path.read_bytes() == whole
    path.write_bytes(whole[:-50])
    write_shard("test-00000", copied.root)
    assert path.read_bytes() == whole


def test_without_hard_links_shards_are_written_anew(copied, monkeypatch):
    def refused(*arguments: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "hardlink_to", refused)
    whole = shard(copied, "test-00000").read_bytes()
    shard(copied, "test-00000").unlink()
    shutil.rmtree(shard(copied, "x").parent / ".kept")
    write_shard("test-00000", copied.root)
    assert shard(copied, "test-00000").read_bytes() == whole
    assert not list((shard(copied, "x").parent / ".kept").iterdir())


# --- what must not go wrong --------------------------------------------------------------------


def test_a_scaler_of_other_parcels_or_another_cohort_is_refused(copied):
    scaler = load_scaler(copied.path("scaler"))
    others = {**scaler.about, "plans": {"train-00000": "0" * 64}}
    save_scaler(
        copied.path("scaler"), Scaler(scaler.median, scaler.iqr, scaler.usable, about=others)
    )
    with pytest.raises(DataError, match="fitted on another cohort") as caught:
        write_shard("train-00000", copied.root)
    assert caught.value.file == str(copied.path("scaler"))
    save_scaler(copied.path("scaler"), scaler)
    atlas = copied.root / "atlas" / "atlas-A424_dseg.tsv"
    parcel_table().assign(x=0.5).to_csv(atlas, sep="\t", index=False)
    with pytest.raises(DataError, match="parcels of another atlas"):
        write_shard("train-00000", copied.root)
    fewer = parcel_table()[:-1]
    fewer.to_csv(atlas, sep="\t", index=False)
    scale_of = {**scaler.about, "atlas_sha256": hashlib.sha256(atlas.read_bytes()).hexdigest()}
    save_scaler(
        copied.path("scaler"), Scaler(scaler.median, scaler.iqr, scaler.usable, about=scale_of)
    )
    with pytest.raises(DataError, match="8 parcels that are not the 7 of the study's atlas"):
        write_shard("train-00000", copied.root)


def test_a_shard_of_an_earlier_plan_or_with_another_part_is_not_indexed(copied):
    series = simulate(0.1, 60, np.random.default_rng(3))
    write_recording(copied, "sub-05_task-rest_run-1", series)  # of val: the scaler stays
    cohort(copied.root)
    with pytest.raises(DataError, match="plan_sha256 differs") as caught:
        index_shards(copied.root)
    assert caught.value.file == str(shard(copied, "val-00000"))
    write_shard("val-00000", copied.root)
    part = copied.path("shard_part", shard="val-00000")
    table = pd.read_parquet(part)
    table.assign(n_clipped=1).to_parquet(part, index=False)
    with pytest.raises(DataError, match="not what this shard holds"):
        index_shards(copied.root)
    write_shard("val-00000", copied.root)
    index_shards(copied.root)


def test_while_the_index_is_made_there_is_none(copied, monkeypatch):
    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    assert copied.path("shards_index").exists()
    monkeypatch.setattr(shutil, "copyfile", killed)
    with pytest.raises(KeyboardInterrupt):
        index_shards(copied.root)
    assert not copied.path("shards_index").exists()


def test_no_index_stands_over_a_shard_that_is_being_replaced(copied):
    index = copied.path("shards_index")
    write_shard("val-00000", copied.root)
    assert index.exists()  # the shard was right: nothing has changed
    path = shard(copied, "val-00000")
    shutil.rmtree(path.parent / ".kept")
    path.write_bytes(b"broken")
    write_shard("val-00000", copied.root)
    assert not index.exists()


def test_a_recording_twice_is_refused(copied):
    plan = copied.path("shard_plan", shard="val-00000")
    table = pd.read_parquet(plan)
    pd.concat([table, table[:1]]).to_parquet(plan, index=False)
    with pytest.raises(DataError, match="names a recording twice"):
        write_shard("val-00000", copied.root)
    path = copied.path("cohort")
    index = pd.read_parquet(path)
    pd.concat([index, index[:1]]).to_parquet(path, index=False)
    table.to_parquet(plan, index=False)
    scale(copied.root)
    write_shard(None, copied.root)
    with pytest.raises(DataError, match="The cohort hold 1 recordings twice"):
        index_shards(copied.root)


def test_a_subject_in_two_splits_is_never_indexed(copied):
    path = copied.path("cohort")
    table = pd.read_parquet(path)
    table.loc[table["split"] == "val", "subject"] = table["subject"].iloc[0]
    table.to_parquet(path, index=False)
    with pytest.raises(DataError, match="Leakage"):
        index_shards(copied.root)


def test_a_full_disk_leaves_no_half_shard(copied, monkeypatch):
    shutil.rmtree(shard(copied, "x").parent)
    monkeypatch.setattr("brainlm.shards.tensorstream.np.ascontiguousarray", _no_space)
    with pytest.raises(ResourceError, match="No space is left") as caught:
        write_shard("train-00000", copied.root)
    assert caught.value.file == str(shard(copied, "train-00000"))
    assert caught.value.exit_code == 1
    assert not list(shard(copied, "x").parent.iterdir())


def _no_space(tensor: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_folder_that_cannot_be_written_is_told(copied, monkeypatch):
    """Of root, a folder without permission to write takes files all the same."""
    shutil.rmtree(shard(copied, "x").parent)

    def refused(self: Path, *arguments: object, **named: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(ResourceError, match="cannot be written"):
        write_stream_of(copied)


def write_stream_of(study) -> None:
    from brainlm.files import atomic_path

    with atomic_path(shard(study, "train-00000")) as path:
        write_stream(path, {"a": (1, 1)}, "float16", [np.zeros((1, 1), "float16")], {})


_WRITES_FOR_EVER = """
import sys
from pathlib import Path
from brainlm.cli.write_shard import write_shard
import brainlm.shards.packing as packing
import time
pack = packing.pack
def slowly(*arguments):
    print("packing", flush=True)
    time.sleep(0.02)
    return pack(*arguments)
packing.pack = slowly
write_shard(None, Path(sys.argv[1]))
"""


def test_killed_at_any_point_and_run_again_the_bytes_are_the_same(copied):
    folder = shard(copied, "x").parent
    names = [f"{split}-00000" for split in SPLITS]
    whole = {name: shard(copied, name).read_bytes() for name in names}
    parts = {name: copied.path("shard_part", shard=name).read_bytes() for name in names}
    drawn = random.Random(5)
    for recordings_done in (1, drawn.randint(2, 5), drawn.randint(6, 8)):
        shutil.rmtree(folder)
        command = [sys.executable, "-c", _WRITES_FOR_EVER, str(copied.root)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert writer.stdout is not None
        for _ in range(recordings_done):
            while writer.stdout.readline() not in (b"packing\n", b""):
                pass
        time.sleep(drawn.uniform(0, 0.02))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        finished = [name for name in names if shard(copied, name).exists()]
        assert all(shard(copied, name).read_bytes() == whole[name] for name in finished)
        assert len(finished) < 3
        write_shard(None, copied.root)
        for name in names:
            assert shard(copied, name).read_bytes() == whole[name]
            assert copied.path("shard_part", shard=name).read_bytes() == parts[name]
        assert not list(folder.glob(".tmp-*"))


def test_what_was_killed_on_another_machine_is_swept_away_by_the_index(copied):
    """Else the folder would keep half shards for ever, and `verify` find fault with them."""
    path = shard(copied, "train-00000")
    left = path.with_name(f".tmp-node-7-4711-{path.name}")
    part = copied.path("shard_part", shard="val-00000")
    left_part = part.with_name(f".tmp-node-7-12-{part.name}")
    running = path.with_name(f".tmp-node-8-13-{path.name}")
    for half in (left, left_part, running):
        half.write_bytes(b"half")
    for half in (left, left_part):
        os.utime(half, (0, 0))
    later = path.stat().st_mtime + 1000
    os.utime(running, (later, later))
    index_shards(copied.root)
    assert not left.exists() and not left_part.exists()
    assert running.exists()


def test_a_right_shard_without_a_second_name_gets_one_again(copied):
    """After `.kept` was deleted, or the job killed just before."""
    path = shard(copied, "train-00000")
    second = path.parent / ".kept" / path.name
    second.unlink()
    second.write_bytes(b"of an earlier cohort")
    write_shard("train-00000", copied.root)
    assert second.samefile(path)
    shutil.rmtree(second.parent)
    write_shard("train-00000", copied.root)
    assert second.samefile(path)


def test_the_memory_held_is_that_of_one_recording(tmp_path):
    """Ten times the recordings, the same peak of what is allocated."""
    import tracemalloc

    from brainlm.shards.writer import shard_header, write_tensors

    rng = np.random.default_rng(0)
    values = rng.standard_normal((50, 400)).astype(np.float32)
    scaler = Scaler(np.zeros(50), np.ones(50), np.ones(50, bool))
    peaks = []
    for count in (5, 50):
        lengths = {f"r{number:03d}": 400 for number in range(count)}
        header = shard_header(
            split="train",
            dtype="float16",
            method="robust",
            tr=dict.fromkeys(lengths, 2.0),
            atlas_sha256="a",
            scaler_sha256="b",
            plan_sha256="c",
            code="d",
        )
        packed = (pack(Series(values, np.ones(400, bool)), scaler, "float16") for _ in lengths)
        tracemalloc.start()
        write_tensors(tmp_path / "x", lengths, 50, packed, header)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (tmp_path / "x").stat().st_size > 50 * 400 * 50 * 2
    assert peaks[1] < peaks[0] + 300_000  # all tensors are 2 MB


def test_what_save_tensors_writes_is_read_likewise(tmp_path):
    """Both ways of writing put our text under the same key."""
    save_tensors(tmp_path / "x", {"a": np.zeros(3)}, {"b": 1})
    assert about_of(open_tensors(tmp_path / "x"), tmp_path / "x") == {"b": 1}
