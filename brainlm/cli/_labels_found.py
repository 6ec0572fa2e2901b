"""What onboarding prints of the labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._console import say, warn

if TYPE_CHECKING:
    from ..bids.phenotypes.summary import LabelSummary

_MOST_LINES = 12


def tell_labels(labels: list[LabelSummary]) -> None:
    """Print a line for each label, then what was decided and what looks wrong."""
    from ..bids.phenotypes.summary import told_briefly

    say(f"  labels: {len(labels) or 'none'}")
    for label in labels[:_MOST_LINES]:
        say(f"    {told_briefly(label)}")
    if len(labels) > _MOST_LINES:
        say(f"    and {len(labels) - _MOST_LINES} more: onboarding/labels.tsv")
    told = [f"label {label.name}: {note}" for label in labels for note in label.notes]
    told += [f"label {label.name}: {line}?" for label in labels for line in label.suspicions]
    for line in told[:_MOST_LINES]:
        warn(line.replace("??", "?"))
    if len(told) > _MOST_LINES:
        warn(f"{len(told) - _MOST_LINES} more remarks on labels: onboarding/labels.tsv")
