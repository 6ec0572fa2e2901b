"""What the commands that read `brainlm embed`'s table share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ._stage import StageRun


def present_vectors(run: StageRun, pool: str) -> tuple[list[str], NDArray[np.float32]]:
    """Recordings and their vectors (recordings, hidden), in the order of their names.

    Refused when they were made by another model or of other shards than `run` has opened.
    """
    from ..errors import DataError
    from ..evaluate.embeddings import read_embeddings
    from ..files import read_json
    from ..provenance import sidecar_path

    made_of = dict(run.sources)  # shards and model, as they are now
    path = run.input("embeddings")
    sources = read_json(sidecar_path(path))["Sources"]
    if any(sources.get(name) != sha256 for name, sha256 in made_of.items()):
        raise DataError(
            "These vectors are of another model or of other shards than the present ones",
            file=path,
            fix="run `brainlm embed` again, then this",
        )
    return read_embeddings(path, pool)
