"""The report's section on forecasts."""

from __future__ import annotations

import base64
import re

import numpy as np
import pandas as pd
import pytest

from brainlm.config.forecasting import Forecasts
from brainlm.evaluate.forecast_scores import compare_forecasts
from brainlm.evaluate.forecasts import SUM_COLUMNS
from brainlm.report.forecasts import METHODS, forecasts

STEPS, SUBJECTS = 6, 12


def _table(error: float, cohort: str = "ukb") -> pd.DataFrame:
    """Sums of guesses that are off by `error` (SD) of a truth of variance 1."""
    rng = np.random.default_rng(3)
    truth = rng.standard_normal((SUBJECTS, STEPS, 50))
    guess = truth + error * np.random.default_rng(7).standard_normal(truth.shape)
    terms = (np.ones_like(truth), truth, truth**2, guess, guess**2, truth * guess)
    sums = np.stack(terms, axis=-1).sum(axis=2)
    rows = pd.DataFrame(sums.reshape(-1, 6), columns=list(SUM_COLUMNS))
    rows["step"] = np.tile(np.arange(1, STEPS + 1), SUBJECTS)
    rows["subject"] = np.repeat([f"{number:02d}" for number in range(SUBJECTS)], STEPS)
    rows["cohort"] = cohort
    return rows


@pytest.fixture(scope="module")
def content() -> dict:
    tables = {"brainlm": _table(0.3), "ar": _table(0.9), "mean": _table(1.2)}
    return compare_forecasts(
        tables, reference="brainlm", trained_on={"ukb"}, bootstrap=100, seed=0
    ).metrics


def test_every_method_has_a_name_and_a_colour() -> None:
    known = Forecasts.model_json_schema()["properties"]["methods"]["items"]["enum"]
    assert set(known) == set(METHODS)
    styles = [(color, line) for _, color, line in METHODS.values()]
    assert len(set(styles)) == len(styles)


def test_the_table_and_the_tests_are_those_of_the_comparison(content) -> None:
    [cohort] = forecasts(content)["cohorts"]
    assert [row["name"] for row in cohort["table"]["rows"]] == [
        "BrainLM, fine-tuned",
        "AR, each parcel",
        "Recording's own mean",
    ]
    assert [test["name"] for test in cohort["tests"]] == ["AR, each parcel", "Recording's own mean"]
    assert {test["p"] for test in cohort["tests"]} == {"< 0.001"}
    found = content["cohorts"][0]["methods"]["ar"]["mse_more_than_reference"]
    assert cohort["tests"][0]["more"] == f"{found:+.4f}"


def test_the_chart_marks_the_steps_that_differ(content) -> None:
    def squares(some) -> int:
        uri = forecasts(some)["cohorts"][0]["chart"]["uri"]
        svg = base64.b64decode(uri.partition(",")[2]).decode()
        return len(re.findall(r"<use [^>]*>", svg))

    nothing = {
        **content,
        "cohorts": [
            {
                **part,
                "methods": {
                    name: {**found, "p_holm_by_step": [1.0] * STEPS}
                    for name, found in part["methods"].items()
                },
            }
            for part in content["cohorts"]
        ],
    }
    assert squares(content) == squares(nothing) + 2 * STEPS


def test_without_a_comparison_there_is_no_section() -> None:
    assert forecasts(None) is None
