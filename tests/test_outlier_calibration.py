"""P-values are valid, flags keep the false discovery rate, trimming withstands outliers."""

import numpy as np
import pytest
from scipy import stats
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import ShuffleSplit
from sklearn.neighbors import KernelDensity

from skflows import AutoDensity, DensityOutlierDetector, StackedDensity
from skflows.outlier._calibration import ConformalNull, EmpiricalNull, discoveries, pooled

N_RESAMPLINGS = 200
SPLIT = ShuffleSplit(1, test_size=99, random_state=0)


class Normal(BaseEstimator):
    """A normal density: the cheapest that a detector can wrap."""

    def fit(self, X, y=None):
        self.density_ = stats.multivariate_normal(X.mean(axis=0), np.cov(X.T))
        return self

    def score_samples(self, X):
        return np.atleast_1d(self.density_.logpdf(X))


def skewed(rng, n):
    """Rows that no normal density fits: the p-values must be valid all the same."""
    return rng.standard_gamma(2.0, size=(n, 2)) @ [[1.0, 0.5], [0.0, 1.0]]


def detector(**params):
    return DensityOutlierDetector(
        Normal(), **{"calibration": "conformal", "random_state": 0} | params
    )


def test_p_value_is_the_rank_among_held_out_scores():
    rng = np.random.default_rng(0)
    held_out = rng.integers(0, 20, 50) / 4.0  # with ties
    scores = rng.integers(-4, 90, 200) / 4.0
    null = ConformalNull(np.sort(held_out))
    expected = [(1 + sum(held_out <= score)) / 51 for score in scores]
    np.testing.assert_allclose(null.p_values(scores), expected)
    for alpha in (0.001, 1 / 51, 0.05, 0.1, 5 / 51, 0.3, 0.999):
        flagged = scores < null.threshold(alpha)
        np.testing.assert_array_equal(flagged, null.p_values(scores) <= alpha)


def test_pooled_score_has_the_rank_of_cross_conformal_prediction():
    rng = np.random.default_rng(0)
    calibration = [
        np.sort(rng.standard_normal(n) + shift) for n, shift in ((5, 0), (8, 1), (3, -1))
    ]
    scores = [rng.standard_normal(400) + shift for shift in (0, 1, -1)]
    expected = 1 + sum(
        (c[None] <= s[:, None]).sum(axis=1) for c, s in zip(calibration, scores, strict=True)
    )
    score = pooled(scores, calibration)
    null = ConformalNull(np.sort(np.concatenate(calibration)))
    np.testing.assert_allclose(null.p_values(score) * 17, expected)
    # It is the mean over the models wherever that has the rank already.
    mean = np.mean(scores, axis=0)
    has_it = np.isclose(null.p_values(mean) * 17, expected)
    assert 0.1 < has_it.mean() < 1
    np.testing.assert_array_equal(score[has_it], mean[has_it])


@pytest.fixture(scope="module")
def false_alarms():
    """P-values of 20 new inliers in each of 200 resamplings, by each kind of calibration."""
    kinds = {
        "split": {"cv": SPLIT},
        "cross": {"cv": 5},
        "frozen": {},
        "mixture": {"estimator": StackedDensity([("n", Normal())], cv=5, random_state=0)},
    }
    found = {kind: [] for kind in kinds}
    for seed in range(N_RESAMPLINGS):
        rng = np.random.default_rng(seed)
        X, new = skewed(rng, 199), skewed(rng, 20)
        for kind, params in kinds.items():
            rows = X
            if kind == "frozen":
                params = {"estimator": FrozenEstimator(Normal().fit(X[:100]))}
                rows = X[100:]
            found[kind].append(detector().set_params(**params).fit(rows).p_values(new))
    return {kind: np.array(p_values) for kind, p_values in found.items()}


ALPHAS = [0.01, 0.05, 0.1]  # each a multiple of 1 / (99 + 1): the rate is then alpha to the digit


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("kind", ["split", "frozen"])
def test_false_alarms_are_as_many_as_alpha_says(false_alarms, kind, alpha):
    """One row of each resampling is a fair draw; more rows share what calibrated them."""
    one_each = (false_alarms[kind][:, 0] <= alpha).sum()
    low, high = stats.binom.interval(0.99, N_RESAMPLINGS, alpha)
    assert low <= one_each <= high
    # Given the rows that calibrate, the rate is a Beta(k, n + 1 - k).
    k = round(alpha * 100)
    n_rows = false_alarms[kind].shape[1]
    spread = stats.betabinom(n_rows, k, 100 - k).std() / n_rows / np.sqrt(N_RESAMPLINGS)
    assert abs((false_alarms[kind] <= alpha).mean() - alpha) < 3 * spread


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("kind", ["cross", "mixture"])
def test_cross_conformal_false_alarms(false_alarms, kind, alpha):
    low, high = stats.binom.interval(0.99, N_RESAMPLINGS, alpha)
    assert low <= (false_alarms[kind][:, 0] <= alpha).sum() <= high
    k = round(alpha * 200)
    spread = stats.betabinom(20, k, 200 - k).std() / 20 / np.sqrt(N_RESAMPLINGS)
    assert 0.5 * alpha < (false_alarms[kind] <= alpha).mean() < alpha + 3 * spread


def test_labels_are_those_of_the_p_values():
    X, new = skewed(np.random.default_rng(0), 200), skewed(np.random.default_rng(1), 300)
    for cv in (SPLIT, 5):
        fitted = detector(cv=cv, alpha=0.1).fit(X)
        np.testing.assert_array_equal(fitted.predict(new) == -1, fitted.p_values(new) <= 0.1)


def tables_with_outliers(n_outliers, n_new=100, n_rows=1000):
    """Fitted rows, new rows, and which of these are outliers, again and again."""
    for seed in range(N_RESAMPLINGS):
        rng = np.random.default_rng(seed)
        X, new = skewed(rng, n_rows), skewed(rng, n_new)
        new[:n_outliers] += rng.uniform(5, 12, (n_outliers, 2)) * [1, -1]
        yield X, new, np.arange(n_new) < n_outliers


@pytest.mark.filterwarnings("ignore:Some rows are as odd")
@pytest.mark.parametrize("method", ["bh", "by", "adaptive"])
def test_flags_keep_the_false_discovery_rate(method):
    false, power = [], []
    for X, new, odd in tables_with_outliers(10):
        fitted = detector(
            fdr=0.1, fdr_method=method, cv=ShuffleSplit(1, test_size=0.8, random_state=0)
        )
        flags = fitted.fit(X).predict(new) == -1
        false.append((flags & ~odd).sum() / max(1, flags.sum()))
        power.append(flags[odd].mean())
    assert np.mean(false) < 0.1 + 3 * np.std(false) / np.sqrt(N_RESAMPLINGS)
    assert np.mean(power) > {"bh": 0.6, "by": 0.2, "adaptive": 0.6}[method]


@pytest.mark.filterwarnings("ignore:Some rows are as odd")
def test_false_discoveries_among_clean_rows():
    """Without outliers every flag is false: no more than a tenth of the tables may have one."""
    flagged = []
    for X, new, _ in tables_with_outliers(0):
        fitted = detector(fdr=0.1, cv=ShuffleSplit(1, test_size=0.8, random_state=0)).fit(X)
        flagged.append((fitted.predict(new) == -1).any())
    assert sum(flagged) <= stats.binom.interval(0.99, N_RESAMPLINGS, 0.1)[1]


def test_benjamini_hochberg_by_hand():
    p_values = np.array([0.001, 0.011, 0.021, 0.039, 0.9, 0.5])
    np.testing.assert_array_equal(discoveries(p_values, 0.06, "bh"), p_values <= 0.039)
    np.testing.assert_array_equal(discoveries(p_values, 0.05, "bh"), p_values <= 0.021)
    # Two of six p-values, and one more, are taken for those of all inliers: a share of 2 / 3.
    np.testing.assert_array_equal(discoveries(p_values, 0.04, "adaptive"), p_values <= 0.039)
    assert discoveries(np.array([]), 0.1, "bh").shape == (0,)


def normal_with_outliers(rng, n, n_outliers):
    X = rng.standard_normal((n, 3)) @ rng.standard_normal((3, 3))
    X[:n_outliers] += 15 * X.std(axis=0) * rng.choice([-1, 1], (n_outliers, 3))
    return X


def test_empirical_null_of_a_normal_is_exact():
    """Surprise of a normal is a gamma variable: of shape d / 2, from the mode's on."""
    surprise = stats.norm.rvs(size=(100_000, 6), random_state=0)
    surprise = 0.5 * (surprise**2).sum(axis=1) + 7
    null = EmpiricalNull.fit(-surprise)
    np.testing.assert_allclose(null.shapes, 3, rtol=0.2)
    np.testing.assert_allclose(null.starts, 7, atol=0.3)
    for alpha in (0.1, 0.01, 0.001):
        assert (null.p_values(-surprise) <= alpha).mean() == pytest.approx(alpha, rel=0.2)
        np.testing.assert_allclose(null.p_values([null.threshold(alpha)]), alpha)


def test_empirical_null_is_cautious_on_few_rows():
    rng = np.random.default_rng(0)
    tables = [-rng.standard_gamma(1.5, size=50) for _ in range(200)]
    p_values = np.array([EmpiricalNull.fit(scores).p_values(scores) for scores in tables])
    for alpha in (0.05, 0.01, 0.001):
        assert (p_values <= alpha).mean() <= 1.2 * alpha


def test_empirical_null_withstands_outliers_in_the_table():
    false, found = [], []
    for seed in range(50):
        rng = np.random.default_rng(seed)
        X = normal_with_outliers(rng, 500, 25)
        odd = np.arange(500) < 25
        fitted = detector(calibration="empirical_null", cv=5, trim=0.1, fdr=0.1).fit(X)
        flags = discoveries(fitted.p_values_, 0.1, "bh")
        false.append((flags & ~odd).sum() / max(1, flags.sum()))
        found.append(flags[odd].mean())
    assert np.mean(false) < 0.1 + 3 * np.std(false) / np.sqrt(50)
    assert np.mean(found) > 0.99


def test_trimmed_fit_is_that_of_the_inliers():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 2))
    X[:60] += [8.0, 0.0]
    plain, trimmed = (
        DensityOutlierDetector(Normal(), trim=trim).fit(X).models_[0].density.density_
        for trim in (0.0, 0.2)
    )
    assert plain.mean[0] > 1
    np.testing.assert_allclose(trimmed.mean, X[60:].mean(axis=0), atol=0.1)


def test_trim_follows_the_contamination():
    X = normal_with_outliers(np.random.default_rng(0), 200, 20)
    auto, given = (
        DensityOutlierDetector(Normal(), contamination=0.1, trim=trim).fit(X).score_samples(X)
        for trim in ("auto", 0.1)
    )
    np.testing.assert_array_equal(auto, given)
    none = DensityOutlierDetector(Normal(), trim="auto").fit(X)
    np.testing.assert_array_equal(none.score_samples(X), Normal().fit(X).score_samples(X))


def test_trimmed_kernels_judge_rows_by_models_that_had_not_seen_them():
    """Kernels know each row they sit on: only held-out scores show which are odd."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 3))
    X[:20] *= 20
    stack = StackedDensity([("kde", KernelDensity(bandwidth=0.3))], cv=5, random_state=0)
    fitted = DensityOutlierDetector(stack, trim=0.1).fit(X)
    assert fitted.models_[0].kept[:20].sum() <= 1
    assert np.isfinite(fitted.held_out_scores_).all()


def test_typicality_finds_rows_that_are_too_likely():
    """In 50 columns no row lies near the mode, the densest point of all."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((500, 50))
    mode = np.zeros((1, 50))
    flags = {
        statistic: detector(statistic=statistic, alpha=0.05).fit(X).predict(mode)[0]
        for statistic in ("log_density", "typicality")
    }
    assert flags == {"log_density": 1, "typicality": -1}


def test_batches_show_what_single_rows_do_not():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((500, 5))
    fitted = detector(alpha=0.01).fit(X)
    few = {"n_resamples": 200}
    same = [fitted.batch_p_value(rng.standard_normal((50, 5)), **few) for _ in range(200)]
    assert (np.array(same) <= 0.1).sum() <= stats.binom.interval(0.99, 200, 0.1)[1]
    for scale in (0.85, 1.15):  # too likely, too odd
        rows = scale * rng.standard_normal((200, 5))
        assert fitted.batch_p_value(rows) < 0.01
        assert (fitted.predict(rows) == 1).mean() > 0.9


def test_batches_of_more_rows_than_calibrate_are_no_odder():
    p_values = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        density = FrozenEstimator(Normal().fit(rng.standard_normal((50, 2))))
        fitted = DensityOutlierDetector(density, calibration="conformal")
        fitted.fit(rng.standard_normal((30, 2)))
        p_values.append(fitted.batch_p_value(rng.standard_normal((300, 2)), n_resamples=99))
    for alpha in (0.05, 0.2):
        n_alarms = (np.array(p_values) <= alpha).sum()
        low, high = stats.binom.interval(0.99, 200, alpha)
        assert low <= n_alarms <= high


def test_batches_where_the_density_is_zero():
    rng = np.random.default_rng(0)
    kernels = KernelDensity(kernel="tophat", bandwidth=1.2)
    cv = ShuffleSplit(1, test_size=100, random_state=0)
    fitted = DensityOutlierDetector(kernels, calibration="conformal", cv=cv)
    fitted.fit(rng.standard_normal((300, 3)))
    assert np.isneginf(fitted.held_out_scores_).any()
    assert fitted.batch_p_value(rng.standard_normal((40, 3))) > 0.01
    assert fitted.batch_p_value(rng.standard_normal((40, 3)) + 9) < 0.001
    with pytest.raises(ValueError, match="n_resamples=0"):
        fitted.batch_p_value(np.zeros((3, 3)), n_resamples=0)


@pytest.mark.parametrize("statistic", ["log_density", "likelihood_ratio", "score_norm"])
@pytest.mark.parametrize("calibration", [None, "conformal", "empirical_null"])
def test_rows_where_the_density_is_zero_are_outliers(calibration, statistic):
    rng = np.random.default_rng(0)
    fitted = DensityOutlierDetector(
        KernelDensity(kernel="epanechnikov", bandwidth=1.5),
        statistic=statistic,
        background=KernelDensity(kernel="tophat", bandwidth=2.0),
        calibration=calibration,
        cv=5,
    ).fit(rng.standard_normal((400, 3)))
    assert np.isneginf(fitted.score_samples([[50.0, 50.0, 50.0]])).all()
    assert fitted.predict([[50.0, 50.0, 50.0]]) == -1
    assert np.isfinite(fitted.offset_)
    if calibration:
        assert fitted.p_values([[50.0, 50.0, 50.0]]) < 0.01  # as low as any row that is held out
    assert fitted.explain(np.zeros((1, 3))).shape == (1, 3)


def test_empirical_null_of_equal_scores_is_refused():
    with pytest.raises(ValueError, match="needs scores that differ"):
        EmpiricalNull.fit(np.ones(50))
    with pytest.raises(ValueError, match="of 50 held-out rows 0 have a finite"):
        EmpiricalNull.fit(np.full(50, -np.inf))


def test_tied_scores_never_get_less_than_vovks_p_value():
    rng = np.random.default_rng(0)
    for _ in range(200):
        calibration = [np.sort(rng.integers(0, 5, 6)).astype(float) for _ in range(3)]
        scores = [rng.integers(0, 5, 4).astype(float) for _ in range(3)]
        below = sum(
            (held_out <= row[:, None]).sum(axis=1)
            for held_out, row in zip(calibration, scores, strict=True)
        )
        null = ConformalNull(np.sort(np.concatenate(calibration)))
        assert (null.p_values(pooled(scores, calibration)) >= (1 + below) / 19).all()


def test_adaptive_flags_no_row_that_counts_as_an_inlier():
    p_values = np.r_[np.full(30, 1e-4), 0.97]
    assert discoveries(p_values, 0.2, "adaptive").tolist() == [True] * 30 + [False]


def test_flags_of_no_p_values():
    fitted = detector(fdr=0.2).fit(skewed(np.random.default_rng(0), 50))
    for value in (np.nan, 2.0):
        with pytest.raises(ValueError, match="p_values must lie between 0 and 1"):
            fitted.flag([0.5, value])


def test_too_few_rows_to_calibrate_for_a_flag_are_told():
    rng = np.random.default_rng(0)
    fitted = detector(fdr=0.05).fit(skewed(rng, 60))
    rows = np.concatenate([skewed(rng, 300), [[1e6, -1e6]]])
    with pytest.warns(UserWarning, match="as low as 0.00017, and the least is 0.016"):
        assert (fitted.predict(rows) == 1).all()


def test_rows_of_a_table_are_all_held_out_for_the_empirical_null():
    judging = DensityOutlierDetector(calibration="empirical_null")
    assert judging._with_folds(AutoDensity()).cv == 5
    assert judging._with_folds(AutoDensity(cv=3)).cv == 3
    judging.set_params(calibration="conformal")
    assert judging._with_folds(AutoDensity()).cv == "auto"


def test_p_values_of_an_earlier_fit_are_gone():
    rng = np.random.default_rng(0)
    fitted = DensityOutlierDetector(Normal(), calibration="empirical_null")
    assert np.isfinite(fitted.fit(rng.standard_normal((100, 2))).p_values_).all()
    fitted.set_params(calibration=None).fit(rng.standard_normal((100, 2)))
    assert not hasattr(fitted, "p_values_")


ERRORS = {
    r"fdr=0.1 needs p-values: set calibration": {"calibration": None, "fdr": 0.1},
    r"'latent_norm' needs a latent space, and Normal has no transform": {
        "statistic": "latent_norm"
    },
}


@pytest.mark.parametrize("message", ERRORS)
def test_errors_come_before_work(message):
    with pytest.raises(ValueError, match=message):
        detector(**ERRORS[message]).fit(skewed(np.random.default_rng(0), 50))


def test_p_values_need_a_calibration():
    fitted = DensityOutlierDetector(Normal()).fit(skewed(np.random.default_rng(0), 50))
    for method in (fitted.p_values, fitted.batch_p_value):
        with pytest.raises(ValueError, match="calibration=None: there are no p-values"):
            method(np.ones((2, 2)))


def test_an_alpha_that_no_row_can_reach_is_told():
    with pytest.warns(UserWarning, match="least p-value is 0.02"):
        fitted = detector(alpha=0.01).fit(skewed(np.random.default_rng(0), 50))
    assert (fitted.predict([[1e6, -1e6]]) == 1).all()
