"""What `brainlm phantom-check --denoising` adds: every method of denoising against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._console import say

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..denoise.design import Design, Noise
    from ..phantom.parameters import Parameters, Run
    from ._stage import StageRun

_TISSUES: dict[str, Any] = {"mean_signals": ["white_matter", "csf"], "tissue_components": 2}
#: What the table calls each method -> the `denoise` options that it is.
METHODS: dict[str, dict[str, Any]] = {
    "none": {"method": "none"},
    "tissues": {"method": "none", **_TISSUES},
    "motion6": {"method": "motion6"},
    "motion24": {"method": "motion24"},
    "36p": {"method": "36p"},
    "acompcor": {"method": "acompcor"},
    "aroma, non-aggressive": {"method": "aroma", "aroma": "nonaggressive"},
    "aroma, orthogonal": {"method": "aroma", "aroma": "orthogonal"},
    "aroma, aggressive": {"method": "aroma", "aroma": "aggressive"},
    "aroma, non-aggr., tissues": {"method": "aroma", "aroma": "nonaggressive", **_TISSUES},
    "aroma, orthogonal, tissues": {"method": "aroma", "aroma": "orthogonal", **_TISSUES},
    "aroma, aggressive, tissues": {"method": "aroma", "aroma": "aggressive", **_TISSUES},
}
_NEEDED = ("preproc_bold", "mni_mask", "confounds", "ica_mixing", "aroma_metrics")


def compare_methods(run: StageRun, parameters: Parameters, faulty: set[str]) -> dict[str, Any]:
    """Every method of `METHODS` on the sound runs of a phantom that have what it takes, pooled."""
    import numpy as np

    from ..errors import InputError
    from ..phantom.denoising import qc_fc
    from ..phantom.parameters import plan_runs

    scans = [scan for scan in plan_runs(parameters) if scan.id not in faulty and _whole(run, scan)]
    if not scans:
        raise InputError(
            "No recording of this study has both its normalised series and its components",
            file=run.study.root,
            fix="run the workflow with keep_intermediates: true and denoise.method: aroma",
        )
    found = {scan.id: _one_run(run, scan, parameters.seed) for scan in scans}
    mean_fd = np.array([one["mean_fd_mm"] for one in found.values()])
    table = {}
    for method in METHODS:
        rows = [one["methods"][method] for one in found.values()]
        filtered = [one["methods"]["none"] for one in found.values()]
        total = sum(one["variance"] for one in found.values())
        sums = {part: sum(row["left"][part] for row in rows) for part in rows[0]["left"]}
        before = {part: sum(row["left"][part] for row in filtered) for part in sums}
        done = sum(row["neural_error"] for row in rows)
        table[method] = {
            "neural_error": _ratio(done, before["neural"]),
            "share": {part: round(left / total, 4) for part, left in sums.items()},
            "kept": {part: _ratio(left, before[part]) for part, left in sums.items()},
            "parcel_r": round(float(np.mean([row["parcel_r"] for row in rows])), 4),
            "freedom": round(float(np.mean([row["freedom"] for row in rows])), 1),
            "qc_fc": None
            if len(rows) < 3
            else round(qc_fc(np.stack([row["connectivity"] for row in rows]), mean_fd), 4),
        }
    called, true = (
        np.concatenate([one[key] for one in found.values()]) for key in ("called", "planted")
    )
    return {"methods": table, "components": _agreement(called, true), "n": len(found)}


def _whole(run: StageRun, scan: Run) -> bool:
    from ..layout import folder_of

    paths = [run.path(kind, recording=scan.id, folder=folder_of(scan.id)) for kind in _NEEDED]
    return all(path.exists() and path.stat().st_size > 0 for path in paths)


def _one_run(run: StageRun, scan: Run, seed: int) -> dict[str, Any]:
    import numpy as np
    import pandas as pd

    from ..atlas.labels import read_labels
    from ..denoise.components import read_mixing, read_noise, search_settled
    from ..denoise.design import Noise
    from ..images import read_image
    from ..layout import entities_of, folder_of
    from ..parcellate.extract import mean_series
    from ..phantom.denoising import (
        left_of,
        neural_error,
        parcel_r,
        planted_causes,
        planted_noise,
        split_parcels,
        through,
    )
    from ..phantom.parameters import TRUTH
    from ..series import open_series

    run.entities = entities_of(scan.id)
    folder = folder_of(scan.id)
    paths = {kind: run.input(kind, recording=scan.id, folder=folder) for kind in _NEEDED}
    base = f"{run.bids_dir / TRUTH / folder / 'func' / scan.id}_desc-truth"
    neural = pd.read_parquet(f"{base}_timeseries.parquet")
    artefacts = pd.read_csv(f"{base}_artefacts.tsv", sep="\t")
    confounds = pd.read_csv(paths["confounds"], sep="\t", na_values="n/a")
    run.entities = {}

    labels = read_labels(run.source(run.path("atlas_image"))).data
    numbers = np.arange(1, neural.shape[1] + 1)
    bold, mask = open_series(paths["preproc_bold"]), read_image(paths["mni_mask"]).data
    volumes = (volume.ravel(order="F") for volume in bold.volumes())
    parcels = mean_series(volumes, labels, mask, numbers, 0.5).series.astype(np.float64)
    seen = np.isfinite(parcels).all(axis=0)
    series = 100 * parcels[:, seen] / parcels[:, seen].mean(axis=0)
    truth = neural.to_numpy(dtype=float)[:, seen]

    mixing = read_mixing(paths["ica_mixing"])
    table = paths["aroma_metrics"]
    rejected = read_noise(table, list(mixing.columns))
    noise = Noise(mixing, rejected, search_settled(table))
    designs = {
        name: _design(run, confounds, scan.tr, options, noise, paths["confounds"])
        for name, options in METHODS.items()
    }
    filters = designs["none"]
    causes = planted_causes(artefacts, scan, seed)
    parts = split_parcels(series, truth, causes, filters)
    pairs = np.triu_indices(neural.shape[1], 1)
    methods = {}
    for name, design in designs.items():
        fc = np.full((neural.shape[1],) * 2, np.nan)
        fc[np.ix_(seen, seen)] = np.corrcoef(through(design, series).T)
        methods[name] = {
            "left": left_of(parts, design),
            "neural_error": neural_error(parts, design, filters),
            "parcel_r": parcel_r(series, truth, design, filters),
            "freedom": design.freedom,
            "connectivity": fc[pairs],
        }
    return {
        "methods": methods,
        "variance": float((through(filters, series) ** 2).sum()),
        "mean_fd_mm": float(confounds["framewise_displacement"].mean()),
        "called": noise.rejected,
        "planted": planted_noise(mixing.to_numpy(dtype=float), truth, causes, filters),
    }


def _design(
    run: StageRun,
    confounds: Any,
    tr: float,
    options: dict[str, str],
    components: Noise,
    file: Path,
) -> Design:
    """The study's own denoising but for the method; nothing is scrubbed."""
    from ..denoise.design import make_design

    own = run.config.denoise.model_dump(mode="json")
    chosen = {**own, "scrub": "off", "mean_signals": [], "tissue_components": 0, **options}
    wanted = components if options["method"] == "aroma" else None
    return make_design(confounds, tr=tr, options=chosen, file=file, components=wanted)


def _agreement(called: NDArray[np.bool_], true: NDArray[np.bool_]) -> dict[str, Any]:
    from ..phantom.denoising import agreement
    from ..phantom.score import finite

    return {
        "n": len(called),
        "planted_noise": int(true.sum()),
        "called_noise": int(called.sum()),
        **{name: finite(value) for name, value in agreement(called, true).items()},
    }


def _ratio(after: float, before: float) -> float | None:
    return round(after / before, 4) if before > 0 else None


def print_methods(found: dict[str, Any]) -> None:
    """One line for each method."""
    parts = list(found["methods"]["none"]["kept"])
    say(f"\nof the variance of the filtered parcels, over {found['n']} recordings:")
    for part, share in found["methods"]["none"]["share"].items():
        say(f"  {part:<15} {share:.1%}")
    heads = "".join(f"{part:>15}" for part in parts)
    heads += f"{'neural error':>14}{'parcel r':>10}{'QC-FC':>8}{'freedom':>9}"
    say(f"{'left of it by':<28}{heads}")
    for method, row in found["methods"].items():
        shown = "".join(
            f"{'-' if row['kept'][part] is None else format(row['kept'][part], '.1%'):>15}"
            for part in parts
        )
        fc = "-" if row["qc_fc"] is None else f"{row['qc_fc']:.3f}"
        error = "-" if row["neural_error"] is None else f"{row['neural_error']:.1%}"
        numbers = f"{error:>14}{row['parcel_r']:>10.3f}{fc:>8}{row['freedom']:>9.0f}"
        say(f"{method:<28}{shown}{numbers}")
    about = found["components"]
    scores = ", ".join(
        f"{name} {'-' if about[name] is None else format(about[name], '.2f')}"
        for name in ("precision", "recall", "f1")
    )
    say(
        f"components: {about['n']}, planted noise {about['planted_noise']}, "
        f"called noise {about['called_noise']}; {scores}"
    )
