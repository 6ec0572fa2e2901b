"""How the tables of a run are written: tab-separated, `n/a` where a value is undefined."""

from __future__ import annotations

from pathlib import Path

import pandas as pd


def write_motion(path: Path, table: pd.DataFrame) -> None:
    """Write the motion parameters; eight decimals are 10 nm and 0.00001 mrad."""
    table.to_csv(path, sep="\t", index=False, na_rep="n/a", float_format="%.8f")


def write_confounds(path: Path, table: pd.DataFrame) -> None:
    """Write the confounds, to eight significant digits."""
    table.to_csv(path, sep="\t", index=False, na_rep="n/a", float_format="%.8g")
