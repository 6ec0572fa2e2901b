"""`brainlm scale-brackets`."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the verb: not yet, one shard's cohort needs none."""
