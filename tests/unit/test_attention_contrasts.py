"""Groups of people: who is in which, how they are compared, and what is found."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from brainlm.config import Config
from brainlm.config import Contrast as Asked
from brainlm.errors import InputError
from brainlm.evaluate.attention_contrasts import Contrast, compare, sides_of, usual_contrasts


def _contrast(**content) -> Contrast:
    return Contrast.from_dict(Asked(**{"name": "x", **content}).model_dump(mode="json"))


def _table(subjects: int = 20, tasks: tuple[str, ...] = ("rest", "faces")) -> pd.DataFrame:
    """Each subject with a recording of each task; age is the subject's number."""
    rows = [
        {
            "recording_id": f"sub-{number:02d}_task-{task}",
            "subject": f"{number:02d}",
            "task": task,
            "mean_fd": 0.1 + 0.01 * ((number * 7 + 3 * place) % 11),
            "label_age": float(number),
            "label_group": "patient" if number % 2 else "control",
        }
        for number in range(subjects)
        for place, task in enumerate(tasks)
    ]
    return pd.DataFrame(rows).set_index("recording_id", drop=False)


def _maps(table: pd.DataFrame, planted: pd.Series, seed: int = 0) -> pd.DataFrame:
    """Parcels a and b differ by what is planted, c to j do not; people have their own level."""
    rng = np.random.default_rng(seed)
    names = list("abcdefghij")
    levels = {subject: rng.standard_normal(10) for subject in table["subject"].unique()}
    values = np.stack([levels[subject] for subject in table["subject"]])
    values = values + 0.2 * rng.standard_normal(values.shape)
    values[:, :2] += planted.to_numpy()[:, None]
    return pd.DataFrame(values, index=table.index, columns=names)


def test_conditions_of_the_same_people_are_compared_within_them() -> None:
    table = _table()
    maps = _maps(table, 0.5 * (table["task"] == "faces"))
    contrast = _contrast(column="task", high=["faces"], low=["rest"])
    about, tested = compare(
        contrast, table, maps, list(maps.columns), adjust=["mean_fd"], draws=2000, seed=0
    )
    assert tested is not None
    assert about["design"] == "paired" and about["n_both"] == 20
    assert about["adjusted_for"] == ["mean_fd"]
    assert (tested.p_fwe[:2] < 0.01).all() and (tested.p_fdr[2:] > 0.05).all()
    np.testing.assert_allclose(tested.difference[:2], 0.5, atol=0.25)
    assert contrast.told == "task: faces against rest"


def test_groups_of_people_are_compared_by_their_means() -> None:
    table = _table(40)
    maps = _maps(table, 2.0 * (table["label_group"] == "patient"))
    contrast = _contrast(label="group", high=["patient"])
    about, tested = compare(contrast, table, maps, ["a", "b", "e"], adjust=[], draws=1000, seed=0)
    assert tested is not None
    assert (about["design"], about["n_high"], about["n_low"]) == ("groups", 20, 20)
    assert about["n_subjects"] == 40  # not recordings
    assert (tested.p[:2] < 0.01).all() and tested.difference[0] > 1


def test_numbers_are_split_by_subjects() -> None:
    table = _table(21)
    half = sides_of(_contrast(label="age"), table)
    assert (half[table["label_age"] > 10] == 1).all() and (
        half[table["label_age"] <= 10] == -1
    ).all()
    quarters = sides_of(_contrast(label="age", share=0.25), table)
    assert sorted(table["label_age"][quarters == 1].unique()) == [15, 16, 17, 18, 19, 20]
    assert sorted(table["label_age"][quarters == -1].unique()) == [0, 1, 2, 3, 4, 5]
    limits = sides_of(_contrast(label="age", above=15, below=3), table)
    assert (limits == 1).sum() == 2 * 5 and (limits == -1).sum() == 2 * 3
    table.loc[table["subject"] == "20", "label_age"] = np.nan
    assert (sides_of(_contrast(label="age"), table)[table["subject"] == "20"] == 0).all()


def test_missing_parcels_do_not_make_a_difference() -> None:
    table = _table(40)
    maps = _maps(table, pd.Series(0.0, index=table.index))
    maps.iloc[:4, 4] = np.nan  # two of forty people
    maps.iloc[:40, 5] = np.nan  # half of them: not tested
    contrast = _contrast(label="group", high=["patient"])
    _, tested = compare(contrast, table, maps, list("aef"), adjust=[], draws=300, seed=0)
    assert tested is not None
    assert np.isfinite(tested.p[:2]).all() and np.isnan(tested.p[2])
    assert abs(tested.effect[1]) < 1


@pytest.mark.parametrize(("subjects", "tasks"), [(5, ("rest", "faces")), (6, ("rest",))])
def test_too_few_people_are_not_tested(subjects, tasks) -> None:
    table = _table(subjects, tasks)
    maps = _maps(table, pd.Series(0.0, index=table.index))
    contrast = (
        _contrast(column="task", high=["faces"])
        if len(tasks) == 2
        else _contrast(label="group", high=["patient"])
    )
    about, tested = compare(contrast, table, maps, ["a"], adjust=[], draws=100, seed=0)
    assert tested is None and "needs" in about["reason"]


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match="label_iq"):
        sides_of(_contrast(label="iq"), _table())


def test_targets_are_compared_without_being_told() -> None:
    targets = Config.model_validate(
        {
            "finetune": {
                "targets": [
                    {"name": "age"},
                    {"name": "group", "kind": "binary", "positive": "patient"},
                    {"name": "phq9"},
                    {"name": "site", "kind": "classes"},
                ]
            }
        }
    ).model_dump(mode="json")["finetune"]["targets"]
    told = [contrast.told for contrast in usual_contrasts(targets)]
    assert told == [
        "age: above the median against below",
        "group: patient against all others",
        "phq9: above 4 against the rest",
    ]
    table = _table()
    table["label_phq9"] = table["label_age"]
    sides = sides_of(usual_contrasts(targets)[2], table)
    assert (sides[table["label_phq9"] > 4] == 1).all() and (sides != 0).all()


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"column": "task", "label": "age"},
        {"label": "age", "above": 3},
        {"label": "age", "above": 3, "below": 5},
        {"label": "age", "low": ["a"]},
    ],
)
def test_contrasts_that_say_too_much_or_too_little_are_refused(content) -> None:
    with pytest.raises(ValidationError):
        Asked(name="x", **content)


@pytest.mark.parametrize("paired", [True, False])
def test_one_recording_without_motion_does_not_leave_motion_unheld(paired: bool) -> None:
    table = _table(40)
    maps = _maps(table, table["mean_fd"] * 20)
    contrast = _contrast(
        **({"column": "task", "high": ["faces"], "low": ["rest"]} if paired else {"label": "age"})
    )
    told = {}
    for unknown in (0, 3, 10):
        holed = table.copy()
        holed.loc[[f"sub-{number:02d}_task-rest" for number in range(unknown)], "mean_fd"] = np.nan
        holed.loc[[f"sub-{number:02d}_task-faces" for number in range(unknown)], "mean_fd"] = np.nan
        about, tested = compare(
            contrast, holed, maps, list("abc"), adjust=["mean_fd"], draws=200, seed=0
        )
        assert tested is not None
        told[unknown] = about["adjusted_for"], about["n_subjects"], about["n_without_nuisance"]
    assert told == {
        0: (["mean_fd"], 40, 0),
        3: (["mean_fd"], 37, 3),
        10: ([], 40, 0),
    }


def test_values_that_nobody_has_are_named() -> None:
    table = _table(12)
    maps = _maps(table, 0.0 * table["mean_fd"])
    how = {"adjust": [], "draws": 200, "seed": 0}
    for told, words in (
        ({"column": "task", "high": ["face"], "low": ["rest"]}, "task is face in no recording"),
        ({"label": "group", "high": ["pat"]}, r"group is pat in no .*but control, patient"),
    ):
        about, tested = compare(_contrast(**told), table, maps, ["a"], **how)
        assert tested is None
        assert re.search(words, about["reason"])
    rare = _contrast(column="task", high=["faces"], low=["rest"])
    about, _ = compare(rare, table[:4], maps[:4], ["a"], **how)
    assert "in no recording" not in about["reason"]


def test_few_people_in_both_conditions_are_told_so() -> None:
    table = _table(3)
    maps = _maps(table, 0.0 * table["mean_fd"])
    contrast = _contrast(column="task", high=["faces"], low=["rest"])
    about, tested = compare(contrast, table, maps, ["a"], adjust=[], draws=200, seed=0)
    assert tested is None
    assert "3 in both: compared with themselves from 6 on" in about["reason"]
