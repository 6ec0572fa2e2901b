"""A trained model to hold in one's hands: raw parcel series in, numbers in their units out.

    model = BrainLM.from_pretrained("models/brainlm-13m")
    vector = model.embed(series, tr=0.735)  # series: (time, parcels)

docs/using-models.md shows the rest.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError
from ..shards.dataset import covered_of
from ..shards.scaler import Scaler, load_scaler
from . import inference
from .attention_maps import ATTENTION, attention_map, belonging, entry_tokens
from .checkpoint import LoadedModel, save_model
from .config import ModelConfig
from .given_scaler import check_scaler
from .given_series import About, Given, TakenSeries, take_series
from .heads import LabelModel, pooled_of
from .inference import Look
from .label_unit import HeadCard
from .mae import MaskedAutoencoder
from .opening import open_model
from .perturbation import Change, Perturbed, parcel_rows, spread_of
from .repository import upload_model

Array = NDArray[np.float32]
Network = MaskedAutoencoder | LabelModel

#: What `embed` may make of the tokens.
POOLS = ("mean", "cls", "parcels")


class Latents(NamedTuple):
    """The encoder's output for each window of a recording."""

    cls: Array  # (windows, hidden)
    tokens: Array  # (windows, tokens, hidden); NaN where a token has no data
    starts: tuple[int, ...]  # time point where each window begins


class Guessed(NamedTuple):
    """A series with its hidden entries guessed."""

    series: Array  # (time, parcels): guesses where `hidden`, else as it came in
    hidden: NDArray[np.bool_]  # (time, parcels)


class BrainLM:
    """A trained model with its scaler and its parcels.

    `series` is one recording, (time, parcels) in the order of `parcels`: an array, a DataFrame or a
    tensor, not scaled; a parcel without data is a column of NaN. What comes out as signal is in the
    unit that went in. More may be said of a series (`About`): its `tr` in s, which is compared with
    that of the train data; `scaled=True`, where it comes and goes scaled. What is drawn is decided
    by `seed`.
    """

    def __init__(self, loaded: LoadedModel, device: str | torch.device = "cpu"):
        """Of a model that has been read; see `from_pretrained`."""
        self.loaded = loaded
        self.network = _placed(loaded.model.eval(), device)

    @classmethod
    def from_pretrained(
        cls,
        path_or_repo: str | Path,
        *,
        subfolder: str | None = None,
        revision: str | None = None,
        device: str | torch.device = "cpu",
    ) -> BrainLM:
        """Read a model's folder, one that BrainLM's authors released, or a repository on the Hub.

        A released model has no scaler: see `with_scaler`. Its parcels are those of A424.
        """
        return cls(open_model(path_or_repo, subfolder, revision), device)

    @property
    def config(self) -> ModelConfig:
        """Sizes and kinds of the network's parts."""
        return self.loaded.config

    @property
    def autoencoder(self) -> MaskedAutoencoder:
        """The network without its head."""
        return self.loaded.autoencoder

    @property
    def parcels(self) -> Any:
        """The parcels (DataFrame: name, x, y, z, ...), in the order of the series' columns."""
        return self.loaded.parcels

    @property
    def scaler(self) -> Scaler | None:
        """The train split's statistics; None: the authors did not release theirs."""
        return self.loaded.scaler

    @property
    def tr(self) -> float | None:
        """Repetition time of the train data, s; None: not known, or several."""
        return self.loaded.tr

    @property
    def token_of(self) -> NDArray[np.int64]:
        """The number of the token that each entry of a window is in, (time, parcels)."""
        return entry_tokens(self.autoencoder.tokenizer).T.cpu().numpy()

    @property
    def head(self) -> HeadCard | None:
        """What `predict` predicts; None: there is no head."""
        return HeadCard.from_dict(self.loaded.card.head) if self.loaded.card.head else None

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def to(self, device: str | torch.device) -> BrainLM:
        """Move the network."""
        _placed(self.network, device)
        return self

    def with_scaler(self, scaler: Scaler | str | Path) -> BrainLM:
        """The same network with another scaler: a `Scaler`, a normalization.safetensors, a folder.

        For a released model, or for data in another unit. A scaler is fitted on train subjects
        alone: `brainlm scale` does so, or `fit_scaler`. It must scale in the same way as the
        model's own, at the same TR: the network knows no other.
        """
        if not isinstance(scaler, Scaler):
            path = Path(scaler)
            scaler = load_scaler(path / "normalization.safetensors" if path.is_dir() else path)
        check_scaler(scaler, self.loaded)
        scaler = replace(scaler, about={**scaler.about, "tr": self.tr or scaler.about.get("tr")})
        return BrainLM(replace(self.loaded, scaler=scaler), self.device)

    def embed(
        self,
        series: Given,
        pool: str = "mean",
        *,
        mask_ratio: float = 0.0,
        visible: Sequence[int] | None = None,
        seed: int = 0,
        batch_size: int = 8,
        **about: Unpack[About],
    ) -> Array:
        """One vector for the recording, (hidden,), averaged over its windows.

        `pool`: the mean over CLS and all tokens; cls alone, of which pretraining asks little (the
        released models' heads read it); parcels, the mean over each parcel's tokens, (parcels,
        hidden), NaN without data. Whole windows are shown; with `mask_ratio` (that of training is
        `loaded.card.mask_ratio`) several looks that each hide so much are averaged.
        """
        _choose("pool", pool, POOLS)
        values, _ = self._take(series, **about)
        looks = self._looks(values, mask_ratio, visible, seed)
        found = []
        for part, latents in inference.encode(self.autoencoder, looks, batch_size):
            for look, one in zip(part, latents, strict=True):
                if pool == "parcels":
                    covered = covered_of(look.signal)
                    parts = belonging(self.autoencoder.tokenizer, covered, look.visible)
                    found.append(parts.mean_of(one[1:]))
                else:
                    found.append(pooled_of(one[None], pool)[0])
        return _mean(found)

    def latents(
        self,
        series: Given,
        *,
        mask_ratio: float = 0.0,
        visible: Sequence[int] | None = None,
        seed: int = 0,
        batch_size: int = 8,
        **about: Unpack[About],
    ) -> Latents:
        """The encoder's output for each window: CLS, and every token's (see `token_of`)."""
        values, _ = self._take(series, **about)
        looks = self._looks(values, mask_ratio, visible, seed)
        starts = sorted({look.start for look in looks})
        shape = (len(starts), self.autoencoder.tokenizer.tokens, self.config.hidden)
        tokens = np.full(shape, np.nan, np.float32)
        cls: list[list[Tensor]] = [[] for _ in starts]
        for part, latents in inference.encode(self.autoencoder, looks, batch_size):
            for look, one in zip(part, latents.cpu(), strict=True):
                window = starts.index(look.start)
                cls[window].append(one[0])
                tokens[window, look.visible.cpu().numpy()] = one[1:].numpy()
        return Latents(np.stack([_mean(some) for some in cls]), tokens, tuple(starts))

    def reconstruct(
        self,
        series: Given,
        mask: NDArray[np.bool_] | None = None,
        *,
        mask_ratio: float | None = None,
        seed: int = 0,
        **about: Unpack[About],
    ) -> Guessed:
        """Guess hidden entries of the series from the others.

        `mask` (time, parcels) tells which to hide; a token that holds one of them is hidden whole.
        Without it every entry is hidden in turn: windows are looked at so often that each token is
        hidden at least once, at `mask_ratio` (default: as in training), and guesses are averaged. A
        guess never sees its own entry, but for its part in the parcel's mean over the recording,
        which scaling takes away and which is added again. Of long recordings windows are stitched
        together.
        """
        values, taken = self._take(series, **about)
        model = self.autoencoder
        starts = inference.covering_starts(values.shape[1], self.config.timepoints)
        if mask is None:
            ratio = self.loaded.card.mask_ratio if mask_ratio is None else mask_ratio
            looks = inference.turns(model, values, starts, ratio, seed)
        else:
            looks = inference.hiding(model, values, starts, _as_mask(mask, values))
        guesses = taken.give_back(inference.stitch(model, looks, values).cpu().numpy())
        hidden = ~np.isnan(guesses)
        return Guessed(np.where(hidden, guesses, taken.given.T.astype(np.float32)), hidden)

    def forecast(self, series: Given, timepoints: int, **about: Unpack[About]) -> Array:
        """Guess the `timepoints` that follow the series, (timepoints, parcels).

        From the last window less `timepoints` of it (180 for 20 more of 200). Nothing of the future
        is used, so that the series' mean is that of what is given.
        """
        past, taken = self._past(series, timepoints, **about)
        guessed = inference.forecast(self.autoencoder, past, timepoints)
        return taken.give_back(guessed.cpu().numpy())

    def perturb(
        self,
        series: Given,
        timepoints: int,
        parcels: int | str | Sequence[int | str],
        *,
        factor: float | None = None,
        value: float | None = None,
        other: Given | None = None,
        last: int | None = None,
        **about: Unpack[About],
    ) -> Perturbed:
        """`forecast`, as it is and after a change of the activity of some `parcels` before.

        Parcels by number (`index`), name or network. Their deviation from their own mean is
        multiplied by `factor` (0 silences), held at `value` (in SD of the parcel's past), or
        is that of an `other` series; in the `last` time points, or all the time. What the network
        answers is what it expects, not what such a change would cause in a brain.
        """
        past, taken = self._past(series, timepoints, **about)
        change = Change(parcel_rows(self.parcels, parcels), factor, value, last)
        theirs = None if other is None else self._past(other, timepoints, **about)[0][None]
        changed = change(past[None], theirs)[0]
        before, after = (
            inference.forecast(self.autoencoder, one, timepoints) for one in (past, changed)
        )
        effect = after - before
        return Perturbed(
            before=taken.give_back(before.cpu().numpy()),
            after=taken.give_back(after.cpu().numpy()),
            effect=effect.T.float().cpu().numpy(),
            effect_sd=(effect / spread_of(past)).T.float().cpu().numpy(),
            changed=np.isin(np.arange(len(past)), change.rows),
        )

    def attention(
        self,
        series: Given,
        of: str = "cls",
        *,
        layer: int | str = -1,
        head: int | str = "mean",
        mask_ratio: float = 0.0,
        visible: Sequence[int] | None = None,
        seed: int = 0,
        **about: Unpack[About],
    ) -> Array:
        """Attention told by parcel, averaged over windows; NaN for parcels without data.

        `of`: cls, of CLS to each parcel, (parcels,); parcels, of each parcel (first axis) to each,
        (parcels, parcels); rollout, what reaches CLS through all layers, (parcels,). `layer` and
        `head` choose one by number, `mean`, or `all` (axes layers, heads, in this order, first).
        How tokens are told as parcels: `brainlm.model.attention_maps`.
        """
        _choose("of", of, ATTENTION)
        values, _ = self._take(series, **about)
        looks = self._looks(values, mask_ratio, visible, seed)
        return _mean(
            [
                attention_map(self.autoencoder, look.signal, look.visible, of, layer, head)
                for look in looks
            ]
        )

    def predict(
        self,
        series: Given,
        *,
        mask_ratio: float | None = None,
        visible: Sequence[int] | None = None,
        seed: int = 0,
        batch_size: int = 8,
        **about: Unpack[About],
    ) -> float | Array:
        """The label in its own unit; of two classes the probability of the positive one, of more
        all their probabilities (classes,).

        By default it is shown what the head was trained on, as `brainlm evaluate-clinical` does:
        whole windows, or several looks that each hide most of a window, averaged.
        """
        card = self.head
        if card is None or not isinstance(self.network, LabelModel):
            raise InputError(
                "This model has no head, so it predicts no label",
                fix="fine-tune it (`brainlm finetune`), or fit a model of your own on `embed`",
            )
        values, _ = self._take(series, **about)
        ratio = self.loaded.card.head_mask_ratio if mask_ratio is None else mask_ratio
        looks = self._looks(values, ratio, visible, seed)
        label = card.to_label(inference.mean_output(self.network, looks, batch_size))
        return float(label) if card.outputs == 1 else label.astype(np.float32)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a model's folder, as `from_pretrained` reads it."""
        save_model(Path(folder), self.loaded)

    def push_to_hub(self, repo: str, **options: Any) -> str:
        """Upload the model's folder; options as `brainlm.model.hub.upload_model` has them."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return upload_model(folder, repo, **options)

    def take(
        self, series: Given, *, fewest: int | None = None, **about: Unpack[About]
    ) -> TakenSeries:
        """Check a series as all methods do, and scale it; `fewest` time points, else a window."""
        return take_series(
            series,
            [str(name) for name in self.parcels["name"]],
            self.scaler,
            model_tr=self.tr,
            fewest=fewest or self.config.timepoints,
            **about,
        )

    def _past(
        self, series: Given, timepoints: int, **about: Unpack[About]
    ) -> tuple[Tensor, TakenSeries]:
        """The last window less `timepoints` of it, (parcels, time) scaled."""
        window = self.config.timepoints
        if not 0 < timepoints < window:
            raise InputError(
                f"timepoints must be between 1 and {window - 1}, not {timepoints}: the model sees "
                f"windows of {window}"
            )
        values, taken = self._take(series, fewest=window - timepoints, **about)
        return values[:, values.shape[1] - (window - timepoints) :], taken

    def _take(
        self, series: Given, *, fewest: int | None = None, **about: Unpack[About]
    ) -> tuple[Tensor, TakenSeries]:
        """Check and scale; values (parcels, time) on the device."""
        taken = self.take(series, fewest=fewest, **about)
        return torch.from_numpy(taken.values).to(self.device), taken

    def _looks(
        self, values: Tensor, mask_ratio: float, visible: Sequence[int] | None, seed: int
    ) -> list[Look]:
        starts = inference.even_starts(values.shape[1], self.config.timepoints)
        if visible is not None:
            return inference.chosen(self.autoencoder, values, starts, visible)
        return inference.looks(self.autoencoder, values, starts, mask_ratio, seed)


def _choose(name: str, value: str, values: Sequence[str]) -> None:
    if value not in values:
        raise InputError(f"{name} must be one of {', '.join(values)}, not {value!r}")


def _placed(network: Network, device: str | torch.device) -> Network:
    """The network on the device; refuses one that this machine does not have."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"There is no device {str(device)!r} here ({str(error).splitlines()[0][:100]})",
            fix="choose cpu, or cuda where there is a GPU and PyTorch was built for it",
        ) from None
    return network.to(device)


def _mean(parts: Sequence[Tensor]) -> Array:
    """Mean over looks of those that are not NaN, in float64."""
    return torch.stack(list(parts)).double().nanmean(dim=0).float().cpu().numpy()


def _as_mask(mask: NDArray[np.bool_], values: Tensor) -> Tensor:
    """A mask (time, parcels) as (parcels, time), on the device."""
    found = torch.from_numpy(np.array(mask))
    if found.dtype != torch.bool or found.T.shape != values.shape:
        raise InputError(
            f"The mask must be bool and as large as the series, {tuple(values.T.shape)}; it is "
            f"{found.dtype} {tuple(found.shape)}"
        )
    return found.T.to(values.device)
