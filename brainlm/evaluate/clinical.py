"""A label of held-out subjects, predicted by the fine-tuned model and by plain baselines."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from ..model.heads import LabelModel
from ..model.label_unit import HeadCard
from ..shards.reader import ShardReader
from ..train.finetune import predict
from ..train.labelled import LabelledData
from .label_baselines import Material
from .label_scores import LabelScores, baselines, recordings_to_score, score


def evaluate_clinical(
    model: LabelModel,
    reader: ShardReader,
    data: LabelledData,
    *,
    target: str,
    kind: str,
    head: HeadCard,
    networks: Mapping[str, NDArray[np.float64]],
    as_frequent: Collection[str],
    mask_ratio: float,
    batch_size: int,
    bootstrap: int,
    most: int,
    seed: int,
) -> LabelScores:
    """Score the test recordings that have the label, resampling subjects.

    `head` says how the model's outputs become labels; `networks` are predictions by others, of the
    test recordings in the order of their names; `as_frequent`: those whose chances are of classes
    as frequent as they are, not alike. Predictions of several classes are told as the number of the
    most probable one.
    """
    test = recordings_to_score(reader, data, target, model.autoencoder.config.timepoints)
    outputs = predict(
        model, reader, data.lengths["test"], mask_ratio=mask_ratio, seed=seed, batch_size=batch_size
    )
    own = head.to_label(np.stack([outputs[name] for name in test]))
    given = Material(reader, data, target, kind, most, seed)
    others, reasons = baselines(given)
    found = score(
        {"brainlm": own, **networks, **others},
        reasons,
        given,
        bootstrap=bootstrap,
        as_frequent=as_frequent,
    )
    metrics = {
        "task": "clinical",
        **found.metrics,
        "mask_ratio": mask_ratio,
        "train_label_mean": data.scale.mean if kind == "regression" else None,
        "train_label_sd": data.scale.sd if kind == "regression" else None,
    }
    return LabelScores(metrics, found.predictions)
