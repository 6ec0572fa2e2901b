"""The subjects' traits, drawn so that even a few subjects cover the range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .parameters import Parameters, corrupted_subjects, site_name, stream, subject_label

AGE_RANGE = (20.0, 80.0)  # years
SCORE_RANGE = (0.0, 40.0)  # points of a clinical questionnaire


@dataclass(frozen=True)
class Traits:
    """One subject's traits."""

    age: float
    sex: str  # F or M
    score: float

    @property
    def standard(self) -> tuple[float, float, float]:
        """Age and score with mean 0 and SD 1 over their uniform ranges; sex as -1 (F), 1 (M)."""
        age_low, age_high = AGE_RANGE
        score_low, score_high = SCORE_RANGE
        root = np.sqrt(12)
        return (
            float((self.age - (age_low + age_high) / 2) / (age_high - age_low) * root),
            1.0 if self.sex == "M" else -1.0,
            float((self.score - (score_low + score_high) / 2) / (score_high - score_low) * root),
        )


def draw_traits(parameters: Parameters) -> pd.DataFrame:
    """One row per subject: participant_id, age, sex, score, site.

    Latin hypercube: each n-th of the range of age and of score is drawn once, and half the
    subjects are of each sex, in independent random orders. The subjects that `--corrupt`
    adds are drawn by themselves, so that they move nobody else's traits.
    """
    n = parameters.subjects
    rng = stream(parameters.seed, "traits")
    ages = _stratified(rng, n, AGE_RANGE)
    scores = _stratified(rng, n, SCORE_RANGE)
    sexes = list(rng.permutation(np.arange(n) % 2))
    for label in corrupted_subjects(parameters).values():
        rng = stream(parameters.seed, "traits", label)
        ages.append(float(rng.uniform(*AGE_RANGE)))
        scores.append(float(rng.uniform(*SCORE_RANGE)))
        sexes.append(int(rng.integers(2)))
    return pd.DataFrame(
        {
            "participant_id": [f"sub-{subject_label(k + 1, parameters)}" for k in range(len(ages))],
            "age": np.round(ages, 1),
            "sex": ["FM"[int(sex)] for sex in sexes],
            "score": np.round(scores, 1),
            "site": [site_name(k % parameters.sites) for k in range(len(ages))],
        }
    )


def traits_of(table: pd.DataFrame, subject: str) -> Traits:
    """The traits of one subject label."""
    row = table.set_index("participant_id").loc[f"sub-{subject}"]
    return Traits(float(str(row["age"])), str(row["sex"]), float(str(row["score"])))


def _stratified(rng: np.random.Generator, n: int, limits: tuple[float, float]) -> list[float]:
    low, high = limits
    places = (rng.permutation(n) + rng.uniform(size=n)) / n
    return [float(value) for value in low + places * (high - low)]
