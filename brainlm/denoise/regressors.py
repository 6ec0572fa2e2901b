"""The nuisance columns of each denoising method, out of the table of confounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..config.cleaning import Method, chosen_components, chosen_means
from ..errors import DataError
from ..geometry import MOTION_NAMES

_EXPANSION = ("", "_derivative1", "_power2", "_derivative1_power2")
_SIGNALS = ("global_signal", "csf", "white_matter")
#: Components of each tissue (Behzadi et al. 2007, NeuroImage 37:90; five as Ciric et al. 2017).
_COMPONENTS = 5


def nuisance_columns(confounds: pd.DataFrame, method: Method) -> pd.DataFrame:
    """The columns (T, k) that `method` names; 0 is the first volume's difference.

    `motion24` are the six motion parameters, their backward differences and the squares of both.
    `36p` adds global signal, CSF and white matter, expanded alike (Satterthwaite et al. 2013,
    NeuroImage 64:240; Ciric et al. 2017, NeuroImage 154:174). `acompcor` adds the five leading
    components of CSF and of white matter, or as many as the table has; `acompcor50` all of the
    table, which are those that explain half of the tissue's variance (Muschelli et al. 2014,
    NeuroImage 96:22) where confounds.compcor_components is `half`.
    """
    if method in ("none", "aroma", "fix"):
        return confounds[[]]
    names = list(MOTION_NAMES) if method == "motion6" else _expanded(MOTION_NAMES)
    if method == "36p":
        names += _expanded(_SIGNALS)
    if method in ("acompcor", "acompcor50"):
        most = _COMPONENTS if method == "acompcor" else None
        for tissue in "cw":
            found = confounds.filter(regex=f"^{tissue}_comp_cor_").columns[:most]
            names += list(found) if len(found) else [f"{tissue}_comp_cor_00"]
    return _without_gaps(known_columns(confounds, names), confounds)


def check_rows(rows: int, volumes: int, file: Path) -> None:
    """Refuse tables whose rows are not the volumes of the series: all would be shifted."""
    if rows != volumes:
        raise DataError(
            f"The table of confounds has {rows} rows, the series {volumes} volumes",
            file=file,
            fix="they are of different runs or versions; rerun from `brainlm resample`",
        )


def tissue_columns(
    confounds: pd.DataFrame, options: Mapping[str, Any], beside: pd.DataFrame
) -> pd.DataFrame:
    """What the `denoise` options add to the columns `beside` it (T, m): means and components.

    Of each tissue there may be fewer components than asked for: as many as explain half of its
    variance.
    """
    names = [*chosen_means(options)]
    count = chosen_components(options)
    for tissue in "cw":
        found = list(confounds.filter(regex=f"^{tissue}_comp_cor_").columns[:count])
        asked = count and options["tissue_components"] != "auto"
        names += found or ([f"{tissue}_comp_cor_00"] if asked else [])
    new = [name for name in names if name not in beside.columns]
    return _without_gaps(known_columns(confounds, new), confounds)


def known_columns(confounds: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """These columns of the confounds; it is an error if one is absent, or nowhere a number.

    Tables of other pipelines may lack some, and nothing may be known of the head's motion. A 0 in
    their place would pass for a run without motion.
    """
    absent = [name for name in names if name not in confounds]
    unknown = [name for name in names if name in confounds and confounds[name].isna().all()]
    if absent or unknown:
        what = f"lack {', '.join(absent)}" if absent else f"do not know {', '.join(unknown)}"
        raise DataError(
            f"The confounds of this run {what}, which the denoising asked for needs",
            fix="choose another denoise.method (fix and none need none) or set denoise.scrub: off",
        )
    return confounds[list(names)]


def _without_gaps(columns: pd.DataFrame, confounds: pd.DataFrame) -> pd.DataFrame:
    """The columns (T, k) with 0 for the difference that the first volume cannot have.

    So are gaps at volumes before the steady state, which have no say in any fit. Any other gap is
    refused: a 0 amid a signal of some hundreds would be the largest spike of all.
    """
    filled = columns.copy()
    unsteady = confounds.filter(regex="^non_steady_state_outlier").fillna(0).any(axis=1)
    filled[unsteady] = filled[unsteady].fillna(0)
    differences = [name for name in filled if "_derivative1" in str(name)]
    filled.loc[filled.index[:1], differences] = filled.loc[filled.index[:1], differences].fillna(0)
    gaps = filled.columns[filled.isna().any()]
    if len(gaps):
        row = int(filled[gaps[0]].isna().to_numpy().argmax())
        raise DataError(
            f"Column {gaps[0]} of the confounds has no number for volume {row}",
            fix="make the table anew with the pipeline that wrote it, or exclude the run",
        )
    return filled


def _expanded(names: tuple[str, ...]) -> list[str]:
    return [name + ending for ending in _EXPANSION for name in names]
