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


def consensus(searches: list[Array]) -> tuple[Array, Array]:
    """One unmixing (k, k) of whitened maps out of several, and how stable each row is (k,).

    Rows of an unmixing of white data have the maps' correlations as products. Stability is the
    mean |r| within a cluster less that with all other components: 1 is found alike each time.
    """
    rows = np.concatenate(searches)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    alike = np.clip(np.abs(rows @ rows.T), 0, 1)
    np.fill_diagonal(alike, 1)
    count = len(searches[0])
    tree = linkage(squareform(1 - alike, checks=False), method="average")
    cluster = fcluster(tree, count, criterion="maxclust")
    chosen, stability = [], []
    for number in np.unique(cluster):
        own = cluster == number
        inside = alike[np.ix_(own, own)]
        chosen.append(np.flatnonzero(own)[inside.sum(axis=1).argmax()])
        stability.append(inside.mean() - alike[np.ix_(own, ~own)].mean())
    return np.concatenate(searches)[chosen], np.array(stability)
