"""`brainlm shards`: every changed byte is found and told, and the datasheet names nobody."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from brainlm.cli.index_shards import index_shards
from brainlm.cli.shards import shards_app
from brainlm.errors import DataError, InputError
from brainlm.files import write_json
from brainlm.shards.croissant import CONFORMS_TO
from brainlm.shards.datasheet import count_reasons
from brainlm.shards.keeping import keep
from brainlm.shards.summary import summarise
from brainlm.shards.tensorfile import load_tensors, save_tensors
from brainlm.shards.verify import verify_all

from .synthetic_cohort import make_shards, simulate, write_recording, write_recordings, write_study

SPLITS = {"train": 3, "val": 2, "test": 2}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = write_study(tmp_path_factory.mktemp("verify") / "study", SPLITS)
    holed = simulate(0.0, 60, np.random.default_rng(1))
    holed[:, 3] = np.nan
    write_recording(study, "sub-02_task-rest_run-1", holed)
    table = pd.read_parquet(study.path("recordings"))
    table.loc[0, ["eligible", "reason"]] = [False, "sub-01_task-rest_run-1_bold.nii.gz is empty"]
    table["site"] = ["Aachen", "Aachen", "Bonn", "Bonn", "Bonn", None, None]
    write_recordings(study, table)
    make_shards(study)
    return study


@pytest.fixture
def folder(study, tmp_path):
    """A copy of the shards that may be spoilt: no study about it."""
    copy = tmp_path / "shards"
    shutil.copytree(study.path("shards_index").parent, copy)
    return copy


def run(*arguments: object) -> str:
    done = CliRunner().invoke(shards_app, [str(one) for one in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def faults(folder: Path) -> list[str]:
    _, found = verify_all(folder, lambda function, names: map(function, names))
    return [f"{fault.file.name}: {fault.what}" for fault in found]


def forge(folder: Path, change) -> None:
    """Change a shard and all hashes of it: what only a look at the values can tell."""
    import hashlib

    path = folder / "train-00000.safetensors"
    tensors, about = load_tensors(path)
    change(tensors)
    for name, values in tensors.items():
        about["facts"][name]["sha256"] = hashlib.sha256(values.tobytes()).hexdigest()
    save_tensors(path, tensors, about)
    index = pd.read_parquet(folder / "index.parquet")
    for row, name in enumerate(index["recording_id"]):
        if name in tensors:
            index.loc[row, "sha256"] = about["facts"][name]["sha256"]
    index.to_parquet(folder / "index.parquet", index=False)
    (folder / "croissant.json").unlink()


def test_whole_shards_are_called_whole(folder):
    assert faults(folder) == []
    told = run("verify", folder, "--threads", 2)
    assert "3 shards, 6 recordings, 6 subjects, 360 volumes: all is as it was written" in told
    shutil.rmtree(folder / ".kept")
    shutil.rmtree(folder / "parts")
    assert faults(folder) == []


def test_a_folder_that_does_not_hash_its_small_files_is_told(folder):
    assert "croissant.json" not in run("verify", folder)
    (folder / "croissant.json").unlink()
    assert "Warning: croissant.json is not there" in run("verify", folder)


def test_any_changed_byte_is_found(folder):
    """Wherever it falls: in the header, the tensors, the index, the scaler, the parcels."""
    drawn = random.Random(3)
    names = ("train-00000.safetensors", "index.parquet", "normalization.safetensors")
    for name in (*names, "parcels.tsv", "README.md"):
        path = folder / name
        whole = path.read_bytes()
        places = {0, 9, len(whole) - 1, *(drawn.randrange(len(whole)) for _ in range(25))}
        for place in places:
            spoilt = bytearray(whole)
            spoilt[place] ^= 1 << drawn.randrange(8)
            path.write_bytes(spoilt)
            found = faults(folder)
            assert found and found[0].startswith(name), (name, place, found)
        path.write_bytes(whole[:-7])
        assert faults(folder)[0].startswith(name)
        path.write_bytes(whole)
    assert faults(folder) == []


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (np.nan, "1 parcels are NaN at some volumes only"),
        (np.inf, "1 values are infinite"),
    ],
)
def test_values_that_no_writer_writes_are_found(folder, value, told):
    def change(tensors):
        tensors["sub-03_task-rest_run-1"][7, 2] = value

    forge(folder, change)
    assert any(
        f"train-00000.safetensors: sub-03_task-rest_run-1: {told}" in f for f in faults(folder)
    )


def test_shapes_counts_and_types_are_compared(folder):
    def cut(tensors):
        tensors["sub-02_task-rest_run-1"] = tensors["sub-02_task-rest_run-1"][:-1].copy()
        tensors["sub-03_task-rest_run-1"][:, 1] = np.nan

    forge(folder, cut)
    found = "\n".join(faults(folder))
    assert "sub-02_task-rest_run-1: float16 (59, 8), not float16 (60, 8)" in found
    assert "sub-03_task-rest_run-1: 7 parcels with data, 8 noted" in found


def test_what_the_index_says_otherwise_is_found(folder):
    (folder / "croissant.json").unlink()
    path = folder / "index.parquet"
    index = pd.read_parquet(path)
    index.loc[0, "n_timepoints"] += 1
    index.loc[1, "split"] = "val"
    index.loc[5, "subject"] = index.loc[0, "subject"]
    index.iloc[:-2].to_parquet(path, index=False)
    found = "\n".join(faults(folder))
    assert "n_timepoints is 61 in the index, 60 in the shard" in found
    assert "split is val in the index, train in the shard" in found
    assert "are not named by the index" in found or "does not belong here" in found
    pd.concat([index, index[3:4]]).to_parquet(path, index=False)
    found = "\n".join(faults(folder))
    assert "Leakage: 1 subjects are in more than one split" in found
    assert "names 1 recordings twice" in found


def test_files_that_do_not_belong_and_those_that_lack_are_named(folder):
    shutil.copy(folder / "val-00000.safetensors", folder / "val-00009.safetensors")
    (folder / "test-00000.safetensors").unlink()
    found = "\n".join(faults(folder))
    assert "val-00009.safetensors: does not belong here" in found
    assert "test-00000.safetensors: test-00000.safetensors does not exist" in found


def test_a_shard_of_which_nothing_is_left_is_empty_and_whole(tmp_path):
    """Its name was given out before quality control."""
    few = {"shards": {"target_mb": 424 * 60 * 2 / 1e6}}  # planned as if of 424 parcels
    study = write_study(tmp_path / "study", SPLITS, runs=3, options=few)
    index = pd.read_parquet(make_shards(study))
    alone = index["shard"].value_counts(ascending=True).index[0]
    for recording in index["recording_id"][index["shard"] == alone]:
        write_recording(study, recording, simulate(0.3, 60, np.random.default_rng(1)), mean_fd=9.0)
    after = pd.read_parquet(make_shards(study))
    assert alone not in set(after["shard"]) and (study.root / "shards" / alone).exists()
    assert faults(study.root / "shards") == []
    assert load_tensors(study.root / "shards" / alone)[0] == {}


def test_parts_of_two_cohorts_do_not_go_together(folder, tmp_path_factory):
    other = write_study(tmp_path_factory.mktemp("other") / "study", SPLITS, seed=5)
    make_shards(other)
    shutil.copy(other.path("scaler"), folder / "normalization.safetensors")
    assert faults(folder) == [
        "normalization.safetensors: is not the one that croissant.json describes"
    ]
    (folder / "croissant.json").unlink()
    assert any("its scaler_sha256 is not that of the folder" in one for one in faults(folder))
    shutil.copy(other.path("shard", shard="train-00000"), folder)
    assert any("train-00000" in one and "bytes have changed" not in one for one in faults(folder))


def test_the_command_names_each_fault_its_fix_and_ends_with_3(folder, capsys):
    from brainlm.cli.shards import verify

    path = folder / "val-00000.safetensors"
    path.write_bytes(path.read_bytes()[:-3] + b"abc")
    (folder / "stray").touch()
    with pytest.raises(DataError, match="2 faults in the shards") as caught:
        verify(folder)
    assert caught.value.exit_code == 3
    told = capsys.readouterr().out
    assert re.search(r"val-00000.*sub-05.*SHA-256\)\n  fix:  copy this file anew", told)
    assert "stray: does not belong here" in told
    with pytest.raises(InputError, match=r"no whole set of shards: index\.parquet is not there"):
        verify(folder.parent)


def test_an_index_of_an_earlier_schema_is_told(folder):
    from brainlm.cli.shards import info

    path = folder / "index.parquet"
    pd.read_parquet(path).drop(columns=["error_rms", "wave"]).to_parquet(path, index=False)
    (folder / "croissant.json").unlink()
    assert faults(folder) == ["index.parquet: The index lacks the columns wave, error_rms"]
    with pytest.raises(DataError, match="lacks the columns wave, error_rms") as caught:
        info(folder)
    assert "make the shards anew" in str(caught.value.fix)


def test_info_counts_and_head_shows(folder):
    told = run("info", folder)
    assert re.search(r"^train +1 +2 +2 +0\.1 +120 ", told, re.M)
    assert "float16, error " in told and "score (6), group (6)" in told
    content = json.loads(run("info", folder, "--json"))
    assert content["splits"]["all"]["volumes"] == 360
    assert content["splits"]["all"]["tr"] == {"2": 6}
    assert 0 < content["storage"]["error_rms"] < content["storage"]["error_max"] < 2e-3
    shown = run("head", "sub-02_task-rest_run-1", folder, "--volumes", 2)
    assert "train-00000.safetensors" in shown and len(re.findall(r"^\d ", shown, re.M)) == 2
    assert shown.count("nan") == 2
    from brainlm.cli.shards import head

    with pytest.raises(InputError, match="sub-3 is not in the shards") as caught:
        head("sub-3", folder)
    assert "sub-03_task-rest_run-1" in str(caught.value.fix)


# --- the datasheet -----------------------------------------------------------------------------


def test_the_summary_is_of_the_index(study):
    index = pd.read_parquet(study.path("shards_index"))
    index.loc[index["split"] == "val", "tr"] = 1.0
    found = summarise(index, parcels=8, dtype="float32")["splits"]
    assert found["val"]["hours"] == pytest.approx(120 * 1 / 3600, abs=1e-3)
    assert found["all"]["tr"] == {"1": 2, "2": 4}
    assert found["all"]["megabytes"] == pytest.approx(360 * 8 * 4 / 1e6, abs=1e-3)
    assert [found[split]["recordings"] for split in SPLITS] == [2, 2, 2]


def test_the_error_of_all_is_that_of_all_values_together(study):
    """Recordings count by their values, not each alike."""
    index = pd.read_parquet(study.path("shards_index"))[:2]
    index["n_timepoints"], index["n_parcels"] = [100, 300], [8, 4]
    index["error_rms"], index["error_max"] = [0.1, 0.3], [0.5, 0.9]
    storage = summarise(index, parcels=8, dtype="float16")["storage"]
    pooled = ((800 * 0.1**2 + 1200 * 0.3**2) / 2000) ** 0.5
    assert storage["error_rms"] == pytest.approx(pooled, rel=1e-3)
    assert storage["error_max"] == 0.9


def test_readme_and_croissant_describe_the_folder_and_name_nobody(study, folder):
    text = (folder / "README.md").read_text()
    assert "| 1 | onboard | (a recording) is empty |" in text
    assert "| recordings | 2 | 2 | 2 | 6 |" in text
    assert "Licence: not stated" in text
    for name in ("README.md", "croissant.json"):
        content = (folder / name).read_text()
        assert not re.search(r"sub-\d|Aachen|Bonn", content), name
    described = json.loads((folder / "croissant.json").read_text())
    assert described["conformsTo"] == CONFORMS_TO
    import hashlib

    files = {item["@id"]: item for item in described["distribution"]}
    here = {path.name for path in folder.iterdir() if path.is_file()}
    assert set(files) == here - {"croissant.json", "index.json"}
    for name, item in files.items():
        content = (folder / name).read_bytes()
        assert item["sha256"] == hashlib.sha256(content).hexdigest()
        assert item["contentSize"] == f"{len(content)} B"
    fields = {field["name"]: field for field in described["recordSet"][0]["field"]}
    index = pd.read_parquet(folder / "index.parquet")
    assert list(fields) == list(index.columns)
    assert fields["n_timepoints"]["dataType"] == "sc:Integer"
    assert fields["mean_fd"]["dataType"] == fields["label_score"]["dataType"] == "sc:Float"
    assert fields["subject"]["dataType"] == "sc:Text"
    assert "of participants.tsv" in fields["label_score"]["description"]
    assert all(
        field["source"]["fileObject"] == {"@id": "index.parquet"} for field in fields.values()
    )


def test_croissants_own_library_finds_no_fault(folder):
    """Runs where mlcroissant is installed."""
    mlcroissant = pytest.importorskip("mlcroissant")
    dataset = mlcroissant.Dataset(str(folder / "croissant.json"))
    records = list(dataset.records("recordings"))
    assert {record["recordings/n_timepoints"] for record in records} == {60}
    assert len(records) == 6


def test_licence_and_citation_are_the_datasets_own(study):
    described = {"Name": "A Study", "License": "CC0", "DatasetDOI": "doi:10.1/x"}
    write_json(study.root / "bids" / "dataset_description.json", described)
    index_shards(study.root)
    text = (study.path("shards_index").parent / "README.md").read_text()
    assert "# Shards of A Study" in text and "Licence: CC0. To cite: doi:10.1/x." in text
    (study.root / "bids" / "dataset_description.json").unlink()
    index_shards(study.root)


def test_reasons_are_counted_without_names():
    table = pd.DataFrame(
        {
            "recording_id": ["sub-1_task-a", "sub-2_task-a", "sub-3"],
            "stage": ["motion", "motion", "cohort"],
            "reason": [
                "sub-1_task-a_bold.nii.gz holds NaN in 3 volumes",
                "sub-2/ses-1/func/sub-2_bold.nii.gz holds NaN in 3 volumes",
                "mean FD above 0.5 mm",
            ],
        }
    )
    assert count_reasons(table) == [
        ("motion", "(a recording) holds NaN in 3 volumes", 2),
        ("cohort", "mean FD above 0.5 mm", 1),
    ]


def test_files_called_by_subjects_are_not_named():
    """As tables of parcel series are: the reason is then also one for all of them."""
    reasons = [
        "no TR: put RepetitionTime into 1234567_20227_2_0.json, or the column tr into "
        "recordings.tsv",
        "no TR: put RepetitionTime into anna.json, or the column tr into recordings.tsv",
        "data/anna-2.csv is empty (0 bytes); fewer than 0.5 of 424",
        "Anna B.csv: whose table this is cannot be told; list it in recordings.tsv",
        "scrubbing leaves 12 volumes, fewer than 100",
    ]
    table = pd.DataFrame({"recording_id": "", "stage": "onboard", "reason": reasons})
    assert count_reasons(table) == [
        (
            "onboard",
            "no TR: put RepetitionTime into (a file), or the column tr into recordings.tsv",
            2,
        ),
        ("onboard", "(a file) is empty (0 bytes); fewer than 0.5 of 424", 1),
        ("onboard", "(a file): whose table this is cannot be told; list it in recordings.tsv", 1),
        ("onboard", "scrubbing leaves 12 volumes, fewer than 100", 1),
    ]


def test_a_second_name_is_no_fault(folder):
    keep(folder / "val-00000.safetensors")
    assert faults(folder) == []


def test_an_external_cohort_is_scaled_as_the_train_split_was(study, tmp_path):
    """Nobody trains: the scaler is one that was fitted elsewhere, and says so."""
    fitted = tmp_path / "outside" / "fitted.safetensors"
    fitted.parent.mkdir(parents=True)
    shutil.copy(study.path("scaler"), fitted)
    options = {"scale": {"fitted": "fitted.safetensors"}}
    outside = write_study(tmp_path / "outside" / "study", {"test": 3}, options=options)
    shutil.copy(fitted, outside.root / "fitted.safetensors")
    index = pd.read_parquet(make_shards(outside))
    assert set(index["shard"]) == {"test-00000.safetensors"}
    folder = outside.path("shards_index").parent
    assert faults(folder) == []
    assert re.search(r"^train +0 +0 +0 ", run("info", folder), re.M)
    assert "those of 2 train recordings" in (folder / "README.md").read_text()
