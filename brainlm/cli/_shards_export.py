"""`brainlm shards export`: the shards for those who load data with other libraries."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..wording import counted
from ._console import progress, say


class Format(StrEnum):
    """What others read."""

    webdataset = "webdataset"
    arrow = "arrow"
    npy = "npy"


class Split(StrEnum):
    """Which part of the cohort."""

    train = "train"
    val = "val"
    test = "test"


def export(
    folder: Annotated[Path, typer.Argument(help="the shards' folder, or its index.parquet")],
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="the folder to make")],
    to: Annotated[
        Format,
        typer.Option(
            help="webdataset: tars of .npy and .json. arrow: for `datasets.load_from_disk` of "
            "Hugging Face. npy: a file per recording and index.csv"
        ),
    ],
    split: Annotated[
        list[Split] | None, typer.Option(help="only this split; may be repeated; default: all")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace an earlier export of that name")
    ] = False,
    max_mb: Annotated[
        float, typer.Option(help="size at which a tar or Arrow file ends, MB", min=1)
    ] = 500.0,
) -> None:
    """Copy the shards into the format of another library.

    Values stay as they are stored: scaled, float16 or float32, NaN for parcels without data, one
    array (time, parcels) per recording. Split, TR, motion and all labels go along, and so do the
    subjects' names as the shards have them: give the folder only to those who may see these.
    """
    from ..errors import InputError
    from ..shards.export import export as write
    from ..shards.reader import ShardReader

    reader = ShardReader(folder)
    wanted = [entry.value for entry in Split if split is None or entry in split]
    splits = [name for name in wanted if len(reader.recordings(name))]
    if not splits:
        raise InputError(
            f"There is no recording in {', '.join(wanted)}",
            file=reader.index_path,
            fix="choose another --split; `brainlm shards info` counts them",
        )
    total = sum(len(reader.recordings(name)) for name in splits)
    done = write(
        reader, to.value, destination.resolve(), splits, overwrite=overwrite, max_mb=max_mb
    )
    for _ in progress(done, "exporting", total):
        pass
    say(f"{counted(total, 'recording')} of {', '.join(splits)} in {destination}")
