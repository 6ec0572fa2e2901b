"""Setting up a study folder: config, Snakefile, profiles, derivatives."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from .. import __version__
from ..atlas.fetch import available_space
from ..atlas.registry import find_atlas
from ..cluster.profile import OF_THE_SITE, Choice, choose, write_profile
from ..config import FMRIPREP_SPACE, Config, load_config, parse_config, to_commented_yaml
from ..config.strict_yaml import fault_of, parse_yaml
from ..errors import InputError
from ..files import atomic_path, write_text
from ..layout import Study, path_from
from ..masks import mask_problems
from ..resources import share_dir
from ..templates import TEMPLATES
from .ready.dataset import chosen_kind, has_space
from .ready.detect import chosen_layout

if TYPE_CHECKING:
    import pandas as pd

    from ..cluster.site import Site

_SNAKEFILE = """\
# Made by `brainlm onboard`: the workflow of the installed brainlm, run on this study.
#   snakemake --profile local      on this machine
#   snakemake --profile slurm      on a cluster
from brainlm.resources import share_dir


include: str(share_dir() / "Snakefile")


rule everything:
    default_target: True
    input:
        rules.all.input,
    localrule: True
"""


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """`["atlas.name=A424", "seed=3"]` as a nested mapping; values are YAML."""
    content: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise InputError(
                f"--set {setting!r} is not of the form key=value",
                fix="for example --set eligibility.min_volumes=150",
            )
        try:
            value = parse_yaml(text)
        except (yaml.YAMLError, ValueError) as error:
            raise InputError(
                f"The value of --set {setting!r} is not valid YAML: {fault_of(error)}"
            ) from None
        *sections, last = key.split(".")
        place = content
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise InputError(f"--set {setting!r} sets a key below one that is a value")
        place[last] = value
    return content


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `changes` replaced, section by section."""
    merged = dict(base)
    for key, value in changes.items():
        inner = merged.get(key)
        both = isinstance(value, dict) and isinstance(inner, dict)
        merged[key] = merge(inner, value) if both else value  # type: ignore[arg-type]
    return merged


def study_config(study: Study, bids_dir: Path, changes: dict[str, Any]) -> Config:
    """The config of a study: its own if it has one, else the defaults with `changes`.

    A new study gets the template in which its atlas is drawn, where that is on this machine, and
    the masks published with ICA-AROMA, where they are and that is their space too, unless
    `changes` name others.

    A config that exists belongs to the user: it is checked and never written over, so
    `changes` that it does not hold already are refused.
    """
    path = study.path("config")
    if not path.exists():
        defaults: dict[str, Any] = {
            "name": bids_dir.name,
            "bids_dir": path_from(study.root, bids_dir),
        }
        if changes.get("engine") == "fmriprep":
            defaults["space"] = {"template": FMRIPREP_SPACE}
        config = parse_config(merge(defaults, changes), source="--set")
        space = _space_for(config, bids_dir)
        chosen = merge({"space": {"template": space}}, changes)
        config = parse_config(merge(defaults, chosen), source="--set")
        masks = "template" if mask_problems(config.space.template, False) else "aroma"
        chosen = merge({"ica": {"masks": masks}}, chosen)
        return parse_config(merge(defaults, chosen), source="--set")
    config = load_config(path)
    if config.resolve_bids_dir(study.root) != bids_dir:
        raise InputError(
            f"This study belongs to another BIDS dataset: {config.bids_dir}",
            file=path,
            fix="give another --study folder, or correct bids_dir in this file",
        )
    wanted = parse_config(merge(config.model_dump(mode="json"), changes), source="--set")
    if wanted != config:
        raise InputError(
            "This study has a config already, and --set, --preset, --atlas or --dataset would "
            "change it",
            file=path,
            fix="edit that file instead, then run `brainlm onboard` again without them",
        )
    return config


def _space_for(config: Config, bids_dir: Path) -> str:
    """The template of a new study: the atlas's own, where it or data in it are here."""
    atlas = find_atlas(config.atlas.name)
    if config.engine == "fmriprep":
        return FMRIPREP_SPACE
    if config.engine == "derivatives":
        options = config.derivatives
        kind = chosen_kind(chosen_layout(bids_dir, options.layout), options.read, bids_dir)
        if kind == "dense":
            return "fsLR"
        if atlas.space in TEMPLATES and has_space(bids_dir, options, str(atlas.space)):
            return str(atlas.space)
    return available_space(atlas, config.space.template)


def fitting_config(
    study: Study, config: Config, changes: dict[str, Any], table: pd.DataFrame
) -> Config:
    """The config of a new study; runs that are all denoised already are passed on as given."""
    said = "method" in changes.get("denoise", {})
    if said or study.path("config").exists() or config.engine != "derivatives":
        return config
    about = table["ready_about"][table["eligible"]].dropna()
    if about.empty or not about.str.contains('"cleaned": true').all():
        return config
    content = merge(config.model_dump(mode="json"), {"denoise": {"method": "fix"}})
    return parse_config(content, source="--set")


def set_up_study(
    study: Study,
    config: Config,
    dataset: str,
    find_site: Callable[[], Site | None] = lambda: None,
) -> Choice | None:
    """Write what a study needs besides the recordings table; nothing of the user's is lost.

    The Slurm profile of a new study is filled in for the cluster that is found; what was chosen
    there is returned. A study that has a profile asks nothing.
    """
    if not study.path("config").exists():
        write_text(study.path("config"), to_commented_yaml(config))
    if not (study.root / "Snakefile").exists():
        write_text(study.root / "Snakefile", _SNAKEFILE)
    profiles = study.root / "config" / "profiles"
    choice = None
    new = not (profiles / "slurm" / "config.yaml").exists()
    if new and (site := find_site()) is not None:
        choice = choose(site)
        write_profile(profiles / "slurm", site, choice)
    for source in sorted((share_dir() / "config" / "profiles").rglob("*")):
        copy = profiles / source.relative_to(share_dir() / "config" / "profiles")
        if source.is_file() and source.name not in OF_THE_SITE and not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)
    for profile in sorted(entry.name for entry in profiles.iterdir() if entry.is_dir()):
        _link(study.root / profile, Path("config") / "profiles" / profile)
    description = {
        "Name": f"BrainLM derivatives of {dataset}",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "brainlm", "Version": __version__}],
    }
    text = json.dumps(description, indent=2, sort_keys=True) + "\n"
    place = study.root / "derivatives" / "brainlm" / "dataset_description.json"
    write_bytes_if_changed(place, text.encode())
    return choice


def write_bytes_if_changed(path: Path, content: bytes) -> bool:
    """Write atomically unless the file holds these bytes already: its time then stays."""
    if path.exists() and path.read_bytes() == content:
        return False
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return True


def _link(name: Path, target: Path) -> None:
    """A link to a folder, so that `--profile slurm` finds it; a copy where links fail."""
    if name.exists() or name.is_symlink():
        return
    try:
        name.symlink_to(target, target_is_directory=True)
    except OSError:
        shutil.copytree(name.parent / target, name)
