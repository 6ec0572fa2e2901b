"""Runs in the layout of the Human Connectome Project."""

from __future__ import annotations

import pytest

from brainlm.bids.ready.hcp import find_runs
from brainlm.errors import InputError
from brainlm.layout import entities_of

RUN = "rfMRI_REST1_LR"


def put(root, subject, run, *names, content="x"):
    folder = root / subject / "MNINonLinear" / "Results" / run
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(content)
    return folder


COMMON = ("brainmask_fs.2.nii.gz", "Movement_Regressors.txt", "Movement_RelativeRMS.txt")


def test_a_cleaned_run_with_all_its_files(tmp_path):
    put(tmp_path, "100307", RUN, f"{RUN}.nii.gz", f"{RUN}_hp2000_clean.nii.gz", *COMMON)
    (run,) = find_runs(tmp_path)
    assert run.recording_id == "sub-100307_task-REST1_dir-LR"
    assert (run.layout, run.kind, run.space, run.cleaned) == (
        "hcp",
        "volume",
        "MNI152NLin6Asym",
        True,
    )
    folder = f"100307/MNINonLinear/Results/{RUN}"
    assert run.files == {
        "series": f"{folder}/{RUN}_hp2000_clean.nii.gz",
        "mask": f"{folder}/brainmask_fs.2.nii.gz",
        "motion": f"{folder}/Movement_Regressors.txt",
        "rms": f"{folder}/Movement_RelativeRMS.txt",
    }
    assert run.by["denoising"] == "FSL FIX (high-pass 2000 s)"
    assert set(run.by) == {"motion", "distortion", "normalisation", "denoising"}
    assert run.faults == () and run.tr is None
    assert run.notes == (f"{RUN}_hp2000_clean.nii.gz is used; also there: {RUN}.nii.gz",)


@pytest.mark.parametrize(
    ("names", "used", "cleaned"),
    [
        (["", "_hp2000_clean"], "_hp2000_clean", "FSL FIX (high-pass 2000 s)"),
        (
            ["", "_hp0_clean_rclean_tclean"],
            "_hp0_clean_rclean_tclean",
            "FSL FIX (linear detrending, components judged anew, temporal ICA)",
        ),
        (["_hp0_clean_rclean_tclean", "_hp2000_clean"], "_hp2000_clean", "FSL FIX"),
        (["", "_hp2000_clean_vn", "_hp2000", "_SBRef", "_Jacobian"], "", None),
    ],
)
def test_which_series_is_taken(tmp_path, names, used, cleaned):
    put(tmp_path, "1", RUN, *(f"{RUN}{name}.nii.gz" for name in names), *COMMON)
    (run,) = find_runs(tmp_path)
    assert run.files["series"].endswith(f"/{RUN}{used}.nii.gz")
    assert run.cleaned is (cleaned is not None)
    assert run.by.get("denoising", "").startswith(cleaned or "")
    assert any("minimally preprocessed only" in note for note in run.notes) is (cleaned is None)


@pytest.mark.parametrize(
    ("names", "used"),
    [
        (["_Atlas_MSMAll_hp2000_clean", "_Atlas_hp2000_clean"], "_Atlas_MSMAll_hp2000_clean"),
        (["_Atlas", "_Atlas_hp2000_clean", "_Atlas_MSMAll"], "_Atlas_hp2000_clean"),
        (["_Atlas_1.6mm_MSMAll_hp2000_clean", "", "_Atlas"], "_Atlas"),
        (["_Atlas_MSMAll_hp0_clean_rclean_tclean"], "_Atlas_MSMAll_hp0_clean_rclean_tclean"),
    ],
)
def test_dense_series(tmp_path, names, used):
    series = [f"{RUN}{name}.dtseries.nii" for name in names]
    put(tmp_path, "1", RUN, *series, f"{RUN}_hp2000_clean.nii.gz", *COMMON)
    (run,) = find_runs(tmp_path, "dense")
    assert run.files["series"].endswith(f"/{RUN}{used}.dtseries.nii")
    assert (run.kind, run.space) == ("dense", "fsLR")
    assert "mask" not in run.files and "motion" in run.files
    assert run.cleaned is used.endswith("clean")


def test_names_of_runs(tmp_path):
    for run in ("tfMRI_WM_RL", "rfMRI_REST2_7T_AP", "tfMRI_WM", "rfMRI_REST", "other"):
        put(tmp_path, "100610", run, f"{run}_hp2000_clean.nii.gz", *COMMON)
    put(tmp_path, "HCA600_V1_MR", RUN, f"{RUN}.nii.gz", *COMMON)
    (tmp_path / "notes.txt").write_text("x")
    found = {run.recording_id: run for run in find_runs(tmp_path)}
    assert list(found) == [
        "sub-100610_task-REST2_acq-7T_dir-AP",
        "sub-100610_task-WM_dir-RL",
        "sub-HCA600V1MR_task-REST1_dir-LR",
    ]
    assert entities_of("sub-100610_task-REST2_acq-7T_dir-AP")["task"] == "REST2"
    assert "HCA600_V1_MR is taken" in found["sub-HCA600V1MR_task-REST1_dir-LR"].notes[0]


def test_what_is_missing_is_said(tmp_path):
    put(tmp_path, "1", RUN, f"{RUN}_Atlas.dtseries.nii")
    put(tmp_path, "2", RUN, f"{RUN}_hp2000_clean.nii.gz", content="")
    one, two = find_runs(tmp_path)
    assert one.faults == (f"no volume series in {RUN}, neither cleaned nor minimally processed",)
    assert two.faults == (f"{RUN}_hp2000_clean.nii.gz is empty (0 bytes)",)
    assert two.notes == ("no brain mask", "no motion parameters")
    for wrong in (tmp_path / "1", tmp_path / "none"):
        with pytest.raises(InputError, match="No run in HCP's layout"):
            find_runs(wrong)
