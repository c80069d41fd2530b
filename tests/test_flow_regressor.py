"""Regression by a conditional density: predictions, intervals and their coverage."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.compose import TransformedTargetRegressor
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from test_conditional import heteroscedastic, quick

from skflows import ConditionalDensity, DensityClassifier, FlowRegressor, MAFDensity
from skflows.conditional._regions import translated
from skflows.conditional._regressor import fold_scores, row_scores
from skflows.distribution.distribution import distribution_of
from skflows.distribution.regions import HighestDensity


def small(max_iter=20, calibration="auto", prediction="mean", cv=2, **flow):
    density = ConditionalDensity(quick(max_iter, **flow), cv=cv)
    return FlowRegressor(density, prediction=prediction, calibration=calibration, random_state=0)


# Noise on whole numbers is drawn for each row: two rows are not one row of weight 2.
# Nor does a held-out part of repeated rows hold out that of weighted ones.
NOT_REPEATABLE = {
    f"check_sample_weight_equivalence_on_{kind}_data": "other rows are held out"
    for kind in ("dense", "sparse")
}


@parametrize_with_checks(
    [
        small(max_iter=30, cv=None, calibration=None, discrete=None),
        small(max_iter=30, cv=None, calibration=0.3, discrete=None),
    ],
    expected_failed_checks=lambda regressor: NOT_REPEATABLE if regressor.calibration else {},
)
def test_check_estimator(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def fitted():
    return small().fit(*heteroscedastic(800))


def bimodal(n, seed=0):
    """Return rows, and y near x or near -x with equal probability."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(1, 2, (n, 1))
    return X, rng.choice([-1, 1], n) * X[:, 0] + 0.1 * rng.standard_normal(n)


def is_covered(regions, y):
    return np.array(
        [
            ((region[:, 0] <= value) & (value <= region[:, 1])).any()
            for region, value in zip(regions, y, strict=True)
        ]
    )


def test_predictions_and_quantiles(fitted):
    X, _ = heteroscedastic(50, seed=1)
    distribution = fitted.predict_distribution(X)
    assert np.array_equal(fitted.predict(X), distribution.mean())
    quantiles = fitted.predict_quantiles(X, [0.1, 0.5, 0.9])
    assert quantiles.shape == (50, 3)
    assert (np.diff(quantiles, axis=1) > 0).all()
    assert np.allclose(quantiles[:, 1], distribution.median())
    assert np.abs(fitted.predict(X) - X[:, 0]).mean() < 0.25
    fitted.prediction = "median"
    assert np.allclose(fitted.predict(X), distribution.median())
    fitted.prediction = "mean"


@pytest.mark.parametrize("calibration", ["auto", 0.3])
def test_coverage(calibration):
    """Coverage does not depend on how good the density is: this one is barely trained."""
    regressor = small(2, calibration).fit(*heteroscedastic(400))
    X, y = heteroscedastic(500, seed=1)
    low, high = regressor.predict_interval(X, coverage=0.8).T
    n = len(regressor.calibration_scores_["central"])
    # The coverage of a table is that of its calibration rows, which a beta distribution describes.
    least, most = stats.beta(0.8 * n, 0.2 * n).ppf([1e-3, 1 - 1e-3]) + np.array([-0.06, 0.06])
    assert least < ((low <= y) & (y <= high)).mean() < most
    assert least < is_covered(regressor.predict_region(X, coverage=0.8), y).mean() < most


def counts(X, y):
    return np.rint(np.exp(y))


# Values of y that are discrete in one way or another.
DISCRETE = {
    "counts": counts,
    "logarithms of counts": lambda X, y: np.log1p(counts(X, y)),
    "zero-inflated": lambda X, y: np.where(y < 0.1, 0.0, y),
    "decimals": lambda X, y: np.where(y > 0, 2.9, 1.37),
    "some values": lambda X, y: np.array([0.0, 1.0, 2.5, 7.0])[np.rint(y).clip(0, 3).astype(int)],
}


@pytest.mark.parametrize("name", DISCRETE)
def test_coverage_of_discrete_values(name):
    X, y = heteroscedastic(1200)
    y = DISCRETE[name](X, y)
    regressor = small(3, 0.3, cv=None).fit(X[:600], y[:600])
    assert regressor.density_.discrete_
    X, y = X[600:], y[600:]
    for coverage in (0.6, 0.9):
        low, high = regressor.predict_interval(X, coverage).T
        assert ((low <= y) & (y <= high)).mean() > coverage - 0.08
        assert is_covered(regressor.predict_region(X, coverage), y).mean() > coverage - 0.08
    distribution = regressor.predict_distribution(X[:3])
    values = distribution.support[:, None]
    probability = distribution.pmf(values)
    assert np.allclose(np.cumsum(probability, axis=0), distribution.cdf(values))
    assert np.allclose(probability.sum(axis=0), 1)
    assert (distribution.pmf(values[1:] - 1e-3) == 0).all()
    draws = distribution.rvs(2000, random_state=0)
    assert np.allclose((draws == values[0]).mean(axis=0), probability[0], atol=0.05)


def test_intervals_are_wide_where_y_varies(fitted):
    low, high = fitted.predict_interval([[-0.9], [0.9]]).T
    assert high[1] - low[1] > 1.5 * (high[0] - low[0])


def test_regions_are_unions_where_there_are_several_modes():
    regressor = small(40).fit(*bimodal(500))
    X, y = bimodal(100, seed=1)
    regions = regressor.predict_region(X, coverage=0.9)
    assert np.median([len(region) for region in regions]) >= 2
    width = np.mean([np.diff(region, axis=1).sum() for region in regions])
    interval = np.diff(regressor.predict_interval(X, coverage=0.9), axis=1).mean()
    assert width < 0.6 * interval
    assert is_covered(regions, y).mean() > 0.8
    assert all((np.diff(region.ravel()) > 0).all() for region in regions)  # ascending, and apart


@pytest.mark.parametrize("cv", [None, 7])
def test_levels_of_draws_from_the_density_are_uniform(cv):
    """However many flows the cells of a histogram come from."""
    density = ConditionalDensity(quick(10), cv=cv, random_state=0).fit(*bimodal(200))
    X = np.full((1, 1), 1.5)
    y = density.sample(X, 2000, random_state=0).ravel()
    histogram = HighestDensity(*density.predict_distribution(X)._histogram())
    histogram.edges = np.repeat(histogram.edges, 2000, axis=0)
    histogram.levels = np.repeat(histogram.levels, 2000, axis=0)
    scores = histogram.scores(y)
    assert np.abs(np.quantile(scores, [0.1, 0.5, 0.9]) - [0.1, 0.5, 0.9]).max() < 0.04
    region = histogram.regions(0.8)[0]
    assert 0.75 < is_covered([region] * 2000, y).mean() < 0.85


@pytest.mark.parametrize("cv", [None, 4])
def test_joint_levels_of_draws_from_the_density_are_uniform(cv):
    X, y = heteroscedastic(100)
    Y = np.column_stack([y, y**2])
    flow = MAFDensity(n_transforms=1, hidden_layer_sizes=(8,), max_iter=2, discrete=None)
    density = ConditionalDensity(flow, cv=cv, random_state=0).fit(X, Y)
    X, _ = heteroscedastic(300, seed=1)
    y = density.sample(X, random_state=0)[:, 0]
    scores = density.predict_distribution(X)._density_scores(y)
    assert stats.kstest(scores, "uniform").statistic < 0.1


def test_draws_of_each_flow_cover_the_latent_space(monkeypatch):
    X, y = heteroscedastic(80)
    Y = np.column_stack([y, y**2])
    density = ConditionalDensity(quick(1), cv=4, random_state=0).fit(X, Y)
    latent = []
    path = "skflows.conditional._flows.inverse"
    monkeypatch.setattr(path, lambda flow, z, context: latent.append(z) or z)
    assert density.predict_distribution(X[:1])._draws.shape == (512, 1, 2)
    for own in latent:
        quadrants = (own > 0) @ [1, 2]
        assert np.bincount(quadrants).tolist() == [32, 32, 32, 32]


def test_scores_of_a_flow_become_those_of_the_mean_of_flows():
    one = np.random.default_rng(0).random((1000, 2))
    scores = np.array([[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]])
    expected = [[0, 0], [0.25, 0.4], [1, 1]]
    assert translated(scores, one, one * [0.5, 0.8]) == pytest.approx(np.array(expected), abs=1e-3)
    assert translated(scores, one, one) == pytest.approx(scores)


@pytest.mark.parametrize("k", [2, 4])
def test_levels_of_folds_are_those_of_the_mean(k):
    """If the mean of the flows is right, levels of rows that one flow has not seen are uniform."""
    X, y = heteroscedastic(120)
    group = np.arange(120) % k
    splits = [(np.flatnonzero(group == i), np.flatnonzero(group != i)) for i in range(k)]
    density = ConditionalDensity(quick(), cv=splits, random_state=0).fit(X, y + 2 * (group % 2))
    X, _ = heteroscedastic(1000, seed=1)
    y = density.sample(X, random_state=1).ravel()
    parts = density.held_out_ = np.array_split(np.arange(1000), k)
    for scores in fold_scores(density, density._encoded(X), y, parts, 500).values():
        assert stats.kstest(scores, "uniform").statistic < 0.06


def test_levels_of_folds_are_lower_where_flows_differ():
    X, y = heteroscedastic(60)
    regressor = small(40, cv=4, n_iter_no_change=40).fit(X, y)
    density = regressor.density_
    context = density._encoded(X)
    unseen = [
        row_scores(distribution_of(density._source(context[rows]).of([i])), y[rows])
        for i, rows in enumerate(density.held_out_)
    ]
    for name, own in regressor.calibration_scores_.items():
        one = np.concatenate([scores[name] for scores in unseen])
        assert 0.8 < np.mean(own) / np.mean(one) < 0.995


def test_too_few_rows_for_a_coverage():
    X, y = heteroscedastic(60)
    for target in (y, np.rint(y), np.column_stack([y, np.rint(y)])):
        regressor = small(1, 0.1).fit(X, target)
        with pytest.warns(UserWarning, match=r"With 6 .*coverage=0\.99 .*it needs 99"):
            assert np.isinf(regressor.predict_interval([[0.0]], 0.99)).all()
        if target.ndim == 1:
            with pytest.warns(UserWarning, match="has no finite ends"):
                region = regressor.predict_region([[0.0]], 0.99)[0]
            assert region.tolist() == [[-np.inf, np.inf]]
    assert np.isfinite(regressor.predict_interval([[0.0]], 0.8)).all()
    with pytest.raises(ValueError, match="coverage=2"):
        regressor.predict_interval([[0.0]], 2)
    with pytest.raises(ValueError, match="joint='yes'"):
        regressor.predict_interval([[0.0]], joint="yes")


def test_rows_that_calibrate():
    X, y = heteroscedastic(100)
    folds = small(1).fit(X, y)
    assert len(folds.calibration_scores_["central"]) == 100
    fifth = small(1, cv=None).fit(X, y)
    assert len(fifth.calibration_scores_["central"]) == 20
    few = small(1, cv=None).fit(X[:39], y[:39])
    assert few.calibration_scores_ is None
    weight = np.arange(100) % 2  # with rows of weight 0, the folds are those of the others
    weighted = small(1).fit(X, y, sample_weight=weight)
    assert len(weighted.calibration_scores_["central"]) == 50


def many_categories(n, seed):
    """Return a column of 150 categories, and y that depends on them."""
    effects = 2 * np.random.default_rng(0).standard_normal(150)
    rng = np.random.default_rng(seed)
    category = rng.integers(0, 150, n)
    return np.array([[f"c{i}"] for i in category], object), effects[category] + rng.normal(size=n)


def test_means_of_categories_do_not_leak_into_calibration():
    regressor = small(30).fit(*many_categories(300, seed=1))
    X, y = many_categories(1000, seed=2)
    low, high = regressor.predict_interval(X, 0.9).T
    assert 0.84 < ((low <= y) & (y <= high)).mean() < 0.95


def test_rows_of_weight_0_do_not_calibrate():
    X, y = heteroscedastic(200)
    weight = np.arange(200) % 2
    wrong = np.where(weight, y, 1e3)
    regressor = small(1, 0.3, cv=None).fit(X, wrong, sample_weight=weight)
    assert len(regressor.calibration_scores_["central"]) == 30
    assert np.isfinite(regressor.predict_interval(X, 0.9)).all()
    assert regressor.calibration_scores_["central"].max() < 1


def test_folds_of_large_tables(monkeypatch):
    """A held-out fifth does not bring a table down to the size that has folds as well."""
    monkeypatch.setattr("skflows.conditional._density.FOLDED_ROWS", (10, 100))
    regressor = small(1, cv="auto").fit(*heteroscedastic(110))
    assert len(regressor.density_.flows_) == 1
    weight = (np.arange(110) < 90).astype(float)
    weighted = small(1, cv="auto").fit(*heteroscedastic(110), sample_weight=weight)
    assert len(weighted.density_.flows_) == 5
    assert len(weighted.calibration_scores_["central"]) == 90


def test_splits_of_the_whole_table():
    X, y = heteroscedastic(60)
    splits = [(np.arange(30), np.arange(30, 60)), (np.arange(30, 60), np.arange(30))]
    assert len(small(1, cv=splits).fit(X, y).calibration_scores_["central"]) == 60
    with pytest.raises(ValueError, match="lists rows of the whole table"):
        small(1, 0.2, cv=splits).fit(X, y)


@pytest.mark.parametrize(("name", "value"), [("encoder", 3), ("cv", "five")])
def test_parameters_of_the_density_are_checked_before_its_rows(name, value):
    density = ConditionalDensity(**{name: value})
    with pytest.raises(ValueError, match=f"The '{name}' parameter of ConditionalDensity must be"):
        FlowRegressor(density).fit(*heteroscedastic(20))


def test_no_calibration():
    regressor = small(1, None).fit(*heteroscedastic(60))
    with pytest.raises(ValueError, match="at least 40 rows with calibration='auto'"):
        regressor.predict_interval([[0.0]])


def test_whole_numbers_at_the_ends_of_intervals():
    X, y = heteroscedastic(150)
    regressor = small().fit(X, np.rint(3 * y))
    intervals = regressor.predict_interval(X, 0.8)
    assert np.array_equal(intervals, np.rint(intervals))
    assert (intervals[:, 0] <= intervals[:, 1]).all()
    ends = np.concatenate([region.ravel() for region in regressor.predict_region(X, 0.8)])
    assert np.array_equal(ends, np.rint(ends))
    assert is_covered([row[None] for row in intervals], np.rint(3 * y)).mean() > 0.75


def test_several_outputs():
    X, y = heteroscedastic(100)
    Y = np.column_stack([y, np.rint(y)])
    regressor = small().fit(X, Y)
    assert regressor.score(X, Y) > 0.1
    assert regressor.predict_quantiles(X[:9], [0.1, 0.9]).shape == (9, 2, 2)
    intervals = regressor.predict_interval(X, 0.8)
    assert intervals.shape == (100, 2, 2)
    covered = (intervals[..., 0] <= Y) & (Y <= intervals[..., 1])
    assert (np.abs(covered.mean(axis=0) - 0.8) < [0.1, 0.15]).all()
    with pytest.raises(ValueError, match="y has 2 columns"):
        regressor.predict_region(X)
    with pytest.raises(ValueError, match="y has 1 columns"):
        regressor.p_values(X, y)


def test_joint_regions_of_several_outputs():
    X, y = heteroscedastic(500)
    Y = np.column_stack([y, y + np.random.default_rng(0).standard_normal(500)])
    regressor = small(20, 0.4, cv=None).fit(X[:300], Y[:300])
    X, Y = X[300:], Y[300:]
    alone, joint = (regressor.predict_interval(X, 0.8, joint=joint) for joint in (False, True))
    is_inside = (joint[..., 0] <= Y) & (Y <= joint[..., 1])
    assert np.abs(is_inside.all(axis=1).mean() - 0.8) < 0.1
    assert (np.diff(joint) > np.diff(alone)).all()
    p_values = regressor.p_values(X, Y)
    assert np.abs((p_values <= [[0.1], [0.5]]).mean(axis=1) - [0.1, 0.5]).max() < 0.1
    # Both outputs are likely alone, but not together, since they go up and down together.
    far = Y.mean(axis=0) + np.array([1.5, -1.5])
    assert (regressor.p_values(X[:50], np.tile(far, (50, 1))) < 0.1).mean() > 0.9


def test_p_values_and_regions_agree(fitted):
    X, y = heteroscedastic(200, seed=2)
    is_likely = fitted.p_values(X, y) > 0.3
    assert np.array_equal(is_likely, is_covered(fitted.predict_region(X, 0.7), y))


def test_answers_about_a_row_do_not_depend_on_others(fitted):
    """Up to rounding, as the documentation says."""
    X, y = heteroscedastic(9, seed=1)
    together = fitted.predict_distribution(X).logpdf(y)
    alone = [fitted.predict_distribution(X[[i]]).logpdf(y[[i]])[0] for i in range(9)]
    assert alone == pytest.approx(together, rel=1e-12)


def test_composition():
    X, y = heteroscedastic(120)
    X = np.column_stack([X, np.zeros(120)])
    regressor = small(20, calibration=None, cv=None)
    assert cross_val_predict(regressor, X, y, cv=2).shape == (120,)
    assert len(cross_val_score(make_pipeline(StandardScaler(), regressor), X, y, cv=2)) == 2
    scaled = TransformedTargetRegressor(regressor, transformer=StandardScaler()).fit(X, 100 * y)
    reference = LinearRegression().fit(X, 100 * y)
    assert np.corrcoef(scaled.predict(X), reference.predict(X))[0, 1] > 0.9
    fitted = regressor.fit(X, y)
    importance = permutation_importance(fitted, X, y, n_repeats=2, random_state=0)
    assert importance.importances_mean[0] > importance.importances_mean[1] == 0


def test_saved_and_loaded(fitted, tmp_path):
    import skflows

    fitted.save(tmp_path / "regressor.skflows")
    loaded = skflows.load(tmp_path / "regressor.skflows")
    X, _ = heteroscedastic(10)
    assert np.array_equal(loaded.predict_interval(X), fitted.predict_interval(X))


@pytest.mark.parametrize("kind", ["array", "list", "Series", "DataFrame", "polars"])
def test_targets_that_float64_would_round_are_refused(kind):
    y = 2**60 + np.arange(60)
    pl = pytest.importorskip("polars")
    forms = {
        "array": y,
        "list": y.tolist(),
        "Series": pd.Series(y),
        "DataFrame": pd.DataFrame({"y": y}),
        "polars": pl.Series(y),
    }
    with pytest.raises(ValueError, match=r"y holds 1152921504606846977, but .*subtract an offset"):
        small().fit(np.arange(60.0)[:, None], forms[kind])
    small(max_iter=1).fit(np.arange(60.0)[:, None], y - 2**60)
    with pytest.raises(ValueError, match="column 0 holds 1152921504606846977"):
        small().fit(y[:, None], np.arange(60.0))


def test_names_of_outputs_exist_only_if_they_are_texts():
    X, y = heteroscedastic(60)
    density = ConditionalDensity(quick(1), cv=None, random_state=0)
    regressor = FlowRegressor(density, calibration=None)
    for named, names in (
        (pd.Series(y, name="price"), ["price"]),
        (y, None),
        (pd.DataFrame({"price": y, "size": -y}), ["price", "size"]),
        (pd.DataFrame({0: y}), None),
        (pd.DataFrame({"price": y, 0: -y}), None),
    ):
        for estimator in (density, regressor):
            assert getattr(estimator.fit(X, named), "output_names_", None) == names
            assert hasattr(estimator, "output_names_") == (names is not None)


def test_messages_name_the_estimator_and_the_arguments_of_the_user():
    X, y = heteroscedastic(60)
    frame = pd.DataFrame(X).add_prefix("x")
    regressor = small(max_iter=1).fit(frame, y)
    classifier = DensityClassifier(quick(1), random_state=0).fit(frame, y > 0)
    for of, call in (
        ("FlowRegressor", regressor.predict),
        ("ConditionalDensity", ConditionalDensity(quick(1)).fit(frame, y).predict_distribution),
        ("DensityClassifier", classifier.predict),
    ):
        with pytest.warns(UserWarning, match="valid feature names") as warned:
            call(X)
        assert [f"but {of} was fitted" in str(each.message) for each in warned] == [True]
        with pytest.raises(ValueError, match=f"1 is required by {of}"):
            call(frame[:0])
    with pytest.raises(ValueError, match=r"quantiles=\[5, 50\].*give 0.05 for 5 %"):
        regressor.predict_quantiles(X, [5, 50])
    with pytest.raises(ValueError, match="read the file first"):
        FlowRegressor().fit("rows.csv", y)
