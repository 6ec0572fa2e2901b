"""`brainlm evaluate-clinical`: how well a label of test subjects is predicted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import typer

from ._console import say
from ._stage import HERE, ParamsOption, StageRun, StudyOption, ThreadsOption
from ._training import TargetOption

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ..model.label_unit import HeadCard
    from ..train.labelled import LabelledData
    from ..train.settings import TargetSettings


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("evaluate-clinical")(evaluate_clinical)


def evaluate_clinical(
    target: TargetOption,
    study: StudyOption = HERE,
    params: ParamsOption = None,
    threads: ThreadsOption = 1,
) -> None:
    """Score the fine-tuned model on the test split, beside plain baselines.

    Baselines, fitted on the same train subjects with what is to be chosen by cross-validation
    among them: the mean label (constant); ridge or logistic regression on functional connectivity
    (connectivity) and in its tangent space (tangent), on mean FD alone (motion), on dataset and
    site (site), on age and sex (demographics); support vectors on connectivity (svm). MSE, MAE, R2
    and r, or balanced accuracy and AUROC, with 95% intervals (bootstrap over subjects), and a test
    of each method against the model. Scores that the test set is too small for are null, with the
    reason. Files: evaluation/RUN/clinical-TARGET.
    """
    from ..errors import DataError
    from ..evaluate.clinical import evaluate_clinical as evaluate
    from ..model.heads import LabelModel
    from ..model.label_unit import HeadCard
    from ..shards.fingerprint import split_sha256
    from ..train.labelled import labelled_data
    from ..train.runtime import describe, set_up
    from ..train.settings import read_finetune
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
    device = set_up(run.params["pretrain"]["device"], threads)
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
        _check_same_label(head, wanted, data, run.path("finetuned"))
    else:
        _check_released(head, wanted, run.path("finetuned"))
    balanced = settings.class_weights == "balanced"
    result = evaluate(
        loaded.model.to(device),
        reader,
        data,
        target=target,
        kind=wanted.kind,
        head=head,
        networks=_by_networks(run, sorted(data.lengths["test"])),
        as_frequent=[
            *([] if ours and balanced else ["brainlm"]),
            *([] if balanced else run.params["networks"]["methods"]),
        ],
        mask_ratio=loaded.card.head_mask_ratio,
        batch_size=settings.batch_size,
        bootstrap=run.params["evaluate"]["bootstrap"],
        most=run.params["evaluate"]["most_recordings"],
        seed=run.params["seed"],
    )
    machine = describe(device, threads)
    with run.output("clinical_predictions", about=machine) as path:
        result.predictions.to_parquet(path, index=False)
    split = {"split_sha256": split_sha256(reader.table)}
    write_metrics(run, "clinical", {**result.metrics, **split, **machine})
    name = "r2" if wanted.kind == "regression" else "auroc"
    subjects = result.metrics["n_subjects"]
    say(f"{target} in {subjects} test subjects: {headline(result.metrics, name)}")


def _by_networks(run: StageRun, test: list[str]) -> dict[str, NDArray[np.float64]]:
    """Predictions that `predict-label` made of these recordings, by method."""
    import pandas as pd

    from ..errors import DataError

    found = {}
    for method in run.params["networks"]["methods"]:
        path = run.input("label_network", method=method)
        table = pd.read_parquet(path).set_index("recording_id")
        if sorted(table.index) != test:
            raise DataError(
                "These predictions are of other test recordings than the present ones",
                file=path,
                fix="run `brainlm predict-label` again, then this",
            )
        guesses = table.loc[test].to_numpy(dtype=float)
        found[method] = guesses[:, 0] if guesses.shape[1] == 1 else guesses
    return found


def _check_same_label(
    head: HeadCard, wanted: TargetSettings, data: LabelledData, path: Path
) -> None:
    """Refuse a head that learned another label, or the same on another scale."""
    from ..errors import DataError

    near = 1e-9 * data.scale.sd  # the last digits of a sum may differ between machines
    if (
        not _is_of(head, wanted)
        or (head.log, head.classes) != (data.scale.log, data.classes)
        or any(
            not math.isclose(
                getattr(head, key), getattr(data.scale, key), rel_tol=1e-9, abs_tol=near
            )
            for key in ("mean", "sd")
        )
    ):
        raise DataError(
            f"The model was fine-tuned on other values of the label {wanted.name} than the "
            "config and the shards have now",
            file=path,
            fix=f"run `brainlm finetune --target {wanted.name}` again, then this",
        )


def _check_released(head: HeadCard, wanted: TargetSettings, path: Path) -> None:
    """Refuse a head of BrainLM's authors of another label, or in nobody knows which unit."""
    from ..errors import DataError

    if head.unit == "as released" or not _is_of(head, wanted):
        raise DataError(
            f"This released model's head is not known to predict {wanted.name} ({wanted.kind}"
            + (f", 1 is {wanted.positive})" if wanted.positive else ")"),
            file=path,
            fix=f"`brainlm import-checkpoint --target {wanted.name}` with how the label was scaled "
            "(--mean and --sd, --min and --max, --log; --kind binary, --positive)",
        )


def _is_of(head: HeadCard, wanted: TargetSettings) -> bool:
    return all(
        getattr(head, key) == told
        for key, told in (
            ("name", wanted.name),
            ("kind", wanted.kind),
            ("positive", wanted.counts_as_one),
        )
    )
