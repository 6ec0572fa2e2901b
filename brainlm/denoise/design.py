"""The design of denoising: which volumes are fitted, to what, and what freedom is left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DataError
from ..temporal import cosine_drifts
from .filters import fast_cosines, running_line, sigma_volumes
from .regressors import Method, nuisance_columns, tissue_columns
from .scrub import filling_weights, mean_weights, spoilt_volumes, unsteady_volumes

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Of the volumes in the band, at least this share, and this number, must stay as freedom.
FEWEST_SHARE, FEWEST = 0.2, 10
#: Of a run's volumes at least this share must survive scrubbing.
_FEWEST_KEPT = 0.5
#: What is done in place of components that did not settle.
FALLBACK: Method = "motion24"
#: A column whose length falls below this in the running-line filter was a straight line.
_NOTHING = 1e-7


@dataclass(frozen=True)
class Design:
    """What `clean` does to a run of T volumes, k of which are fitted."""

    kept: Mask  # (T,), the volumes that the fit sees
    spoilt: Mask  # (T,), those that scrubbing found, whatever is done about them
    trend: Array | None  # (k, k), the smoother whose result is subtracted before the fit
    basis: Array  # (k, rank), orthonormal, spans a constant
    shared: tuple[Array, Array] | None  # (k, m), (m, k): noise beside signal, see `_only_noise`
    fill: Array | None  # (T - k, k), what takes the place of the others; None: they go
    names: tuple[str, ...]  # the nuisance columns
    drifts: int  # slow cosines
    fast: int  # fast cosines
    fallback: str = ""  # the method that took the place of the one asked for

    @property
    def freedom(self) -> float:
        """Residual degrees of freedom: the trace of what maps a series to its residual."""
        left = float(self.basis.shape[0] - self.basis.shape[1])
        if self.shared is not None:
            left -= self.shared[0].shape[1]
        if self.trend is not None:
            left -= float(np.trace(self.trend) - (self.basis * (self.trend @ self.basis)).sum())
        return left

    def about(self, scrub: str) -> dict[str, Any]:
        """What is done to the run, as sidecar fields; `scrub` is the option of that name."""
        return {
            "Regressors": int(self.basis.shape[1]),
            "Confounds": list(self.names),
            "SlowCosines": self.drifts,
            "FastCosines": self.fast,
            "NonSteadyStateVolumes": int((~self.kept & ~self.spoilt).sum()),
            # What a series had lost before it came to us nobody knows.
            **({} if self.fits_nothing else {"DegreesOfFreedom": round(self.freedom, 2)}),
            **({"Fallback": self.fallback} if self.fallback else {}),
            **about_scrubbing(scrub, self),
        }

    @property
    def fits_nothing(self) -> bool:
        """Whether the kept volumes stay exactly as they are."""
        return self.trend is None and self.shared is None and not self.basis.shape[1]

    @property
    def volumes(self) -> NDArray[np.intp]:
        """Numbers, in the raw run, of the volumes that the result holds."""
        return np.flatnonzero(self.kept) if self.fill is None else np.arange(len(self.kept))


@dataclass(frozen=True)
class Noise:
    """Independent components of a run, told apart."""

    mixing: pd.DataFrame  # (T, k), courses
    rejected: Mask  # (k,)
    settled: bool = True  # False: the search found no rotation, so no component is a source


def about_scrubbing(scrub: str, design: Design) -> dict[str, Any]:
    """Which volumes were scrubbed; nothing where scrubbing is off.

    Volumes are counted from 0 in the raw run. `KeptVolumes` are those that a shortened series
    holds, row by row.
    """
    if scrub == "off":
        return {}
    without = design.spoilt if scrub == "mark" else ~design.kept
    about: dict[str, Any] = {
        "Scrubbing": scrub,
        "CensoredVolumes": np.flatnonzero(without).tolist(),
    }
    if scrub == "censor":
        about["KeptVolumes"] = design.volumes.tolist()
    return about


def make_design(
    confounds: pd.DataFrame,
    *,
    tr: float,
    options: dict[str, Any],
    file: Path,
    components: Noise | None = None,
) -> Design:
    """The design of a run from its table of confounds (T rows) and the `denoise` options.

    Volumes before the steady state are never fitted. The cosine high-pass, the low-pass and the
    nuisance columns are fitted together: filtering first and regressing afterwards would
    bring back what was filtered (Lindquist et al. 2019, Hum. Brain Mapp. 40:2358). The running
    line cannot be written as columns; it filters data and nuisance columns alike before the fit,
    so that nothing slow is brought back either. Noise components are such columns, unless they
    are to leave what the other components explain as well: then they are fitted beside those.
    The mean signals of tissues are no components; they go wholly, as a filter does. Components that
    did not settle are left alone, and `FALLBACK` is done instead.
    """
    count, scrub = len(confounds), options["scrub"]
    spoilt = np.zeros(count, dtype=bool)
    if scrub != "off":
        spoilt = spoilt_volumes(
            confounds,
            fd_mm=options["scrub_fd_mm"],
            dvars=options["scrub_dvars"],
            pad=options["scrub_pad"],
        )
    kept = ~unsteady_volumes(confounds)
    if options["method"] == "fix" and scrub in ("off", "mark"):
        kept[:] = True  # passed on as given, settling volumes included
    if scrub in ("censor", "interpolate"):
        kept &= ~spoilt
        check_kept(int(kept.sum()), count, file)
    method, fallback = options["method"], ""
    if method == "fix":
        return _untouched(kept, spoilt, scrub)
    if components is not None:
        _check_length(components, count, file)
        if not components.settled:
            components, method, fallback = None, FALLBACK, FALLBACK
    nuisance = nuisance_columns(confounds, method)
    if components is not None:
        nuisance = components.mixing.loc[:, components.rejected]
    means = tissue_columns(confounds, options, nuisance)
    gaussian = options["high_pass"] == "gaussian" and options["high_pass_s"] > 0
    trend = running_line(kept, sigma_volumes(options["high_pass_s"], tr)) if gaussian else None
    slow = cosine_drifts(count, tr, 0 if gaussian else options["high_pass_s"])
    fast = fast_cosines(count, tr, options["low_pass_s"])
    columns, others = (
        _without_trend(part.to_numpy(dtype=float)[kept], trend) for part in (nuisance, means)
    )
    filters = [np.ones((len(columns), 1)), slow[kept], fast[kept], others]
    shared = None
    if components is not None and options["aroma"] != "aggressive":
        signal = components.mixing.loc[:, ~components.rejected].to_numpy(dtype=float)[kept]
        signal = _without_trend(signal, trend)
        if options["aroma"] == "nonaggressive":
            shared = _only_noise(columns, signal, orthonormal(np.hstack(filters)))
            columns = columns[:, :0]
        elif signal.size:
            columns = columns - signal @ np.linalg.lstsq(signal, columns, rcond=None)[0]
    basis = orthonormal(np.hstack([*filters, columns]))
    design = Design(
        kept=kept,
        spoilt=spoilt,
        trend=trend,
        basis=basis,
        shared=shared,
        fill=_fill(kept, scrub),
        names=tuple(map(str, dict.fromkeys([*nuisance.columns, *means.columns]))),
        drifts=slow.shape[1],
        fast=fast.shape[1],
        fallback=fallback,
    )
    check_freedom(len(basis), design.freedom, file, fast=design.fast, scrub=scrub)
    return design


def _untouched(kept: Mask, spoilt: Mask, scrub: str) -> Design:
    """The design of a series that is clean already: nothing is fitted, not even its mean."""
    return Design(
        kept=kept,
        spoilt=spoilt,
        trend=None,
        basis=np.zeros((int(kept.sum()), 0)),
        shared=None,
        fill=_fill(kept, scrub),
        names=(),
        drifts=0,
        fast=0,
    )


def _fill(kept: Mask, scrub: str) -> Array | None:
    """What takes the place of the volumes (T,) that are not `kept`; None: they go."""
    if scrub == "censor":
        return None
    return filling_weights(kept) if scrub == "interpolate" else mean_weights(kept)


def _check_length(components: Noise, count: int, file: Path) -> None:
    if len(components.mixing) != count:
        raise DataError(
            f"The courses of the components have {len(components.mixing)} volumes, the run {count}",
            file=file,
            fix="rerun `brainlm ica` for this run",
        )


def _without_trend(columns: Array, trend: Array | None) -> Array:
    """Columns (k, m) of unit length, centred, without their slow part; none that was only that."""
    columns = _unit(_centered(columns), 1e-10)
    return columns if trend is None else _unit(columns - trend @ columns, _NOTHING)


def _only_noise(noise: Array, signal: Array, filters: Array) -> tuple[Array, Array]:
    """`N` (k, m) and `P` (m, k) so that `y - N P y` lacks what noise alone explains.

    Noise and signal courses are fitted together, both without what the `filters` (k, c) span;
    of the fit, the noise's part is subtracted (the non-aggressive regression of Pruim et al.
    2015; what both explain stays).
    """
    inside = noise - filters @ (filters.T @ noise)
    beside = signal - filters @ (filters.T @ signal)
    both = np.hstack([inside, beside])
    return inside, np.asarray(np.linalg.pinv(both, rcond=1e-7)[: inside.shape[1]])


def orthonormal(columns: Array) -> Array:
    """An orthonormal basis (k, rank) of `columns` (k, m).

    Columns are scaled to unit length before singular vectors with values below 1e-7 of the
    largest are dropped, so constant or repeated regressors do no harm.
    """
    left, values, _ = np.linalg.svd(_unit(columns, 1e-10), full_matrices=False)
    return np.asarray(left[:, values > 1e-7 * values[0]])


def check_kept(kept: int, count: int, file: Path) -> None:
    """Refuse a run of which scrubbing leaves too little."""
    if kept < max(FEWEST, _FEWEST_KEPT * count):
        raise DataError(
            f"Scrubbing leaves {kept} of {count} volumes (at least {FEWEST} and "
            f"{_FEWEST_KEPT:.0%} are needed)",
            file=file,
            fix="exclude the run, or raise denoise.scrub_fd_mm (or set denoise.scrub: off) in "
            "config/config.yaml",
        )


def check_freedom(
    n_volumes: int, left: float, file: Path, *, fast: int = 0, scrub: str = "off"
) -> None:
    """Refuse a run that is too short for what is fitted to it.

    `left` degrees of freedom must be at least 10, and a fifth of those `n_volumes` that the
    low-pass with its `fast` columns does not take by intention.
    """
    if left >= FEWEST - 1e-9 and left >= FEWEST_SHARE * (n_volumes - fast) - 1e-9:
        return
    ways = ["a longer denoise.high_pass_s"]
    ways += ["denoise.low_pass_s: 0"] * (fast > 0)
    ways += ["a higher denoise.scrub_fd_mm"] * (scrub in ("censor", "interpolate"))
    raise DataError(
        f"{n_volumes} volumes are too few for this denoising: {left:.0f} degrees of freedom "
        f"would be left (at least {FEWEST}, and {FEWEST_SHARE:.0%} of those in the band, "
        "are needed)",
        file=file,
        fix=f"exclude the run, or set denoise.method: motion6 or {' or '.join(ways)} in "
        "config/config.yaml",
    )


def _centered(columns: Array) -> Array:
    return columns - columns.mean(axis=0) if columns.size else columns


def _unit(columns: Array, least: float) -> Array:
    """Columns scaled to unit length, those shorter than `least` left out."""
    length = np.linalg.norm(columns, axis=0)
    return np.asarray(columns[:, length > least] / length[length > least])
