"""The model card: what the model is, what it saw, and what it must not be used for.

It is the README.md of a model's folder, and of its repository on the Hugging Face Hub, which reads
the front matter.
"""

from __future__ import annotations

import json
import keyword
from collections.abc import Mapping
from typing import Any

from .config import ModelConfig

#: Name of the licence of the weights that BrainLM's authors released, as the Hub spells it.
RELEASED_LICENSE = "cc-by-nc-nd-4.0"
_RELEASED_REPOSITORY = "vandijklab/brainlm"
_TAGS = ("brainlm", "fmri", "neuroimaging", "masked-autoencoder")
_PAPER = "BrainLM (Ortega Caro et al., ICLR 2024)"
_NOT_FOR = "For research only, never for decisions about a person."


def model_card(
    run: str,
    config: ModelConfig,
    *,
    n_parameters: int,
    counts: Mapping[str, int],
    training: Mapping[str, Any],
    results: Mapping[str, Any],
    head: Mapping[str, Any] | None = None,
    released: Mapping[str, Any] | None = None,
) -> str:
    """README.md of a model's folder.

    `counts`: recordings by split; `training`: its settings; `results`: its last numbers; `head`:
    of a fine-tuned one, as config.json has it; `released`: which weights of the authors it started
    from, None: from none.
    """
    weights = (
        "It was fine-tuned from weights that the paper's authors released under **CC BY-NC-ND "
        "4.0**, so it must not be passed on."
        if released
        else "These are not the weights that the paper's authors released."
    )
    lines = [
        *_front_matter(run, results, released),
        f"# {run}",
        "",
        f"A masked autoencoder of parcel-wise fMRI series in the manner of {_PAPER}, trained with "
        f"the `brainlm` pipeline. {weights}",
        "",
        *_usage(config, head),
        "## Intended use",
        f"{_intended(head)} {_NOT_FOR}",
        "",
        *_network(config, n_parameters),
        "## What it saw",
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
        "It knows the scanners, ages and preprocessing of the recordings above and no others; head "
        "motion and site can drive its predictions, so compare with the baselines that see nothing "
        "else.",
        "",
        "Provenance (sources with hashes, options, software) is in `model.json`, which stays in "
        "the study.",
    ]
    return "\n".join(lines) + "\n"


def released_card(run: str, config: ModelConfig, released: Mapping[str, Any]) -> str:
    """README.md of a folder with a model that BrainLM's authors released; `released` says which."""
    lines = [
        *_front_matter(run, {}, released),
        f"# {run}",
        "",
        f"A {_PAPER} with the weights that its authors released, in the form of the `brainlm` "
        "pipeline. **Licence of the weights: CC BY-NC-ND 4.0**, so they must not be passed on "
        "changed, which includes this form.",
        "",
        *(f"- {name}: {value}" for name, value in sorted(released.items()) if value),
        "",
        *_usage(config, None),
        "`normalization.safetensors`, where it is there, was fitted on the train split of the "
        "study that took the model over: the authors' scaler was not released. The model was "
        "trained on UK Biobank at a TR of 0.735 s.",
        "",
        "## Limits",
        f"{_NOT_FOR} Subjects of this study may have been among those it was trained on, if they "
        "are of UK Biobank.",
    ]
    return "\n".join(lines) + "\n"


def _front_matter(
    run: str, results: Mapping[str, Any], released: Mapping[str, Any] | None
) -> list[str]:
    """What the Hub reads, between two lines of dashes. JSON values are YAML, too."""
    about: dict[str, Any] = {
        "library_name": "brainlm",
        "pipeline_tag": "feature-extraction",
        "tags": list(_TAGS),
    }
    if released:
        about |= {"license": RELEASED_LICENSE, "base_model": _RELEASED_REPOSITORY}
    metrics = [
        {"type": name, "name": name, "value": value}
        for name, value in sorted(results.items())
        if isinstance(value, float)
    ]
    if metrics:
        task = {"type": "feature-extraction", "name": "validation while training"}
        dataset = {"type": "fmri", "name": "validation split of the study"}
        result = {"task": task, "dataset": dataset, "metrics": metrics}
        about["model-index"] = [{"name": run, "results": [result]}]
    return ["---", *(f"{name}: {json.dumps(value)}" for name, value in about.items()), "---", ""]


def _usage(config: ModelConfig, head: Mapping[str, Any] | None) -> list[str]:
    """How to load it, and what goes in."""
    ask = "vector = model.embed(series, tr=0.8)"
    if head:
        name = str(head["name"])
        usable = name.isidentifier() and not keyword.iskeyword(name)
        ask = f"{name if usable else 'label'} = model.predict(series, tr=0.8)"
    return [
        "## How to use it",
        "```python",
        "from brainlm.model import BrainLM",
        "",
        'model = BrainLM.from_pretrained("OWNER/NAME")  # this repository, or its folder',
        f"{ask}  # series: (volumes, parcels), not scaled; tr in seconds",
        "```",
        "",
        f"Series are those of the {config.parcels} parcels of `parcels.tsv`, in that order; a "
        "column of NaN is a parcel without data. `BrainLM` scales them as its train data were "
        "scaled (`normalization.safetensors`), so they must be in the same unit, and looks at "
        f"windows of {config.timepoints} volumes.",
        "",
    ]


def _intended(head: Mapping[str, Any] | None) -> str:
    if head:
        return (
            f"To predict {head['name']} in data like those it was trained on, and to study what "
            "such predictions rest on."
        )
    return (
        "Embeddings of recordings, fine-tuning on labels of one's own, guesses of hidden or future "
        "parts of a recording."
    )


def _network(config: ModelConfig, n_parameters: int) -> list[str]:
    token = (
        f"squares of {config.patch} parcels by {config.patch} volumes"
        if config.tokenizer == "image"
        else f"{config.patch} volumes of one parcel"
    )
    return [
        "## Network",
        f"{n_parameters:,} parameters; {config.layers} encoder layers of width {config.hidden}, "
        f"{config.decoder_layers} decoder layers of width {config.decoder_hidden}; tokens of "
        f"{token}.",
        "",
    ]


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
