"""Fine-tuning of a pretrained encoder on one label.

The encoder sees whole windows (`finetune.mask_ratio` 0), though it was pretrained on a few tokens
of each. Two random quarters of a window differ by much more than two people do (docs/transfer.md):
a head that learns from single ones says little of anybody, even when the views that together cover
a window are averaged to predict. Windows of a recording are averaged as well.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import DataError
from ..model.heads import LabelModel
from ..model.inference import even_starts, looks, mean_output
from ..model.mae import MaskedAutoencoder
from ..model.mask import generator
from ..model.tokenizer import ImageTokenizer, ParcelTokenizer, fewest_tokens
from ..shards.dataset import as_signal
from ..shards.reader import ShardReader
from ..shards.sampler import Window, batches, random_windows
from .data import Coverage, MappedSource, fewest_parcels, share_out
from .distributed import ALONE, Ranks
from .label_scores import measured_labels
from .labelled import LabelledData, loss_function
from .masking import Masking
from .pretrained_task import PretrainedTask
from .settings import FinetuneSettings
from .standardized import Standardized
from .task import Loss, gathered
from .tuning import Circumstances, tune
from .validation import Measured


class Fetched(NamedTuple):
    """Windows on their way to the model."""

    stored: Tensor  # as the shards hold them
    visible: Tensor  # (windows, k) numbers of tokens
    recording_ids: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class LabelTask(PretrainedTask):
    """Learning one label: what `tuning.tune` asks for."""

    model: LabelModel
    reader: ShardReader
    data: LabelledData
    kind: str  # of the label
    loss_of: Callable[[Tensor, Sequence[str]], Loss]
    masking: Masking
    seed: int
    settings: FinetuneSettings
    decodes = False

    @property
    def autoencoder(self) -> MaskedAutoencoder:
        """The pretrained part."""
        return self.model.autoencoder

    @property
    def train(self) -> Mapping[str, int]:
        """Recordings of the train split that have the label."""
        return self.data.lengths["train"]

    @torch.no_grad()
    def standardize(self) -> None:
        """Let the head's first layer read z-scores, by one view of each train recording."""
        window = self.autoencoder.config.timepoints
        windows = random_windows(
            self.train, window=window, seed=self.seed, epoch=-1, per_recording=1
        )
        self.model.eval()
        pooled = [
            self.model.pooled(self.autoencoder.encode(*self.look(some, ("start", number))[0]))
            for number, some in enumerate(batches(windows, self.settings.batch_size))
        ]
        first = self.model.head[0]
        assert isinstance(first, nn.Linear)
        self.model.head[0] = Standardized(first, torch.cat(pooled))

    def look(
        self, windows: Sequence[Window], key: object
    ) -> tuple[tuple[Tensor, Tensor], tuple[str, ...]]:
        """Signals with one view of each (tokens, drawn by `key`), and their recordings."""
        fetched = self.fetch(windows, range(len(windows)), key)
        return self._shown(fetched), fetched.recording_ids

    def fetch(self, windows: Sequence[Window], rows: Sequence[int], key: object) -> Fetched:
        """Of some `rows` of the windows: the views that they have among all."""
        key_of_views = (self.seed, "mask", key)
        mask = self.masking.of_rows(self._tokenizer, self._coverage, windows, rows, key_of_views)
        visible = mask.visible
        if self.masking.ratio == 0:  # as `predict` shows them: a convolution sees their order
            visible = visible.sort(dim=1).values
        chosen = [windows[row] for row in rows]
        names = tuple(window.recording_id for window in chosen)
        return Fetched(self._source.fetch(chosen), visible, names)

    def loss(self, trained: nn.Module, fetched: Fetched) -> Loss:
        """Of one view of each window."""
        return self.loss_of(trained(*self._shown(fetched)), fetched.recording_ids)

    def _shown(self, fetched: Fetched) -> tuple[Tensor, Tensor]:
        """What the model takes: signals (windows, parcels, time), and tokens (windows, k)."""
        visible = fetched.visible.to(self.autoencoder.cls.device, non_blocking=True)
        return self._source.signal(fetched.stored), visible

    def validate(self, ranks: Ranks = ALONE) -> Measured:
        """The loss of the recordings' predictions, and how good they are in the label's unit."""
        names, outputs = predict_together(
            self.model,
            self.reader,
            self.data.lengths["val"],
            mask_ratio=self.masking.ratio,
            seed=self.seed,
            batch_size=self.settings.batch_size,
            columns=len(self.data.classes) or 1,
            ranks=ranks,
        )
        return measured_labels(
            self.kind,
            float(self.loss_of(torch.from_numpy(outputs).float(), names).mean),
            names,
            self.data.truth(names),
            self.data.to_label(self.kind, outputs),
            self.reader.table,
        )

    @cached_property
    def _source(self) -> MappedSource:
        length, device = self.autoencoder.config.timepoints, self.autoencoder.cls.device
        return MappedSource(self.reader, length, device)

    @cached_property
    def _tokenizer(self) -> ParcelTokenizer | ImageTokenizer:
        """On the CPU, for drawing views."""
        return copy.deepcopy(self.autoencoder.tokenizer).cpu()

    @cached_property
    def _coverage(self) -> Coverage:
        return Coverage(self.reader)


def finetune(
    model: LabelModel,
    reader: ShardReader,
    data: LabelledData,
    settings: FinetuneSettings,
    *,
    kind: str,
    mask_ratio: float,
    seed: int,
    around: Circumstances,
) -> dict[str, Any]:
    """Train `model`, pretrained but for its head, on its device; it ends as its best epoch's.

    Returns that epoch's row of the log.
    """
    model.initialize_head(generator(seed, "head"))
    if kind == "regression":  # begin with the mean label, which on a min-max scale is not 0
        scaled = data.scale.to_model(data.truth(sorted(data.lengths["train"])))
        last = model.head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.constant_(last.bias, float(scaled.mean()))
    fewest = fewest_parcels(reader, ("train", "val"))
    config = model.autoencoder.config
    masking = Masking.of(config, "random", mask_ratio, reader.parcels, fewest)
    if mask_ratio == 0:  # a mask to guess from would hide one token at least
        masking = replace(masking, n_visible=fewest_tokens(config, fewest))
    task = LabelTask(
        model,
        reader,
        data,
        kind,
        loss_function(kind, data, settings.class_weights),
        masking,
        seed,
        settings,
    )
    task.standardize()
    best = tune(task, settings, seed, around)
    first = model.head[0]
    assert isinstance(first, Standardized)
    model.head[0] = first.merged()
    return best


def predict_together(
    model: LabelModel,
    reader: ShardReader,
    lengths: Mapping[str, int],
    *,
    mask_ratio: float,
    seed: int,
    batch_size: int,
    columns: int,
    ranks: Ranks = ALONE,
) -> tuple[list[str], NDArray[np.float64]]:
    """Recordings in the order of their names, and `predict` of them all, shared by the processes.

    (recordings,), or of `columns` classes (recordings, columns).
    """
    names = sorted(lengths)
    rows = share_out(len(names), ranks.rank, ranks.world, passes=1)[0]
    guessed = predict(
        model,
        reader,
        {name: lengths[name] for name in names[rows.start : rows.stop]},
        mask_ratio=mask_ratio,
        seed=seed,
        batch_size=batch_size,
    )
    part = np.array(list(guessed.values()), np.float64).reshape(len(rows), columns)
    outputs = gathered(part, rows, len(names), ranks)
    return names, outputs.squeeze(axis=1 if columns == 1 else ())


@torch.no_grad()
def predict(
    model: LabelModel,
    reader: ShardReader,
    lengths: Mapping[str, int],
    *,
    mask_ratio: float,
    seed: int,
    batch_size: int,
) -> dict[str, NDArray[np.float64]]:
    """Recording -> the model's output, averaged over views and windows.

    A scaled label or a logit, (); of several classes a logit of each, (classes,). As
    `BrainLM.predict`, recording by recording: nobody's prediction depends, to the last bit, on who
    else is predicted. Each is shown so many tokens at once as its own parcels with data allow.
    """
    window, device = model.autoencoder.config.timepoints, next(model.parameters()).device
    model.eval()
    outputs = {}
    for name in sorted(lengths):
        values = as_signal(torch.from_numpy(reader.series(name))[None])[0].to(device)
        if values.isnan().all():
            raise DataError(
                f"{name} has no parcel with data, so nothing can be predicted of it",
                file=reader.index_path,
                fix="set quality.min_parcels above 0, so that such recordings are left out",
            )
        starts = even_starts(values.shape[1], window)
        views = looks(model.autoencoder, values, starts, mask_ratio, seed)
        outputs[name] = mean_output(model, views, batch_size)
    return outputs
