"""The `brainlm` command: one thin file per verb, heavy imports only inside the verbs."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys

import typer

from .. import __version__
from ..errors import BrainLMError, InputError
from ..resources import PLANNED_BY, package_digest
from ._help import SectionedGroup

app = typer.Typer(
    name="brainlm",
    cls=SectionedGroup,
    help="From raw BIDS fMRI to a trained, evaluated BrainLM.\n\n"
    "Start with `brainlm onboard BIDS_DIR --study STUDY_DIR`, then run "
    "`snakemake --profile local` in the study folder. Every stage of the workflow is also a "
    "command here, with the same arguments and the same bytes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"brainlm {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="show the version and exit"
    ),
) -> None:
    """Hold the options of the bare command."""


def _load_verbs() -> None:
    """Import every verb's module; each has a `register(app)`."""
    for module in sorted(entry.name for entry in pkgutil.iter_modules(__path__)):
        if not module.startswith("_"):
            importlib.import_module(f"{__name__}.{module}").register(app)


def _check_planner() -> None:
    """Refuse to work in a container whose brainlm is another one than that which planned the job.

    Its results would be recorded as those of code that did not make them.
    """
    planned_by = os.environ.get(PLANNED_BY)
    if planned_by and planned_by != package_digest():
        raise InputError(
            f"The brainlm of this image ({__version__}) is not the one that planned this job",
            fix="build the image anew from the brainlm that you run Snakemake with, or the reverse",
        )


def main() -> None:
    """Run the command line; known errors are told in at most three lines."""
    _load_verbs()
    try:
        _check_planner()
        app()
    except BrainLMError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        # A full disk can also strike where no atomic writer stands (logs, temporary files).
        print(f"Error: {error.strerror or error}", file=sys.stderr)
        if error.filename:
            print(f"  file: {error.filename}", file=sys.stderr)
        sys.exit(1)
