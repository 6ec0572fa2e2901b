"""The model card: what the model is, what it saw, and what it must not be used for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .config import ModelConfig


def model_card(
    run: str,
    config: ModelConfig,
    *,
    n_parameters: int,
    counts: Mapping[str, int],
    training: Mapping[str, Any],
    results: Mapping[str, Any],
) -> str:
    """README.md of a model's folder.

    `counts`: recordings by split; `training`: its settings; `results`: its last numbers.
    """
    lines = [
        f"# {run}",
        "",
        "A masked autoencoder of parcel-wise fMRI series in the manner of BrainLM (Ortega Caro "
        "et al., ICLR 2024), trained with the `brainlm` pipeline. These are not the weights "
        "that the paper's authors released.",
        "",
        "## Input",
        f"Windows of {config.timepoints} volumes of {config.parcels} parcels, in the order of "
        "`parcels.tsv`, scaled by `normalization.safetensors`: (x - mean of the recording - "
        "median) / IQR, per parcel. NaN marks parcels without data.",
        "",
        "## Network",
        f"{n_parameters:,} parameters; {config.layers} encoder layers of width {config.hidden}, "
        f"{config.decoder_layers} decoder layers of width {config.decoder_hidden}; tokens of "
        f"{config.patch} volumes of one parcel.",
        "",
        "## Data",
        "| split | recordings |",
        "|---|---|",
        *(f"| {split} | {count} |" for split, count in counts.items()),
        "",
        "## Training",
        *(f"- {name}: {value}" for name, value in sorted(training.items())),
        "",
        "## Results on the validation split",
        *(f"- {name}: {_number(value)}" for name, value in sorted(results.items())),
        "",
        "Scores on the test split, with baselines and confidence intervals, are in the study's "
        "`evaluation/` folder; the validation numbers above served to watch the training.",
        "",
        "## Limits",
        "For research only, never for decisions about a person. It knows the scanners, ages and "
        "preprocessing of the recordings above and no others; head motion and site can drive "
        "its predictions, so compare with the baselines that see nothing else.",
        "",
        "Provenance (sources with hashes, options, software) is in `model.json`.",
    ]
    return "\n".join(lines) + "\n"


def released_card(run: str, config: ModelConfig, released: Mapping[str, Any]) -> str:
    """README.md of a folder with a model that BrainLM's authors released; `released` says which."""
    lines = [
        f"# {run}",
        "",
        "A BrainLM (Ortega Caro et al., ICLR 2024) with the weights that its authors released, in "
        "the form of the `brainlm` pipeline. **Licence of the weights: CC BY-NC-ND 4.0**, so they "
        "must not be passed on changed, which includes this form.",
        "",
        *(f"- {name}: {value}" for name, value in sorted(released.items()) if value),
        "",
        "## Input",
        f"Windows of {config.timepoints} volumes of {config.parcels} parcels, in the order of "
        "`parcels.tsv`, scaled by `normalization.safetensors`, which was fitted on this study's "
        "own train split: the authors' scaler was not released. It was trained on UK Biobank at "
        "a TR of 0.735 s.",
        "",
        "## Limits",
        "For research only, never for decisions about a person. Subjects of this study may have "
        "been among those it was trained on, if they are of UK Biobank.",
    ]
    return "\n".join(lines) + "\n"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
