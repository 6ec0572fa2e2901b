"""A model's folder: everything that is needed to use it, and nothing that can run code.

config.json                 sizes, masking, the head if there is one, hashes of the others
model.safetensors           weights (float32)
normalization.safetensors   the scaler of the data it was trained on
parcels.tsv                 order, names and places of the parcels
README.md                   the model card
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from ..errors import DataError, InputError
from ..files import atomic_path, read_json, write_json, write_text
from ..provenance import read_sidecar, sha256_file
from ..shards.scaler import Scaler, load_scaler, save_scaler
from ..shards.tensorfile import load_tensors, save_tensors
from .config import ModelConfig
from .heads import LabelModel
from .label_unit import HeadCard
from .mae import MaskedAutoencoder
from .published import RELEASED_TR

FORMAT = 1
#: What config.json must hold beside its format; more may stand there, for other programs.
_KEYS = {"model", "mask_ratio", "split_sha256", "head", "sha256"}
#: Files whose hashes it holds.
_HASHED = {"parcels.tsv", "normalization.safetensors"}
_NAMED = 10
_RETRAIN = "train it again, or copy the whole folder anew"


@dataclass(frozen=True)
class ModelCard:
    """What config.json says besides the network's sizes."""

    mask_ratio: float
    split_sha256: str | None  # of the subjects' splits it was trained on; None: on none of them
    head: Mapping[str, Any] | None  # as `HeadCard` has it; None: no head
    released: Mapping[str, Any] | None = None  # which weights of BrainLM's authors it comes from

    @property
    def head_mask_ratio(self) -> float:
        """Share of the tokens that is hidden where the head reads: 0 shows it whole windows."""
        of_head = (self.head or {}).get("mask_ratio")
        return self.mask_ratio if of_head is None else float(of_head)


@dataclass(frozen=True)
class LoadedModel:
    """A model read from its folder."""

    model: MaskedAutoencoder | LabelModel
    config: ModelConfig
    card: ModelCard
    scaler: Scaler | None  # None: as BrainLM's authors released it
    parcels: pd.DataFrame
    parcels_tsv: bytes  # the table as it stands in the file: its hash ties shards to models
    readme: str

    @property
    def autoencoder(self) -> MaskedAutoencoder:
        """The autoencoder, with or without a head on it."""
        return self.model.autoencoder if isinstance(self.model, LabelModel) else self.model

    @property
    def tr(self) -> float | None:
        """Repetition time of the train data, s; None: not known, or several."""
        if self.scaler is not None:
            return self.scaler.about.get("tr")
        return RELEASED_TR if self.card.released else None


def build_model(
    config: ModelConfig, parcels: pd.DataFrame, head: Mapping[str, Any] | None = None
) -> MaskedAutoencoder | LabelModel:
    """An untrained network for these parcels (columns x, y, z in MNI mm)."""
    if len(parcels) != config.parcels:
        raise DataError(
            f"The model is made for {config.parcels} parcels, the atlas has {len(parcels)}",
            fix=f"set model.overrides: {{parcels: {len(parcels)}}}, or choose another atlas",
        )
    # A tensor with values, also where the network is built on meta.
    places = torch.from_numpy(parcels[["x", "y", "z"]].to_numpy(dtype=float, copy=True))
    autoencoder = MaskedAutoencoder(config, places)
    if not head:
        return autoencoder
    options = {key: head[key] for key in ("pool", "layers", "outputs") if key in head}
    return LabelModel(autoencoder, float(head["dropout"]), **options)


def weights_sha256(model: nn.Module) -> str:
    """Hash of all weights, whatever file they came from."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_weights(path: Path, model: nn.Module) -> None:
    """Write the weights as safetensors, with equal bytes for equal weights."""
    save_state(path, model.state_dict())


def save_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """`save_weights`, of weights by name."""
    tensors = {name: value.detach().cpu().numpy() for name, value in state.items()}
    save_tensors(path, tensors, {"format": FORMAT})


def save_surroundings(
    folder: Path, *, config: ModelConfig, card: ModelCard, data_folder: Path, readme: str
) -> None:
    """Write all but the weights; parcels and scaler come from `data_folder` (shards, a model)."""
    copies = {name: data_folder / name for name in ("parcels.tsv", "normalization.safetensors")}
    for name, source in copies.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(source.read_bytes())
    write_json(
        folder / "config.json",
        {
            "format": FORMAT,
            "model": config.to_dict(),
            "mask_ratio": card.mask_ratio,
            "split_sha256": card.split_sha256,
            "head": dict(card.head) if card.head else None,
            "released": dict(card.released) if card.released else None,
            "model_type": "brainlm",  # this and the next are for the transformers library
            "architectures": ["BrainLMModel"],
            "sha256": {name: sha256_file(source) for name, source in copies.items()},
        },
    )
    write_text(folder / "README.md", readme)


def save_model(folder: Path, loaded: LoadedModel) -> None:
    """Write the whole folder of a model that is in memory."""
    if loaded.scaler is None:
        raise InputError(
            "This model has no scaler, so nobody could use the folder",
            fix="give it one first: model.with_scaler(...)",
        )
    (folder / "model.safetensors").unlink(missing_ok=True)  # no older ones beside a new config.json
    with tempfile.TemporaryDirectory() as data:
        (Path(data) / "parcels.tsv").write_bytes(loaded.parcels_tsv)
        save_scaler(Path(data) / "normalization.safetensors", loaded.scaler)
        save_surroundings(
            folder,
            config=loaded.config,
            card=loaded.card,
            data_folder=Path(data),
            readme=loaded.readme,
        )
    with atomic_path(folder / "model.safetensors") as path:
        save_weights(path, loaded.model)


def load_model(folder: str | Path) -> LoadedModel:
    """Read a model's folder and check that its parts belong together."""
    folder = Path(folder)
    content = _read_config(folder)
    for name, expected in content["sha256"].items():
        if not (folder / name).exists() or sha256_file(folder / name) != expected:
            raise DataError(
                f"{name} is missing or is not the one this model was trained with",
                file=folder / name,
                fix=_RETRAIN,
            )
    try:
        config = ModelConfig.from_dict(content["model"])
        if content["head"]:
            HeadCard.from_dict(content["head"])
    except InputError as error:
        raise DataError(error.what, file=folder / "config.json", fix=error.fix) from None
    parcels = pd.read_csv(folder / "parcels.tsv", sep="\t")
    with torch.device("meta"):  # weights take no memory before those of the file are there
        model = build_model(config, parcels, content["head"])
    path, readme = folder / "model.safetensors", folder / "README.md"
    fill(model, {key: torch.from_numpy(v) for key, v in load_tensors(path)[0].items()}, path)
    return LoadedModel(
        model=model.eval(),
        config=config,
        card=ModelCard(
            mask_ratio=content["mask_ratio"],
            split_sha256=content["split_sha256"],
            head=content["head"],
            released=content.get("released") or _imported(folder),
        ),
        scaler=load_scaler(folder / "normalization.safetensors"),
        parcels=parcels,
        parcels_tsv=(folder / "parcels.tsv").read_bytes(),
        readme=readme.read_text(encoding="utf-8") if readme.exists() else "",
    )


def _imported(folder: Path) -> Mapping[str, Any] | None:
    """Which released weights these are, of a folder written before config.json told it."""
    try:
        return read_sidecar(folder / "model.safetensors").get("Released")
    except DataError:
        return None


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        content = dict(read_json(path))
    except (OSError, ValueError, TypeError) as error:  # none, no text, no JSON, no object
        raise DataError(
            f"This is no model's folder: config.json cannot be read ({type(error).__name__})",
            file=path,
            fix="train the model first: `brainlm pretrain`",
        ) from None
    if content.get("format") != FORMAT:
        raise DataError(
            f"The model has format {content.get('format')}, this program reads {FORMAT}",
            file=path,
            fix=_RETRAIN,
        )
    if missing := sorted(_KEYS - set(content)):
        raise DataError(f"config.json lacks {', '.join(missing)}", file=path, fix=_RETRAIN)
    kinds = {"model": dict, "sha256": dict, "head": dict | None, "mask_ratio": float | int}
    if wrong := [name for name, kind in kinds.items() if not isinstance(content[name], kind)]:
        raise DataError(f"config.json holds no usable {wrong[0]}", file=path, fix=_RETRAIN)
    if missing := sorted(_HASHED - set(content["sha256"])):
        raise DataError(
            f"config.json lacks the hash of {', '.join(missing)}", file=path, fix=_RETRAIN
        )
    return content


def fill(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Give a network its weights, by name, all of them; `path` is where they are from.

    On the CPU they are not copied.
    """
    state = model.state_dict()
    own = {name: tuple(value.shape) for name, value in state.items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    shapes = [n for n in own.keys() & found.keys() if own[n] != found[n]]
    wrong = {
        "missing": sorted(own.keys() - found.keys()),
        "unknown": sorted(found.keys() - own.keys()),
        "of another shape": [f"{n} {found[n]}, expected {own[n]}" for n in sorted(shapes)],
    }
    if any(wrong.values()):
        told = "; ".join(f"{what}: {_some(names)}" for what, names in wrong.items() if names)
        raise DataError(f"The weights do not fit config.json: {told}", file=path, fix=_RETRAIN)
    typed = {name: value.to(state[name].dtype) for name, value in tensors.items()}
    model.load_state_dict(typed, assign=True)


def _some(names: list[str]) -> str:
    """The names, or the first few and how many more."""
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + rest
