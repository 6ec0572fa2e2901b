"""Runs in the layout of UK Biobank's bulk field 20227."""

from __future__ import annotations

import pytest

from brainlm.bids.ready.ukb import find_runs
from brainlm.errors import InputError

FILES = {
    "series": "filtered_func_data_clean.nii.gz",
    "warp": "reg/example_func2standard_warp.nii.gz",
    "mask": "mask.nii.gz",
    "motion": "mc/prefiltered_func_data_mcf.par",
    "rms": "mc/prefiltered_func_data_mcf_rel.rms",
}


def put(root, folder, leave_out=(), content="x"):
    for role, name in FILES.items():
        path = root / folder / "fMRI" / "rfMRI.ica" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if role not in leave_out:
            path.write_text(content)


def test_an_unpacked_run(tmp_path):
    put(tmp_path, "1234567_20227_2_0")
    (run,) = find_runs(tmp_path)
    assert run.recording_id == "sub-1234567_ses-2_task-rest"
    assert (run.layout, run.kind, run.space, run.cleaned, run.tr) == (
        "ukb",
        "volume",
        None,
        True,
        None,
    )
    assert run.files == {
        role: f"1234567_20227_2_0/fMRI/rfMRI.ica/{name}" for role, name in FILES.items()
    }
    assert set(run.by) == {"motion", "distortion", "filter", "denoising"}
    assert run.faults == () and run.notes == ()


def test_folders_and_their_recordings(tmp_path):
    for folder in ("11_20227_3_0", "11_20227_2_0", "22", "33_2_0", "44_20227_2_1", "55_20249_2_0"):
        put(tmp_path, folder)
    (tmp_path / "66").mkdir()
    (tmp_path / "11_20227_2_0.zip").write_text("kept beside what came out of it")
    found = find_runs(tmp_path)
    assert [run.recording_id for run in found] == [
        "sub-11_ses-2_task-rest",
        "sub-11_ses-3_task-rest",
        "sub-22_task-rest",
        "sub-33_ses-2_task-rest",
        "sub-44_ses-2_task-rest_run-2",
    ]
    assert not any(run.faults for run in found)
    assert found[2].notes == ("the folder does not say at which visit the run was made",)


def test_a_packed_run_comes_with_the_command_that_unpacks_it(tmp_path):
    (tmp_path / "77_20227_2_0.zip").write_text("x")
    (tmp_path / "77_20252_2_0.zip").write_text("of a T1w")
    (run,) = find_runs(tmp_path)
    assert run.recording_id == "sub-77_ses-2_task-rest" and run.files == {}
    assert run.faults == (
        "77_20227_2_0.zip is not unpacked: `unzip -q 77_20227_2_0.zip -d 77_20227_2_0`",
    )


def test_what_is_missing_is_said(tmp_path):
    put(tmp_path, "1_20227_2_0", leave_out=("warp", "mask"))
    put(tmp_path, "2_20227_2_0", leave_out=("series", "motion"))
    (tmp_path / "3_20227_2_0" / "fMRI" / "unusable").mkdir(parents=True)
    put(tmp_path, "4_20227_2_0")
    put(tmp_path, "4_2_0")
    put(tmp_path, "5_20227_2_0", leave_out=("mask", "motion", "rms", "series"), content="")
    one, two, three, four, five = find_runs(tmp_path)
    ica = "fMRI/rfMRI.ica"
    assert one.faults == (
        f"the way to the standard space is missing: {ica}/reg/example_func2standard_warp.nii.gz",
    )
    assert one.notes == ("no mask file",)
    assert two.faults == (f"the cleaned run is missing: {ica}/filtered_func_data_clean.nii.gz",)
    assert three.faults == ("UK Biobank calls this run unusable (fMRI/unusable)",)
    assert four.faults == ("a second folder holds this run: 4_2_0",)
    assert "is empty (0 bytes)" in five.faults[1]
    for wrong in (tmp_path / "1_20227_2_0", tmp_path / "none"):
        with pytest.raises(InputError, match="No run in UK Biobank's layout"):
            find_runs(wrong)
