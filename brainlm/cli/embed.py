"""`brainlm embed`: a vector for each recording of a study."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from ._console import progress, say, warn
from ._stage import HERE, ParamsOption, StageRun, StudyOption, ThreadsOption

if TYPE_CHECKING:
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
    their vectors are averaged. Recordings shorter than a window are left out and counted. For
    files outside of a study: `brainlm embed-files`.
    """
    from ..evaluate.embeddings import embed_series, write_embeddings
    from ..train.runtime import describe, set_up
    from ._training import open_model, open_shards

    run = StageRun("embed", study, params, software=("numpy", "pyarrow", "safetensors", "torch"))
    reader = open_shards(run)
    loaded = open_model(run, "model", reader)
    device = set_up(run.params["pretrain"]["device"], threads)
    names = _long_enough(reader, loaded.config.timepoints)
    model = loaded.autoencoder.to(device)
    vectors = [embed_series(model, reader.series(name)) for name in progress(names, "embedding")]
    rows = reader.table.loc[names]
    columns = {key: rows[key].astype(str).tolist() for key in ("recording_id", "subject", "split")}
    with run.output("embeddings", about=describe(device, threads)) as path:
        write_embeddings(path, columns, vectors)
    say(f"{len(names)} recordings: {run.study.relative(run.path('embeddings'))}")


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
        warn(f"{len(short)} recordings have less than {window} time points and are left out")
    return sorted(set(lengths) - set(short))
