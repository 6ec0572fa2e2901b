"""Motion parameters of other pipelines as our motion table.

| layout | columns of the file | rotations |
|---|---|---|
| FSL (`*_mcf.par`, UK Biobank) | 3 rotations, 3 translations | rad |
| HCP (`Movement_Regressors.txt`) | 3 translations, 3 rotations, derivatives of the six | degrees |
| fMRIPrep, XCP-D (`.tsv`) | by name, `trans_x` to `rot_z` | rad |

Translations are mm. Units and order become ours; **axes and signs stay those of the tool**. All
three come from MCFLIRT: as far as we can tell from FSL's conventions, x, y and z are the axes of
the stored image, x counted from right to left, and the parameters describe the way from a volume
back to the reference, while our own engine tells the head's movement along +R, +A, +S. Framewise
displacement, derivatives, squares and any regression on all of them do not depend on that.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ...errors import DataError
from ...geometry import MOTION_NAMES, Array, framewise_displacement

if TYPE_CHECKING:
    import pandas as pd

Form = Literal["fsl", "hcp", "named"]

#: How many columns a file without a header has.
_WIDTH = {"fsl": 6, "hcp": 12}
#: A head in a scanner does not turn by more (rad): beyond it the unit is another.
_MOST_TURN = 1.0
_STEADY = "non_steady_state_outlier"


def read_motion(
    path: str | Path,
    n_volumes: int,
    *,
    rms: str | Path | None = None,
    radius_mm: float = 50.0,
) -> pd.DataFrame:
    """The motion table (T rows) of a run of `n_volumes`, whoever estimated it.

    Columns: trans_x to trans_z (mm), rot_x to rot_z (rad), framewise_displacement (mm, Power et
    al. 2012, made anew with `radius_mm`, so that runs of all pipelines can be compared), rmsd (mm,
    Jenkinson et al. 2002; NaN where nobody computed it: of `rms`, FSL's file of relative
    displacements, or of the table's own column) and one column for each volume that fMRIPrep
    found before the steady state.
    """
    import pandas as pd

    path = Path(path)
    form = form_of(path)
    named = _read_named(path) if form == "named" else None
    if named is not None:
        values = named[list(MOTION_NAMES)].to_numpy(dtype=float)
    else:
        values = _in_our_order(_read_plain(path, _WIDTH[form]), form)
    _check(values, n_volumes, path)
    table = pd.DataFrame(values, columns=list(MOTION_NAMES))
    table["framewise_displacement"] = framewise_displacement(values, radius_mm)
    table["rmsd"] = np.nan
    if rms is not None:
        table["rmsd"] = _read_rms(Path(rms), n_volumes)
    elif named is not None and "rmsd" in named:
        table["rmsd"] = _numbers(named, "rmsd", path)
    if named is not None:
        for column in named.columns[named.columns.str.startswith(_STEADY)]:
            table[column] = _numbers(named, column, path).fillna(0).astype(int)
    return table


def form_of(path: Path) -> Form:
    """Which of the three forms a file has, by its name."""
    if path.suffix == ".tsv":
        return "named"
    if path.suffix == ".par":
        return "fsl"
    if path.name == "Movement_Regressors.txt":
        return "hcp"
    raise DataError(
        "Whose motion parameters these are cannot be told from the file's name",
        file=path,
        fix="it must be called *.par (FSL), Movement_Regressors.txt (HCP) or *.tsv (fMRIPrep)",
    )


def _in_our_order(values: Array, form: Form) -> Array:
    """Translations (mm), then rotations (rad), from the columns of FSL or HCP."""
    if form == "fsl":
        return np.hstack([values[:, 3:6], values[:, :3]])
    return np.hstack([values[:, :3], np.deg2rad(values[:, 3:6])])


def _read_plain(path: Path, width: int) -> Array:
    """Numbers in columns without a header: (T, width)."""
    rows = [line.split() for line in _text(path).splitlines() if line.strip()]
    widths = sorted({len(row) for row in rows})
    if widths != [width]:
        found = " and ".join(map(str, widths)) or "no"
        raise DataError(f"It has {found} columns where there should be {width}", file=path)
    try:
        return np.array(rows, dtype=float)
    except ValueError as error:
        raise DataError(f"It does not hold numbers only: {error}", file=path) from None


def _read_named(path: Path) -> pd.DataFrame:
    """A table of fMRIPrep's or XCP-D's with at least the six parameters, as numbers."""
    import pandas as pd

    try:
        table = pd.read_csv(path, sep="\t", na_values="n/a")
    except FileNotFoundError:
        raise DataError("The motion parameters are not there", file=path) from None
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"This is not a table: {error}", file=path) from None
    if missing := [name for name in MOTION_NAMES if name not in table]:
        raise DataError(f"The table lacks the columns {', '.join(missing)}", file=path)
    for name in MOTION_NAMES:
        table[name] = _numbers(table, name, path)
    return table


def _numbers(table: pd.DataFrame, column: str, path: Path) -> pd.Series:
    import pandas as pd

    try:
        return pd.to_numeric(table[column])
    except (ValueError, TypeError):
        raise DataError(f"Column {column} does not hold numbers", file=path) from None


def _read_rms(path: Path, n_volumes: int) -> Array:
    """FSL's relative displacements (T,): of each volume to the one before; the first is NaN.

    MCFLIRT writes T - 1 of them, the HCP pipelines a 0 before these.
    """
    values = _read_plain(path, 1)[:, 0]
    if len(values) == n_volumes:
        values = values[1:]
    if len(values) != n_volumes - 1:
        raise DataError(
            f"It has {len(values)} displacements, the series {n_volumes} volumes", file=path
        )
    if not np.isfinite(values).all() or (values < 0).any():
        raise DataError("Displacements are 0 or more; it holds others too", file=path)
    return np.concatenate([[np.nan], values])


def _check(values: Array, n_volumes: int, path: Path) -> None:
    if len(values) != n_volumes:
        raise DataError(
            f"It has {len(values)} rows, the series {n_volumes} volumes",
            file=path,
            fix="give the parameters of this very run, before any volume was taken out",
        )
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise DataError(f"The parameters of volume {row} are not all numbers", file=path)
    most = float(np.abs(values[:, 3:]).max())
    if most > _MOST_TURN:
        raise DataError(
            f"The head would turn by {most:.3g} rad: the rotations are in another unit",
            file=path,
            fix="rotations must be in rad, in HCP's Movement_Regressors.txt in degrees",
        )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError("The motion parameters are not there", file=path) from None
    except UnicodeDecodeError:
        raise DataError("This is not a text file", file=path) from None
