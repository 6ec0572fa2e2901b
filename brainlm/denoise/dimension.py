r"""How many sources a run holds: Minka's Laplace estimate on the spectrum of its covariance.

Minka (2000, "Automatic choice of dimensionality for PCA", NIPS 13) approximates, for a model
with `k` signal directions in `d` dimensions and `N` independent samples, the evidence

    p(data | k) ~ p(U) (prod_i<=k l_i)^(-N/2) v^(-N (d - k) / 2) (2 pi)^((m + k) / 2)
                  |A|^(-1/2) N^(-k/2),

with `l` the eigenvalues, `v` the mean of those left out, and `m = d k - k (k + 1) / 2`. FSL's
MELODIC uses the same estimate. Voxels of a smooth image are not independent samples: `N` is
the number of resolution elements, not of voxels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

Array = NDArray[np.float64]


def laplace_evidence(eigenvalues: Array, samples: float) -> Array:
    """Log evidence (d - 1,) of 1 ... d - 1 components, of `eigenvalues` (d,), largest first."""
    count = len(eigenvalues)
    ranks = np.arange(1, count)
    uniform = np.cumsum(
        gammaln((count - ranks + 1) / 2) - (count - ranks + 1) / 2 * np.log(np.pi)
    ) - ranks * np.log(2)
    left_out = (eigenvalues.sum() - np.cumsum(eigenvalues)[:-1]) / (count - ranks)
    left_out = np.maximum(left_out, np.finfo(float).tiny)
    fit = -samples / 2 * (np.cumsum(np.log(eigenvalues[:-1])) + (count - ranks) * np.log(left_out))
    free = count * ranks - ranks * (ranks + 1) / 2
    determinant = np.array([_log_determinant(eigenvalues, k, samples) for k in range(1, count)])
    constants = (free + ranks) / 2 * np.log(2 * np.pi) - ranks / 2 * np.log(samples)
    return uniform + fit + constants - determinant / 2


def _log_determinant(eigenvalues: Array, rank: int, samples: float) -> float:
    """Log |A_Z| of the Hessian: a product over all pairs i <= rank, j > i."""
    left_out = eigenvalues[rank:].mean()
    shown = np.concatenate([eigenvalues[:rank], np.full(len(eigenvalues) - rank, left_out)])
    i, j = np.triu_indices(len(eigenvalues), 1)
    pairs = i < rank
    i, j = i[pairs], j[pairs]
    gaps = (1 / shown[j] - 1 / shown[i]) * (eigenvalues[i] - eigenvalues[j])
    return float(np.log(np.maximum(gaps, np.finfo(float).tiny)).sum() + len(i) * np.log(samples))
