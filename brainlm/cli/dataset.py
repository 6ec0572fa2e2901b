"""`brainlm dataset`: what is known of public datasets, and fetching the open ones."""

from __future__ import annotations

import shlex
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._console import say
from ._help import SpelledGroup

if TYPE_CHECKING:
    from ..bids.datasets.model import Dataset

NameArg = Annotated[
    str, typer.Argument(help="a name from `brainlm dataset list`, or a YAML file of your own")
]

dataset_app = typer.Typer(
    cls=SpelledGroup,
    help="List, show and fetch public datasets.\n\n"
    "For each a file tells its layout, labels, quirks, who may have it and what to cite. "
    "`brainlm onboard --dataset NAME` makes use of it. Your own goes into a YAML file of the same "
    "form: docs/datasets.md.",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    """Add the group to the command line."""
    app.add_typer(dataset_app, name="dataset")


@dataset_app.command("list")
def list_datasets() -> None:
    """List the datasets that brainlm knows, their layouts, and how each is had."""
    from ..bids.datasets.load import dataset_names, load_dataset

    rows = [("name", "layout", "access", "what it is")]
    for name in dataset_names():
        known = load_dataset(name)
        tools = ", ".join(way.tool for way in known.fetch)
        rows.append((known.name, ", ".join(known.layouts), tools or "by application", known.title))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        say("  ".join([*cells, row[3]]))


@dataset_app.command("show")
def show(name: NameArg) -> None:
    """Tell all that is known of a dataset, and what is to be checked by you."""
    from ..bids.datasets.load import load_dataset

    known = load_dataset(name)
    say(f"{known.name}: {known.title}")
    _paragraph("", known.about)
    say(f"  layout: {', '.join(known.layouts)}")
    kind = "open" if known.access.open else "by application"
    _paragraph(f"access: {kind}; {known.access.licence}. ", known.access.how)
    say(f"  portal: {known.access.portal}")
    for label in known.labels:
        unit = f" ({label.unit})" if label.unit else ""
        missing = f"; missing: {', '.join(label.missing)}" if label.missing else ""
        columns = " or ".join(label.columns)
        _paragraph(f"label {label.name}{unit}: ", f"{label.about}; column {columns}{missing}")
    for quirk in known.quirks:
        _paragraph("note: ", quirk)
    for doubt in known.to_check:
        _paragraph("CHECK: ", doubt)
    for way in known.fetch:
        read = f"layout {way.layout}" if way.layout else "not read by onboarding as it is"
        _paragraph(f"fetch with {way.tool}: ", f"{way.gives} ({read})")
    for citation in known.citations:
        doi = f" doi:{citation.doi}" if citation.doi else ""
        _paragraph("cite: ", citation.text + doi)


@dataset_app.command("fetch")
def fetch(
    name: NameArg,
    to: Annotated[Path, typer.Option("--to", help="the folder for the data")],
    subjects: Annotated[
        int | None, typer.Option(min=1, help="only so many subjects, the first by name")
    ] = None,
    tool: Annotated[
        str | None,
        typer.Option("--with", help="datalad, aws or nilearn; else the first that is installed"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show the commands and run nothing")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask before running them")] = False,
) -> None:
    """Fetch an open dataset with DataLad, the AWS command line or nilearn.

    The commands are shown first and run only when you agree. They may be run again: what is
    there is not fetched twice.
    """
    from ..bids.datasets import fetching
    from ..bids.datasets.load import load_dataset
    from ..errors import InputError

    known = load_dataset(name)
    way = fetching.choose_way(known, tool)
    folder = to.absolute()
    commands = fetching.commands_now(way, folder, subjects)
    per_subject = subjects is not None and not way.some
    say(f"{known.name}: {way.gives}. Licence: {known.access.licence}")
    for command in commands:
        say(f"  {shlex.join(command)}")
    if per_subject:
        say(f"then for each of the first {subjects} subjects:")
        for command in fetching.commands_for(way, folder, ["SUBJECT"]):
            say(f"  {shlex.join(command)}")
    if dry_run:
        return
    fetching.check_tool(way)
    if not yes:
        if not sys.stdin.isatty():
            raise InputError(
                "Nothing was fetched: nobody is here to agree", fix="say --yes to run this"
            )
        if not typer.confirm("Run this?"):
            return
    folder.parent.mkdir(parents=True, exist_ok=True)
    for command in commands:
        fetching.run_command(command, say)
    if per_subject:
        assert subjects is not None
        names = fetching.first_subjects(folder, subjects)
        for command in fetching.commands_for(way, folder, names):
            say(f"  {shlex.join(command)}")
            fetching.run_command(command, say)
    _say_next(known, name, to, way.layout)


def _say_next(known: Dataset, name: str, to: Path, layout: str | None) -> None:
    if layout is None:
        say(f"{to} holds it. Onboarding does not read it as it is: `brainlm dataset show {name}`")
        return
    study = shlex.quote(f"{known.name}_study")
    say(f"Next:  brainlm onboard {shlex.quote(str(to))} --dataset {name} --study {study}")


def _paragraph(lead: str, text: str) -> None:
    """A line that is wrapped, those that follow indented."""
    for line in textwrap.wrap(
        lead + " ".join(text.split()), 100, initial_indent="  ", subsequent_indent="      "
    ):
        say(line)
