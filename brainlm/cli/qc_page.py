"""`brainlm qc-page`: one page on the quality of all recordings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from ._console import progress, say
from ._stage import HERE, ParamsOption, StageRun, StudyOption

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from ..report.quality.motion_links import MotionLinks

#: Subjects from whom the links between motion and connectivity are told.
_MOST_SUBJECTS = 1000


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("qc-page")(qc_page)


def qc_page(study: StudyOption = HERE, params: ParamsOption = None) -> None:
    """Write reports/qc/index.html: all recordings in one table, to sort, filter and decide in.

    It opens from the disk, without network: numbers of each recording, outliers among those of
    the same site and task (robust z), histograms, the page of each recording beside the table, and
    limits to try. What is beyond them, and what you mark yourself, is saved from the page as
    exclude.tsv; put that into config/ of the study, and `brainlm cohort` leaves these recordings
    out. Also told: how much of the connectivity goes with motion across subjects (QC-FC).

    Needs no cohort; numbers are those of `brainlm qc-figure`. Writes reports/qc/metrics.tsv too.
    Both name subjects: they are not meant to leave the place where the data are.
    """
    from ..recordings import read_rows, read_table
    from ..report.quality.group import metrics_table, page_data, rules_of
    from ..report.quality.page import GroupPage
    from ..shards.exclude_list import read_exclude_list
    from ..shards.splits import assign_splits
    from ..shards.subjects import columns_asked

    run = StageRun("qc-page", study, params, software=("jinja2", "matplotlib", "numpy", "pandas"))
    recordings = read_table(run.source(run.path("recordings")))
    by_hand = read_exclude_list(run.path("exclude_list"), set(recordings["recording_id"]))
    if run.path("exclude_list").exists():
        run.source(run.path("exclude_list"))
    chosen = recordings["eligible"].fillna(False).astype(bool)
    eligible = recordings[chosen].reset_index(drop=True)
    split = run.params["split"]
    rows = [r for r in read_rows(run.path("recordings"), columns_asked(split)) if r["eligible"]]
    numbers, states = _read_pages(run, [str(name) for name in eligible["recording_id"]])
    splits = assign_splits(rows, split, run.study.root)
    table = metrics_table(eligible, numbers, states, splits, by_hand)
    rules = rules_of(run.params["quality"], run.params["eligibility"]["min_volumes"])
    names = set(table["recording_id"])
    page = GroupPage(
        name=run.config.name,
        data=page_data(table, rules),
        ineligible=int((~chosen).sum()),
        links=_links(run, table, rules),
        kept_lines={name: reason for name, reason in by_hand.items() if name not in names},
    )
    with run.output("quality_table") as path:
        table.to_csv(path, sep="\t", index=False, na_rep="n/a", lineterminator="\n")
    with run.output("quality_page") as path:
        path.write_text(page.render(), encoding="utf-8")
    say(f"{len(numbers)} of {len(table)} recordings have a page: {run.path('quality_page')}")


def _read_pages(
    run: StageRun, names: list[str]
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The numbers of each page, and why a recording has none."""
    from ..errors import DataError
    from ..layout import entities_of
    from ..provenance import check_input, is_tombstone
    from ..report.ledger import read_failures

    failures = read_failures(run.study, run.fields)
    numbers: dict[str, dict[str, Any]] = {}
    states: dict[str, str] = {}
    for name in progress(names, "reading pages"):
        path = run.path("qc_page", recording=name)
        if not path.exists():
            states[name] = "not made yet (brainlm qc-figure)"
        elif is_tombstone(path):
            states[name] = f"given up: {failures.get(name, {}).get('what', 'see qc/failures')}"
        else:
            try:
                numbers[name] = dict(check_input(path, entities_of(name)))
            except DataError as error:
                states[name] = f"not usable: {error.what}"
    return numbers, states


def _links(run: StageRun, table: pd.DataFrame, rules: list[Any]) -> MotionLinks | None:
    """How connectivity goes with motion, over one recording of each subject."""
    from ..atlas.table import read_table
    from ..report.quality.group import for_motion
    from ..report.quality.motion_links import LEAST_SUBJECTS, motion_links

    chosen = for_motion(table, rules, _MOST_SUBJECTS)
    if len(chosen) < LEAST_SUBJECTS:
        return None
    centres = read_table(run.source(run.path("atlas_table")))[["x", "y", "z"]].to_numpy(float)
    return motion_links(_series(run, chosen), centres)


def _series(run: StageRun, chosen: pd.DataFrame) -> Iterator[tuple[float, NDArray]]:
    """Mean FD and parcel series of these recordings; one that is not whole is passed over."""
    import numpy as np
    import pyarrow.parquet as pq

    from ..errors import DataError
    from ..layout import entities_of, folder_of
    from ..provenance import check_input

    pairs = list(zip(chosen["recording_id"], chosen["mean_fd"], strict=True))
    for name, fd in progress(pairs, "correlating"):
        path = run.path("timeseries", recording=name, folder=folder_of(name))
        try:
            check_input(path, entities_of(name))
            # By hundreds of small columns; threads and a table of pandas would take twice as long.
            table = pq.ParquetFile(path).read(use_threads=False)
            yield float(fd), np.column_stack([column.to_numpy() for column in table.columns])
        except DataError:
            continue
