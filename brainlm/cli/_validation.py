"""What onboarding makes of `--validate`: the public validator's verdict, told and kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ._console import say

if TYPE_CHECKING:
    from ..config import Config

_TIMEOUT_S = 3600
_SHOWN = 5


def check_validation(asked: bool, config: Config) -> None:
    """Refuse `--validate` where it cannot be done, before anything else is."""
    if not asked:
        return
    from ..bids.validator import find_validator, not_installed
    from ..errors import InputError

    if config.engine == "derivatives":
        raise InputError(
            "--validate is for raw BIDS: the validator does not know what pipelines leave",
            fix="leave --validate out",
        )
    if find_validator() is None:
        raise not_installed()


def tell_validation(bids_dir: Path, place: Path) -> None:
    """Run the validator, write what it found to `place` and say it in a few lines."""
    from ..bids.validator import validate
    from ..files import write_json

    verdict = validate(bids_dir, _TIMEOUT_S)
    write_json(place, verdict.content())
    errors, warnings = verdict.of("error"), verdict.of("warning")
    say(f"  {verdict.validator}: {len(errors)} kinds of errors, {len(warnings)} of warnings")
    for finding in errors[:_SHOWN]:
        say(f"    error {finding}")
    for finding in warnings[: max(0, _SHOWN - len(errors))]:
        say(f"    warning {finding}")
    if len(errors) + len(warnings) > _SHOWN:
        say("    all of them: onboarding/bids-validator.json")
