"""What each denoising method leaves of the noise and the signal that phantoms planted.

`python -m tests.benchmarks.bench_denoising [unseen|quiet|moving] [off]`; `off` leaves slices at
their own times. The tables of docs/denoising.md: `quiet` (10 runs), `moving` (30) and the five runs
`unseen` when the default was chosen, which is what `make bench` does. Minutes each.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from brainlm.cli._phantom_denoising import METHODS
from brainlm.config import Denoise
from brainlm.denoise.components import REJECTED
from brainlm.denoise.design import Design, Noise, make_design
from brainlm.phantom.denoising import (
    agreement,
    left_of,
    neural_error,
    parcel_r,
    planted_causes,
    planted_noise,
    qc_fc,
    split_parcels,
    through,
)
from brainlm.phantom.parameters import Parameters
from tests.unit.true_run import TrueRun, true_runs

_ONE_EACH = {"two_runs": 0, "two_sessions": 0}
#: Name -> what the phantom is, and the grid that it is brought to, mm.
PHANTOMS = {
    "unseen": (Parameters(subjects=5, volumes=200, voxel_mm=3.5, seed=11, **_ONE_EACH), 3.0),
    "quiet": (Parameters(volumes=200, voxel_mm=3.5, seed=1), 3.0),
    "moving": (
        Parameters(subjects=30, volumes=150, voxel_mm=5.0, motion_mm=2.0, seed=3, **_ONE_EACH),
        4.0,
    ),
}
PLANTED = ("motion", "heart", "breath")


def main(name: str = "unseen", slice_timing: bool = True) -> None:
    """Print the shares that are left, pooled over the runs."""
    phantom, zoom = PHANTOMS[name]
    runs = [(run, _components(run)) for run in true_runs(phantom, zoom, slice_timing=slice_timing)]
    mean_fd = np.array([run.confounds["framewise_displacement"].mean() for run, _ in runs])
    parts, filters, called, true, chance = [], [], [], [], []
    for run, noise in runs:
        filters.append(_design(run, noise, {"method": "none"}))
        causes = planted_causes(run.artefacts, run.run, phantom.seed)
        parts.append(split_parcels(run.parcels, run.neural, causes, filters[-1]))
        called.append(noise.rejected)
        true.append(planted_noise(noise.mixing.to_numpy(), run.neural, causes, filters[-1]))
        chance.append(_connectivity(run, through(filters[-1], run.neural)))
    before = _sums([left_of(part, how) for part, how in zip(parts, filters, strict=True)])
    found = agreement(np.concatenate(called), np.concatenate(true))
    print(f"{len(runs)} runs, mean FD {mean_fd.mean():.2f} mm; labels {found}")
    print(f"QC-FC by chance {qc_fc(np.stack(chance), mean_fd):.3f}")
    print(f"{'method':<28}{'neural':>8}{'error':>8}{'three':>8}{'motion':>8}{'r':>8}{'QC-FC':>8}")
    for method, options in METHODS.items():
        ways = [_design(run, noise, options) for run, noise in runs]
        after = _sums([left_of(part, how) for part, how in zip(parts, ways, strict=True)])
        error = sum(map(neural_error, parts, ways, filters)) / before["neural"]
        three = sum(after[kind] for kind in PLANTED) / sum(before[kind] for kind in PLANTED)
        cleaned = zip(runs, ways, filters, strict=True)
        r = np.mean(
            [parcel_r(run.parcels, run.neural, how, none) for (run, _), how, none in cleaned]
        )
        fc = [
            _connectivity(run, through(how, run.parcels))
            for (run, _), how in zip(runs, ways, strict=True)
        ]
        neural, motion = (after[kind] / before[kind] for kind in ("neural", "motion"))
        print(
            f"{method:<28}{neural:>8.1%}{error:>8.1%}{three:>8.1%}{motion:>8.1%}{r:>8.3f}"
            f"{qc_fc(np.stack(fc), mean_fd):>8.3f}",
            flush=True,
        )


def _components(run: TrueRun) -> Noise:
    judged = run.components()
    rejected = (judged.metrics["classification"] == REJECTED).to_numpy()
    return Noise(judged.mixing, rejected, judged.components.converged)


def _design(run: TrueRun, noise: Noise, options: dict) -> Design:
    chosen = {"mean_signals": (), "tissue_components": 0, **options}
    return make_design(
        run.confounds,
        tr=run.run.tr,
        options=Denoise(**chosen).model_dump(mode="json"),
        file=Path(run.run.id),
        components=noise if options["method"] == "aroma" else None,
    )


def _sums(shares: list[dict[str, float]]) -> dict[str, float]:
    return {kind: sum(share[kind] for share in shares) for kind in shares[0]}


def _connectivity(run: TrueRun, series: np.ndarray) -> np.ndarray:
    """Correlations of all pairs of the atlas' parcels, NaN for those that the run lacks."""
    full = np.full((424, 424), np.nan)
    full[np.ix_(run.shown, run.shown)] = np.corrcoef(series.T)
    return full[np.triu_indices(424, 1)]


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "off"]
    main(*words, slice_timing="off" not in sys.argv)
