"""Other libraries read from an export what ShardReader reads from the shards."""

from __future__ import annotations

import json
import shutil
import tarfile

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from brainlm.cli._shards_export import Format, Split, export
from brainlm.errors import InputError
from brainlm.shards.export import _WebDataset
from brainlm.shards.reader import ShardReader

from .synthetic_cohort import PARCELS, make_shards, simulate, write_recording, write_study


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    study = write_study(
        tmp_path_factory.mktemp("export") / "study", {"train": 3, "val": 2, "test": 2}, runs=2
    )
    holed = simulate(0.0, 60, np.random.default_rng(1))
    holed[:, 3] = np.nan
    write_recording(study, "sub-02_task-rest_run-2", holed)
    return ShardReader(make_shards(study))


def everything(folder) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_hugging_face_reads_it(reader, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    from datasets import load_from_disk

    export(reader.folder, tmp_path / "out", Format.arrow, max_mb=0.0015)
    assert len(list((tmp_path / "out/train").glob("*.arrow"))) == 6
    loaded = load_from_disk(str(tmp_path / "out"))
    assert set(loaded) == {"train", "val", "test"}
    for split, dataset in loaded.items():
        rows = reader.recordings(split)
        assert str(dataset.data.schema.field("signal").type).startswith("list<item: fixed_size_l")
        assert "halffloat" in str(dataset.data.schema.field("signal").type)  # as it is stored
        assert dataset["recording_id"][:] == rows["recording_id"].tolist()
        for item in dataset.with_format("numpy"):
            name = str(item["recording_id"])
            signal = np.asarray(item["signal"])
            assert signal.shape == (60, PARCELS)
            np.testing.assert_array_equal(signal, reader.view(name))
            assert item["label_score"] == rows.loc[name, "label_score"]
            assert item["label_group"] == rows.loc[name, "label_group"]
            assert item["split"] == split and "shard" not in item
    assert len({dataset._fingerprint for dataset in loaded.values()}) == 3
    first = loaded["val"].select(range(1))
    assert np.asarray(first[0]["signal"]).shape == (60, PARCELS)  # lists, too


def test_other_values_or_labels_are_another_dataset(reader, tmp_path) -> None:
    """Else Hugging Face would hand out what it has computed from the old one."""

    def fingerprint(name: str, folder) -> str:
        export(folder, tmp_path / name, Format.arrow, [Split.val])
        return json.loads((tmp_path / name / "val/state.json").read_text())["_fingerprint"]

    other = shutil.copytree(reader.folder, tmp_path / "shards")
    assert fingerprint("a", reader.folder) == fingerprint("b", other)
    table = pd.read_parquet(other / "index.parquet")
    table.assign(label_score=table["label_score"] + 1).to_parquet(other / "index.parquet")
    assert fingerprint("c", other) != fingerprint("d", reader.folder)
    shutil.copyfile(reader.index_path, other / "index.parquet")
    (shard,) = other.glob("val-*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert fingerprint("e", other) != fingerprint("f", reader.folder)


def test_webdataset_reads_it(reader, tmp_path) -> None:
    import webdataset

    export(reader.folder, tmp_path / "out", Format.webdataset, [Split.train], max_mb=0.0021)
    tars = sorted(map(str, (tmp_path / "out").glob("*.tar")))
    assert [path[-16:] for path in tars] == [f"train-{n:06d}.tar" for n in range(3)]
    found = list(webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).decode())
    assert [item["__key__"] for item in found] == reader.recordings("train")[
        "recording_id"
    ].tolist()
    for item in found:
        np.testing.assert_array_equal(item["npy"], reader.view(item["__key__"]))
        row = reader.table.loc[item["__key__"]]
        assert item["json"]["label_score"] == row["label_score"]
        assert item["json"]["tr"] == row["tr"] and item["json"]["site"] is None


def test_names_of_recordings_may_be_long(tmp_path) -> None:
    """More than the hundred letters that the oldest kind of tar has room for."""
    name = f"sub-1234567_ses-20230101_task-{'x' * 80}_acq-multiband_dir-AP_run-01"
    writer = _WebDataset(tmp_path, 1e6)
    writer.begin("train", pd.DataFrame({"recording_id": [name]}))
    writer.add(name, np.zeros((3, 4), np.float16))
    writer.end()
    with tarfile.open(tmp_path / "train-000000.tar") as tar:
        assert tar.getnames() == [f"{name}.npy", f"{name}.json"]


def test_a_split_without_recordings_is_refused(reader, tmp_path) -> None:
    folder = shutil.copytree(reader.folder, tmp_path / "shards")
    table = pd.read_parquet(folder / "index.parquet")
    table[table["split"] != "val"].to_parquet(folder / "index.parquet")
    for to in Format:
        with pytest.raises(InputError, match="no recording in val"):
            export(folder, tmp_path / "out", to, [Split.val])
        assert not (tmp_path / "out").exists()


def test_plain_files_and_their_index(reader, tmp_path) -> None:
    export(reader.folder, tmp_path / "out", Format.npy)
    for table in (
        pd.read_parquet(tmp_path / "out/index.parquet"),
        pd.read_csv(tmp_path / "out/index.csv", dtype={"subject": str}),
    ):
        assert len(table) == 14 and table["label_score"].notna().all()
        for row in table.itertuples():
            values = np.load(tmp_path / "out" / row.file)
            np.testing.assert_array_equal(values, reader.view(row.recording_id))
            assert row.subject in row.recording_id
    parcels = pd.read_csv(tmp_path / "out/parcels.tsv", sep="\t")
    assert len(parcels) == PARCELS


@pytest.mark.parametrize("to", list(Format))
def test_equal_shards_give_equal_bytes(reader, tmp_path, to) -> None:
    export(reader.folder, tmp_path / "a", to)
    export(reader.folder, tmp_path / "b", to)
    assert everything(tmp_path / "a") == everything(tmp_path / "b")


def test_nothing_is_replaced_unasked_and_nothing_that_is_no_export(reader, tmp_path) -> None:
    out = tmp_path / "out"
    export(reader.folder, out, Format.npy, [Split.val])
    with pytest.raises(InputError, match="exists already"):
        export(reader.folder, out, Format.npy)
    export(reader.folder, out, Format.webdataset, [Split.test], overwrite=True)
    assert json.loads((out / "brainlm-export.json").read_text())["format"] == "webdataset"
    assert not list(out.rglob("*.npy"))
    (tmp_path / "home").mkdir()
    with pytest.raises(InputError, match="not an export"):
        export(reader.folder, tmp_path / "home", Format.npy, overwrite=True)


def test_a_fault_leaves_nothing_behind(reader, tmp_path, monkeypatch) -> None:
    def fault(self, name):
        raise OSError("disk on fire")

    export(reader.folder, tmp_path / "out", Format.npy, [Split.val])
    before = everything(tmp_path)
    monkeypatch.setattr(ShardReader, "view", fault)
    with pytest.raises(OSError, match="on fire"):
        export(reader.folder, tmp_path / "out", Format.npy, overwrite=True)
    assert everything(tmp_path) == before


def test_the_command(reader, tmp_path) -> None:
    app = typer.Typer()
    app.command("export")(export)
    arguments = [str(reader.folder), str(tmp_path / "out"), "--to", "npy", "--split", "val"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0 and "4 recordings of val" in done.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "brainlm-export.json",
        "index.csv",
        "index.parquet",
        "normalization.safetensors",
        "parcels.tsv",
        "val",
    ]
