"""A run on Weights & Biases, or the files of one (offline).

Online, the run goes on under its old name and its server says how far it is: what was told there
cannot be taken back, so steps that are done anew are not told anew (they give the same numbers).
Offline, nobody can be asked, and of several files with one name `wandb sync` keeps the last: so
each start tells everything from the first step on, and the newest file is whole.
"""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .notes import Notes

#: Nothing is sent but what this package logs: no host, hardware, code, packages or console.
_SILENT = {
    "console": "off",
    "host": "",
    "silent": True,
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "save_code": False,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
    "login_timeout": 30.0,
}


class WandbRun:
    """A run of `project`."""

    name = "W&B"

    def __init__(
        self,
        project: str,
        run_name: str,
        about: Mapping[str, Any],
        folder: Path,
        notes: Notes,
        *,
        offline: bool,
    ):
        """Its files go below `folder`; `about` are the options of the training."""
        self._project, self._run_name, self._about = project, run_name, dict(about)
        self._folder, self._notes, self._offline = folder, notes, offline
        self._run: Any = None

    def start(self, step: int) -> int:
        """Take the run up, or begin it."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        known = self._notes.of(self.name).get("id")
        name = known or secrets.token_hex(8)
        self._notes.note(self.name, id=name, project=self._project)
        can = wandb.Settings.model_fields
        wanted = {key: value for key, value in _SILENT.items() if key in can}
        self._run = wandb.init(
            project=self._project,
            id=name,
            name=self._run_name,
            config=self._about,
            dir=str(self._folder),
            resume="allow",
            mode="offline" if self._offline else None,
            settings=wandb.Settings(**wanted),
        )
        return int(self._run.step) - 1 if self._run.resumed else 0

    def values(self, step: int, values: Mapping[str, float]) -> None:
        """Log them."""
        self._run.log(dict(values), step=step)

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Log an image."""
        import wandb
        from PIL import Image

        self._run.log({f"figures/{name}": wandb.Image(Image.open(io.BytesIO(png)))}, step=step)

    def flush(self, told: int) -> None:
        """It sees to that itself."""

    def close(self, told: int) -> None:
        """Send what is left."""
        self._run.finish()
