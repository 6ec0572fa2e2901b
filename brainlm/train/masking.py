"""What a training hides: the same kind and number of tokens in each of its batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor

from ..errors import InputError
from ..model.config import ModelConfig
from ..model.mask import TokenMask, ask_for, generator, make_mask
from ..model.tokenizer import ImageTokenizer, ParcelTokenizer, count_shown
from ..shards.sampler import Window
from .data import Coverage

#: Column of parcels.tsv that says to which network a parcel belongs.
NETWORK_COLUMN = "yeo7_network"


#: Windows whose masks are drawn together. A process draws those of the groups that it has part in.
_GROUP = 8


@dataclass(frozen=True)
class Masking:
    """How masks are drawn; `n_visible` tokens of each window are shown."""

    kind: str
    ratio: float
    n_visible: int
    groups: Tensor | None = None  # (parcels,) number of the network, -1: none
    guessed: float = 1.0  # share of the hidden tokens that are asked for

    @classmethod
    def of(
        cls, config: ModelConfig, kind: str, ratio: float, parcels: pd.DataFrame, fewest: int
    ) -> Masking:
        """For windows that have `fewest` of the `parcels` or more."""
        shown = count_shown(config, kind, ratio, fewest)
        return cls(kind, ratio, shown, network_numbers(parcels) if kind == "networks" else None)

    def asking(self, share: float, decoder: str) -> Masking:
        """Masks that ask for a `share` of the hidden tokens; refuses where that makes no sense."""
        if share < 1 and (self.kind != "random" or decoder != "cross"):
            raise InputError(
                f"pretrain.guessed is {share:g}, but the mask is {self.kind} and the decoder "
                f"{decoder}",
                fix="set model.overrides: {decoder: cross} and pretrain.mask: random, or "
                "pretrain.guessed: 1",
            )
        return replace(self, guessed=share)

    def draw(
        self,
        tokenizer: ParcelTokenizer | ImageTokenizer,
        covered: Tensor,
        source: torch.Generator,
    ) -> TokenMask:
        """The mask of windows whose parcels are `covered` (batch, parcels)."""
        mask = make_mask(
            tokenizer,
            covered,
            self.kind,
            self.ratio,
            source,
            groups=self.groups,
            n_visible=self.n_visible,
        )
        return mask if self.guessed == 1 else ask_for(mask, self.guessed)

    def of_rows(
        self,
        tokenizer: ParcelTokenizer | ImageTokenizer,
        coverage: Coverage,
        windows: Sequence[Window],
        rows: Sequence[int],
        key: tuple[object, ...],
    ) -> TokenMask:
        """The masks of some `rows` of the batch `windows`, whatever the other rows asked for.

        A window's mask is decided by `key` and its row.
        """
        groups = sorted({row // _GROUP for row in rows})
        drawn = []
        for group in groups:
            members = windows[group * _GROUP : (group + 1) * _GROUP]
            source = generator(*key, *([group] if group else []))
            drawn.append(self.draw(tokenizer, coverage.of(members), source))
        # All groups but the last of a batch are full.
        places = [groups.index(row // _GROUP) * _GROUP + row % _GROUP for row in rows]
        return TokenMask(*(torch.cat(parts)[places] for parts in zip(*drawn, strict=True)))


def count_targets(
    tokenizer: ParcelTokenizer | ImageTokenizer, covered: Tensor, mask: TokenMask
) -> int:
    """Entries that the loss of windows is a mean of; `covered` (batch, parcels): with data.

    Known before anything goes through the model, and without looking at the windows.
    """
    return int((tokenizer.filled(covered).gather(1, mask.hidden) * mask.target).sum())


def network_numbers(parcels: pd.DataFrame) -> Tensor:
    """(parcels,) int64: which network each belongs to, in the order of their names; -1: none."""
    if NETWORK_COLUMN not in parcels or parcels[NETWORK_COLUMN].isna().all():
        raise InputError(
            f"pretrain.mask is networks, but the atlas says nothing of them ({NETWORK_COLUMN})",
            fix="add that column to the atlas's parcels.tsv, or choose another mask",
        )
    numbers = parcels[NETWORK_COLUMN].astype("category").cat.codes
    return torch.tensor(numbers.tolist(), dtype=torch.int64)
