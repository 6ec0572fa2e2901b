"""Changing the activity of some parcels before a forecast.

What is changed is the activity of a parcel, its deviation from its own mean over the past that is
shown; so that silencing (factor 0) means the same whatever the scaling, and factor 1 changes not a
bit. What follows is the network's answer to an input that nobody's brain produced: it says what the
network has learned to expect, not what a lesion or a stimulation would do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError

#: Column of parcels.tsv that says to which network a parcel belongs.
NETWORK_COLUMN = "yeo7_network"


class Perturbed(NamedTuple):
    """A forecast as it was, and after a change of the past."""

    before: NDArray[np.float32]  # (timepoints, parcels), in the unit of the series
    after: NDArray[np.float32]  # the same
    effect: NDArray[np.float32]  # (timepoints, parcels), after - before, in scaled units
    effect_sd: NDArray[np.float32]  # the same in SD of each parcel's past
    changed: NDArray[np.bool_]  # (parcels,) whose past it was


@dataclass(frozen=True, eq=False)
class Change:
    """What becomes of the past of some parcels; one of `factor`, `value` and another's series."""

    rows: NDArray[np.int64]  # of the parcels, from 0
    factor: float | None = None  # what the activity is multiplied by
    value: float | None = None  # what it is held at, in SD of the parcel's past above its mean
    last: int | None = None  # time points at the end of the past in which it is so; None: all

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.factor is not None and self.value is not None:
            raise InputError("A perturbation has a factor or a value, not both")
        if self.last is not None and self.last < 1:
            raise InputError(f"last must be at least 1 time point, not {self.last}")
        if not len(self.rows):
            raise InputError("A perturbation must name a parcel")

    def __call__(self, past: Tensor, other: Tensor | None = None) -> Tensor:
        """`past` (windows, parcels, time) changed; parcels without data (NaN) stay so.

        `other`, as large, is whose activity is taken over where there is neither factor nor value;
        what it lacks is left as it is.
        """
        time = past.shape[2]
        if self.last is not None and self.last > time:
            raise InputError(
                f"last is {self.last}, but the past has {time} time points",
                fix=f"set last (of perturbation.experiments) to at most {time}, or leave it out",
            )
        rows = torch.from_numpy(self.rows).to(past.device)
        begin = 0 if self.last is None else time - self.last
        own = past[:, rows]
        mean, now = own.mean(dim=2, keepdim=True), own[:, :, begin:]
        if self.factor is not None:
            made = now + (self.factor - 1) * (now - mean)  # factor 1 is exactly nothing
        elif self.value is not None:
            made = (mean + self.value * own.std(dim=2, keepdim=True)).expand_as(now)
        elif other is not None:
            theirs = other[:, rows, begin:]
            made = torch.where(theirs.isnan() | now.isnan(), now, theirs)
        else:
            raise InputError("A perturbation has a factor, a value or another series")
        result = past.clone()
        result[:, rows, begin:] = made
        return result


def spread_of(past: Tensor) -> Tensor:
    """SD over time of `past` (..., parcels, time): (..., parcels, 1); NaN where there is none."""
    spread = past.std(dim=-1, keepdim=True)
    return torch.where(spread > 0, spread, torch.nan)


def parcel_rows(
    parcels: pd.DataFrame, wanted: int | str | Sequence[int | str]
) -> NDArray[np.int64]:
    """Rows of the parcels that are asked for: by number (`index`), name, or network.

    In the table's order, each once. Names come before networks of the same name.
    """
    asked = [wanted] if isinstance(wanted, int | str | np.integer) else list(wanted)
    numbers = parcels["index"].to_numpy() if "index" in parcels else np.arange(1, len(parcels) + 1)
    names = parcels["name"].astype(str).to_numpy()
    networks = (
        parcels[NETWORK_COLUMN].astype(str).to_numpy()
        if NETWORK_COLUMN in parcels
        else np.full(len(parcels), "")
    )
    chosen = np.zeros(len(parcels), bool)
    for one in asked:
        if isinstance(one, str):
            found = names == one if (names == one).any() else networks == one
        else:
            found = numbers == one
        if not found.any():
            known = ", ".join(networks_of(parcels)) or "none"
            raise InputError(
                f"parcels.tsv has no parcel or network {one!r}",
                fix=f"give numbers ({numbers.min()} to {numbers.max()}), names, or networks "
                f"({known})",
            )
        chosen |= found
    return chosen.nonzero()[0]


def networks_of(parcels: pd.DataFrame) -> tuple[str, ...]:
    """The networks that parcels.tsv names, sorted."""
    if NETWORK_COLUMN not in parcels:
        return ()
    return tuple(sorted(set(parcels[NETWORK_COLUMN].dropna().astype(str)) - {"n/a", ""}))
