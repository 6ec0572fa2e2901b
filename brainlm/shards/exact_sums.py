"""Sums of floating-point numbers without rounding, so that no order and no grouping changes them.

Each float64 is an integer times a power of two. Cut into pieces of 32 bits and added to a row of
integers ("limbs") that together span every exponent, nothing is ever lost (Kulisch's long
accumulator). Rows of limbs merge by adding them.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

#: The lowest bit that a float64 can set is worth 2 ** -_BIAS.
_BIAS = 1126
_PIECE = 32
_MASK = (1 << _PIECE) - 1
#: From 2 ** -1126 to 2 ** 1024, and room for what carries over.
LIMBS = 70


def make_sums(count: int) -> NDArray[np.int64]:
    """`count` sums that are 0, (count, LIMBS)."""
    return np.zeros((count, LIMBS), np.int64)


def add_to(sums: NDArray[np.int64], values: NDArray[np.float64]) -> None:
    """Add one finite value to each sum, in place; up to 2 ** 30 times.

    `sums` is (count, LIMBS), `values` (count,).
    """
    mantissa, exponent = np.frexp(values)
    whole = np.ldexp(np.abs(mantissa), 53).astype(np.int64)  # exact: 53 bits
    sign = np.sign(values).astype(np.int64)
    place = np.where(whole == 0, 0, exponent.astype(np.int64) - 53 + _BIAS)
    limb, shift = place // _PIECE, place % _PIECE
    lower, upper = (whole & _MASK) << shift, (whole >> _PIECE) << shift
    each = np.arange(len(values))
    sums[each, limb] += sign * (lower & _MASK)
    sums[each, limb + 1] += sign * ((lower >> _PIECE) + (upper & _MASK))
    sums[each, limb + 2] += sign * (upper >> _PIECE)


def exact_values(sums: NDArray[np.int64]) -> list[Fraction]:
    """The sums as fractions; `float` of one rounds it once, correctly."""
    return [
        Fraction(
            sum(int(limb) << (_PIECE * place) for place, limb in enumerate(row) if limb), 1 << _BIAS
        )
        for row in sums
    ]
