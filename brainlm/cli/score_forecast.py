"""`brainlm score-forecast`: how well one method says what follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._console import say
from ._stage import HERE, ParamsOption, StageRun, StudyOption, ThreadsOption
from ._training import (
    RequeueOption,
    going_on_in_the_queue,
    open_model,
    open_shards,
    set_up,
    trials,
    window_of,
)

if TYPE_CHECKING:
    import torch

    from ..evaluate.forecasters import Horizon
    from ..evaluate.forecasts import Forecaster
    from ..shards.reader import ShardReader
    from ..train.runtime import StopRequest


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("score-forecast")(score_forecast)


def score_forecast(
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="brainlm, untrained, zero-shot, mean, persistence, ar, var, lstm, neural-ode or "
            "latent-ode",
        ),
    ],
    study: StudyOption = HERE,
    params: ParamsOption = None,
    threads: ThreadsOption = 1,
    requeue: RequeueOption = False,
) -> None:
    """Forecast the end of the test split's windows by one method, and keep the sums of its errors.

    The first time points of each window are shown, the last finetune.forecast_timepoints are to be
    said. Methods that must be fitted are fitted on the train split, and chosen by their error on
    the validation split. Writes evaluation/RUN/forecast/METHOD.parquet; compare-forecasts makes
    scores of it. Networks that are trained here can be killed at any moment, as `brainlm
    finetune`.
    """
    from ..evaluate.forecasts import forecast_error, forecast_table
    from ..shards.sampler import even_windows
    from ..train.runtime import describe, stop_signals
    from ..train.validation import defined

    run = StageRun(
        "score-forecast",
        study,
        params,
        extra_fields={"method": method},
        software=("numpy", "pyarrow", "torch"),
    )
    reader = open_shards(run)
    device = set_up(run, run.params["pretrain"]["device"], threads)
    machine = describe(device, threads)
    with (
        stop_signals(run.params["pretrain"]["stop_before_end_s"]) as stop,
        going_on_in_the_queue(requeue),
    ):
        forecaster, horizon, chosen = _method(run, method, reader, device, machine, stop)
    val, test = (even_windows(reader.lengths(split), horizon.window) for split in ("val", "test"))
    error = forecast_error(forecaster, reader, val, **horizon.how)
    chosen = {**chosen, "val_mse": defined(error)}
    table = forecast_table(forecaster, reader, test, **horizon.how)
    about = {**machine, "Method": method, "Chosen": chosen}
    with run.output("forecast_sums", about=about) as path:
        table.to_parquet(path, index=False)
    subjects = table[["cohort", "subject"]].drop_duplicates()
    say(f"{method}: forecasts of {len(subjects)} test subjects, {horizon.future} time points each")


def _method(
    run: StageRun,
    method: str,
    reader: ShardReader,
    device: torch.device,
    machine: dict[str, Any],
    stop: StopRequest,
) -> tuple[Forecaster, Horizon, dict[str, Any]]:
    """The forecaster, what it is to forecast, and what was chosen in making it."""
    from ..errors import InputError
    from ..evaluate.forecast_networks import NETWORKS, fit_network
    from ..evaluate.forecasters import LINEAR, Horizon, ModelForecaster, fit_linear
    from ..layout import FORECAST_MODELS

    known = (*FORECAST_MODELS, *LINEAR, *NETWORKS)
    if method not in known:
        raise InputError(f"There is no method {method}", fix=f"take one of {', '.join(known)}")
    options = run.params["forecasts"]
    future = run.params["finetune"]["forecast_timepoints"]
    if method in FORECAST_MODELS:
        loaded = open_model(run, FORECAST_MODELS[method], reader)
        horizon = Horizon(loaded.config.timepoints, future, options["batch_size"], device)
        _check_windows(reader, horizon)
        return ModelForecaster(loaded.autoencoder.to(device)), horizon, {}
    horizon = Horizon(window_of(run, reader), future, options["batch_size"], device)
    _check_windows(reader, horizon)
    if method in LINEAR:
        forecaster, chosen = fit_linear(method, reader, horizon)
        return forecaster, horizon, chosen
    folder = run.path("forecast_sums").parent / "checkpoints" / method
    network, chosen = fit_network(
        method,
        reader,
        horizon,
        epochs=options["epochs"],
        patience=options["patience"],
        search=options["search"],
        seed=run.params["seed"],
        around=trials(run, "forecasts", folder, (method, horizon.window, future), machine, stop),
    )
    return network, horizon, chosen


def _check_windows(reader: ShardReader, horizon: Horizon) -> None:
    """Refuse what cannot be scored in the end, before a network is trained for it."""
    from ..shards.sampler import check_any_window

    for split in ("val", "test"):
        check_any_window(reader.lengths(split), horizon.window, split)
