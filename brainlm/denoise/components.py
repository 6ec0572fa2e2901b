"""The table of components: what was measured, what follows from it, what a person made of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..config.rule import FEATURES
from ..errors import DataError, InputError
from .aroma import CSF_THRESHOLD, FREQUENCY_THRESHOLD, motion_side

ACCEPTED, REJECTED = "accepted", "rejected"
#: The rationale of every component of a search that found no rotation.
UNSETTLED = "search did not settle"

#: By how much a feature may differ between machines or in a spreadsheet. Another component
#: differs by far more in one of them.
_SAME = 0.02


def component_names(count: int) -> list[str]:
    """`ica_000`, `ica_001`, ..., the one that explains most first."""
    return [f"ica_{number:03d}" for number in range(count)]


def classified(metrics: pd.DataFrame, *, settled: bool = True) -> pd.DataFrame:
    """The metrics with `classification` and `rationale`, by the published rule.

    Columns and words are those of fMRIPost-AROMA. Components of a search that did not settle are
    mixtures of sources, which the rule says nothing about: all are accepted, for that reason.
    """
    if not settled:
        return metrics.assign(classification=ACCEPTED, rationale=UNSETTLED)
    reasons = {
        "csf_fract": metrics["csf_fract"] > CSF_THRESHOLD,
        "HFC": metrics["HFC"] > FREQUENCY_THRESHOLD,
        "max_RP_corr, edge_fract": motion_side(metrics) > 0,
    }
    rationale = [
        "; ".join(name for name, holds in zip(reasons, row, strict=True) if holds)
        for row in zip(*reasons.values(), strict=True)
    ]
    return metrics.assign(
        classification=[REJECTED if reason else ACCEPTED for reason in rationale],
        rationale=rationale,
    )


def read_noise(path: Path, names: list[str]) -> NDArray[np.bool_]:
    """Which components (k,) a table calls noise: ours, or one that a person has edited."""
    fix = f"give each of the {len(names)} components one row with {ACCEPTED} or {REJECTED}"
    table = _read(path, fix)
    if not {"component", "classification"} <= set(table.columns):
        raise InputError(
            "The table of components needs the columns component and classification",
            file=path,
            fix=fix,
        )
    said = dict(zip(table["component"], table["classification"], strict=True))
    if len(said) != len(table) or set(said) != set(names):
        raise InputError("Its components are not those of the run", file=path, fix=fix)
    if not set(said.values()) <= {ACCEPTED, REJECTED}:
        odd = next(str(value) for value in said.values() if value not in (ACCEPTED, REJECTED))
        raise InputError(f"A component is classified as {odd!r}", file=path, fix=fix)
    return np.array([said[name] == REJECTED for name in names])


def search_settled(path: Path) -> bool:
    """Whether the components of this table came from a search that found its rotation."""
    table = pd.read_csv(path, sep="\t", na_values="n/a", keep_default_na=False)
    return "rationale" not in table or not (table["rationale"] == UNSETTLED).any()


def check_same_components(review: Path, metrics: Path) -> None:
    """Refuse a table made by hand (`review`) of other components than those of `metrics`.

    Names are numbers: after another search (an option, the data, the code) they stand for other
    components. The features that the table was copied with tell; one without them is believed.
    """
    fix = f"classify those of {metrics.name} anew, or delete the table in review/"
    theirs, ours = (_read(path, fix).set_index("component") for path in (review, metrics))
    shared = [name for name in FEATURES if name in theirs.columns]
    try:
        features = theirs.loc[ours.index, shared].astype(float)
    except ValueError as error:
        raise InputError(f"A feature is no number: {error}", file=review, fix=fix) from None
    gap = (features - ours[shared]).abs() > _SAME
    if gap.any(axis=None):
        raise InputError(
            f"The table was made of other components: {ours.index[gap.any(axis=1)][0]} of the run "
            "has other features now",
            file=review,
            fix=fix,
        )


def _read(path: Path, fix: str) -> pd.DataFrame:
    """A table that a person or a program may have written."""
    try:
        return pd.read_csv(path, sep="\t")
    except ValueError as error:  # empty, ragged, or no text
        reason = " ".join(str(error).split())
        raise InputError(f"This is not a table: {reason}", file=path, fix=fix) from None


def read_mixing(path: Path) -> pd.DataFrame:
    """The courses (T, k) of the components."""
    fix = "delete it and rerun `brainlm ica`"
    try:
        mixing = pd.read_csv(path, sep="\t").apply(pd.to_numeric, errors="coerce")
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"The courses cannot be read: {reason}", file=path, fix=fix) from None
    if not np.isfinite(mixing.to_numpy(dtype=float)).all():
        raise DataError("The courses of the components hold text, NaN or inf", file=path, fix=fix)
    return mixing
