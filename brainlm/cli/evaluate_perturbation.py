"""`brainlm evaluate-perturbation`: what the forecast does when the past is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from ._console import progress, say
from ._stage import HERE, ParamsOption, StageRun, StudyOption, ThreadsOption

if TYPE_CHECKING:
    import pandas as pd

    from ..evaluate.perturbation import Experiment


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("evaluate-perturbation")(evaluate_perturbation)


def evaluate_perturbation(
    study: StudyOption = HERE, params: ParamsOption = None, threads: ThreadsOption = 1
) -> None:
    """Change the past of chosen parcels of test recordings and see what the forecast makes of it.

    perturbation.experiments says what is changed; by default each network of parcels.tsv is
    silenced, and doubled. The forecaster is the model that was fine-tuned to forecast, or the
    pretrained one (zero-shot) where finetune.forecast is false. Effects are forecast after the
    change less forecast as it was, of each parcel, over subjects, with intervals, p and false
    discovery rates; beside them shams, the same change of as many random parcels. It shows what the
    network expects, not what causes what in a brain. Files: evaluation/RUN/perturbation.
    """
    import pandas as pd

    from ..evaluate.forecasters import Horizon, ModelForecaster
    from ..evaluate.perturbation import Laboratory, draw_windows
    from ..evaluate.perturbation_scores import correct_shams, effects_table, experiment_scores
    from ..evaluate.units import told_units
    from ..shards.fingerprint import split_sha256
    from ..train.runtime import describe
    from ._training import open_model, open_shards, set_up, write_metrics

    run = StageRun(
        "evaluate-perturbation",
        study,
        params,
        software=("numpy", "pyarrow", "safetensors", "scipy", "torch"),
    )
    options, seed = run.params["perturbation"], run.params["seed"]
    tuned = run.params["finetune"]["forecast"]
    reader = open_shards(run)
    loaded = open_model(run, "forecaster" if tuned else "model", reader)
    device = set_up(run, run.params["pretrain"]["device"], threads)
    steps = run.params["finetune"]["forecast_timepoints"]
    horizon = Horizon(loaded.config.timepoints, steps, options["batch_size"], device)
    windows = draw_windows(reader, horizon.window, options["most_recordings"], seed)
    forecaster = ModelForecaster(loaded.autoencoder.to(device))
    laboratory = Laboratory(forecaster, reader, windows, horizon)
    units = laboratory.units
    how: dict[str, Any] = {"bootstrap": run.params["evaluate"]["bootstrap"], "seed": seed}
    tables, scores = [], []
    for experiment in progress(_experiments(reader.parcels, options), "experiments"):
        shams = [
            experiment.sham(reader.n_parcels, number, seed)
            for number in range(1, options["shams"] + 1)
        ]
        found, *of_shams = laboratory.run([experiment, *shams])
        beside = list(zip(shams, of_shams, strict=True))
        tables.append(effects_table(experiment, found, beside, reader.parcels, units=units, **how))
        scores.append(
            experiment_scores(
                experiment, found, beside, tables[-1], reader.parcels, units=units, **how
            )
        )
    correct_shams(scores)
    machine = describe(device, threads)
    metrics: dict[str, Any] = {
        "task": "perturbation",
        "forecaster": "fine-tuned" if tuned else "zero-shot",
        "steps": steps,
        "past": horizon.window - steps,
        "n_subjects": len(laboratory.subjects),
        **told_units(len(laboratory.subjects), units),
        "n_recordings": len({window.recording_id for window in windows}),
        "n_windows": len(windows),
        "null_effect": laboratory.null(),
        "experiments": scores,
        **how,
    }
    if not scores:
        metrics["reason"] = "parcels.tsv names no networks, and perturbation.experiments none"
    with run.output("perturbation_effects", about=machine) as path:
        whole = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
        whole.to_parquet(path, index=False)
    split = {"split_sha256": split_sha256(reader.table)}
    write_metrics(run, "perturbation", {**metrics, **split, **machine})
    say(
        f"{len(scores)} experiments on {len(laboratory.subjects)} test subjects: "
        f"{run.study.relative(run.path('perturbation'))}"
    )


def _experiments(parcels: pd.DataFrame, options: dict[str, Any]) -> list[Experiment]:
    """Those of the config, or the default ones."""
    from ..evaluate.perturbation import Experiment, default_experiments
    from ..model.perturbation import Change, networks_of, parcel_rows

    if options["experiments"] is None:
        return default_experiments(parcels)
    found = []
    for one in options["experiments"]:
        rows = parcel_rows(parcels, one["parcels"])
        change = Change(rows, one["factor"], one["value"], one["last"])
        named = [name for name in one["parcels"] if name in networks_of(parcels)]
        network = named[0] if len(one["parcels"]) == len(named) == 1 else None
        found.append(Experiment(one["name"], change, network, one["other"]))
    return found
