"""`brainlm onboard`: from a BIDS dataset to a study that is ready to run."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._console import progress, say, warn
from ._stage import ThreadsOption

if TYPE_CHECKING:
    import pandas as pd


class HashMode(StrEnum):
    """How thoroughly the raw files are read."""

    full = "full"
    fast = "fast"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("onboard")(onboard)


def onboard(
    bids_dir: Annotated[Path, typer.Argument(help="the BIDS dataset; it is only read")],
    study: Annotated[Path, typer.Option("--study", help="the study folder to make or refresh")],
    hash_mode: Annotated[
        HashMode,
        typer.Option(
            "--hash",
            help="full: read every image once, take its SHA-256 and find truncated, corrupt "
            "or NaN data. fast: read headers and file ends only",
        ),
    ] = HashMode.full,
    atlas: Annotated[
        str | None, typer.Option(help="the same as --set atlas.name=...; see `brainlm atlas list`")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value for the new config, e.g. seed=3; may be repeated"),
    ] = None,
    threads: ThreadsOption = 1,
    preset: Annotated[
        str | None,
        typer.Option(help="options of a new study that go together, e.g. xcpd-abcd; --set wins"),
    ] = None,
) -> None:
    """Look through a BIDS dataset and set up a study folder for it.

    Writes onboarding/recordings.parquet and .tsv: one row per BOLD run, with its TR, its
    T1w, its hash, its labels from participants.tsv, and whether it is eligible; `reason`
    says why not, `notes` what was repaired or assumed. Also config/config.yaml with every
    option explained, a Snakefile and profiles. Run it again whenever the dataset changes:
    your config is kept, and only what changed is processed anew.
    """
    from ..atlas.fetch import atlas_problems
    from ..atlas.registry import find_atlas
    from ..bids.dataset import read_dataset, table_bytes
    from ..bids.study import (
        merge,
        parse_settings,
        set_up_study,
        study_config,
        write_bytes_if_changed,
    )
    from ..bids.table import Limits
    from ..config import load_study_preset
    from ..errors import InputError
    from ..layout import Study
    from ..masks import mask_problems
    from ..templates import template_problem

    source, place = bids_dir.resolve(), Study(study.resolve())
    if not source.is_dir():
        raise InputError("The BIDS folder does not exist", file=bids_dir)
    if source == place.root:
        raise InputError(
            "The study folder is the BIDS dataset itself, which is only ever read",
            file=study,
            fix="give another folder with --study",
        )
    changes = merge(load_study_preset(preset) if preset else {}, parse_settings(settings or []))
    if atlas is not None:
        changes = merge(changes, {"atlas": {"name": atlas}})
    config = study_config(place, source, changes)
    atlas_entry = find_atlas(config.atlas.name)
    table, dataset_notes = read_dataset(
        source,
        Limits(**config.eligibility.model_dump()),
        full=hash_mode is HashMode.full,
        threads=threads,
        progress=progress,
    )
    set_up_study(place, config, str(table["dataset"].iloc[0]))
    parquet, tsv = table_bytes(table)
    write_bytes_if_changed(place.path("recordings"), parquet)
    write_bytes_if_changed(place.path("recordings_tsv"), tsv)
    for note in dataset_notes:
        warn(note)
    _summarise(table)
    say(f"  space: {config.space.template}; atlas: {config.atlas.name}")
    if not table["eligible"].any():
        warn("no recording is eligible, so there is nothing to run yet")
        return
    for problem in atlas_problems(atlas_entry, config.space.template, config.atlas.space_ok):
        warn(f"before the first run: {problem}")
    if config.denoise.method == "aroma" and config.ica.masks == "aroma":
        for problem in mask_problems(config.space.template, config.ica.masks_space_ok):
            warn(f"before the first run: {problem}")
    if (absent := template_problem(config.space.template)) is not None:
        warn(f"before the first run: {absent}")
    say(f"Next:  cd {study} && snakemake --profile local   (on a cluster: --profile slurm)")


def _summarise(table: pd.DataFrame) -> None:
    """Print what was found, with each reason once."""
    from ..recordings import LABEL_PREFIX

    eligible = table[table["eligible"]]
    say(
        f"{len(table)} recordings of {table['subject'].nunique()} subjects; "
        f"{len(eligible)} eligible, of {eligible['subject'].nunique()} subjects"
    )
    for reason, rows in table[~table["eligible"]].groupby("reason"):
        example = rows["recording_id"].iloc[0]
        others = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        say(f"  not eligible: {example}{others}: {reason}")
    times = ", ".join(
        f"{tr:g} s ({count})" for tr, count in eligible["tr"].value_counts().sort_index().items()
    )
    labels = [c.removeprefix(LABEL_PREFIX) for c in table.columns if c.startswith(LABEL_PREFIX)]
    say(f"  TR: {times or 'none'}")
    say(f"  T1w: {eligible['t1w'].notna().sum()} of {len(eligible)} recordings have one")
    say(f"  labels: {', '.join(labels) or 'none'}")
    repaired = int(table["notes"].notna().sum())
    if repaired:
        say(f"  notes on {repaired} recordings: column `notes` of onboarding/recordings.tsv")
