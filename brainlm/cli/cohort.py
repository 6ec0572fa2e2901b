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
    from ..atlas.registry import find_atlas
    from ..recordings import read_rows, read_table
    from ..shards.plan import plan_shards
    from ..shards.selection import Quality, check_enough_is_left, select
    from ..shards.splits import assign_splits, check_no_split_is_empty
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
    rows = [row for row in read_rows(run.path("recordings")) if row["eligible"]]
    assigned = assign_splits(rows, run.params["split"], run.study.root)
    splits = {str(name): assigned[str(name)] for name in included["subject"].unique()}
    check_no_split_is_empty(splits, _how_to_fill(run.params["split"], list(splits)))
    with run.output("splits") as path:
        _splits_table(splits).to_csv(path, sep="\t", index=False, lineterminator="\n")
    included.insert(2, "split", included["subject"].map(splits).astype("string"))
    plan = plan_shards(
        rows,
        assigned,
        parcels=find_atlas(run.params["atlas"]["name"]).n_labels,
        options=run.params["shards"],
        tr=run.params["timing"]["tr"],
    )
    _write_plan(run, included, plan)
    with run.output("cohort") as path:
        included.to_parquet(path, index=False)
    counts = included["split"].value_counts()
    say(
        f"{len(included)} of {selection.n_eligible} eligible recordings, {len(splits)} subjects: "
        + ", ".join(f"{counts[split]} {split}" for split in ("train", "val", "test"))
    )


def _write_plan(run: StageRun, included: pd.DataFrame, plan: Mapping[str, tuple[str, ...]]) -> None:
    """One small table for each shard, of its recordings that are in; equal content, equal bytes."""
    from ..files import atomic_path
    from ..shards.plan import write_plan

    by_id = included.set_index("recording_id", drop=False)
    folder = run.path("shard_plan", shard="any").parent
    for shard, names in plan.items():
        with atomic_path(run.path("shard_plan", shard=shard)) as path:
            write_plan(path, by_id[by_id.index.isin(names)].sort_index())
    for path in folder.glob("*.parquet"):
        if path.stem not in plan:
            path.unlink()


def _how_to_fill(options: Mapping[str, Any], subjects: list[str]) -> str:
    """What to do should a split be empty."""
    from ..shards.splits import working_salt

    if options["table"]:
        return "give each split at least one subject of the cohort in split.table"
    fix = "give that split a larger share (split.train, split.val)"
    other = working_salt(subjects, **{key: options[key] for key in ("train", "val", "salt")})
    return f"{fix}, or set split.salt: {other}" if other else fix


def _splits_table(splits: Mapping[str, str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(sorted(splits.items()), columns=["subject", "split"])
