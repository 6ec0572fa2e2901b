"""Where a model comes from: a folder of ours, one as BrainLM's authors released it, or the Hub."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import DataError, InputError
from ..files import read_json
from ..provenance import sha256_file
from ..resources import share_dir
from .card import released_card
from .checkpoint import LoadedModel, ModelCard, build_model, fill, load_model
from .heads import LabelModel
from .label_unit import HeadCard
from .published import Published
from .released import read_released
from .repository import fetch_model


def open_model(
    path_or_repo: str | Path, subfolder: str | None = None, revision: str | None = None
) -> LoadedModel:
    """Read a model from a folder, or else from the repository of that name on the Hub."""
    folder = find_folder(path_or_repo, subfolder, revision)
    return _released_model(folder) if _is_released(folder) else load_model(folder)


def find_folder(
    path_or_repo: str | Path, subfolder: str | None = None, revision: str | None = None
) -> Path:
    """The folder of a model: one on this disk, else of the repository of that name, fetched."""
    folder = Path(path_or_repo)
    if not folder.is_dir():
        if folder.is_absolute() or str(path_or_repo).startswith(".") or folder.exists():
            raise InputError("There is no such folder", file=folder, fix="give a model's folder")
        return fetch_model(str(path_or_repo), subfolder, revision)
    if revision:
        raise InputError(
            f"A folder has no revision, so {revision} cannot be chosen",
            file=folder,
            fix="leave it out; or, if the Hub's repository is meant, work where no folder has its "
            "name",
        )
    folder = folder / subfolder if subfolder else folder
    if not (folder / "config.json").is_file():
        inside = sorted(path.parent.name for path in folder.glob("*/config.json"))
        raise InputError(
            "There is no config.json in this folder",
            file=folder,
            fix=f"choose a subfolder: {', '.join(inside)}" if inside else "is it a model's folder?",
        )
    return folder


def released_parcels() -> tuple[pd.DataFrame, bytes]:
    """The parcels of the released models, those of A424, and their table as it stands."""
    path = share_dir() / "atlases" / "A424" / "parcels.tsv"
    return pd.read_csv(path, sep="\t"), path.read_bytes()


def head_card(published: Published, **about: Any) -> HeadCard:
    """The card of a released head: what its config tells, and what the user knows of its label.

    Without `about` the numbers stay as released: nobody knows their unit.
    """
    told = {"name": "released", "positive": None, "mean": 0.0, "sd": 1.0, "unit": "as released"}
    kind = "binary" if published.head_loss == "bce" else "regression"
    return HeadCard.from_dict(
        {
            **told,
            "kind": kind,
            "dropout": 0.1,
            "pool": "mean" if published.head_mean else "cls",
            "sigmoid": published.head_sigmoid,
            **about,
        }
    )


def released_network(
    published: Published, parcels: pd.DataFrame, weights: Path, head: HeadCard | None
) -> Any:
    """A released network with its weights, every one of them; with its head if there is a card."""
    model = build_model(published.config, parcels, head.to_dict() if head else None)
    state = dict(published.state)
    if isinstance(model, LabelModel):
        assert published.head is not None
        state = {f"autoencoder.{name}": value for name, value in state.items()}
        state |= {f"head.{name}": value for name, value in published.head.items()}
    fill(model, state, weights)
    return model


def _is_released(folder: Path) -> bool:
    """Whether config.json is one of the authors': sizes at the top, none of our keys."""
    try:
        content = read_json(folder / "config.json")
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "hidden_size" in content and "model" not in content


def _released_model(folder: Path) -> LoadedModel:
    """A released model as it stands: no scaler, the parcels of A424."""
    published, weights = read_released(folder)
    if published.unknown:
        told = f"{weights} holds weights that are not known, and not used: "
        warnings.warn(told + ", ".join(published.unknown), stacklevel=2)
    parcels, table = released_parcels()
    if published.config.parcels != len(parcels):
        raise DataError(
            f"The released model has {published.config.parcels} parcels, A424 has {len(parcels)}",
            file=folder,
        )
    head = head_card(published) if published.head is not None else None
    model = released_network(published, parcels, weights, head)
    about = {"source": folder.name, "sha256": sha256_file(weights)}
    return LoadedModel(
        model=model.eval(),
        config=published.config,
        card=ModelCard(published.mask_ratio, None, head.to_dict() if head else None, about),
        scaler=None,
        parcels=parcels,
        parcels_tsv=table,
        readme=released_card(folder.name, published.config, about),
    )
