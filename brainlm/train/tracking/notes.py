"""What trackers must remember from one start of a training to the next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...files import write_json


class Notes:
    """tracking.json beside the checkpoints: the runs' names at the trackers, how far they are."""

    def __init__(self, folder: Path):
        """Beside the checkpoints in `folder`."""
        self._path = folder / "tracking.json"

    def of(self, tracker: str) -> dict[str, Any]:
        """What a tracker noted; nothing if that cannot be read."""
        try:
            return dict(json.loads(self._path.read_text(encoding="utf-8"))[tracker])
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def note(self, tracker: str, **values: Any) -> None:
        """Remember values."""
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            content = {}
        write_json(self._path, {**content, tracker: {**content.get(tracker, {}), **values}})
