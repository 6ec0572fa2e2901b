"""`brainlm import-checkpoint`: a released BrainLM as a model of this study."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ._console import say, warn
from ._stage import HERE, ParamsOption, StageRun, StudyOption

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    import pandas as pd
    from torch import nn

    from ..model.published import Published

#: Share of the tokens that was hidden when these were trained.
_MASK_RATIO = 0.75


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("import-checkpoint")(import_checkpoint)


def import_checkpoint(
    source: Annotated[
        str | None,
        typer.Argument(
            help="folder with config.json and weights, or a repository on the Hugging Face Hub "
            "(vandijklab/brainlm); default: released.source of the config"
        ),
    ] = None,
    subfolder: Annotated[
        str | None, typer.Option(help="old_13M, vitmae_111M or vitmae_650M of that repository")
    ] = None,
    study: StudyOption = HERE,
    params: ParamsOption = None,
) -> None:
    """Take over a model that BrainLM's authors released (13M, 111M, 650M).

    Writes models/RUN (RUN is pretrain.run) as if it had been trained here, to be fine-tuned and
    evaluated. The scaler and the parcels are those of the study's shards: the authors did not
    release theirs, and scaled each cohort by itself. Its numbers are the authors' to 1e-5. With
    released.source in the config, the workflow does this instead of pretraining. The weights are
    licensed CC BY-NC-ND 4.0.
    """
    from ..errors import InputError
    from ..model.checkpoint import save_weights
    from ..model.released import find_released, read_released
    from ..provenance import sha256_file
    from ._training import open_shards

    run = StageRun("import-checkpoint", study, params, software=("safetensors", "torch"))
    options = run.params["released"]
    source, subfolder = source or options["source"], subfolder or options["subfolder"]
    if source is None:
        raise InputError(
            "Which model?", fix="name a folder or a repository, or set released.source"
        )
    reader = open_shards(run)
    folder = find_released(source, subfolder)
    published, weights = read_released(folder)
    model = _build(published, reader.parcels, weights)
    if published.unused:
        say(f"not used, nor by the authors' code: {', '.join(published.unused)}")
    if published.head is not None:
        warn("its head was left out: it predicts a label in a unit that the file does not tell")
    run.path("model").unlink(missing_ok=True)  # no older weights beside the new config.json
    about = {"Released": {"source": source, "subfolder": subfolder, "sha256": sha256_file(weights)}}
    _save_surroundings(run, published, about["Released"], reader.folder)
    with run.output("model", about=about) as path:
        save_weights(path, model)
    say(f"imported {weights.name} of {source}: {run.study.relative(run.path('model'))}")


def _build(published: Published, parcels: pd.DataFrame, weights: Path) -> nn.Module:
    """The network with its weights, every one of them; refuses what does not fit."""
    from ..model.checkpoint import build_model, fill

    model = build_model(published.config, parcels)
    fill(model, published.state, weights)
    return model


def _save_surroundings(
    run: StageRun, published: Published, released: Mapping[str, Any], data_folder: Path
) -> None:
    from ..model.card import released_card
    from ..model.checkpoint import ModelCard, save_surroundings

    save_surroundings(
        run.path("model").parent,
        config=published.config,
        card=ModelCard(_MASK_RATIO, split_sha256=None, head=None, released=released),
        data_folder=data_folder,
        readme=released_card(run.params["pretrain"]["run"], published.config, released),
    )
