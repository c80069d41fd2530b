"""The room `calibration/`: ranks, gamma tails and thresholds, and all estimators that use them."""

import math

import numpy as np
import pytest
from _tables import few_components  # noqa: F401 - a fixture
from scipy import stats
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import ShuffleSplit
from test_conditional import quick
from test_outlier_calibration import Normal, skewed

from skflows import (
    ConditionalDensity,
    DensityClassifier,
    DensityOutlierDetector,
    FlowRegressor,
    MAFDensity,
    TableDensity,
)
from skflows.calibration import ranks, tails, thresholds
from skflows.calibration.ranks import Ranks, discoveries, joint_p_values, pooled
from skflows.calibration.tails import Tails, weighted_quantiles
from skflows.conditional._regressor import row_scores
from skflows.outlier import OutlierEnsemble

# All users of the room

N_CALIBRATING, N_NEW = 19, 40
WRONG = FrozenEstimator(Normal().fit(skewed(np.random.default_rng(0), 100)))
RIGHT = FrozenEstimator(Normal().fit(np.random.default_rng(0).standard_normal((10_000, 2))))
AFFINE = MAFDensity(n_transforms=1, hidden_layer_sizes=(4,), max_iter=1, random_state=0)


def by_detector(rng):
    split = ShuffleSplit(1, test_size=N_CALIBRATING, random_state=0)
    detector = DensityOutlierDetector(Normal(), calibration="conformal", cv=split, random_state=0)
    return detector.fit(skewed(rng, 60)).p_values(skewed(rng, N_NEW))


def by_tails(rng):
    """Gamma tails need a density that is right, at least for the more normal rows."""
    detector = DensityOutlierDetector(RIGHT, calibration="empirical_null")
    return detector.fit(rng.standard_normal((200, 2))).p_values(rng.standard_normal((N_NEW, 2)))


def by_classifier(rng):
    X = np.concatenate([skewed(rng, 2 * N_CALIBRATING), skewed(rng, 2 * N_CALIBRATING) + 1])
    y = np.arange(len(X)) // (2 * N_CALIBRATING)
    classifier = DensityClassifier(Normal(), calibration=0.5, random_state=0).fit(X, y)
    return classifier.p_values(skewed(rng, N_NEW))[:, 0]


def by_regressor(rng):
    """The density is wrong after one epoch; p-values are valid all the same."""
    n = 4 * N_CALIBRATING
    X, y = np.split(skewed(rng, n + N_NEW), 2, axis=1)
    regressor = FlowRegressor(ConditionalDensity(AFFINE), calibration=0.25, random_state=0)
    return regressor.fit(X[:n], y[:n, 0]).p_values(X[n:], y[n:, 0])


def by_ensemble(rng):
    """The score of an ensemble of one member is the logarithm of its p-value."""
    ensemble = OutlierEnsemble([("normal", WRONG)], random_state=0)
    return np.exp(ensemble.fit(skewed(rng, N_CALIBRATING)).score_samples(skewed(rng, N_NEW)))


def by_tails_of_an_ensemble(rng):
    ensemble = OutlierEnsemble([("normal", RIGHT)], contaminated=True, random_state=0)
    ensemble.fit(rng.standard_normal((200, 2)))
    return np.exp(ensemble.score_samples(rng.standard_normal((N_NEW, 2))))


# Function, and number of tables.
USERS = {
    "detector": (by_detector, 100),
    "detector by tails": (by_tails, 25),
    "classifier": (by_classifier, 100),
    "regressor": (by_regressor, 6),
    "ensemble": (by_ensemble, 100),
    "ensemble by tails": (by_tails_of_an_ensemble, 25),
}


@pytest.mark.parametrize("user", USERS)
def test_p_values_of_inliers_are_at_most_uniform(user):
    find, n_tables = USERS[user]
    p_values = np.array([find(np.random.default_rng(seed)) for seed in range(n_tables)])
    assert p_values.shape == (n_tables, N_NEW)
    for k in (1, 2, 6):
        alpha = k / N_CALIBRATING  # up to which a rank is k, without the new row itself k + 1
        # Rows of one table share the calibration rows.
        one = stats.betabinom(N_NEW, k, N_CALIBRATING + 1 - k).std() / N_NEW
        rate = (p_values <= alpha).mean()
        assert 0.3 * alpha < rate < alpha + 3 * one / np.sqrt(n_tables)


class Given(BaseEstimator):
    """The score of a row is its only value."""

    def fit(self, X, y=None):
        return self

    def score_samples(self, X):
        return X[:, 0]


def test_ranks_of_detector_classifier_and_regressor_are_equal():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 1))
    y = np.round(X[:, 0] + rng.standard_normal(60))  # so that scores are tied
    density = ConditionalDensity(quick(3), random_state=0)
    regressor = FlowRegressor(density, calibration=0.5, random_state=0).fit(X, y)
    y[0] = 1e3
    p_values = regressor.p_values(X, y)
    known = -regressor.calibration_scores_["highest_density"]
    new = -row_scores(regressor.predict_distribution(X), y)["highest_density"][:, None]
    assert len(set(p_values)) > 10
    assert (np.abs(new - known) < 1e-12).sum() >= 30  # rows that calibrate are among the new ones
    # Rounding errors do not change a rank.
    detector = DensityOutlierDetector(FrozenEstimator(Given()), calibration="conformal")
    detector.fit(known[:, None])
    classifier = DensityClassifier(Given(), calibration=0.5, random_state=0)
    classifier.fit(np.zeros((8, 1)), [0, 0, 0, 0, 1, 1, 1, 1])
    classifier.calibration_scores_ = [np.sort(known), np.sort(known)]
    for scores in (new, new * (1 + 1e-15), new * (1 - 1e-15)):
        np.testing.assert_array_equal(detector.p_values(scores), p_values)
        np.testing.assert_array_equal(classifier.p_values(scores), np.stack(2 * [p_values], 1))
    below = (known <= new + 1e-12).sum(axis=1)
    np.testing.assert_allclose(p_values, (1 + below) / (1 + len(known)))


# Ranks


def test_conformal_p_value_is_the_rank_among_held_out_scores():
    rng = np.random.default_rng(0)
    held_out = rng.integers(0, 20, 50) / 4.0  # with ties
    scores = rng.integers(-4, 90, 200) / 4.0
    null = Ranks(np.sort(held_out), np.arange(len(held_out) + 1))
    expected = [(1 + sum(held_out <= score)) / 51 for score in scores]
    np.testing.assert_allclose(null.p_values(scores), expected)
    for alpha in (0.001, 1 / 51, 0.05, 0.1, 5 / 51, 0.3, 0.999):
        flagged = scores < null.threshold(alpha)
        np.testing.assert_array_equal(flagged, null.p_values(scores) <= alpha)


def test_randomized_p_values_of_inliers_are_uniform_and_lower():
    """Few rows to calibrate, and ties: the usual p-values are far from uniform."""
    rng = np.random.RandomState(0)
    found = []
    for _ in range(2000):
        *held_out, new = rng.randint(5, size=8).astype(float)
        null = Ranks.fit(np.array(held_out))
        found += [*null.randomized_p_values(np.array([new]), rng)]
        assert found[-1] <= null.p_values(np.array([new]))
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_weighted_conformal_p_values_are_valid_under_covariate_shift():
    """Rows of the fit are standard normal, new inliers have a mean of 0.7."""
    rng = np.random.default_rng(0)
    alpha, n_draws = 0.1, 1500
    p_values = np.empty((2, n_draws))
    for i in range(n_draws):
        held_out, new = rng.standard_normal(60), rng.standard_normal(1) + 0.7
        weight = np.exp(0.7 * held_out)
        for row, own in zip(p_values, (weight / weight.max(), None), strict=True):
            row[i] = Ranks.fit(-held_out, own).p_values(-new)[0]
    weighted, plain = (p_values <= alpha).mean(axis=1)
    spread = np.sqrt(alpha * (1 - alpha) / n_draws)
    assert 0.02 < weighted <= alpha + 2 * spread
    assert plain > 2 * alpha


def test_weighted_ranks_are_those_of_repeated_rows():
    rng = np.random.default_rng(0)
    calibration = [rng.standard_normal(n) for n in (5, 8, 3)]
    weights = [rng.integers(1, 5, len(held_out)) * 1.0 for held_out in calibration]
    scores = [rng.standard_normal(300) for _ in calibration]
    repeated = [
        np.repeat(held_out, weight.astype(int))
        for held_out, weight in zip(calibration, weights, strict=True)
    ]
    np.testing.assert_array_equal(pooled(scores, calibration, weights), pooled(scores, repeated))
    null, expected = Ranks.fit(calibration[0], weights[0]), Ranks.fit(repeated[0])
    np.testing.assert_array_equal(null.p_values(scores[0]), expected.p_values(scores[0]))


@pytest.mark.parametrize("dependence", [0.0, 0.9, 1.0])
def test_joint_p_values_are_shares_of_rows_with_ranks_as_low(dependence):
    rng, p_values = np.random.default_rng(0), []
    for _ in range(300):
        first, second = rng.standard_normal((2, 24))
        rows = np.array([first, dependence * first + (1 - dependence) * second])
        known, new = rows[:, :19], rows[:, 19:]
        p_values.append(joint_p_values(known, new))
        expected = []
        for row in new.T:  # by definition
            ranks = stats.rankdata(np.column_stack([known, row]), axis=1)
            oddness = (1 / np.sqrt(ranks)).sum(axis=0) + 9 * (ranks[0] == 1)
            expected.append((oddness >= oddness[-1]).mean())
        np.testing.assert_allclose(p_values[-1], expected)
    for alpha in (0.1, 0.3):
        assert np.mean(np.array(p_values) <= alpha) == pytest.approx(alpha, rel=0.15)


def test_joint_p_values_of_ties_and_of_impossible_rows():
    rising, equal = np.arange(19.0), np.zeros(19)
    # The lowest in the first score, in the second, in none.
    new = np.array([-1.0, 20.0, 20.0]), np.array([20.0, -1.0, 20.0])
    np.testing.assert_allclose(joint_p_values((rising, rising), new), [0.05, 0.15, 1])
    np.testing.assert_allclose(joint_p_values((equal, rising), new), [0.05, 0.05, 1])
    impossible = np.where(rising < 6, -np.inf, rising)
    p_values = joint_p_values((impossible, rising), (np.array([-np.inf, 7]), np.array([20, -1.0])))
    np.testing.assert_allclose(p_values, [0.55, 0.05])
    np.testing.assert_array_equal(joint_p_values((equal[:0], equal[:0]), new), [1, 1, 1])


def test_ranks_of_known_rows_are_those_of_new_ones():
    scores = np.random.default_rng(0).standard_normal(50)
    known = Ranks.fit(scores).log_p(scores, is_own=True)
    for i in (scores.argmin(), scores.argmax(), 7):
        others = Ranks.fit(np.delete(scores, i))
        is_lowest = i == scores.argmin()
        # All rows decide on the scale.
        np.testing.assert_allclose(
            others.log_p(scores[[i]]), known[[i]], rtol=0.5 if is_lowest else 1e-12
        )
    assert Ranks.fit(np.full(5, 2.0)).log_p(np.full(5, 2.0), is_own=True) == pytest.approx(0)
    with_gap = np.append(scores, np.nan)
    np.testing.assert_allclose(
        Ranks.fit(scores).log_p(with_gap, is_own=True), np.append(known, np.nan)
    )


@pytest.mark.parametrize("n", [2, 7, 100])
def test_weighted_quantiles_of_equal_weights_are_those_of_numpy(n):
    values = np.random.default_rng(0).standard_normal(n)
    found = weighted_quantiles(values, np.full(n, 0.7), tails.BULK)
    np.testing.assert_allclose(found, np.quantile(values, tails.BULK), rtol=1e-12)


def test_weighted_quantiles_are_those_of_repeated_values():
    rng = np.random.default_rng(0)
    values, weight = rng.standard_normal(400), rng.integers(1, 5, 400)
    found = weighted_quantiles(values, weight, tails.BULK)
    expected = np.quantile(np.repeat(values, weight), tails.BULK)
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_pooled_fold_scores_have_the_rank_of_cross_conformal_prediction():
    rng = np.random.default_rng(0)
    calibration = [
        np.sort(rng.standard_normal(n) + shift) for n, shift in ((5, 0), (8, 1), (3, -1))
    ]
    scores = [rng.standard_normal(400) + shift for shift in (0, 1, -1)]
    expected = 1 + sum(
        (c[None] <= s[:, None]).sum(axis=1) for c, s in zip(calibration, scores, strict=True)
    )
    score = pooled(scores, calibration)
    null = Ranks.fit(np.concatenate(calibration))
    np.testing.assert_allclose(null.p_values(score) * 17, expected)
    # The score is the mean over the models where this mean already has the rank.
    mean = np.mean(scores, axis=0)
    has_rank = np.isclose(null.p_values(mean) * 17, expected)
    assert 0.1 < has_rank.mean() < 1
    np.testing.assert_array_equal(score[has_rank], mean[has_rank])


def test_p_values_of_tied_scores_are_at_least_cross_conformal_p_values():
    rng = np.random.default_rng(0)
    for _ in range(200):
        calibration = [np.sort(rng.integers(0, 5, 6)).astype(float) for _ in range(3)]
        scores = [rng.integers(0, 5, 4).astype(float) for _ in range(3)]
        below = sum(
            (held_out <= row[:, None]).sum(axis=1)
            for held_out, row in zip(calibration, scores, strict=True)
        )
        null = Ranks.fit(np.concatenate(calibration))
        assert (null.p_values(pooled(scores, calibration)) >= (1 + below) / 19).all()


def test_discoveries_match_a_calculation_by_hand():
    p_values = np.array([0.001, 0.011, 0.021, 0.039, 0.9, 0.5])
    np.testing.assert_array_equal(discoveries(p_values, 0.06, "bh"), p_values <= 0.039)
    np.testing.assert_array_equal(discoveries(p_values, 0.05, "bh"), p_values <= 0.021)
    # 1 of 6 p-values is above 50 / 100, as are 49 of 99 calibration rows: (1 + 1) / 0.49 = 4.08
    # inliers, so the fourth p-value needs a rate of 0.039 * 4.08 / 4 = 0.0398.
    for rate, most in ((0.0399, 0.039), (0.0397, 0.021)):
        np.testing.assert_array_equal(
            discoveries(p_values, rate, "adaptive", n_calibration=99), p_values <= most
        )
    assert discoveries(np.array([]), 0.1, "bh").shape == (0,)


def test_adaptive_method_flags_no_p_value_above_one_half():
    p_values = np.r_[np.full(30, 1e-4), 0.97]
    assert discoveries(p_values, 0.2, "adaptive", 9_999).tolist() == [True] * 30 + [False]


def test_empirical_null_recovers_the_gamma_distribution_of_a_normal_density():
    """The negative log-density of d normal columns has a gamma distribution of shape d / 2."""
    surprise = stats.norm.rvs(size=(100_000, 6), random_state=0)
    surprise = 0.5 * (surprise**2).sum(axis=1) + 7
    null = Tails.fit(-surprise)
    np.testing.assert_allclose(null.shapes, 3, rtol=0.2)
    np.testing.assert_allclose(null.locations, 7, atol=0.3)
    for alpha in (0.1, 0.01, 0.001):
        assert (null.p_values(-surprise) <= alpha).mean() == pytest.approx(alpha, rel=0.2)
        np.testing.assert_allclose(null.p_values([null.threshold(alpha)]), alpha)


def test_empirical_null_is_conservative_for_few_rows():
    rng = np.random.default_rng(0)
    tables = [-rng.standard_gamma(1.5, size=50) for _ in range(25)]
    p_values = np.array([Tails.fit(scores).p_values(scores) for scores in tables])
    for alpha in (0.05, 0.01, 0.001):
        assert (p_values <= alpha).mean() <= 1.2 * alpha


def test_empirical_null_of_equal_scores_is_an_error():
    with pytest.raises(ValueError, match="needs scores that differ"):
        Tails.fit(np.ones(50))
    with pytest.raises(ValueError, match="of 50 held-out rows 0 have a finite"):
        Tails.fit(np.full(50, -np.inf))


@pytest.mark.parametrize("shape", [0.3, 1.0, 3.0, 30.0, 300.0])
def test_log_survival_beyond_the_range_of_floats(shape):
    x = np.array([0.0, 0.1, 1.0, 10.0, 100.0, 300.0])
    np.testing.assert_allclose(
        tails.log_survival(x, shape), stats.gamma.logsf(x, shape), atol=1e-12
    )
    # Beyond the range of floats, to a twentieth of a nat.
    steps = np.linspace(600, 660, 13) + shape
    exact = stats.gamma.logsf(steps, shape)
    series = tails.log_survival(steps + 1e4, shape) - tails.log_survival(1e4, shape)
    np.testing.assert_allclose(tails.log_survival(steps, shape), exact, atol=0.05)
    assert (np.diff(series) < 0).all()
    assert np.isneginf(tails.log_survival(np.inf, shape)) or shape > 0


# Conformal levels


def test_levels():
    scores = np.arange(1, 20) / 20
    assert ranks.level(scores, 0.9) == 0.9
    assert ranks.level(scores, 0.96) == 1.0  # too few rows to tell
    assert ranks.level(np.column_stack([scores, scores / 2]), 0.5).tolist() == [0.5, 0.25]
    assert ranks.level(scores[:9], 0.9) == scores[8]  # the rank of 1 - 0.9 would be 0


def test_needed_rows_are_the_fewest_with_a_level():
    fractions = [k / (k + 1) for k in range(1, 300)] + [0.9999, 0.99999, *np.arange(1, 1000) / 1000]
    for coverage in fractions:
        n = ranks.rows_needed(coverage)
        assert math.ceil((n + 1) * coverage) <= n
        assert math.ceil(n * coverage) > n - 1


# Thresholds

SCORES = np.random.default_rng(0).standard_normal(400)


def never():
    raise AssertionError("the scores of the rows of fit are not needed")


@pytest.mark.parametrize("rank", [0, 7, 25, 50, 75, 100])
def test_percentiles_of_weighted_rows_are_those_of_repeated_rows(rank):
    rng = np.random.default_rng(0)
    for n in (1, 2, 20, 30):
        values, weight = np.round(rng.normal(size=n), 1), rng.integers(0, 4, n)
        weight[0] = 1
        expected = np.percentile(np.repeat(values, weight), rank, method="averaged_inverted_cdf")
        assert thresholds.weighted_percentile(values, weight, rank) == expected


def test_thresholds_without_a_fraction_come_from_held_out_scores():
    weight = np.ones(400)
    assert thresholds.by_held_out(None, SCORES, weight, never) == (-np.inf, False)
    first, third = np.quantile(SCORES, [0.25, 0.75])
    with_impossible = np.append(SCORES, -np.inf)
    for scores in (SCORES, with_impossible):
        fence, judges = thresholds.by_held_out("auto", scores, np.ones(len(scores)), never)
        assert fence == pytest.approx(first - 1.5 * (third - first), abs=0.02)
        assert not judges
    impossible = np.full(3, -np.inf)
    found = thresholds.by_held_out("auto", impossible, np.ones(3), lambda: (SCORES, weight))
    assert found[0] == thresholds.by_contamination("auto", SCORES, weight)


@pytest.mark.parametrize(("shift", "judges"), [(0.0, False), (3.0, True)])
def test_threshold_by_a_fraction_is_held_out_where_rows_of_the_fit_score_higher(shift, judges):
    weight = np.ones(400)
    found = thresholds.by_held_out(0.1, SCORES, weight, lambda: (SCORES + shift, weight))
    assert found[1] is judges
    assert (found[0] > SCORES).mean() == pytest.approx(0.1)


def test_fraction_of_a_table_whose_training_rows_score_higher():
    rows, weight = np.random.default_rng(0).standard_normal((60, 4)), np.arange(60) % 4
    rows[7] = np.nan  # is left out
    table = TableDensity(max_iter=1, n_orders=1, cv=2, contamination=0.1, random_state=0)
    labels = table.fit_predict(rows, sample_weight=weight)
    training, held_out = table.score_samples(rows), table.held_out_scores_
    known = np.isfinite(held_out)
    assert known.sum() == 44
    assert np.average(training < table.offset_, weights=weight) < 0.05
    flagged = np.average(labels[known] == -1, weights=weight[known])
    assert flagged == pytest.approx(0.1, abs=0.03)
    np.testing.assert_array_equal(labels[known] == -1, held_out[known] < table.offset_)
    labels = table.set_params(contamination="auto").fit_predict(rows)
    np.testing.assert_array_equal(labels, table.predict(rows))
