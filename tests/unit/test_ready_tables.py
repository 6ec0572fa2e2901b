"""Folders of ready parcel series, and the tables in them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

from brainlm.bids.ready.detect import detect_layout
from brainlm.bids.ready.tables import find_runs
from brainlm.errors import DataError, InputError
from brainlm.parcellate.ready import read_coverage, read_parcels

NAMES = [f"P{number}" for number in range(6)]
SERIES = np.random.default_rng(0).normal(100, 3, (9, 6))


# --- finding them ------------------------------------------------------------------------


def put(root, *names, content="1,2\n", tr=0.72):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        if tr:
            path.with_suffix(".json").write_text(json.dumps({"RepetitionTime": tr}))


def ids(runs):
    return [run.recording_id for run in runs]


def test_names_of_entities_and_plain_ones(tmp_path):
    put(
        tmp_path,
        "sub-01/ses-1/func/sub-01_ses-1_task-rest_run-2_space-X_seg-A424_stat-mean_timeseries.tsv",
        "sub-01/ses-1/func/sub-01_ses-1_task-rest_run-2_space-X_seg-A424_stat-coverage_bold.tsv",
        "sub-01/ses-1/func/sub-01_ses-1_task-rest_run-2_desc-confounds_timeseries.tsv",
        "sub-01/ses-1/func/sub-01_ses-1_task-rest_run-2_motion.tsv",
        "sub-02_timeseries.parquet",
        "sub-03_task-WM.npy",
        "100307.csv",
        "participants.tsv",
        "README.txt",
        ".hidden/sub-09_timeseries.tsv",
    )
    runs = {run.recording_id: run for run in find_runs(tmp_path)}
    assert list(runs) == [
        "sub-01_ses-1_task-rest_run-2",
        "sub-02_task-rest",
        "sub-03_task-WM",
        "sub-100307_task-rest",
    ]
    first = runs["sub-01_ses-1_task-rest_run-2"]
    assert set(first.files) == {"series", "coverage"}
    assert first.files["coverage"].endswith("_seg-A424_stat-coverage_bold.tsv")
    assert (first.layout, first.kind, first.cleaned, first.tr) == ("tables", "parcels", True, 0.72)
    assert first.notes == () and set(first.by.values()) == {"a pipeline that is not named"}
    assert runs["sub-02_task-rest"].notes == ("the task is not stated, rest is assumed",)
    assert not any(run.faults for run in runs.values())


def test_several_parcellations_of_a_run(tmp_path):
    stem = "sub-01_task-rest_seg"
    put(tmp_path, f"{stem}-A424_stat-mean_timeseries.tsv", f"{stem}-Tian_stat-mean_timeseries.tsv")
    (run,) = find_runs(tmp_path)
    assert "several tables are of this recording" in run.faults[0]
    assert "seg-A424" in run.files["series"]
    (run,) = find_runs(tmp_path, atlas="Tian")
    assert run.faults == () and "seg-Tian" in run.files["series"]


def test_the_files_of_the_authors_toolkit(tmp_path):
    """Text without names, time down, 0 where a parcel is empty; coordinates lie beside them."""
    series = SERIES.copy()
    series[:, 4] = 0
    for name in ("1234567_20227_2_0", "1234567_20227_3_0", "sub-01_task-rest_bold", "abc"):
        np.savetxt(tmp_path / f"{name}.dat", series, delimiter="\t")
    np.savetxt(tmp_path / "A424_Coordinates.dat", np.ones((6, 4)))
    assert detect_layout(tmp_path) == "tables"
    runs = {run.recording_id: run for run in find_runs(tmp_path, default_tr=0.735)}
    assert list(runs) == [
        "sub-01_task-rest",
        "sub-1234567_ses-2_task-rest",
        "sub-1234567_ses-3_task-rest",
        "sub-abc_task-rest",
    ]
    for run in runs.values():
        assert run.faults == () and run.tr == 0.735
        found = read_parcels(tmp_path / run.files["series"], NAMES)
        expected = np.where(series == 0, np.nan, series).astype(np.float32)
        np.testing.assert_array_equal(found.series, expected)
    (tmp_path / "1_20227_2_0.zip").write_text("")
    assert detect_layout(tmp_path) == "ukb"


def test_a_table_of_nobody_is_told(tmp_path):
    put(tmp_path, "100307_REST1.csv", "sub/100307_REST1.csv")
    (run,) = find_runs(tmp_path)
    assert "100307_REST1.csv: whose table this is cannot be told" in run.faults[0]
    (tmp_path / "empty").mkdir()
    for wrong, fault in ((tmp_path / "empty", "No table"), (tmp_path / "none", "does not exist")):
        with pytest.raises(InputError, match=fault):
            find_runs(wrong)


def test_the_index_says_who_is_who(tmp_path):
    put(tmp_path, "a/one.csv", "two.npy", "100307.csv", tr=None)
    (tmp_path / "two.npy").write_text("")
    (tmp_path / "dataset_description.json").write_text(
        json.dumps({"GeneratedBy": [{"Name": "XCP-D", "Version": "0.10"}]})
    )
    (tmp_path / "recordings.tsv").write_text(
        "file\tsubject\tsession\ttask\trun\ttr\n"
        "a/one.csv\tsub-7\t2\tn/a\t1\t0.735\n"
        "two.npy\t8\tn/a\tWM\tn/a\tfast\n"
        "three.npy\t9\tn/a\tWM\tn/a\t2\n"
    )
    seven, eight, nine = find_runs(tmp_path)
    assert (seven.recording_id, seven.tr) == ("sub-7_ses-2_task-rest_run-1", 0.735)
    assert seven.faults == () and seven.by["denoising"] == "XCP-D 0.10"
    assert eight.faults[:2] == ("its tr is 'fast', not a number", "two.npy is empty (0 bytes)")
    assert nine.faults == ("three.npy is not there",)
    for text, fault in (
        ("file\n", "lacks the columns subject"),
        ("file\tsubject\na.csv\tA_1\n", "line 2 of the index has a label"),
        ("file\tsubject\n../a.csv\t1\n", "names no file below"),
        ("file\tsubject\na.xlsx\t1\n", "a file that is no table"),
    ):
        (tmp_path / "recordings.tsv").write_text(text)
        with pytest.raises(InputError, match=fault):
            find_runs(tmp_path)


@pytest.mark.parametrize(
    ("content", "tr", "fault"),
    [
        ({"RepetitionTime": 2}, 2.0, None),
        ({"SamplingFrequency": 0.5}, 2.0, None),
        ({"RepetitionTime": 2, "SamplingFrequency": 0.5}, 2.0, None),
        ({"RepetitionTime": 2, "SamplingFrequency": 2}, None, "contradicts itself"),
        ({"SamplingFrequency": "TR"}, None, "no TR: put RepetitionTime into 1.json"),
        ({"RepetitionTime": 720}, None, "720 s is not believable"),
        ([], None, "not a JSON object"),
        (None, None, "no TR"),
    ],
)
def test_the_repetition_time(tmp_path, content, tr, fault):
    put(tmp_path, "1.csv", tr=None)
    if content is not None:
        (tmp_path / "1.json").write_text(json.dumps(content))
    (run,) = find_runs(tmp_path)
    assert run.tr == tr
    assert run.faults == () if fault is None else fault in run.faults[0]
    if fault and fault.startswith("no TR"):
        (run,) = find_runs(tmp_path, default_tr=0.735)
        assert run.tr == 0.735 and run.faults == ()
        assert "no TR is stated, 0.735 s is assumed" in run.notes


# --- reading them ------------------------------------------------------------------------


def write(path, values, names=None):
    """The same numbers in any of the formats."""
    if path.suffix == ".parquet":
        pd.DataFrame(values, columns=names or [str(i) for i in range(values.shape[1])]).to_parquet(
            path
        )
    elif path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".mat":
        savemat(path, {"ROI": values, "TR": 0.72})
    else:
        mark = {".tsv": "\t", ".csv": ",", ".txt": " ", ".dat": "\t"}[path.suffix]
        head = f"{mark.join(names)}\n" if names else ""
        rows = "\n".join(mark.join(f"{v!r}" for v in row.tolist()) for row in values)
        path.write_text(head + rows + "\n")
    return path


@pytest.mark.parametrize("extension", ["parquet", "tsv", "csv", "txt", "dat", "npy", "mat"])
def test_every_format_gives_the_same_numbers(tmp_path, extension):
    found = read_parcels(write(tmp_path / f"a.{extension}", SERIES), NAMES)
    assert found.series.dtype == np.float32 and found.covered.all()
    np.testing.assert_array_equal(found.series, SERIES.astype(np.float32))
    assert found.notes == (
        "the table does not name its parcels: they are taken in the atlas's order",
    )
    turned = read_parcels(write(tmp_path / f"b.{extension}", SERIES.T), NAMES)
    np.testing.assert_array_equal(turned.series, found.series)
    assert turned.notes[-1] == "the table holds a row per parcel and was transposed"


@pytest.mark.parametrize("extension", ["parquet", "tsv", "csv", "txt"])
def test_names_decide_the_order(tmp_path, extension):
    order = [3, 0, 5, 1, 4, 2]
    path = write(tmp_path / f"a.{extension}", SERIES[:, order], [NAMES[i] for i in order])
    found = read_parcels(path, NAMES)
    np.testing.assert_array_equal(found.series, SERIES.astype(np.float32))
    assert found.notes == ("the columns were brought into the atlas's order by their names",)
    square = write(tmp_path / f"b.{extension}", SERIES[:6], NAMES)  # names tell the axes apart
    assert read_parcels(square, NAMES).notes == ()


def test_names_in_the_rows_turn_the_table(tmp_path):
    rows = [f"{name},{','.join(map(repr, SERIES[:6, i].tolist()))}" for i, name in enumerate(NAMES)]
    for head in ("", "parcel,0,1,2,3,4,5\n", "parcel,a,b,c,d,e,f\n"):
        (tmp_path / "a.csv").write_text(head + "\n".join(reversed(rows)))
        found = read_parcels(tmp_path / "a.csv", NAMES)
        np.testing.assert_array_equal(found.series, SERIES[:6].astype(np.float32))
        assert len(found.notes) == 2


def test_what_pandas_adds_is_left_out(tmp_path):
    """A header of numbers would be taken for the first volume, a column of numbers for a parcel."""
    frame = pd.DataFrame(SERIES)
    cases = {
        "header.csv": lambda path: frame.to_csv(path, index=False),
        "both.csv": lambda path: frame.to_csv(path),
        "names.csv": lambda path: frame.set_axis(NAMES, axis=1).to_csv(path),
        "named.csv": lambda path: frame.to_csv(path, index_label="volume"),
        "turned.csv": lambda path: frame.T.to_csv(path),
        "index.parquet": lambda path: (
            frame.set_axis(NAMES, axis=1).set_index(np.arange(9) ** 2).to_parquet(path)
        ),
    }
    for name, make in cases.items():
        make(tmp_path / name)
        found = read_parcels(tmp_path / name, NAMES)
        np.testing.assert_allclose(found.series, SERIES, rtol=1e-7, err_msg=name)


def test_columns_numbered_out_of_order_are_refused(tmp_path):
    frame = pd.DataFrame(SERIES, columns=[str(n) for n in (1, 0, 2, 3, 4, 5)])
    frame.to_csv(tmp_path / "plain.csv", index=False)
    frame.to_csv(tmp_path / "beside.csv")
    frame.to_csv(tmp_path / "named.csv", index_label="volume")
    frame.to_parquet(tmp_path / "a.parquet")
    frame.set_axis(list("246789"), axis=1).to_parquet(tmp_path / "labels.parquet")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(DataError, match=r"columns are (numbered, but not|called by numbers)"):
            read_parcels(path, NAMES)


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        ([*NAMES[:5], "X"], r"lacks 1 parcels of the atlas \(first: P5\) and has 1 others"),
        (NAMES[:5], "lacks 1 parcels"),
        ([*NAMES, "X"], "has 1 others"),
        ([*NAMES[:5], "P0"], "names 'P0' more than once"),
        (["a", "b", "c", "d", "e", "f"], "lacks 6 parcels"),
    ],
)
def test_other_names_are_never_taken_by_position(tmp_path, names, fault):
    values = np.random.default_rng(1).normal(size=(9, len(names)))
    path = write(tmp_path / "a.tsv", values, names)
    with pytest.raises(DataError, match=fault) as caught:
        read_parcels(path, NAMES)
    assert caught.value.file == str(path)


def test_parcels_without_data_become_nan_and_are_counted(tmp_path):
    values = SERIES.copy()
    values[:, 1], values[:, 2], values[:, 4] = np.nan, 0, 7
    found = read_parcels(write(tmp_path / "a.npy", values), NAMES)
    assert found.covered.tolist() == [True, False, False, True, False, True]
    assert np.isnan(found.series[:, [1, 2, 4]]).all()
    assert [note for note in found.notes if "throughout" in note] == [
        "NaN throughout, so not covered: 1 of the parcels, P1",
        "zero throughout, so not covered: 1 of the parcels, P2",
        "constant throughout, so not covered: 1 of the parcels, P4",
    ]
    (tmp_path / "a.tsv").write_text(
        "\t".join(NAMES) + "\n" + "\n".join(f"{i}\tn/a\t1.5\t{i}\t{i}\t{i}" for i in range(9))
    )
    assert (
        read_parcels(tmp_path / "a.tsv", NAMES).covered.tolist()
        == [True, False, False] + [True] * 3
    )


def spoilt(**cells):
    values = SERIES.copy()
    for place, value in cells.items():
        values[int(place[1]), int(place[3])] = value
    return values


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        (spoilt(t3p2=np.inf), "P2 is infinite in volume 3"),
        (spoilt(t3p2=1e300), "P2 is infinite in volume 3"),
        (
            spoilt(t3p2=np.nan),
            r"NaN at some times only, in 1 of the parcels \(first: P2, volume 3\)",
        ),
        (SERIES[:4], "holds 4 volumes, at least 5"),
        (SERIES[:, :5], "9 x 5, the atlas has 6 parcels"),
        (np.corrcoef(SERIES.T), "6 x 6: which axis is time cannot be told"),
        (SERIES * 0, "No parcel of the table has any signal"),
        (SERIES + 1j, "of type complex128"),
        (SERIES[:, 0], "A table has rows and columns, this is 9"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path, values, fault):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(DataError, match=fault) as caught:
        read_parcels(tmp_path / "a.npy", NAMES)
    assert caught.value.file == str(tmp_path / "a.npy")


def test_files_that_are_no_tables(tmp_path):
    objects = np.empty((9, 6), dtype=object)
    np.save(tmp_path / "o.npy", objects, allow_pickle=True)
    (tmp_path / "v73.mat").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    (tmp_path / "late.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(400))
    savemat(tmp_path / "two.mat", {"a": SERIES, "b": SERIES})
    for packed in (True, False):
        whole = tmp_path / f"cut{packed}.mat"
        savemat(whole, {"a": SERIES}, do_compression=packed)
        whole.write_bytes(whole.read_bytes()[:200])
    (tmp_path / "a.h5").write_bytes(b"x")
    (tmp_path / "a.npy").write_bytes(b"not an array")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 but not really")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "head.csv").write_text(",".join(NAMES) + "\n")
    (tmp_path / "uneven.csv").write_text("1,2,3\n1,2\n")
    (tmp_path / "word.csv").write_text("1,2,3\n1,two,3\n")
    for name, fault in {
        "o.npy": "cannot be read.*allow_pickle",
        "v73.mat": "HDF5",
        "late.mat": "HDF5",
        "two.mat": "holds 2: a, b",
        "cutTrue.mat": "cannot be read",
        "cutFalse.mat": "cannot be read",
        "a.h5": "Tables end in",
        "a.npy": "cannot be read",
        "a.parquet": "cannot be read",
        "empty.csv": "is empty",
        "head.csv": "nothing below its first line",
        "uneven.csv": "line 2 has not 3 columns",
        "word.csv": "'two' in column 2 is not a number",
        "none.csv": "does not exist",
    }.items():
        with pytest.raises(DataError, match=fault) as caught:
            read_parcels(tmp_path / name, NAMES)
        assert caught.value.file == str(tmp_path / name)


def test_coverage_by_name_from_xcpd_and_from_us(tmp_path):
    share = [1.0, 0.5, 0.0, 0.25, 1.0, 0.75]
    order = [5, 3, 1, 0, 2, 4]
    for key in ("Node", "name"):
        table = pd.DataFrame({key: NAMES, "n_voxels": 4, "coverage": share}).iloc[order]
        table.loc[2, "coverage"] = np.nan  # no voxel at all
        table.to_csv(tmp_path / "c.tsv", sep="\t", index=False, na_rep="n/a")
        np.testing.assert_array_equal(read_coverage(tmp_path / "c.tsv", NAMES), share)
    for text, fault in (
        ("Node\tshare\nP0\t1\n", "has the columns Node and coverage"),
        ("Node\tcoverage\nP0\t1\n", "lacks 5 parcels"),
        ("Node\tcoverage\n" + "".join(f"{n}\t7\n" for n in NAMES), "between 0 and 1"),
        ("", "not a table"),
    ):
        (tmp_path / "c.tsv").write_text(text)
        with pytest.raises(DataError, match=fault):
            read_coverage(tmp_path / "c.tsv", NAMES)
    with pytest.raises(DataError, match="does not exist"):
        read_coverage(tmp_path / "none.tsv", NAMES)


def test_a_study_among_the_tables_is_not_read(tmp_path):
    """Onboarding the folder in which one works, twice."""
    np.save(tmp_path / "01.npy", np.ones((8, 3)))
    inside = tmp_path / "study" / "derivatives" / "brainlm" / "sub-01" / "func"
    inside.mkdir(parents=True)
    (inside / "sub-01_task-rest_atlas-A424_stat-mean_timeseries.parquet").write_bytes(b"x")
    (tmp_path / "study" / "onboarding").mkdir()
    (tmp_path / "study" / "onboarding" / "recordings.parquet").write_bytes(b"x")
    (run,) = find_runs(tmp_path, default_tr=1.0)
    assert run.files["series"] == "01.npy" and not run.faults
