"""`brainlm evaluate-latent`: what lies near what among the recordings' vectors."""

from __future__ import annotations

import typer

from ..wording import counted
from ._console import say
from ._stage import HERE, ParamsOption, StageRun, StudyOption, ThreadsOption


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("evaluate-latent")(evaluate_latent)


def evaluate_latent(
    study: StudyOption = HERE, params: ParamsOption = None, threads: ThreadsOption = 1
) -> None:
    """Map the vectors of `brainlm embed`, and ask test recordings' neighbours for their labels.

    Maps: principal components of the train split, and UMAP (needs the package umap-learn; left out,
    with the reason, where it is not installed). Scores: what the nearest recordings of other test
    subjects say of each label (finetune.targets and latent.labels), among the vectors and on the
    maps, with intervals, chance and p by dealing labels out anew among subjects; and how often the
    nearest recording is the same subject's. Files: evaluation/RUN/latent.
    """
    from ..evaluate.latent import evaluate_latent as evaluate
    from ..evaluate.latent_labels import latent_labels
    from ..evaluate.latent_neighbours import Judged
    from ..shards.fingerprint import split_sha256
    from ..train.runtime import describe
    from ..train.settings import read_finetune
    from ._embeddings import present_vectors
    from ._training import open_model, open_shards, set_up, write_metrics

    run = StageRun(
        "evaluate-latent", study, params, software=("numpy", "pyarrow", "scikit-learn", "scipy")
    )
    options, seed = run.params["latent"], run.params["seed"]
    machine = describe(set_up(run, "cpu", threads), threads)
    reader = open_shards(run)
    open_model(run, "model", reader)
    names, vectors = present_vectors(run, options["pool"])
    targets = read_finetune(run.params["finetune"]).targets
    result = evaluate(
        names,
        vectors,
        reader,
        latent_labels(reader.table.loc[names], targets, options["labels"]),
        Judged(
            options["neighbours"],
            run.params["evaluate"]["bootstrap"],
            options["permutations"],
            seed,
        ),
        most=options["most_recordings"],
    )
    with run.output("latent_coordinates", about=machine) as path:
        result.coordinates.to_parquet(path, index=False)
    split = {"pool": options["pool"], "split_sha256": split_sha256(reader.table)}
    write_metrics(run, "latent", {**result.metrics, **split, **machine})
    if reason := result.metrics.get("reason"):
        say(f"no map: {reason}; train the model for longer, or try another latent.pool")
    elif reason := result.metrics["umap"].get("reason"):
        say(f"no UMAP: {reason}")
    say(
        f"{counted(len(result.coordinates), 'recording')}: {run.study.relative(run.path('latent'))}"
    )
