"""Numbers of one recording that its page shows, and that all recordings are compared by."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Map = NDArray[np.floating]
Mask = NDArray[np.bool_]

_BINS = 32
_LEAST_VOXELS = 100


def correlation_ratio(image: Map, reference: Map, within: Mask) -> float | None:
    """Share of the variance of `image` that the intensity of `reference` explains (0 to 1).

    Both and the mask are (x, y, z). The relation may have any shape (Roche et al. 1998, MICCAI), so
    that EPI may be compared with a T1-weighted template; it falls when the two do not lie on each
    other. None where there is too little to tell.
    """
    values, told = image[within].astype(np.float64), reference[within]
    if len(values) < _LEAST_VOXELS or not values.std():
        return None
    # Bins of equal counts; the brightest voxels (vessels, eyes) are not to rule the variance.
    values = np.clip(values, *np.quantile(values, [0.01, 0.99]))
    edges = np.quantile(told, np.linspace(0, 1, _BINS + 1)[1:-1])
    bins = np.searchsorted(edges, told)
    count = np.bincount(bins, minlength=_BINS)
    mean = np.bincount(bins, values, _BINS) / np.maximum(count, 1)
    between = float((count * (mean - values.mean()) ** 2).sum())
    total = float(((values - values.mean()) ** 2).sum())
    return between / total if total else None


def median_within(values: Map, within: Mask) -> float | None:
    """The median over the voxels (n,) of a tissue that have a number above 0."""
    chosen = values[within & (values > 0)].astype(np.float64)
    return float(np.median(chosen)) if len(chosen) else None


def connectivity(series: NDArray[np.floating]) -> NDArray[np.float64]:
    """Correlations (parcels, parcels) of `series` (T, parcels); NaN of what has none."""
    steady = series - series.mean(axis=0)
    length = np.sqrt((steady**2).sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = steady / np.where(length > 0, length, np.nan)
        return np.clip(unit.T.astype(np.float64) @ unit, -1, 1)


def by_network(table: pd.DataFrame) -> tuple[NDArray[np.intp], list[tuple[str, int]]]:
    """An order of the parcels in which networks stand together, and each one's name and size.

    A parcel of no known network stands with its structure; an atlas that tells neither keeps its
    order.
    """
    group = pd.Series("", index=table.index, dtype=object)
    for column in ("structure", "yeo7_network"):
        if column in table:
            said = table[column].astype(str)
            group = group.mask(~said.isin(["", "n/a", "nan"]), said)
    if group.nunique() < 2:
        return np.arange(len(table)), []
    # Networks first, in the order in which the atlas names them.
    rank = {name: number for number, name in enumerate(dict.fromkeys(group))}
    others = set(table["structure"].astype(str)) if "structure" in table else set()
    place = group.map(lambda name: (name in others, rank[name]))
    order = np.array(sorted(range(len(table)), key=lambda row: (place.iloc[row], row)))
    ordered = group.iloc[order]
    return order, [(str(name), int((ordered == name).sum())) for name in dict.fromkeys(ordered)]
