"""The nuisance columns of each denoising method, out of the table of confounds."""

from __future__ import annotations

from typing import Literal

import pandas as pd

from ..geometry import MOTION_NAMES

Method = Literal["none", "motion6", "motion24", "36p", "acompcor", "aroma"]

_EXPANSION = ("", "_derivative1", "_power2", "_derivative1_power2")
_SIGNALS = ("global_signal", "csf", "white_matter")
#: Components of each tissue (Behzadi et al. 2007, NeuroImage 37:90; five as Ciric et al. 2017).
_COMPONENTS = 5


def nuisance_columns(confounds: pd.DataFrame, method: Method) -> pd.DataFrame:
    """The columns (T, k) that `method` names; 0 stands where a difference is undefined.

    `motion24` are the six motion parameters, their backward differences and the squares of both.
    `36p` adds global signal, CSF and white matter, expanded alike (Satterthwaite et al. 2013,
    NeuroImage 64:240; Ciric et al. 2017, NeuroImage 154:174). `acompcor` adds the five leading
    components of CSF and of white matter, or as many as the table has.
    """
    if method in ("none", "aroma"):
        return confounds[[]]
    names = list(MOTION_NAMES) if method == "motion6" else _expanded(MOTION_NAMES)
    if method == "36p":
        names += _expanded(_SIGNALS)
    if method == "acompcor":
        names += [
            name
            for tissue in "cw"
            for name in confounds.filter(regex=f"^{tissue}_comp_cor_").columns[:_COMPONENTS]
        ]
    return confounds[names].fillna(0.0)


def tissue_means(confounds: pd.DataFrame, choice: str, method: str) -> pd.DataFrame:
    """The mean signals (T, k) that `denoise.tissue_signals` adds to those of `method`.

    `auto` adds white matter and CSF to the components of ICA-AROMA, as its authors do (Pruim et
    al. 2015): what beats in CSF or shades the whole image often has no component of its own.
    """
    if choice == "auto":
        choice = "wm_csf" if method == "aroma" else "none"
    names = [] if choice == "none" else ["white_matter", "csf"]
    return confounds[names + ["global_signal"] * (choice == "wm_csf_global")].fillna(0.0)


def _expanded(names: tuple[str, ...]) -> list[str]:
    return [name + ending for ending in _EXPANSION for name in names]
