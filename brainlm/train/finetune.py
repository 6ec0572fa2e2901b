"""Fine-tuning of a pretrained encoder on one label.

As in pretraining the encoder sees a random quarter of the tokens (`pretrain.mask_ratio`): it
was made for that, and one window yields many views. To predict, the views that together cover
the window are averaged, and then the windows of a recording.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..errors import DataError
from ..model.heads import LabelModel
from ..model.mask import count_visible, generator, random_mask, random_partition
from ..model.tokenizer import fewest_tokens
from ..shards.labels import LabelScale, read_label
from ..shards.reader import ShardReader
from ..shards.sampler import Window, batches, even_windows, random_windows
from .data import fewest_parcels, load_batch
from .optim import clip, learning_rate_at, make_optimizer, set_learning_rate
from .settings import FinetuneSettings, TargetSettings

_CLIP_NORM = 1.0
_WARMUP = 0.05
#: Epochs without a better validation loss after which fine-tuning ends.
_PATIENCE = 10
_FEWEST_TRAIN_SUBJECTS = 3


@dataclass(frozen=True)
class LabelledData:
    """Recordings with a label and a whole window, by split."""

    values: dict[str, float]  # recording_id -> label in its own unit
    lengths: dict[str, dict[str, int]]  # split -> recording_id -> time points
    scale: LabelScale
    n_missing: int  # recordings of the three splits without this label


def labelled_data(reader: ShardReader, target: TargetSettings, window: int) -> LabelledData:
    """Join labels and shards; refuse what cannot be learned from."""
    labels = read_label(reader.table, target.name, target.kind, target.positive).dropna()
    values = {str(name): float(value) for name, value in labels.items()}
    lengths = {
        split: {
            name: length
            for name, length in reader.lengths(split).items()
            if name in values and length >= window
        }
        for split in ("train", "val", "test")
    }
    used = reader.table[reader.table["split"].isin(list(lengths))]
    subjects = reader.table.loc[list(lengths["train"]), "subject"].nunique()
    if subjects < _FEWEST_TRAIN_SUBJECTS or not lengths["val"]:
        raise DataError(
            f"Too few subjects have the label {target.name}: {subjects} to train on (needed "
            f"{_FEWEST_TRAIN_SUBJECTS}) and {len(lengths['val'])} recordings to validate on",
            fix="choose another target, add subjects, or change the split",
        )
    train = np.array([values[name] for name in sorted(lengths["train"])])
    return LabelledData(
        values=values,
        lengths=lengths,
        scale=LabelScale.fit(train, target.kind, target.name),
        n_missing=int((~used["recording_id"].isin(list(values))).sum()),
    )


def finetune(
    model: LabelModel,
    reader: ShardReader,
    data: LabelledData,
    settings: FinetuneSettings,
    *,
    kind: str,
    mask_ratio: float,
    seed: int,
    report: Callable[[dict[str, Any]], None],
) -> LabelModel:
    """Train, and return the model of the epoch with the lowest validation loss.

    `model` must be on its device, its encoder pretrained. It is changed.
    """
    config = model.autoencoder.config
    device = next(model.parameters()).device
    model.initialize_head(generator(seed, "head"))
    model.autoencoder.requires_grad_(not settings.freeze_encoder)
    weights = dict(model.named_parameters())
    optimizer = make_optimizer(weights, settings.learning_rate, settings.weight_decay)
    fewest = fewest_parcels(reader, ("train", "val"))
    n_visible = count_visible(mask_ratio, fewest_tokens(config, fewest))
    loss_of = _loss_function(kind, data)
    steps = math.ceil(len(data.lengths["train"]) / settings.batch_size)
    best_loss, best, best_epoch = math.inf, _copy_state(model), 0
    for epoch in range(settings.epochs):
        windows = random_windows(
            data.lengths["train"],
            window=config.timepoints,
            seed=seed,
            epoch=epoch,
            per_recording=1,
        )
        model.train()
        train_loss = 0.0
        for place, chosen in enumerate(batches(windows, settings.batch_size)):
            step = epoch * steps + place
            rate = learning_rate_at(step, steps * settings.epochs, settings.learning_rate, _WARMUP)
            set_learning_rate(optimizer, rate)
            torch.manual_seed(generator(seed, "dropout", step).initial_seed())
            batch = load_batch(reader, chosen, config.timepoints, device)
            source = generator(seed, "mask", step)
            available = model.autoencoder.tokenizer.available(batch.covered)
            mask = random_mask(available, n_visible, source)
            loss = loss_of(model(batch.signal, mask.visible), batch.recording_ids)
            if not torch.isfinite(loss):
                raise DataError(
                    f"The loss is {float(loss)} at epoch {epoch + 1}; the batch held "
                    f"{', '.join(sorted(batch.recording_ids))}",
                    fix="lower finetune.learning_rate, or look at these recordings",
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            clip(weights.values(), _CLIP_NORM)
            optimizer.step()
            train_loss += float(loss.detach()) * len(chosen) / len(windows)

        guessed = predict(
            model,
            reader,
            data.lengths["val"],
            n_visible=n_visible,
            seed=seed,
            batch_size=settings.batch_size,
        )
        with torch.no_grad():
            outputs = torch.tensor(list(guessed.values()), dtype=torch.float32, device=device)
            val_loss = float(loss_of(outputs, tuple(guessed)))
        if not math.isfinite(val_loss):
            raise DataError(
                f"The validation loss is {val_loss} at epoch {epoch + 1}",
                fix="lower finetune.learning_rate",
            )
        better = val_loss < best_loss
        if better:
            best_loss, best, best_epoch = val_loss, _copy_state(model), epoch
        report({"epoch": epoch + 1, "loss": train_loss, "val_loss": val_loss, "best": better})
        if epoch - best_epoch >= _PATIENCE:
            break
    model.load_state_dict(best)
    return model.eval()


@torch.no_grad()
def predict(
    model: LabelModel,
    reader: ShardReader,
    lengths: Mapping[str, int],
    *,
    n_visible: int,
    seed: int,
    batch_size: int,
) -> dict[str, float]:
    """Recording -> the model's output (z-score or logit), averaged over views and windows."""
    config = model.autoencoder.config
    device = next(model.parameters()).device
    model.eval()
    outputs: dict[str, list[float]] = {}
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
            for place, value in zip(places, found.tolist(), strict=True):
                outputs.setdefault(batch.recording_ids[place], []).append(value)
    return {name: float(np.mean(values)) for name, values in outputs.items()}


def _loss_function(kind: str, data: LabelledData) -> Callable[[Tensor, Sequence[str]], Tensor]:
    """Squared error of z-scores, or cross-entropy that weighs both classes alike."""
    train = np.array([data.values[name] for name in sorted(data.lengths["train"])])
    weight = torch.tensor((1 - train.mean()) / train.mean() if kind == "binary" else 1.0)

    def loss(outputs: Tensor, recording_ids: Sequence[str]) -> Tensor:
        values = data.scale.to_model(np.array([data.values[name] for name in recording_ids]))
        wanted = torch.from_numpy(values).float().to(outputs.device)
        if kind == "binary":
            return F.binary_cross_entropy_with_logits(
                outputs, wanted, pos_weight=weight.float().to(outputs.device)
            )
        return F.mse_loss(outputs, wanted)

    return loss


def _copy_state(model: LabelModel) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
