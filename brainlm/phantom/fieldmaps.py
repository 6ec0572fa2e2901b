"""Field maps as a scanner would take them: a phase difference, or two EPIs of opposite direction.

They are taken in a scan of their own, before which the head moved a little. Both show the same
field as the BOLD runs, through their own noise, wraps and distortions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates, spline_filter

from ..files import write_json
from ..geometry import Array
from ..images import write_image
from .anatomy import (
    BRAIN_CENTER,
    Head,
    centered_grid,
    draw_reposition,
    grid_points,
    sample,
    shell,
    smooth_bias,
    template_maps,
)
from .distortion import READOUT_S, Field, field_on, origin_of, phase_encoding, shift_of
from .parameters import Parameters, Run, Session, stream
from .scene import BASELINE, DROPOUTS, FOV, bold_grid

Floats = NDArray[np.float32]

ECHO_TIMES = (0.00492, 0.00738)  # s, as on 3 T scanners
_GRE_MM, _GRE_SHARE = 3.0, 0.75  # its voxels: at least so large, and that share of the EPI's
_GRE_CONTRAST = {"GM": 0.9, "WM": 0.75, "CSF": 1.0}
_SPIN_ECHO_CONTRAST = {"GM": 0.8, "WM": 0.6, "CSF": 1.4}
_NOISE = 0.015  # SD, as a share of the baseline
_KEPT_BY_SPIN_ECHO = 0.4  # share of the gradient echo's signal loss that a spin echo still has


def field_map_kind(parameters: Parameters, session: Session) -> str | None:
    """What a subject's field map is made of: the kinds take turns unless one is asked for."""
    if not parameters.distortion_mm or parameters.fieldmaps == "none":
        return None
    if parameters.fieldmaps != "alternate":
        return parameters.fieldmaps
    return "phasediff" if int(session.subject) % 2 else "pepolar"


def write_field_map(
    folder: Path,
    session: Session,
    runs: list[Run],
    head: Head,
    field: Field,
    parameters: Parameters,
) -> None:
    """Take the field map of a session that serves `runs`; `head` lies as for the T1w."""
    kind = field_map_kind(parameters, session)
    rng = stream(parameters.seed, session.id, "field map")
    lying = head.moved(draw_reposition(1, 1, rng))
    path = f"ses-{session.session}/func" if session.session else "func"
    serves = [f"{path}/{run.id}_bold.nii.gz" for run in runs]
    if kind == "phasediff":
        _write_phase_difference(folder, session, serves, lying, field, parameters, rng)
    else:
        _write_opposite_epis(folder, session, serves, lying, field, parameters, rng)


def write_field_truth(folder: Path, run: Run, field: Floats, affine: Array) -> None:
    """The true field (x, y, z) in Hz on the BOLD grid of a run."""
    path = folder / f"{run.id}_desc-truth_fieldmap"
    write_image(f"{path}.nii.gz", field, affine)
    write_json(
        Path(f"{path}.json"),
        {
            "Description": "Off-resonance at the true place of each voxel of the BOLD grid, with "
            "the head as at the first volume. Positive values move signal along +j where "
            "PhaseEncodingDirection is j, along -j where it is j-.",
            "Units": "Hz",
            "PhaseEncodingDirection": phase_encoding(run.session.site),
            "TotalReadoutTime": READOUT_S,
        },
    )


def identifier(session: Session) -> str:
    """The B0FieldIdentifier of a session's pair of EPIs."""
    return f"pepolar_{session.id.replace('-', '')}"


def _write_phase_difference(
    folder: Path,
    session: Session,
    serves: list[str],
    head: Head,
    field: Field,
    parameters: Parameters,
    rng: np.random.Generator,
) -> None:
    """Magnitude and wrapped phase difference of a gradient echo, in a Siemens scanner's units."""
    zoom = max(_GRE_MM, _GRE_SHARE * parameters.voxel_mm)
    affine, shape = centered_grid(FOV, zoom, BRAIN_CENTER)
    rng_bias = stream(0, "coil", "fieldmap", str(session.site))
    shown = _tissue(head, affine, shape, _GRE_CONTRAST, 0.15, parameters.skull)
    shown *= smooth_bias(shape, 0.08, rng_bias)
    step = ECHO_TIMES[1] - ECHO_TIMES[0]
    # The two echoes' frequency of reference is the scanner's affair: a constant, unknown phase.
    phase = 2 * np.pi * step * field_on(field, head, affine, shape) + rng.uniform(-np.pi, np.pi)
    noise = _NOISE * rng.standard_normal((2, 2, *shape))
    first = shown + noise[0, 0] + 1j * noise[0, 1]
    second = shown * np.exp(1j * phase) + noise[1, 0] + 1j * noise[1, 1]
    wrapped = np.angle(second * first.conj())  # -pi to pi
    scaled = np.clip(np.rint((wrapped + np.pi) / (2 * np.pi) * 4096), 0, 4095)
    stem = folder / session.id
    about = {"IntendedFor": [f"bids::sub-{session.subject}/{path}" for path in serves]}
    for name, data, times in (
        ("magnitude1", np.abs(first) * BASELINE, {"EchoTime": ECHO_TIMES[0]}),
        ("phasediff", scaled, {"EchoTime1": ECHO_TIMES[0], "EchoTime2": ECHO_TIMES[1]}),
    ):
        write_image(f"{stem}_{name}.nii.gz", np.rint(data).astype(np.int16), affine)
        write_json(Path(f"{stem}_{name}.json"), {**about, **times})


def _write_opposite_epis(
    folder: Path,
    session: Session,
    serves: list[str],
    head: Head,
    field: Field,
    parameters: Parameters,
    rng: np.random.Generator,
) -> None:
    """Two spin-echo EPIs of opposite phase encoding; the head moves a little between them."""
    affine, shape = bold_grid(session.site, parameters.voxel_mm)
    gain = smooth_bias(shape, 0.08, stream(0, "coil", str(session.site)))
    for name, direction in (("AP", "j-"), ("PA", "j")):
        lying = head if name == "AP" else head.moved(draw_reposition(0.4, 0.3, rng))
        shown = _tissue(
            lying, affine, shape, _SPIN_ECHO_CONTRAST, _KEPT_BY_SPIN_ECHO, parameters.skull
        )
        shown = gaussian_filter(shown, 0.42) * gain
        shift = shift_of(field_on(field, lying, affine, shape), direction)
        voxels = grid_points(shape).T
        origin, factor = origin_of(voxels, np.eye(4), shift)
        moved = map_coordinates(spline_filter(shown, order=3), origin, order=3, prefilter=False)
        noise = _NOISE * rng.standard_normal((2, *shape))
        measured = np.hypot((moved * factor).reshape(shape) + noise[0], noise[1]) * BASELINE
        about: dict[str, Any] = {
            "PhaseEncodingDirection": direction,
            "TotalReadoutTime": READOUT_S,
            "PulseSequenceType": "Spin Echo EPI",
            "B0FieldIdentifier": identifier(session),
            "IntendedFor": serves,
        }
        stem = f"{session.id}_dir-{name}_epi"
        data = np.clip(np.rint(measured), 0, 32767).astype(np.int16)
        write_image(folder / f"{stem}.nii.gz", data, affine)
        write_json(folder / f"{stem}.json", about)


def _tissue(
    head: Head,
    affine: Array,
    shape: tuple[int, int, int],
    contrast: dict[str, float],
    loss: float,
    skull: bool,
) -> Floats:
    """The head (x, y, z) in a contrast, about 1; `loss` scales the signal loss beside air.

    Voxels of more than 3 mm are averaged over eight points.
    """
    maps = template_maps()
    zoom = float(np.linalg.norm(affine[:3, 0]))
    fine = 2 if zoom > 3 else 1
    voxels = grid_points(shape)
    near = np.flatnonzero(head.near(voxels @ affine[:3, :3].T + affine[:3, 3]))
    shown = np.zeros(len(voxels), dtype=np.float32)
    for offset in grid_points((fine,) * 3):
        place = voxels[near] + (offset + 0.5) / fine - 0.5
        points = head.to_template(place @ affine[:3, :3].T + affine[:3, 3])
        values = sum(weight * sample(maps[name], points) for name, weight in contrast.items())
        for center, sd, lost in DROPOUTS:
            distance = ((points - np.array(center)) ** 2).sum(axis=1)
            values = values * (1 - loss * lost * np.exp(-distance / (2 * sd**2)))
        shown[near] += values / fine**3
    image = shown.reshape(shape)
    return image + 0.25 * shell(image > 0.2, zoom) if skull else image
