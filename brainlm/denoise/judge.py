"""Components of a run and what ICA-AROMA makes of them: the search and the features together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..geometry import MOTION_NAMES, Array
from ..temporal import cosine_drifts
from .aroma import Regions, high_frequency_content, motion_correlation, spatial_fractions, subsets
from .components import REJECTED, classified, component_names
from .design import orthonormal
from .ica import Components, spatial_ica
from .mixture import active_probability
from .regressors import known_columns


@dataclass(frozen=True)
class Judged:
    """The components of a run of T volumes, and the table about them."""

    components: Components  # their maps are 0 where a component is not active
    metrics: pd.DataFrame  # one row for each: the features, and what the rule makes of them
    judge: Mapping[str, Any] = field(default_factory=dict)  # who judged, if not ICA-AROMA's rule

    @property
    def mixing(self) -> pd.DataFrame:
        """The courses (T, k), named."""
        return pd.DataFrame(self.components.mixing, columns=self.metrics["component"].tolist())

    def about(self) -> dict[str, Any]:
        """What a sidecar says of the components."""
        return {
            "Components": len(self.metrics),
            "ComponentsEstimated": self.components.estimated,
            "Converged": self.components.converged,
            "VarianceExplained": round(self.components.kept, 4),
            "Rejected": int((self.metrics["classification"] == REJECTED).sum()),
            **self.judge,
        }

    def volumes(self, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """The maps as volumes (x, y, z, k)."""
        volumes = np.zeros((*mask.shape, len(self.metrics)), dtype=np.float32)
        volumes[mask] = self.components.maps.T
        return volumes


def find_and_judge(
    series: NDArray[np.float32],
    mask: NDArray[np.bool_],
    affine: Array,
    table: pd.DataFrame,
    regions: Regions,
    *,
    tr: float,
    options: Mapping[str, Any],
) -> Judged:
    """Decompose the voxels `series` (T, n) of `mask` (x, y, z) and judge each component.

    `affine` (4, 4) is the grid's, `table` holds the run's confounds, `regions` tell where noise
    shows among the voxels of `mask`, `options` are the `ica` section's.
    """
    found = spatial_ica(
        series,
        mask,
        np.linalg.norm(affine[:3, :3], axis=0),
        _taken_out_before(table, tr, options["high_pass_s"]),
        fwhm_mm=options["smoothing_mm"],
        components=options["components"] or None,
        seed=options["seed"],
        restarts=options["restarts"],
    )
    return judged(found, table, regions, tr=tr, seed=options["seed"])


def judged(
    found: Components, table: pd.DataFrame, regions: Regions, *, tr: float, seed: int
) -> Judged:
    """Components with their features and ICA-AROMA's verdict; maps keep what is active."""
    for values in found.maps:
        values[active_probability(values) <= 0.5] = 0
    motion = known_columns(table, MOTION_NAMES).to_numpy(dtype=float)
    edge, csf = spatial_fractions(found.maps, regions)
    features = pd.DataFrame(
        {
            "component": component_names(len(found.maps)),
            "edge_fract": edge,
            "csf_fract": csf,
            "max_RP_corr": motion_correlation(found.mixing, motion, subsets(len(motion), seed)),
            "HFC": high_frequency_content(found.mixing, tr),
            "variance_explained": found.explained,
        }
    )
    return Judged(found, classified(features, settled=found.converged))


def write_mixing(path: Path, mixing: pd.DataFrame) -> None:
    """Write the courses (T, k)."""
    mixing.to_csv(path, sep="\t", index=False, float_format="%.10g")


def write_metrics(path: Path, metrics: pd.DataFrame) -> None:
    """Write the table of components."""
    metrics.to_csv(path, sep="\t", index=False, float_format="%.6g", na_rep="n/a")


def _taken_out_before(table: pd.DataFrame, tr: float, high_pass_s: float) -> NDArray[np.float64]:
    """Constant, drifts and volumes before the steady state: an orthonormal basis (T, c)."""
    unsteady = table.filter(regex="^non_steady_state_outlier").to_numpy(dtype=float)
    drifts = cosine_drifts(len(table), tr, high_pass_s)
    return orthonormal(np.hstack([np.ones((len(table), 1)), drifts, unsteady]))
