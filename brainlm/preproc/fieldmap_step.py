"""The field of a run and its reference undistorted, from files to files (see `steps.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..config import Config
from ..errors import InputError
from ..images import Image, read_image, write_image
from .distortion import shift_from_field, size_of, unwarp, unwarp_mask
from .fieldless import NOMINAL_READOUT_S, field_from_anatomy
from .measured import field_from_map, mean_volume

#: How many files each kind of field map has.
_FILES = {"fieldmap": (2,), "phasediff": (2,), "phases": (3,), "pepolar": (1, 2)}


def estimate_fieldmap(
    folder: Path,
    config: Config,
    *,
    boldref: str,
    foreground_mask: str,
    kind: str,
    pe_direction: str,
    total_readout_time: float | None = None,
    files: Sequence[str] = (),
    hz_per_unit: float = 1.0,
    echo_gap: float | None = None,
    epi_directions: Sequence[str] = (),
    epi_readout_times: Sequence[float] = (),
    t1w_brain: str | None = None,
) -> dict[str, Any]:
    """The field in Hz on the grid of the reference, the reference and its mask undistorted."""
    reference, mask = read_image(boldref), read_image(foreground_mask)
    brain, zoom = mask.data > 0, config.normalize.resolution_mm
    if kind == "syn":
        if t1w_brain is None:
            raise InputError("kind syn needs t1w_brain", fix="connect it from NormalizeAnat")
        total_readout_time = total_readout_time or NOMINAL_READOUT_S
        field = field_from_anatomy(
            reference,
            brain,
            read_image(t1w_brain),
            direction=pe_direction,
            readout_s=total_readout_time,
            zoom=zoom,
        )
        about: dict[str, Any] = {"Method": "syn"}
    else:
        if total_readout_time is None:
            raise InputError("total_readout_time is missing", fix="it is in the run's JSON")
        field, about = field_from_map(
            kind,
            [mean_volume(read_image(file)) for file in files],
            _parts(kind, len(files), hz_per_unit, echo_gap, epi_directions, epi_readout_times),
            reference,
            brain,
            direction=pe_direction,
            readout_s=total_readout_time,
            zoom=zoom,
            file=files[0],
        )
    shift = shift_from_field(field, pe_direction, total_readout_time)
    made = {
        "fieldmap": folder / "fieldmap.nii.gz",
        "unwarped_boldref": folder / "unwarped_boldref.nii.gz",
        "unwarped_mask": folder / "unwarped_mask.nii.gz",
    }
    write_image(made["fieldmap"], field.data, field.affine)
    write_image(made["unwarped_boldref"], unwarp(reference, shift), reference.affine)
    inside = unwarp_mask(Image(brain.astype(np.float32), mask.affine), shift)
    write_image(made["unwarped_mask"], inside.astype(np.uint8), mask.affine)
    return {
        **{name: str(path) for name, path in made.items()},
        "pe_direction": pe_direction,
        "total_readout_time": total_readout_time,
        "quality": {**about, **size_of(shift, brain)},
    }


def _parts(
    kind: str,
    count: int,
    hz_per_unit: float,
    echo_gap: float | None,
    directions: Sequence[str],
    times: Sequence[float],
) -> list[dict[str, Any]]:
    """What `field_from_map` wants to know of each file."""
    if count not in _FILES[kind]:
        wanted = " or ".join(str(number) for number in _FILES[kind])
        raise InputError(f"A field map of kind {kind} has {wanted} files, not {count}")
    if kind == "pepolar":
        if not len(directions) == len(times) == count:
            raise InputError("epi_directions and epi_readout_times need one value for each EPI")
        return [
            {"Direction": direction, "TotalReadoutTime": time}
            for direction, time in zip(directions, times, strict=True)
        ]
    if kind == "fieldmap":
        return [{"HzPerUnit": hz_per_unit}]
    if echo_gap is None:
        raise InputError("echo_gap is missing", fix="it is EchoTime2 - EchoTime1, in s")
    return [{"EchoGap": echo_gap}] * (count - 1)
