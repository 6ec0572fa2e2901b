"""Effects of perturbations over subjects: means, intervals, tests, and what shams do.

Two things are told of each parcel. The mean effect has a sign: silencing what fluctuates around its
mean pushes a forecast up as often as down, so it is about 0 unless people's activity stood at one
side, or the change had a side (`value`). The size (root mean square) has none, and is ranked among
those of shams: all sets of parcels do something, in all subjects alike, so what chance does is told
by other sets, not by other subjects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, norm

from ..model.perturbation import NETWORK_COLUMN, networks_of
from .paired import holm, sign_flip_p
from .perturbation import Effects, Experiment
from .statistics import bootstrap_counts, mean_with_ci, widened
from .units import Names, added_up

Floats = NDArray[np.float64]

SIGNIFICANT = 0.05


def effects_table(
    experiment: Experiment,
    found: Effects,
    shams: Sequence[tuple[Experiment, Effects]],
    parcels: pd.DataFrame,
    *,
    units: Names,
    bootstrap: int,
    seed: int,
) -> pd.DataFrame:
    """A row for each parcel. The false discovery rate (q) is that over the parcels not perturbed.

    `units` (subjects,): who is resampled, and changes signs, as one with a subject.
    effect, its 95% interval and p (sign flips over subjects) are of the mean over steps; effect_sd
    is the same in SD of the recordings; size and sham are root mean squares, p_sham the place of
    the size among those of the shams that leave the parcel alone (one-sided); step_1, ... the mean
    effect at each step.
    """
    perturbed = np.isin(np.arange(len(parcels)), experiment.change.rows)
    low, high = _interval(found.mean, units, bootstrap, seed)
    sham = sham_size(shams)
    p = _p(found.mean, units, seed)
    p_sham = _place(found, shams)
    columns: dict[str, Any] = {
        "experiment": experiment.name,
        "parcel": parcels["index"].to_numpy(),
        "name": parcels["name"].astype(str).to_numpy(),
        "network": _network_column(parcels),
        "perturbed": perturbed,
        "n_subjects": (~np.isnan(found.mean)).sum(axis=0),
        "effect": _mean(found.mean),
        "ci_low": low,
        "ci_high": high,
        "p": p,
        "q": _fdr(p, ~perturbed),
        "effect_sd": _mean(found.mean_sd),
        "size": _mean(found.size),
        "sham": _mean(sham) if shams else np.nan,
        "p_sham": p_sham,
        "q_sham": _fdr(p_sham, ~perturbed),
    }
    columns |= {f"step_{step}": row for step, row in enumerate(found.steps, start=1)}
    return pd.DataFrame(columns)


def experiment_scores(
    experiment: Experiment,
    found: Effects,
    shams: Sequence[tuple[Experiment, Effects]],
    table: pd.DataFrame,
    parcels: pd.DataFrame,
    *,
    units: Names,
    bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """What metrics.json says of one experiment; `table` is its part of `effects_table`."""
    outside = outside_size(experiment, found)
    sums, sizes = added_up(outside, units), added_up(np.ones(len(outside)), units)
    of_shams = np.array([outside_size(*sham).mean() for sham in shams])
    rest = ~table["perturbed"].to_numpy()
    above = table["p_sham"].to_numpy()
    chance = np.where(np.isnan(above), 0.0, 1 / (1 + _leaving_alone(shams, len(rest))))
    change = experiment.change
    return {
        "name": experiment.name,
        "network": experiment.network,
        "n_parcels": len(change.rows),
        "factor": change.factor,
        "value": change.value,
        "other": experiment.other,
        "last": change.last,
        "size": mean_with_ci(sums, sizes, bootstrap, seed, of_errors=True),
        "sham": _sham_scores(float(outside.mean()), of_shams),
        "size_by_step": [_rms(power[rest]) for power in found.power],
        "size_perturbed_by_step": [_rms(power[~rest]) for power in found.power],
        "by_network": _by_network(table, parcels),
        "n_significant": int((table["q"] < SIGNIFICANT).sum()),
        "n_above_shams": int((rest & (above <= chance)).sum()),
        "n_above_shams_by_chance": float(chance[rest].sum()),
        "n_beside_shams": int((rest & ~np.isnan(above)).sum()),
        "n_tested": int((rest & table["p"].notna()).sum()),
    }


def correct_shams(experiments: Sequence[dict[str, Any]]) -> None:
    """Holm's correction of the experiments' p beside shams, into `p_holm`."""
    p = np.array([np.nan if (one := e["sham"]["p"]) is None else one for e in experiments])
    for experiment, corrected in zip(experiments, holm(p), strict=True):
        experiment["sham"]["p_holm"] = None if np.isnan(corrected) else float(corrected)


def _place(found: Effects, shams: Sequence[tuple[Experiment, Effects]]) -> Floats:
    """(parcels,) share of the shams, the experiment counted among them, that do as much there."""
    own = _mean(found.size)
    as_large = np.ones(len(own))
    for experiment, other in shams:
        left = ~np.isin(np.arange(len(own)), experiment.change.rows)
        as_large += left & (_mean(other.size) >= own)
    count = _leaving_alone(shams, len(own))
    return np.where((count > 0) & np.isfinite(own), as_large / (1 + count), np.nan)


def _leaving_alone(shams: Sequence[tuple[Experiment, Effects]], parcels: int) -> Floats:
    """(parcels,) how many of the shams leave a parcel alone."""
    counts = np.full(parcels, float(len(shams)))
    for experiment, _ in shams:
        counts[experiment.change.rows] -= 1
    return counts


def sham_size(shams: Sequence[tuple[Experiment, Effects]]) -> Floats:
    """(subjects, parcels) root mean square over the shams that leave a parcel alone."""
    total = count = np.zeros(1)
    for experiment, found in shams:
        left = ~np.isin(np.arange(found.size.shape[1]), experiment.change.rows)
        total = total + np.where(left, found.size**2, 0.0)
        count = count + left
    return np.sqrt(total / np.where(count > 0, count, np.nan))


def outside_size(experiment: Experiment, found: Effects) -> Floats:
    """(subjects,) root mean square of the effect over the parcels that were left alone."""
    squares = found.size**2
    squares[:, experiment.change.rows] = np.nan
    known = (~np.isnan(squares)).sum(axis=1)
    return np.sqrt(np.nansum(squares, axis=1) / np.maximum(known, 1))


def _sham_scores(size: float, shams: Floats) -> dict[str, Any]:
    """The shams' sizes, and the share of them (with the experiment) as large as its own."""
    if not len(shams):
        return {"n": 0, "mean": None, "low": None, "high": None, "p": None}
    low, high = np.percentile(shams, [2.5, 97.5])
    high_ones = int((shams >= size).sum())
    return {
        "n": len(shams),
        "mean": float(shams.mean()),
        "low": float(low),
        "high": float(high),
        "p": (1 + high_ones) / (1 + len(shams)),
    }


def _by_network(table: pd.DataFrame, parcels: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Network -> mean effect and size over its parcels; `perturbed` where all of them were."""
    found = {}
    for network in networks_of(parcels):
        own = table[table["network"] == network]
        left = own[~own["perturbed"]]
        shown = left if len(left) else own
        found[network] = {
            "effect": _or_none(shown["effect"].mean()),
            "size": _or_none(np.sqrt((shown["size"] ** 2).mean())),
            "sham": _or_none(np.sqrt((shown["sham"] ** 2).mean())),
            "perturbed": not len(left),
        }
    return found


def _network_column(parcels: pd.DataFrame) -> NDArray[Any]:
    if NETWORK_COLUMN not in parcels:
        return np.full(len(parcels), "", dtype=object)
    return parcels[NETWORK_COLUMN].fillna("").astype(str).replace("n/a", "").to_numpy(dtype=object)


def _mean(by_subject: Floats) -> Floats:
    """Mean over subjects of those that have the parcel; NaN where nobody has."""
    known = ~np.isnan(by_subject)
    count = known.sum(axis=0)
    return np.where(count > 0, np.nansum(by_subject, axis=0) / np.maximum(count, 1), np.nan)


def _interval(by_subject: Floats, units: Names, n_draws: int, seed: int) -> tuple[Floats, Floats]:
    """95% of the mean over subjects, units resampled; NaN with too few of them."""
    known = ~np.isnan(by_subject)
    sums, sizes = added_up(np.nan_to_num(by_subject), units), added_up(known.astype(float), units)
    counts = bootstrap_counts(len(sums), n_draws, seed)
    if counts is None:
        nothing = np.full(by_subject.shape[1], np.nan)
        return nothing, nothing.copy()
    drawn = counts @ sizes
    means = (counts @ sums) / np.where(drawn > 0, drawn, np.nan)
    enough = known.any(axis=0)
    low, high = np.full((2, by_subject.shape[1]), np.nan)
    ends = norm.cdf(widened(len(sums)))
    low[enough], high[enough] = np.nanquantile(means[:, enough], ends, axis=0)
    return low, high


def _p(by_subject: Floats, units: Names, seed: int) -> Floats:
    """Of the mean being 0, parcel by parcel, by those who have it: the others count as 0."""
    known = added_up((~np.isnan(by_subject)).astype(float), units) > 0
    p = sign_flip_p(added_up(np.nan_to_num(by_subject), units), seed)
    moved = (np.abs(np.nan_to_num(by_subject)) > 0).any(axis=0)
    return np.where((known.sum(axis=0) >= 6) & moved, p, np.nan)


def _fdr(p: Floats, tested: NDArray[np.bool_]) -> Floats:
    """Benjamini and Hochberg (1995) over the parcels `tested`; NaN elsewhere."""
    q = np.full(len(p), np.nan)
    known = tested & ~np.isnan(p)
    if known.any():
        q[known] = false_discovery_control(p[known])
    return q


def _rms(power: Floats) -> float | None:
    known = power[~np.isnan(power)]
    return float(np.sqrt(known.mean())) if len(known) else None


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
