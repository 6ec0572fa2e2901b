"""`brainlm scale-part`: what one shard of the train split adds to the scaler."""

from __future__ import annotations

from typing import Annotated

import typer

from ..wording import counted
from ._console import say
from ._scaling import measure_in_scratch, read_train
from ._stage import HERE, ParamsOption, StageRun, StudyOption, ThreadsOption


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("scale-part")(scale_part)


def scale_part(
    shard: Annotated[str, typer.Argument(help="a shard of the train split, e.g. train-00003")],
    study: StudyOption = HERE,
    params: ParamsOption = None,
    threads: ThreadsOption = 1,
) -> None:
    """Count and sum the recordings of one train shard, and keep their values about the quartiles.

    Needs cohort/scaler/brackets.safetensors (`brainlm scale-brackets`). Writes
    cohort/scaler/SHARD.safetensors for `brainlm scale`.
    """
    from ..errors import DataError, InputError
    from ..shards.brackets import load_brackets
    from ..shards.part_file import save_part
    from ..shards.plan import split_of

    if split_of(shard) != "train":
        raise InputError(
            f"{shard} is no shard of the train split, and no other is ever looked at for scaling",
            fix="name one of cohort/plan/train-*.parquet",
        )
    run = StageRun("scale-part", study, params, software=("numpy", "pyarrow", "safetensors"))
    train = read_train(run, threads, [shard])
    path = run.path("scaler_brackets")
    brackets, about = load_brackets(path)
    if (about["plans"].get(shard), about["atlas_sha256"]) != (
        train.plans[shard],
        train.atlas_sha256,
    ):
        raise DataError(
            f"The intervals of the quartiles were sampled from another cohort than {shard}'s",
            file=path,
            fix="run `brainlm scale-brackets` again, then this",
        )
    run.source(path)
    parts = measure_in_scratch(train, train.recordings, brackets, shard)
    about = {**train.about(), "brackets_sha256": brackets.sha256}
    with run.output("scaler_part", shard=shard, about=about) as path:
        save_part(path, parts, brackets.parcels, about)
    say(f"{shard}: {counted(len(train.recordings), 'recording')}")
