"""`brainlm scale-brackets`: where the quartiles lie, from a sample of the train split."""

from __future__ import annotations

import typer

from ._console import say
from ._scaling import read_train, sample_brackets
from ._stage import HERE, ParamsOption, StageRun, StudyOption, ThreadsOption


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("scale-brackets")(scale_brackets)


def scale_brackets(
    study: StudyOption = HERE, params: ParamsOption = None, threads: ThreadsOption = 1
) -> None:
    """Find a narrow interval about each quartile, from a sample of the train split.

    With it one pass over the train split is enough for the exact quartiles: `brainlm scale-part`
    makes that pass for one shard, `brainlm scale` puts the parts together. The sample decides how
    much is kept meanwhile, never what comes out. Writes cohort/scaler/brackets.safetensors.
    """
    from ..shards.brackets import save_brackets

    run = StageRun("scale-brackets", study, params, software=("numpy", "pyarrow", "safetensors"))
    train = read_train(run, threads)
    brackets = sample_brackets(train, mean_removed=run.params["scale"]["remove_mean"])
    with run.output("scaler_brackets", about=train.about()) as path:
        save_brackets(path, brackets, train.about())
    say(f"scale-brackets: {len(train.recordings)} train recordings")
