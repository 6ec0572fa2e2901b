"""`brainlm evaluate-reconstruction`: how well hidden tokens of test subjects are guessed."""

from __future__ import annotations

import typer

from ._console import say
from ._stage import HERE, ParamsOption, StageRun, StudyOption, ThreadsOption


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("evaluate-reconstruction")(evaluate_reconstruction)


def evaluate_reconstruction(
    study: StudyOption = HERE, params: ParamsOption = None, threads: ThreadsOption = 1
) -> None:
    """Score masked reconstruction on the test split.

    Fixed windows and masks, decided by the seed and the recording. Writes R2, MSE and
    Pearson's r over all hidden entries with 95% intervals (bootstrap over subjects), R2 of
    each parcel, and the same scores of two guesses without a model: the recording's mean,
    and a line in time between the visible patches of the same parcel. Scores that the test
    set is too small for are null, with the reason. Files: evaluation/RUN/reconstruction.
    """
    from ..evaluate.reconstruction import evaluate_reconstruction as evaluate
    from ..shards.fingerprint import split_sha256
    from ..train.runtime import describe, set_up
    from ._training import headline, open_model, open_shards, write_metrics

    run = StageRun(
        "evaluate-reconstruction", study, params, software=("numpy", "safetensors", "torch")
    )
    reader = open_shards(run)
    loaded = open_model(run, "model", reader)
    device = set_up(run.params["pretrain"]["device"], threads)
    result = evaluate(
        loaded.autoencoder.to(device),
        reader,
        seed=run.params["seed"],
        mask_ratio=run.params["evaluate"]["mask_ratio"],
        bootstrap=run.params["evaluate"]["bootstrap"],
    )
    machine = describe(device, threads)
    with run.output("reconstruction_traces", about=machine) as path:
        result.traces.to_parquet(path, index=False)
    split = {"split_sha256": split_sha256(reader.table)}
    write_metrics(run, "reconstruction", {**result.metrics, **split, **machine})
    say(
        f"reconstruction of {result.metrics['n_subjects']} test subjects: "
        f"{headline(result.metrics, 'r2')}, {headline(result.metrics, 'pearson')}"
    )
