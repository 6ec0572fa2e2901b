"""`brainlm embed`: a vector for each recording of a study."""

from __future__ import annotations

import collections
import shutil
from typing import TYPE_CHECKING

import typer

from ..wording import counted
from ._console import progress, say, warn
from ._stage import HERE, ParamsOption, StageRun, StudyOption, ThreadsOption

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from ..shards.reader import ShardReader


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(embed)


def embed(
    study: StudyOption = HERE, params: ParamsOption = None, threads: ThreadsOption = 1
) -> None:
    """Write the pretrained model's vectors of all recordings of the shards, once for all uses.

    embeddings/RUN.parquet: recording_id, subject, split, n_windows, and two vectors: cls, and the
    mean over CLS and all tokens. Windows are spread evenly over a recording and shown whole;
    their vectors are averaged. Recordings shorter than a window are left out and counted. Can be
    killed at any moment: the same command goes on with what is missing. For files outside of a
    study: `brainlm embed-files`.
    """
    from ..evaluate.embedding_stream import EmbeddingStream, batch_of, part_of
    from ..provenance import sha256_json
    from ..train.runtime import describe
    from ._training import open_model, open_shards, set_up

    run = StageRun("embed", study, params, software=("numpy", "pyarrow", "safetensors", "torch"))
    reader = open_shards(run)
    loaded = open_model(run, "model", reader)
    device = set_up(run, run.params["pretrain"]["device"], threads)
    machine = describe(device, threads)
    names = _long_enough(reader, loaded.config.timepoints)
    model = loaded.autoencoder.to(device)
    batch = batch_of(model)
    made_of = sha256_json([run.sources, run.params, run.code, machine, batch])[:16]
    stream = EmbeddingStream(
        model, reader, names, _parts_folder(run, made_of), batch, part_of(batch)
    )
    if there := len(stream.parts) - len(stream.missing):
        say(f"{there} of {len(stream.parts)} parts are there already")
    told = progress(_each(stream.run()), "windows", total=stream.n_windows)
    collections.deque(told, maxlen=0)
    with run.output("embeddings", about=machine) as path:
        stream.merge(path)
    stream.forget()
    say(f"{counted(len(names), 'recording')}: {run.study.relative(run.path('embeddings'))}")


def _each(counts: Iterable[int]) -> Iterator[int]:
    """One by one, for a progress bar."""
    for count in counts:
        yield from range(count)


def _parts_folder(run: StageRun, made_of: str) -> Path:
    """Where parts that were made of the very same are kept; those of anything else go."""
    path = run.path("embeddings")
    folders = path.parent / f"{path.stem}.parts"
    for folder in folders.iterdir() if folders.is_dir() else ():
        if folder.name != made_of:
            shutil.rmtree(folder)
    return folders / made_of


def _long_enough(reader: ShardReader, window: int) -> list[str]:
    """Recordings with a whole window, in the order of their names."""
    from ..errors import DataError
    from ..shards.sampler import too_short

    table = reader.table
    lengths = dict(zip(table.index.astype(str), table["n_timepoints"].astype(int), strict=True))
    short = too_short(lengths, window)
    if len(short) == len(lengths):
        raise DataError(
            f"No recording has the model's {window} time points",
            file=reader.index_path,
            fix="raise eligibility.min_volumes to the window's length, or take a smaller model",
        )
    if short:
        warn(f"left out: {counted(len(short), 'recording')} of less than {window} time points")
    return sorted(set(lengths) - set(short))
