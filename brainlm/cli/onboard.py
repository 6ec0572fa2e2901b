"""`brainlm onboard`: from a BIDS dataset to a study that is ready to run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._console import progress, say, warn
from ._source import LayoutName, options_of_source
from ._stage import ThreadsOption
from ._validation import check_validation, tell_validation

if TYPE_CHECKING:
    import pandas as pd

    from ..bids.dataset import Progress
    from ..bids.phenotypes.read import Labelled
    from ..config import Config


class Engine(StrEnum):
    """Who preprocesses."""

    native = "native"
    fmriprep = "fmriprep"
    derivatives = "derivatives"


class HashMode(StrEnum):
    """How thoroughly the raw files are read."""

    full = "full"
    fast = "fast"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("onboard")(onboard)


def onboard(
    bids_dir: Annotated[
        Path,
        typer.Argument(help="the BIDS dataset, or another pipeline's output; it is only read"),
    ],
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
    engine: Annotated[
        Engine | None,
        typer.Option(
            help="the same as --set engine=...: native preprocesses here, fmriprep in its "
            "container, derivatives reads what fMRIPrep, XCP-D, HCP, UK Biobank or your own "
            "tables left"
        ),
    ] = None,
    participants: Annotated[
        Path | None,
        typer.Option(help="table of labels that lies elsewhere than in the dataset (derivatives)"),
    ] = None,
    phenotypes: Annotated[
        list[Path] | None,
        typer.Option(
            help="table of labels (.tsv, .csv) besides the dataset's own; may be repeated: "
            "docs/phenotypes.md"
        ),
    ] = None,
    layout: Annotated[
        LayoutName | None,
        typer.Option(
            help="what lies in the folder: bids is raw data, the others are derivatives; found "
            "out and said when left out"
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="a name from `brainlm dataset list`, or a YAML file: its labels and options for "
            "a new study; --preset and --set win"
        ),
    ] = None,
    validator: Annotated[
        bool, typer.Option("--validate", help="also run the public BIDS validator (raw BIDS)")
    ] = False,
    preset: Annotated[
        str | None,
        typer.Option(help="options of a new study that go together, e.g. xcpd-abcd; --set wins"),
    ] = None,
    interactive: Annotated[
        bool,
        typer.Option("--interactive", help="ask what a new study needs, each with a default"),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="print errors and one line of counts alone, for scripts")
    ] = False,
) -> None:
    """Look through a BIDS dataset and set up a study folder for it.

    Writes onboarding/recordings.parquet and .tsv: one row per BOLD run, with its TR, its
    T1w, its hash, its labels, and whether it is eligible; `reason`
    says why not, `notes` what was repaired or assumed, `wave` which onboarding found it. Then
    onboarding/labels.tsv: what each label is like, of participants.tsv and of the tables that
    --phenotypes or the config's section phenotypes names (docs/phenotypes.md). Also
    config/config.yaml with every option explained, a Snakefile and profiles, that for Slurm filled
    in for the cluster that this machine belongs to, and onboarding/report.html: the cohort at a
    glance, what is missing or left out, labels, and what it will take. Run it again
    whenever the dataset changes: your config is kept, and only what changed is processed anew.

    The folder may also hold what another pipeline has preprocessed, denoised or reduced to
    parcels (docs/engines.md): that is seen, or said by --layout. --dataset NAME takes labels and
    options from what is known of a public dataset: docs/datasets.md.
    """
    import pandas as pd

    from ..bids.dataset import table_bytes
    from ..bids.phenotypes.read import read_phenotypes
    from ..bids.phenotypes.summary import summary_bytes
    from ..bids.study import (
        fitting_config,
        merge,
        parse_settings,
        path_from,
        set_up_study,
        study_config,
        write_bytes_if_changed,
    )
    from ..bids.waves import number_waves, read_waves
    from ..cluster.site import find_site
    from ..config import load_study_preset
    from ..errors import InputError
    from ..layout import Study
    from ._interview import check_terminal, interview
    from ._labels_found import tell_labels
    from ._onboarding_page import counts, tell_estimate, write_page

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
    if engine is not None:
        changes = merge(changes, {"engine": engine.value})
    if phenotypes:
        files = [{"path": path_from(place.root, path.resolve())} for path in phenotypes]
        changes = merge(changes, {"phenotypes": {"files": files}})
    changes = options_of_source(
        source, place.path("config"), changes, layout, dataset, phenotypes or (), participants
    )
    wait = _silent if quiet else progress

    def look(options: dict[str, Any], full: bool) -> tuple[Config, Labelled, list[str]]:
        config = study_config(place, source, options)
        check_validation(validator, config)
        people = read_phenotypes(source, place.root, config.phenotypes, participants)
        found, notes = _read(source, config, place.root, participants, full, threads, wait)
        return config, people.label(found), notes

    slurm = True
    if interactive:
        check_terminal(place.path("config"))
        answers = interview(source, changes, lambda options: look(options, False)[1].table)
        changes, slurm = answers.changes, answers.slurm
    config, labelled, dataset_notes = look(changes, hash_mode is HashMode.full)
    table = labelled.table
    config = fitting_config(place, config, changes, table)
    name = str(table["dataset"].iloc[0])
    choice = set_up_study(place, config, name, find_site if slurm else lambda: None)
    waves = number_waves(table["recording_id"], read_waves(place.path("recordings")))
    table["wave"] = pd.array(waves, dtype="Int64")
    if not quiet and (lost := _lost_labels(place.path("recordings"), table)):
        warn(f"labels that are gone: {', '.join(lost)}. Were they in another table?")
    parquet, tsv = table_bytes(table)
    write_bytes_if_changed(place.path("recordings"), parquet)
    write_bytes_if_changed(place.path("recordings_tsv"), tsv)
    write_bytes_if_changed(place.path("labels"), summary_bytes(labelled.labels))
    notes = [*dataset_notes, *labelled.notes]
    found = write_page(place, config, table, notes, labelled.labels)
    if quiet:
        say(counts(table, found))
        return
    for note in notes:
        warn(note)
    _summarise(table)
    tell_labels(labelled.labels)
    if validator:
        tell_validation(source, place.path("bids_validator"))
    say(f"  space: {config.space.template}; atlas: {config.atlas.name}")
    if choice is not None:
        say(f"  Slurm: {choice}. Others: `brainlm cluster profile`, or edit slurm/config.yaml")
    say(f"  all of it: {place.path('onboarding_page')}")
    if found is None:
        warn("no recording is eligible, so there is nothing to run yet")
        return
    tell_estimate(found)
    for problem in _problems(config, table):
        warn(f"before the first run: {problem}")
    other = "  (on a cluster: --profile slurm)" if not interactive else ""
    profile = "slurm" if interactive and slurm else "local"
    say(f"Next:  cd {study} && snakemake --profile {profile} {other}".rstrip())


def _silent(items: Iterable[Any], what: str, total: int | None = None) -> Iterator[Any]:
    return iter(items)


def _lost_labels(earlier: Path, table: pd.DataFrame) -> list[str]:
    """Labels that the recordings table of an earlier onboarding had and the new one has not."""
    import pyarrow.parquet as pq

    from ..recordings import LABEL_PREFIX

    if not earlier.exists():
        return []
    gone = [name for name in pq.read_schema(earlier).names if name not in table.columns]
    return [name.removeprefix(LABEL_PREFIX) for name in gone if name.startswith(LABEL_PREFIX)]


def _problems(config: Config, table: pd.DataFrame) -> list[str]:
    """What is still to be done before the first run."""
    from ._problems import problems_of

    kinds = set(table["kind"].dropna())
    told = [str(problem) for problem in problems_of(config, kinds)]
    if config.engine == "fmriprep":
        first = str(table.loc[table["eligible"], "subject"].iloc[0])
        told.append(
            "`brainlm containers pull fmriprep` and `brainlm containers prepare`; then "
            f"`brainlm fmriprep sub-{first} --dry-run` checks engine, image, licence, templates"
        )
    cleaned = table["ready_about"].str.contains('"cleaned": true').fillna(False)
    if cleaned.any() and kinds == {"volume"} and config.denoise.method not in ("fix", "none"):
        told.append(
            f"{int(cleaned.sum())} runs are denoised already: set denoise.method: fix, unless "
            f"{config.denoise.method} is meant to come on top"
        )
    return told


def _read(
    source: Path,
    config: Config,
    study: Path,
    participants: Path | None,
    full: bool,
    threads: int,
    wait: Progress,
) -> tuple[pd.DataFrame, list[str]]:
    """The recordings table, of raw runs or of those that another pipeline preprocessed."""
    from ..bids.dataset import read_dataset
    from ..bids.ready.dataset import read_ready
    from ..bids.ready.detect import look_at
    from ..bids.table import Limits
    from ..errors import InputError
    from ._measure import measure, parcel_names_of

    if config.engine == "derivatives":
        names = parcel_names_of(config.atlas.name)
        return read_ready(
            source,
            config,
            study,
            participants=participants,
            measure=lambda kind, path: measure(kind, path, names),
            full=full,
            threads=threads,
            progress=wait,
        )
    if participants is not None:
        raise InputError(
            "--participants is for derivatives",
            fix="a BIDS dataset has its own participants.tsv",
        )
    seen = look_at(source)
    if seen is not None and seen.layout != "bids":
        raise InputError(
            f"This folder holds no raw BIDS runs, but files of layout {seen.layout} ({seen.sign})",
            file=source,
            fix="engine derivatives reads them: leave --engine out for a new study",
        )
    limits = Limits(**config.eligibility.model_dump())
    return read_dataset(source, limits, full=full, threads=threads, progress=wait)


def _summarise(table: pd.DataFrame) -> None:
    """Print what was found, with each reason once."""
    eligible = table[table["eligible"]]
    say(
        f"{len(table)} recordings of {table['subject'].nunique()} subjects; "
        f"{len(eligible)} eligible, of {eligible['subject'].nunique()} subjects"
    )
    for reason, rows in table[~table["eligible"]].groupby("reason"):
        example = rows["recording_id"].iloc[0]
        others = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        say(f"  not eligible: {example}{others}: {reason}")
    last = int(eligible["wave"].max()) if len(eligible) else 0
    if last:
        new = int((table["wave"] == last).sum())
        say(f"  waves: {last + 1}; the last one brought {new} recordings")
    times = ", ".join(
        f"{tr:g} s ({count})" for tr, count in eligible["tr"].value_counts().sort_index().items()
    )
    say(f"  TR: {times or 'none'}")
    say(f"  T1w: {eligible['t1w'].notna().sum()} of {len(eligible)} recordings have one")
    repaired = int(table["notes"].notna().sum())
    if repaired:
        say(f"  notes on {repaired} recordings: column `notes` of onboarding/recordings.tsv")
