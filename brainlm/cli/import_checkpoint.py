"""`brainlm import-checkpoint`: a released BrainLM as a model of this study."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from ._console import say, warn
from ._stage import HERE, ParamsOption, StageRun, StudyOption

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..model.checkpoint import ModelCard
    from ..model.heads import LabelModel
    from ..model.mae import MaskedAutoencoder
    from ..shards.reader import ShardReader


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
    target: Annotated[
        str | None,
        typer.Option(help="fine-tuned models: name of the label that the head predicts, e.g. age"),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="of that label: regression or binary; default: as the model's loss was"),
    ] = None,
    positive: Annotated[
        str | None, typer.Option(help="of a binary label: the value that counts as 1")
    ] = None,
    mean: Annotated[
        float | None, typer.Option(help="of a z-scored label: mean of the authors' train data")
    ] = None,
    sd: Annotated[float | None, typer.Option(help="and its standard deviation")] = None,
    smallest: Annotated[
        float | None, typer.Option("--min", help="of a min-max scaled label: the smallest one")
    ] = None,
    largest: Annotated[float | None, typer.Option("--max", help="and the largest one")] = None,
    log: Annotated[
        str,
        typer.Option(
            help="log or log1p: the label's logarithm was taken before; --mean and --sd are then "
            "those of the logarithm, --min and --max those of the label"
        ),
    ] = "none",
) -> None:
    """Take over a model that BrainLM's authors released (13M, 111M, 650M).

    Writes models/RUN (RUN is pretrain.run) as if it had been trained here, to be fine-tuned and
    evaluated. The scaler and the parcels are those of the study's shards: the authors did not
    release theirs, and scaled each cohort by itself. Its numbers are the authors' to 1e-5. With
    released.source in the config, the workflow does this instead of pretraining. The weights are
    licensed CC BY-NC-ND 4.0.

    A fine-tuned model is written twice: without its head as models/RUN, with it as
    models/RUN-TARGET. The file does not tell the label's unit; say how it was scaled, or its
    predictions stay as released.
    """
    from dataclasses import replace

    from ..errors import InputError
    from ..model.checkpoint import ModelCard
    from ..model.opening import find_folder, head_card, released_network
    from ..model.released import read_released
    from ..provenance import sha256_file
    from ._training import open_shards

    label = _label(target, kind, positive, (mean, sd), (smallest, largest), log)
    run = StageRun("import-checkpoint", study, params, software=("safetensors", "torch"))
    options = run.params["released"]
    source, subfolder = source or options["source"], subfolder or options["subfolder"]
    if source is None:
        raise InputError(
            "Which model?", fix="name a folder or a repository, or set released.source"
        )
    reader = open_shards(run)
    folder = find_folder(source, subfolder)
    published, weights = read_released(folder)
    if published.unused:
        say(f"not used, nor by the authors' code: {', '.join(published.unused)}")
    if published.unknown:
        warn(f"not known, and not used: {', '.join(published.unknown)}")
    if label and published.head is None:
        raise InputError(
            "This model has no head, so there is no label to tell about",
            file=weights,
            fix="leave --target and what goes with it out; `brainlm finetune` trains a head",
        )
    if "mean" in label and label.get("kind") is None and published.head_loss == "bce":
        raise InputError(
            "This head was trained to tell two classes (loss bce), so its label has no mean and "
            "SD, smallest or largest value",
            file=weights,
            fix="--target NAME --kind binary --positive VALUE; or --kind regression, if it is one",
        )
    head = head_card(published, **label) if published.head is not None else None
    model = released_network(published, reader.parcels, weights, head)
    _warn_of_other_data(reader)
    released = {"source": source, "subfolder": subfolder, "sha256": sha256_file(weights)}
    card = ModelCard(published.mask_ratio, split_sha256=None, head=None, released=released)
    _write(run, "model", model.autoencoder if head else model, card, reader)
    say(f"imported {weights.name} of {source}: {run.study.relative(run.path('model'))}")
    if head is not None:
        run.fields["target"] = head.name
        _write(run, "finetuned", model, replace(card, head=head.to_dict()), reader)
        say(f"with its head: {run.study.relative(run.path('finetuned'))}")
        if head.unit == "as released":
            warn(
                "nobody knows the unit of what the head predicts; say how the label was scaled: "
                "--target NAME, and --mean and --sd or --min and --max (and --log)"
            )


def _warn_of_other_data(reader: ShardReader) -> None:
    """Tell where the study's series are not like those that the released models have seen."""
    from ..model.opening import released_parcels
    from ..model.published import RELEASED_TR
    from ..shards.timing import has_tr

    tr = reader.scaler.about.get("tr")
    if tr is None or not has_tr(tr, RELEASED_TR, 0.01):
        found = "several TRs" if tr is None else f"a TR of {tr:g} s"
        warn(
            f"the study's series have {found}, the released models were trained at "
            f"{RELEASED_TR:g} s: their tokens are other stretches of time; timing.tr: "
            f"{RELEASED_TR:g} resamples"
        )
    theirs = released_parcels()[0]
    if reader.parcels["name"].astype(str).tolist() != theirs["name"].tolist():
        warn(
            "the study's parcels are not those of A424, which the released models were trained on, "
            "or stand in another order: their numbers mean little here"
        )


def _label(
    target: str | None,
    kind: str | None,
    positive: str | None,
    z_score: tuple[float | None, float | None],
    min_max: tuple[float | None, float | None],
    log: str,
) -> dict[str, Any]:
    """What the options tell of the head's label, in the words of `HeadCard`."""
    import math

    from ..config.base import LABEL_NAME
    from ..errors import InputError

    undo: dict[str, Callable[[float], float]] = {
        "none": float,
        "log": math.log,
        "log1p": math.log1p,
    }
    if log not in undo:
        raise InputError(f"--log must be one of {', '.join(undo)}, not {log!r}")
    for pair, names in ((z_score, "--mean and --sd"), (min_max, "--min and --max")):
        if (pair[0] is None) != (pair[1] is None):
            raise InputError(f"{names} go together", fix="give both or none")
    scaled = [pair for pair in (z_score, min_max) if pair[0] is not None]
    if len(scaled) > 1 or (log != "none" and not scaled) or (scaled and target is None):
        raise InputError(
            "The label's scale is --target NAME with either --mean and --sd or --min and --max, "
            "and --log if its logarithm was taken before"
        )
    if target is None and (kind or positive):
        raise InputError("--kind and --positive go with --target")
    if positive and kind != "binary":
        raise InputError("--positive goes with --kind binary")
    if target is None:
        return {}
    if not re.fullmatch(LABEL_NAME, target):
        raise InputError(f"--target must be letters, digits and _, not {target!r}")
    if kind == "binary" and scaled:
        raise InputError("A binary label has no scale: leave --mean, --sd, --min, --max out")
    label: dict[str, Any] = {"name": target} | ({"kind": kind} if kind else {})
    if kind == "binary":
        return label | {"positive": positive, "unit": "label"}
    if scaled == [z_score]:
        return label | {"mean": z_score[0], "sd": z_score[1], "log": log, "unit": "label"}
    if scaled:
        try:
            low, high = (undo[log](bound) for bound in min_max if bound is not None)
        except ValueError:
            raise InputError(f"--min {min_max[0]:g} has no {log}") from None
        return label | {"mean": low, "sd": high - low, "log": log, "unit": "label"}
    return label


def _write(
    run: StageRun,
    kind: str,
    model: MaskedAutoencoder | LabelModel,
    card: ModelCard,
    reader: ShardReader,
) -> None:
    """One model's folder."""
    from ..model.card import released_card
    from ..model.checkpoint import save_surroundings, save_weights
    from ..model.heads import LabelModel

    released = card.released or {}
    config = (model.autoencoder if isinstance(model, LabelModel) else model).config
    run.path(kind).unlink(missing_ok=True)  # no older weights beside the new config.json
    save_surroundings(
        run.path(kind).parent,
        config=config,
        card=card,
        data_folder=reader.folder,
        readme=released_card(run.path(kind).parent.name, config, released),
    )
    about = {"Released": released} | ({"Head": card.head} if card.head else {})
    with run.output(kind, about=about) as path:
        save_weights(path, model)
