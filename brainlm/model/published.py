"""The models that BrainLM's authors have released, read into ours (Ortega Caro et al., ICLR 2024).

Three channels of equal input fold into one (the sum of their weights), and the mean over the three
channels that come out into one as well: the numbers stay theirs, to rounding. What is not needed
is named, what is missing refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError
from .config import ModelConfig
from .place import ImagePlace

State = dict[str, Tensor]

#: Of the windows that became images, and equal channels of these.
_PARCELS, _CHANNELS = 424, 3
#: Repetition time of what they were trained on (UK Biobank), s.
RELEASED_TR = 0.735
#: What the authors divide scaled series by before they make an image of them.
INPUT_SCALE = 5.6430855

_VIT_BLOCK = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.attention": "attention",
    "attention.output.dense": "attention.out",
    "intermediate.dense": "mlp.0",
    "output.dense": "mlp.2",
}
_NYSTROM_BLOCK = {
    "attention.output.LayerNorm": "norm1",
    "output.LayerNorm": "norm2",
    "attention.self": "attention",
    "attention.output.dense": "attention.out",
    "intermediate.dense": "mlp.0",
    "output.dense": "mlp.2",
}
#: Positions agree with the formula to this; a fine-tuned table would not.
_POSITION_TOLERANCE = 1e-5
#: A layer of the 13M that its authors' code never calls.
_UNUSED = {"decoder.decoder_pred.weight", "decoder.decoder_pred.bias"}
#: What a config.json may say that would make other numbers of the same weights, and the one value
#: (also where it says nothing) that is known here.
_KNOWN = {
    "hidden_act": "gelu",
    "norm_pix_loss": False,
    "use_tanh_decoder": False,
    "qkv_bias": True,
}
#: So many missing weights are named.
_NAMED = 20
#: Share of the tokens that was hidden in training, where config.json does not tell.
_MASK_RATIO = 0.75


@dataclass(frozen=True)
class Published:
    """A released model in our terms."""

    config: ModelConfig
    state: State  # of `MaskedAutoencoder`
    head: State | None  # of `MlpHead`, where it has been fine-tuned
    unused: tuple[str, ...]  # weights that their own code does not use either
    unknown: tuple[str, ...]  # other weights that have no place in ours
    head_loss: str = "mse"  # what the head was trained with; bce: two classes
    head_mean: bool = False  # whether it reads the mean over all tokens, or CLS
    head_sigmoid: bool = False  # whether a sigmoid followed it
    mask_ratio: float = _MASK_RATIO  # share of the tokens that was hidden in training


def read_published(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Published:
    """Translate a released model: the content of its config.json, and its weights by name."""
    nystrom = config.get("model_type") == "brainlm_mae"
    for name, known in _KNOWN.items():
        if config.get(name, known) != known:
            raise DataError(
                f"config.json says {name} {config[name]!r}; released models have {known!r}, and "
                "nothing else can be read"
            )
    ours = _config_of(config, nystrom=nystrom)
    given = _Given(dict(state))
    found: State = {"cls": given.take("vit.embeddings.cls_token")}
    found |= given.pair("vit.layernorm", "encoder_norm")
    found |= given.pair("decoder.decoder_norm", "decoder.norm")
    found |= given.pair("decoder.decoder_embed", "decoder.bridge")
    found["decoder.mask_token"] = given.take("decoder.mask_token")
    names = _NYSTROM_BLOCK if nystrom else _VIT_BLOCK
    if ours.conv:
        names = {**names, "attention.self.conv": "attention.conv"}
    for theirs, name, layers in (
        ("vit.encoder.layer", "encoder", ours.layers),
        ("decoder.decoder_layers", "decoder.blocks", ours.decoder_layers),
    ):
        for number in range(layers):
            found |= _block(given, f"{theirs}.{number}", f"{name}.{number}", names)
        if any(left.startswith(f"{theirs}.{layers}.") for left in given.left):
            raise DataError(f"There are more layers {theirs} than the {layers} of config.json")
    found |= _parcel_ends(given) if nystrom else _image_ends(given, ours)
    head = _head(given)
    if given.missing:
        lacking = sorted(given.missing)
        rest = f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
        raise DataError(
            f"The released model lacks the weights {', '.join(lacking[:_NAMED])}{rest}",
            fix="give the folder of a model as its authors released it",
        )
    return Published(
        ours,
        found,
        head,
        unused=tuple(sorted(_UNUSED & set(given.left))) if nystrom else (),
        unknown=tuple(sorted(set(given.left) - (_UNUSED if nystrom else set()))),
        head_loss=str(config.get("loss_fn", "mse")),
        head_mean=bool(config.get("use_mean_pooling")),
        head_sigmoid=bool(config.get("sigmoid_outputs")),
        mask_ratio=float(config.get("mask_ratio") or _MASK_RATIO),
    )


def folded_parameters(config: ModelConfig) -> int:
    """Trainable parameters that the released model of this shape has and ours does not need.

    Of an image: two more channels in and out. Of the 13M: a layer that its code never calls.
    """
    if config.tokenizer == "image":
        entries = config.patch**2
        return 2 * entries * (config.hidden + config.decoder_hidden + 1)
    if config.head == "mlp":
        return 3 * 16**2 * (config.decoder_hidden + 1)
    return 0


class _Given:
    """Their weights; each is taken once, so that what is left, and what is missing, is known."""

    def __init__(self, state: State):
        self.left = state
        self.missing: list[str] = []

    def take(self, name: str) -> Tensor:
        """The weights of this name; if there are none, an empty tensor, and the name is noted."""
        if name in self.left:
            return self.left.pop(name)
        self.missing.append(name)
        return torch.empty(0)

    def pair(self, theirs: str, ours: str) -> State:
        """Weight and bias of one layer."""
        return {f"{ours}.{kind}": self.take(f"{theirs}.{kind}") for kind in ("weight", "bias")}


def _config_of(config: Mapping[str, Any], *, nystrom: bool) -> ModelConfig:
    """Their config.json in our terms."""
    shared: dict[str, Any] = {
        "hidden": config["hidden_size"],
        "layers": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
        "mlp": config["intermediate_size"],
        "decoder_hidden": config["decoder_hidden_size"],
        "decoder_layers": config["decoder_num_hidden_layers"],
        "decoder_heads": config["decoder_num_attention_heads"],
        "decoder_mlp": config["decoder_intermediate_size"],
        "dropout": float(config["hidden_dropout_prob"]),
        "norm_eps": config["layer_norm_eps"],
        "decoder": "full",
    }
    if nystrom:
        # With as many landmarks as their sequence is meant to be long, as the released 13M has
        # it, their attention is the exact one, however long it is.
        exact = config["num_landmarks"] == config["segment_means_seq_len"]
        return ModelConfig(
            parcels=config["num_brain_voxels"],
            timepoints=config["num_timepoints_per_voxel"],
            patch=config["timepoint_patching_size"],
            place="linear",
            norm="post",
            conv=config["conv_kernel_size"] or 0,
            landmarks=0 if exact else config["num_landmarks"],
            head="mlp",
            **shared,
        )
    image, side = config["image_size"], config["patch_size"]
    channels = config.get("num_channels", _CHANNELS)
    height = -(-_PARCELS // side) * side
    if image not in (height, [height, height], (height, height)) or channels != _CHANNELS:
        raise DataError(
            f"Its images are {image}, of {channels} channels; {_PARCELS} parcels in squares of "
            f"{side} make {[height, height]}, of {_CHANNELS}"
        )
    return ModelConfig(
        parcels=_PARCELS,
        timepoints=200,
        patch=side,
        tokenizer="image",
        padding="square",
        input_scale=INPUT_SCALE,
        **shared,
    )


def _block(given: _Given, theirs: str, ours: str, names: Mapping[str, str]) -> State:
    """One transformer block; their key and value are one matrix of ours."""
    found: State = {}
    for their, our in names.items():
        if our == "attention.conv":
            found[f"{ours}.{our}.weight"] = given.take(f"{theirs}.{their}.weight")
            continue
        if our != "attention":
            found |= given.pair(f"{theirs}.{their}", f"{ours}.{our}")
            continue
        found |= given.pair(f"{theirs}.{their}.query", f"{ours}.attention.query")
        for kind in ("weight", "bias"):
            parts = [given.take(f"{theirs}.{their}.{part}.{kind}") for part in ("key", "value")]
            found[f"{ours}.attention.key_value.{kind}"] = torch.cat(parts)
    return found


def _parcel_ends(given: _Given) -> State:
    """The 13M's way in and out."""
    embeddings = "vit.embeddings"
    return {
        **given.pair(f"{embeddings}.signal_embedding_projection", "tokenizer.signal_projection"),
        **given.pair(f"{embeddings}.xyz_embedding_projection", "tokenizer.place.xyz_projection"),
        **given.pair("decoder.decoder_xyz_projection", "decoder.place.xyz_projection"),
        **given.pair("decoder.decoder_pred1", "decoder.guess.0"),
        **given.pair("decoder.decoder_pred2", "decoder.guess.2"),
    }


def _image_ends(given: _Given, config: ModelConfig) -> State:
    """The image models' way in and out, three channels folded into one; positions are checked."""
    theirs = "vit.embeddings.patch_embeddings.projection"
    weight, out = given.take(f"{theirs}.weight"), given.take("decoder.decoder_pred.weight")
    bias, out_bias = given.take(f"{theirs}.bias"), given.take("decoder.decoder_pred.bias")
    positions = {
        name: (given.take(name), width)
        for name, width in (
            ("vit.embeddings.position_embeddings", config.hidden),
            ("decoder.decoder_pos_embed", config.decoder_hidden),
        )
    }
    if given.missing:
        return {}  # it is refused in the end, with all names
    entries = config.patch**2
    if weight.shape[1:].numel() != _CHANNELS * entries or len(out) != _CHANNELS * entries:
        raise DataError(
            f"The released model's {theirs}.weight {tuple(weight.shape)} or decoder.decoder_pred "
            f"{tuple(out.shape)} are of another shape than {_CHANNELS} squares of {config.patch}"
        )
    for name, (table, width) in positions.items():
        _check_positions(table, width, name)
    return {
        "tokenizer.signal_projection.weight": weight.sum(dim=1).flatten(1),
        "tokenizer.signal_projection.bias": bias,
        "decoder.guess.weight": out.unflatten(0, (entries, _CHANNELS)).mean(dim=1),
        "decoder.guess.bias": out_bias.unflatten(0, (entries, _CHANNELS)).mean(dim=1),
    }


def _check_positions(table: Tensor, width: int, name: str) -> None:
    """Refuse positions (1, 1 + tokens, width) that are not the fixed ones, CLS at 0."""
    side = round((table.shape[1] - 1) ** 0.5)
    grid = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    fixed = ImagePlace(grid[0].flatten(), grid[1].flatten(), width).table
    off = (table[0, 1:] - fixed).abs().max().item() if len(fixed) + 1 == table.shape[1] else 1.0
    if max(off, table[0, 0].abs().max().item()) > _POSITION_TOLERANCE:
        raise DataError(
            f"The released model's {name} are not the fixed sines and cosines",
            fix="give a model whose positions were not trained",
        )


def _head(given: _Given) -> State | None:
    """The head of a fine-tuned model, if there is one."""
    if "mlp_pred_head.lin1.weight" not in given.left:
        return None
    layers = {"lin1": "0", "lin2": "3", "lin3": "6"}
    found: State = {}
    for their, our in layers.items():
        found |= given.pair(f"mlp_pred_head.{their}", our)
    return found
