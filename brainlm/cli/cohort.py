"""`brainlm cohort`: who is in, who is out and why, and who trains, validates and tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from ..wording import counted
from ._console import progress, say, warn
from ._stage import HERE, ParamsOption, StageRun, StudyOption

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from ..shards.selection import Selection
    from ..shards.splits import Assignment


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("cohort")(cohort)


def cohort(study: StudyOption = HERE, params: ParamsOption = None) -> None:
    """Select the recordings that are good enough, and split the subjects.

    A recording is in when every stage finished, its parcel series is whole and of the study's
    atlas, and it passes the rules of `quality` (mean FD, share of parcels with coverage); one
    that scrubbing or resampling shortened must still have eligibility.min_volumes. Where
    timing.tr is set, all get that TR. Recordings in config/exclude.tsv (recording_id, reason;
    the page of `brainlm qc-page` writes such a list) are out, whatever the rules say.

    A subject's split, with its family where split.family names a label, is decided by a hash of
    split.salt, so adding subjects later moves nobody. With split.stratify each split gets its
    share of sites, sexes, ages ...; config/split-ledger.tsv then keeps who has been drawn.
    Cohorts in split.external are wholly for test. Or your own table decides (split.table).

    Writes cohort/recordings.parquet, splits.tsv, exclusions.tsv with a reason for each recording
    that is out, leakage.json, and cohort/plan with what each shard will hold. Fails when more than
    quality.max_excluded of the eligible recordings are out, or when a split is empty.
    """
    from ..bids.onboarded import check_onboarded
    from ..files import write_json
    from ..recordings import read_rows
    from ..shards.leakage import leakage_proof
    from ..shards.plan import plan_shards
    from ..shards.splits import assign, check_leakage
    from ..shards.subjects import columns_asked

    run = StageRun("cohort", study, params, software=("pandas", "pyarrow"))
    if params is None:  # the workflow, which gives them, has looked at its start
        check_onboarded(run.config, run.study.root)
    options = run.params["split"]
    selection = _select(run)
    rows = read_rows(run.path("recordings"), columns_asked(options))
    eligible = [row for row in rows if row["eligible"]]
    assignment = assign(eligible, options, run.study.root)
    included = _with_splits(selection.included, assignment)
    check_leakage(included, run.path("cohort"))
    _check_splits(run, included, assignment)
    _keep_ledger(run, assignment)
    splits = dict(zip(included["subject"], included["split"], strict=True))
    with run.output("splits") as path:
        _splits_table(splits).to_csv(path, sep="\t", index=False, lineterminator="\n")
    plan = plan_shards(
        eligible,
        assignment.splits,
        parcels=_n_parcels(run),
        options=run.params["shards"],
        tr=run.params["timing"]["tr"],
    )
    # A cohort never stands beside plans that it was not made with.
    run.path("cohort").unlink(missing_ok=True)
    _write_plan(run, included, plan)
    proof = leakage_proof(included, decided_by=_decided_by(options), family=options["family"])
    write_json(run.path("leakage"), proof)
    if proof["in_two_splits"]["series"]:
        warn(_one_scan_under_two_names(included))
    with run.output("cohort") as path:
        included.to_parquet(path, index=False)
    _tell_times(included, run.params["timing"])
    if assignment.external:
        say(f"wholly for test, of external cohorts: {counted(len(assignment.external), 'subject')}")
    counts = included["split"].value_counts()
    say(
        f"{len(included):,} of {counted(selection.n_eligible, 'eligible recording')}, "
        f"{counted(len(splits), 'subject')}: "
        + ", ".join(f"{counts.get(split, 0)} {split}" for split in ("train", "val", "test"))
    )


def _select(run: StageRun) -> Selection:
    """Apply the rules to what the stages left; write down who is out."""
    from ..recordings import read_table
    from ..shards.exclude_list import read_exclude_list
    from ..shards.harmonise import Timing
    from ..shards.selection import Quality, check_enough_is_left, select
    from ._cohort_files import read_all_finished

    recordings = read_table(run.source(run.path("recordings")))
    by_hand = read_exclude_list(run.path("exclude_list"), set(recordings["recording_id"]))
    if run.path("exclude_list").exists():
        run.source(run.path("exclude_list"))
    least = run.params["eligibility"]["min_volumes"]
    quality = Quality(min_volumes=least, **run.params["quality"])
    eligible = recordings.loc[recordings["eligible"].fillna(False).astype(bool), "recording_id"]
    finished = read_all_finished(
        run,
        [str(name) for name in eligible],
        lambda items, total: progress(items, "reading parcel series", total),
    )
    selection = select(recordings, finished, quality, Timing(**run.params["timing"]), by_hand)
    with run.output("exclusions") as path:
        selection.exclusions.to_csv(path, sep="\t", index=False, na_rep="n/a", lineterminator="\n")
    check_enough_is_left(selection, quality)
    if selection.n_by_hand:
        say(f"Out by hand (config/exclude.tsv): {selection.n_by_hand} of the eligible recordings")
    return selection


def _with_splits(included: pd.DataFrame, assignment: Assignment) -> pd.DataFrame:
    """The cohort's table with the columns split and family."""
    splits = included["subject"].map(assignment.splits).astype("string")
    included.insert(2, "split", splits)
    return included.assign(
        family=included["subject"].map(assignment.families).astype("string"),
    )


def _check_splits(run: StageRun, included: pd.DataFrame, assignment: Assignment) -> None:
    """Refuse an empty split; without anything to fit, train and val may be."""
    from ..shards.splits import SPLITS, check_no_split_is_empty, working_salt

    options = run.params["split"]
    needed = ("test",) if run.params["scale"]["fitted"] else SPLITS
    present = {str(subject) for subject in included["subject"].unique()}
    if options["table"]:
        fix = "give each split at least one subject of the cohort in split.table"
    else:
        fix = "give that split a larger share (split.train, split.val)"
        drawn = {s: assignment.families[s] for s in present - assignment.external}
        lacking = set(needed) - ({"test"} if present & assignment.external else set())
        draw = {key: options[key] for key in ("train", "val", "salt")}
        if not options["stratify"] and (other := working_salt(drawn, lacking, **draw)):
            fix += f", or set split.salt: {other}"
    check_no_split_is_empty({s: assignment.splits[s] for s in present}, fix, needed)


def _keep_ledger(run: StageRun, assignment: Assignment) -> None:
    """Write down who has been drawn, where that must be kept; untouched if nobody is new."""
    from ..files import write_text

    path = run.study.path("split_ledger")
    if assignment.ledger is None:
        if path.exists():
            warn(
                "config/split-ledger.tsv holds a stratified draw, but split.stratify is empty: it "
                "is not used, and subjects may be in other splits than it says"
            )
        return
    text = assignment.ledger.text()
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def _write_plan(run: StageRun, included: pd.DataFrame, plan: Mapping[str, tuple[str, ...]]) -> None:
    """One small table for each shard, of its recordings that are in; equal content, equal bytes."""
    from ..files import atomic_path
    from ..shards.plan import write_plan

    by_id = included.set_index("recording_id", drop=False)
    folder = run.path("shard_plan", shard="any").parent
    for shard, names in plan.items():
        with atomic_path(run.path("shard_plan", shard=shard)) as path:
            write_plan(path, by_id.loc[[name for name in names if name in by_id.index]])
    for path in folder.glob("*.parquet"):
        if path.stem not in plan:
            path.unlink()


def _tell_times(included: pd.DataFrame, timing: Mapping[str, Any]) -> None:
    """Say what became of the recordings' TRs, or that they differ."""
    counts = included["source_tr"].round(4).value_counts().sort_index()
    told = ", ".join(f"{tr:g} s ({count})" for tr, count in counts.items())
    if timing["tr"] is None:
        if counts.index.max() / counts.index.min() - 1 > timing["tolerance"]:
            warn(
                f"recordings have different TRs: {told}. The same number of volumes then spans "
                "different times; timing.tr brings all to one"
            )
        return
    resampled = included[included["resampled"]]
    say(f"TR {timing['tr']:g} s for all; recorded: {told}; {len(resampled)} resampled")
    if slower := int((resampled["source_tr"] > resampled["tr"]).sum()):
        say(f"{slower} of them from a longer TR: that adds samples, but no information")


def _one_scan_under_two_names(included: pd.DataFrame) -> str:
    """Which recordings of two splits have the same parcel series, byte for byte."""
    by_hash = included.groupby("timeseries_sha256")
    torn = included[by_hash["split"].transform("nunique") > 1].sort_values("timeseries_sha256")
    names = torn["recording_id"].iloc[:2]
    return (
        f"{torn['timeseries_sha256'].nunique()} parcel series stand in two splits under different "
        f"names, e.g. {' and '.join(names)}: give such subjects one family (split.family)"
    )


def _n_parcels(run: StageRun) -> int:
    from ..atlas.registry import find_atlas

    return find_atlas(run.params["atlas"]["name"]).n_labels


def _decided_by(options: Mapping[str, Any]) -> str:
    if options["table"]:
        return "split.table"
    return "stratified draw and ledger" if options["stratify"] else "hash"


def _splits_table(splits: Mapping[str, str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(sorted(splits.items()), columns=["subject", "split"])
