"""What a training hides: the same kind and number of tokens in each of its batches."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from ..errors import InputError
from ..model.config import ModelConfig
from ..model.mask import TokenMask, make_mask
from ..model.tokenizer import ImageTokenizer, ParcelTokenizer, count_shown

#: Column of parcels.tsv that says to which network a parcel belongs.
NETWORK_COLUMN = "yeo7_network"


@dataclass(frozen=True)
class Masking:
    """How masks are drawn; `n_visible` tokens of each window are shown."""

    kind: str
    ratio: float
    n_visible: int
    groups: Tensor | None = None  # (parcels,) number of the network, -1: none

    @classmethod
    def of(
        cls, config: ModelConfig, kind: str, ratio: float, parcels: pd.DataFrame, fewest: int
    ) -> Masking:
        """For windows that have `fewest` of the `parcels` or more."""
        shown = count_shown(config, kind, ratio, fewest)
        return cls(kind, ratio, shown, network_numbers(parcels) if kind == "networks" else None)

    def draw(
        self,
        tokenizer: ParcelTokenizer | ImageTokenizer,
        covered: Tensor,
        source: torch.Generator,
    ) -> TokenMask:
        """The mask of windows whose parcels are `covered` (batch, parcels)."""
        return make_mask(
            tokenizer,
            covered,
            self.kind,
            self.ratio,
            source,
            groups=self.groups,
            n_visible=self.n_visible,
        )


def network_numbers(parcels: pd.DataFrame) -> Tensor:
    """(parcels,) int64: which network each belongs to, in the order of their names; -1: none."""
    if NETWORK_COLUMN not in parcels or parcels[NETWORK_COLUMN].isna().all():
        raise InputError(
            f"pretrain.mask is networks, but the atlas says nothing of them ({NETWORK_COLUMN})",
            fix="add that column to the atlas's parcels.tsv, or choose another mask",
        )
    numbers = parcels[NETWORK_COLUMN].astype("category").cat.codes
    return torch.tensor(numbers.tolist(), dtype=torch.int64)
