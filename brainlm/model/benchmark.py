"""The encoder as public benchmarks take one: recordings of any length and TR in, tokens out.

Brainmarks (docs/hub.md) hands over each recording z-scored with its mean and SD, in the parcels of
A424. What is done to it is what was done to the model's train data, and nothing is made up: a
recording shorter than a window shows fewer tokens, and so does the last window of a longer one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import DataError, InputError
from ..shards.scaler import Scaler, make_scaler, remove_mean
from ..shards.timing import has_tr, resample
from .available import encode_available, shortest
from .mae import MaskedAutoencoder

#: Relative difference of two TRs that is passed over.
_TR_TOLERANCE = 0.01

#: "train": fitted on the benchmark's train split; "model": the one in the model's folder.
ScalerChoice = Literal["train", "model"]


class SeriesTransform:
    """From one recording as the benchmark has it to windows as the encoder takes them."""

    def __init__(
        self,
        autoencoder: MaskedAutoencoder,
        scaler: Scaler | None,
        *,
        tr: float | None,
        choice: ScalerChoice = "train",
    ):
        """`scaler`: the model's own. `tr`: what recordings are resampled to, s; None: not at all.

        The model's own scaler is right where the benchmark's series are in the unit of the model's
        train data, and where its method knows no unit; else one is fitted on the benchmark's train
        split, which is done for the method robust alone.
        """
        if choice not in ("train", "model"):
            raise InputError(f"scaler must be train or model, not {choice!r}")
        if choice == "model" and scaler is None:
            raise InputError(
                "This model has no scaler of its own (its authors did not release theirs)",
                fix="use scaler=train",
            )
        if choice == "train" and scaler is not None:
            choice = _choice_of(scaler)
        self.window = autoencoder.config.timepoints
        self.fewest = shortest(autoencoder.tokenizer, self.window)
        self.choice, self.tr = choice, tr
        self.scaler = scaler if choice == "model" else None

    def fit(self, train_dataset: Iterable[Mapping[str, Any]]) -> None:
        """Median and IQR of each parcel over all time points of the train recordings.

        Each recording loses its own mean first. Exact; the train split is held in memory once.
        """
        if self.choice == "model":
            return
        centred = [remove_mean(self._series(one)).astype(np.float32) for one in train_dataset]
        if not centred:
            raise DataError("There is no recording to fit the scaler on")
        quartiles = np.full((3, len(centred[0])), np.nan)
        for parcel in range(len(centred[0])):
            values = np.concatenate([one[parcel] for one in centred])
            values = values[np.isfinite(values)]
            if len(values):
                quartiles[:, parcel] = np.percentile(values.astype(np.float64), [25, 50, 75])
        low, median, high = quartiles
        self.scaler = make_scaler(median, high - low, {"n_recordings": len(centred)})

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """The sample with `signal` (windows, parcels, time) for its bold, mean and std.

        Scaled; NaN: parcels without data, and what is beyond the recording's end.
        """
        if self.scaler is None:
            raise InputError("The scaler is not fitted", fix="call fit(train_dataset) first")
        scaled = self.scaler.transform(self._series(sample)).astype(np.float32)
        rest = {name: value for name, value in sample.items() if name not in _SERIES}
        return {**rest, "signal": torch.from_numpy(self._windows(scaled))}

    def _series(self, sample: Mapping[str, Any]) -> NDArray[np.float32]:
        """The recording in its own unit, at the model's TR, (parcels, time)."""
        bold, mean, sd = (np.asarray(sample[name], np.float64) for name in _SERIES)
        values = (bold * sd + mean).T
        # A constant series, as of a parcel outside the image, is no data.
        flat = ~np.isfinite(values).all(axis=1) | (np.ptp(values, axis=1) == 0)
        values[flat] = np.nan
        series = values.astype(np.float32)
        source = float(sample["tr"])
        if self.tr is None or has_tr(source, self.tr, _TR_TOLERANCE):
            return series
        return resample(series, source, self.tr)

    def _windows(self, scaled: NDArray[np.float32]) -> NDArray[np.float32]:
        """Windows side by side, (windows, parcels, time).

        NaN fills up the last one; it is left out if it holds no whole token, unless it is the only
        one: then 0, the recording's mean, is added up to one token.
        """
        parcels, length = scaled.shape
        if length < self.fewest:
            short = np.broadcast_to(0 * scaled[:, :1], (parcels, self.fewest - length))
            scaled = np.concatenate([scaled, short], axis=1)
            length = self.fewest
        count = math.ceil((length - self.fewest + 1) / self.window)
        whole = np.full((parcels, count * self.window), np.nan, np.float32)
        kept = min(length, count * self.window)
        whole[:, :kept] = scaled[:, :kept]
        windows = whole.reshape(parcels, count, self.window).swapaxes(0, 1)
        return np.ascontiguousarray(windows)


def _choice_of(scaler: Scaler) -> ScalerChoice:
    """How to scale by the method of the model's own scaler, in another unit than its train data."""
    if scaler.method in ("recording-zscore", "recording-minmax", "parcel-minmax"):
        return "model"  # a recording's own scale
    if scaler.method == "robust" and scaler.mean_removed:
        return "train"
    raise InputError(
        f"The model's train data were scaled by {scaler.method}"
        + ("" if scaler.mean_removed else " with means kept")
        + ", which cannot be fitted on the benchmark's",
        fix="use scaler=model where the benchmark's series are in the unit of the model's",
    )


class SeriesEncoder(nn.Module):
    """The encoder, with nothing hidden; its weights are frozen."""

    def __init__(self, autoencoder: MaskedAutoencoder):
        """Of a trained model."""
        super().__init__()
        self.autoencoder = autoencoder.eval().requires_grad_(False)

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, None, Tensor]:
        """CLS (batch, 1, hidden), no registers, tokens (batch, tokens of all windows, hidden).

        CLS is the mean over windows, each counted by the tokens that it shows. A token that only
        some recordings of the batch lack, for want of a parcel, is the mean of their others.
        """
        signal = batch["signal"]
        latents = encode_available(self.autoencoder, signal.flatten(0, 1))
        share = latents.seen.sum(dim=1).reshape(signal.shape[:2])
        share = (share / share.sum(dim=1, keepdim=True))[..., None]
        cls = (latents.cls.unflatten(0, signal.shape[:2]) * share).sum(dim=1, keepdim=True)
        tokens = latents.tokens.unflatten(0, signal.shape[:2]).flatten(1, 2)
        seen = latents.seen.unflatten(0, signal.shape[:2]).flatten(1, 2)
        tokens, seen = tokens[:, seen.any(dim=0)], seen[:, seen.any(dim=0), None]
        mean = (tokens * seen).sum(dim=1, keepdim=True) / seen.sum(dim=1, keepdim=True)
        return cls, None, torch.where(seen, tokens, mean)


#: What a sample's series is made of: z-scores (time, parcels), mean and SD (1, parcels).
_SERIES = ("bold", "mean", "std")
