"""Event files for TensorBoard, in the folder `tensorboard` beside the checkpoints."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .notes import Notes

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """Event files. What was written of steps that are done anew is taken back."""

    name = "TensorBoard"

    def __init__(self, folder: Path, notes: Notes):
        """Event files in `folder`."""
        self._folder, self._notes = folder, notes
        self._writer: SummaryWriter | None = None

    def start(self, step: int) -> int:
        """Begin a new file, which says from which step on the older ones do not count."""
        from torch.utils.tensorboard import SummaryWriter

        old = self._folder.exists()  # else somebody deleted it, and all is told anew
        had = min(self._notes.of(self.name).get("told", 0), step - 1) if old else 0
        self._writer = SummaryWriter(str(self._folder), purge_step=had + 1 if old else None)
        return had

    def values(self, step: int, values: Mapping[str, float]) -> None:
        """Scalars."""
        for name, value in values.items():
            self._open.add_scalar(name, value, step)

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Images."""
        from PIL import Image

        pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
        self._open.add_image(f"figures/{name}", pixels, step, dataformats="HWC")

    def flush(self, told: int) -> None:
        """Write it to the disk, and remember up to where."""
        self._open.flush()
        self._notes.note(self.name, told=told)

    def close(self, told: int) -> None:
        """The file is whole."""
        self.flush(told)
        self._open.close()

    @property
    def _open(self) -> SummaryWriter:
        assert self._writer is not None
        return self._writer
