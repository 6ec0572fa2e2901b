"""What the sections read, of a study folder."""

from __future__ import annotations

from pathlib import Path

from ...config import load_config
from ...layout import Study
from ..gather import gather
from .base import About


def about_study(folder: Path) -> About:
    """Read the study; whatever has not been made yet is missing from it."""
    study = Study(folder.resolve())
    config = load_config(study.path("config"))
    fields = {**config.labels, "run": config.pretrain.run}
    targets = tuple(target.name for target in config.finetune.targets)
    return About(study, config, fields, targets, gather(study, fields, targets, config.name))
