"""How far a stage's files may be from those recorded, where bytes cannot be promised.

On the machine, with the libraries and the code that made a study, every stage gives the same bytes.
Elsewhere sums are added in another order (other BLAS kernels, other vector units of the processor,
a GPU), and searches that step along them end a little apart.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """What may differ; `relative` is in standard deviations of what was recorded."""

    relative: float | None  # the largest difference of any value; None: told, and not judged
    correlation: float  # the smallest, of any column, image or tensor
    why: str


_EXACT = Tolerance(0.0, 1.0, "values are copied, counted or looked up: nothing is added up")
_SUMS = Tolerance(1e-3, 0.9999, "one pass of sums in float64, stored in fewer digits")
_SEARCH = Tolerance(0.05, 0.999, "a search that stops within a tolerance of its own")
_ONWARD = Tolerance(0.05, 0.995, "what comes before it, passed on by interpolation or regression")

#: Stage -> what its files may differ by. The tests of a stage that is not here are exact.
TOLERANCES: dict[str, Tolerance] = {
    "prepare-atlas": _EXACT,
    "motion": _SEARCH,
    "fieldmap": _SEARCH,
    "normalize-anat": _SEARCH,
    "coregister-bold": _SEARCH,
    "normalize-bold": _SEARCH,
    "warp-bold": _SEARCH,
    "resample": _ONWARD,
    "confounds": _ONWARD,
    "ica": Tolerance(
        None,
        0.0,
        "components may come in another order or with the other sign; what is made with them is "
        "judged",
    ),
    "denoise": _ONWARD,
    "parcellate": _ONWARD,
    "resample-to-parcels": _ONWARD,
    "adopt": _SUMS,
    "adopt-to-parcels": _SUMS,
    "adopt-parcels": _SUMS,
    "cohort": _EXACT,
    "write-shard": _ONWARD,
    "pretrain": Tolerance(
        0.05, 0.999, "thousands of sums a step, in another order on another device"
    ),
    "evaluate": Tolerance(1e-6, 0.999999, "scores of recorded predictions, in float64"),
}


def tolerance_of(stage: str) -> Tolerance:
    """Of a stage; one that is not in the table must be exact."""
    return TOLERANCES.get(stage, _EXACT)
