"""Which field map serves a run: every way of saying so, and a note wherever it is not said."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from brainlm.dag import Dag
from brainlm.errors import InputError
from brainlm.recordings import load_recording, read_rows

from .small_bids import AFFINE, BOLD, SHAPE, TR, row_of, write_bold, write_json

FMAP = "sub-01/fmap/sub-01"
OTHER = "sub-01/func/sub-01_task-rest_run-9_bold.nii.gz"


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    root = tmp_path / "bids"
    write_json(root / "dataset_description.json", Name="Small", BIDSVersion="1.10.0")
    write_json(root / "task-rest_bold.json", RepetitionTime=TR)
    write_bold(root / f"{BOLD}.nii.gz")
    say(root, PhaseEncodingDirection="j-", TotalReadoutTime=0.03)
    return root


def say(root: Path, **fields: object) -> None:
    write_json(root / f"{BOLD}.json", **fields)


def add(root: Path, name: str, shape: tuple[int, ...] = SHAPE, **about: object) -> str:
    """A file of fmap/ with its sidecar."""
    path = root / f"{FMAP}_{name}.nii.gz"
    path.parent.mkdir(exist_ok=True)
    values = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    nib.save(nib.Nifti1Image(values, AFFINE), path)
    write_json(root / f"{FMAP}_{name}.json", **about)
    return path.relative_to(root).as_posix()


def add_gre(root: Path, **about: object) -> list[str]:
    times = {"EchoTime1": 0.00492, "EchoTime2": 0.00738}
    return [add(root, "phasediff", **{**times, **about}), add(root, "magnitude1")]


def add_epis(root: Path, **about: object) -> list[str]:
    return [
        add(root, f"{name}_epi", PhaseEncodingDirection=side, TotalReadoutTime=0.04, **about)
        for name, side in (("dir-AP", "j-"), ("dir-PA", "j"))
    ]


@pytest.mark.parametrize(
    "intended",
    [
        "func/sub-01_task-rest_bold.nii.gz",
        [OTHER, "func/sub-01_task-rest_bold.nii.gz"],
        [f"bids::{BOLD}.nii.gz"],
        f"{BOLD}.nii.gz",
    ],
)
def test_a_field_map_intended_for_the_run(bids: Path, intended: object) -> None:
    files = add_gre(bids, IntendedFor=intended)
    row = row_of(bids)
    assert row.fmap_kind == "phasediff" and json.loads(row.fmap) == files
    assert json.loads(row.fmap_about)[0] == {"role": "phasediff", "EchoGap": 0.00246}
    assert len(json.loads(row.fmap_sha256)[0]) == 64
    assert pd.isna(row.notes) or "field map" not in row.notes
    assert (row.pe_direction, row.total_readout_time) == ("j-", 0.03)


def test_the_identifier_of_a_field_goes_before_intentions(bids: Path) -> None:
    add_gre(bids, IntendedFor="func/sub-01_task-rest_bold.nii.gz")
    files = add_epis(bids, B0FieldIdentifier=["other", "pair"])
    say(bids, PhaseEncodingDirection="j-", TotalReadoutTime=0.03, B0FieldSource="pair")
    row = row_of(bids)
    assert row.fmap_kind == "pepolar" and json.loads(row.fmap) == files
    about = json.loads(row.fmap_about)
    assert [(one["Direction"], one["TotalReadoutTime"]) for one in about] == [
        ("j-", 0.04),
        ("j", 0.04),
    ]


def test_the_only_field_map_serves_where_nothing_names_a_run(bids: Path) -> None:
    files = add_epis(bids)
    row = row_of(bids)
    assert json.loads(row.fmap) == files
    assert "only field map of the session" in row.notes
    add_gre(bids)  # now there are two
    row = row_of(bids)
    assert pd.isna(row.fmap_kind)
    assert "no field map names this run" in row.notes


def test_a_field_map_for_other_runs_is_not_taken(bids: Path) -> None:
    add_gre(bids, IntendedFor=[f"bids::{OTHER}"])
    row = row_of(bids)
    assert pd.isna(row.fmap_kind) and pd.isna(row.fmap)
    assert "no field map names this run" in row.notes
    assert row.eligible


def test_one_epi_will_do_if_it_is_opposite_to_the_run(bids: Path) -> None:
    add(bids, "dir-PA_epi", PhaseEncodingDirection="j", TotalReadoutTime=0.04)
    row = row_of(bids)
    assert row.fmap_kind == "pepolar" and len(json.loads(row.fmap)) == 1
    say(bids, PhaseEncodingDirection="j", TotalReadoutTime=0.03)
    row = row_of(bids)
    assert pd.isna(row.fmap_kind) and "no EPI in the direction j-" in row.notes


def test_two_phases_and_a_measured_field(bids: Path) -> None:
    add(bids, "magnitude")
    add(bids, "fieldmap", Units="rad/s")
    row = row_of(bids)
    assert row.fmap_kind == "fieldmap"
    assert json.loads(row.fmap_about)[0]["HzPerUnit"] == pytest.approx(1 / (2 * np.pi))
    for path in (bids / "sub-01/fmap").glob("*fieldmap*"):
        path.unlink()
    add(bids, "phase1", EchoTime=0.005)
    add(bids, "phase2", EchoTime=0.0075)
    row = row_of(bids)
    assert row.fmap_kind == "phases"
    assert json.loads(row.fmap_about)[1] == {"role": "phase2", "EchoGap": 0.0025}


def test_readout_time_from_the_echo_spacing_is_told(bids: Path) -> None:
    say(bids, PhaseEncodingDirection="j", EffectiveEchoSpacing=0.0005)
    row = row_of(bids)
    assert row.total_readout_time == pytest.approx(0.0005 * (SHAPE[1] - 1))
    assert "TotalReadoutTime from EffectiveEchoSpacing" in row.notes
    say(bids, PhaseEncodingDirection="j", EffectiveEchoSpacing=0.0005, ReconMatrixPE=64)
    assert row_of(bids).total_readout_time == pytest.approx(0.0315)


@pytest.mark.parametrize(
    ("run", "gre", "note"),
    [
        ({"TotalReadoutTime": 0.03}, {}, "the run has no PhaseEncodingDirection"),
        ({"PhaseEncodingDirection": "j"}, {}, "the run has no TotalReadoutTime"),
        ({"PhaseEncodingDirection": "AP", "TotalReadoutTime": 0.03}, {}, "'AP', not one of"),
        ({"PhaseEncodingDirection": "j", "TotalReadoutTime": 30.0}, {}, "30.0 s is not believable"),
        (None, {"EchoTime1": 4.92, "EchoTime2": 7.38}, "no believable EchoTime1"),
        (None, {"EchoTime1": 0.00738, "EchoTime2": 0.00492}, "no believable EchoTime1"),
        (None, {"EchoTime2": None}, "no believable EchoTime1"),
    ],
)
def test_missing_or_odd_metadata_end_as_a_note(
    bids: Path, run: dict | None, gre: dict, note: str
) -> None:
    add_gre(bids, **gre)
    if run is not None:
        say(bids, **run)
    row = row_of(bids)
    assert row.eligible
    assert pd.isna(row.fmap_kind) and pd.isna(row.fmap)
    assert note in row.notes and "no distortion correction" in row.notes


def test_broken_files_of_a_field_map_are_not_used(bids: Path) -> None:
    phase, magnitude = add_gre(bids)
    (bids / phase).write_bytes((bids / phase).read_bytes()[:60])
    row = row_of(bids)
    assert row.eligible and pd.isna(row.fmap_kind)
    assert phase in row.notes
    (bids / magnitude).unlink()
    assert "has no magnitude" in row_of(bids).notes
    for path in (bids / "sub-01/fmap").iterdir():
        path.unlink()
    add(bids, "dir-AP_epi", PhaseEncodingDirection="j-", TotalReadoutTime=0.04)
    add(bids, "dir-PA_epi", (9, 9, 9), PhaseEncodingDirection="j", TotalReadoutTime=0.04)
    assert "another grid" in row_of(bids).notes


# --- the workflow -------------------------------------------------------------------------------


def study_of(bids: Path) -> Path:
    table = row_of(bids)  # raises where the table is odd
    study = bids.parent / "study"
    (study / "onboarding").mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame([table]).reset_index(names="recording_id")
    frame.to_parquet(study / "onboarding/recordings.parquet")
    return study


def test_only_runs_that_are_corrected_ask_for_a_field(bids: Path) -> None:
    run = SimpleNamespace(recording="sub-01_task-rest")
    plain = Dag({}, study_of(bids))
    assert plain.field_of(run) == []
    assert [path.rpartition("_")[2] for path in plain.reference_of(run)] == [
        "boldref.nii.gz",
        "mask.nii.gz",
    ]
    assert "unwarped" not in "".join(plain.reference_of(run))
    strict = Dag({"distortion": {"method": "fieldmap"}}, study_of(bids))
    assert len(strict.field_of(run)) == 1  # its stage then says that there is none
    files = add_gre(bids)
    study = study_of(bids)
    mapped = Dag({"bids_dir": "../bids"}, study)
    assert len(mapped.field_of(run)) == 1
    assert all("unwarped" in path for path in mapped.reference_of(run))
    assert mapped.field_sources(run) == [f"../bids/{path}" for path in files]
    assert mapped.field_content(run) != plain.field_content(run)
    assert Dag({"distortion": {"method": "off"}}, study).field_of(run) == []
    recording = load_recording(study / "onboarding/recordings.parquet", run.recording, bids)
    assert recording.fmap == tuple(files)
    assert recording.correction("auto") == "fieldmap" and recording.correction("off") is None


def test_a_table_from_before_field_maps_is_refused_with_the_way_out(bids: Path) -> None:
    path = study_of(bids) / "onboarding/recordings.parquet"
    pd.read_parquet(path).drop(columns=["fmap_kind"]).to_parquet(path)
    for read in (lambda: read_rows(path), lambda: load_recording(path, "sub-01_task-rest", bids)):
        with pytest.raises(InputError, match="lacks the columns fmap_kind"):
            read()
