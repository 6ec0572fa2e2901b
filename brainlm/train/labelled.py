"""Recordings with a label: which ones, on which scale, and how far off a guess is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError
from ..model.label_unit import HeadCard
from ..shards.labels import LabelScale, class_names, read_label
from ..shards.reader import ShardReader
from .settings import FinetuneSettings, TargetSettings
from .task import Loss

_FEWEST_TRAIN_SUBJECTS = 3
_FEWEST_CLASSES = 3


@dataclass(frozen=True)
class LabelledData:
    """Recordings with a label and a whole window, by split."""

    values: dict[str, float]  # recording_id -> label in its own unit, or number of its class
    lengths: dict[str, dict[str, int]]  # split -> recording_id -> time points
    scale: LabelScale
    missing: dict[str, int]  # split -> recordings without this label
    classes: tuple[str, ...] = ()  # of kind classes: their names

    @property
    def n_missing(self) -> int:
        """Recordings of the three splits without this label."""
        return sum(self.missing.values())

    @property
    def told_missing(self) -> str:
        """How many those are, in words."""
        parts = ", ".join(f"{count} {split}" for split, count in self.missing.items() if count)
        return f"{self.n_missing} recordings ({parts})"

    def truth(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Labels of these recordings, in their own unit."""
        return np.array([self.values[name] for name in names])

    def to_label(self, kind: str, outputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Outputs of a head in the label's own unit; of classes, probabilities."""
        head = HeadCard(
            name="",
            kind=kind,
            positive=None,
            mean=self.scale.mean,
            sd=self.scale.sd,
            dropout=0.0,
            outputs=len(self.classes) or 1,
            log=self.scale.log,
        )
        return head.to_label(outputs)


def labelled_data(
    reader: ShardReader, target: TargetSettings, window: int, *, validates: bool = True
) -> LabelledData:
    """Join labels and shards; refuse what cannot be learned from, or not be validated on."""
    labels = read_label(
        reader.table, target.name, target.kind, target.positive, target.threshold
    ).dropna()
    values = {str(name): float(value) for name, value in labels.items()}
    lengths = {
        split: {
            name: length
            for name, length in reader.lengths(split).items()
            if name in values and length >= window
        }
        for split in ("train", "val", "test")
    }
    without = ~reader.table["recording_id"].isin(list(values))
    subjects = reader.table.loc[list(lengths["train"]), "subject"].nunique()
    if subjects < _FEWEST_TRAIN_SUBJECTS or (validates and not lengths["val"]):
        to_validate = f" and {len(lengths['val'])} recordings to validate on" if validates else ""
        raise DataError(
            f"Too few subjects have the label {target.name}: {subjects} to train on (needed "
            f"{_FEWEST_TRAIN_SUBJECTS}){to_validate}",
            fix="choose another target, add subjects, or change the split",
        )
    classes = class_names(reader.table, target.name) if target.kind == "classes" else ()
    train = np.array([values[name] for name in sorted(lengths["train"])])
    if classes and len(np.unique(train)) < max(len(classes), _FEWEST_CLASSES):
        raise DataError(
            f"The label {target.name} has {len(np.unique(train))} classes in the train split, or "
            "some only in recordings that are too short",
            fix="with two classes set kind: binary and positive; else merge rare classes",
        )
    return LabelledData(
        values=values,
        lengths=lengths,
        scale=LabelScale.fit(train, target.kind, target.name, target.transform),
        missing={
            split: int((without & (reader.table["split"] == split)).sum()) for split in lengths
        },
        classes=classes,
    )


def head_card(target: TargetSettings, settings: FinetuneSettings, data: LabelledData) -> HeadCard:
    """What a model's folder must say for the head's output to become a label again."""
    return HeadCard(
        name=target.name,
        kind=target.kind,
        positive=target.counts_as_one,
        mean=data.scale.mean,
        sd=data.scale.sd,
        dropout=settings.dropout,
        pool=settings.pool,
        layers=settings.head,
        outputs=len(data.classes) or 1,
        log=data.scale.log,
        classes=data.classes,
        mask_ratio=settings.mask_ratio,
    )


def loss_function(
    kind: str, data: LabelledData, class_weights: str
) -> Callable[[Tensor, Sequence[str]], Loss]:
    """Squared error of scaled labels, or cross-entropy; `balanced` classes weigh alike."""
    train = data.truth(sorted(data.lengths["train"]))
    balanced = class_weights == "balanced"
    of_one = (1 - train.mean()) / train.mean() if kind == "binary" and balanced else 1.0
    of_each = np.ones(max(1, len(data.classes)))
    if kind == "classes" and balanced:
        of_each = len(train) / (len(of_each) * np.bincount(train.astype(int)))

    def loss(outputs: Tensor, recording_ids: Sequence[str]) -> Loss:
        wanted = torch.from_numpy(data.scale.to_model(data.truth(recording_ids)))
        wanted, outputs = wanted.to(outputs.device), outputs.float()
        count = torch.tensor(float(len(wanted)), device=outputs.device)
        if kind == "classes":
            weight, wanted = torch.from_numpy(of_each).to(outputs), wanted.long()
            errors = F.cross_entropy(outputs, wanted, weight=weight, reduction="sum")
            return Loss(errors, weight[wanted].sum())
        wanted = wanted.float()
        if kind == "binary":
            weight = torch.tensor(of_one).to(outputs)
            errors = F.binary_cross_entropy_with_logits(
                outputs, wanted, pos_weight=weight, reduction="sum"
            )
            return Loss(errors, count)
        return Loss(F.mse_loss(outputs, wanted, reduction="sum"), count)

    return loss
