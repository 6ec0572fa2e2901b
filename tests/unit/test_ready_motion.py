"""Motion parameters of FSL, HCP, fMRIPrep and XCP-D as one table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from brainlm.bids.ready.motion import read_motion
from brainlm.errors import DataError

#: Two volumes; FD by hand: 0.1 + 0.2 + 0.3 + 50 * (0.01 + 0 + 0.02) = 2.1 mm.
MM = np.array([[0.0, 0, 0], [0.1, -0.2, 0.3]])
RAD = np.array([[0.0, 0, 0], [0.01, 0, -0.02]])
NAMES = ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]


def text(path, values):
    np.savetxt(path, values, fmt="%.8f")
    return path


@pytest.fixture
def files(tmp_path):
    derivatives = np.full((2, 6), 9.0)
    named = pd.DataFrame(np.hstack([MM, RAD]), columns=NAMES).iloc[:, ::-1]
    named["framewise_displacement"] = ["n/a", "7.0"]  # of another radius, or filtered
    named["trans_x_filtered"] = 5.0
    named["rmsd"] = ["n/a", "0.4"]
    named["non_steady_state_outlier00"] = [1, 0]
    named["csf"] = 100.0
    named.to_csv(tmp_path / "sub-1_desc-confounds_timeseries.tsv", sep="\t", index=False)
    return {
        "fsl": text(tmp_path / "prefiltered_func_data_mcf.par", np.hstack([RAD, MM])),
        "hcp": text(
            tmp_path / "Movement_Regressors.txt", np.hstack([MM, np.rad2deg(RAD), derivatives])
        ),
        "named": tmp_path / "sub-1_desc-confounds_timeseries.tsv",
    }


@pytest.mark.parametrize("form", ["fsl", "hcp", "named"])
def test_all_three_forms_give_the_same_table(files, form):
    table = read_motion(files[form], 2)
    assert list(table.columns[:8]) == [*NAMES, "framewise_displacement", "rmsd"]
    np.testing.assert_allclose(table[NAMES], np.hstack([MM, RAD]), atol=1e-8)
    assert np.isnan(table["framewise_displacement"][0])
    assert table["framewise_displacement"][1] == pytest.approx(2.1, abs=1e-6)
    wider = read_motion(files[form], 2, radius_mm=80.0)["framewise_displacement"][1]
    assert wider == pytest.approx(3.0, abs=1e-6)


def test_rmsd_and_unsteady_volumes_are_kept_where_they_are_known(files, tmp_path):
    assert read_motion(files["fsl"], 2)["rmsd"].isna().all()
    named = read_motion(files["named"], 2)
    assert list(named.columns[8:]) == ["non_steady_state_outlier00"]
    assert named["non_steady_state_outlier00"].tolist() == [1, 0]
    np.testing.assert_allclose(named["rmsd"], [np.nan, 0.4])
    for rows in ([0.25], [0.0, 0.25]):  # MCFLIRT's own file, and that of the HCP
        rms = text(tmp_path / "rms.txt", rows)
        np.testing.assert_allclose(read_motion(files["hcp"], 2, rms=rms)["rmsd"], [np.nan, 0.25])
    for rows, fault in (([0.1] * 3, "3 displacements"), ([-0.1], "0 or more")):
        rms = text(tmp_path / "rms.txt", rows)
        with pytest.raises(DataError, match=fault) as caught:
            read_motion(files["fsl"], 2, rms=rms)
        assert caught.value.file == str(rms)


@pytest.mark.parametrize(
    ("name", "values", "fault"),
    [
        ("a.par", np.zeros((2, 7)), "7 columns where there should be 6"),
        ("a.par", np.zeros((0, 6)), "no columns"),
        ("Movement_Regressors.txt", np.zeros((2, 6)), "6 columns where there should be 12"),
        ("a.par", np.zeros((3, 6)), "3 rows, the series 2 volumes"),
        ("a.par", [[0] * 6, [np.nan] * 6], "volume 1 are not all numbers"),
        ("a.par", [[0] * 6, [2, 0, 0, 0, 0, 0]], "turn by 2 rad"),
        ("Movement_Regressors_dt.txt", np.zeros((2, 12)), "cannot be told"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path, name, values, fault):
    path = text(tmp_path / name, values)
    with pytest.raises(DataError, match=fault) as caught:
        read_motion(path, 2)
    assert caught.value.file == str(path)


def test_other_faults_of_files(tmp_path):
    (tmp_path / "a.par").write_text("0 0 0 0 0 0\n0 0 0 0 0\n")
    with pytest.raises(DataError, match="5 and 6 columns"):
        read_motion(tmp_path / "a.par", 2)
    (tmp_path / "a.par").write_text("0 0 0 0 0 x\n0 0 0 0 0 0\n")
    with pytest.raises(DataError, match="numbers only"):
        read_motion(tmp_path / "a.par", 2)
    (tmp_path / "m.tsv").write_text("trans_x\trot_x\n0\t0\n")
    with pytest.raises(DataError, match="lacks the columns trans_y, trans_z, rot_y, rot_z"):
        read_motion(tmp_path / "m.tsv", 1)
    header = "\t".join(NAMES)
    (tmp_path / "m.tsv").write_text(f"{header}\n0\t0\t0\t0\t0\tsome\n")
    with pytest.raises(DataError, match="rot_z does not hold numbers"):
        read_motion(tmp_path / "m.tsv", 1)
    (tmp_path / "m.tsv").write_text(f"{header}\n0\t0\t0\t0\t0\tn/a\n")
    with pytest.raises(DataError, match="volume 0 are not all numbers"):
        read_motion(tmp_path / "m.tsv", 1)
    (tmp_path / "m.tsv").write_text("")
    with pytest.raises(DataError, match="not a table"):
        read_motion(tmp_path / "m.tsv", 1)
    for name in ("none.par", "none.tsv"):
        with pytest.raises(DataError, match="not there"):
            read_motion(tmp_path / name, 1)
    (tmp_path / "b.par").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a text file"):
        read_motion(tmp_path / "b.par", 1)
