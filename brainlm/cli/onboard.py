"""`brainlm onboard`: from a BIDS dataset to a study that is ready to run."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._console import hushed, say, warn
from ._found import problems, read_source, summarise, tell_lost_labels
from ._source import LayoutName, options_of_source
from ._stage import ThreadsOption
from ._validation import check_validation, tell_validation

if TYPE_CHECKING:
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
    from ..bids.datasets.load import load_dataset
    from ..bids.onboarded import onboarded_dataset, record_bytes
    from ..bids.phenotypes.read import read_phenotypes
    from ..bids.phenotypes.summary import summary_bytes
    from ..bids.study import (
        fitting_config,
        merge,
        parse_settings,
        set_up_study,
        study_config,
        write_bytes_if_changed,
    )
    from ..bids.waves import number_waves, read_waves
    from ..cluster.site import find_site
    from ..config import load_study_preset
    from ..errors import InputError
    from ..layout import Study, path_from
    from ._interview import check_terminal, interview
    from ._labels_found import tell_labels
    from ._onboarding_page import counts, tell_estimate, write_page

    if quiet and interactive:
        raise InputError("--quiet asks nothing: leave out either it or --interactive")
    with hushed(quiet):
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

        def look(options: dict[str, Any], full: bool) -> tuple[Config, Labelled, list[str]]:
            config = study_config(place, source, options)
            check_validation(validator, config)
            people = read_phenotypes(source, place.root, config.phenotypes, participants)
            found, notes = read_source(source, config, place.root, participants, full, threads)
            return config, people.label(found), notes

        slurm = True
        if interactive:
            check_terminal(place.path("config"))
            answers = interview(source, changes, lambda options: look(options, False)[1])
            changes, slurm = answers.changes, answers.slurm
        config, labelled, dataset_notes = look(changes, hash_mode is HashMode.full)
        table = labelled.table
        config = fitting_config(place, config, changes, table)
        name = str(table["dataset"].iloc[0])
        choice = set_up_study(place, config, name, find_site if slurm else lambda: None)
        waves = number_waves(table["recording_id"], read_waves(place.path("recordings")))
        table["wave"] = pd.array(waves, dtype="Int64")
        tell_lost_labels(place.path("recordings"), table)
        parquet, tsv = table_bytes(table)
        write_bytes_if_changed(place.path("recordings"), parquet)
        write_bytes_if_changed(place.path("recordings_tsv"), tsv)
        write_bytes_if_changed(place.path("labels"), summary_bytes(labelled.labels))
        made_with = load_dataset(dataset).name if dataset else onboarded_dataset(place.root)
        kinds = set(table["kind"].dropna())
        record = record_bytes(config, labelled.seen, hash_mode.value, made_with, kinds)
        write_bytes_if_changed(place.path("sources"), record)
        notes = [*dataset_notes, *labelled.notes]
        found = write_page(place, config, table, notes, labelled.labels)
        for note in notes:
            warn(note)
        summarise(table)
        tell_labels(labelled.labels)
        if validator:
            tell_validation(source, place.path("bids_validator"))
        say(f"  space: {config.space.template}; atlas: {config.atlas.name}")
        if choice is not None:
            say(f"  Slurm: {choice}. Others: `brainlm cluster profile`, or edit slurm/config.yaml")
        say(f"  all of it: {place.path('onboarding_page')}")
        if found is None:
            warn("no recording is eligible, so there is nothing to run yet")
        else:
            tell_estimate(found)
            for problem in problems(config, table):
                warn(f"before the first run: {problem}")
            other = "" if interactive else "   (on a cluster: --profile slurm)"
            profile = "slurm" if interactive and slurm else "local"
            say(f"Next:  cd {study} && snakemake --profile {profile}{other}")
    if quiet:
        say(counts(table, found))
