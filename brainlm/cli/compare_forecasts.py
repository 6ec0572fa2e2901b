"""`brainlm compare-forecasts`: the methods of forecasting side by side."""

from __future__ import annotations

import typer

from ._console import say
from ._stage import HERE, ParamsOption, StageRun, StudyOption


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("compare-forecasts")(compare_forecasts)


def compare_forecasts(study: StudyOption = HERE, params: ParamsOption = None) -> None:
    """Score all of forecasts.methods at each step into the future; test the first against the rest.

    MSE, R2 and Pearson's r with 95% intervals (bootstrap over subjects), of all test subjects and,
    where there are several, of each dataset (external: nobody of it was trained on). The first
    method is tested against each other one by sign flips of the subjects' differences in MSE,
    corrected by Holm. Writes metrics.json and the tidy scores.tsv to evaluation/RUN/forecast.
    """
    import pandas as pd

    from ..evaluate.cohorts import datasets_trained_on
    from ..evaluate.forecast_scores import compare_forecasts as compare
    from ..files import read_json
    from ..provenance import sidecar_path
    from ._training import headline, write_metrics

    run = StageRun("compare-forecasts", study, params, software=("numpy", "pandas", "scipy"))
    methods = run.params["forecasts"]["methods"]
    paths = {method: run.input("forecast_sums", method=method) for method in methods}
    tables = {method: pd.read_parquet(path) for method, path in paths.items()}
    result = compare(
        tables,
        reference=methods[0],
        trained_on=datasets_trained_on(pd.read_parquet(run.input("shards_index"))),
        bootstrap=run.params["evaluate"]["bootstrap"],
        seed=run.params["seed"],
    )
    chosen = {name: read_json(sidecar_path(path))["Chosen"] for name, path in paths.items()}
    with run.output("forecast_scores") as path:
        result.table.to_csv(path, sep="\t", index=False, na_rep="n/a")
    write_metrics(run, "forecast", {**result.metrics, "chosen": chosen})
    whole = result.metrics["cohorts"][0]
    say(
        f"{methods[0]}, all steps, {whole['n_subjects']} test subjects: "
        + headline(whole["methods"][methods[0]], "r2")
    )
