"""Parcel series that somebody else has made: a table of numbers, brought to the atlas's order.

Two questions decide what a table says: which of its axes is time, and which parcel is which. Names
of parcels answer both. Without names the shape answers the first where it can, and the position the
second, which is noted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DataError
from .ready_files import Table, load

#: Less is no series (`eligibility.min_volumes` may ask for more).
LEAST_VOLUMES = 5


@dataclass(frozen=True)
class ReadyParcels:
    """Parcel series in the atlas's order, and what was done to bring them there."""

    series: NDArray[np.float32]  # (T, parcels); NaN throughout where a parcel has no data
    notes: tuple[str, ...]

    @property
    def covered(self) -> NDArray[np.bool_]:
        """(parcels,): those with data."""
        return ~np.isnan(self.series[0])


def read_parcels(
    path: str | Path, parcels: Sequence[str], *, min_volumes: int = LEAST_VOLUMES
) -> ReadyParcels:
    """Read a `.parquet`, `.tsv`, `.csv`, `.txt`, `.dat`, `.npy` or `.mat` table of these `parcels`.

    Columns with names are ordered by these, and all must be the atlas's. A parcel that is NaN, zero
    (as the tool of BrainLM's authors writes parcels without voxels) or constant throughout has no
    data and becomes NaN. Infinite values, and NaN at some times only, are refused.
    """
    path = Path(path)
    table = load(path)
    notes = list(table.notes)
    values = _by_name(table, parcels, path, notes)
    if values is None:
        values = _by_position(table, len(parcels), path, notes)
    if len(values) < min_volumes:
        raise DataError(
            f"The table holds {len(values)} volumes, at least {min_volumes} are needed", file=path
        )
    series = _checked(values, parcels, path, notes)
    return ReadyParcels(series, tuple(notes))


def read_coverage(path: str | Path, parcels: Sequence[str]) -> NDArray[np.float64]:
    """Covered share (0 to 1) of each of these `parcels`, from XCP-D's table of coverage or ours.

    XCP-D's has the columns Node and coverage, ours name and coverage. What `min_coverage` makes of
    the share is the caller's to say: XCP-D had a threshold of its own.
    """
    path = Path(path)
    try:
        table = pd.read_csv(path, sep="\t", na_values="n/a", keep_default_na=False)
    except FileNotFoundError:
        raise DataError("The table of coverage does not exist", file=path) from None
    except ValueError as error:
        raise DataError(f"This is not a table: {error}", file=path) from None
    key = next((column for column in ("Node", "name") if column in table), None)
    if key is None or "coverage" not in table:
        raise DataError("A table of coverage has the columns Node and coverage", file=path)
    names = table[key].astype(str).tolist()
    _check_names(names, parcels, path)
    share = pd.to_numeric(table["coverage"], errors="coerce").fillna(0).to_numpy(dtype=float)
    if ((share < 0) | (share > 1)).any():
        raise DataError("Coverage lies between 0 and 1", file=path)
    place = {name: row for row, name in enumerate(names)}
    return share[[place[name] for name in parcels]]


def _by_name(
    table: Table, parcels: Sequence[str], path: Path, notes: list[str]
) -> NDArray[np.float64] | None:
    """Values (T, parcels) by the names of the table; None where it has none."""
    for names, values, turned in (
        (table.columns, table.values, False),
        (table.rows, table.values.T, True),
    ):
        if names is None:
            continue
        _check_names(names, parcels, path)
        if turned:
            notes.append("the table holds a row per parcel and was transposed")
        if list(names) != list(parcels):
            notes.append("the columns were brought into the atlas's order by their names")
        place = {name: column for column, name in enumerate(names)}
        return values[:, [place[name] for name in parcels]]
    return None


def _check_names(names: Sequence[str], parcels: Sequence[str], path: Path) -> None:
    """Refuse names that are not the atlas's, each once."""
    fix = (
        "rename the columns as the atlas's table does, or leave the names out if they stand in the "
        "atlas's order"
    )
    seen = set(names)
    if len(seen) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise DataError(f"The table names {twice!r} more than once", file=path, fix=fix)
    missing = [name for name in parcels if name not in seen]
    unknown = [name for name in names if name not in set(parcels)]
    if missing or unknown:
        told = (
            [f"lacks {len(missing)} parcels of the atlas (first: {missing[0]})"] if missing else []
        )
        told += [f"has {len(unknown)} others (first: {unknown[0]})"] if unknown else []
        raise DataError(f"The table {' and '.join(told)}", file=path, fix=fix)


def _by_position(table: Table, n_parcels: int, path: Path, notes: list[str]) -> NDArray[np.float64]:
    """Values (T, parcels) of a table without names: the axis with as many as the atlas has."""
    rows, columns = table.values.shape
    if rows == columns == n_parcels:
        raise DataError(
            f"The table is {rows} x {columns}: which axis is time cannot be told, and it may be a "
            "matrix of connectivity",
            file=path,
            fix="name the columns by the atlas's parcels",
        )
    if n_parcels not in (rows, columns):
        raise DataError(
            f"The table is {rows} x {columns}, the atlas has {n_parcels} parcels",
            file=path,
            fix="choose the atlas that the table was made with",
        )
    notes.append("the table does not name its parcels: they are taken in the atlas's order")
    if columns == n_parcels:
        return table.values
    notes.append("the table holds a row per parcel and was transposed")
    return table.values.T


def _checked(
    values: NDArray[np.float64], parcels: Sequence[str], path: Path, notes: list[str]
) -> NDArray[np.float32]:
    """The values as float32, NaN for parcels without data; faulty ones are refused."""
    with np.errstate(over="ignore"):
        series = values.astype(np.float32)
    if (bad := np.argwhere(np.isinf(series))).size:
        time, parcel = bad[0]
        raise DataError(f"{parcels[parcel]} is infinite in volume {time}", file=path)
    absent = np.isnan(series)
    empty = absent.all(axis=0)
    if (torn := np.flatnonzero(absent.any(axis=0) & ~empty)).size:
        first = torn[0]
        raise DataError(
            f"NaN at some times only, in {len(torn)} of the parcels (first: {parcels[first]}, "
            f"volume {int(absent[:, first].argmax())})",
            file=path,
            fix="interpolate or take out censored volumes; a parcel without data is NaN throughout",
        )
    zero = (series == 0).all(axis=0)
    constant = (series == series[:1]).all(axis=0) & ~zero
    for kind, columns in (("NaN", empty), ("zero", zero), ("constant", constant)):
        if columns.any():
            names = [parcels[column] for column in np.flatnonzero(columns)[:3]]
            notes.append(
                f"{kind} throughout, so not covered: {int(columns.sum())} of the parcels, "
                f"{', '.join(names)}{' ...' if columns.sum() > 3 else ''}"
            )
    series[:, zero | constant] = np.nan
    if np.isnan(series[0]).all():
        raise DataError("No parcel of the table has any signal", file=path)
    return series
