"""From an Arrow dataset as BrainLM's authors write it to a study, with the same numbers."""

from __future__ import annotations

import shlex
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlm.atlas.registry import find_atlas
from brainlm.atlas.table import read_table
from brainlm.bids.ready.upstream import People
from brainlm.cli.import_arrow import import_arrow
from brainlm.errors import DataError, InputError
from brainlm.parcellate.arrow_rows import find_datasets, rows_of
from brainlm.parcellate.ready import read_parcels

PARCELS, TIMES = 424, 210
RNG = np.random.default_rng(0)
SERIES = {
    "1000011_20227_2_0.dat": RNG.normal(1000, 20, (PARCELS, TIMES)).astype(np.float32),
    "sub-02_task-WM_desc-clean_bold.dat": RNG.normal(900, 9, (PARCELS, TIMES)).astype(np.float32),
    "three.dat": RNG.normal(800, 9, (PARCELS, TIMES + 3)).astype(np.float32),
}
SERIES["three.dat"][7] = 0  # as their program writes parcels without voxels


def rows_for(names, **more):
    """The columns of their toolkit, shortened; `Patient ID` empty by its fault."""
    return {
        "Raw_Recording": [SERIES[name] for name in names],
        "Voxelwise_RobustScaler_Normalized_Recording": [SERIES[name].T - 1 for name in names],
        "Filename": list(names),
        "Patient ID": [name.split(".dat")[-1] for name in names],
        "Age.At.MHQ": [60.5 + place for place, _ in enumerate(names)],
        "Gender": [None if place else "F" for place, _ in enumerate(names)],
        **more,
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    from datasets import Dataset

    folder = tmp_path_factory.mktemp("arrow")
    for split, name in zip(("train", "val", "test"), SERIES, strict=True):
        Dataset.from_dict(rows_for([name])).save_to_disk(folder / split)
    coordinates = {"Index": [1.0], "X": [0.0], "Y": [0.0], "Z": [0.0]}
    Dataset.from_dict(coordinates).save_to_disk(folder / "Brain_Region_Coordinates")
    return folder


def read(path) -> list[dict[str, str]]:
    return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False).to_dict("records")


def test_from_arrow_to_a_study(source, tmp_path, capsys) -> None:
    import_arrow(source, tmp_path / "my tables", tr=0.735)
    told = capsys.readouterr()
    assert "3 recordings have no Patient ID" in told.err
    assert "Brain_Region_Coordinates: left out" in told.out
    assert read(tmp_path / "my tables/splits.tsv") == [
        {"subject": "02", "split": "val"},
        {"subject": "1000011", "split": "train"},
        {"subject": "three", "split": "test"},
    ]
    people = read(tmp_path / "my tables/participants.tsv")
    assert people[1] == {
        "participant_id": "sub-1000011",
        "AgeAtMHQ": "60.5",
        "Gender": "F",
        "upstream_split": "train",
    }
    (line,) = [line for line in told.out.splitlines() if line.startswith("Next:")]
    command = line.removeprefix("Next:  brainlm ").replace("STUDY", str(tmp_path / "study"))
    done = subprocess.run(
        [sys.executable, "-m", "brainlm", *shlex.split(command)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    table = pd.read_parquet(tmp_path / "study/onboarding/recordings.parquet")
    assert table["eligible"].all() and (table["tr"] == 0.735).all()
    assert dict(zip(table["recording_id"], table["n_volumes"], strict=True)) == {
        "sub-02_task-WM": TIMES,
        "sub-1000011_ses-2_task-rest": TIMES,
        "sub-three_task-rest": TIMES + 3,
    }
    assert table["label_AgeAtMHQ"].tolist() == [60.5] * 3
    assert table["label_upstream_split"].tolist() == ["val", "train", "test"]
    config = (tmp_path / "study/config/config.yaml").read_text()
    assert str(tmp_path / "my tables/splits.tsv") in config
    names = read_table(find_atlas("A424").table)["name"].tolist()
    ordered = [SERIES["three.dat"], *list(SERIES.values())[:2]]  # test, train, val
    for row, series in zip(read(tmp_path / "my tables/recordings.tsv"), ordered, strict=True):
        found = read_parcels(tmp_path / "my tables" / row["file"], names)
        expected = np.where((series == 0).all(axis=1)[:, None], np.nan, series).T
        np.testing.assert_array_equal(found.series, expected)


def test_scaled_columns_only_when_named(source, tmp_path, capsys) -> None:
    from datasets import Dataset

    only = {k: v for k, v in rows_for(["three.dat"]).items() if k != "Raw_Recording"}
    Dataset.from_dict(only).save_to_disk(tmp_path / "scaled")
    with pytest.raises(InputError, match="has a column 'Raw_Recording'") as caught:
        import_arrow(tmp_path / "scaled", tmp_path / "tables")
    assert "all of these are scaled already" in str(caught.value.fix)
    assert not (tmp_path / "tables").exists()
    column = "Voxelwise_RobustScaler_Normalized_Recording"
    import_arrow(tmp_path / "scaled", tmp_path / "tables", column=column)
    told = capsys.readouterr()
    assert "to scale it twice is wrong" in told.err
    assert "--set derivatives.tr=SECONDS" in told.out and "not split into train" in told.out
    values = np.load(tmp_path / "tables/sub-three_task-rest_timeseries.npy")
    np.testing.assert_array_equal(values, SERIES["three.dat"].T - 1)
    with pytest.raises(InputError, match="exists already"):
        import_arrow(source, tmp_path / "tables")


def test_other_ways_to_store_a_recording(tmp_path) -> None:
    """Fixed lists, Array2D, several files, a file cut short, a row that is no table."""
    from datasets import Array2D, Dataset, Features, Value

    values = [np.arange(12.0).reshape(4, 3) + step for step in range(5)]
    features = Features({"Raw_Recording": Array2D((4, 3), "float32"), "Filename": Value("string")})
    names = [f"{number}.dat" for number in range(5)]
    rows = {"Raw_Recording": values, "Filename": names}
    Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "a", num_shards=2)
    files = find_datasets(tmp_path / "a")[""]
    assert len(files) == 2
    found = list(rows_of(files, "", "Raw_Recording"))
    assert [row.filename for row in found] == names
    for row, expected in zip(found, values, strict=True):
        np.testing.assert_array_equal(row.values, expected)
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cut short or damaged"):
        list(rows_of(files, "", "Raw_Recording"))
    torn = {"Raw_Recording": [[[1.0, 2.0], [3.0]]], "Filename": ["a"]}
    Dataset.from_dict(torn).save_to_disk(tmp_path / "b")
    with pytest.raises(DataError, match="not of one length"):
        list(rows_of(find_datasets(tmp_path / "b")[""], "", "Raw_Recording"))
    (tmp_path / "empty").mkdir()
    for wrong, why in (("none", "does not exist"), ("empty", "no Arrow dataset")):
        with pytest.raises(InputError, match=why):
            find_datasets(tmp_path / wrong)


# --- who is who --------------------------------------------------------------------------


def test_names_and_what_they_may_not_be() -> None:
    people = People()
    add = people.add
    assert add("1000011_20227_2_0.dat", "", "train", {}) == "sub-1000011_ses-2_task-rest"
    assert add("1000011_20227_3_0.dat", "", "test", {}) == "sub-1000011_ses-3_task-rest"
    assert add("x/sub-7_ses-1_task-WM_run-2_bold.nii.gz", "", "val", {}) == (
        "sub-7_ses-1_task-WM_run-2"
    )
    assert add("scan.dat", "P-01", "val", {}) == "sub-P01_task-rest"
    assert add("scan2.dat", "P-01", "val", {}) == "sub-P01_task-rest_run-2"
    assert people.named_by_file == 3
    assert people.in_several_splits() == ["1000011"]
    assert people.split_table() == {"1000011": "test", "7": "val", "P01": "val"}
    for filename, patient, why in (
        ("a.dat", "P01", "would both be sub-P01"),
        ("sub-7_ses-1_task-WM_run-2.dat", "", "Two rows are of"),
        (".dat", "", "neither a Patient ID nor a Filename"),
    ):
        with pytest.raises(DataError, match=why):
            add(filename, patient, "val", {})


def test_labels_that_contradict_each_other_are_left_out() -> None:
    people = People()
    people.add("a.dat", "1", "", {"Age.At": 50, "Sex": "F", "IQ": None})
    people.add("b.dat", "1", "", {"Age.At": 52, "Sex": float("nan"), "IQ": 100})
    assert people.contradictory == {"AgeAt"}
    assert people.participants() == (["participant_id", "Sex", "IQ"], [["sub-1", "F", 100]])
    assert people.split_table() is None


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["train", "val", "test"]))))
def test_nobody_is_in_two_splits(rows) -> None:
    people = People()
    for number, (subject, split) in enumerate(rows):
        people.add(f"{number}.dat", f"s{subject}", split, {})
    table = people.split_table()
    if {split for _, split in rows} != {"train", "val", "test"}:
        assert table is None
        return
    for subject, split in table.items():
        theirs = {split for number, split in rows if f"s{number}" == subject}
        assert split in theirs and (split == "test" or "test" not in theirs)
