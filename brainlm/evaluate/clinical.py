"""A label of held-out subjects: by the fine-tuned model and by all that it is compared with."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..model.heads import LabelModel
from ..model.label_unit import HeadCard
from ..train.finetune import predict
from .label_baselines import BASELINES, Material
from .label_scores import LabelScores, check_finite, predictions_by, score, scorer_of
from .leave_site_out import leave_site_out
from .probe import ON_VECTORS
from .statistics import or_none

Floats = NDArray[np.float64]

#: What is fitted here, in the order of the table.
METHODS = {**ON_VECTORS, **BASELINES}


def evaluate_clinical(
    model: LabelModel,
    given: Material,
    *,
    head: HeadCard,
    networks: Mapping[str, Floats],
    repeats: Floats | None,
    as_frequent: Collection[str],
    mask_ratio: float,
    batch_size: int,
    bootstrap: int,
    within_sites: bool,
    without_sites: bool,
) -> LabelScores:
    """Score the test recordings that have the label, resampling subjects.

    `head` says how the model's outputs become labels; `networks` are predictions by others, of the
    test recordings in the order of their names; `repeats` the outputs of each repeat of the
    fine-tuning, (repeats, recordings) or (repeats, recordings, classes); `as_frequent`: those whose
    chances are of classes as frequent as they are, not alike. `without_sites`: leave each site out
    as well. Predictions of several classes are told as the number of the most probable one.
    """
    data, kind = given.data, given.kind
    outputs = predict(
        model,
        given.reader,
        data.lengths["test"],
        mask_ratio=mask_ratio,
        seed=given.seed,
        batch_size=batch_size,
    )
    own = head.to_label(np.stack([outputs[name] for name in given.test]))
    others, reasons = predictions_by(METHODS, given)
    found = score(
        {"brainlm": own, **networks, **others},
        reasons,
        given,
        bootstrap=bootstrap,
        as_frequent=as_frequent,
        within_sites=within_sites,
    )
    asked = {name: method for name, method in METHODS.items() if name != "site"}
    metrics = {
        "task": "clinical",
        **found.metrics,
        "repeats": _over_repeats(repeats, head, given),
        "leave_site_out": leave_site_out(given, asked, bootstrap) if without_sites else None,
        "mask_ratio": mask_ratio,
        "train_label_mean": data.scale.mean if kind == "regression" else None,
        "train_label_sd": data.scale.sd if kind == "regression" else None,
        "label_log": data.scale.log,
    }
    return LabelScores(metrics, found.predictions)


def _over_repeats(repeats: Floats | None, head: HeadCard, given: Material) -> dict[str, Any] | None:
    """Mean and SD (n - 1) of each metric over the repeats of the fine-tuning.

    All count, also those that validation did not choose.
    """
    if repeats is None:
        return None
    truth = given.data.truth(given.test)
    guesses = {f"repeat {n}": head.to_label(one) for n, one in enumerate(repeats, start=1)}
    check_finite(guesses, given.test)
    each = [scorer_of(given)(truth, guess) for guess in guesses.values()]
    metrics = {}
    for name in each[0]:
        values = np.array([one[name] for one in each])
        metrics[name] = {
            "mean": or_none(values.mean()),
            "sd": or_none(values.std(ddof=1)) if len(values) > 1 else None,
            "values": [or_none(value) for value in values],
        }
    return {"n": len(each), "metrics": metrics}
