"""What a pretraining is made of, and what stands beside its weights in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..model.mae import MaskedAutoencoder
    from ..shards.reader import ShardReader
    from ..train.checkpointing import TrainingLog
    from ..train.settings import PretrainSettings
    from ._stage import StageRun


def made_of_all(
    reader: ShardReader, options: Mapping[str, Any], code: str, machine: Mapping[str, Any]
) -> dict[str, Any]:
    """All that decides the result; not how the work is shared out, nor how often it is saved.

    Labels are left out: nothing is learned of them here, so that a corrected one brings back the
    finished training instead of days of another.
    """
    import hashlib

    from ..provenance import sha256_file
    from ..shards.labels import LABEL_PREFIX
    from ..shards.reader import NORMALIZATION_NAME, PARCELS_NAME
    from ..train.settings import deciding

    labels = [name for name in reader.table.columns if name.startswith(LABEL_PREFIX)]
    index = reader.table.drop(columns=labels).to_csv(index=False, lineterminator="\n")
    # The network also reads the parcels' places, of which the index knows nothing.
    data = {name: sha256_file(reader.folder / name) for name in (PARCELS_NAME, NORMALIZATION_NAME)}
    data[reader.index_path.name] = hashlib.sha256(index.encode()).hexdigest()
    return {
        "options": {**options, "pretrain": deciding(options["pretrain"])},
        "data": data,
        "code": code,
        "machine": dict(machine),
    }


def save_around(
    run: StageRun,
    reader: ShardReader,
    model: MaskedAutoencoder,
    settings: PretrainSettings,
    log: TrainingLog,
    *,
    kind: str = "model",
    trained_on: ShardReader | None = None,
) -> None:
    """Config, card, scaler and parcels of a model that has been trained, beside its weights.

    `trained_on`: the reader that the training saw, where it saw less than the study's.
    """
    from dataclasses import asdict

    from ..model.card import model_card
    from ..model.checkpoint import ModelCard, save_surroundings
    from ..shards.fingerprint import split_sha256

    last = [row for row in log.rows() if "val_loss" in row][-1]
    measured = {name: value for name, value in last.items() if value is not None}
    readme = model_card(
        settings.run,
        model.config,
        n_parameters=sum(parameter.numel() for parameter in model.parameters()),
        counts={split: len((trained_on or reader).recordings(split)) for split in ("train", "val")},
        training={**asdict(settings), "seed": run.params["seed"]},
        results=measured,
    )
    save_surroundings(
        run.path(kind).parent,
        config=model.config,
        card=ModelCard(settings.mask_ratio, split_sha256(reader.table), head=None),
        data_folder=reader.folder,
        readme=readme,
    )
