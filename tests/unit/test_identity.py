"""Nobody's data under another's name: rows of the table, plans, shards, figures, lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from brainlm.cli._parcel_series import read_recording
from brainlm.cli.index_shards import index_shards
from brainlm.cli.run_batch import run_batch
from brainlm.cli.scale import scale
from brainlm.cli.write_shard import write_shard
from brainlm.errors import DataError, InputError
from brainlm.identity import check_row
from brainlm.layout import Study
from brainlm.provenance import fast_fingerprint, still_is
from brainlm.recordings import COLUMNS, load_recording_of_anat

from .synthetic_cohort import make_shards, write_recordings, write_study

NAME = "sub-01_ses-2_task-rest_run-1"
RAW = {
    "bold": f"sub-01/ses-2/func/{NAME}_bold.nii.gz",
    "t1w": "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii",
    "anat_id": "sub-01_ses-1",
    "fmap": json.dumps(["sub-01/ses-2/fmap/sub-01_ses-2_dir-PA_epi.nii.gz"]),
}


def _row(**said: Any) -> dict[str, Any]:
    return dict.fromkeys(COLUMNS) | {"recording_id": NAME} | said


def _ready(layout: str, name: str, *paths: str) -> dict[str, Any]:
    files = {f"role{number}": path for number, path in enumerate(paths)}
    return _row(recording_id=name, layout=layout, ready=json.dumps(files))


@pytest.mark.parametrize(
    "row",
    [
        _row(**RAW),
        _row(bold=RAW["bold"]),
        _ready("fmriprep", NAME, f"sub-01/ses-2/func/{NAME}_space-MNI_desc-preproc_bold.nii.gz"),
        _ready("xcpd", NAME, "/data/sub-studies/sub-01/ses-2/func/sub-01_ses-2_dseg.nii.gz"),
        _ready("hcp", "sub-100307V1_task-REST1", "100307_V1/MNINonLinear/Results/x.nii.gz"),
        _ready("ukb", "sub-1234567_ses-2_task-rest", "1234567_20227_2_0/fMRI/rfMRI.ica/x.nii.gz"),
        _ready("tables", "sub-01_task-rest", "sub-99_anything.csv"),
    ],
)
def test_a_row_may_name_files_of_its_own_recording(row: dict[str, Any]) -> None:
    check_row(row, Path("recordings.parquet"))


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (_row(bold=RAW["bold"].replace("run-1", "run-2")), "BOLD file"),
        (_row(bold=RAW["bold"].replace("sub-01", "sub-02")), "BOLD file"),
        (_row(**{**RAW, "t1w": RAW["t1w"].replace("sub-01", "sub-02")}), "T1w image"),
        (_row(**{**RAW, "anat_id": "sub-01_ses-2"}), "T1w image"),
        (_row(**{**RAW, "fmap": RAW["fmap"].replace("sub-01", "sub-02")}), "field map"),
        (_ready("fmriprep", NAME, f"sub-01/ses-2/func/{NAME.replace('run-1', 'run-2')}_x"), "role"),
        (_ready("xcpd", NAME, "sub-02/ses-2/func/dseg.nii.gz"), "role0"),
        (_ready("hcp", "sub-100307_task-REST1", "100308/MNINonLinear/x.nii.gz"), "role0"),
        (_ready("hcp", "sub-100307_task-REST1", "1003070/MNINonLinear/x.nii.gz"), "role0"),
        (_ready("ukb", "sub-1234567_task-rest", "7654321_20227_2_0/fMRI/x.nii.gz"), "role0"),
    ],
)
def test_a_row_that_names_anothers_files_is_refused(row: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError, match=rf"the {what}.* of another recording") as caught:
        check_row(row, Path("recordings.parquet"))
    assert caught.value.file == "recordings.parquet"


def test_two_images_under_one_name_are_refused(tmp_path: Path) -> None:
    second = {name: value.replace("run-1", "run-2") for name, value in RAW.items()}
    rows = [
        _row(**RAW, t1w_sha256="a"),
        _row(**second, t1w_sha256="b") | {"recording_id": NAME.replace("run-1", "run-2")},
    ]
    write_recordings(Study(tmp_path), pd.DataFrame(rows))
    with pytest.raises(InputError, match="two T1w images called sub-01_ses-1"):
        load_recording_of_anat(Study(tmp_path).path("recordings"), "sub-01_ses-1", tmp_path)


def test_a_raw_file_of_the_same_size_is_told_from_another(tmp_path: Path) -> None:
    """Also where onboarding reads no file whole; copies may change the time."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"a" * 300_000)
    second.write_bytes(b"a" * 299_999 + b"b")
    known = fast_fingerprint(first)
    assert still_is(first, known)
    assert not still_is(second, known)
    second.write_bytes(b"a" * 300_000)
    assert still_is(second, known)


def test_a_plan_that_gives_a_recording_anothers_series_is_refused(tmp_path: Path) -> None:
    row = {
        "recording_id": NAME,
        "timeseries": "derivatives/brainlm/sub-02/func/sub-02_task-rest_space-x_timeseries.parquet",
    }
    with pytest.raises(DataError, match=f"gives {NAME} the parcel series of another"):
        read_recording(tmp_path, row, [])


@pytest.fixture
def shards(tmp_path: Path) -> Study:
    study = write_study(
        tmp_path, {"train": 8, "val": 2, "test": 2}, options={"shards": {"target_mb": 0.003}}
    )
    make_shards(study)
    return study


def _exchange(first: Path, second: Path) -> None:
    assert first.read_bytes() != second.read_bytes()
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def _two(study: Study, kind: str) -> list[Path]:
    """That kind of file of two train shards."""
    folder = study.path(kind, shard="any").parent
    return sorted(folder.glob(f"train-*{study.path(kind, shard='x').suffix}"))[:2]


def test_exchanged_plans_shards_and_parts_are_refused(shards: Study) -> None:
    for kind, told in (
        ("shard_plan", "fitted on another cohort"),
        ("shard", "was made of something else"),
        ("shard_part", "not what this shard holds"),
    ):
        first, second = _two(shards, kind)
        _exchange(first, second)
        with pytest.raises(DataError, match=told):
            index_shards(shards.root)
        if kind == "shard_plan":
            with pytest.raises(DataError, match=told):
                write_shard(first.stem, shards.root)
        _exchange(first, second)
    index_shards(shards.root)


def test_exchanged_parcel_series_are_refused_when_shards_are_written(shards: Study) -> None:
    plan = pd.read_parquet(_two(shards, "shard_plan")[0])
    first = shards.root / str(plan["timeseries"].iloc[0])
    second = next(path for path in shards.root.rglob("*_timeseries.parquet") if path != first)
    _exchange(first, second)
    for stage in (scale, lambda root: write_shard(None, root)):
        for path in shards.root.glob("shards/**/*.safetensors"):
            path.unlink()
        with pytest.raises(DataError, match="has changed since the cohort was selected"):
            stage(shards.root)


def test_the_list_of_a_batch_is_not_written_over_for_other_recordings(tmp_path: Path) -> None:
    study = write_study(tmp_path, {"train": 2})
    path = study.path("batch", batch="0000")
    path.parent.mkdir()
    path.write_text("recording_id\ttimeseries_sha256\nsub-01_task-rest_run-1\tabc\n")
    with pytest.raises(InputError, match="This batch is of other recordings"):
        run_batch(["sub-02_task-rest_run-1"], study=study.root)
    assert "abc" in path.read_text()
