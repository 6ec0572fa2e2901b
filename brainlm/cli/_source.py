"""What onboarding makes of `--layout` and `--dataset`: options of a new study."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any

from ._console import say, warn


class LayoutName(StrEnum):
    """How the files of a dataset are laid out."""

    bids = "bids"
    fmriprep = "fmriprep"
    hcp = "hcp"
    ukb = "ukb"
    xcpd = "xcpd"
    timeseries = "timeseries"


def options_of_source(
    source: Path,
    config: Path,
    changes: dict[str, Any],
    layout: str | None,
    dataset: str | None,
    tables: Iterable[Path] = (),
    participants: Path | None = None,
) -> dict[str, Any]:
    """`changes`, with what layout and dataset add to a new study; what was set by hand wins.

    A study that has a config (at `config`) keeps it: layout and dataset are only compared with it.
    `tables` of labels and `participants` are those that lie elsewhere than in the dataset.
    """
    from ..bids.layouts import check_layout, settle_layout
    from ..bids.study import merge
    from ..config import load_config

    if config.exists():
        if dataset is not None:
            changes = merge(_again(source, config, dataset, tables, participants), changes)
        if layout is not None:
            check_layout(source, layout, load_config(config))
        return changes
    added: dict[str, Any] = {}
    if dataset is not None:
        added, layout = _options_of_dataset(source, dataset, layout, tables, participants)
    found, line = settle_layout(source, layout, changes)
    if line:
        say(f"Layout: {line}")
    return merge(merge(added, found), changes)


def _again(
    source: Path, config: Path, name: str, tables: Iterable[Path], participants: Path | None
) -> dict[str, Any]:
    """What a dataset named again asks of a study: nothing if the study was made with it.

    Its config belongs to the user by then. Where it is not known with what the study was made, the
    options are compared as those of --set are.
    """
    from ..bids.datasets.load import load_dataset
    from ..bids.onboarded import onboarded_dataset
    from ..errors import InputError

    made_with, known = onboarded_dataset(config.parents[1]), load_dataset(name).name
    if made_with == known:
        return {}
    if made_with is not None:
        raise InputError(
            f"This study was made with --dataset {made_with}, not {known}",
            file=config,
            fix="leave it out, or make another study with --study",
        )
    return _options_of_dataset(source, name, None, tables, participants)[0]


def _options_of_dataset(
    source: Path,
    name: str,
    layout: str | None,
    tables: Iterable[Path],
    participants: Path | None,
) -> tuple[dict[str, Any], str | None]:
    """The options that a dataset file sets, and the layout where the folder does not show it."""
    from ..bids.datasets.labels import labels_here
    from ..bids.datasets.load import load_dataset
    from ..bids.ready.detect import look_at

    known = load_dataset(name)
    say(f"Dataset: {known.name}, {known.title}")
    if layout is None and look_at(source) is None:
        layout = known.layouts[0]
    labels, missing = labels_here(known, source, tables, participants)
    if missing:
        warn(
            f"labels of {known.name} that no table here has: {', '.join(missing)} (their columns: "
            f"`brainlm dataset show {name}`)"
        )
    for doubt in known.to_check:
        warn(f"check: {doubt}")
    options = dict(known.settings)
    return options | ({"phenotypes": {"labels": labels}} if labels else {}), layout
