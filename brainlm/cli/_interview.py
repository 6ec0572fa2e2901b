"""The questions of `brainlm onboard --interactive`; nothing is written while they are asked."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import typer

from ..errors import InputError
from ._console import say

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from ..bids.phenotypes.read import Labelled
    from ..bids.phenotypes.summary import LabelSummary

#: Reads the dataset's headers with these options: a first look.
Look = Callable[[dict[str, Any]], "Labelled"]

_ENGINES = ("native", "fmriprep", "derivatives")
_CLEANED = '"cleaned": true'


@dataclass(frozen=True)
class Answers:
    """What was decided."""

    changes: dict[str, Any]  # of the config's defaults
    slurm: bool  # the workflow will run on a cluster


def check_terminal(config: Path) -> None:
    """Refuse to ask where nobody can answer, or where there is a config already."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InputError(
            "--interactive asks questions, and there is no terminal to answer them",
            fix="leave it out and say what differs from the defaults: --set key=value",
        )
    if config.exists():
        raise InputError(
            "This study has a config already, which belongs to you: there is nothing to ask",
            file=config,
            fix="edit that file, then run `brainlm onboard` without --interactive",
        )


def interview(source: Path, given: Mapping[str, Any], look: Look) -> Answers:
    """Ask; `given` are options from the command line, which are the defaults here."""
    from ..bids.ready.detect import detect_layout
    from ..bids.study import merge

    say("Enter takes what stands in brackets. Nothing is written before the last question; Ctrl-C")
    say("ends this at any time.")
    layout = detect_layout(source)
    raw = any(source.glob("sub-*/**/func/*_bold.nii*"))
    found = "raw BIDS" if layout in (None, "tables") and raw else layout or "nothing known"
    default = "derivatives" if layout and found != "raw BIDS" else "native"
    engine = _choose(
        f"This looks like: {found}. Who preprocesses? native: this workflow; fmriprep: fMRIPrep in "
        "its container; derivatives: somebody did already",
        "engine",
        _ENGINES,
        str(given.get("engine", default)),
    )
    changes = merge(dict(given), {"engine": engine})
    seen = look(changes)
    for ask in (_atlas, _denoising, _limits):
        changes = ask(changes, seen.table)
    changes = _targets(changes, seen.labels)
    changes = _shares(changes, seen.table)
    where = _choose(
        "Where will the workflow run? local: on this machine; slurm: on a cluster, whose profile "
        "is filled in from what it offers",
        "run on",
        ("local", "slurm"),
        "slurm" if shutil.which("sbatch") else "local",
    )
    say("")
    if not typer.confirm("Write the study?", default=True):
        raise typer.Abort
    return Answers(changes, where == "slurm")


def _atlas(changes: dict[str, Any], table: pd.DataFrame) -> dict[str, Any]:
    from ..atlas.registry import load_registry
    from ..bids.study import merge
    from ..config import Config

    name = _choose(
        "The parcels that series are averaged in. A424: BrainLM's own (fetch it once: `brainlm "
        "atlas get A424`); A424approx: a stand-in to try the workflow with",
        "atlas.name",
        list(load_registry()),
        str(changes.get("atlas", {}).get("name", Config().atlas.name)),
    )
    return merge(changes, {"atlas": {"name": name}})


def _denoising(changes: dict[str, Any], table: pd.DataFrame) -> dict[str, Any]:
    from ..bids.study import merge
    from ..config import Config
    from ..config.cleaning import Method

    if (table["kind"] == "parcels").any():
        return changes
    cleaned = bool(table["ready_about"].dropna().str.contains(_CLEANED).any())
    method = _choose(
        "What denoising takes out. aroma: components that ICA-AROMA takes for noise (BrainLM's "
        "authors); 36p, acompcor, motion24: regression; fix: nothing, the series is clean",
        "denoise.method",
        get_args(Method),
        str(
            changes.get("denoise", {}).get("method", "fix" if cleaned else Config().denoise.method)
        ),
    )
    return merge(changes, {"denoise": {"method": method}})


def _limits(changes: dict[str, Any], table: pd.DataFrame) -> dict[str, Any]:
    from ..bids.study import merge
    from ..config import Config

    default = Config().eligibility.model_dump() | dict(changes.get("eligibility", {}))
    volumes, times = table["n_volumes"].dropna(), table["tr"].dropna()
    known = f"Here they have {volumes.min()} to {volumes.max()}. " if len(volumes) else ""
    fewest = _number(
        f"Shorter runs are left out. {known}BrainLM reads windows of 200 volumes",
        "eligibility.min_volumes",
        int(default["min_volumes"]),
        int,
    )
    known = f"Here they are {times.min():g} to {times.max():g} s. " if len(times) else ""
    low = _number(
        f"Runs with a repetition time out of bounds are left out. {known}Shortest, s",
        "eligibility.tr_min",
        float(default["tr_min"]),
        float,
    )
    high = _number(
        "Longest, s", "eligibility.tr_max", float(default["tr_max"]), lambda text: _above(text, low)
    )
    limits = {"min_volumes": fewest, "tr_min": low, "tr_max": high}
    _tell_effect(table, fewest, low, high)
    return merge(changes, {"eligibility": limits})


def _tell_effect(table: pd.DataFrame, fewest: int, low: float, high: float) -> None:
    inside = (table["n_volumes"] >= fewest) & table["tr"].between(low, high)
    say(f"  {int(inside.fillna(False).sum())} of {len(table)} recordings are within these limits")


def _targets(changes: dict[str, Any], labels: Sequence[LabelSummary]) -> dict[str, Any]:
    from ..bids.study import merge
    from ..report.onboarding.suggestions import target_of

    possible = {label.name: target for label in labels if (target := target_of(label)) is not None}
    if not possible or changes.get("finetune", {}).get("targets"):
        return changes
    kinds = ", ".join(f"{name} ({target['kind']})" for name, target in possible.items())
    question = f"Labels that a model is to predict, with commas, or none. There are {kinds}"

    def read(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        names = [] if names == ["none"] else names
        if unknown := [name for name in names if name not in possible]:
            raise ValueError(f"there is no label {', '.join(unknown)}")
        return names

    chosen: list[str] = _ask(question, "finetune.targets", "none", read)
    return merge(changes, {"finetune": {"targets": [possible[name] for name in chosen]}})


def _shares(changes: dict[str, Any], table: pd.DataFrame) -> dict[str, Any]:
    from ..bids.study import merge
    from ..config import Config

    default = Config().split.model_dump() | dict(changes.get("split", {}))
    people = table["subject"].nunique()
    train = _number(
        f"Share of the {people} subjects to train on; all recordings of one are in one split",
        "split.train",
        float(default["train"]),
        _share,
    )
    left = round(1 - train, 4)
    val = _number(
        f"Share to validate on, less than {left:g}: the rest is for the test",
        "split.val",
        min(float(default["val"]), round(left / 2, 4)),
        lambda text: _share(text, left),
    )
    return merge(changes, {"split": {"train": train, "val": val}})


def _above(text: str, low: float) -> float:
    value = float(text)
    if not value > low:
        raise ValueError(f"it must be above {low:g}")
    return value


def _share(text: str, below: float = 1.0) -> float:
    value = float(text)
    if not 0 < value < below:
        raise ValueError(f"it must be above 0 and below {below:g}")
    return value


def _choose(question: str, key: str, options: Sequence[str], default: str) -> str:
    def read(text: str) -> str:
        if text not in options:
            raise ValueError(f"choose of {', '.join(options)}")
        return text

    return str(_ask(f"{question}\n  ({', '.join(options)})", key, default, read))


def _number(question: str, key: str, default: float, read: Callable[[str], Any]) -> Any:
    def positive(text: str) -> Any:
        value = read(text)
        if not value > 0:
            raise ValueError("it must be above 0")
        return value

    return _ask(question, key, f"{default:g}", positive)


def _ask(question: str, key: str, default: str, read: Callable[[str], Any]) -> Any:
    """Ask until the answer can be read; what is wrong with one is told."""
    say(f"\n{question}")
    while True:
        answer = str(typer.prompt(f"  {key}", default=default)).strip()
        try:
            return read(answer)
        except ValueError as error:
            told = str(error)
            say(
                f"  {answer!r} is not a number"
                if "could not convert" in told or "invalid literal" in told
                else f"  {told}"
            )
