"""What lies in a folder, and the engine and layout that a new study gets for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainlm.bids.layouts import DERIVED, check_layout, settle_layout
from brainlm.bids.ready.detect import LAYOUTS, look_at
from brainlm.cli._source import LayoutName
from brainlm.config import parse_config
from brainlm.errors import InputError

#: One file of each layout, as its pipeline names it.
FILES = {
    "bids": "sub-01/func/sub-01_task-rest_bold.nii.gz",
    "fmriprep": "sub-01/ses-1/func/sub-01_ses-1_task-rest_space-T1w_desc-preproc_bold.nii.gz",
    "xcpd": "sub-01/func/sub-01_task-rest_space-MNI152NLin6Asym_desc-denoised_bold.nii.gz",
    "hcp": "100307/MNINonLinear/Results/rfMRI_REST1_LR/rfMRI_REST1_LR_hp2000_clean.nii.gz",
    "ukb": "1234567_20227_2_0/fMRI/rfMRI.ica/filtered_func_data_clean.nii.gz",
    "timeseries": "sub-01_task-rest_timeseries.csv",
}


def folder_of(tmp_path: Path, name: str) -> Path:
    path = tmp_path / name / FILES[name]
    path.parent.mkdir(parents=True)
    path.write_text("x")
    return tmp_path / name


@pytest.mark.parametrize("name", FILES)
def test_a_layout_is_seen_and_gives_its_engine(tmp_path, name):
    root = folder_of(tmp_path, name)
    found, line = settle_layout(root, None, {})
    assert line.startswith(f"{name} (")
    asked, said = settle_layout(root, name, {})
    assert asked == found and said == f"{name}, as asked for"
    config = parse_config(found, source="test")
    if name == "bids":
        assert found == {}
        return
    assert (config.engine, config.derivatives.layout) == ("derivatives", DERIVED[name])


def test_every_layout_that_can_be_read_can_be_asked_for():
    assert set(DERIVED.values()) == set(LAYOUTS)
    assert {name.value for name in LayoutName} == {"bids", *DERIVED} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_layout_is_refused_with_the_right_one(tmp_path, name):
    root = folder_of(tmp_path, name)
    for other in FILES:
        if other == name:
            continue
        with pytest.raises(InputError, match=f"not of layout {other}.* looks like {name}") as told:
            settle_layout(root, other, {})
        assert told.value.fix.startswith(f"--layout {name}")


def test_where_nothing_is_known_the_user_decides(tmp_path):
    assert settle_layout(tmp_path, None, {}) == ({}, "")
    found, _ = settle_layout(tmp_path, "hcp", {})
    assert found == {"engine": "derivatives", "derivatives": {"layout": "hcp"}}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("bids", {"engine": "derivatives"}),
        ("hcp", {"engine": "native"}),
        ("ukb", {"engine": "fmriprep"}),
        ("hcp", {"derivatives": {"layout": "ukb"}}),
        ("bids", {"derivatives": {"layout": "hcp"}}),
    ],
)
def test_layout_and_options_must_not_contradict(tmp_path, name, changes):
    with pytest.raises(InputError, match="contradict each other"):
        settle_layout(folder_of(tmp_path, name), name, changes)


def test_what_the_user_has_set_is_never_overruled(tmp_path):
    root = folder_of(tmp_path, "xcpd")
    found, line = settle_layout(root, None, {"derivatives": {"layout": "fmriprep"}})
    assert found == {} and "looks like xcpd" in line
    assert settle_layout(root, None, {"engine": "derivatives"})[0] == {}


def test_a_description_goes_before_names(tmp_path):
    root = folder_of(tmp_path, "bids")
    (root / "dataset_description.json").write_text(
        '{"Name": "x", "GeneratedBy": [{"Name": "XCP-D", "Version": "0.10"}]}'
    )
    seen = look_at(root)
    assert (seen.layout, seen.sign) == ("xcpd", "dataset_description.json names XCP-D 0.10")


def test_tables_beside_raw_runs_do_not_make_them_tables(tmp_path):
    root = folder_of(tmp_path, "bids")
    (root / "scores.csv").write_text("a,b\n")
    assert look_at(root).layout == "bids"


def test_an_existing_study_keeps_its_layout(tmp_path):
    root = folder_of(tmp_path, "hcp")
    for content in ({"layout": "hcp"}, {"layout": "auto"}):
        config = parse_config({"engine": "derivatives", "derivatives": content}, source="test")
        check_layout(root, "hcp", config)
        with pytest.raises(InputError, match="reads layout hcp, not ukb"):
            check_layout(root, "ukb", config)
    with pytest.raises(InputError, match="reads layout bids, not hcp"):
        check_layout(root, "hcp", parse_config({}, source="test"))
