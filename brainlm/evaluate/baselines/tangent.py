"""Connectivity in the tangent space of covariances: what most often reads traits best linearly.

A covariance matrix is no vector: the way between two leads over a curved surface. Around a
reference, the mean of train recordings, it is nearly flat, and there a linear model is at home
(Varoquaux et al. 2010; Dadi et al. 2019).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf

Floats = NDArray[np.float64]

_ROUNDS = 20
_NEAR_ENOUGH = 1e-6


def covariance(series: NDArray[np.floating[Any]]) -> Floats:
    """Of a recording (time, parcels), each parcel at variance 1; shrunk as Ledoit and Wolf do.

    Rows and columns of a parcel that has no data, or does not vary, are NaN.
    """
    usable = np.nan_to_num(series).std(axis=0) > 0
    found = np.full((series.shape[1], series.shape[1]), np.nan)
    known = np.asarray(series[:, usable], np.float64)
    known = (known - known.mean(axis=0)) / known.std(axis=0)
    found[np.ix_(usable, usable)] = ledoit_wolf(known, assume_centered=True)[0]
    return found


@dataclass(frozen=True, eq=False)
class TangentSpace:
    """The flat space around a reference."""

    parcels: NDArray[np.bool_]  # those that the reference has
    reference: Floats
    whitener: Floats  # its inverse root

    @classmethod
    def around(cls, matrices: Floats) -> TangentSpace:
        """Around the mean of `matrices` (n, parcels, parcels); of parcels that all of them have."""
        lacking = np.isnan(np.diagonal(matrices, axis1=1, axis2=2))
        parcels = np.asarray(~lacking.any(axis=0))
        reference = geometric_mean(matrices[:, parcels][:, :, parcels])
        return cls(parcels, reference, _of(reference, lambda values: values**-0.5))

    def vector(self, matrix: Floats) -> NDArray[np.float32]:
        """The way from the reference to a covariance matrix (parcels, parcels): (pairs,).

        A parcel that it lacks is filled in as the reference expects it from the others.
        """
        own = self._filled(matrix[np.ix_(self.parcels, self.parcels)])
        logarithm = _of(self.whitener @ own @ self.whitener, np.log)
        rows, columns = np.triu_indices(len(own))
        weight = np.where(rows == columns, 1.0, 2**0.5)  # lengths are then those of the matrices
        return np.asarray(logarithm[rows, columns] * weight, np.float32)

    def _filled(self, matrix: Floats) -> Floats:
        known = ~np.isnan(np.diagonal(matrix))
        if known.all():
            return matrix
        here, there = np.ix_(known, known), np.ix_(~known, known)
        by_others = np.linalg.solve(self.reference[here], self.reference[there].T).T
        filled = matrix.copy()
        filled[there] = by_others @ matrix[here]
        filled[np.ix_(known, ~known)] = filled[there].T
        beside = self.reference[np.ix_(~known, ~known)] - by_others @ self.reference[there].T
        filled[np.ix_(~known, ~known)] = beside + filled[there] @ by_others.T
        return filled


def geometric_mean(matrices: Floats) -> Floats:
    """The matrix around which the logarithms of all are 0 on average (Fletcher & Joshi 2007)."""
    mean = matrices.mean(axis=0)
    for _ in range(_ROUNDS):
        root, inverse = _of(mean, np.sqrt), _of(mean, lambda values: values**-0.5)
        step = np.mean([_of(inverse @ matrix @ inverse, np.log) for matrix in matrices], axis=0)
        mean = root @ _of(step, np.exp) @ root
        if np.linalg.norm(step) < _NEAR_ENOUGH * len(mean) ** 0.5:
            break
    return np.asarray(mean)


def _of(matrix: Floats, function: Callable[[Floats], Floats]) -> Floats:
    """A function of a symmetric matrix: of its eigenvalues, in its own axes."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.asarray((vectors * function(values)) @ vectors.T)
