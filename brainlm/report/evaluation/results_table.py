"""`results.tsv`: the scores of the page, one in a line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields

import pandas as pd

from ...evaluate.paired import holm
from .parts import Row

#: The tests of labels are one family, whichever label and method they are of: those against chance,
#: and those beside the model (by `condition`), which ask something else.
FAMILY = "clinical"
COLUMNS = (*(field.name for field in fields(Row) if field.name != "note"), "p_holm_all", "note")
#: What tells one test of the family from another; the metrics of a method may share its test.
_ONE_TEST = ["method", "target", "cohort", "condition", "p"]


def results_table(rows: Iterable[Row]) -> pd.DataFrame:
    """One line for each row, in their order; `p_holm_all`: Holm over all labels and methods.

    Tests against chance are one family, tests beside the model another.
    """
    table = pd.DataFrame([asdict(row) for row in rows], columns=list(COLUMNS))
    table["n_subjects"] = table["n_subjects"].astype("Int64")
    for column in ("value", "low", "high", "sd", "p", "p_corrected", "p_holm_all"):
        table[column] = table[column].astype(float)
    tested = table[(table["task"] == FAMILY) & table["p"].notna()]
    tests = tested.drop_duplicates(_ONE_TEST)
    families = tests.groupby("condition")["p"]
    adjusted = tests[_ONE_TEST].assign(
        p_holm_all=families.transform(lambda p: holm(p.to_numpy(dtype=float)))
    )
    found = tested[_ONE_TEST].merge(adjusted, on=_ONE_TEST, how="left", validate="many_to_one")
    table.loc[tested.index, "p_holm_all"] = found["p_holm_all"].to_numpy()
    return table


def to_tsv(table: pd.DataFrame) -> str:
    """The table as text: six digits, n/a where there is no number."""
    return str(
        table.to_csv(sep="\t", index=False, na_rep="n/a", float_format="%.6g", lineterminator="\n")
    )
