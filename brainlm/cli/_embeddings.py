"""What the commands that read `brainlm embed`'s table share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..shards.reader import ShardReader
    from ._stage import StageRun


def present_vectors(run: StageRun, pool: str) -> tuple[list[str], NDArray[np.float32]]:
    """Recordings and their vectors (recordings, hidden), in the order of their names.

    Refused when they were made by another pretrained model or of other shards than the present
    ones; both become sources.
    """
    from ..errors import DataError
    from ..evaluate.embeddings import read_embeddings
    from ..files import read_json
    from ..provenance import sidecar_path

    made_of = [run.study.relative(run.input(kind)) for kind in ("shards_index", "model")]
    path = run.input("embeddings")
    sources = read_json(sidecar_path(path))["Sources"]
    if any(sources.get(name) != run.sources[name] for name in made_of):
        raise DataError(
            "These vectors are of another model or of other shards than the present ones",
            file=path,
            fix="run `brainlm embed` again, then this",
        )
    return read_embeddings(path, pool)


def open_vectors(run: StageRun, reader: ShardReader) -> dict[str, NDArray[np.float32]]:
    """Recording -> vector, as probe.pool and probe.average say."""
    from ..evaluate.probe import mean_of_subjects

    vectors = dict(zip(*present_vectors(run, run.params["probe"]["pool"]), strict=True))
    return mean_of_subjects(vectors, reader) if run.params["probe"]["average"] else vectors
