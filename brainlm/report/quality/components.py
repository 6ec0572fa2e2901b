"""Components of a run as its page shows them: class, reason, features, map, course, spectrum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...denoise.aroma import CSF_THRESHOLD, FREQUENCY_THRESHOLD, motion_side
from ..style import png_uri
from .cuts import Cuts, color_table, indexed_png, scaled

#: Most components with a picture; the others are in the table alone.
SHOWN = 60
WIDTH, HEIGHT = 300, 46  # of a course, in units of its drawing
_POINTS = 300
_GREYS, _COLORS = 48, 33
_FEATURES = ("edge_fract", "csf_fract", "max_RP_corr", "HFC", "variance_explained")
_STEP_MM = 4.0


def thresholds() -> str:
    """The rule of ICA-AROMA in words."""
    return (
        f"Noise by ICA-AROMA: csf_fract above {CSF_THRESHOLD:g}, HFC above "
        f"{FREQUENCY_THRESHOLD:g}, or max_RP_corr and edge_fract on the noise side of its plane "
        "(column plane above 0)."
    )


def component_rows(
    metrics: pd.DataFrame,
    rejected: NDArray[np.bool_],
    mixing: pd.DataFrame,
    maps: Iterable[NDArray[np.float32]],
    background: NDArray[np.floating],
    cuts: Cuts,
    tr: float,
) -> list[dict[str, Any]]:
    """What the page prints of each component (a row of `metrics`).

    `rejected` (k,) is what denoising followed: a person may have overruled the table. `maps` are
    volumes (x, y, z) on the grid of `background`; only the first SHOWN are taken.
    """
    step = max(1, round(_STEP_MM / float(np.linalg.norm(cuts.affine[:3, 0]))))
    under = cuts.axial_strip(background, step)
    plane = motion_side(metrics) if {"max_RP_corr", "edge_fract"} <= set(metrics) else None
    volumes = iter(maps)
    rows = []
    for number, (row, out) in enumerate(zip(metrics.to_dict("records"), rejected, strict=True)):
        said = str(row.get("classification", "")) == "rejected"
        reason = row.get("rationale", "")
        course = mixing[row["component"]].to_numpy(dtype=float)
        shown = number < SHOWN
        volume = next(volumes, None) if shown else None
        rows.append(
            {
                "name": row["component"],
                "noise": bool(out),
                "overruled": said != bool(out),
                "reason": reason if isinstance(reason, str) else "",
                "features": [_number(row.get(name)) for name in _FEATURES],
                "plane": "" if plane is None else _number(plane.iloc[number]),
                "map": "" if volume is None else _map(cuts.axial_strip(volume, step), under),
                "course": polyline(course) if shown else "",
                "spectrum": polyline(_spectrum(course)) if shown else "",
            }
        )
    return rows


def polyline(values: NDArray[np.floating]) -> str:
    """Points of an SVG line through the numbers, over the whole of WIDTH and HEIGHT."""
    if len(values) > _POINTS:  # of each block its largest, so that spikes stay
        blocks = np.array_split(values, _POINTS)
        values = np.array([block[np.abs(block).argmax()] for block in blocks])
    low, high = float(values.min()), float(values.max())
    x = np.linspace(0, WIDTH, len(values))
    y = HEIGHT - 1 - (values - low) / ((high - low) or 1) * (HEIGHT - 2)
    return " ".join(f"{a:.0f},{b:.1f}" for a, b in zip(x, y, strict=True))


def _spectrum(course: NDArray[np.floating]) -> NDArray[np.float64]:
    """Power from 0 to the Nyquist frequency, the first value (the mean) left out."""
    power = np.abs(np.fft.rfft(course - course.mean())) ** 2
    return np.asarray(power[1:], dtype=np.float64)


def _map(values: NDArray, under: NDArray) -> str:
    """Active voxels in blue and red over the template in grey."""
    high = float(np.quantile(under, 0.995)) or 1.0
    levels = scaled(under, 0, high, _GREYS)
    most = float(np.abs(values).max())
    if most:
        hot = values != 0
        levels[hot] = _GREYS + scaled(values[hot], -most, most, _COLORS)
    greys = [(4 * n, 4 * n, 4 * n) for n in range(_GREYS)]
    return png_uri(indexed_png(levels, greys + color_table("seismic", _COLORS)))


def _number(value: Any) -> str:
    return "" if value is None or pd.isna(value) else f"{float(value):.3g}"
