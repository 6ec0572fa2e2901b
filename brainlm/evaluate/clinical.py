"""A label of held-out subjects, predicted by the fine-tuned model and by plain baselines."""

from __future__ import annotations

import numpy as np

from ..model.heads import LabelModel
from ..model.label_unit import HeadCard
from ..model.mask import count_visible
from ..model.tokenizer import fewest_tokens
from ..shards.reader import ShardReader
from ..train.data import fewest_parcels
from ..train.finetune import predict
from ..train.labelled import LabelledData
from .label_scores import LabelScores, baselines, recordings_to_score, score


def evaluate_clinical(
    model: LabelModel,
    reader: ShardReader,
    data: LabelledData,
    *,
    target: str,
    kind: str,
    head: HeadCard,
    mask_ratio: float,
    batch_size: int,
    bootstrap: int,
    seed: int,
) -> LabelScores:
    """Score the test recordings that have the label, resampling subjects.

    `head` says how the model's outputs become labels. Predictions of several classes are told as
    the number of the most probable one.
    """
    test = recordings_to_score(reader, data, target, model.autoencoder.config.timepoints)
    fewest = fewest_parcels(reader, ("test",))
    n_visible = count_visible(mask_ratio, fewest_tokens(model.autoencoder.config, fewest))
    outputs = predict(
        model, reader, data.lengths["test"], n_visible=n_visible, seed=seed, batch_size=batch_size
    )
    own = head.to_label(np.stack([outputs[name] for name in test]))
    others, reasons = baselines(reader, data, kind)
    found = score(
        {"brainlm": own, **others},
        reasons,
        reader,
        data,
        target=target,
        kind=kind,
        bootstrap=bootstrap,
        seed=seed,
    )
    metrics = {
        "task": "clinical",
        **found.metrics,
        "n_visible_tokens": n_visible,
        "train_label_mean": data.scale.mean if kind == "regression" else None,
        "train_label_sd": data.scale.sd if kind == "regression" else None,
    }
    return LabelScores(metrics, found.predictions)
