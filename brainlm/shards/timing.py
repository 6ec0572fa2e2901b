"""Bringing a recording to another repetition time.

Samples are evaluated at the new times by a windowed sinc: a polyphase filter that computes the
phase of every new sample exactly, so that no rational ratio has to be found and nothing drifts.
With f the lower of the two Nyquist frequencies, amplitudes are kept up to 0.8 f (to 0.2%), are
halved at 0.9 f and suppressed from f on (by 55 dB and more); there is no phase shift. The window is
Kaiser's (Kaiser 1974; the formulas are those of Oppenheim and Schafer, Discrete-Time Signal
Processing, section 7.6), 18 samples of the longer TR to either side.

The first sample stays at t = 0, the last one lies within the recording. At the ends the line
through the first and last sample is taken off, the rest goes on beyond them turned by 180 degrees
about the end sample, and the line is added again. So a line stays that line, whatever its height,
and the first sample is the recording's own.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

#: Where amplitudes begin to fall, as a share of the lower Nyquist frequency, at which they end.
PASSBAND = 0.8
#: What the window is designed for, dB: the ripple of the passband and of what is suppressed.
ATTENUATION_DB = 60.0

_BETA = 0.1102 * (ATTENUATION_DB - 8.7)
#: Half the window's length, in samples of the longer TR.
_HALF = (ATTENUATION_DB - 7.95) / (2.285 * np.pi * (1 - PASSBAND)) / 2

#: A new sample that misses the last old one by this share of a TR is still within the recording.
_ROUNDING = 1e-6


def has_tr(source_tr: float, tr: float, tolerance: float) -> bool:
    """Whether `source_tr` (s) is `tr`, but for a relative difference that is passed over."""
    return abs(source_tr / tr - 1) <= tolerance


def n_resampled(n: int, source_tr: float, tr: float) -> int:
    """Number of samples at `tr` (s) whose times lie within `n` samples at `source_tr`."""
    return int((n - 1) * source_tr / tr + _ROUNDING) + 1 if n else 0


def resample(values: NDArray[np.float32], source_tr: float, tr: float) -> NDArray[np.float32]:
    """Parcel series (parcels, time) at `source_tr` (s), evaluated every `tr` (s).

    A parcel without data (NaN) stays so.
    """
    n = values.shape[1]
    series = np.ascontiguousarray(values.T, np.float64)  # (time, parcels)
    line = _Line(series)
    weights = _weights(n, source_tr, tr)
    new = weights @ (series - line.at(np.arange(n, dtype=np.float64)))
    new += line.at(_positions(n, source_tr, tr))
    return np.ascontiguousarray(new.T, np.float32)


def resample_counted(counted: NDArray[np.bool_], source_tr: float, tr: float) -> NDArray[np.bool_]:
    """Which new samples count, (time,): those between two old ones (or on one) that do."""
    before = _positions(len(counted), source_tr, tr)
    low = np.floor(before + _ROUNDING).astype(int)
    high = np.ceil(before - _ROUNDING).astype(int)
    return counted[low] & counted[np.minimum(high, len(counted) - 1)]


class _Line:
    """The lines through the first and last samples of (time, parcels)."""

    def __init__(self, series: NDArray[np.float64]):
        self.start: NDArray[np.float64] = series[0]
        self.slope: NDArray[np.float64] = (series[-1] - series[0]) / max(len(series) - 1, 1)

    def at(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Their values at these positions, in samples: (positions, parcels)."""
        return self.start[None, :] + positions[:, None] * self.slope[None, :]


def _positions(n: int, source_tr: float, tr: float) -> NDArray[np.float64]:
    """Times of the new samples, in old samples."""
    return np.arange(n_resampled(n, source_tr, tr), dtype=np.float64) * (tr / source_tr)


@lru_cache(maxsize=16)
def _weights(n: int, source_tr: float, tr: float) -> csr_array:
    """What each old sample gives to each new one, (new, old): the filter, folded at the ends.

    A cohort has few lengths and TRs, so that most recordings find theirs made.
    """
    positions = _positions(n, source_tr, tr)[:, None]
    stretch = max(1.0, tr / source_tr)  # of the kernel, when frequencies are to be lost
    half = _HALF * stretch
    old = np.ceil(positions - half) + np.arange(int(2 * half) + 1)
    distance = (old - positions) / stretch
    window = np.i0(_BETA * np.sqrt(np.clip(1 - (distance / _HALF) ** 2, 0, 1)))
    cutoff = (1 + PASSBAND) / 2
    kernel = np.sinc(cutoff * distance) * np.where(np.abs(distance) <= _HALF, window, 0)
    kernel /= kernel.sum(axis=1, keepdims=True)
    # Both end samples are 0 by now: turned about them, the series goes on with the other sign.
    turned = np.where(old < 0, -old, np.where(old > n - 1, 2 * (n - 1) - old, old))
    kernel = np.where(turned == old, kernel, -kernel)
    # Of a series shorter than the window one turn is all there is.
    kernel = np.where((turned >= 0) & (turned <= n - 1), kernel, 0)
    rows = np.broadcast_to(np.arange(len(old))[:, None], old.shape)
    columns = np.clip(turned, 0, n - 1).astype(int)
    shape = (len(positions), n)
    return csr_array((kernel.ravel(), (rows.ravel(), columns.ravel())), shape=shape)
