"""Whether a scaler that somebody gives to a model is one that its network can make use of."""

from __future__ import annotations

import hashlib

from ..errors import InputError
from ..shards.scaler import Scaler
from ..shards.timing import has_tr
from .checkpoint import LoadedModel
from .given_series import TR_TOLERANCE


def check_scaler(scaler: Scaler, loaded: LoadedModel) -> None:
    """Refuse a scaler of other parcels, another method or another TR than the model's."""
    atlas = scaler.about.get("atlas_sha256")
    own = hashlib.sha256(loaded.parcels_tsv).hexdigest()
    if scaler.parcels != loaded.config.parcels or atlas not in (None, own):
        raise InputError(
            f"The scaler was fitted on other parcels ({scaler.parcels}) than the model's "
            f"({loaded.config.parcels})",
            fix="fit one on series of the model's atlas (model.parcels)",
        )
    _check_same_kind(scaler, loaded.scaler)
    tr = scaler.about.get("tr")
    if tr and loaded.tr and not has_tr(tr, loaded.tr, TR_TOLERANCE):
        raise InputError(
            f"The scaler was fitted on series with a TR of {tr:g} s, the model was trained at "
            f"{loaded.tr:g} s",
            fix="resample the series first: brainlm.shards.timing.resample(series.T, its_tr, "
            "model.tr).T",
        )


def _check_same_kind(scaler: Scaler, own: Scaler | None) -> None:
    """Refuse a scaler of another method than that of the train data, where that is known."""
    if own is None or (scaler.method, scaler.mean_removed) == (own.method, own.mean_removed):
        return
    told = [one.method + ("" if one.mean_removed else " with means kept") for one in (scaler, own)]
    raise InputError(
        f"The scaler's method is {told[0]}, the model's train data were scaled by {told[1]}",
        fix="fit one as the model's was (scale.method of the config); series that you have scaled "
        "so yourself can be given with scaled=True",
    )
