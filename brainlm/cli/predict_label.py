"""`brainlm predict-label`: a label of test subjects, by a network trained from nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from ._console import say
from ._stage import HERE, ParamsOption, StageRun, StudyOption, ThreadsOption
from ._training import (
    RequeueOption,
    TargetOption,
    going_on_in_the_queue,
    open_shards,
    set_up,
    trials,
    window_of,
)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("predict-label")(predict_label)


def predict_label(
    target: TargetOption,
    method: Annotated[str, typer.Option("--method", help="lstm, gcn or mlp-raw")],
    study: StudyOption = HERE,
    params: ParamsOption = None,
    threads: ThreadsOption = 1,
    requeue: RequeueOption = False,
) -> None:
    """Train a network on one label from nothing, to be compared with the fine-tuned model.

    lstm reads windows of a recording time point by time point, gcn as a graph of parcels, mlp-raw
    all entries at once. Rate and epoch are chosen by the loss on the validation split. Writes its
    predictions of the test recordings to evaluation/RUN/clinical-TARGET/network-METHOD.parquet,
    which evaluate-clinical reads. Can be killed at any moment, as `brainlm finetune`.
    """
    import pandas as pd

    from ..errors import InputError
    from ..evaluate.baselines.recording_networks import NETWORKS
    from ..evaluate.from_nothing import NetworkPace
    from ..evaluate.label_networks import predict_by_network
    from ..train.labelled import labelled_data
    from ..train.runtime import describe, stop_signals
    from ..train.settings import read_finetune

    if method not in NETWORKS:
        raise InputError(f"There is no network {method}", fix=f"take one of {', '.join(NETWORKS)}")
    run = StageRun(
        "predict-label",
        study,
        params,
        extra_fields={"target": target, "method": method},
        software=("numpy", "pyarrow", "torch"),
    )
    settings = read_finetune(run.params["finetune"])
    wanted = settings.target(target)
    reader = open_shards(run)
    device = set_up(run, run.params["pretrain"]["device"], threads)
    machine = describe(device, threads)
    window = window_of(run, reader)
    data = labelled_data(reader, wanted, window)
    options = run.params["networks"]
    asked = [one for one in run.params["finetune"]["targets"] if one["name"] == target]
    learned = (method, window, asked, settings.class_weights)
    folder = run.path("label_network").parent / "checkpoints" / method
    with (
        stop_signals(run.params["pretrain"]["stop_before_end_s"]) as stop,
        going_on_in_the_queue(requeue),
    ):
        names, predictions, chosen = predict_by_network(
            method,
            reader,
            data,
            kind=wanted.kind,
            class_weights=settings.class_weights,
            window=window,
            pace=NetworkPace(options["epochs"], options["patience"], options["batch_size"]),
            search=options["search"],
            seed=run.params["seed"],
            device=device,
            around=trials(run, "networks", folder, learned, machine, stop),
        )
    columns = predictions[:, None] if predictions.ndim == 1 else predictions
    table = pd.DataFrame(columns, columns=[f"guess_{place}" for place in range(columns.shape[1])])
    table.insert(0, "recording_id", names)
    about = {**machine, "Method": method, "Chosen": chosen}
    with run.output("label_network", about=about) as path:
        table.to_parquet(path, index=False)
    say(f"{target} by {method}: {run.study.relative(run.path('label_network'))}")
