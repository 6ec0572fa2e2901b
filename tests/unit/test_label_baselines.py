"""Plain methods that read labels, on traits that are planted."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import logm, sqrtm
from scipy.spatial.distance import pdist
from scipy.special import expit

from brainlm.evaluate import label_baselines
from brainlm.evaluate.baselines.connectivity import (
    predict_from_features,
    span_of,
    span_of_train,
)
from brainlm.evaluate.baselines.correlations import connectivity
from brainlm.evaluate.baselines.perceptron import predict_by_perceptron
from brainlm.evaluate.baselines.simple import as_numbers, predict_from_columns
from brainlm.evaluate.baselines.support_vectors import predict_by_support_vectors
from brainlm.evaluate.baselines.tangent import TangentSpace, covariance, geometric_mean
from brainlm.evaluate.cross_validation import TooFewError
from brainlm.evaluate.label_baselines import Material
from brainlm.evaluate.label_scores import compare_errors, of_shares, score, scorer_of
from brainlm.shards.labels import LabelScale
from brainlm.train.label_scores import binary_scores, regression_scores
from brainlm.train.labelled import LabelledData


def _positive(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    roots = rng.standard_normal((count, size, 3 * size))
    return roots @ roots.transpose(0, 2, 1) / (3 * size)


def _series(trait: float, rng: np.random.Generator, length: int = 150) -> np.ndarray:
    """Two groups of four parcels that go together the more, the larger the trait."""
    factors = rng.standard_normal((length, 2))
    shared = expit(2 * trait)
    mixed = np.stack([factors[:, 0], shared * factors[:, 0] + (1 - shared) * factors[:, 1]], axis=1)
    return (np.repeat(mixed, 4, axis=1) + rng.standard_normal((length, 8))).astype(np.float32)


@pytest.fixture(scope="module")
def cohort():
    rng = np.random.default_rng(0)
    traits = rng.uniform(-1, 1, 120)
    return traits, [_series(trait, rng) for trait in traits]


def _by_support_vectors(features, truth, groups, kind):
    """Fitted on the first eighty."""
    span = span_of(features[:80], [features[80:]])
    return predict_by_support_vectors(span, truth[:80], groups, kind=kind)


def test_a_planted_trait_is_read_by_support_vectors(cohort) -> None:
    traits, series = cohort
    fc = np.stack([connectivity(one) for one in series])
    fc[3, 5] = np.nan
    groups = [str(number // 2) for number in range(80)]
    guess = _by_support_vectors(fc, traits, groups, "regression")
    assert regression_scores(traits[80:], guess)["r2"] > 0.4
    classes = (traits > 0.3).astype(float)
    chance = _by_support_vectors(fc, classes, groups, "binary")
    found = binary_scores(classes[80:], chance)
    assert found["auroc"] > 0.85
    assert found["balanced_accuracy"] > 0.7
    three = np.digitize(traits, [-0.3, 0.3]).astype(float)
    of_each = _by_support_vectors(fc, three, groups, "classes")
    assert of_each.sum(axis=1) == pytest.approx(np.ones(40))
    assert (of_each.argmax(axis=1) == three[80:]).mean() > 0.55


def test_a_planted_trait_is_read_by_perceptrons(cohort) -> None:
    traits, series = cohort
    fc = np.stack([connectivity(one) for one in series])
    own, other = span_of_train(fc[:80], fc[80:])
    groups = [str(number // 2) for number in range(80)]
    fit = {"groups": groups, "seed": 1}
    guess = predict_by_perceptron(own, traits[:80], test=other, kind="regression", **fit)
    assert regression_scores(traits[80:], guess)["r2"] > 0.3
    again = predict_by_perceptron(own, traits[:80], test=other, kind="regression", **fit)
    assert (guess == again).all()
    classes = (traits > 0.3).astype(float)
    chance = predict_by_perceptron(own, classes[:80], test=other, kind="binary", **fit)
    found = binary_scores(classes[80:], chance)
    assert found["auroc"] > 0.8
    assert found["balanced_accuracy"] > 0.7


def test_a_guess_hangs_on_its_own_recording_alone(cohort) -> None:
    traits, series = cohort
    fc = np.stack([connectivity(one) for one in series])
    groups = [str(number) for number in range(80)]
    together = _by_support_vectors(fc, traits, groups, "regression")
    alone = _by_support_vectors(fc[[*range(80), 85]], traits, groups, "regression")
    assert alone[0] == pytest.approx(together[5], rel=1e-9)


def test_the_way_from_the_reference_is_the_logarithm_around_it() -> None:
    rng = np.random.default_rng(1)
    matrices = _positive(rng, 6, 5)
    space = TangentSpace.around(matrices)
    root = np.linalg.inv(sqrtm(space.reference).real)
    exact = logm(root @ matrices[2] @ root).real
    rows, columns = np.triu_indices(5)
    wanted = exact[rows, columns] * np.where(rows == columns, 1, 2**0.5)
    assert space.vector(matrices[2]) == pytest.approx(wanted, abs=1e-5)
    assert np.linalg.norm(space.vector(matrices[2])) == pytest.approx(np.linalg.norm(exact))
    assert space.vector(space.reference) == pytest.approx(np.zeros(15), abs=1e-6)
    assert np.mean([space.vector(m) for m in matrices], axis=0) == pytest.approx(
        np.zeros(15), abs=1e-5
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_the_geometric_mean_goes_along_with_a_change_of_axes(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    matrices, axes = _positive(rng, 4, size), rng.standard_normal((size, size)) + 2 * np.eye(size)
    turned = axes @ matrices @ axes.T
    wanted = axes @ geometric_mean(matrices) @ axes.T
    assert geometric_mean(turned) == pytest.approx(
        wanted, rel=1e-3, abs=1e-3 * np.abs(wanted).max()
    )


def test_the_geometric_mean_of_numbers_is_theirs() -> None:
    numbers = np.array([1.0, 4.0, 16.0])[:, None, None]
    assert geometric_mean(numbers)[0, 0] == pytest.approx(4.0)


def test_a_missing_parcel_is_what_the_reference_expects() -> None:
    rng = np.random.default_rng(2)
    matrices = _positive(rng, 8, 6)
    space = TangentSpace.around(matrices)
    holed = space.reference.copy()
    holed[2] = holed[:, 2] = np.nan
    assert space.vector(holed) == pytest.approx(np.zeros(21), abs=1e-6)
    holed = matrices[0].copy()
    holed[[1, 4]] = holed[:, [1, 4]] = np.nan
    whole, filled = space.vector(matrices[0]), space.vector(holed)
    assert np.isfinite(filled).all()
    assert np.linalg.norm(filled - whole) < np.linalg.norm(whole) * 1.5


def test_a_covariance_is_shrunk_and_lacks_what_the_recording_lacks() -> None:
    series = np.random.default_rng(3).standard_normal((40, 6)).astype(np.float32)
    series[:, 1] = np.nan
    series[:, 4] = 7.0
    found = covariance(series)
    known = [0, 2, 3, 5]
    assert np.isnan(found[[1, 4]]).all()
    assert np.isfinite(found[np.ix_(known, known)]).all()
    assert np.linalg.eigvalsh(found[np.ix_(known, known)]).min() > 0
    raw = np.corrcoef(series[:, known], rowvar=False)
    off = ~np.eye(4, dtype=bool)
    assert np.abs(found[np.ix_(known, known)][off]).sum() < np.abs(raw[off]).sum()


def test_columns_become_numbers_as_the_train_rows_have_them() -> None:
    train = pd.DataFrame({"age": [20.0, 40.0, np.nan], "site": ["a", "b", "a"]})
    test = pd.DataFrame({"age": [30.0, np.nan], "site": ["c", "b"]})
    own, other = as_numbers(train, test)
    assert own.tolist() == [[-1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0]]
    assert other.tolist() == [[0, 0, 0, 0], [0, 1, 0, 1]]


def test_a_site_that_tells_the_label_is_found() -> None:
    rng = np.random.default_rng(5)
    sites = rng.choice(["a", "b", "c"], 60)
    label = pd.Series(sites).map({"a": 0.0, "b": 1.0, "c": 3.0}).to_numpy()
    label = label + 0.1 * rng.standard_normal(60)
    table = pd.DataFrame({"site": sites})
    groups = [str(number) for number in range(40)]
    guess = predict_from_columns(table[:40], label[:40], groups, table[40:], kind="regression")
    assert regression_scores(label[40:], guess)["r2"] > 0.95


def test_errors_are_compared_subject_by_subject() -> None:
    rng = np.random.default_rng(6)
    subjects = np.repeat([f"{number:02d}" for number in range(20)], 2)
    truth = rng.standard_normal(40)
    guesses = {
        "good": truth + 0.3 * rng.standard_normal(40),
        "alike": truth + 0.3 * rng.standard_normal(40),
        "bad": np.zeros(40),
    }
    found = compare_errors(guesses, truth, subjects, "regression", seed=0)
    assert set(found) == {"alike", "bad"}
    more = ((guesses["bad"] - truth) ** 2 - (guesses["good"] - truth) ** 2).mean()
    assert found["bad"]["error_more"] == pytest.approx(more)
    assert found["bad"]["p_holm"] < 0.01
    assert found["alike"]["p_holm"] > 0.05


def test_errors_of_several_classes_are_those_of_their_chances() -> None:
    truth = np.array([0.0, 1.0, 2.0, 1.0, 0.0, 2.0])
    subjects = np.array(list("abcdef"))
    sure, level = np.eye(3)[truth.astype(int)], np.full((6, 3), 1 / 3)
    found = compare_errors({"level": level, "sure": sure}, truth, subjects, "classes", seed=0)
    assert found["sure"]["error_more"] == pytest.approx(-2 / 3)


def test_numbered_sites_are_names() -> None:
    rng = np.random.default_rng(5)
    sites = rng.choice(["1", "2", "3"], 60)
    label = (sites == "2") + 0.1 * rng.standard_normal(60)
    table = pd.DataFrame({"site": sites})
    groups = [str(number) for number in range(40)]
    for column in (table, table.astype(int)):
        guess = predict_from_columns(
            column[:40], label[:40], groups, column[40:], kind="regression", names=True
        )
        assert regression_scores(label[40:], guess)["r2"] > 0.9


def _given(columns: dict[str, object], label: np.ndarray, target: str) -> Material:
    """As many people, three quarters of them to train on; nothing but columns of the index."""
    names = [f"r{number:03d}" for number in range(len(label))]
    table = pd.DataFrame({"subject": names, **columns}, index=names)
    cut = len(names) * 3 // 4
    lengths = {"train": dict.fromkeys(names[:cut], 1), "test": dict.fromkeys(names[cut:], 1)}
    data = LabelledData(
        dict(zip(names, label, strict=True)), {**lengths, "val": {}}, LabelScale(0, 1), {}
    )
    return Material(SimpleNamespace(table=table), data, target, "regression", 100, 0)  # type: ignore[arg-type]


def test_sites_of_two_datasets_that_share_a_name_are_two() -> None:
    rng = np.random.default_rng(0)
    dataset, place = rng.choice(["A", "B"], 200), rng.choice(["1", "2"], 200)
    label = np.where((dataset == "A") == (place == "1"), 1.0, -1.0) + rng.normal(0, 0.1, 200)
    known = _given({"dataset": dataset, "site": place}, label, "score")
    assert regression_scores(label[150:], label_baselines.site(known))["r2"] > 0.9
    unknown = np.where(dataset == "A", place, None)  # B's sites are not known
    some = label_baselines.site(_given({"dataset": dataset, "site": unknown}, label, "score"))
    assert len(np.unique(some.round(6))) == 3


def test_demographics_do_not_hold_the_label_under_its_other_name() -> None:
    label = np.random.default_rng(0).integers(0, 2, 80).astype(float)
    columns = {"label_sex": label, "label_gender": np.where(label > 0, "F", "M")}
    with pytest.raises(TooFewError, match="no label age or sex"):
        label_baselines.demographics(_given(columns, label, "sex"))
    found = label_baselines.demographics(_given(columns, label, "score"))
    assert regression_scores(label[60:], found)["r2"] > 0.9


def test_parts_without_a_class_are_never_fitted_on() -> None:
    """One of three people holds both classes: two parts would leave the third class 1 alone."""
    groups, truth = list("aaabccc"), np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0])
    features = np.random.default_rng(0).standard_normal((7, 12)).astype(np.float32)
    with pytest.raises(TooFewError, match="leave a class without"):
        predict_by_support_vectors(span_of(features, [features]), truth, groups, kind="binary")


def test_the_scaled_error_is_of_labels_as_they_are() -> None:
    """Below the smallest train label as well: what is wrong there counts."""
    scale = LabelScale.fit(np.array([5.0, 20.0]), "regression", "score", "log-minmax")
    given = SimpleNamespace(kind="regression", data=SimpleNamespace(scale=scale))
    truth = np.array([0.0, 10.0, 20.0])
    found = scorer_of(given)(truth, np.array([5.0, 10.0, 20.0]))  # type: ignore[arg-type]
    assert found["mse_scaled"] == pytest.approx(scale.to_model(np.zeros(1))[0] ** 2 / 3)
    below = scorer_of(given)(truth, np.array([-7.0, 10.0, 20.0]))  # type: ignore[arg-type]
    assert below["mse_scaled"] == pytest.approx(found["mse_scaled"])


def _rare(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    truth = (rng.random(600) < 0.08).astype(float)
    return truth, (2.5 * truth + rng.standard_normal(600))[:, None]


def test_chances_of_a_rare_class_are_compared_at_its_frequency() -> None:
    """What knows something of a rare class is better than its share, though told at level odds."""
    rng = np.random.default_rng(0)
    truth, features = _rare(rng)
    groups = [f"{number:03d}" for number in range(300)]
    chance = predict_from_features(
        features[:300], truth[:300], groups, features[300:], kind="binary"
    )
    share = truth[:300].mean()
    guesses = {
        "model": of_shares(chance, np.array([1 - share, share])),
        "constant": np.full(300, share),
    }
    found = compare_errors(guesses, truth[300:], np.array(groups), "binary", seed=0)["constant"]
    assert found["error_more"] > 0
    assert found["p"] < 0.05
    as_told = {"model": chance, "constant": guesses["constant"]}
    told = compare_errors(as_told, truth[300:], np.array(groups), "binary", seed=0)["constant"]
    assert told["error_more"] < 0


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=5), st.floats(0.05, 0.95))
def test_chances_are_brought_to_other_shares_by_bayes(chances: list[float], share: float) -> None:
    level = np.array(chances)
    shares = np.array([1 - share, share])
    of_one = of_shares(level, shares)
    odds = level / (1 - level) * share / (1 - share)
    assert of_one == pytest.approx(odds / (1 + odds))
    of_each = of_shares(np.stack([1 - level, level], axis=1), shares)
    assert of_each == pytest.approx(np.stack([1 - of_one, of_one], axis=1))


@pytest.mark.parametrize("level", [True, False])
def test_tests_take_each_method_at_the_frequencies_that_it_was_told_for(
    level: bool,
) -> None:
    truth, _ = _rare(np.random.default_rng(1))
    names = [f"{number:03d}" for number in range(600)]
    columns = {"subject": names, "dataset": "one", "split": ["train"] * 300 + ["test"] * 300}
    table = pd.DataFrame(columns, index=names)
    material = SimpleNamespace(
        reader=SimpleNamespace(table=table),
        data=SimpleNamespace(truth=lambda some: truth[300:], n_missing=0, classes=()),
        train=names[:300],
        test=names[300:],
        fitted_on=lambda some: (truth[:300], some),
        drawn=names[:300],
        kind="binary",
        target="rare",
        seed=0,
    )
    share = truth[:300].mean()
    guesses = {"model": np.full(300, 0.5 if level else share), "constant": np.full(300, share)}
    found = score(
        guesses, {}, material, bootstrap=10, as_frequent=() if level else ("model",)
    ).metrics["tests"]["constant"]
    assert found["error_more"] == pytest.approx(0, abs=1e-12)


def test_chances_of_support_vectors_are_calibrated(cohort) -> None:
    traits, series = cohort
    fc = np.stack([connectivity(one) for one in series])
    groups = [str(number // 2) for number in range(80)]
    truth = (traits > 0.0).astype(float)
    chance = _by_support_vectors(fc, truth, groups, "binary")
    noise = np.random.default_rng(1).standard_normal(fc.shape).astype(np.float32)
    of_noise = _by_support_vectors(noise, truth, groups, "binary")
    assert ((chance - truth[80:]) ** 2).mean() < 0.05  # the squashed distance: above
    assert np.abs(of_noise - 0.5).max() < 0.1


def test_few_features_of_many_recordings_need_no_products_of_recordings() -> None:
    """Vectors of 60,000 recordings: the products of all pairs would be 29 GB."""
    rng = np.random.default_rng(0)
    many, few = rng.standard_normal((60_000, 6)), rng.standard_normal((5, 6))
    features, of_test = span_of_train(many.astype(np.float32), few.astype(np.float32))
    assert features.shape == (60_000, 6)
    ratio = pdist(of_test) / pdist(few)  # turned, and divided by one number
    assert ratio == pytest.approx(np.full(10, ratio[0]), rel=1e-4)
    assert (features**2).sum(axis=1).mean() == pytest.approx(1)


def test_what_does_not_vary_is_told_and_not_fitted() -> None:
    for columns in (0, 3, 30):
        same = np.ones((10, columns), np.float32)
        with pytest.raises(TooFewError, match="the same in all train recordings"):
            span_of_train(same, same)


def test_the_reference_is_of_recordings_from_everywhere(monkeypatch) -> None:
    """Of 399, whose names begin with those of one site, not the first 200."""
    names = [f"sub-{number:03d}" for number in range(399)]
    material = SimpleNamespace(drawn=names, reader=SimpleNamespace(series=lambda name: name))

    class AskedError(Exception):
        pass

    def around(references) -> None:
        raise AskedError(list(references))

    monkeypatch.setattr(label_baselines, "covariance", lambda series: int(series[4:]))
    monkeypatch.setattr(label_baselines.TangentSpace, "around", around)
    with pytest.raises(AskedError) as told:
        label_baselines.linear_on_tangents(material)
    chosen = told.value.args[0]
    assert len(chosen) <= 200
    assert (chosen[0], chosen[-1]) == (0, 398)


@pytest.mark.parametrize("kind", ["binary", "classes"])
def test_a_class_that_was_not_drawn_is_told(cohort, kind: str) -> None:
    """Chances of two of three classes would be read as those of the first two."""
    _, series = cohort
    names = [f"{number:03d}" for number in range(120)]
    table = pd.DataFrame({"subject": names}, index=names)
    labels = dict(zip(names, np.arange(120) % 2 + (kind == "classes"), strict=True))
    labels["007"] = labels["008"] = 0.0 if kind == "classes" else 1.0
    if kind == "binary":
        labels |= dict.fromkeys(set(names) - {"007", "008"}, 0.0)
    material = label_baselines.Material(
        SimpleNamespace(table=table, series=lambda name: series[int(name)]),
        SimpleNamespace(
            lengths={"train": names[:100], "test": names[100:]},
            truth=lambda some: np.array([labels[name] for name in some], float),
        ),
        target="rare",
        kind=kind,
        most=20,
        seed=0,
    )
    assert not {"007", "008"} & set(material.drawn)
    for method in ("connectivity", "tangent", "svm"):
        with pytest.raises(TooFewError, match="none of the 20 recordings"):
            label_baselines.BASELINES[method](material)


def test_recordings_without_a_parcel_in_common_have_no_tangent_space() -> None:
    rng = np.random.default_rng(0)
    names = [f"{number:03d}" for number in range(12)]
    series = dict(zip(names, rng.standard_normal((12, 60, 6)).astype(np.float32), strict=True))
    for number, name in enumerate(names):
        series[name][:, [number % 6, (number + 1) % 6]] = np.nan
    material = SimpleNamespace(
        drawn=names, test=names, reader=SimpleNamespace(series=series.__getitem__)
    )
    with pytest.raises(TooFewError, match="no parcel has data in all"):
        label_baselines.linear_on_tangents(material)
