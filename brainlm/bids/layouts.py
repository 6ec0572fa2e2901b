"""Which layout and which engine a new study gets, so that the two always fit each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import Config
from ..errors import InputError
from .ready.detect import Seen, look_at

#: What `onboard --layout` calls a layout -> derivatives.layout.
DERIVED = {
    "fmriprep": "fmriprep",
    "xcpd": "xcpd",
    "hcp": "hcp",
    "ukb": "ukb",
    "timeseries": "tables",
}
_SPOKEN = {layout: name for name, layout in DERIVED.items()} | {"bids": "bids"}


def settle_layout(
    root: Path, asked: str | None, changes: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """The options that a new study needs for what lies in `root`, and a line that says so.

    `asked` is the user's word (`bids` or one of `DERIVED`), None to look for oneself; `changes`
    are options that the user has set: they are never overruled, but refused where they contradict.
    """
    engine = changes.get("engine")
    derivatives = changes.get("derivatives")
    set_layout = derivatives.get("layout") if isinstance(derivatives, dict) else None
    seen = look_at(root)
    if asked is None:
        if seen is None:
            return {}, ""
        if engine is not None or set_layout is not None:
            return {}, f"this folder looks like {_spoken(seen)}"
        return _options(_SPOKEN[seen.layout]), f"{_spoken(seen)}; --layout says it otherwise"
    if seen is not None and _SPOKEN[seen.layout] != asked:
        raise InputError(
            f"This folder is not of layout {asked}, as far as can be told: it looks like "
            f"{_spoken(seen)}",
            file=root,
            fix=f"--layout {_SPOKEN[seen.layout]}, or the folder that you meant",
        )
    wanted = _options(asked)
    if asked == "bids" and engine == "derivatives":
        raise InputError(
            "--layout bids and engine derivatives contradict each other",
            fix="raw runs are for engine native or fmriprep; leave one of the two out",
        )
    if asked != "bids" and engine not in (None, "derivatives"):
        raise InputError(
            f"--layout {asked} and engine {engine} contradict each other",
            fix="what another pipeline left is for engine derivatives; leave one of the two out",
        )
    if set_layout not in (None, "auto", DERIVED.get(asked)):
        raise InputError(
            f"--layout {asked} and derivatives.layout={set_layout} contradict each other",
            fix="leave one of the two out",
        )
    return wanted, f"{asked}, as asked for"


def check_layout(root: Path, asked: str, config: Config) -> None:
    """Refuse a layout that an existing study does not read."""
    layout = "bids"
    if config.engine == "derivatives":
        layout = config.derivatives.layout
        if layout == "auto":
            seen = look_at(root)
            layout = seen.layout if seen else "auto"
    if _SPOKEN.get(layout, layout) != asked:
        raise InputError(
            f"This study reads layout {_SPOKEN.get(layout, layout)}, not {asked}",
            file=root,
            fix="leave --layout out, or make another study with --study",
        )


def _options(name: str) -> dict[str, Any]:
    if name == "bids":
        return {}
    return {"engine": "derivatives", "derivatives": {"layout": DERIVED[name]}}


def _spoken(seen: Seen) -> str:
    return f"{_SPOKEN[seen.layout]} ({seen.sign})"
