"""Onboarding: every known fault of a recording ends as a reason."""

from __future__ import annotations

import gzip
import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainlm.bids.scan import scan_image
from brainlm.provenance import sha256_file

from .small_bids import (
    AFFINE,
    BOLD,
    N_VOLUMES,
    SHAPE,
    TR,
    make_bids,
    row_of,
    table_of,
    write_bold,
    write_json,
)


@pytest.fixture
def bids(tmp_path):
    return make_bids(tmp_path / "bids")


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
    assert fast["bold_sha256"].str.fullmatch(r"fast:\d+:\d+:[0-9a-f]{64}").all()


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
    flat=st.integers(0, 30),
    voxel=st.integers(0, 32 * 32 * 20 - 1),
    dtype=st.sampled_from(["<f4", ">f4", "<f8"]),
)
def test_what_one_volume_holds_is_found_wherever_it_lies(
    tmp_path_factory, volume, flat, voxel, dtype
):
    """The file is read in pieces that no boundary of voxel or volume respects."""
    path = tmp_path_factory.getbasetemp() / "nan.nii"
    data = np.tile(np.arange(32 * 32 * 20) % 7, (31, 1)).astype(dtype)
    data[flat] = 3
    data[volume, voxel] = np.nan
    header = nib.Nifti1Header(endianness="big" if dtype[0] == ">" else "little")
    header.set_data_dtype(dtype)
    header.set_data_shape((32, 32, 20, 31))
    header.set_sform(AFFINE, 1)
    header.set_data_offset(353)
    path.write_bytes(header.binaryblock.ljust(353, b"\0") + data.tobytes())
    faults = [f"1 of 31 volumes hold NaN or inf (first: volume {volume})"]
    if flat != volume:
        faults.append(f"1 of 31 volumes hold one value only (first: volume {flat})")
    assert scan_image(path, full=True).faults == faults


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
