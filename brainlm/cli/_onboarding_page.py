"""What onboarding leaves for people: its page, the estimate in three lines, counts for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ._console import say, warn
from .estimate import estimate_of, usable_cores

if TYPE_CHECKING:
    import pandas as pd

    from ..bids.phenotypes.summary import LabelSummary
    from ..config import Config
    from ..estimates.takes import Estimate
    from ..layout import Study


def write_page(
    study: Study,
    config: Config,
    table: pd.DataFrame,
    notes: Sequence[str],
    labels: Sequence[LabelSummary],
) -> Estimate | None:
    """Write onboarding/report.html; what the study will take, if anything is to be done.

    The recordings table must be written already.
    """
    from ..bids.study import write_bytes_if_changed
    from ..report.onboarding.page import Onboarded, render_page

    found = estimate_of(config, study.root) if table["eligible"].any() else None
    about = Onboarded(table, config, notes, labels, found)
    write_bytes_if_changed(study.path("onboarding_page"), render_page(about).encode())
    return found


def tell_estimate(found: Estimate) -> None:
    """Print what the study will take, in three lines, and where the disk is too small for it."""
    from ..estimates import text

    cores = usable_cores()
    for line in text.short(found, cores):
        say(f"  {line}")
    for warning in text.disk_warnings(found, found.needed(cores)):
        warn(warning)


def counts(table: pd.DataFrame, found: Estimate | None) -> str:
    """One line for scripts: key=value."""
    eligible = table[table["eligible"]]
    numbers: dict[str, int | float] = {
        "recordings": len(table),
        "eligible": len(eligible),
        "subjects": table["subject"].nunique(),
        "eligible_subjects": eligible["subject"].nunique(),
    }
    if found is not None:
        numbers |= {"cpu_hours": found.cpu_h, "disk_gb": found.kept / 1e9}
    return " ".join(f"{key}={value:.6g}" for key, value in numbers.items())
