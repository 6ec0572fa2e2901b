"""`brainlm audit`: the last word on what was left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ._console import say
from ._stage import HERE, StudyOption

if TYPE_CHECKING:
    import pandas as pd

StrictOption = Annotated[
    bool,
    typer.Option(
        help="exit 3 when an eligible recording was given up or never finished; "
        "--no-strict always exits 0"
    ),
]

_LINES = 40


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("audit")(audit)


def audit(study: StudyOption = HERE, strict: StrictOption = True) -> None:
    """Account for every recording: included, excluded, failed, ineligible or unfinished.

    Writes qc/audit.tsv (recording_id, status, stage, reason) and prints what was left out.
    It is the last step of the workflow: a cohort with a corrupt subject is processed and
    reported to the end, and still ends with exit code 3, so that nobody overlooks it.

    Recordings that onboarding found ineligible, and those that the quality rules excluded,
    are listed but are no error. After mending a file, `brainlm onboard` again and rerun the
    workflow: only that recording is processed anew.
    """
    from ..config import load_config
    from ..errors import DataError
    from ..files import write_text
    from ..layout import Study
    from ..recordings import read_table
    from ..report.ledger import read_exclusions, read_failures, read_included
    from ..report.outcome import count_statuses, outcomes

    folder = Study(study.resolve())
    labels = load_config(folder.path("config")).labels
    table = outcomes(
        read_table(folder.path("recordings")),
        read_failures(folder, labels),
        read_included(folder),
        read_exclusions(folder),
    )
    write_text(folder.path("audit"), table.to_csv(sep="\t", index=False))

    counts = count_statuses(table)
    _print_left_out(table)
    say(", ".join(f"{count} {status}" for status, count in counts.items() if count))
    lost = counts["failed"] + counts["unfinished"]
    if strict and lost:
        raise DataError(
            f"{lost} of {len(table) - counts['ineligible']} eligible recordings "
            f"{'is' if lost == 1 else 'are'} lost: {counts['failed']} given up, "
            f"{counts['unfinished']} unfinished",
            file=folder.path("audit"),
            fix="mend the files that qc/failures names, run `brainlm onboard` and the workflow "
            "again; or leave them out with `brainlm audit --no-strict`",
        )


def _print_left_out(table: pd.DataFrame) -> None:
    """Print one line for each recording that is not in the cohort."""
    from ..report.outcome import left_out

    rest = left_out(table)
    if rest.empty:
        return
    width = int(rest["recording_id"].str.len().max())
    for row in rest.head(_LINES).to_dict("records"):
        where = f" at {row['stage']}" if row["stage"] else ""
        say(f"{row['recording_id']:<{width}}  {row['status']}{where}: {row['reason']}")
    if len(rest) > _LINES:
        say(f"... and {len(rest) - _LINES} more, see qc/audit.tsv")
