"""Onboarding: every known fault ends as a reason, every repair as a note."""

from __future__ import annotations

import errno
import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainlm.bids.dataset import read_dataset
from brainlm.bids.place import box_overlap
from brainlm.bids.scan import scan_image
from brainlm.bids.table import Limits
from brainlm.bids.timing import repetition_time, slice_times
from brainlm.cli.onboard import HashMode, onboard
from brainlm.config import Config, load_config
from brainlm.errors import InputError
from brainlm.provenance import sha256_file
from brainlm.recordings import COLUMNS, load_recording, load_recording_of_anat, read_table

SHAPE, N_VOLUMES, TR = (6, 7, 4), 20, 2.0
AFFINE = np.array([[4.0, 0, 0, -12], [0, 4, 0, -14], [0, 0, 4, -8], [0, 0, 0, 1]])
LIMITS = Limits(min_volumes=10, tr_min=0.3, tr_max=5.0)
BOLD = "sub-01/func/sub-01_task-rest_bold"


def write_bold(
    path: Path, n_volumes: int = N_VOLUMES, affine=AFFINE, dtype=np.int16, data=None, tr=TR
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if data is None:
        data = np.random.default_rng(len(path.name)).integers(0, 900, (*SHAPE, n_volumes))
    image = nib.Nifti1Image(data.astype(dtype), affine)
    image.header.set_xyzt_units("mm", "sec")
    if data.ndim == 4:
        image.header.set_zooms((*image.header.get_zooms()[:3], tr))
    nib.save(image, path)


def write_t1w(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(
        nib.Nifti1Image(np.ones((12, 14, 8), np.int16), AFFINE @ np.diag([0.5] * 3 + [1])), path
    )


def write_json(path: Path, **fields) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fields))


@pytest.fixture
def bids(tmp_path):
    """Three subjects: 01 plain, 02 with two sessions, 03 without T1w."""
    root = tmp_path / "bids"
    write_json(root / "dataset_description.json", Name="Small", BIDSVersion="1.10.0")
    write_json(root / "task-rest_bold.json", RepetitionTime=TR)
    (root / "participants.tsv").write_text(
        "participant_id\tage\tgroup\tsite\n"
        "sub-01\t30.5\tpatient\tA\nsub-02\tn/a\tcontrol\tB\nsub-03\t41\tcontrol\tn/a\n"
    )
    write_bold(root / f"{BOLD}.nii.gz")
    write_t1w(root / "sub-01/anat/sub-01_T1w.nii.gz")
    for session in ("1", "2"):
        write_bold(root / f"sub-02/ses-{session}/func/sub-02_ses-{session}_task-rest_bold.nii.gz")
    write_t1w(root / "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz")
    write_bold(root / "sub-03/func/sub-03_task-rest_run-1_bold.nii")
    return root


def table_of(bids: Path, *, full: bool = True) -> pd.DataFrame:
    table, _ = read_dataset(
        bids, LIMITS, full=full, threads=2, progress=lambda items, what, total: iter(items)
    )
    return table.set_index("recording_id")


def row_of(bids: Path, recording: str = "sub-01_task-rest", *, full: bool = True) -> pd.Series:
    row = table_of(bids, full=full).loc[recording]
    assert row.eligible == pd.isna(row.reason)
    return row


# --- a good dataset ----------------------------------------------------------------------


def test_a_good_dataset(bids):
    table = table_of(bids)
    assert table.index.tolist() == [
        "sub-01_task-rest",
        "sub-02_ses-1_task-rest",
        "sub-02_ses-2_task-rest",
        "sub-03_task-rest_run-1",
    ]
    assert table["eligible"].all()
    row = table.loc["sub-02_ses-2_task-rest"]
    assert (row.subject, row.session, row.task, row.site, row.dataset) == (
        "02", "2", "rest", "B", "Small",
    )  # fmt: skip
    assert (row.n_volumes, row.tr, json.loads(row["shape"])) == (N_VOLUMES, TR, list(SHAPE))
    assert json.loads(row.zooms) == [4, 4, 4]
    assert row.bold_sha256 == sha256_file(bids / row.bold)
    assert row.t1w == "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz"
    assert row.t1w_sha256 == sha256_file(bids / row.t1w)
    assert row.anat_id == "sub-02_ses-1"
    assert row.notes == f"T1w of another session: {row.t1w}"
    assert pd.isna(table.loc["sub-02_ses-1_task-rest"].notes)
    third = table.loc["sub-03_task-rest_run-1"]
    assert third.run == "1"
    assert pd.isna(third.t1w) and pd.isna(third.site)
    assert "no T1w" in third.notes


@pytest.mark.parametrize(("unit", "factor"), [("sec", 1), ("msec", 1e3), ("usec", 1e6)])
def test_the_headers_unit_of_time_is_heeded(tmp_path, unit, factor):
    image = nib.Nifti1Image(np.zeros((*SHAPE, 5), np.int16), AFFINE)
    image.header.set_xyzt_units("mm", unit)
    image.header["pixdim"][4] = 0.72 * factor
    nib.save(image, tmp_path / "x.nii.gz")
    assert scan_image(tmp_path / "x.nii.gz", full=True).header_tr == pytest.approx(0.72)


def test_labels_are_numbers_where_they_can_be(bids):
    table = table_of(bids)
    assert table["label_age"].dtype == "Float64"
    assert table["label_age"].isna().tolist() == [False, True, True, False]
    assert table["label_group"].tolist() == ["patient", "control", "control", "control"]
    assert "label_site" not in table.columns


def test_fast_mode_says_so_and_reads_no_voxels(bids):
    full, fast = table_of(bids), table_of(bids, full=False)
    changed = ["bold_sha256", "t1w_sha256"]
    pd.testing.assert_frame_equal(full.drop(columns=changed), fast.drop(columns=changed))
    assert fast["bold_sha256"].str.fullmatch(r"fast:\d+:\d+").all()


# --- faults ------------------------------------------------------------------------------


def _no_tr(bids):
    (bids / "task-rest_bold.json").unlink()


def _tr_far_off(bids):
    write_json(bids / f"{BOLD}.json", RepetitionTime=12)


def _tr_text(bids):
    write_json(bids / f"{BOLD}.json", RepetitionTime="two")


def _broken_json(bids):
    (bids / f"{BOLD}.json").write_text("{'RepetitionTime': 2}")


def _too_short(bids):
    write_bold(bids / f"{BOLD}.nii.gz", 9)


def _three_d(bids):
    write_bold(bids / f"{BOLD}.nii.gz", data=np.ones(SHAPE))


def _empty(bids):
    (bids / f"{BOLD}.nii.gz").write_bytes(b"")


def _absent(bids):
    (bids / f"{BOLD}.nii.gz").unlink()
    (bids / f"{BOLD}.nii.gz").symlink_to(".git/annex/objects/absent")


def _text(bids):
    (bids / f"{BOLD}.nii.gz").write_text("<html>404</html>" * 100)


def _truncated(bids):
    path = bids / f"{BOLD}.nii.gz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def _fewer_voxels(bids):
    path = bids / f"{BOLD}.nii.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[: -3 * 2 * 6 * 7 * 4]))


def _zero_affine(bids):
    raw = bytearray(gzip.decompress((bids / f"{BOLD}.nii.gz").read_bytes()))
    raw[280:328] = bytes(48)  # srow_x, srow_y, srow_z
    (bids / f"{BOLD}.nii.gz").write_bytes(gzip.compress(bytes(raw)))


def _far_away(bids):
    write_bold(bids / f"{BOLD}.nii.gz", affine=AFFINE + 300 * np.eye(4, k=3))


def _huge_voxels(bids):
    write_bold(bids / f"{BOLD}.nii.gz", affine=AFFINE @ np.diag([10, 10, 10, 1]))


def _left_is_right(bids):
    path = bids / f"{BOLD}.nii.gz"
    image = nib.load(path)
    image = nib.Nifti1Image(np.asarray(image.dataobj), None, image.header)
    image.header.set_qform(AFFINE, 1)
    image.header.set_sform(np.diag([-1, 1, 1, 1]) @ AFFINE, 1)
    nib.save(image, path)


def _two_files(bids):
    write_bold(bids / f"{BOLD}.nii")


def _two_participants(bids):
    with (bids / "participants.tsv").open("a") as handle:
        handle.write("sub-01\t77\tpatient\tA\n")


def _other_subjects_name(bids):
    (bids / f"{BOLD}.nii.gz").rename(bids / "sub-01/func/sub-09_task-rest_bold.nii.gz")


FAULTS = {
    _no_tr: "no RepetitionTime in the JSON sidecars .the NIfTI header says 2 s.",
    _tr_far_off: "RepetitionTime 12 s is not between 0.3 and 5 s",
    _tr_text: "RepetitionTime is 'two'",
    _broken_json: "sub-01_task-rest_bold.json is not valid JSON",
    _too_short: "too short: 9 volumes, at least 10",
    _three_d: "not a 4-D series: 6 x 7 x 4",
    _empty: "the file is empty",
    _absent: "the file is not there",
    _text: "this is not a NIfTI file",
    _truncated: "truncated or corrupt .* of 20 volumes can be read",
    _fewer_voxels: "shorter than its header says: 17 of 20",
    _zero_affine: "affine is singular",
    _far_away: "wrong affine: BOLD and T1w lie at different places .overlap 0%",
    _huge_voxels: "voxels of 40 x 40 x 40 mm are not believable",
    _left_is_right: "sform and qform disagree about which side is left",
    _two_files: "more than one file has this recording_id: .*_bold.nii and .*_bold.nii.gz",
    _two_participants: "different rows for sub-01",
}


@pytest.mark.parametrize("full", [True, False], ids=["full", "fast"])
@pytest.mark.parametrize("damage", FAULTS, ids=lambda damage: damage.__name__)
def test_each_fault_is_a_reason_and_harms_nobody_else(bids, damage, full):
    before = table_of(bids, full=full)
    damage(bids)
    after = table_of(bids, full=full)
    row = after.loc["sub-01_task-rest"]
    assert not row.eligible
    assert pd.Series([row.reason]).str.contains(FAULTS[damage]).all(), row.reason
    if damage is not _no_tr:
        columns = [c for c in before.columns if not c.startswith("label_")]
        pd.testing.assert_frame_equal(before.iloc[1:][columns], after.iloc[1:][columns])


def test_nan_volumes_are_counted(bids):
    data = np.random.default_rng(0).normal(size=(*SHAPE, N_VOLUMES))
    data[1, 2, 3, 4] = np.nan
    data[5, 6, 3, 19] = np.inf
    write_bold(bids / f"{BOLD}.nii.gz", data=data, dtype=np.float32)
    assert row_of(bids).reason == "2 of 20 volumes hold NaN or inf (first: volume 4)"


@given(
    volume=st.integers(0, 30),
    voxel=st.integers(0, 32 * 32 * 20 - 1),
    dtype=st.sampled_from(["<f4", ">f4", "<f8"]),
)
def test_a_nan_is_found_wherever_it_lies(tmp_path_factory, volume, voxel, dtype):
    """The file is read in pieces that no boundary of voxel or volume respects."""
    path = tmp_path_factory.getbasetemp() / "nan.nii"
    data = np.zeros((31, 32 * 32 * 20), dtype)
    data[volume, voxel] = np.nan
    header = nib.Nifti1Header(endianness="big" if dtype[0] == ">" else "little")
    header.set_data_dtype(dtype)
    header.set_data_shape((32, 32, 20, 31))
    header.set_sform(AFFINE, 1)
    header.set_data_offset(353)
    path.write_bytes(header.binaryblock.ljust(353, b"\0") + data.tobytes())
    assert scan_image(path, full=True).faults == [
        f"1 of 31 volumes hold NaN or inf (first: volume {volume})"
    ]


def test_a_flipped_bit_in_the_middle_is_found_by_the_full_mode(bids):
    path = bids / f"{BOLD}.nii.gz"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    path.write_bytes(bytes(raw))
    row = row_of(bids)
    assert "corrupt" in row.reason
    assert row.bold_sha256 == sha256_file(path)


def test_a_gzip_of_several_members_is_whole(bids):
    path = bids / f"{BOLD}.nii.gz"
    raw = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(raw[:1000]) + gzip.compress(raw[1000:]) + bytes(512))
    for full in (True, False):
        assert row_of(bids, full=full).eligible


def test_a_file_in_another_subjects_folder_is_refused(bids):
    _other_subjects_name(bids)
    assert "another subject" in row_of(bids, "sub-09_task-rest").reason


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("sub-01_task-rest_copy", "not made of BIDS entities"),
        ("sub-01_task-rest_echo-1", "one echo of several"),
        ("sub-01_task-rest_part-phase", "not a magnitude"),
        ("sub-01_task-rest_space-MNI", "a raw image has no entity space"),
    ],
)
def test_files_that_are_no_plain_bold_run(bids, name, fault):
    write_bold(bids / f"sub-01/func/{name}_bold.nii.gz")
    assert fault in row_of(bids, name).reason
    assert row_of(bids).eligible


# --- repairs and notes -------------------------------------------------------------------


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


# --- the command -------------------------------------------------------------------------


def run(bids: Path, study: Path, *settings: str, atlas: str | None = None) -> None:
    settings = settings or ("eligibility.min_volumes=10",)
    onboard(bids, study, HashMode.full, atlas, list(settings), 1)


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_study_is_complete_and_a_rerun_touches_nothing(bids, tmp_path, capsys):
    study = tmp_path / "study"
    run(bids, study)
    assert "4 recordings of 3 subjects; 4 eligible" in capsys.readouterr().out
    table = read_table(study / "onboarding/recordings.parquet")
    assert list(table.columns) == [*COLUMNS, "label_age", "label_group"]
    assert table.dtypes.astype(str).to_dict().items() >= COLUMNS.items()
    text = pd.read_csv(study / "onboarding/recordings.tsv", sep="\t", dtype=str)
    assert text["recording_id"].tolist() == table["recording_id"].tolist()
    recording = load_recording(
        study / "onboarding/recordings.parquet", "sub-02_ses-2_task-rest", bids
    )
    assert recording.bold_path.exists() and recording.t1w_path.exists()
    assert load_recording_of_anat(
        study / "onboarding/recordings.parquet", "sub-02_ses-1", bids
    ).id.startswith("sub-02")
    config = load_config(study / "config/config.yaml")
    assert config.eligibility.min_volumes == 10
    assert config.resolve_bids_dir(study) == bids.resolve()
    assert not config.bids_dir.is_absolute()
    for profile in ("local", "slurm"):
        assert (study / profile / "config.yaml").is_file()
    described = json.loads((study / "derivatives/brainlm/dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative"
    before = snapshot(study)
    assert str(tmp_path).encode() not in b"".join(content for content, _ in before.values())
    run(bids, study)
    assert snapshot(study) == before


def test_a_changed_dataset_changes_the_table_alone(bids, tmp_path):
    study = tmp_path / "study"
    run(bids, study)
    (study / "config/profiles/slurm/config.yaml").write_text("# mine\n")
    before = snapshot(study)
    write_bold(bids / f"{BOLD}.nii.gz", 12)
    run(bids, study)
    changed = {name for name, state in snapshot(study).items() if before[name] != state}
    assert changed == {"onboarding/recordings.parquet", "onboarding/recordings.tsv"}


def test_an_atlas_that_is_not_ready_is_told_before_the_first_run(
    bids, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("BRAINLM_CACHE", str(tmp_path / "empty"))
    run(bids, tmp_path / "study", atlas="A424")
    told = capsys.readouterr().err
    assert "brainlm atlas get A424" in told
    assert "atlas.space_ok: true" in told
    run(bids, tmp_path / "other", atlas="A424approx")
    assert "before the first run" not in capsys.readouterr().err


def test_a_new_study_takes_the_space_of_its_atlas_where_that_is_here(
    bids, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("brainlm.atlas.fetch.is_here", lambda name: True)
    for settings, template in [
        ((), "MNI152NLin6Asym"),
        (("space.template=MNI152NLin2009aSym",), "MNI152NLin2009aSym"),
        (("atlas.name=A424approx",), "MNI152NLin2009aSym"),
    ]:
        study = tmp_path / template / str(len(settings)) / "-".join(settings)[:5]
        for _ in range(2):  # the second time, the config is the user's
            run(bids, study, "eligibility.min_volumes=10", *settings)
        assert load_config(study / "config/config.yaml").space.template == template
        assert f"space: {template}" in capsys.readouterr().out
    monkeypatch.setattr("brainlm.atlas.fetch.is_here", lambda name: False)
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("BRAINLM_CACHE", str(tmp_path / "none"))
    run(bids, tmp_path / "asked", "eligibility.min_volumes=10", "space.template=MNI152NLin6Asym")
    assert "brainlm template get MNI152NLin6Asym" in capsys.readouterr().err


def test_an_existing_config_is_kept(bids, tmp_path):
    study = tmp_path / "study"
    run(bids, study, "seed=3", atlas="A424approx")
    path = study / "config/config.yaml"
    path.write_text(path.read_text() + "# mine\n")
    onboard(bids, study)
    assert path.read_text().endswith("# mine\n")
    run(bids, study, "seed=3")
    with pytest.raises(InputError, match="has a config already"):
        run(bids, study, "seed=4")
    with pytest.raises(InputError, match="motoin"):
        path.write_text("motoin: {}\n")
        run(bids, study, "seed=3")
    path.write_text("bids_dir: elsewhere\n")
    with pytest.raises(InputError, match="another BIDS dataset"):
        run(bids, study, "seed=3")


def test_what_the_user_gives_wrong_is_told_before_anything_is_written(bids, tmp_path):
    study = tmp_path / "study"
    for folder, settings, fault in [
        (tmp_path / "absent", (), "does not exist"),
        (tmp_path, (), "no folder called sub-"),
        (bids, ("motion.iteration=3",), "motion.iteration"),
        (bids, ("seed=one",), "seed"),
    ]:
        with pytest.raises(InputError, match=fault):
            run(folder, study, *settings)
        assert not study.exists()
    with pytest.raises(InputError, match="only ever read"):
        run(bids, bids)
    for image in bids.rglob("*_bold.nii*"):
        image.unlink()
    with pytest.raises(InputError, match="holds no BOLD run"):
        run(bids, study)


def test_a_study_without_eligible_runs_is_written_and_says_why(bids, tmp_path, capsys):
    onboard(bids, tmp_path / "study")  # all shorter than the 200 of the defaults
    printed = capsys.readouterr()
    assert "0 eligible" in printed.out
    assert "and 3 more: too short: 20 volumes, at least 200 are needed" in printed.out
    assert "no recording is eligible" in printed.err
    assert Config().eligibility.min_volumes == 200


def test_real_data_with_its_real_quirks(shared_data):
    source = shared_data / "real" / "studyforrest"
    if not source.is_dir():
        pytest.skip("no real fMRI here")
    row = table_of(source).iloc[0]
    assert row.eligible
    assert (row.n_volumes, row.tr) == (156, 1.79355)
    assert row.anat_id == "sub-01"
    assert "RepetitionTimeExcitation (2 s) is longer" in row.notes
