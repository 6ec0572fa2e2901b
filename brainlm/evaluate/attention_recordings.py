"""Whose attention is looked at, and the attention of a whole recording."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError
from ..model.attention_maps import attention_map
from ..model.inference import even_starts, looks
from ..model.mae import MaskedAutoencoder
from ..shards.reader import ShardReader
from ..shards.sampler import check_any_window
from ..shards.splits import uniform_of

Floats = NDArray[np.float64]


def drawn_recordings(
    reader: ShardReader, split: str, window: int, most: int, seed: int
) -> list[str]:
    """At most so many recordings of a split that hold a window, by name: whole subjects, by draw.

    Whoever is drawn comes with all recordings, so that conditions of the same people compare. The
    first subject is taken however many that are.
    """
    lengths = reader.lengths(split)
    check_any_window(lengths, window, split)
    rows = reader.recordings(split)
    rows = rows[(rows["n_timepoints"] >= window) & (rows["n_parcels"] > 0)]
    of_subject = {
        str(subject): part.index.astype(str).tolist() for subject, part in rows.groupby("subject")
    }
    drawn: list[str] = []
    for subject in sorted(of_subject, key=lambda name: uniform_of("attention", seed, name)):
        if drawn and len(drawn) + len(of_subject[subject]) > most:
            break
        drawn += of_subject[subject]
    return sorted(drawn)


def signal_of(model: MaskedAutoencoder, reader: ShardReader, name: str) -> Tensor:
    """A recording (parcels, time), scaled, on the model's device."""
    device = next(model.parameters()).device
    return torch.from_numpy(reader.series(name)).to(device).T


def mean_attention(
    model: MaskedAutoencoder,
    signal: Tensor,
    of: str,
    layer: int | str = -1,
    head: int | str = "mean",
) -> Floats:
    """The map of `attention_map`, averaged over even windows of a recording, each shown whole.

    NaN for parcels without data.
    """
    starts = even_starts(signal.shape[1], model.config.timepoints)
    total: Tensor | None = None
    for look in looks(model, signal, starts):
        found = attention_map(model, look.signal, look.visible, of, layer, head)
        total = found if total is None else total + found
    assert total is not None, "the recording holds a window"
    found = (total / len(starts)).double()
    known = ~signal[:, 0].isnan()
    told = found[..., known, :][..., known] if of == "parcels" else found[..., known]
    if not told.isfinite().all():
        raise DataError(
            "The model's attention to parcels that have data is no number",
            fix="look for NaN in the log of its training, and train it again",
        )
    return np.asarray(found.cpu().numpy())
