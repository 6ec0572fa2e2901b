"""How long a dense series or a table of parcels is, for onboarding."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from ..bids.ready.run import Kind
    from ..bids.ready.table import Length


def measure(kind: Kind, path: Path, names: list[str]) -> Length:
    """Length of a dense series, or of a table of parcels that are called `names`."""
    from ..bids.ready.table import Length
    from ..errors import BrainLMError

    try:
        if kind == "dense":
            from ..parcellate.cifti import open_dtseries

            series = open_dtseries(path)
            return Length(series.n_times, series.tr)
        from ..parcellate.ready import read_parcels

        table = read_parcels(path, names)
        return Length(len(table.series), notes=list(table.notes))
    except BrainLMError as error:
        # Reasons are joined by semicolons, so none has one of its own.
        fix = f" ({error.fix.replace(';', ',')})" if error.fix else ""
        return Length(None, faults=[error.what + fix])


def parcel_names_of(atlas: str) -> list[str]:
    """The names of a registered atlas' parcels, in order."""
    from ..atlas.registry import find_atlas
    from ..atlas.table import read_table

    table: pd.DataFrame = read_table(find_atlas(atlas).table)
    return [str(name) for name in table["name"]]
