"""Several searches for the same components, and what they agree on (Himberg et al. 2004).

A search ends where it began from, more or less: weak components differ from seed to seed. As in
ICASSO (NeuroImage 22:1214), the components of all searches are clustered by the correlation of
their maps, average linkage, into as many clusters as a search has components. Each cluster is
stood for by the member that is nearest to the others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

Array = NDArray[np.float64]


def consensus(rotations: list[Array]) -> Array:
    """The rotation (k, k) of white maps that several searches agree on most.

    The products of rows are the correlations of the maps. Two clusters may share a source; the
    nearest orthogonal matrix to the chosen rows sees to it that they do not both keep it.
    """
    rows = np.concatenate(rotations)
    alike = np.clip(np.abs(rows @ rows.T), 0, 1)
    np.fill_diagonal(alike, 1)
    tree = linkage(squareform(1 - alike, checks=False), method="average")
    cluster = fcluster(tree, len(rotations[0]), criterion="maxclust")
    chosen = []
    for number in np.unique(cluster):
        own = np.flatnonzero(cluster == number)
        chosen.append(own[alike[np.ix_(own, own)].sum(axis=1).argmax()])
    left, _, right = np.linalg.svd(rows[chosen])
    return np.asarray(left @ right)
