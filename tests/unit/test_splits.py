"""Who trains, validates and tests: draws, families, external cohorts, the user's table."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlm.errors import DataError, InputError
from brainlm.shards.leakage import leakage_proof
from brainlm.shards.split_table import splits_from_table
from brainlm.shards.splits import (
    assign,
    assign_splits,
    check_leakage,
    check_no_split_is_empty,
    draw_splits,
    working_salt,
)
from brainlm.shards.subjects import columns_asked

SHARES = {"train": 0.8, "val": 0.1, "salt": "s"}
NOWHERE = Path("/nowhere")
NAMES = st.text("abc0123", min_size=1, max_size=6)


def options(**changes: Any) -> dict[str, Any]:
    """The section `split` as the config gives it."""
    plain = {"table": None, "stratify": [], "bins": 4, "family": None, "external": {}}
    return {**SHARES, **plain, **changes}


def rows_of(*rows: tuple[str, Any], column: str = "label_family") -> list[dict[str, Any]]:
    return [{"subject": subject, column: value} for subject, value in rows]


def alone(subjects) -> dict[str, None]:
    return dict.fromkeys(subjects)


@settings(max_examples=30, deadline=None)
@given(st.sets(NAMES, max_size=20), st.sets(NAMES, max_size=20))
def test_adding_subjects_moves_nobody(first: set[str], more: set[str]) -> None:
    before = draw_splits(alone(first), **SHARES)
    after = draw_splits(alone(first | more), **SHARES)
    assert {subject: after[subject] for subject in first} == before


def test_the_draw_keeps_to_the_shares_and_depends_on_the_salt() -> None:
    subjects = alone(str(number) for number in range(10_000))
    drawn = pd.Series(draw_splits(subjects, **SHARES))
    shares = drawn.value_counts(normalize=True)
    assert shares["train"] == pytest.approx(0.8, abs=0.015)
    assert shares["val"] == pytest.approx(0.1, abs=0.01)
    other = pd.Series(draw_splits(subjects, **{**SHARES, "salt": "t"}))
    assert 0.6 < (drawn == other).mean() < 0.72  # 0.8^2 + 2 x 0.1^2 = 0.66 by chance


def test_a_draw_is_the_same_as_ever() -> None:
    """A model's test subjects must stay its test subjects, whatever becomes of this program."""
    drawn = draw_splits(alone(f"{number:02d}" for number in range(12)), **SHARES)
    held_out = {subject: split for subject, split in drawn.items() if split != "train"}
    assert held_out == {"01": "val", "04": "test", "07": "test", "09": "val", "10": "val"}


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(NAMES, st.none() | st.sampled_from("xyz"), max_size=20),
    st.dictionaries(NAMES, st.none() | st.sampled_from("xyz"), max_size=20),
)
def test_families_stay_together_and_nobody_moves(first: dict, more: dict) -> None:
    more = {subject: family for subject, family in more.items() if subject not in first}
    asked = options(family="family")
    before = assign_splits(rows_of(*first.items()), asked, NOWHERE) if any(first.values()) else {}
    both = {**first, **more}
    if not any(both.values()):
        return
    after = assign(rows_of(*both.items()), asked, NOWHERE)
    assert before.items() <= after.splits.items()
    for family in "xyz":
        assert len({after.splits[s] for s, of in both.items() if of == family}) <= 1
    singles = alone(subject for subject, family in both.items() if family is None)
    assert draw_splits(singles, **SHARES).items() <= after.splits.items()


def test_a_family_is_drawn_by_its_own_hash() -> None:
    """Not by the subject's: else siblings who come one by one would be torn apart."""
    families = {str(number): str(number // 2) for number in range(2000)}
    drawn = draw_splits(families, **SHARES)
    shares = pd.Series(drawn).value_counts(normalize=True)
    assert shares["train"] == pytest.approx(0.8, abs=0.03)
    assert all(drawn[str(n)] == drawn[str(n + 1)] for n in range(0, 2000, 2))


def test_numbers_name_families_as_they_stood_in_the_table() -> None:
    """participants.tsv with 12 and n/a becomes floats."""
    found = assign(
        rows_of(("1", 12.0), ("2", None), ("3", 12.0)), options(family="family"), NOWHERE
    )
    assert found.families == {"1": "12", "2": None, "3": "12"}


def test_contradictory_families_are_refused() -> None:
    rows = rows_of(("1", "x"), ("1", None), ("1", "y"))
    with pytest.raises(InputError, match="sub-1 has different values of family"):
        assign(rows, options(family="family"), NOWHERE)
    for told in (rows[:2], rows[1::-1]):
        assert assign(told, options(family="family"), NOWHERE).families == {"1": "x"}
    with pytest.raises(
        InputError, match=r"No eligible recording has a value of family.*split\.fam"
    ):
        assign(rows_of(("1", None)), options(family="family"), NOWHERE)


def test_external_cohorts_are_wholly_for_test_with_their_kin() -> None:
    rows = [
        {"subject": "1", "site": "HCP", "label_family": None},
        {"subject": "2", "site": "A", "label_family": "x"},  # was scanned at both
        {"subject": "2", "site": "HCP", "label_family": "x"},
        {"subject": "3", "site": "A", "label_family": "x"},  # a sibling
        *({"subject": f"s{n}", "site": "A", "label_family": None} for n in range(40)),
    ]
    asked = options(external={"site": ["HCP"]}, family="family")
    found = assign(rows, asked, NOWHERE)
    assert found.external == {"1", "2", "3"}
    assert {found.splits[subject] for subject in "123"} == {"test"}
    rest = {s: split for s, split in found.splits.items() if s not in found.external}
    assert rest == draw_splits(alone(rest), **SHARES)
    assert columns_asked(asked) == ("label_family", "site")
    with pytest.raises(InputError, match="site HPC") as caught:
        assign(rows, options(external={"site": ["HPC"]}), NOWHERE)
    assert "A, HCP" in str(caught.value.fix)
    wave = [{"subject": "1", "label_release": 1.0}, {"subject": "2", "label_release": 2.0}]
    assert assign(wave, options(external={"release": ["2"]}), NOWHERE).external == {"2"}


def test_a_users_table_is_taken_as_it_is() -> None:
    table = _lines(("sub-1", "train"), ("2", "test"), ("9", "val"))
    assert splits_from_table(alone("12"), table, "t.tsv") == {"1": "train", "2": "test"}
    with pytest.raises(InputError, match=r"1 families into more than one split, e\.g\. .*sub-2"):
        splits_from_table({"1": "x", "2": "x"}, table, "t.tsv")
    splits_from_table({"1": "x", "2": "y"}, table, "t.tsv")


def _lines(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"subject": subject, "split": split} for subject, split in pairs]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (_lines(("1", "train")), "lacks 1 subjects.*: 2"),
        (_lines(("1", "train"), ("2", "dev")), "unknown splits: 'dev'"),
        ([{"subject": "1", "split": None}], "unknown splits: ''"),  # a line that is too short
        (_lines(("1", "train"), ("sub-1", "test"), ("2", "val")), "into two: 1"),
        ([{"subject": "1", "fold": "0"}], "needs the columns"),
        ([], "needs the columns"),
    ],
)
def test_a_wrong_table_is_refused(rows: list, told: str) -> None:
    with pytest.raises(InputError, match=told):
        splits_from_table(alone("12"), rows, "t.tsv")


def test_a_subject_twice_among_many_is_found_at_once() -> None:
    table = _lines(*((str(n), "train") for n in range(60_000)), ("5", "test"))
    started = time.process_time()
    with pytest.raises(InputError, match="into two: 5"):
        splits_from_table({}, table, "t.tsv")
    assert time.process_time() - started < 10


def test_a_table_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    asked = options(table="t.tsv")
    table.write_text("subject\tsplit\n1\ttrain\n", encoding="utf-16")
    with pytest.raises(InputError, match="not text in UTF-8"):
        assign(rows_of(("1", None)), asked, tmp_path)
    table.unlink()
    table.mkdir()
    with pytest.raises(InputError, match="does not exist"):
        assign(rows_of(("1", None)), asked, tmp_path)


def test_a_table_goes_before_the_draw(tmp_path: Path) -> None:
    (tmp_path / "mine.tsv").write_text("subject\tsplit\n1\tval\n2\ttest\n", "utf-8-sig")
    rows = rows_of(("1", None), ("2", None))
    assert assign_splits(rows, options(table="mine.tsv"), tmp_path) == {"1": "val", "2": "test"}
    with pytest.raises(InputError, match="does not exist"):
        assign_splits(rows, options(table="yours.tsv"), tmp_path)


def test_a_working_salt_leaves_no_split_empty() -> None:
    subjects = alone(f"{number:02d}" for number in range(6))
    shares = {"train": 0.6, "val": 0.2, "salt": "x"}
    salt = working_salt(subjects, ["train", "val", "test"], **shares)
    assert salt is not None
    drawn = draw_splits(subjects, **{**shares, "salt": salt})
    assert set(drawn.values()) == {"train", "val", "test"}
    assert working_salt(alone("12"), ["train", "val", "test"], **shares) is None
    assert working_salt(alone("12"), ["train", "val"], **shares) is not None
    started = time.process_time()
    without = {**shares, "val": 0.0}
    assert working_salt(alone(map(str, range(60_000))), ["val"], **without) is None
    assert time.process_time() - started < 10


def test_only_the_splits_that_are_needed_must_hold_somebody() -> None:
    external = {"1": "test"}
    with pytest.raises(DataError, match="splits train and val"):
        check_no_split_is_empty(external, "")
    check_no_split_is_empty(external, "", needed=["test"])


def test_leakage_is_seen() -> None:
    table = pd.DataFrame({"subject": ["1", "2", "1"], "split": ["train", "val", "test"]})
    with pytest.raises(DataError, match=r"Leakage: 1 subjects.*e\.g\. 1"):
        check_leakage(table, "index")
    kin = pd.DataFrame(
        {
            "subject": ["1", "2", "3", "4", "4"],
            "split": ["train", "val", "train", "test", "test"],
            "family": ["x", "x", None, None, None],
        }
    )
    with pytest.raises(DataError, match=r"Leakage: 1 families.*one of 1, 2"):
        check_leakage(kin, "index")
    check_leakage(kin.drop(index=1), "index")
    check_leakage(kin.drop(columns="family"), "index")


def test_the_proof_counts_and_names_nobody() -> None:
    cohort = pd.DataFrame(
        {
            "subject": ["anna", "anna", "bert", "cleo"],
            "split": ["train", "train", "train", "test"],
            "family": ["smith", "smith", "smith", None],
            "n_timepoints": [10, 10, 5, 7],
            "timeseries_sha256": ["1", "2", "2", "3"],
        }
    )
    proof = leakage_proof(cohort, decided_by="hash", family="family_id")
    assert proof["in_two_splits"] == {"subjects": 0, "families": 0, "series": 0}
    assert proof["splits"]["train"] == {
        "subjects": 2,
        "families": 1,
        "recordings": 3,
        "volumes": 25,
    }
    assert proof["splits"]["val"]["subjects"] == 0
    assert not any(name in str(proof) for name in ("anna", "bert", "cleo", "smith"))
    torn = cohort.assign(split=["train", "test", "train", "test"])
    proof = leakage_proof(torn, decided_by="hash", family="family_id")
    assert proof["in_two_splits"] == {"subjects": 1, "families": 1, "series": 1}
    assert "families" not in leakage_proof(cohort, decided_by="", family=None)["in_two_splits"]
