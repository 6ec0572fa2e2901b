"""Who enters the cohort, and who trains, validates and tests."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlm.cli.cohort import cohort
from brainlm.errors import DataError, InputError
from brainlm.files import write_json
from brainlm.layout import folder_of
from brainlm.shards.selection import Finished, Quality, check_enough_is_left, select
from brainlm.shards.splits import (
    check_leakage,
    draw_splits,
    splits_from_table,
    working_salt,
)

from .synthetic_cohort import (
    FIELDS,
    series_path,
    simulate,
    write_recording,
    write_recordings,
    write_study,
)

SHARES = {"train": 0.8, "val": 0.1, "salt": "s"}
QUALITY = Quality(min_volumes=200, max_mean_fd_mm=0.5, min_parcels=0.8, max_excluded=0.5)


@settings(max_examples=30, deadline=None)
@given(
    st.sets(st.text("abc0123", min_size=1, max_size=6), max_size=20),
    st.sets(st.text("abc0123", min_size=1, max_size=6), max_size=20),
)
def test_adding_subjects_moves_nobody(first: set[str], more: set[str]) -> None:
    before = draw_splits(first, **SHARES)
    after = draw_splits(first | more, **SHARES)
    assert {subject: after[subject] for subject in first} == before


def test_the_draw_keeps_to_the_shares_and_depends_on_the_salt() -> None:
    subjects = [str(number) for number in range(10_000)]
    drawn = pd.Series(draw_splits(subjects, **SHARES))
    shares = drawn.value_counts(normalize=True)
    assert shares["train"] == pytest.approx(0.8, abs=0.015)
    assert shares["val"] == pytest.approx(0.1, abs=0.01)
    other = pd.Series(draw_splits(subjects, **{**SHARES, "salt": "t"}))
    assert 0.6 < (drawn == other).mean() < 0.72  # 0.8^2 + 2 x 0.1^2 = 0.66 by chance


def test_a_users_table_is_taken_as_it_is() -> None:
    table = pd.DataFrame({"subject": ["sub-1", "2", "9"], "split": ["train", "test", "val"]})
    assert splits_from_table(["1", "2"], table, "t.tsv") == {"1": "train", "2": "test"}


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ({"subject": ["1"], "split": ["train"]}, "lacks 1 subjects.*: 2"),
        ({"subject": ["1", "2"], "split": ["train", "dev"]}, "unknown splits: dev"),
        ({"subject": ["1", "1", "2"], "split": ["train", "test", "val"]}, "into two: 1"),
        ({"subject": ["1"], "fold": [0]}, "needs the columns"),
    ],
)
def test_a_wrong_table_is_refused(rows: dict, told: str) -> None:
    with pytest.raises(InputError, match=told):
        splits_from_table(["1", "2"], pd.DataFrame(rows), "t.tsv")


def test_a_working_salt_leaves_no_split_empty() -> None:
    subjects = [f"{number:02d}" for number in range(6)]
    salt = working_salt(subjects, train=0.6, val=0.2, salt="x")
    assert salt is not None
    drawn = draw_splits(subjects, train=0.6, val=0.2, salt=salt)
    assert set(drawn.values()) == {"train", "val", "test"}
    assert working_salt(["1", "2"], train=0.6, val=0.2, salt="x") is None


def test_leakage_is_seen() -> None:
    table = pd.DataFrame({"subject": ["1", "2", "1"], "split": ["train", "val", "test"]})
    with pytest.raises(DataError, match=r"Leakage: 1 subjects.*e\.g\. 1"):
        check_leakage(table, "index")


def _recordings(n: int) -> pd.DataFrame:
    ids = [f"sub-{number}_task-rest" for number in range(n)]
    return pd.DataFrame({"recording_id": ids, "eligible": True, "reason": None, "n_volumes": 300})


def test_the_rules_of_quality() -> None:
    recordings = _recordings(4)
    ids = list(recordings["recording_id"])
    finished = {
        ids[0]: Finished(ids[0], mean_fd=0.5, share_parcels=0.8),  # on both limits: in
        ids[1]: Finished(ids[1], mean_fd=0.51, share_parcels=0.79),
        ids[2]: Finished(ids[2], "motion", "the image is blank"),
        ids[3]: Finished(ids[3], mean_fd=float("nan"), share_parcels=1.0),
    }
    selection = select(recordings, finished, QUALITY)
    assert list(selection.included["recording_id"]) == ids[:1]
    reasons = dict(
        zip(selection.exclusions["recording_id"], selection.exclusions["reason"], strict=True)
    )
    assert reasons[ids[1]] == "mean FD above 0.5 mm; parcels with a series below 80%"
    assert reasons[ids[2]] == "the image is blank"
    assert reasons[ids[3]] == "mean FD above 0.5 mm"
    with pytest.raises(DataError, match="75% of 4 eligible"):
        check_enough_is_left(selection, QUALITY)


def test_a_run_that_scrubbing_left_too_short_is_out() -> None:
    recordings = _recordings(3)
    finished = {
        name: Finished(name, mean_fd=0.1, share_parcels=1, n_left=left)
        for name, left in zip(recordings["recording_id"], (200, 199, None), strict=True)
    }
    selection = select(recordings, finished, QUALITY)
    assert list(selection.included["n_timepoints"]) == [200, 300]
    assert list(selection.exclusions["reason"]) == ["scrubbing leaves 199 volumes, fewer than 200"]


def test_losing_too_many_tells_the_most_frequent_reasons() -> None:
    recordings = _recordings(10)
    finished = {
        name: Finished(name, "motion", "blank") if number < 6 else Finished(name, mean_fd=9)
        for number, name in enumerate(recordings["recording_id"])
    }
    with pytest.raises(DataError, match="Most frequent: 6 x motion: blank; 4 x cohort: mean FD"):
        check_enough_is_left(select(recordings, finished, QUALITY), QUALITY)


def test_the_command_lists_each_exclusion_with_its_reason(tmp_path) -> None:
    study = write_study(tmp_path / "study", {"train": 4, "val": 2, "test": 2}, runs=2)
    table = pd.read_parquet(study.path("recordings"))
    table.loc[0, ["eligible", "reason"]] = [False, "TR is missing"]
    write_recordings(study, table)
    ids = list(table["recording_id"])
    rng = np.random.default_rng(0)
    series_path(study, ids[1]).write_bytes(b"")
    ledger = study.path("failure", recording=ids[1])
    write_json(ledger, {"stage": "motion", "what": "the head left the field of view"})
    write_recording(study, ids[2], simulate(0, 60, rng), mean_fd=2.0)
    covered = simulate(0, 60, rng)
    covered[:, :4] = np.nan
    write_recording(study, ids[3], covered)
    series_path(study, ids[4]).unlink()
    stranger = study.path("coverage", recording=ids[5], folder=folder_of(ids[5]), **FIELDS)
    sidecar = stranger.with_suffix(".json")
    sidecar.write_text(sidecar.read_text().replace('"sub": "03"', '"sub": "99"'))

    cohort(study.root)

    lost = pd.read_csv(study.path("exclusions"), sep="\t").set_index("recording_id")
    assert list(lost.index) == ids[:6]
    assert list(lost["stage"]) == ["onboard", "motion", "cohort", "cohort", "parcellate", "cohort"]
    assert lost.loc[ids[0], "reason"] == "TR is missing"
    assert lost.loc[ids[1], "reason"] == "the head left the field of view"
    assert "mean FD" in lost.loc[ids[2], "reason"]
    assert "parcels" in lost.loc[ids[3], "reason"]
    assert "has not been made" in lost.loc[ids[4], "reason"]
    assert "'99'" in lost.loc[ids[5], "reason"]

    kept = pd.read_parquet(study.path("cohort"))
    assert list(kept["recording_id"]) == ids[6:]
    first = kept.iloc[0]
    assert first["mean_fd"] == pytest.approx(0.1)
    assert first["share_parcels"] == 1.0
    data = (study.root / first["timeseries"]).read_bytes()
    assert first["timeseries_sha256"] == hashlib.sha256(data).hexdigest()
    splits = pd.read_csv(study.path("splits"), sep="\t", dtype=str)
    assert set(splits["subject"]) == set(kept["subject"])
    assert {"label_score", "label_group", "split"} <= set(kept.columns)

    kinds = ("cohort", "splits", "exclusions")
    before = [study.path(kind).read_bytes() for kind in kinds]
    cohort(study.root)
    assert [study.path(kind).read_bytes() for kind in kinds] == before


def test_parcels_are_counted_by_the_coverage_that_parcellation_asked_for(tmp_path) -> None:
    from brainlm.cli._cohort_files import mean_fd, share_of_parcels

    path = tmp_path / "coverage.tsv"
    pd.DataFrame({"coverage": [1.0, 0.5, 0.49, 0.0, np.nan]}).to_csv(path, sep="\t", na_rep="n/a")
    assert share_of_parcels(path, 0.5) == pytest.approx(2 / 5)
    assert share_of_parcels(path, 0.0) == pytest.approx(3 / 5)  # none at all is no series
    text = "trans_x\tframewise_displacement\n0\tn/a\n0\t0.1\n0\t0.3\n"
    assert mean_fd(text, path) == pytest.approx(0.2)
    with pytest.raises(DataError, match="framewise_displacement"):
        mean_fd("trans_x\n0\n", path)


def test_an_empty_split_ends_with_a_salt_that_works(tmp_path) -> None:
    options = {"split": {"table": None, "train": 0.9, "val": 0.05, "salt": "x"}}
    study = write_study(tmp_path / "study", {"train": 6}, options=options)
    with pytest.raises(DataError, match="in the split") as caught:
        cohort(study.root)
    assert caught.value.fix is not None
    salt = caught.value.fix.rpartition("split.salt: ")[2]
    config = study.path("config")
    config.write_text(config.read_text().replace('"salt": "x"', f'"salt": "{salt}"'))
    cohort(study.root)
    assert set(pd.read_parquet(study.path("cohort"))["split"]) == {"train", "val", "test"}
