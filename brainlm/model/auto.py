"""What lets the transformers library read a model's folder (`AutoConfig`, `AutoModel`).

The folder's own reader builds the network and fills it: transformers would build it without data
(on the meta device) and lose what is not among the weights, as the parcels' places. So
`from_pretrained` and `save_pretrained` are ours; the rest is transformers'.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from ..errors import InputError
from ..files import atomic_path
from .available import tokens_with_data
from .checkpoint import LoadedModel, load_model, save_state
from .mae import MaskedAutoencoder
from .repository import MODEL_FILES, fetch_model, upload_model

MODEL_TYPE = "brainlm"
#: Arguments that the Hub's client is to get.
_OF_THE_HUB = ("token", "cache_dir", "force_download", "local_files_only")
_WEIGHTS = "model.safetensors"
_SURROUNDINGS = tuple(name for name in MODEL_FILES if name != _WEIGHTS)
#: Arguments of transformers that decide how files are fetched or filled in, which the reader of a
#: model's folder does in one way only.
_WITHOUT_EFFECT = {
    *("_from_auto", "_from_pipeline", "_commit_hash", "adapter_kwargs", "trust_remote_code"),
    *("low_cpu_mem_usage", "use_safetensors", "weights_only", "attn_implementation"),
    *("proxies", "safe_serialization", "max_shard_size", "save_function", "save_original_format"),
}


class BrainLMConfig(PretrainedConfig):
    """What config.json of a model's folder says, `model` (sizes) and `mask_ratio` first."""

    model_type = MODEL_TYPE


@dataclass
class BrainLMOutput(ModelOutput):
    """What the encoder makes of a batch of windows."""

    last_hidden_state: Tensor | None = None  # (batch, 1 + k, hidden): CLS, then the k tokens seen
    pooler_output: Tensor | None = None  # (batch, hidden): mean over them, CLS included
    attentions: tuple[Tensor, ...] | None = None  # each layer (batch, heads, 1 + k, 1 + k)


class BrainLMModel(PreTrainedModel):
    """The encoder of a model's folder as transformers has it.

    `network` is the autoencoder, or the model with a head; `scaler` brings raw series to its scale.
    """

    config_class = BrainLMConfig
    base_model_prefix = "network"
    main_input_name = "signal"
    _supports_sdpa = True

    def __init__(self, config: BrainLMConfig, loaded: LoadedModel | None = None):
        """Not to be called: `from_pretrained` is the way in, for the places of the parcels."""
        if loaded is None:
            raise InputError(
                "A BrainLM for transformers cannot be made of its config alone: the parcels are "
                "in its folder",
                fix="AutoModel.from_pretrained(folder); train new ones with `brainlm pretrain`",
            )
        super().__init__(config)
        self.network = loaded.model
        self.scaler = loaded.scaler
        self.parcels = loaded.parcels
        self._files: dict[str, bytes] = {}  # of the folder, but for the weights

    @property
    def autoencoder(self) -> MaskedAutoencoder:
        """The autoencoder, with or without a head on it."""
        network = self.network
        return network if isinstance(network, MaskedAutoencoder) else network.autoencoder

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        config: BrainLMConfig | None = None,
        subfolder: str | None = None,
        revision: str | None = None,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        device_map: Any = None,
        **kwargs: Any,
    ) -> BrainLMModel:
        """Read a model's folder, or that of a repository on the Hub.

        `dtype` (or `torch_dtype`): float32 is what is stored, and the default. `device_map`: one
        device for all of it, or "auto": a GPU where there is one. What else is given must be known
        to the configuration, e.g. `output_attentions`.
        """
        folder = Path(pretrained_model_name_or_path)
        hub = {name: kwargs.pop(name) for name in _OF_THE_HUB if name in kwargs}
        if folder.is_dir():
            folder = folder / subfolder if subfolder else folder
        else:
            repo = os.fspath(pretrained_model_name_or_path)
            folder = fetch_model(repo, subfolder or None, revision, **hub)
        if config is None:
            config, kwargs = BrainLMConfig.from_pretrained(
                folder, return_unused_kwargs=True, **kwargs
            )
        _refuse_unknown("from_pretrained", kwargs)
        loaded = load_model(folder)
        model = cls(config, loaded)
        if config._attn_implementation == "eager":
            model.autoencoder.set_attention("eager")
        found = [folder / name for name in _SURROUNDINGS if (folder / name).is_file()]
        model._files = {path.name: path.read_bytes() for path in found}
        about = json.loads(model._files["config.json"])
        if loaded.card.released and not about.get("released"):  # told by an older folder's sidecar
            about["released"] = dict(loaded.card.released)
            model._files["config.json"] = json.dumps(about, indent=2).encode()
        nn.Module.to(model, device=_device(device_map), dtype=_dtype(dtype or torch_dtype))
        return model.eval()

    def forward(
        self,
        signal: Tensor,
        visible: Tensor | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> BrainLMOutput | tuple[Any, ...]:
        """Encode windows (batch, parcels, time), scaled; NaN marks parcels without data.

        `visible` (batch, k): the tokens to look at; without it all that have data, which must then
        be equally many in each window of the batch.
        """
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        encoder = self.autoencoder
        signal = signal.to(encoder.cls.device, encoder.cls.dtype)
        if visible is None:
            visible = _all_tokens(encoder, signal)
        weights: list[Tensor] | None = [] if output_attentions else None
        latents = encoder.encode(signal, visible, weights)
        output = BrainLMOutput(
            last_hidden_state=latents,
            pooler_output=latents.mean(dim=1),
            attentions=None if weights is None else tuple(weights),
        )
        return output.to_tuple() if return_dict is False else output

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | os.PathLike[str],
        *,
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Write a model's folder: these weights (as float32), all else as it was read."""
        _refuse_unknown("save_pretrained", kwargs)
        if push_to_hub:
            raise TypeError("to upload a model call its push_to_hub(repository)")
        if not is_main_process:
            return
        # No older weights beside a new config.json, should this not come to its end.
        (Path(save_directory) / _WEIGHTS).unlink(missing_ok=True)
        for name, content in self._files.items():
            with atomic_path(Path(save_directory) / name) as temporary:
                temporary.write_bytes(content)
        prefix = f"{self.base_model_prefix}."
        state = self.state_dict() if state_dict is None else state_dict
        tensors = {name.removeprefix(prefix): value.float() for name, value in state.items()}
        with atomic_path(Path(save_directory) / _WEIGHTS) as temporary:
            save_state(temporary, tensors)

    def push_to_hub(  # type: ignore[override]
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
    ) -> str:
        """Save it into a repository on the Hub, as `upload_model` does; return its address."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return upload_model(
                folder, repo_id, private=private, revision=revision, message=commit_message
            )


def _refuse_unknown(function: str, given: Mapping[str, Any]) -> None:
    unknown = sorted(set(given) - _WITHOUT_EFFECT)
    if unknown:
        raise TypeError(f"BrainLMModel.{function} knows no {', '.join(unknown)}")


def _all_tokens(encoder: MaskedAutoencoder, signal: Tensor) -> Tensor:
    """Indices (batch, k) of the tokens with data."""
    available = tokens_with_data(encoder.tokenizer, signal)
    counts = available.sum(dim=1)
    if (counts != counts[0]).any():
        raise InputError(
            f"The windows of this batch have {int(counts.min())} to {int(counts.max())} tokens "
            "with data",
            fix="give windows of equal coverage together, or say which tokens: visible=...",
        )
    return available.nonzero()[:, 1].reshape(len(signal), -1)


def _dtype(wanted: torch.dtype | str | None) -> torch.dtype:
    """`float32` where nothing (or "auto": as stored) is asked for."""
    if wanted is None or wanted == "auto":
        return torch.float32
    found = getattr(torch, wanted, None) if isinstance(wanted, str) else wanted
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise InputError(f"dtype must be a floating-point type, not {wanted!r}")
    return found


def _device(device_map: Any) -> torch.device:
    """The one device of a `device_map`."""
    if device_map is None:
        return torch.device("cpu")
    if isinstance(device_map, dict):
        if len(set(device_map.values())) != 1:
            raise InputError("A BrainLM stays on one device", fix='device_map={"": device}')
        device_map = next(iter(device_map.values()))
    if device_map == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device_map)


AutoConfig.register(MODEL_TYPE, BrainLMConfig, exist_ok=True)
AutoModel.register(BrainLMConfig, BrainLMModel, exist_ok=True)
