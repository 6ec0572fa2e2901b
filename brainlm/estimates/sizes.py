"""How large a run is, in the numbers that decide what its stages take."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..config import Config

#: The template's brain and the box that its grid fills, mm3.
_BRAIN_MM3, _BOX_MM3 = 1.9e6, 8.8e6
#: Grayordinates of a dense series.
_DENSE = 91_282


@dataclass(frozen=True)
class Size:
    """Of a run; voxel-volumes are in millions (voxels of a volume times volumes)."""

    volumes: int
    raw: float  # voxels of a raw volume, millions
    brain: float  # voxels of the brain on the study's grid, millions
    box: float  # voxels of the whole of that grid, millions
    parcels: int

    @property
    def raw_series(self) -> float:
        """Voxel-volumes of the raw run."""
        return self.raw * self.volumes

    @property
    def brain_series(self) -> float:
        """Voxel-volumes of the normalised brain."""
        return self.brain * self.volumes


def size_of(row: Mapping[str, Any], config: Config, parcels: int) -> Size:
    """The size of a run from its row of the recordings table."""
    raw = math.prod(json.loads(row["shape"])) / 1e6 if row["shape"] else 0.0
    voxel = config.space.resolution_mm**3
    brain, box = _BRAIN_MM3 / voxel / 1e6, _BOX_MM3 / voxel / 1e6
    if row["kind"] == "dense":
        brain = box = _DENSE / 1e6
    return Size(row["n_volumes"] or 0, raw, brain, box, parcels)
