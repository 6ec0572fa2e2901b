"""Table 2 of the paper: what follows a stretch of a recording, by each method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...wording import counted
from ..forecasts import METHODS, steps_figure
from ..metrics import Estimate, metric_name, smaller_is_better
from .parts import Material, Picture, Row, Section, Table
from .wording import cohort_name, estimate_of, p_text, printed, signed

#: The paper's order; then what the paper lacks.
ORDER = (
    "brainlm",
    "untrained",
    "lstm",
    "neural-ode",
    "latent-ode",
    "zero-shot",
    "persistence",
    "ar",
    "var",
    "mean",
)
_METRICS = ("r2", "pearson", "mse")
_ALL_STEPS = "all steps"


def section(material: Material) -> Section | None:
    """The forecasts' part of the page; None where they were not compared."""
    content = material.json("forecast")
    if content is None:
        return None
    cohorts, reference = content["cohorts"], content["reference"]
    methods = [name for name in ORDER if name in cohorts[0]["methods"]]
    steps = len(cohorts[0]["methods"][methods[0]]["by_step"])
    return Section(
        name="forecast",
        title="Forecasts",
        text=(
            f"The last {steps} volumes of each test window, forecast from those before. All "
            "methods saw the same past and are scored over the same entries; what must be fitted "
            "was fitted on train subjects and chosen on validation subjects. Intervals (95%) "
            "resample subjects. Each method's squared error is tested against that of "
            f"{_name(reference)} by sign flips over subjects, corrected by Holm."
        ),
        rows=tuple(_rows(cohorts, methods)),
        tables=(
            _scores(cohorts, methods),
            *(_tests(cohort, methods, reference) for cohort in cohorts if _tested(cohort)),
        ),
        pictures=tuple(
            Picture(
                name=f"forecast-steps{'' if cohort is cohorts[0] else '-' + cohort['cohort']}",
                caption=f"{cohort_name(cohort)}: scores by step into the future. The band is the "
                f"95% interval of {_name(reference)}. Squares mark steps at which a method's "
                "squared error differs from it (p < 0.05 after Holm's correction for methods and "
                "steps).",
                figure=steps_figure(cohort["methods"], reference),
            )
            for cohort in cohorts
        ),
        headline=_headline(cohorts[0], reference),
    )


def _scores(cohorts: list[dict[str, Any]], methods: list[str]) -> Table:
    """A row for each method; R2, r and MSE of each cohort."""
    columns = [(cohort, metric) for cohort in cohorts for metric in _METRICS]
    estimates = [
        [estimate_of(cohort["methods"][name]["metrics"][metric]) for cohort, metric in columns]
        for name in methods
    ]
    several = len(cohorts) > 1
    return Table(
        name="table-2-forecast",
        title="Forecasts of all steps together",
        columns=(
            "Method",
            *(
                f"{cohort_name(cohort)}, {metric_name(metric)}" if several else metric_name(metric)
                for cohort, metric in columns
            ),
        ),
        rows=tuple(
            (_name(name), *(printed(estimate) for estimate in line))
            for name, line in zip(methods, estimates, strict=True)
        ),
        note=_note(cohorts, [estimate for line in estimates for estimate in line]),
        best=frozenset(
            (row, column + 1)
            for column, (_, metric) in enumerate(columns)
            if (row := _best([line[column].value for line in estimates], metric)) is not None
        ),
    )


def _tests(cohort: Mapping[str, Any], methods: list[str], reference: str) -> Table:
    """By how much each method's error is more than the reference's, and p."""
    tested = [name for name in methods if cohort["methods"][name].get("p_holm") is not None]
    parts = [cohort["methods"][name] for name in tested]
    stem = "table-2-forecast-tests"
    return Table(
        name=stem if cohort["cohort"] == "all" else f"{stem}-{cohort['cohort']}",
        title=f"Squared error beside {_name(reference)}; {cohort_name(cohort)}",
        columns=("Method", "MSE more", "p", "p (Holm)"),
        rows=tuple(
            (
                _name(name),
                signed(part["mse_more_than_reference"], 4),
                p_text(part["p"]),
                p_text(part["p_holm"]),
            )
            for name, part in zip(tested, parts, strict=True)
        ),
    )


def _rows(cohorts: list[dict[str, Any]], methods: list[str]) -> Iterator[Row]:
    for cohort in cohorts:
        for name in methods:
            part = cohort["methods"][name]
            by_step = part.get("p_holm_by_step") or [None] * len(part["by_step"])
            yield from _of_scores(
                cohort, name, _ALL_STEPS, part["metrics"], part.get("p"), part.get("p_holm")
            )
            for step, (found, p) in enumerate(zip(part["by_step"], by_step, strict=True), start=1):
                yield from _of_scores(cohort, name, f"step {step}", found, None, p)


def _of_scores(
    cohort: Mapping[str, Any],
    method: str,
    condition: str,
    found: Mapping[str, Any],
    p: float | None,
    p_holm: float | None,
) -> Iterator[Row]:
    """One row for each score; tests are of the squared error."""
    for metric in _METRICS:
        score, tested = found[metric], metric == "mse"
        yield Row.of(
            score,
            task="forecast",
            method=method,
            metric=metric,
            cohort=cohort["cohort"],
            condition=condition,
            n_subjects=cohort["n_subjects"],
            p=p if tested else None,
            p_corrected=p_holm if tested else None,
        )


def _headline(cohort: Mapping[str, Any], reference: str) -> str:
    best = estimate_of(cohort["methods"][reference]["metrics"]["r2"])
    rivals = {
        name: part["metrics"]["r2"]["value"]
        for name, part in cohort["methods"].items()
        if name in ("persistence", "ar", "var", "mean")
        and part["metrics"]["r2"]["value"] is not None
    }
    beside = ""
    if rivals:
        name = max(rivals, key=lambda one: rivals[one])
        beside = f"; {_name(name)} {Estimate(rivals[name]).text}"
    return f"{_name(reference)}: R² {printed(best)}{beside}"


def _tested(cohort: Mapping[str, Any]) -> bool:
    return any(part.get("p_holm") is not None for part in cohort["methods"].values())


def _note(cohorts: list[dict[str, Any]], estimates: list[Estimate]) -> str:
    subjects = ", ".join(
        f"{cohort_name(one)}: {counted(one['n_subjects'], 'subject')}" for one in cohorts
    )
    reasons = dict.fromkeys(estimate.reason for estimate in estimates if estimate.reason)
    return "; ".join([subjects, *reasons]) + ". Bold: the best of a column."


def _best(values: list[float | None], metric: str) -> int | None:
    known = [(value, row) for row, value in enumerate(values) if value is not None]
    if len(known) < 2:
        return None
    return (min if smaller_is_better(metric) else max)(known)[1]


def _name(method: str) -> str:
    return METHODS[method][0]
