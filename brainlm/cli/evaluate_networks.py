"""`brainlm evaluate-networks`: which functional network a parcel belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from ._console import progress, say
from ._stage import HERE, ParamsOption, StageRun, StudyOption, ThreadsOption
from ._training import (
    RequeueOption,
    going_on_in_the_queue,
    headline,
    open_model,
    open_shards,
    set_up,
    trials,
    write_metrics,
)

if TYPE_CHECKING:
    import torch

    from ..evaluate.baselines.parcel_autoencoder import ParcelAutoencoder
    from ..model.config import ModelConfig
    from ..shards.reader import ShardReader
    from ..train.runtime import StopRequest


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("evaluate-networks")(evaluate_networks)


def evaluate_networks(
    study: StudyOption = HERE,
    params: ParamsOption = None,
    threads: ThreadsOption = 1,
    requeue: RequeueOption = False,
) -> None:
    """Tell the functional network of parcels from those most like them, in each test recording.

    A fifth of the parcels with a known network is asked for. What parcels are alike by: the
    model's attention between them (layer and head chosen on val recordings), the raw series, two
    autoencoders trained from nothing (vae, gcn), and connectivity; beside chance. Accuracy with 95%
    intervals, tests against attention, confusion matrices. Can be killed at any moment, and goes
    on. Files: evaluation/RUN/networks.
    """
    from ..evaluate.attention_recordings import drawn_recordings
    from ..evaluate.parcel_networks import Networks, NoNetworksError
    from ..evaluate.parcel_networks import evaluate_networks as evaluate
    from ..evaluate.parcel_networks_features import choose_attention
    from ..shards.fingerprint import split_sha256
    from ..train.runtime import describe, stop_signals

    run = StageRun(
        "evaluate-networks",
        study,
        params,
        software=("numpy", "pandas", "safetensors", "scipy", "torch"),
    )
    options, seed = run.params["parcel_networks"], run.params["seed"]
    reader = open_shards(run)
    try:
        networks = Networks.of(reader.parcels)
    except NoNetworksError as reason:
        _write_nothing(run, str(reason), split_sha256(reader.table))
        return
    model = open_model(run, "model", reader).autoencoder
    device = set_up(run, run.params["pretrain"]["device"], threads)
    machine = describe(device, threads)
    model = model.to(device).eval()
    window = model.config.timepoints
    test = drawn_recordings(reader, "test", window, options["most_recordings"], seed)
    val = drawn_recordings(reader, "val", window, options["search_recordings"], seed)
    with (
        stop_signals(run.params["pretrain"]["stop_before_end_s"]) as stop,
        going_on_in_the_queue(requeue),
    ):
        trained = _autoencoders(run, reader, model.config, device, machine, stop)
    choice, tried = choose_attention(model, reader, val, networks.of_parcel, seed)
    say(f"attention: {choice.name} (of {len(tried)}, on {len(val)} val recordings)")
    result = evaluate(
        model,
        reader,
        test,
        networks,
        choice,
        {name: network for name, (network, _) in trained.items()},
        spatial_mm=options["spatial_mm"],
        bootstrap=run.params["evaluate"]["bootstrap"],
        seed=seed,
        progress=lambda names: progress(names, "networks"),
    )
    with run.output("networks_predictions", about=machine) as path:
        result.predictions.to_parquet(path, index=False)
    image = model.config.tokenizer == "image"
    about = {
        "task": "networks",
        "attention": {
            "chosen": choice.name,
            "n_val_recordings": len(val),
            "tried": tried,
            "parcels_of_a_token": model.config.patch if image else 1,
        },
        "autoencoders": {name: chosen for name, (_, chosen) in trained.items()},
    }
    split = {"split_sha256": split_sha256(reader.table)}
    write_metrics(run, "networks", {**about, **result.metrics, **split, **machine})
    found = result.metrics["cohorts"][0]["schemes"]["random"]
    for method in found:
        say(f"{method}: {headline(found[method], 'accuracy')}")


def _write_nothing(run: StageRun, reason: str, split: str) -> None:
    """Both files, with the reason: an atlas without networks must not stop what follows."""
    import pandas as pd

    columns = ("recording_id", "subject", "scheme", "method", "parcel", "true", "told")
    with run.output("networks_predictions") as path:
        pd.DataFrame(columns=list(columns)).to_parquet(path, index=False)
    write_metrics(run, "networks", {"task": "networks", "reason": reason, "split_sha256": split})
    say(f"networks: not told, {reason}")


def _autoencoders(
    run: StageRun,
    reader: ShardReader,
    model: ModelConfig,
    device: torch.device,
    machine: dict[str, Any],
    stop: StopRequest,
) -> dict[str, tuple[ParcelAutoencoder, dict[str, Any]]]:
    """Method -> its network, trained, and how."""
    from ..evaluate.from_nothing import NetworkPace
    from ..evaluate.parcel_networks_trained import Hiding, fit_autoencoder

    options = run.params["parcel_networks"]
    hiding = Hiding(model.timepoints, model.patch, run.params["evaluate"]["mask_ratio"])
    pace = NetworkPace(options["epochs"], options["patience"], options["batch_size"])
    learned = (hiding.window, hiding.patch, hiding.ratio)
    return {
        method: fit_autoencoder(
            method,
            reader,
            hiding,
            pace,
            most=options["most_train_recordings"],
            search=options["search"],
            seed=run.params["seed"],
            device=device,
            around=trials(
                run,
                "parcel_networks",
                run.path("networks").parent / "checkpoints" / method,
                (method, *learned),
                machine,
                stop,
            ),
        )
        for method in options["autoencoders"]
    }
