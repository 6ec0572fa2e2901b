"""The scales of the train split as a whole, beside each parcel's own."""

from __future__ import annotations

import math
from fractions import Fraction

from .exact_sums import exact_values
from .gather import Quantiles
from .scaler import Scaler

#: SD of the images that the authors' image models were trained on: their published forecasts at R2
#: 0.098 and 0.095 have a mean squared error of 0.019 and 0.020, that is an SD of 0.145 and 0.149.
AUTHORS_IMAGE_SD = 0.147
#: What the authors divided by, where their code states the number and not whence it came.
AUTHORS_CONSTANTS = {
    "authors_image_scale": 5.6430855,  # image models, after robust scaling
    "authors_global_sd": 41.44047,
    "authors_global_p99": 111.13143061224855,
}


def constants_of(found: Quantiles, scaler: Scaler) -> dict[str, float]:
    """The constants of a cohort that `scaler` (of any method) was made of.

    global_sd and global_p99 (of absolute values) are of all values after the recording's mean is
    removed, minimum and maximum of all raw values, robust_sd is that of the robust-scaled data;
    the image models divide by image_scale.
    """
    totals = found.totals
    total, squares = exact_values(totals.total), exact_values(totals.squares)
    n = [int(count) for count in totals.n]
    robust_sd = _robust_sd(n, total, squares, scaler)
    return {
        "n": float(sum(n)),
        "global_sd": _sd(sum(n), sum(total, Fraction()), sum(squares, Fraction())),
        "global_p99": found.pooled,
        "minimum": float(totals.low.min()),
        "maximum": float(totals.high.max()),
        "robust_sd": robust_sd,
        "image_scale": robust_sd / AUTHORS_IMAGE_SD,
        **AUTHORS_CONSTANTS,
    }


def _robust_sd(
    n: list[int], total: list[Fraction], squares: list[Fraction], scaler: Scaler
) -> float:
    """SD of all (x - median) / iqr, from the parcels' sums."""
    count, of_values, of_squares = 0, Fraction(), Fraction()
    for parcel in range(scaler.parcels):
        if scaler.usable[parcel]:
            median = Fraction(float(scaler.median[parcel]))
            iqr = Fraction(float(scaler.iqr[parcel]))
            about_median = (
                squares[parcel] - 2 * median * total[parcel] + n[parcel] * median * median
            )
            count += n[parcel]
            of_values += Fraction(float((total[parcel] - n[parcel] * median) / iqr))
            of_squares += Fraction(float(about_median / iqr / iqr))
    return _sd(count, of_values, of_squares)


def _sd(count: int, total: Fraction, squares: Fraction) -> float:
    """Population SD from exact sums."""
    mean = total / count
    return math.sqrt(max(Fraction(), squares / count - mean * mean))
