"""The page of one recording: what a person looks at before trusting it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..reproducibility.base import render
from ..style import png_uri
from .components import HEIGHT, SHOWN, WIDTH, thresholds
from .cuts import Cuts, color_table, grey_png, indexed_png, outline, scaled

Map = NDArray[np.floating]
Mask = NDArray[np.bool_]

_LEVELS = 33
_EDGE, _MASK = (230, 120, 20), (60, 180, 235)  # template's white matter; voxels that were used
_UNCOVERED = (213, 94, 0)
_NAMED = 60  # parcels without a series that are named
_R = 0.8  # the connectivity matrix' colours end here


@dataclass(frozen=True)
class Volumes:
    """What is shown on slices, all on the template's grid, (x, y, z)."""

    cuts: Cuts
    template: Map  # T1w
    white: Mask  # white matter of the template
    boldref: Map
    mask: Mask  # voxels that were used
    atlas: NDArray[np.integer]  # label numbers
    snr: dict[str, Map] = field(default_factory=dict)  # title -> temporal signal-to-noise ratio

    def registration(self) -> dict[str, str]:
        """Reference volume, template, and two overlays of the same size."""
        lay, high = self.cuts.lay_out, float(np.quantile(self.boldref[self.mask], 0.99))
        edges = outline(lay(self.white, outside=False))
        rim = outline(lay(self.mask, outside=False))
        return {
            "bold": png_uri(grey_png(lay(self.boldref), high or 1)),
            "template": png_uri(grey_png(lay(self.template), float(self.template.max()) or 1)),
            "edges": _overlay(edges, _EDGE),
            "mask": _overlay(rim, _MASK),
        }

    def snr_maps(self) -> list[dict[str, Any]]:
        """One map for each title, with the number at which its colours end."""
        found = []
        for title, values in self.snr.items():
            high = float(np.ceil(np.quantile(values[self.mask], 0.98) / 10) * 10) or 10.0
            levels = 1 + scaled(self.cuts.lay_out(values), 0, high, _LEVELS)
            levels[~self.cuts.lay_out(self.mask, outside=False)] = 0
            colors = [(0, 0, 0), *color_table("viridis", _LEVELS)]
            found.append({"title": title, "uri": png_uri(indexed_png(levels, colors)), "to": high})
        return found

    def coverage_map(self, index: NDArray[np.integer], coverage: Map, least: float) -> str:
        """Parcels in the colour of their share of usable voxels; without a series: in one apart."""
        levels = np.zeros(max(int(self.atlas.max()), int(index.max())) + 1, dtype=np.uint8)
        levels[index] = 2 + scaled(coverage, 0, 1, _LEVELS)
        levels[index[~(coverage >= least) | ~(coverage > 0)]] = 1
        colors = [(0, 0, 0), _UNCOVERED, *color_table("viridis", _LEVELS)]
        return png_uri(indexed_png(self.cuts.lay_out(levels[self.atlas]), colors))


@dataclass(frozen=True)
class RecordingPage:
    """All that the page of a recording shows; None or empty: not known of this one."""

    recording_id: str
    figure: bytes  # the PNG of traces and carpets
    numbers: dict[str, Any]  # as the sidecar holds them
    notes: list[str]
    coverage: pd.DataFrame  # index, name, coverage
    min_coverage: float
    atlas: str
    correlations: NDArray[np.float64]  # (parcels, parcels), ordered
    networks: list[tuple[str, int]]  # name and size, in that order
    volumes: Volumes | None = None
    components: list[dict[str, Any]] = field(default_factory=list)
    rule: str = ""  # by which components were judged

    @cached_property
    def absent(self) -> list[str]:
        """Panels that this page does not have, and why."""
        found = []
        if self.volumes is None:
            found.append(
                "Registration, mask and temporal signal-to-noise ratio: the run came as a ready "
                "series, without images."
            )
        elif not self.volumes.snr:
            found.append("Temporal signal-to-noise ratio: the carpet was made without it.")
        if not self.components:
            found.append("Independent components: denoise.method is not aroma.")
        return found

    def render(self) -> str:
        """The page, with all that it needs."""
        value = self.coverage["coverage"].to_numpy(dtype=float)
        uncovered = self.coverage["name"][~(value >= self.min_coverage) | ~(value > 0)].tolist()
        index = self.coverage["index"].to_numpy(dtype=int)
        volumes = self.volumes
        text = render(
            "quality_recording.html.j2",
            page=self,
            figure=png_uri(self.figure),
            numbers=spelled(self.numbers),
            registration=volumes and volumes.registration(),
            heights=volumes.cuts.heights_mm if volumes else [],
            snr=volumes.snr_maps() if volumes else [],
            coverage_map=volumes and volumes.coverage_map(index, value, self.min_coverage),
            uncovered=uncovered[:_NAMED],
            n_uncovered=len(uncovered),
            matrix=png_uri(matrix_png(self.correlations)),
            labels=_labels(self.networks, len(self.correlations)),
            reach=_R,
            rule=self.rule or thresholds(),
            course=(WIDTH, HEIGHT),
            drawn=SHOWN,
        )
        return "\n".join(line.rstrip() for line in text.splitlines() if line.strip()) + "\n"


#: key of the sidecar -> what it is, unit, digits.
NUMBERS: dict[str, tuple[str, str, int]] = {
    "MeanFramewiseDisplacement": ("mean FD", "mm", 3),
    "MaxFramewiseDisplacement": ("largest FD", "mm", 2),
    "OutlierVolumes": ("outlier volumes", "", 0),
    "OutlierShare": ("share of outlier volumes", "", 3),
    "MeanStdDvars": ("mean standardised DVARS", "", 3),
    "TsnrBefore": ("tSNR of grey matter", "", 1),
    "TsnrAfter": ("tSNR after denoising", "", 1),
    "Registration": ("registration (correlation ratio)", "", 3),
    "ParcelsCovered": ("share of parcels covered", "", 3),
    "MaskShare": ("share of the template's brain in the mask", "", 3),
    "Components": ("components", "", 0),
    "ComponentsRemoved": ("components removed", "", 0),
    "VarianceRemoved": ("share of variance removed", "", 3),
    "DegreesOfFreedom": ("degrees of freedom left", "", 0),
    "FreedomLost": ("share of freedom lost", "", 3),
    "Volumes": ("volumes", "", 0),
    "VolumesLeft": ("volumes left by scrubbing", "", 0),
    "Minutes": ("length", "min", 1),
}


def spelled(numbers: dict[str, Any]) -> list[tuple[str, str]]:
    """The numbers in words, in the order of NUMBERS; what is not known is left out."""
    return [
        (name, f"{numbers[key]:.{digits}f} {unit}".strip())
        for key, (name, unit, digits) in NUMBERS.items()
        if numbers.get(key) is not None
    ]


def matrix_png(correlations: NDArray[np.float64]) -> bytes:
    """Correlations in blue and red; what is not known is grey."""
    levels = 1 + scaled(correlations, -_R, _R, _LEVELS)
    levels[~np.isfinite(correlations)] = 0
    return indexed_png(levels, [(190, 190, 190), *color_table("RdBu_r", _LEVELS)])


def _overlay(pixels: Mask, color: tuple[int, int, int]) -> str:
    return png_uri(indexed_png(pixels.astype(np.uint8), [(0, 0, 0), color], transparent=True))


def _labels(networks: list[tuple[str, int]], total: int) -> list[dict[str, Any]]:
    """Where each network lies along the matrix, in per cent."""
    found, start = [], 0
    for name, size in networks:
        found.append(
            {"name": name, "from": 100 * start / total, "middle": 100 * (start + size / 2) / total}
        )
        start += size
    return found
