"""`brainlm probe`: what the frozen model's vectors know of a label."""

from __future__ import annotations

import typer

from ._console import say
from ._stage import HERE, ParamsOption, StageRun, StudyOption, ThreadsOption
from ._training import TargetOption, set_up


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("probe")(probe)


def probe(
    target: TargetOption,
    study: StudyOption = HERE,
    params: ParamsOption = None,
    threads: ThreadsOption = 1,
) -> None:
    """Predict a label from the vectors of `brainlm embed`, without training the network.

    It asks what pretraining alone has learned of the label; no GPU is needed, and seconds to
    minutes. Two fits on the train subjects: linear (ridge or logistic regression) and the nearest
    neighbours (in the same metrics.json, under `neighbours`); penalty and number of neighbours are
    chosen by cross-validation among train subjects, all recordings of one on the same side.
    probe.pool says which vectors (mean or cls), probe.average whether those of a subject's
    recordings are averaged. Scored on the test split as evaluate-clinical does, beside the same
    baselines. Files: evaluation/RUN/probe-TARGET.
    """
    from ..errors import DataError
    from ..evaluate.cross_validation import TooFewError
    from ..evaluate.label_baselines import Material
    from ..evaluate.probe import evaluate_probe
    from ..shards.fingerprint import split_sha256
    from ..train.labelled import labelled_data
    from ..train.runtime import describe
    from ..train.settings import read_finetune
    from ._embeddings import open_vectors
    from ._heads import warn_of_far_labels
    from ._training import headline, open_model, open_shards, write_metrics

    run = StageRun(
        "probe",
        study,
        params,
        extra_fields={"target": target},
        software=("numpy", "pyarrow", "scikit-learn", "scipy"),
    )
    wanted = read_finetune(run.params["finetune"]).target(target)
    machine = describe(set_up(run, "cpu", threads), threads)
    reader = open_shards(run)
    window = open_model(run, "model", reader).config.timepoints
    data = labelled_data(reader, wanted, window, validates=False)
    warn_of_far_labels(data, wanted)
    given = Material(
        reader,
        data,
        target,
        wanted.kind,
        run.params["evaluate"]["most_recordings"],
        run.params["seed"],
        open_vectors(run, reader),
        threads,
    )
    try:
        result = evaluate_probe(
            given,
            window=window,
            bootstrap=run.params["evaluate"]["bootstrap"],
            within_sites=run.params["evaluate"]["permute_within_sites"],
        )
    except TooFewError as error:
        raise DataError(
            f"The label {target} cannot be probed: {error}",
            file=reader.index_path,
            fix="choose another target, or add subjects",
        ) from None
    with run.output("probe_predictions", about=machine) as path:
        result.predictions.to_parquet(path, index=False)
    split = {"split_sha256": split_sha256(reader.table)}
    write_metrics(run, "probe", {**result.metrics, **split, **machine})
    name = "r2" if wanted.kind == "regression" else "auroc"
    subjects = result.metrics["n_subjects"]
    say(f"{target} in {subjects} test subjects, linear: {headline(result.metrics, name)}")
