"""What participants.tsv says about each subject."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..recordings import LABEL_PREFIX

if TYPE_CHECKING:
    import pandas as pd

_MISSING = ("n/a", "N/A", "", "NaN", "nan")


@dataclass
class Participants:
    """Labels by subject, and the subjects whose rows contradict each other."""

    labels: pd.DataFrame  # index: subject without `sub-`; columns: label_<name>
    site: dict[str, str] = field(default_factory=dict)
    contradictory: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list)


def read_participants(path: Path) -> Participants:
    """Read participants.tsv; a dataset without it simply has no labels.

    Columns become numbers where every value is one. Two equal rows of a subject count as
    one; two different rows make the subject contradictory, since nobody can know which
    of them is right.
    """
    import pandas as pd

    if not path.exists():
        return Participants(pd.DataFrame(), notes=["there is no participants.tsv: no labels"])
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(
            f"participants.tsv cannot be read: {' '.join(str(error).split())}", file=path
        ) from None
    if "participant_id" not in table.columns:
        raise InputError(
            "participants.tsv has no column participant_id",
            file=path,
            fix="it must be tab-separated, with participant_id as the first column (BIDS)",
        )
    notes = []
    if table.duplicated().any():
        notes.append("participants.tsv repeats some rows word for word; they count once")
        table = table.drop_duplicates()
    subjects = table["participant_id"].str.strip().str.removeprefix("sub-")
    contradictory = frozenset(subjects[subjects.duplicated()])
    table = table.drop(columns="participant_id").set_axis(subjects, axis="index")
    table = table.loc[~table.index.isin(contradictory)]
    sites = table.pop("site") if "site" in table.columns else pd.Series(dtype=str)
    labels = pd.DataFrame(
        {f"{LABEL_PREFIX}{name}": _typed(table[name]) for name in table.columns},
        index=table.index,
    )
    known = {str(key): str(value) for key, value in sites.items() if value not in _MISSING}
    return Participants(labels, known, contradictory, notes)


def _typed(values: pd.Series) -> pd.Series:
    """Float64 where every present value is a number, else text; `n/a` is missing."""
    import pandas as pd

    present = values.str.strip().mask(values.str.strip().isin(_MISSING))
    try:
        return pd.to_numeric(present).astype("Float64")
    except ValueError:
        return present.astype("string")
