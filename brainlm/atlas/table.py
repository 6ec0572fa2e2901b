"""The table of an atlas: which label number is which parcel, and where it lies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..resources import share_dir

if TYPE_CHECKING:
    import pandas as pd

#: Columns that every atlas table needs: label number, unique name, centre in mm (RAS+).
REQUIRED = ("index", "name", "x", "y", "z")

#: Columns with words in them: there `n/a` is kept as it stands.
_WORDS = ("name", "hemisphere", "structure", "yeo7_network")


def load_table() -> pd.DataFrame:
    """The 424 parcels of A424, in the order in which BrainLM reads them.

    Columns: index (1 to 424), name, hemisphere (L, R, M), structure (cortex, subcortex,
    cerebellum), x, y, z (centre, MNI mm), yeo7_network (`n/a` outside the cortex),
    yeo7_share (share of the parcel's grayordinates in that network; NaN outside the
    cortex), voxels_2mm (size in the published volume).
    """
    return read_table(share_dir() / "atlases" / "A424" / "parcels.tsv")


def read_table(path: str | Path) -> pd.DataFrame:
    """Read the TSV table of any atlas and check it; rows are sorted by `index`."""
    import pandas as pd

    path = Path(path)
    try:
        table = pd.read_csv(path, sep="\t", keep_default_na=False, dtype=str)
    except FileNotFoundError:
        raise InputError(
            "The atlas table does not exist", file=path, fix="put it beside its image"
        ) from None
    except ValueError as error:  # empty, ragged, or no text
        reason = " ".join(str(error).split())
        raise InputError(
            f"The atlas table cannot be read: {reason}",
            file=path,
            fix=f"it is tab-separated and needs {', '.join(REQUIRED)}",
        ) from None
    missing = [column for column in REQUIRED if column not in table.columns]
    if missing:
        raise InputError(
            f"The atlas table lacks the columns {', '.join(missing)}",
            file=path,
            fix=f"it is tab-separated and needs {', '.join(REQUIRED)}",
        )
    for column in table.columns.difference(list(_WORDS)):
        table[column] = _numeric(table[column])
    for column in ("index", "x", "y", "z"):
        if not pd.api.types.is_numeric_dtype(table[column]) or table[column].isna().any():
            raise InputError(
                f"Column {column} of the atlas table must hold numbers",
                file=path,
                fix="mend the lines in which it does not",
            )
    for column in ("index", "name"):
        twice = table[column][table[column].duplicated()]
        if len(twice):
            raise InputError(
                f"The atlas table holds the {column} {twice.iloc[0]} more than once",
                file=path,
                fix="give each label a line, a number and a name of its own",
            )
    if (table["index"] < 1).any() or (table["index"] % 1 != 0).any():
        raise InputError(
            "Label numbers must be whole and start at 1; 0 is outside",
            file=path,
            fix="number the labels as the image does, and leave out the line of the outside",
        )
    table["index"] = table["index"].astype("int64")
    return table.sort_values("index", ignore_index=True)


def _numeric(values: pd.Series) -> pd.Series:
    """The column as numbers where all its words are numbers or `n/a`, else as it stands."""
    import pandas as pd

    absent = values.isin(["n/a", ""])
    try:
        return pd.to_numeric(values.mask(absent))
    except ValueError:
        return values
