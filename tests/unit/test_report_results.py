"""Metric tables and charts."""

from __future__ import annotations

import base64
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from brainlm.report import charts
from brainlm.report.learning_curve import learning_curve
from brainlm.report.metrics import Estimate, metric_table, pretty
from brainlm.report.results import metric_rows

CONTENT = {
    "metrics": {
        "mse": {"value": 0.5, "ci_low": 0.4, "ci_high": 0.6},
        "r2": {"value": 0.40, "ci_low": 0.31, "ci_high": 0.49},
    },
    "baselines": {
        "zero": {
            "mse": {"value": 1.0, "ci_low": 0.9, "ci_high": 1.1},
            "r2": {"value": -0.00002, "ci_low": -0.1, "ci_high": 0.0},
        },
        "interpolation": {
            "mse": {"value": 0.45, "ci_low": None, "ci_high": None, "reason": "no interval"},
            "r2": {"value": -7.5, "ci_low": -9.0, "ci_high": -6.0},
        },
        "motion": {"reason": "too few"},
    },
}


def test_table_orders_metrics_and_methods():
    table = metric_table(CONTENT, "BrainLM")
    assert table.metrics == ("r2", "mse")
    # The model first, then from the best R2 to the worst, those without a value last.
    assert [method.name for method in table.methods] == [
        "BrainLM",
        "Recording's own mean",
        "Linear interpolation",
        "Head motion alone",
    ]
    assert [method.is_model for method in table.methods] == [True, False, False, False]


def test_a_reason_of_all_numbers_is_told_once_and_others_by_a_mark():
    rows = metric_rows(metric_table(CONTENT, "BrainLM"))
    assert (rows["common"], rows["intervals"]) == ("", True)
    assert rows["notes"] == ["no interval", "too few"]
    bare = {"value": 1.0, "ci_low": None, "ci_high": None, "reason": "no interval"}
    flat = {"value": None, "ci_low": None, "ci_high": None, "reason": "not defined"}
    content = {
        "metrics": {"mse": bare, "r2": bare},
        "baselines": {"zero": {"mse": bare, "r2": flat}},
    }
    rows = metric_rows(metric_table(content, "BrainLM"))
    assert (rows["common"], rows["intervals"]) == ("no interval", False)
    assert rows["notes"] == ["not defined"]


def test_best_knows_which_way_is_better():
    table = metric_table(CONTENT, "BrainLM")
    assert table.best("r2") == "BrainLM"
    assert table.best("mse") == "Linear interpolation"


def test_a_lone_value_is_not_called_best():
    table = metric_table({"metrics": CONTENT["metrics"], "baselines": {}}, "BrainLM")
    assert table.best("r2") is None


def test_missing_values_keep_their_reason():
    motion = metric_table(CONTENT, "BrainLM").methods[-1].estimates["r2"]
    assert (motion.value, motion.text, motion.reason) == (None, "n/a", "too few")


@pytest.mark.parametrize("broken", [{}, {"metrics": None}, {"metrics": {"r2": None}}])
def test_incomplete_files_make_a_table(broken):
    assert metric_table(broken, "BrainLM").methods[0].name == "BrainLM"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.5", True, None])
def test_what_is_no_number_is_no_value(value):
    table = metric_table({"metrics": {"r2": {"value": value}}}, "BrainLM")
    assert table.methods[0].estimates["r2"].value is None


@pytest.mark.parametrize(
    ("estimate", "text", "interval"),
    [
        (Estimate(0.4123, 0.3812, 0.4421), "0.412", "0.381 to 0.442"),
        (Estimate(0.41, 0.01, 0.82), "0.41", "0.01 to 0.82"),
        (Estimate(-0.00002, -0.1, 0.0), "0.00", "−0.10 to 0.00"),
        (Estimate(-1.5, -2.0, -1.0), "−1.50", "−2.00 to −1.00"),
        (Estimate(12345.678), "12346", ""),
        (Estimate(), "n/a", ""),
    ],
)
def test_numbers_are_rounded_to_what_their_interval_carries(estimate, text, interval):
    assert (estimate.text, estimate.interval) == (text, interval)


def test_pretty_names():
    assert pretty("linear_fc") == "Linear FC"
    assert pretty("my-own_baseline") == "My own baseline"


# --- helpers of charts -----------------------------------------------------------------------


@given(st.lists(st.booleans(), max_size=60))
def test_runs_cover_exactly_the_true_values(flags):
    found = np.zeros(len(flags), dtype=bool)
    runs = charts.runs_of(np.array(flags, dtype=bool))
    for start, stop in runs:
        assert start < stop
        found[start:stop] = True
    assert found.tolist() == flags
    assert all(a[1] < b[0] for a, b in pairwise(runs))


@given(arrays(np.float64, st.integers(1, 300), elements=st.floats(-10, 10)), st.integers(1, 50))
def test_thin_keeps_order_and_range(values, most):
    small = charts.thin(values, most)
    assert len(small) == min(len(values), most)
    assert small.min() >= values.min() - 1e-9
    assert small.max() <= values.max() + 1e-9


@given(arrays(np.float64, st.integers(1, 300), elements=st.floats(-10, 10)))
def test_smooth_keeps_ends_and_range(values):
    found = charts.smooth(values)
    assert found.shape == values.shape
    np.testing.assert_allclose(found[[0, -1]], values[[0, -1]], atol=1e-9)
    assert found.min() >= values.min() - 1e-9
    assert found.max() <= values.max() + 1e-9


def test_smooth_leaves_a_line_alone():
    line = np.linspace(3, -1, 500)
    np.testing.assert_allclose(charts.smooth(line), line, atol=1e-9)


# --- charts ----------------------------------------------------------------------------------


def svg(uri: str) -> str:
    head, _, body = uri.partition(",")
    assert head == "data:image/svg+xml;base64"
    return base64.b64decode(body).decode()


def texts(uri: str) -> list[str]:
    root = ElementTree.fromstring(svg(uri))
    return ["".join(node.itertext()).strip() for node in root.iter() if node.tag.endswith("text")]


def test_charts_are_valid_svg_with_text_and_without_dates():
    values = np.array([0.1, 0.2, 0.6])
    uri = charts.histogram(values, np.array([True, True, False]), "mean FD (mm)", 0.55)
    assert "mean FD (mm); dashed: limit 0.55" in texts(uri)
    assert {"in the cohort", "left out"} <= set(texts(uri))
    assert "<dc:date>" not in svg(uri)
    assert "DejaVu" not in svg(uri)


def test_equal_charts_have_equal_bytes():
    table = metric_table(CONTENT, "BrainLM")
    assert charts.dots(table) == charts.dots(table)


def test_a_hopeless_baseline_does_not_squeeze_the_others():
    uri = charts.dots(metric_table(CONTENT, "BrainLM"))
    assert any("−7.50" in text for text in texts(uri))  # told in words at the edge
    assert not any(text == "−8" for text in texts(uri))


@pytest.mark.parametrize("n", [1, 2])
def test_scatter_of_few_subjects(n):
    true = np.arange(n, dtype=float)
    for binary in (False, True):
        assert texts(charts.prediction_scatter(true, true, "age", binary))


def test_traces_draw_the_prediction_only_where_it_was_hidden():
    masked = np.arange(200) >= 100
    traces = pd.DataFrame(
        {
            "recording_id": "sub-1",
            "parcel": 4,
            "t": np.arange(200),
            "true": 0.0,
            "predicted": np.where(masked, 1.0, np.nan),
            "masked": masked,
        }
    )
    assert "sub-1, parcel 4" in texts(charts.reconstruction_traces(traces))


def test_curves_of_an_interrupted_run():
    steps = pd.DataFrame({"step": [1, 2], "epoch": [1, 1], "loss": [1.0, 0.9]})
    none = pd.DataFrame(columns=["step", "epoch", "val_loss"])
    assert {"train", "loss (MSE of masked tokens)"} <= set(texts(learning_curve(steps, none)))
    told = texts(learning_curve(steps, none, loss="mae"))
    assert "masked tokens: MAE (train), MSE" in told
    assert "loss (MSE of masked tokens)" not in told


def test_a_curve_shows_r2_over_parcels_and_where_the_loss_is_lowest():
    steps = pd.DataFrame({"step": range(1, 7), "epoch": 1, "loss": 1.0})
    validations = pd.DataFrame(
        {
            "step": [2, 4, 6],
            "epoch": [1, 1, 2],
            "val_loss": [0.9, 0.7, 0.8],
            "val_r2": [None, 0.3, 0.2],
        }
    )
    told = texts(learning_curve(steps, validations))
    assert {"lowest validation loss (step 4)", "validation R²", "all parcels together"} <= set(told)
    assert "90% of parcels" not in told  # a log of an earlier version
    validations["val_r2_parcel_median"] = 0.25
    validations["val_r2_parcel_q05"], validations["val_r2_parcel_q95"] = [None, 0.0, 0.1], 0.5
    assert {"90% of parcels", "median parcel"} <= set(texts(learning_curve(steps, validations)))
