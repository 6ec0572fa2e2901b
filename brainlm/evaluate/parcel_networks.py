"""Which functional network a parcel belongs to, told from what a recording shows of it.

As in Table 3 of BrainLM's paper: in each test recording, 80% of the parcels with a known network
are given with it, and those of the others are told by their nearest neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..model.mae import MaskedAutoencoder
from ..shards.reader import ShardReader
from ..train.masking import NETWORK_COLUMN
from .attention_recordings import mean_attention, signal_of
from .baselines.parcel_autoencoder import ParcelAutoencoder
from .cohorts import cohorts_of
from .paired import holm, sign_flip_p
from .parcel_networks_features import (
    AttentionChoice,
    attention_features,
    connectivity_features,
    whole_windows,
)
from .parcel_networks_knn import Told, asked_parcels, distances, scores, tell, too_near
from .parcel_networks_trained import represent
from .statistics import mean_with_ci
from .units import added_up, told_units, units_of_subjects

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

REFERENCE = "attention"
METRICS = ("accuracy", "balanced_accuracy")


class NoNetworksError(Exception):
    """Nothing is known of the parcels' networks."""


@dataclass(frozen=True)
class Networks:
    """The parcels' known networks."""

    names: tuple[str, ...]
    of_parcel: Ints  # (parcels,) index into `names`; -1: none
    places: Floats  # (parcels, 3) mm

    @classmethod
    def of(cls, parcels: pd.DataFrame) -> Networks:
        """From a table of parcels; refuses one that says nothing of networks."""
        known = parcels[NETWORK_COLUMN] if NETWORK_COLUMN in parcels else pd.Series(dtype=str)
        codes = known.astype("category")
        of_parcel = np.array(codes.cat.codes, dtype=np.int64)
        if known.nunique() < 2 or not asked_parcels(of_parcel, "any").any():
            raise NoNetworksError(
                "the atlas says of too few parcels to which network they belong "
                f"(column {NETWORK_COLUMN} of its table)"
            )
        return cls(
            tuple(str(name) for name in codes.cat.categories),
            of_parcel,
            parcels[["x", "y", "z"]].to_numpy(dtype=np.float64),
        )


@dataclass(frozen=True, eq=False)
class NetworksResult:
    """What was told, and how good that is."""

    metrics: dict[str, Any]
    predictions: pd.DataFrame  # recording_id, subject, scheme, method, parcel, true, told


def evaluate_networks(
    model: MaskedAutoencoder,
    reader: ShardReader,
    names: Sequence[str],
    networks: Networks,
    choice: AttentionChoice,
    autoencoders: Mapping[str, ParcelAutoencoder],
    *,
    spatial_mm: float,
    bootstrap: int,
    seed: int,
    progress: Callable[[Sequence[str]], Iterator[str]] = iter,
) -> NetworksResult:
    """Tell networks in the recordings `names` from each kind of features."""
    parts = []
    for name in progress(names):
        signal = signal_of(model, reader, name)
        covered = ~torch.isnan(signal[:, 0]).cpu().numpy()
        features = {
            **_features(model, signal, covered, choice, autoencoders),
            "position": networks.places[covered],
        }
        parts.append(_told_of(name, features, covered, networks, spatial_mm, seed))
    predictions = pd.concat(parts, ignore_index=True)
    subject_of = reader.table["subject"].astype(str)
    predictions.insert(1, "subject", subject_of.loc[predictions["recording_id"]].to_numpy())
    metrics = {
        "networks": list(networks.names),
        "n_parcels": int((networks.of_parcel >= 0).sum()),
        "n_recordings": len(names),
        "spatial_mm": spatial_mm,
        "reference": REFERENCE,
        "cohorts": _of_cohorts(reader, names, predictions, bootstrap, seed),
        "confusion": _confusions(predictions, networks.names),
        "voters": _voters(predictions),
        "bootstrap": bootstrap,
        "seed": seed,
    }
    return NetworksResult(metrics, predictions.drop(columns=["voters", "metric"]))


def _features(
    model: MaskedAutoencoder,
    signal: Tensor,
    covered: NDArray[np.bool_],
    choice: AttentionChoice,
    autoencoders: Mapping[str, ParcelAutoencoder],
) -> dict[str, Floats]:
    """(covered parcels, n) by method; all see the same windows of the recording."""
    window = model.config.timepoints
    between = mean_attention(model, signal, "parcels", choice.layer, choice.head)
    whole = whole_windows(signal, window)
    series = whole.double().cpu().numpy()[covered]
    return {
        REFERENCE: attention_features(between, covered, choice.side),
        "raw": series,
        **{
            method: represent(network, whole, window)[covered]
            for method, network in autoencoders.items()
        },
        "connectivity": connectivity_features(series),
    }


def _told_of(
    name: str,
    features: Mapping[str, Floats],
    covered: NDArray[np.bool_],
    networks: Networks,
    spatial_mm: float,
    seed: int,
) -> pd.DataFrame:
    """Of one recording, what each method tells of the parcels asked for, in each scheme."""
    among = networks.of_parcel[covered]
    asked = asked_parcels(among, seed, name)
    near = too_near(networks.places[covered], spatial_mm) if spatial_mm else None
    apart = {method: distances(values) for method, values in features.items()}
    rng = np.random.default_rng([seed, *name.encode()])
    shuffled = among.copy()
    known = ~asked & (among >= 0)
    shuffled[known] = rng.permutation(shuffled[known])
    told: list[tuple[str, str, Told]] = []
    for scheme, barred in (("random", None), ("apart", near)):
        if scheme == "apart" and barred is None:
            continue
        for method, pairs in apart.items():
            told.append((scheme, method, tell(pairs, among, asked, barred)))
        told.append((scheme, "permuted", tell(apart[REFERENCE], shuffled, asked, barred)))
        most = np.bincount(among[known]).argmax()
        told.append((scheme, "majority", Told(np.full(int(asked.sum()), most), 0, "")))
    parcels = np.flatnonzero(covered)[asked]
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "recording_id": name,
                    "scheme": scheme,
                    "method": method,
                    "parcel": parcels.astype(np.int32),
                    "true": among[asked].astype(np.int8),
                    "told": found.networks.astype(np.int8),
                    "voters": found.voters,
                    "metric": found.metric,
                }
            )
            for scheme, method, found in told
        ],
        ignore_index=True,
    )


def _of_cohorts(
    reader: ShardReader, names: Sequence[str], predictions: pd.DataFrame, bootstrap: int, seed: int
) -> list[dict[str, Any]]:
    """Scores of each method in each scheme, with tests against attention."""
    keys = ["scheme", "method", "recording_id", "subject"]
    of_recording = pd.DataFrame(
        [
            (*key, *scores(part["true"].to_numpy(), part["told"].to_numpy()).values())
            for key, part in predictions.groupby(keys, sort=False)
        ],
        columns=[*keys, *METRICS],
    )
    content = []
    for cohort in cohorts_of(reader, names):
        chosen = of_recording[of_recording["recording_id"].isin(cohort.recordings)]
        subjects = sorted(chosen["subject"].unique())
        units = units_of_subjects(reader.table, subjects)
        of_unit = dict(zip(subjects, units.tolist(), strict=True))
        content.append(
            {
                "cohort": cohort.name,
                "external": cohort.external,
                "n_subjects": len(subjects),
                **told_units(len(of_unit), np.array(list(of_unit.values()))),
                "n_recordings": len(cohort.recordings),
                "schemes": {
                    str(scheme): _methods(part, of_unit, bootstrap, seed)
                    for scheme, part in chosen.groupby("scheme", sort=False)
                },
            }
        )
    return content


def _methods(
    found: pd.DataFrame, of_unit: Mapping[str, str], bootstrap: int, seed: int
) -> dict[str, Any]:
    """Method -> means over recordings with intervals over subjects, SDs, p beside attention.

    `of_unit`: subject -> who is resampled with it, and changes signs with it.
    """
    subjects = sorted(found["subject"].unique())
    units = np.array([of_unit[subject] for subject in subjects])
    content: dict[str, dict[str, Any]] = {}
    means = found.groupby(["method", "subject"])[list(METRICS)].mean()
    for method, part in found.groupby("method", sort=False):
        grouped = part.groupby("subject")
        sums = added_up(grouped[list(METRICS)].sum().loc[subjects].to_numpy(), units)
        sizes = added_up(grouped.size().loc[subjects].to_numpy().astype(np.float64), units)
        content[str(method)] = {
            "metrics": {
                name: {
                    **mean_with_ci(sums[:, k], sizes, bootstrap, seed),
                    "sd": float(part[name].std(ddof=0)),
                }
                for k, name in enumerate(METRICS)
            }
        }
    rivals = [method for method in content if method != REFERENCE]
    reference = means.loc[REFERENCE].loc[subjects, "accuracy"].to_numpy()
    less = [reference - means.loc[name].loc[subjects, "accuracy"].to_numpy() for name in rivals]
    p = sign_flip_p(added_up(np.stack(less, axis=1), units), seed)
    for name, value, adjusted, gap in zip(rivals, p, holm(p), less, strict=True):
        content[name] |= {
            "less_than_reference": float(gap.mean()),
            "p": float(value) if np.isfinite(value) else None,
            "p_holm": float(adjusted) if np.isfinite(adjusted) else None,
        }
    return content


def _confusions(predictions: pd.DataFrame, names: Sequence[str]) -> dict[str, Any]:
    """Scheme -> method -> how often each network (rows) was told to be each (columns)."""
    content: dict[str, dict[str, list[list[int]]]] = {}
    for (scheme, method), part in predictions.groupby(["scheme", "method"], sort=False):
        counts = np.zeros((len(names), len(names)), dtype=np.int64)
        told = part[part["told"] >= 0]
        np.add.at(counts, (told["true"].to_numpy(), told["told"].to_numpy()), 1)
        content.setdefault(str(scheme), {})[str(method)] = counts.tolist()
    return content


def _voters(predictions: pd.DataFrame) -> dict[str, Any]:
    """Scheme -> method -> median number of voters, and the share of recordings by metric."""
    once = predictions[predictions["voters"] > 0].drop_duplicates(
        ["scheme", "method", "recording_id"]
    )
    content: dict[str, dict[str, Any]] = {}
    for (scheme, method), part in once.groupby(["scheme", "method"], sort=False):
        content.setdefault(str(scheme), {})[str(method)] = {
            "median": float(part["voters"].median()),
            "correlation": float((part["metric"] == "correlation").mean()),
        }
    return content
