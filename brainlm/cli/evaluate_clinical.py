"""`brainlm evaluate-clinical`: how well a label of test subjects is predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from ._console import say
from ._stage import HERE, ParamsOption, StageRun, StudyOption, ThreadsOption
from ._training import TargetOption, set_up

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("evaluate-clinical")(evaluate_clinical)


def evaluate_clinical(
    target: TargetOption,
    study: StudyOption = HERE,
    params: ParamsOption = None,
    threads: ThreadsOption = 1,
) -> None:
    """Score the fine-tuned model on the test split, beside all that it is compared with.

    Methods, fitted on the same train subjects with what is to be chosen by cross-validation among
    them: the mean label (constant); ridge or logistic regression on functional connectivity
    (connectivity) and in its tangent space (tangent), on mean FD alone (motion), on dataset and
    site (site), on age and sex (demographics); support vectors (svm) and perceptrons (mlp) on
    connectivity; the same perceptrons, ridge and nearest neighbours on the frozen model's vectors
    (frozen-mlp, frozen-linear, frozen-neighbours); the networks of `predict-label`. MSE, MAE, R2
    and r, or balanced accuracy, AUROC and AUPRC, with 95% intervals (bootstrap over subjects); p of
    each method against permuted labels, and against the model; mean and SD over the repeats of the
    fine-tuning; each dataset by itself; with evaluate.leave_site_out each site left out. Scores
    that the test set is too small for are null, with the reason. Files:
    evaluation/RUN/clinical-TARGET.
    """
    from ..errors import DataError
    from ..evaluate.clinical import evaluate_clinical as evaluate
    from ..evaluate.label_baselines import Material
    from ..evaluate.label_scores import recordings_to_score
    from ..model.heads import LabelModel
    from ..model.label_unit import HeadCard
    from ..shards.fingerprint import split_sha256
    from ..train.labelled import labelled_data
    from ..train.runtime import describe
    from ..train.settings import read_finetune
    from ._embeddings import open_vectors
    from ._heads import check_released, check_same_label, warn_of_far_labels
    from ._training import headline, open_model, open_shards, write_metrics

    run = StageRun(
        "evaluate-clinical",
        study,
        params,
        extra_fields={"target": target},
        software=("numpy", "safetensors", "scikit-learn", "scipy", "torch"),
    )
    settings = read_finetune(run.params["finetune"])
    wanted = settings.target(target)
    reader = open_shards(run)
    loaded = open_model(run, "finetuned", reader)
    device = set_up(run, run.params["pretrain"]["device"], threads)
    if not isinstance(loaded.model, LabelModel):
        raise DataError(
            "This model has no head, so it predicts no label",
            file=run.path("finetuned"),
            fix=f"make it with `brainlm finetune --target {target}`",
        )
    data = labelled_data(reader, wanted, loaded.config.timepoints)
    head = HeadCard.from_dict(loaded.card.head or {})
    ours = loaded.card.split_sha256 is not None  # else the head was not trained here
    if ours:
        check_same_label(head, wanted, data, run.path("finetuned"))
        _check_class_weights(run)
    else:
        check_released(head, wanted, data, run.path("finetuned"))
    warn_of_far_labels(data, wanted)
    options = run.params["evaluate"]
    test = recordings_to_score(reader, data, target, loaded.config.timepoints)
    balanced = settings.class_weights == "balanced"
    given = Material(
        reader,
        data,
        target,
        wanted.kind,
        options["most_recordings"],
        run.params["seed"],
        open_vectors(run, reader),
        threads,
    )
    result = evaluate(
        loaded.model.to(device),
        given,
        head=head,
        networks=_by_networks(run, test),
        repeats=_by_repeats(run, test) if ours and settings.repeats > 1 else None,
        as_frequent=[
            *([] if ours and balanced else ["brainlm"]),
            *([] if balanced else run.params["networks"]["methods"]),
        ],
        mask_ratio=loaded.card.head_mask_ratio,
        batch_size=settings.batch_size,
        bootstrap=options["bootstrap"],
        within_sites=options["permute_within_sites"],
        without_sites=options["leave_site_out"],
    )
    machine = describe(device, threads)
    with run.output("clinical_predictions", about=machine) as path:
        result.predictions.to_parquet(path, index=False)
    split = {"split_sha256": split_sha256(reader.table)}
    write_metrics(run, "clinical", {**result.metrics, **split, **machine})
    name = "r2" if wanted.kind == "regression" else "auroc"
    subjects = result.metrics["n_subjects"]
    say(f"{target} in {subjects} test subjects: {headline(result.metrics, name)}")


def _check_class_weights(run: StageRun) -> None:
    """Refuse a model whose chances are of classes that weighed otherwise than the config says."""
    from ..errors import DataError
    from ..files import read_json
    from ..provenance import sidecar_path

    path = run.path("finetuned")
    made = read_json(sidecar_path(path))["Parameters"]["finetune"]["class_weights"]
    now = run.params["finetune"]["class_weights"]
    if made != now:
        raise DataError(
            f"The model was fine-tuned with class_weights: {made}, the config says {now}",
            file=path,
            fix=f"run `brainlm finetune --target {run.fields['target']}` again, then this",
        )


def _by_networks(run: StageRun, test: list[str]) -> dict[str, NDArray[np.float64]]:
    """Predictions that `predict-label` made of these recordings, by method.

    Refused when it learned from other shards (whose labels, splits or scaler may differ) or was
    asked for the label otherwise: its numbers would be of another unit, or of other chances.
    """
    import pandas as pd

    from ..errors import DataError
    from ..files import read_json
    from ..provenance import sidecar_path

    index = run.study.relative(run.path("shards_index"))
    found = {}
    for method in run.params["networks"]["methods"]:
        path = run.input("label_network", method=method)
        made = read_json(sidecar_path(path))
        table = pd.read_parquet(path).set_index("recording_id")
        if (
            sorted(table.index) != test
            or made["Sources"].get(index) != run.sources[index]
            or _asked(made["Parameters"], run) != _asked(run.params, run)
        ):
            raise DataError(
                "These predictions are of other test recordings, of other shards or of other "
                "options of the label than the present ones",
                file=path,
                fix=f"run `brainlm predict-label --target {run.fields['target']} --method "
                f"{method}` again, then this",
            )
        guesses = table.loc[test].to_numpy(dtype=float)
        found[method] = guesses[:, 0] if guesses.shape[1] == 1 else guesses
    return found


def _asked(params: Mapping[str, Any], run: StageRun) -> tuple[list[Any], str]:
    """What decides the meaning of a prediction: the label's options, and how classes weigh."""
    options = params["finetune"]
    targets = [one for one in options["targets"] if one["name"] == run.fields["target"]]
    return targets, options["class_weights"]


def _by_repeats(run: StageRun, test: list[str]) -> NDArray[np.float64]:
    """Outputs of the heads of all repeats, (repeats, recordings), of classes one more axis."""
    import numpy as np
    import pandas as pd

    from ..errors import DataError
    from ..files import read_json
    from ..provenance import sidecar_path

    path = run.input("repeats")
    of_model = read_json(sidecar_path(run.path("finetuned")))
    table = pd.read_parquet(path)
    names = [sorted(own) for _, own in table.groupby("repeat")["recording_id"]]
    if (
        read_json(sidecar_path(path))["Sources"] != of_model["Sources"]
        or any(own != test for own in names)
        or len(names) != of_model["Repeats"]["repeats"]
    ):
        raise DataError(
            "These predictions are of other test recordings or of another fine-tuning than the "
            "present ones",
            file=path,
            fix=f"run `brainlm finetune --target {run.fields['target']}` again, then this",
        )
    ordered = table.sort_values(["repeat", "recording_id"]).drop(columns=["repeat", "recording_id"])
    outputs = ordered.to_numpy(dtype=np.float64).reshape(len(names), len(test), -1)
    return outputs[..., 0] if outputs.shape[2] == 1 else outputs
