"""`brainlm evaluate-reconstruction`: how well hidden tokens of test subjects are guessed."""

from __future__ import annotations

from typing import Any

import typer

from ._console import progress, say
from ._stage import HERE, ParamsOption, StageRun, StudyOption, ThreadsOption


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("evaluate-reconstruction")(evaluate_reconstruction)


def evaluate_reconstruction(
    study: StudyOption = HERE, params: ParamsOption = None, threads: ThreadsOption = 1
) -> None:
    """Score masked reconstruction on the test split.

    Fixed windows and masks, decided by the seed and the recording: random ones of
    evaluate.mask_ratio, and those of evaluate.masks. Writes R2, MSE and Pearson's r over all
    hidden entries with 95% intervals (bootstrap over subjects), of all test subjects and of each
    dataset where there are several, R2 of each parcel, and the same scores of two guesses
    without a model: the recording's mean, and a line in time between the visible patches of the
    same parcel (of a hidden future: its last value). Whole recordings are guessed besides, each
    entry hidden once, in evaluate.whole_masks turns. Scores that the test set is too small for
    are null, with the reason. Files: evaluation/RUN/reconstruction.
    """
    from ..evaluate.hiding import Condition
    from ..evaluate.reconstruction import evaluate_reconstruction as evaluate
    from ..evaluate.whole_recordings import reconstruct_whole
    from ..shards.fingerprint import split_sha256
    from ..train.runtime import describe
    from ._training import headline, open_model, open_shards, set_up, write_metrics

    run = StageRun(
        "evaluate-reconstruction", study, params, software=("numpy", "safetensors", "torch")
    )
    options = run.params["evaluate"]
    reader = open_shards(run)
    device = set_up(run, run.params["pretrain"]["device"], threads)
    model = open_model(run, "model", reader).autoencoder.to(device)
    how: dict[str, Any] = {
        "bootstrap": options["bootstrap"],
        "seed": run.params["seed"],
        "batch_size": run.params["pretrain"]["batch_size"],
    }
    result = evaluate(
        model,
        reader,
        main=Condition("random", options["mask_ratio"]),
        others=[Condition(**mask) for mask in options["masks"]],
        tick=lambda items, total: progress(items, "masked windows", total),
        **how,
    )
    machine = describe(device, threads)
    metrics = {**result.metrics, "whole": None}
    with run.output("reconstruction_traces", about=machine) as path:
        result.traces.to_parquet(path, index=False)
    run.path("reconstruction_whole").unlink(missing_ok=True)  # of other options
    if options["whole_masks"]:
        whole = reconstruct_whole(
            model,
            reader,
            masks=options["whole_masks"],
            most=options["whole_recordings"],
            tick=lambda items, total: progress(items, "whole recordings", total),
            **how,
        )
        metrics["whole"] = whole.metrics
        with run.output("reconstruction_whole", about=machine) as path:
            whole.traces.to_parquet(path, index=False)
    split = {"split_sha256": split_sha256(reader.table)}
    write_metrics(run, "reconstruction", {**metrics, **split, **machine})
    say(
        f"reconstruction of {metrics['n_subjects']} test subjects: "
        f"{headline(metrics, 'r2')}, {headline(metrics, 'pearson')}"
    )
