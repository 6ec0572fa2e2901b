"""Reading, checking and writing the config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ..errors import InputError
from ..files import read_json
from ..resources import share_dir
from .base import Section, faults_of
from .learning import Model
from .strict_yaml import read_yaml
from .study import Config


def parse_config(content: dict[str, Any], *, source: str | Path) -> Config:
    """Validate a parsed YAML mapping, with one readable line for each fault."""
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        raise InputError(
            "The config is not valid: " + faults_of(error, "config"),
            file=source,
            fix="`brainlm config options` lists every key with its meaning and default",
        ) from None


def load_config(path: str | Path) -> Config:
    """Read and validate `config.yaml`."""
    return parse_config(read_content(path), source=path)


def read_content(path: str | Path) -> dict[str, Any]:
    """What `config.yaml` says, not yet validated."""
    path = Path(path)
    try:
        content = read_yaml(
            path, "The config", fix="mend the line named; strings with a colon need quotes"
        )
    except FileNotFoundError:
        raise InputError(
            "There is no config here",
            file=path,
            fix="run this in a study folder, or make one: `brainlm onboard BIDS_DIR --study DIR`",
        ) from None
    if not isinstance(content or {}, dict):
        raise InputError("The config must be a mapping of keys to values", file=path)
    return content or {}


def load_preset(model: Model) -> dict[str, Any]:
    """The network's settings: the preset file with the overrides applied."""
    path = share_dir() / "config" / "models" / f"{model.preset}.yaml"
    if not path.exists():
        known = ", ".join(sorted(entry.stem for entry in path.parent.glob("*.yaml")))
        raise InputError(
            f"There is no model preset called {model.preset!r}", file=path, fix=f"choose of {known}"
        )
    preset = read_yaml(path, "The preset")
    unknown = set(model.overrides) - set(preset)
    if unknown:
        raise InputError(
            f"model.overrides holds unknown keys: {', '.join(sorted(unknown))}",
            fix=f"choose of {', '.join(sorted(preset))}",
        )
    return {**preset, **model.overrides}


def study_presets() -> list[str]:
    """The names of the presets for a new study."""
    return sorted(entry.stem for entry in (share_dir() / "config" / "presets").glob("*.yaml"))


def load_study_preset(name: str) -> dict[str, Any]:
    """The options that a preset for a new study sets, by section."""
    if name not in study_presets():
        raise InputError(
            f"There is no preset called {name!r}", fix=f"choose of {', '.join(study_presets())}"
        )
    path = share_dir() / "config" / "presets" / f"{name}.yaml"
    return dict(read_yaml(path, "The preset"))


def to_commented_yaml(config: Config) -> str:
    """The config as YAML, each key under its help text."""
    lines = [
        "# Configuration of a BrainLM study. Every key may be left out: it then has the value",
        "# shown in `brainlm config options`. Paths are relative to the study folder.",
    ]
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, Section):
            lines += ["", f"# {(value.__doc__ or '').strip()}", f"{name}:"]
            for key, option in type(value).model_fields.items():
                lines.append(f"  # {option.description}")
                lines += _yaml_lines(key, getattr(value, key), indent="  ")
        else:
            lines += ["", f"# {field.description}", *_yaml_lines(name, value, indent="")]
    return "\n".join(lines) + "\n"


def _yaml_lines(key: str, value: Any, indent: str) -> list[str]:
    if isinstance(value, tuple):
        value = [
            item.model_dump(exclude_none=True) if isinstance(item, Section) else item
            for item in value
        ]
    if isinstance(value, Path):
        value = str(value)
    text = yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, width=90)
    return [indent + line for line in text.rstrip("\n").split("\n")]


def config_schema() -> dict[str, Any]:
    """The JSON schema of the config, for Snakemake and for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Config.model_json_schema(mode="validation"),
    }


def read_schema(path: str | Path) -> dict[str, Any]:
    """Read the committed JSON schema."""
    return dict(read_json(path))
