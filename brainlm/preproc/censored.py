"""Which volumes of a run a censored series still has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import DataError


def kept_volumes(outliers: Path, n_left: int) -> tuple[list[int] | None, list[int], int]:
    """The volumes, counted from 0, that a series of `n_left` has; the censored; how many in all.

    `outliers` is XCP-D's table: a row for each volume of the run, 1 where it was censored. None
    where the series has them all (censored ones were filled, or there were none).
    """
    try:
        censored = pd.read_csv(outliers, sep="\t").iloc[:, 0].to_numpy(dtype=float) > 0
    except (ValueError, IndexError, UnicodeDecodeError):
        raise DataError(
            "The table of censored volumes cannot be read",
            file=outliers,
            fix="it needs a column of 0 and 1; make it anew with XCP-D, or exclude the run",
        ) from None
    gone = np.flatnonzero(censored).tolist()
    if len(censored) == n_left:
        return None, gone, n_left
    kept = [number for number, gone in enumerate(censored) if not gone]
    if len(kept) != n_left:
        raise DataError(
            f"The series has {n_left} volumes, but {len(kept)} of the {len(censored)} volumes of "
            "the run were not censored",
            file=outliers,
            fix="series and table belong to different runs of XCP-D: make both anew",
        )
    return kept, gone, len(censored)
