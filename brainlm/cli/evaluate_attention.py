"""`brainlm evaluate-attention`: what the model attends to, and how groups differ in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from ._console import progress, say
from ._stage import HERE, ParamsOption, StageRun, StudyOption, ThreadsOption

if TYPE_CHECKING:
    from ..evaluate.attention_contrasts import Contrast


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("evaluate-attention")(evaluate_attention)


def evaluate_attention(
    study: StudyOption = HERE, params: ParamsOption = None, threads: ThreadsOption = 1
) -> None:
    """Map the attention of CLS to parcels in test recordings, and compare groups of people.

    Maps are told as multiples of an even look. Groups (attention.contrasts, else those of each
    target) are compared over subjects: with themselves where most are in both; by permutations,
    with motion and dataset held, corrected over parcels by the largest statistic and by the rate of
    false discoveries. Files: evaluation/RUN/attention.
    """
    from ..evaluate.attention import cls_maps, describe_attention
    from ..evaluate.attention_recordings import drawn_recordings
    from ..shards.fingerprint import split_sha256
    from ..train.runtime import describe
    from ._training import open_model, open_shards, set_up, write_metrics

    run = StageRun(
        "evaluate-attention", study, params, software=("numpy", "pandas", "safetensors", "torch")
    )
    options, seed = run.params["attention"], run.params["seed"]
    reader = open_shards(run)
    model = open_model(run, "model", reader).autoencoder
    device = set_up(run, run.params["pretrain"]["device"], threads)
    names = drawn_recordings(
        reader, "test", model.config.timepoints, options["most_recordings"], seed
    )
    result = describe_attention(
        reader,
        cls_maps(
            model.to(device), reader, names, options["layer"], lambda all_: progress(all_, "maps")
        ),
        _contrasts(run),
        adjust_motion=options["adjust_motion"],
        draws=options["permutations"],
        bootstrap=run.params["evaluate"]["bootstrap"],
        seed=seed,
    )
    machine = describe(device, threads)
    with run.output("attention_maps", about=machine) as path:
        result.maps.to_parquet(path, index=False)
    about = {"task": "attention", "layer": options["layer"], "head": "mean"}
    split = {"split_sha256": split_sha256(reader.table)}
    write_metrics(run, "attention", {**about, **result.metrics, **split, **machine})
    say(f"attention in {result.metrics['n_subjects']} test subjects")
    for contrast in result.metrics["contrasts"]:
        found = contrast.get("reason") or f"{contrast['n_fdr']} parcels at FDR 0.05"
        say(f"{contrast['contrast']}: {found}")


def _contrasts(run: StageRun) -> list[Contrast]:
    """Those of the config, else one for each target."""
    from ..evaluate.attention_contrasts import Contrast, usual_contrasts

    told = run.params["attention"]["contrasts"]
    if told:
        return [Contrast.from_dict(content) for content in told]
    return usual_contrasts(run.params["finetune"]["targets"])
