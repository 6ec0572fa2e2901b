"""Labels become numbers and come back; what is learned from is the train split alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

from brainlm.config import Finetune, Target
from brainlm.errors import DataError, InputError
from brainlm.model.label_unit import HeadCard
from brainlm.shards.labels import LabelScale, class_names, read_label
from brainlm.train.labelled import LabelledData, head_card
from brainlm.train.settings import TargetSettings, read_finetune

SCORES = arrays(np.float64, st.integers(2, 20), elements=st.integers(0, 80).map(float))


@pytest.mark.parametrize("transform", ["zscore", "minmax", "log-minmax"])
@given(train=SCORES.filter(lambda values: np.ptp(values) > 0), other=SCORES)
def test_scaled_labels_come_back_also_from_the_models_folder(transform, train, other) -> None:
    scale = LabelScale.fit(train, "regression", "x", transform)
    scaled = scale.to_model(other)
    np.testing.assert_allclose(scale.to_label(scaled), other, atol=1e-9)
    target = TargetSettings("x", "regression", None, None, transform)
    settings = read_finetune(Finetune().model_dump(mode="json"))
    card = head_card(target, settings, LabelledData({}, {}, scale, {}))
    kept = HeadCard.from_dict(card.to_dict())
    np.testing.assert_allclose(kept.to_label(scaled), other, atol=1e-9)
    own = scale.to_model(train)
    if transform == "zscore":
        np.testing.assert_allclose([own.mean(), own.std()], [0, 1], atol=1e-9)
    else:
        np.testing.assert_allclose([own.min(), own.max()], [0, 1], atol=1e-9)
    if transform == "log-minmax":
        spread = np.log1p(train.max()) - np.log1p(train.min())
        np.testing.assert_allclose(own, (np.log1p(train) - np.log1p(train.min())) / spread)


def test_a_label_below_zero_has_no_logarithm() -> None:
    with pytest.raises(DataError, match=r"log\(1 \+ label\) cannot be taken"):
        LabelScale.fit(np.array([-1.0, 3.0]), "regression", "x", "log-minmax")


def _table(values: list, splits: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "recording_id": [f"r{number}" for number in range(len(values))],
            "split": ["train" if letter == "r" else "test" for letter in splits],
            "label_x": values,
        }
    )


@pytest.mark.parametrize(
    ("values", "number"),
    [([1.0, np.inf, 2.0], 1), (["1", "secret", None], 1), (["7,5", "7.5", "old"], 2)],
)
def test_what_is_no_number_is_refused_without_telling_it(values, number) -> None:
    with pytest.raises(DataError, match=f"no number in {number} recordings, e.g. r") as caught:
        read_label(_table(values, "rrt"), "x", "regression", None)
    assert "secret" not in str(caught.value)
    assert "7,5" not in str(caught.value)


def test_numbers_written_as_text_and_ways_to_say_missing() -> None:
    found = read_label(_table([" 7", "n/a", "", "nan", "7e0"], "rrrrt"), "x", "regression", None)
    np.testing.assert_array_equal(found, [7, np.nan, np.nan, np.nan, 7])


def test_a_binary_label_of_other_values_is_refused() -> None:
    with pytest.raises(DataError, match="other values than 0 and 1"):
        read_label(_table([0, 1, 2], "rrr"), "x", "binary", None)
    with pytest.raises(DataError, match="is no number in 3 recordings"):
        read_label(_table(list("FMF"), "rrr"), "x", "binary", None)


def test_a_threshold_makes_two_classes_and_leaves_what_is_missing() -> None:
    found = read_label(_table([4, 4.5, None, 9], "rrrt"), "x", "binary", None, 4.0)
    np.testing.assert_array_equal(found, [0, 1, np.nan, 1])


def test_classes_are_those_of_the_train_split() -> None:
    table = _table(["b", " a", None, "n/a", "c", "b"], "rrrrtt")
    assert class_names(table, "x") == ("a", "b")
    found = read_label(table, "x", "classes", None)
    np.testing.assert_array_equal(found, [1, 0, np.nan, np.nan, np.nan, 1])
    numbers = _table([2.0, 1, 10, 2], "rrrt")
    assert class_names(numbers, "x") == ("1", "10", "2")
    np.testing.assert_array_equal(read_label(numbers, "x", "classes", None), [2, 0, 1, 2])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("PCL5", ("regression", None, "log-minmax")),
        ("gad7", ("regression", None, "log-minmax")),
        ("Neuroticism", ("regression", None, "minmax")),
        ("PHQ9", ("binary", 4.0, "zscore")),
        ("PHQ9item2", ("regression", None, "zscore")),
        ("age", ("regression", None, "zscore")),
    ],
)
def test_known_scales_have_presets(name, expected) -> None:
    target = Target.model_validate({"name": name})
    assert (target.kind, target.threshold, target.transform) == expected
    assert Target.model_validate(target.model_dump()) == target


def test_a_preset_gives_way_to_whatever_is_said() -> None:
    assert Target(name="PHQ9", kind="regression").threshold is None
    assert Target(name="PCL5", transform="zscore").transform == "zscore"
    assert Target(name="GAD7", kind="binary", threshold=9).threshold == 9


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "forecast"},
        {"name": "x", "threshold": 1},
        {"name": "x", "kind": "binary", "threshold": 1, "positive": "yes"},
        {"name": "x", "kind": "classes", "transform": "minmax"},
    ],
)
def test_targets_that_mean_nothing_are_refused(wrong) -> None:
    with pytest.raises(ValidationError):
        Target.model_validate(wrong)


def test_a_head_must_name_as_many_classes_as_it_has_outputs() -> None:
    named = {"name": "x", "kind": "classes", "positive": None, "mean": 0, "sd": 1, "dropout": 0}
    card = HeadCard.from_dict({**named, "outputs": 3, "classes": ["a", "b", "c"]})
    assert card.classes == ("a", "b", "c")
    with pytest.raises(InputError, match="names 2 classes of 3 outputs"):
        HeadCard.from_dict({**named, "outputs": 3, "classes": ["a", "b"]})
