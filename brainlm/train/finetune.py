"""Fine-tuning of a pretrained encoder on one label.

As in pretraining the encoder sees a random quarter of the tokens (`pretrain.mask_ratio`): it
was made for that, and one window yields many views. To predict, the views that together cover
the window are averaged, and then the windows of a recording.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..model.heads import LabelModel
from ..model.mae import MaskedAutoencoder
from ..model.mask import count_visible, generator, random_mask, random_partition
from ..model.tokenizer import fewest_tokens
from ..shards.reader import ShardReader
from ..shards.sampler import Window, batches, even_windows, random_windows
from .data import fewest_parcels, load_batch
from .labelled import LabelledData, loss_function
from .settings import FinetuneSettings
from .standardized import Standardized
from .tuning import Circumstances, tune


@dataclass(frozen=True, eq=False)
class LabelTask:
    """Learning one label: what `tuning.tune` asks for."""

    model: LabelModel
    reader: ShardReader
    data: LabelledData
    loss_of: Callable[[Tensor, Sequence[str]], Tensor]
    n_visible: int
    seed: int
    batch_size: int
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
            for number, some in enumerate(batches(windows, self.batch_size))
        ]
        first = self.model.head[0]
        assert isinstance(first, nn.Linear)
        self.model.head[0] = Standardized(first, torch.cat(pooled))

    def look(
        self, windows: Sequence[Window], key: object
    ) -> tuple[tuple[Tensor, Tensor], tuple[str, ...]]:
        """Signals with one view of each (tokens, drawn by `key`), and their recordings."""
        device, length = self.autoencoder.cls.device, self.autoencoder.config.timepoints
        batch = load_batch(self.reader, windows, length, device)
        available = self.autoencoder.tokenizer.available(batch.covered)
        mask = random_mask(available, self.n_visible, generator(self.seed, "mask", key))
        return (batch.signal, mask.visible), batch.recording_ids

    def loss(self, windows: Sequence[Window], step: int) -> Tensor:
        """Of one view of each window."""
        seen, names = self.look(windows, step)
        return self.loss_of(self.model(*seen), names)

    def validate(self) -> dict[str, float]:
        """The loss of the recordings' predictions."""
        guessed = predict(
            self.model,
            self.reader,
            self.data.lengths["val"],
            n_visible=self.n_visible,
            seed=self.seed,
            batch_size=self.batch_size,
        )
        outputs = torch.from_numpy(np.stack(list(guessed.values()))).float()
        return {"val_loss": float(self.loss_of(outputs, tuple(guessed)))}


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
    task = LabelTask(
        model,
        reader,
        data,
        loss_function(kind, data, settings.class_weights),
        count_visible(mask_ratio, fewest_tokens(model.autoencoder.config, fewest)),
        seed,
        settings.batch_size,
    )
    task.standardize()
    best = tune(task, settings, seed, around)
    first = model.head[0]
    assert isinstance(first, Standardized)
    model.head[0] = first.merged()
    return best


@torch.no_grad()
def predict(
    model: LabelModel,
    reader: ShardReader,
    lengths: Mapping[str, int],
    *,
    n_visible: int,
    seed: int,
    batch_size: int,
) -> dict[str, NDArray[np.float64]]:
    """Recording -> the model's output, averaged over views and windows.

    A scaled label or a logit, (); of several classes a logit of each, (classes,).
    """
    config = model.autoencoder.config
    device = next(model.parameters()).device
    model.eval()
    outputs: dict[str, list[NDArray[np.float64]]] = {}
    windows: Sequence[Window] = even_windows(lengths, config.timepoints)
    for chosen in batches(windows, batch_size):
        batch = load_batch(reader, chosen, config.timepoints, device)
        available = model.autoencoder.tokenizer.available(batch.covered)
        # Drawn for each window by itself: nobody's prediction depends on who else is tested.
        views = [
            (place, view)
            for place, window in enumerate(chosen)
            for view in random_partition(
                available[place], n_visible, generator(seed, "views", *window)
            )
        ]
        for some in batches(views, batch_size):
            places = [place for place, _ in some]
            found = model(batch.signal[places], torch.stack([view for _, view in some]))
            for place, value in zip(places, found.double().cpu().numpy(), strict=True):
                outputs.setdefault(batch.recording_ids[place], []).append(value)
    return {name: np.mean(values, axis=0) for name, values in outputs.items()}
