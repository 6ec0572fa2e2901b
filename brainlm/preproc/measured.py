"""The field of a run from what the scanner measured, whichever of the four kinds it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..images import Image
from .distortion import axis_and_sign
from .fieldmap import (
    Mask,
    bring_to_boldref,
    field_from_phase,
    field_in_head,
    onto_boldref,
    phase_in_radians,
)
from .pepolar import field_from_opposite


def field_from_map(
    kind: str,
    images: Sequence[Image],
    parts: Sequence[Mapping[str, Any]],
    boldref: Image,
    brain: Mask,
    *,
    direction: str,
    readout_s: float,
    zoom: float,
    file: str | Path,
) -> tuple[Image, dict[str, Any]]:
    """The field (Hz) on the grid of a run's reference, and what a sidecar says of it.

    `kind` is fieldmap, phasediff, phases or pepolar. `images` are 3-D: for the first three the
    field or the phases, the magnitude last; for pepolar one or two EPIs. `parts` tells of them, in
    the same order: HzPerUnit of a field, EchoGap (s) of phases, Direction and TotalReadoutTime of
    an EPI. `direction` and `readout_s` are the run's; `file` is named if the images do not fit.
    """
    about: dict[str, Any] = {
        "Method": kind,
        "PhaseEncodingDirection": direction,
        "TotalReadoutTime": readout_s,
    }
    if kind == "pepolar":
        sides = [
            (image, part["Direction"], part["TotalReadoutTime"])
            for image, part in zip(images, parts, strict=True)
        ]
        alone = len(sides) == 1
        if alone:
            sides.insert(0, (boldref, direction, readout_s))
        rates = [axis_and_sign(side)[1] * time for _, side, time in sides]
        axis, _ = axis_and_sign(direction)
        found = field_from_opposite(sides[0][0], sides[1][0], axis, (rates[0], rates[1]))
        about |= {
            "CorrelationOfEPIs": round(found.correlation_before, 4),
            "CorrelationUndistorted": round(found.correlation, 4),
        }
        field, shown = found.field, found.undistorted
        if alone:
            return onto_boldref(field, boldref, brain), about
    else:
        field, shown = _measured(kind, images, parts, file)
    placed = bring_to_boldref(
        field, shown, boldref, brain, direction=direction, readout_s=readout_s, zoom=zoom
    )
    return placed, about


def mean_volume(image: Image) -> Image:
    """An image with one volume: of several, their mean."""
    data = image.data.mean(axis=3) if image.data.ndim == 4 else image.data
    return Image(data, image.affine)


def _measured(
    kind: str, images: Sequence[Image], parts: Sequence[Mapping[str, Any]], file: str | Path
) -> tuple[Image, Image]:
    """The field in Hz and the magnitude, of a field map that measured phases or the field."""
    *measured, magnitude = images
    for part in measured:
        if part.data.shape != magnitude.data.shape:
            raise DataError(
                f"Phase and magnitude have other grids: {part.data.shape}, {magnitude.data.shape}",
                file=file,
                fix="convert them anew, or take the field map out of fmap/ and onboard again: the "
                "run is then used without",
            )
    if kind == "fieldmap":
        field = field_in_head(measured[0].data * parts[0]["HzPerUnit"], magnitude)
    else:
        phases = [phase_in_radians(part.data, str(file)) for part in measured]
        phase = phases[1] - phases[0] if len(phases) == 2 else phases[0]
        field = field_from_phase(phase, magnitude, parts[0]["EchoGap"])
    return Image(field, magnitude.affine), magnitude
