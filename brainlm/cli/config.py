"""`brainlm config`: show, explain and check the configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ._console import say
from ._stage import HERE, StudyOption

config_app = typer.Typer(
    help="Show, explain and check the configuration of a study (config/config.yaml).",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    """Add the group to the command line."""
    app.add_typer(config_app, name="config")


@config_app.command("show")
def show(
    study: StudyOption = HERE,
    defaults: Annotated[bool, typer.Option("--defaults", help="show the defaults")] = False,
) -> None:
    """Print the whole config as it is used, defaults filled in, each key explained."""
    from ..config import Config, load_config, to_commented_yaml
    from ..layout import Study

    config = Config() if defaults else load_config(Study(study).path("config"))
    say(to_commented_yaml(config).rstrip("\n"))


@config_app.command("options")
def options() -> None:
    """List every option with its default and its meaning."""
    from ..config import Config, Section

    for name, field in Config.model_fields.items():
        value = getattr(Config(), name)
        if not isinstance(value, Section):
            say(f"{name} = {_as_text(value)}\n    {field.description}")
            continue
        for key, option in type(value).model_fields.items():
            say(f"{name}.{key} = {_as_text(getattr(value, key))}\n    {option.description}")


@config_app.command("check")
def check(study: StudyOption = HERE) -> None:
    """Check the config of a study: its keys and values, folders, atlas, programs, labels."""
    from ..bids.onboarded import check_onboarded
    from ..config import load_config, load_preset
    from ..denoise.verdict import check_classifier
    from ..errors import InputError
    from ..layout import Study
    from ..recordings import read_table
    from ._problems import problems_of, target_problems

    path = Study(study).path("config")
    config = load_config(path)
    load_preset(config.model)
    bids_dir = config.resolve_bids_dir(study.resolve())
    if not bids_dir.is_dir():
        raise InputError("The folder of bids_dir does not exist", file=bids_dir)
    recordings = Study(study).path("recordings")
    table = read_table(recordings) if recordings.exists() else None
    check_onboarded(config, study.resolve())
    kinds = set() if table is None else set(table["kind"].dropna())
    labels = [] if table is None else target_problems(config, table)
    for problem in (*problems_of(config, kinds), *labels):
        raise problem
    if config.denoise.method == "aroma":
        check_classifier(config.ica.model_dump(), study.resolve())
    say(f"{path} is valid")


@config_app.command("schema")
def schema(
    output: Annotated[Path | None, typer.Option(help="file to write; default: print")] = None,
) -> None:
    """Print or write the JSON schema of the config, for editors and for Snakemake."""
    from ..config import config_schema
    from ..files import write_json

    if output is None:
        say(json.dumps(config_schema(), indent=2, sort_keys=True))
    else:
        write_json(output, config_schema())


def _as_text(value: object) -> str:
    return json.dumps(value, default=str)
