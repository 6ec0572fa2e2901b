"""Sums of guesses by recording and by parcel, from which the scores of each cohort follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..shards.reader import ShardReader
from ..train.validation import N_SUMS, Sums, masked_sums, scores
from .cohorts import Cohort, cohorts_of
from .hiding import MODEL, Guessed
from .statistics import scores_with_ci
from .units import added_up, families_column, told_units, units_of_subjects

#: Columns of a table of sums: `masked_sums`, in order.
SUM_COLUMNS = ("n", "truth", "truth2", "guess", "guess2", "product")


class Tally:
    """What methods' guesses of some test recordings were worth."""

    def __init__(self, reader: ShardReader, recordings: Sequence[str], methods: Sequence[str]):
        """Nothing is counted yet of these recordings."""
        self.names = sorted(recordings)
        self.cohorts = cohorts_of(reader, among=self.names)
        self.methods = tuple(methods)
        self.windows = 0
        self._place = {name: place for place, name in enumerate(self.names)}
        self._who = reader.table.loc[self.names]
        self._subject = reader.table.loc[self.names, "subject"].astype(str).to_numpy()
        self._of_recordings = {name: np.zeros((len(self.names), N_SUMS)) for name in methods}
        shape = (len(self.cohorts), reader.n_parcels, N_SUMS)
        self._of_parcels = {name: np.zeros(shape) for name in methods}
        self._member = np.array([np.isin(self.names, each.recordings) for each in self.cohorts])

    def add(self, recording_ids: Sequence[str], guessed: Guessed) -> None:
        """Count windows of these recordings."""
        places = [self._place[name] for name in recording_ids]
        member = self._member[:, places].astype(float)  # (cohorts, windows)
        self.windows += len(places)
        for method in self.methods:
            sums = masked_sums(guessed.truth, guessed.guesses[method])
            np.add.at(self._of_recordings[method], places, sums.sum(axis=1))
            self._of_parcels[method] += np.einsum("cw,wps->cps", member, sums)

    def by_subject(self, cohort: Cohort, method: str) -> tuple[NDArray[np.str_], Sums]:
        """Subjects of a cohort by name, and their sums (subjects, 6)."""
        places = [self._place[name] for name in cohort.recordings]
        subjects, owner = np.unique(self._subject[places].astype(np.str_), return_inverse=True)
        sums = np.zeros((len(subjects), N_SUMS))
        np.add.at(sums, owner, self._of_recordings[method][places])
        return subjects, sums

    def parcel_r2(self, cohort: Cohort, method: str = MODEL) -> NDArray[np.float64]:
        """(parcels,) R2 over all entries of a parcel in a cohort; NaN where not defined."""
        return scores(self._of_parcels[method][self.cohorts.index(cohort)])["r2"]

    def recording_r2(self) -> pd.Series:
        """The model's R2 of each recording, by name; NaN where not defined."""
        return pd.Series(scores(self._of_recordings[MODEL])["r2"], index=self.names)

    def told(self, bootstrap: int, seed: int) -> list[dict[str, Any]]:
        """For metrics.json: each cohort's scores by method, all subjects together first."""
        return [self._told(cohort, bootstrap, seed) for cohort in self.cohorts]

    def _told(self, cohort: Cohort, bootstrap: int, seed: int) -> dict[str, Any]:
        parcels = self.parcel_r2(cohort)
        known = parcels[np.isfinite(parcels)]
        subjects = self.by_subject(cohort, MODEL)[0]
        units = units_of_subjects(self._who, subjects)
        found: Mapping[str, Any] = {
            method: scores_with_ci(
                added_up(self.by_subject(cohort, method)[1], units), bootstrap, seed
            )
            for method in self.methods
        }
        return {
            "cohort": cohort.name,
            "external": cohort.external,
            "n_subjects": len(subjects),
            **told_units(len(subjects), units),
            "n_recordings": len(cohort.recordings),
            "median_parcel_r2": float(np.median(known)) if len(known) else None,
            "methods": found,
        }

    def table(self) -> pd.DataFrame:
        """A row for each method, cohort and subject: sums. What `by_subject` gives, to be kept."""
        parts = []
        for cohort in self.cohorts:
            for method in self.methods:
                subjects, sums = self.by_subject(cohort, method)
                part = pd.DataFrame(sums, columns=list(SUM_COLUMNS))
                for name, values in families_column(self._who, subjects).items():
                    part.insert(0, name, values)
                part.insert(0, "subject", subjects)
                part.insert(0, "method", method)
                part.insert(0, "external", cohort.external)
                part.insert(0, "cohort", cohort.name)
                parts.append(part)
        return pd.concat(parts, ignore_index=True)


def listed(values: NDArray[np.float64]) -> list[float | None]:
    """For JSON, in which there is no NaN."""
    return [float(value) if np.isfinite(value) else None for value in values]
