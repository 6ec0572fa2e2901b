"""The scanner: from parcel signals and a head to a measured BOLD series.

Each volume is built in the frame of the head at the first volume and resampled once with
the head's pose by cubic spline, `V(x) = R(inv(M) x)`; then what belongs to the scanner
(spikes, lost slices, thermal noise) is added. Where the phantom has distortion, the same
interpolation also looks where each voxel's signal truly comes from. Not simulated: motion within
a volume.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter, map_coordinates, spline_filter

from ..geometry import Array, grid_center
from ..images import Image
from . import motion, physiology
from .anatomy import smooth_bias
from .cycles import breathing
from .distortion import origin_of
from .network import Latent
from .parameters import Parameters, Run, stream
from .scene import BASELINE, Scene, slice_times

Floats = NDArray[np.float32]

#: Sizes at `--noise 1`, in % of the baseline: SDs, and the amplitudes of heart (where it shows
#: most) and breath (in the middle of the brain); `breath_shift` is in % of a voxel.
NOISE = {
    "thermal": 0.9,
    "coloured": 0.35,
    "drift": 0.8,
    "cardiac": 4.0,
    "respiratory": 0.5,
    "breath_shift": 5.0,
    "edge": 1.5,
}
_COLOUR_MM, _COLOUR_MEMORY = 4.0, 0.4  # SD of its blur; correlation of successive volumes
_SPIN_PERCENT = -3.0  # change per mm of through-plane movement, at the head's edge


@dataclass(frozen=True)
class Measured:
    """A run as measured, with its truth."""

    bold: Image  # int16 (x, y, z, volumes)
    slice_times: list[float]  # s
    params: Array  # (volumes, 6) pose of the head
    timeseries: Floats  # (volumes, parcels) at the middle of each volume, % of baseline
    artefacts: pd.DataFrame  # (volumes,) courses


def scan(
    scene: Scene, latent: Latent, run: Run, parameters: Parameters, shift: Floats | None = None
) -> Measured:
    """Measure one run of the head in `scene` with the parcel signals `latent`.

    `shift` (x, y, z) is the distortion along +j in voxels, of the head at the first volume.
    """
    seed = parameters.seed
    pulse, breath = rhythms(run, seed)
    drifts = physiology.draw_drifts(run.volumes, stream(seed, run.id, "drift"))
    starts = np.arange(run.volumes, dtype=np.float64) * run.tr
    middles = starts + run.tr / 2
    params = motion.draw_motion(
        run.volumes,
        run.tr,
        parameters.motion_mm,
        breath.at(middles),
        stream(seed, run.id, "motion"),
    )
    memory = motion.spin_history(params, run.tr)
    artefacts = physiology.draw_artefacts(
        params, scene.shape[2], parameters.artefacts, stream(seed, run.id, "artefacts")
    )
    times, _ = slice_times(scene.shape[2], run.tr, run.session.site)

    series = _head_series(scene, latent, pulse, breath, starts, times, parameters.noise)
    base = scene.baseline.ravel()[scene.voxels]
    maps = _drift_maps(scene, stream(seed, run.id, "drift maps"))
    series += (parameters.noise * NOISE["drift"] / 100) * drifts.astype(np.float32) @ (maps * base)
    at_edge = NOISE["edge"] * artefacts.edge + _SPIN_PERCENT * memory
    series += np.outer(at_edge / 100, scene.edge * base).astype(np.float32)

    bold = _measure(
        scene, series, params, artefacts, parameters.noise, stream(seed, run.id, "noise"), shift
    )
    truth = pd.DataFrame(
        {
            "cardiac": pulse.at(middles),
            "respiratory": breath.at(middles),
            **{f"drift_{k + 1}": drifts[:, k] for k in range(drifts.shape[1])},
            "spin_history_mm": memory,
            "edge": artefacts.edge,
            "spike_percent": artefacts.spikes[:, 0],
            "slice_dropout": artefacts.dropouts.max(axis=1),
        }
    )
    return Measured(Image(bold, scene.affine), times, params, latent.at(middles), truth)


def rhythms(run: Run, seed: int) -> tuple[physiology.Rhythm, physiology.Rhythm]:
    """The pulse and the breath of a run."""
    seconds = run.volumes * run.tr
    pulse = physiology.draw_rhythm(seconds, 0.9, 1.3, 0.4, stream(seed, run.id, "cardiac"))
    breath = physiology.draw_rhythm(seconds, 0.22, 0.34, 0.1, stream(seed, run.id, "breath"))
    return pulse, breath


def _head_series(
    scene: Scene,
    latent: Latent,
    pulse: physiology.Rhythm,
    breath: physiology.Rhythm,
    starts: Array,
    times: list[float],
    noise: float,
) -> Floats:
    """Signal (volumes, head voxels) in the head's frame, each slice at its own time."""
    base = scene.baseline.ravel()[scene.voxels]
    shift, shade = (noise * NOISE[name] / 100 for name in ("breath_shift", "respiratory"))
    inhaled = breathing(scene.baseline, scene.height, shift, shade).ravel()[scene.voxels]
    depth = scene.voxels % scene.shape[2]
    series = np.empty((len(starts), len(base)), dtype=np.float32)
    for k, delay in enumerate(times):
        here = np.flatnonzero(depth == k)
        if not len(here):
            continue
        when = starts + delay
        change = latent.at(when) @ scene.mixing[here].T
        change += np.outer(noise * NOISE["cardiac"] * pulse.at(when), scene.vessels[here])
        series[:, here] = base[here] * (1 + change / 100) + np.outer(breath.at(when), inhaled[here])
    return series


def _measure(
    scene: Scene,
    series: Floats,
    params: Array,
    artefacts: physiology.Artefacts,
    noise: float,
    rng: np.random.Generator,
    shift: Floats | None,
) -> NDArray[np.int16]:
    """Resample each volume with the head's pose, then add what belongs to the scanner."""
    volumes, shape = len(params), scene.shape
    level = noise * scene.baseline[scene.baseline > 0.3 * scene.baseline.max()].mean() / 100
    zoom = float(np.linalg.norm(scene.affine[:3, 0]))
    head = np.zeros(shape, dtype=bool)
    head.ravel()[scene.voxels] = True
    reach = 2 + int(np.ceil(np.abs(params * [1, 1, 1, 100, 100, 100]).max() / zoom))
    if shift is not None:
        reach += int(np.ceil(np.abs(shift[head]).max()))
    targets = np.argwhere(binary_dilation(head, iterations=reach)).astype(float)
    where = tuple(targets.T.astype(int))
    to_voxel = np.linalg.inv(scene.affine)
    colour = _Colour(shape, _COLOUR_MM / zoom, rng)
    measured = np.empty((*shape, volumes), dtype=np.int16)
    full = np.zeros(shape, dtype=np.float32)
    for t, pose in enumerate(motion.poses(params, grid_center(shape, scene.affine))):
        still = np.zeros(shape, dtype=np.float32)
        still.ravel()[scene.voxels] = series[t]
        if noise:
            still += (level * NOISE["coloured"]) * colour.next() * head
        pull = to_voxel @ np.linalg.inv(pose) @ scene.affine
        source, density = targets.T, np.ones(1)
        if shift is not None:
            source, density = origin_of(targets.T, pull, shift)
        place = pull[:3, :3] @ source + pull[:3, 3:]
        full[where] = density * map_coordinates(
            spline_filter(still, order=3, output=np.float32), place, order=3, prefilter=False
        )
        volume = full * (1 - artefacts.dropouts[t])
        size, depth, waves_x, waves_y = artefacts.spikes[t]
        if size:
            volume[:, :, int(depth)] += _stripes(shape, waves_x, waves_y) * size * BASELINE / 100
        thermal = rng.standard_normal((2, *shape), dtype=np.float32) * (level * NOISE["thermal"])
        magnitude = np.hypot(volume + thermal[0], thermal[1])
        measured[..., t] = np.clip(np.rint(magnitude), 0, 32767)
    return measured


class _Colour:
    """Noise that is smooth in space and remembers the volume before; SD 1."""

    def __init__(self, shape: tuple[int, ...], sigma: float, rng: np.random.Generator):
        self._shape, self._sigma, self._rng = shape, sigma, rng
        self._scale = 1 / max(self._fresh(1.0).std(), 1e-9)
        self._now = self._fresh(self._scale)

    def _fresh(self, scale: float) -> Floats:
        noise = self._rng.standard_normal(self._shape, dtype=np.float32)
        return np.asarray(gaussian_filter(noise, self._sigma, mode="wrap", truncate=2.5) * scale)

    def next(self) -> Floats:
        fresh = np.float32(np.sqrt(1 - _COLOUR_MEMORY**2)) * self._fresh(self._scale)
        self._now = np.float32(_COLOUR_MEMORY) * self._now + fresh
        return self._now


def _drift_maps(scene: Scene, rng: np.random.Generator) -> Floats:
    """Where the three drifts show (3, head voxels): smooth, with both signs."""
    maps = [np.log(smooth_bias(scene.shape, 1.0, rng)).ravel()[scene.voxels] for _ in range(3)]
    return np.stack(maps).astype(np.float32)


def _stripes(shape: tuple[int, ...], waves_x: float, waves_y: float) -> Floats:
    """What one wrong point of k-space adds to a slice (x, y): a plane wave."""
    x, y = np.meshgrid(
        np.arange(shape[0]) / shape[0], np.arange(shape[1]) / shape[1], indexing="ij"
    )
    return np.cos(2 * np.pi * (waves_x * x + waves_y * y)).astype(np.float32)
