"""The user's list of recordings to leave out of the cohort."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from brainlm.cli.cohort import cohort
from brainlm.config import to_commented_yaml
from brainlm.dag import Dag
from brainlm.errors import DataError, InputError
from brainlm.report.outcome import outcomes
from brainlm.shards.exclude_list import BY_HAND, read_exclude_list
from brainlm.shards.selection import Finished, Quality, check_enough_is_left, select

from .report_study import FinishedStudy
from .synthetic_cohort import series_path, write_study

QUALITY = Quality(min_volumes=200, max_mean_fd_mm=0.5, min_parcels=0.8, max_excluded=0.5)


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_list_as_a_spreadsheet_saves_it(tmp_path):
    path = written(
        tmp_path / "l.tsv", "﻿recording_id\treason\r\na\t spikes,  all over \r\n\r\nb\t\r\n"
    )
    assert read_exclude_list(path, {"a", "b", "c"}) == {
        "a": "spikes, all over",
        "b": "no reason given",
    }
    assert read_exclude_list(tmp_path / "none.tsv", {"a"}) == {}
    assert read_exclude_list(written(path, "recording_id\treason\n"), {"a"}) == {}


def test_an_open_quotation_mark_swallows_nobody(tmp_path):
    path = written(tmp_path / "l.tsv", 'recording_id\treason\na\t"odd\nb\tx\n')
    assert read_exclude_list(path, {"a", "b"}) == {"a": '"odd', "b": "x"}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("recording_id\treason\nsub-1\tx\nsub-7\ty\n", "names 1 recordings .* sub-7"),
        ("recording_id\treason\nsub-1\tx\nsub-1\ty\n", "holds sub-1 twice"),
        ("recording_id,reason\nsub-1,x\n", "no column recording_id"),
        ("sub-1\tno heading\n", "no column recording_id"),
    ],
)
def test_what_is_no_such_list_is_refused(tmp_path, text, fault):
    path = written(tmp_path / "exclude.tsv", text)
    with pytest.raises(InputError, match=fault):
        read_exclude_list(path, {"sub-1", "sub-2"})


def test_a_person_has_the_last_word_and_does_not_set_off_the_alarm():
    ids = [f"sub-{number}_task-rest" for number in range(4)]
    table = pd.DataFrame(
        {"recording_id": ids, "eligible": True, "reason": None, "n_volumes": 300, "tr": 2.0}
    )
    finished = {name: Finished(name, mean_fd=0.1, share_parcels=1.0) for name in ids}
    finished[ids[1]] = Finished(ids[1], "motion", "the image is blank")
    by_hand = dict.fromkeys(ids[:3], "artefact")
    selection = select(table, finished, QUALITY, by_hand=by_hand)
    assert list(selection.included["recording_id"]) == ids[3:]
    assert set(selection.exclusions["stage"]) == {BY_HAND}
    check_enough_is_left(selection, QUALITY)
    with pytest.raises(DataError, match="4 are excluded by hand"):
        check_enough_is_left(
            select(table, finished, QUALITY, by_hand=dict.fromkeys(ids, "x")), QUALITY
        )


def test_the_command_leaves_them_out_with_the_reason_and_moves_nobody(tmp_path):
    study = write_study(tmp_path / "study", {"train": 4, "val": 2, "test": 2})
    cohort(study.root)
    before = pd.read_parquet(study.path("cohort")).set_index("recording_id")
    name = before.index[1]
    series_path(study, name).write_bytes(b"")  # given up, and so noted by the user
    path = written(study.path("exclude_list"), f"recording_id\treason\n{name}\tghosting\n")
    cohort(study.root)
    after = pd.read_parquet(study.path("cohort")).set_index("recording_id")
    assert set(before.index) - set(after.index) == {name}
    assert (after["split"] == before.loc[after.index, "split"]).all()
    out = pd.read_csv(study.path("exclusions"), sep="\t").set_index("recording_id").loc[name]
    assert (out["stage"], out["reason"]) == (BY_HAND, "ghosting")
    written(path, "recording_id\treason\nsub-none\tx\n")
    with pytest.raises(InputError, match="sub-none"):
        cohort(study.root)


def test_the_report_counts_them_as_excluded_even_if_a_stage_gave_them_up():
    table = pd.DataFrame({"recording_id": ["a"], "eligible": [True], "anat_id": [None]})
    failed = {"a": {"stage": "motion", "what": "blank"}}
    out = pd.DataFrame([("a", BY_HAND, "blank")], columns=["recording_id", "stage", "reason"])
    (told,) = outcomes(table, failed, set(), out).to_dict("records")
    assert (told["status"], told["stage"], told["reason"]) == ("excluded", BY_HAND, "blank")


def test_the_workflow_makes_only_the_cohort_anew(tmp_path):
    """The list is an input of the cohort's rule, and its digest a parameter."""
    made = FinishedStudy(tmp_path)
    written(made.path("config"), to_commented_yaml(made.config))
    made.write_recordings()
    config = yaml.safe_load(made.path("config").read_text())
    dag = Dag(config, tmp_path)
    assert (dag.exclude_list(), dag.exclude_content()) == ([], "")
    written(made.path("exclude_list"), f"recording_id\treason\n{made.ids[0]}\tx\n")
    assert dag.exclude_list() == ["config/exclude.tsv"]
    first = dag.exclude_content()
    written(made.path("exclude_list"), f"recording_id\treason\n{made.ids[1]}\tx\n")
    assert first and dag.exclude_content() not in ("", first)
