"""Onboarding: what is repaired or decided is told in the notes."""

from __future__ import annotations

import errno
import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brainlm.bids.place import box_overlap
from brainlm.bids.timing import repetition_time, slice_times
from brainlm.recordings import COLUMNS

from .small_bids import (
    BOLD,
    make_bids,
    row_of,
    table_of,
    write_bold,
    write_json,
    write_t1w,
)


@pytest.fixture
def bids(tmp_path):
    return make_bids(tmp_path / "bids")


def test_tr_in_ms_is_repaired_and_told(bids):
    write_json(bids / f"{BOLD}.json", RepetitionTime=2000)
    row = row_of(bids)
    assert row.tr == 2.0
    assert row.notes == "RepetitionTime 2000 taken as ms: 2 s"


def test_the_nearest_sidecar_wins_field_by_field(bids):
    write_json(bids / "bold.json", RepetitionTime=9, SliceTiming=[0, 0.5, 1, 1.5])
    write_json(bids / "sub-01/sub-01_bold.json", RepetitionTime=1.5)
    write_json(bids / "sub-02/sub-02_ses-2_bold.json", RepetitionTime=1.25)
    write_json(bids / "sub-02/sub-02_ses-2_task-nback_bold.json", RepetitionTime=4)
    table = table_of(bids)
    assert table["tr"].tolist() == [1.5, 2.0, 1.25, 2.0]
    assert json.loads(table["slice_timing"].iloc[3]) == [0, 0.5, 1, 1.5]
    assert "the NIfTI header says 2 s, the JSON 1.5 s" in table["notes"].iloc[0]


@pytest.mark.parametrize("damage", ["empty", "truncated", "4d", "absent"])
def test_a_t1w_that_cannot_be_used_is_dropped_with_a_note(bids, damage):
    path = bids / "sub-01/anat/sub-01_T1w.nii.gz"
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-20])
    elif damage == "4d":
        write_bold(path)
    else:
        path.unlink()
        path.symlink_to("absent")
    row = row_of(bids)
    assert row.eligible
    assert pd.isna(row.t1w) and pd.isna(row.anat_id)
    assert "sub-01_T1w.nii.gz is passed over" in row.notes


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("sub-02", "another subject"),
        ("sub-01_ses-9", "another subject or session"),
        ("sub-01_desc-defaced", "no entity desc"),
        ("sub-01_part-phase", "not a magnitude"),
    ],
)
def test_a_t1w_by_a_wrong_name_is_passed_over(bids, name, fault):
    """Under its name, one subject's brain would be taken for another's."""
    (bids / "sub-01/anat/sub-01_T1w.nii.gz").rename(bids / f"sub-01/anat/{name}_T1w.nii.gz")
    row = row_of(bids)
    assert row.eligible
    assert pd.isna(row.t1w) and pd.isna(row.anat_id)
    assert "is passed over" in row.notes and fault in row.notes


def test_notes_on_the_t1w_are_told(bids):
    path = bids / "sub-01/anat/sub-01_T1w.nii.gz"
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[252:256] = bytes(4)  # qform_code, sform_code
    path.write_bytes(gzip.compress(bytes(raw)))
    assert "T1w: the header does not place the image" in row_of(bids).notes


def test_a_file_that_may_not_be_read_is_a_fault_and_stops_nobody(bids, monkeypatch):
    denied = bids / f"{BOLD}.nii.gz"
    really = Path.open

    def open_(self, *args, **kwargs):
        if self == denied:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return really(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", open_)
    table = table_of(bids)
    assert "Permission denied" in table.loc["sub-01_task-rest"].reason
    assert pd.isna(table.loc["sub-01_task-rest"].bold_sha256)
    assert table["eligible"].tolist() == [False, True, True, True]


def test_another_t1w_serves_when_the_first_cannot_be_used(bids):
    (bids / "sub-01/anat/sub-01_T1w.nii.gz").write_bytes(b"")
    write_t1w(bids / "sub-01/anat/sub-01_run-2_T1w.nii.gz")
    write_t1w(bids / "sub-01/anat/sub-01_run-3_T1w.nii.gz")
    row = row_of(bids)
    assert row.anat_id == "sub-01_run-2"
    assert "2 T1w images" in row.notes


def test_uneven_runs_are_noted(bids):
    write_bold(bids / "sub-03/func/sub-03_task-rest_run-2_bold.nii.gz", 15, tr=1.5)
    write_json(bids / "sub-03/func/sub-03_task-rest_run-2_bold.json", RepetitionTime=1.5)
    for run in ("1", "2"):
        row = row_of(bids, f"sub-03_task-rest_run-{run}")
        assert row.eligible
        assert "uneven runs: 15 to 20 volumes" in row.notes
        assert "uneven runs: TR 1.5 to 2 s" in row.notes


def test_equal_participant_rows_count_once(bids):
    with (bids / "participants.tsv").open("a") as handle:
        handle.write("sub-01\t30.5\tpatient\tA\n")
    assert row_of(bids).label_age == 30.5


def test_without_participants_there_are_no_labels(bids):
    (bids / "participants.tsv").unlink()
    assert list(table_of(bids).columns) == list(COLUMNS)[1:]


@pytest.mark.parametrize(
    ("stated", "header", "tr", "fault", "note"),
    [
        (0.735, 0.735, 0.735, None, None),
        (735, 0.735, 0.735, None, "taken as ms"),
        (2, 2000, 2.0, None, "in ms under the unit s"),
        (2, 1.0, 2.0, None, "the JSON's is used"),
        (2, None, 2.0, None, None),
        (0.1, None, 0.1, "not between", None),
        (0, 2.0, None, "positive", None),
        (True, 2.0, None, "positive", None),
        (float("nan"), 2.0, None, "positive", None),
    ],
)
def test_repetition_time(stated, header, tr, fault, note):
    found, faults, notes = repetition_time({"RepetitionTime": stated}, header, 0.3, 5)
    assert found == tr
    assert (fault in " ".join(faults)) if fault else not faults
    assert (note in " ".join(notes)) if note else not notes


@pytest.mark.parametrize(
    ("fields", "times", "note"),
    [
        ({}, None, None),
        ({"SliceTiming": [0, 1, 0.5, 1.5]}, [0, 1, 0.5, 1.5], None),
        (
            {"SliceTiming": [0, 1, 0.5, 1.5], "SliceEncodingDirection": "k-"},
            [1.5, 0.5, 1, 0],
            None,
        ),
        ({"SliceTiming": [0, 1000, 500, 1500]}, [0, 1, 0.5, 1.5], "taken as ms"),
        ({"SliceTiming": [0, 1, 2.2, 1]}, None, "later than the TR"),
        ({"SliceTiming": [0, 1]}, None, "2 times for 4 slices"),
        ({"SliceTiming": "even"}, None, "not a list"),
        ({"SliceTiming": [0, 1, -0.5, 1]}, None, "not a list of times"),
        ({"SliceTiming": [0, 1, 2, 3], "SliceEncodingDirection": "j"}, None, "not supported"),
    ],
)
def test_slice_times(fields, times, note):
    found, notes = slice_times(fields, 4, 2.0)
    assert found == times
    assert (note in " ".join(notes)) if note else not notes


def test_box_overlap():
    cube = np.eye(4)
    moved = np.eye(4)
    moved[0, 3] = 7.5
    assert box_overlap(cube, (10, 10, 10), cube, (10, 10, 10)) == 1
    assert box_overlap(cube, (10, 10, 10), moved, (10, 10, 10)) == pytest.approx(0.25)
    assert box_overlap(cube, (10, 10, 10), cube, (5, 10, 2)) == 1
    mirrored = np.diag([-1.0, 1, 1, 1])
    mirrored[0, 3] = 9
    assert box_overlap(cube, (10, 10, 10), mirrored, (10, 10, 10)) == 1
