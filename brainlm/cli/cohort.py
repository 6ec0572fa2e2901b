"""`brainlm cohort`: who is in, who is out and why, and who trains, validates and tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from ._console import progress, say
from ._stage import HERE, ParamsOption, StageRun, StudyOption

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("cohort")(cohort)


def cohort(study: StudyOption = HERE, params: ParamsOption = None) -> None:
    """Select the recordings that are good enough, and split the subjects.

    A recording is in when every stage finished and it passes the rules of `quality` (mean
    FD, share of parcels with coverage); one that scrubbing shortened must still have
    eligibility.min_volumes. Its subject's split is decided by a hash of
    split.salt and the subject, so adding subjects later moves nobody; or by your own table
    (split.table). Writes cohort/recordings.parquet, cohort/splits.tsv and
    cohort/exclusions.tsv, with a reason for each recording that is out. Fails when more
    than quality.max_excluded of the eligible recordings are out, or when a split is empty.
    """
    from ..recordings import read_table
    from ..shards.selection import Quality, check_enough_is_left, select
    from ..shards.splits import check_no_split_is_empty
    from ._cohort_files import read_all_finished

    run = StageRun("cohort", study, params, software=("pandas", "pyarrow"))
    recordings = read_table(run.source(run.path("recordings")))
    least = run.params["eligibility"]["min_volumes"]
    quality = Quality(min_volumes=least, **run.params["quality"])
    eligible = recordings.loc[recordings["eligible"].fillna(False).astype(bool), "recording_id"]
    finished = read_all_finished(
        run,
        [str(name) for name in eligible],
        lambda items, total: progress(items, "reading parcel series", total),
    )
    selection = select(recordings, finished, quality)
    with run.output("exclusions") as path:
        selection.exclusions.to_csv(path, sep="\t", index=False, na_rep="n/a", lineterminator="\n")
    check_enough_is_left(selection, quality)

    included = selection.included
    subjects = [str(subject) for subject in included["subject"].unique()]
    splits, fix = _split(run, subjects)
    check_no_split_is_empty(splits, fix)
    with run.output("splits") as path:
        _splits_table(splits).to_csv(path, sep="\t", index=False, lineterminator="\n")
    included.insert(2, "split", included["subject"].map(splits).astype("string"))
    with run.output("cohort") as path:
        included.to_parquet(path, index=False)
    counts = included["split"].value_counts()
    say(
        f"{len(included)} of {selection.n_eligible} eligible recordings, {len(subjects)} subjects: "
        + ", ".join(f"{counts[split]} {split}" for split in ("train", "val", "test"))
    )


def _split(run: StageRun, subjects: list[str]) -> tuple[dict[str, str], str]:
    """Each subject's split, and what to do should one of them be empty."""
    import pandas as pd

    from ..shards.splits import draw_splits, splits_from_table, working_salt

    options: Mapping[str, Any] = run.params["split"]
    if options["table"]:
        path = run.study.root / options["table"]
        if path.is_relative_to(run.study.root):
            run.source(path)
        try:
            table = pd.read_csv(path, sep="\t", dtype=str)
        except FileNotFoundError:
            from ..errors import InputError

            raise InputError(
                "The table of splits does not exist",
                file=path,
                fix="split.table is relative to the study folder; leave it out to draw",
            ) from None
        fix = "give each split at least one subject of the cohort in split.table"
        return splits_from_table(subjects, table, options["table"]), fix
    draw = {key: options[key] for key in ("train", "val", "salt")}
    other = working_salt(subjects, **draw)
    fix = "give that split a larger share (split.train, split.val)"
    if other:
        fix += f", or set split.salt: {other}"
    return draw_splits(subjects, **draw), fix


def _splits_table(splits: Mapping[str, str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(sorted(splits.items()), columns=["subject", "split"])
