"""`brainlm compare-scaling`: the points of the scaling curves side by side."""

from __future__ import annotations

import typer

from ._console import say
from ._stage import HERE, ParamsOption, StageRun, StudyOption


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("compare-scaling")(compare_scaling)


def compare_scaling(study: StudyOption = HERE, params: ParamsOption = None) -> None:
    """Put together how reconstruction goes with the model's size and the number of train subjects.

    R2, MSE and Pearson's r of each point of the section scaling with 95% intervals (bootstrap over
    subjects), of all test subjects and of each dataset by itself where there are several; and power
    laws of the squared error where three points or more differ in one thing alone. Writes
    evaluation/RUN/scaling/metrics.json.
    """
    import pandas as pd

    from ..config import scaling_points
    from ..errors import InputError
    from ..evaluate.scaling import Point
    from ..evaluate.scaling import compare_scaling as compare
    from ..files import read_json
    from ..provenance import sidecar_path
    from ._training import write_metrics

    run = StageRun("compare-scaling", study, params, software=("numpy", "pandas"))
    names = list(scaling_points(run.params["scaling"]))
    if not names:
        raise InputError(
            "There are no scaling curves to make: scaling.sizes is empty",
            fix="name sizes in the config, e.g. scaling: {sizes: [{name: tiny, preset: tiny}]}",
        )
    points = []
    for name in names:
        path = run.input("scaling_sums", point=name)
        points.append((Point(**read_json(sidecar_path(path))["Point"]), pd.read_parquet(path)))
    metrics = compare(
        points, bootstrap=run.params["evaluate"]["bootstrap"], seed=run.params["seed"]
    )
    write_metrics(run, "scaling", metrics)
    everybody = metrics["cohorts"][0]
    for name in names:
        value = everybody["points"][name]["r2"]["value"]
        say(f"{name}: R2 {'n/a' if value is None else f'{value:.3f}'}")
