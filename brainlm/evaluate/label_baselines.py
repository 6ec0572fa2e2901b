"""The plain methods beside a model that predicts a label, fitted on the same train subjects."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..shards.labels import LABEL_PREFIX
from ..shards.reader import ShardReader
from ..shards.splits import uniform_of
from ..train.labelled import LabelledData
from .baselines.connectivity import Span, predict_from_features, span_of
from .baselines.correlations import connectivity_of, in_blocks
from .baselines.perceptron import predict_by_perceptron
from .baselines.simple import predict_constant, predict_from_columns, predict_from_motion
from .baselines.support_vectors import predict_by_support_vectors
from .baselines.tangent import TangentSpace, covariance
from .cross_validation import TooFewError

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

#: Labels, by their names in any case, that say who somebody is; and what each is about.
_DEMOGRAPHICS = {"age": "age", "sex": "sex", "gender": "sex"}
#: Train recordings, at most, that the reference of the tangent space is worked out from; and test
#: recordings whose matrices are held at once.
_REFERENCES = 200


@dataclass(frozen=True, eq=False)
class Material:
    """What all methods are fitted on, and what they are to predict."""

    reader: ShardReader
    data: LabelledData
    target: str
    kind: str
    most: int  # train recordings that methods on connectivity, and perceptrons, take
    seed: int
    #: Of all recordings that `data` counts, by the frozen model; none: methods on them say so.
    vectors: Mapping[str, Singles] | None = None
    threads: int = 1

    @cached_property
    def train(self) -> list[str]:
        """Train recordings with the label."""
        return sorted(self.data.lengths["train"])

    @cached_property
    def test(self) -> list[str]:
        """Test recordings with the label."""
        return sorted(self.data.lengths["test"])

    @cached_property
    def drawn(self) -> list[str]:
        """At most `most` of the train recordings: matrices of all pairs of them are to fit."""
        order = sorted(self.train, key=lambda name: uniform_of("baselines", self.seed, name))
        return sorted(order[: self.most])

    def fitted_on(self, names: list[str]) -> tuple[Floats, list[str]]:
        """Labels of train recordings, and whose they are; some of each class, or `TooFewError`."""
        truth = self.data.truth(names)
        if self.kind != "regression" and set(truth) != set(self.data.truth(self.train)):
            raise TooFewError(f"a class has none of the {len(names)} recordings that are drawn")
        return truth, groups_of(self.reader, names)

    @cached_property
    def span(self) -> Span:
        """Connectivity of the drawn and the test recordings, among the drawn ones."""
        return span_of(
            connectivity_of(self.drawn, self.reader, self.threads),
            in_blocks(self.test, self.reader, self.threads),
        )

    @cached_property
    def vector_span(self) -> Span:
        """Vectors of the train and the test recordings, among the train ones."""
        if self.vectors is None:
            raise TooFewError("there are no vectors of the pretrained model")
        own, other = (
            np.stack([self.vectors[name] for name in names]) for names in (self.train, self.test)
        )
        return span_of(own, [other])

    def between(self, train: Sequence[str], test: Sequence[str]) -> Material:
        """The same of fewer recordings."""
        lengths = {
            split: {name: self.data.lengths[split][name] for name in names}
            for split, names in (("train", train), ("test", test))
        }
        return replace(self, data=replace(self.data, lengths={**self.data.lengths, **lengths}))


def groups_of(reader: ShardReader, names: Sequence[str]) -> list[str]:
    """Whose recordings these are: cross-validation keeps a subject together."""
    return [str(subject) for subject in reader.table.loc[list(names), "subject"]]


def site_names(table: pd.DataFrame, names: Sequence[str]) -> NDArray[np.str_]:
    """Where these recordings were made: dataset and site, as far as they are known."""
    rows = table.loc[list(names)]
    columns = [name for name in ("dataset", "site") if name in rows]
    parts = [
        rows[name].astype(object).where(rows[name].notna(), "").astype(str) for name in columns
    ]
    return np.array(["/".join(one) for one in zip(*parts, strict=True)], dtype=np.str_)


def constant(given: Material) -> Floats:
    """The mean of the train labels."""
    truth, _ = given.fitted_on(given.train)
    return predict_constant(truth, len(given.test), kind=given.kind)


def linear_on_connectivity(given: Material) -> Floats:
    """Ridge or logistic regression."""
    span, (truth, owners) = given.span, given.fitted_on(given.drawn)
    return predict_from_features(span.train, truth, owners, span.test, kind=given.kind)


def support_vectors_on_connectivity(given: Material) -> Floats:
    """Support vector machines."""
    truth, owners = given.fitted_on(given.drawn)
    return predict_by_support_vectors(given.span, truth, owners, kind=given.kind)


def perceptron_on_connectivity(given: Material) -> Floats:
    """Networks of one hidden layer."""
    span, (truth, owners) = given.span, given.fitted_on(given.drawn)
    return predict_by_perceptron(
        span.train, truth, owners, span.test, kind=given.kind, seed=given.seed
    )


def linear_on_tangents(given: Material) -> Floats:
    """Ridge or logistic regression on the tangent space of covariances."""
    references = given.drawn[:: math.ceil(len(given.drawn) / _REFERENCES)]  # of all sites
    space = TangentSpace.around(
        np.stack([covariance(given.reader.series(name)) for name in references])
    )
    if not space.parcels.any():
        raise TooFewError("no parcel has data in all recordings that the reference is made from")

    def vectors(names: Sequence[str]) -> Singles:
        return np.stack([space.vector(covariance(given.reader.series(name))) for name in names])

    starts = range(0, len(given.test), _REFERENCES)
    blocks = (vectors(given.test[start : start + _REFERENCES]) for start in starts)
    span = span_of(vectors(given.drawn), blocks)
    truth, owners = given.fitted_on(given.drawn)
    return predict_from_features(span.train, truth, owners, span.test, kind=given.kind)


def motion(given: Material) -> Floats:
    """Linear, on the mean framewise displacement alone."""
    table = given.reader.table
    own, other = (
        table.loc[names, "mean_fd"].to_numpy(dtype=float) for names in (given.train, given.test)
    )
    if not (np.isfinite(own).all() and np.isfinite(other).all()):
        raise TooFewError("the head motion of some recordings is not known")
    truth, owners = given.fitted_on(given.train)
    return predict_from_motion(own, truth, owners, other, kind=given.kind)


def site(given: Material) -> Floats:
    """Linear, on where people were scanned."""
    columns = [name for name in ("dataset", "site") if _varies(given, name)]
    if not columns:
        raise TooFewError("all train recordings are of one site")
    table = given.reader.table[columns]
    if len(columns) > 1:  # site 1 of one dataset is not site 1 of another
        where = pd.Series(site_names(table, list(table.index)), index=table.index)
        table = table[["dataset"]].assign(site=where.where(table["site"].notna()))
    # Sites are often numbered: their numbers are names.
    return _from_columns(given, table, names=True)


def demographics(given: Material) -> Floats:
    """Linear, on age and sex, but for the one that is to be predicted, by whatever name."""
    own = _DEMOGRAPHICS.get(given.target.lower())
    columns = [
        name
        for name in given.reader.table.columns.astype(str)
        if name.startswith(LABEL_PREFIX)
        and _DEMOGRAPHICS.get(name.removeprefix(LABEL_PREFIX).lower()) not in (None, own)
        and _varies(given, name)
    ]
    if not columns:
        raise TooFewError("there is no label age or sex beside this one")
    return _from_columns(given, given.reader.table[columns])


BASELINES: dict[str, Callable[[Material], Floats]] = {
    "constant": constant,
    "connectivity": linear_on_connectivity,
    "tangent": linear_on_tangents,
    "svm": support_vectors_on_connectivity,
    "mlp": perceptron_on_connectivity,
    "motion": motion,
    "site": site,
    "demographics": demographics,
}


def _varies(given: Material, column: str) -> bool:
    table = given.reader.table
    return column in table and table.loc[given.train, column].nunique() > 1


def _from_columns(given: Material, table: pd.DataFrame, *, names: bool = False) -> Floats:
    truth, owners = given.fitted_on(given.train)
    own, other = table.loc[given.train], table.loc[given.test]
    return predict_from_columns(own, truth, owners, other, kind=given.kind, names=names)
