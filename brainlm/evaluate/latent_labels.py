"""The labels that a latent space is coloured and asked by: targets, and columns of the index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import InputError
from ..shards.labels import LABEL_PREFIX, read_label
from ..train.settings import TargetSettings

#: A number with fewer values than this is taken for names of classes.
_FEWEST_VALUES = 6
#: Columns that name people: their values would stand in the page's legends.
_WHO = ("recording_id", "subject", "family")
_MISSING = ("", "n/a", "nan", "NaN", "None", "<NA>")


@dataclass(frozen=True, eq=False)
class LatentLabel:
    """One label of some recordings."""

    name: str
    kind: str  # regression or classes
    values: NDArray[np.float64]  # (n,) numbers, or numbers of classes; NaN: missing
    classes: tuple[str, ...] = ()


def latent_labels(
    table: pd.DataFrame, targets: Sequence[TargetSettings], others: Sequence[str]
) -> list[LatentLabel]:
    """The targets as they are predicted, then `others`, of the recordings of `table`.

    Others are columns of the index (site, dataset, mean_fd, ...) or labels of participants.tsv:
    numbers of six values or more as such, all else as classes.
    """
    found = [_of_target(table, target) for target in targets]
    told = {target.name for target in targets}
    return found + [_of_column(table, name) for name in dict.fromkeys(others) if name not in told]


def _of_target(table: pd.DataFrame, target: TargetSettings) -> LatentLabel:
    if target.kind == "classes":  # those of all recordings: nothing is learned from them here
        return _of_column(table, target.name, as_classes=True)
    values = read_label(table, target.name, target.kind, target.positive, target.threshold)
    numbers = values.to_numpy(dtype=np.float64)
    if target.kind == "regression":
        return LatentLabel(target.name, "regression", numbers)
    positive = target.positive or (
        f"above {target.threshold:g}" if target.threshold is not None else "1"
    )
    return LatentLabel(target.name, "classes", numbers, ("other", positive))


def _of_column(table: pd.DataFrame, name: str, *, as_classes: bool = False) -> LatentLabel:
    column = name if name in table.columns else LABEL_PREFIX + name
    if name in _WHO:
        raise InputError(
            f"latent.labels names {name}, whose values are people's names",
            fix="take it out: whether neighbours are the same person's is told without it",
        )
    if column not in table.columns:
        known = sorted(one.removeprefix(LABEL_PREFIX) for one in table.columns if one not in _WHO)
        raise InputError(
            f"latent.labels names {name}, which the shards' index does not have",
            fix=f"choose of {', '.join(known)}",
        )
    values = table[column]
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    texts = values.astype(str).str.strip()
    there = ~(values.isna() | texts.isin(_MISSING)).to_numpy()
    all_numbers = np.isfinite(numbers[there]).all()
    if all_numbers and not as_classes and len(np.unique(numbers[there])) >= _FEWEST_VALUES:
        return LatentLabel(name, "regression", np.where(there, numbers, np.nan))
    if all_numbers:
        texts = pd.Series([f"{number:g}" for number in numbers], index=texts.index)
    classes = tuple(sorted(set(texts[there])))
    place = {one: number for number, one in enumerate(classes)}
    coded = texts.map(place).to_numpy(dtype=np.float64, na_value=np.nan)
    return LatentLabel(name, "classes", np.where(there, coded, np.nan), classes)
