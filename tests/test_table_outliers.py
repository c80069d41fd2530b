"""Outlier detectors of tables."""

import pickle
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from _tables import N, density, few_components, quick, table  # noqa: F401
from sklearn.base import clone
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.utils import get_tags

from skflows import (
    AdaptiveKernelDensity,
    AutoDensity,
    ConditionalDensity,
    DensityClassifier,
    DensityOutlierDetector,
    FlowRegressor,
)
from skflows.columns.checks import ColumnWarning
from skflows.columns.encoding import Encoding
from skflows.table._usual import UsualScores


def test_outlier_detector(table):
    """A swapped pair of cells is odd, and explained by its column."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=300)
    frame = pd.DataFrame(
        {"x": x, "side": np.where(x > 0, "right", "left"), "z": rng.normal(size=300)}
    )
    frame["z"] = frame["z"].mask(rng.uniform(size=300) < 0.2)
    detector = DensityOutlierDetector(
        quick(max_iter=10), calibration="conformal", cv=2, random_state=0
    ).fit(frame)
    odd = pd.DataFrame({"x": [2.0], "side": ["left"], "z": [0.1]})
    usual = odd.assign(side="right")
    assert detector.p_values(odd)[0] < 0.05 < detector.p_values(usual)[0]
    found = detector.explain(odd, as_frame=True)
    assert found.columns.tolist() == ["x", "side", "z"]
    assert found.sum(axis=1)[0] == pytest.approx(detector.score_samples(odd)[0])
    assert found.iloc[0].idxmin() in ("x", "side")
    copy = pickle.loads(pickle.dumps(detector))
    assert (copy.score_samples(frame[:5]) == detector.score_samples(frame[:5])).all()


def test_dependence(density, table):
    """The log-density minus the log-densities of the single columns; 0 if they are independent."""
    detector = DensityOutlierDetector(FrozenEstimator(density), statistic="dependence")
    rows = table[:20]
    found = detector.fit(table[:50]).score_samples(rows)
    singles = sum(density.marginal([name]).score_samples(rows[[name]]) for name in table)
    np.testing.assert_allclose(found, density.score_samples(rows) - singles, atol=1e-8)
    one = rows[:1].assign(**dict.fromkeys(table.columns.drop("size")))  # nothing to depend on
    np.testing.assert_allclose(detector.score_samples(one), 0, atol=1e-8)
    with pytest.raises(ValueError, match="needs the densities of single columns"):
        DensityOutlierDetector(AutoDensity(), statistic="dependence").fit(np.eye(9))


def test_other_densities_point_to_this_one():
    frame = pd.DataFrame({"x": [1.0, 2.0, np.nan], "kind": ["a", "b", "a"]})
    with pytest.raises(ValueError, match="TableDensity"):
        AutoDensity().fit(frame)
    with pytest.raises(ValueError, match="TableDensity"):
        AutoDensity().fit(frame[["x"]])


def test_detectors_of_tables(table):
    """They use held-out scores of the density, and take categories that a fold lacks.

    The scores are relative to what is usual for the missing values of a row.
    """
    own = table[["sex", "size", "member"]].assign(code=["only"] + ["usual"] * (N - 1))
    detector = DensityOutlierDetector(quick(handle_unknown="rare"), calibration="conformal")
    detector.fit(own)
    (model,) = detector.models_
    scores = model.density.estimator.held_out_scores_
    for rows in own.isna().groupby(list(own)).indices.values():  # with the same missing values
        found = detector.held_out_scores_[rows]
        assert (np.argsort(found, kind="stable") == np.argsort(scores[rows], kind="stable")).all()
    weight = np.where(np.arange(N) < 150, 0.0, 1.0)
    weighted = clone(detector).fit(own, sample_weight=weight)
    assert (np.isnan(weighted.held_out_scores_) == (weight == 0)).all()
    # A fold without the category knows of it.
    folds = DensityOutlierDetector(quick(), calibration="conformal", cv=2).fit(own)
    scores = folds.held_out_scores_
    assert np.isfinite(scores).all() and scores[0] < np.quantile(scores, 0.1)
    # The rows that it holds out have no part in its maps.
    is_used = ~np.isin(scores, folds._calibration[0])
    alone = quick(max_iter=1).fit(own[is_used])
    maps = [
        found._schema.columns[1].variables[0].maps["quantile"]
        for found in (folds.models_[0].density.estimator, alone)
    ]
    sizes = np.array(own["size"].dropna())
    assert np.array_equal(*(found.forward(sizes)[0] for found in maps))


def test_texts_in_a_column_of_numbers_are_named_by_detectors():
    encoding, _ = Encoding.read(pd.DataFrame({"code": [1, 2]}))
    with pytest.raises(
        ValueError, match=r"'code' held numbers in fit; now it holds 'A0', which is no number"
    ):
        encoding.encode(pd.DataFrame({"code": ["A0", "1"]}))


def test_detector_sees_new_categories_of_a_categorical_column():
    """They are not taken for missing, which is ordinary."""
    rng = np.random.default_rng(0)
    kind = pd.Categorical(rng.choice(list("abc"), 90))
    table = pd.DataFrame({"kind": kind, "x": rng.normal(size=90)})
    detector = DensityOutlierDetector(quick(handle_unknown="rare")).fit(table)
    new = pd.DataFrame({"kind": pd.Categorical(["new", None]), "x": [0.0, 0.0]})
    odd, ordinary = detector.score_samples(new)
    assert odd < ordinary - 2


def test_tables_have_the_columns_of_fit(density, table):
    """Detectors and classifiers read them alike: the same columns, in the same order."""
    own = table[["sex", "size"]]
    detector = DensityOutlierDetector(quick(n_orders=1)).fit(own)
    label = table["member"].astype(int)
    classifier = DensityClassifier(quick(n_orders=1), calibration=None).fit(own, label)
    for X in (own[:0], own[["size"]], own.assign(more=1.0), own[["size", "sex"]]):
        for estimator in (detector, classifier):
            with pytest.raises(ValueError, match=r"feature names should match|table of 0 sample"):
                estimator.predict(X)
    frozen = DensityOutlierDetector(FrozenEstimator(density))
    with pytest.raises(ValueError, match="feature names should match"):
        frozen.fit(own)


@pytest.mark.parametrize("calibration", [None, "empirical_null"])
def test_a_fit_that_fails_leaves_nothing_fitted(calibration):
    numbers = pd.DataFrame(np.random.default_rng(0).standard_normal((60, 2)), columns=["x", "y"])
    density = GaussianMixture() if calibration is None else AdaptiveKernelDensity()
    detector = DensityOutlierDetector(density, calibration=calibration).fit(numbers)
    with pytest.raises(ValueError, match="contains NaN"):
        detector.fit(numbers.assign(y=np.nan))
    with pytest.raises(NotFittedError):
        detector.predict(numbers)
    assert not hasattr(detector, "models_") and not hasattr(detector, "p_values_")


def test_tags_of_input_are_those_of_an_estimator_that_takes_tables(table):
    def tags_of(estimator):
        tags = get_tags(estimator).input_tags
        return [tags.allow_nan, tags.string, tags.categorical]

    inner = DensityOutlierDetector(quick(n_orders=1))
    for estimator in (inner, DensityClassifier(quick()), ConditionalDensity(), FlowRegressor()):
        assert all(tags_of(estimator))
    # Arrays of numbers are what these take, whatever their estimator does.
    for estimator in (
        DensityOutlierDetector(IsolationForest()),
        DensityClassifier(ConditionalDensity()),
    ):
        assert not any(tags_of(estimator))
    own = table[["sex", "size"]]
    scores = DensityOutlierDetector(inner).fit(own).score_samples(own)
    np.testing.assert_array_equal(scores, clone(inner).fit(own).score_samples(own))


def test_usual_scores_are_learned_by_state():
    """Of values that are missing, frequent, and others; a rare state has no part in them."""
    rng = np.random.default_rng(0)
    n = 1000
    amount = np.where(rng.uniform(size=n) < 0.6, 0.0, rng.lognormal(size=n))
    size = np.where(rng.uniform(size=n) < 0.3, np.nan, rng.normal(size=n))
    rare = np.where(np.arange(n) < 10, np.nan, rng.normal(size=n))
    values = np.stack([amount, size, rare], axis=1)
    effect = 8.0 * (amount == 0) - 2.0 * np.isnan(size) + 5.0 * np.isnan(rare)
    noise = np.where(amount == 0, 1.0, 3.0) * rng.normal(size=n)
    scores = np.append((effect + noise)[:-1], -np.inf)
    variables = [SimpleNamespace(has_number=True)] * 3
    usual = UsualScores.fit(variables, values, scores, np.ones(n))
    assert [each.tolist() for each in usual.frequent] == [[0.0], [], []]
    relative = usual.relative(effect + noise, values)
    kinds = [amount == 0, amount > 0, np.isnan(size), ~np.isnan(size)]
    middles = [np.median(relative[rows & ~np.isnan(rare)]) for rows in kinds]
    spreads = [np.std(relative[rows & ~np.isnan(rare)]) for rows in kinds]
    assert np.ptp(middles) < 0.3
    assert max(spreads) / min(spreads) < 1.2
    assert np.median(relative[np.isnan(rare)]) - middles[0] > 2
    assert usual.relative(np.array([-np.inf]), values[:1]) == -np.inf


def test_scores_of_a_few_categories_have_no_usual_spread():
    """Among rows without a number, the distance of a rarer category would be any number of times
    that of the most frequent one, which is hardly more than 0.
    """
    rng = np.random.default_rng(0)
    n = 1000
    amount = np.where(rng.uniform(size=n) < 0.6, 0.0, rng.lognormal(size=n))
    of_category = rng.choice([-0.2, -1.9], n, p=[0.85, 0.15]) + 0.01 * rng.normal(size=n)
    scores = of_category - np.where(amount > 0, 8 + rng.normal(size=n) ** 2, 0.0)
    variables = [SimpleNamespace(has_number=True)]
    usual = UsualScores.fit(variables, amount[:, None], scores, np.ones(n))
    assert (usual.relative(scores, amount[:, None]) == scores).all()


def test_an_impossible_value_is_flagged_beside_frequent_ones_and_gaps():
    """Scores of rows with an amount of 0, and of others, are 10 nats apart: none of them is odd."""
    rng = np.random.default_rng(0)
    n = 300
    amount = np.where(rng.uniform(size=n) < 0.6, 0.0, rng.gamma(3, 20, n).round(2))
    size = np.where(rng.uniform(size=n) < 0.1, np.nan, rng.normal(20, 2, n).round(1))
    frame = pd.DataFrame({"amount": amount, "size": size, "kind": rng.choice(["a", "b"], n)})
    frame.loc[7, ["amount", "size"]] = [0.0, 60.0]
    detector = DensityOutlierDetector(
        quick(max_iter=5), calibration="empirical_null", fdr=0.05, random_state=0
    )
    found = detector.fit_predict(frame)
    assert found[7] == -1 and (found == -1).sum() <= 2
    is_low = detector.p_values_ < 0.1
    for rows in (amount == 0, amount > 0):  # 0 if all are judged by one curve
        assert 0.03 < is_low[rows].mean() < 0.25


def test_the_default_detector_leaves_out_names_of_rows_as_tables_do():
    rng = np.random.default_rng(0)
    own = pd.DataFrame({"who": [f"Mr {i}" for i in range(60)], "x": rng.normal(size=60)})
    with pytest.warns(ColumnWarning, match="'who' seems to name the rows") as warned:
        detector = DensityOutlierDetector(random_state=0).fit(own)
    assert len(warned) == 1
    other = own.assign(who="a new name")
    assert np.array_equal(detector.score_samples(other), detector.score_samples(own))


def test_columns_that_follow_from_others_are_not_blamed():
    """A row that mixes two keeps the rules: otherwise both dates of a stay were blamed."""
    rng = np.random.default_rng(0)
    start = pd.Timestamp("2023-01-01") + pd.to_timedelta(rng.integers(0, 500 * 1440, 400), "min")
    stay = pd.to_timedelta(rng.gamma(2, 2, 400) + 0.2, "D").round("min")
    table = pd.DataFrame({"start": start, "end": start + stay, "age": rng.integers(18, 95, 400)})
    table["net"] = rng.gamma(2, 300, 400).round(2)
    table["gross"] = (1.19 * table["net"]).round(2)
    table["ward"] = rng.choice(list("abc"), 400)
    detector = DensityOutlierDetector(quick(), random_state=0).fit(table[:380])
    odd = table[380:385].reset_index(drop=True)
    planted = {1: ("age", 170), 2: ("net", 9_999.0), 3: ("gross", 0.5)}
    for row, (name, value) in planted.items():
        odd.loc[row, name] = value
    changes = detector.explain(odd, as_frame=True)
    assert changes.sum(axis=1).to_numpy() == pytest.approx(detector.score_samples(odd), rel=1e-6)
    assert changes.loc[[0, 4]].abs().max(axis=None) < 30
    for row, (name, _) in planted.items():
        assert changes.loc[row].idxmin() == name
