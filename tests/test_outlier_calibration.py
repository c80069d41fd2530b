"""Calibration of the outlier detector: p-values, false discovery rates and trimming."""

import numpy as np
import pytest
from _densities import small
from scipy import stats
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import ShuffleSplit
from sklearn.neighbors import KernelDensity

from skflows import AutoDensity, DensityOutlierDetector, StackedDensity
from skflows.calibration.ranks import Ranks, discoveries

N_RESAMPLINGS = 120
N_NEW = 60  # rows that share a resampling
N_TABLES = 20
SPLIT = ShuffleSplit(1, test_size=99, random_state=0)


class Normal(BaseEstimator):
    """A multivariate normal density, which is fast to fit."""

    def fit(self, X, y=None):
        self.mean_ = X.mean(axis=0)
        self.factor_ = np.linalg.cholesky(np.cov(X.T))
        return self

    def score_samples(self, X):
        Z = np.linalg.solve(self.factor_, (X - self.mean_).T)
        log_det = np.log(np.diag(self.factor_)).sum()
        return -0.5 * (Z**2).sum(axis=0) - log_det - 0.5 * len(Z) * np.log(2 * np.pi)


def skewed(rng, n):
    """Return rows that no normal density fits; p-values must be valid nevertheless."""
    return rng.standard_gamma(2.0, size=(n, 2)) @ [[1.0, 0.5], [0.0, 1.0]]


def detector(**params):
    return DensityOutlierDetector(
        Normal(), **{"calibration": "conformal", "random_state": 0} | params
    )


def test_randomized_p_values_are_the_same_in_each_call_and_need_ranks():
    X = skewed(np.random.default_rng(0), 60)
    fitted = detector().fit(X)
    first, again, other = (fitted.p_values(X, randomized=True, random_state=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()
    with pytest.raises(ValueError, match="randomized=True is for the ranks"):
        detector(calibration="empirical_null").fit(X).p_values(X, randomized=True)


@pytest.fixture(scope="module")
def false_alarms():
    """P-values of new inliers in each resampling, by kind of calibration."""
    kinds = {
        "split": {"cv": SPLIT},
        "cross": {"cv": 5},
        "frozen": {},
        "mixture": {"estimator": StackedDensity([("n", Normal())], cv=5, random_state=0)},
    }
    found = {kind: [] for kind in kinds}
    for seed in range(N_RESAMPLINGS):
        rng = np.random.default_rng(seed)
        X, new = skewed(rng, 199), skewed(rng, N_NEW)
        for kind, params in kinds.items():
            rows = X
            if kind == "frozen":
                params = {"estimator": FrozenEstimator(Normal().fit(X[:100]))}
                rows = X[100:]
            found[kind].append(detector().set_params(**params).fit(rows).p_values(new))
    return {kind: np.array(p_values) for kind, p_values in found.items()}


ALPHAS = [0.01, 0.05, 0.1]  # multiples of 1 / (99 + 1), so that the expected rate is exactly alpha


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("kind", ["split", "frozen"])
def test_false_alarm_rate_of_split_conformal_p_values_is_alpha(false_alarms, kind, alpha):
    # Rows of one resampling share the calibration rows; first rows are independent.
    one_each = (false_alarms[kind][:, 0] <= alpha).sum()
    low, high = stats.binom.interval(0.99, N_RESAMPLINGS, alpha)
    assert low <= one_each <= high
    # Given the calibration rows, the rate has the distribution Beta(k, n + 1 - k).
    k = round(alpha * 100)
    spread = stats.betabinom(N_NEW, k, 100 - k).std() / N_NEW / np.sqrt(N_RESAMPLINGS)
    assert abs((false_alarms[kind] <= alpha).mean() - alpha) < 3 * spread


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("kind", ["cross", "mixture"])
def test_false_alarm_rate_of_cross_conformal_p_values_is_at_most_alpha(false_alarms, kind, alpha):
    low, high = stats.binom.interval(0.99, N_RESAMPLINGS, alpha)
    assert low <= (false_alarms[kind][:, 0] <= alpha).sum() <= high
    k = round(alpha * 200)
    spread = stats.betabinom(N_NEW, k, 200 - k).std() / N_NEW / np.sqrt(N_RESAMPLINGS)
    assert 0.5 * alpha < (false_alarms[kind] <= alpha).mean() < alpha + 3 * spread


@pytest.mark.parametrize("calibration", ["conformal", "empirical_null"])
def test_the_null_gives_p_values_of_scores(calibration):
    X = np.random.default_rng(0).standard_normal((60, 2))
    fitted = detector(calibration=calibration, cv=3).fit(X)
    scores = fitted.score_samples(X[:9])
    np.testing.assert_array_equal(fitted.null_.p_values(scores), fitted.p_values(X[:9]))
    assert detector(calibration=None).fit(X).null_ is None


def test_predict_flags_p_values_up_to_alpha():
    X, new = skewed(np.random.default_rng(0), 200), skewed(np.random.default_rng(1), 300)
    for cv in (SPLIT, 5):
        fitted = detector(cv=cv, alpha=0.1).fit(X)
        np.testing.assert_array_equal(fitted.predict(new) == -1, fitted.p_values(new) <= 0.1)


def tables_with_outliers(n_outliers, n_tables, n_new=100, n_rows=1000):
    """Yield rows to fit, new rows, and whether each new row is an outlier."""
    for seed in range(n_tables):
        rng = np.random.default_rng(seed)
        X, new = skewed(rng, n_rows), skewed(rng, n_new)
        new[:n_outliers] += rng.uniform(5, 12, (n_outliers, 2)) * [1, -1]
        yield X, new, np.arange(n_new) < n_outliers


@pytest.mark.filterwarnings("ignore:Some rows have the smallest")
@pytest.mark.parametrize("method", ["bh", "by", "adaptive"])
def test_predict_controls_the_false_discovery_rate(method):
    false, power = [], []
    for X, new, is_outlier in tables_with_outliers(10, N_RESAMPLINGS):
        fitted = detector(
            fdr=0.1, fdr_method=method, cv=ShuffleSplit(1, test_size=0.8, random_state=0)
        )
        flags = fitted.fit(X).predict(new) == -1
        false.append((flags & ~is_outlier).sum() / max(1, flags.sum()))
        power.append(flags[is_outlier].mean())
    assert np.mean(false) < 0.1 + 3 * np.std(false) / np.sqrt(N_RESAMPLINGS)
    assert np.mean(power) > {"bh": 0.6, "by": 0.2, "adaptive": 0.6}[method]


def test_adaptive_method_controls_the_false_discovery_rate_with_few_calibration_rows():
    """Storey's usual estimate lets the rate of 9 rows rise to 12 % (proof in mathematics.rst)."""
    false, n_tables = [], 600
    rng = np.random.default_rng(0)
    frozen = FrozenEstimator(Normal().fit(skewed(rng, 50)))
    fitted = detector(fdr=0.1, fdr_method="adaptive").set_params(estimator=frozen)
    is_outlier = np.arange(100) < 50
    for seed in range(n_tables):
        new = skewed(rng, 100) + 1e3 * is_outlier[:, None]
        p_values = fitted.fit(skewed(rng, 9)).p_values(new, randomized=True, random_state=seed)
        flags = fitted.flag(p_values)
        false.append((flags & ~is_outlier).sum() / max(1, flags.sum()))
    assert 0.08 < np.mean(false) < 0.1 + 3 * np.std(false) / np.sqrt(n_tables)


@pytest.mark.parametrize(
    ("params", "weight"),
    [
        ({"cv": 5}, None),
        ({"calibration": "empirical_null", "cv": SPLIT}, None),
        ({"estimator": StackedDensity([("n", Normal())], cv=5)}, None),
        ({"estimator": KernelDensity(), "cv": SPLIT}, np.arange(1, 201)),
    ],
)
def test_adaptive_method_without_a_single_unweighted_split_is_an_error(params, weight):
    X = skewed(np.random.default_rng(0), 200)
    weight = {} if weight is None else {"sample_weight": weight}
    unclear = detector(fdr=0.1, fdr_method="adaptive").set_params(**params)
    with pytest.raises(ValueError, match=r"fdr_method='adaptive' with .* choose fdr_method='bh'"):
        unclear.fit(X, **weight)
    fitted = unclear.set_params(fdr_method="bh").fit(X, **weight)
    with pytest.raises(ValueError, match="needs p-values from the rows of a single split"):
        fitted.set_params(fdr_method="adaptive").flag(fitted.p_values(X[:5]))


@pytest.mark.filterwarnings("ignore:Some rows have the smallest")
def test_fdr_limits_the_probability_of_a_flag_among_inliers():
    """Without outliers every flag is false: at most a fraction `fdr` of the tables has one."""
    flagged, n_tables = [], 200
    for X, new, _ in tables_with_outliers(0, n_tables):
        fitted = detector(fdr=0.1, cv=ShuffleSplit(1, test_size=0.8, random_state=0)).fit(X)
        flagged.append((fitted.predict(new) == -1).any())
    assert sum(flagged) <= stats.binom.interval(0.99, n_tables, 0.1)[1]


def normal_with_outliers(rng, n, n_outliers):
    X = rng.standard_normal((n, 3)) @ rng.standard_normal((3, 3))
    X[:n_outliers] += 15 * X.std(axis=0) * rng.choice([-1, 1], (n_outliers, 3))
    return X


def test_empirical_null_controls_the_false_discovery_rate_with_outliers_in_the_fit():
    false, found = [], []
    for seed in range(N_TABLES):
        rng = np.random.default_rng(seed)
        X = normal_with_outliers(rng, 500, 25)
        is_outlier = np.arange(500) < 25
        fitted = detector(calibration="empirical_null", cv=5, trim=0.1, fdr=0.1).fit(X)
        flags = discoveries(fitted.p_values_, 0.1, "bh")
        false.append((flags & ~is_outlier).sum() / max(1, flags.sum()))
        found.append(flags[is_outlier].mean())
    assert np.mean(false) < 0.1 + 3 * np.std(false) / np.sqrt(N_TABLES)
    assert np.mean(found) > 0.99


def test_trimmed_fit_ignores_outliers():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 2))
    X[:60] += [8.0, 0.0]
    plain, trimmed = (
        DensityOutlierDetector(Normal(), trim=trim).fit(X).models_[0].density for trim in (0.0, 0.2)
    )
    assert plain.mean_[0] > 1
    np.testing.assert_allclose(trimmed.mean_, X[60:].mean(axis=0), atol=0.1)


def test_trim_auto_is_the_contamination():
    X = normal_with_outliers(np.random.default_rng(0), 200, 20)
    auto, given = (
        DensityOutlierDetector(Normal(), contamination=0.1, trim=trim).fit(X).score_samples(X)
        for trim in ("auto", 0.1)
    )
    np.testing.assert_array_equal(auto, given)
    none = DensityOutlierDetector(Normal(), trim="auto").fit(X)
    np.testing.assert_array_equal(none.score_samples(X), Normal().fit(X).score_samples(X))


def test_trimming_uses_held_out_scores():
    """Kernels score the rows at their centres too high: only held-out scores find outliers."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 3))
    X[:20] *= 20
    stack = StackedDensity([("kde", KernelDensity(bandwidth=0.3))], cv=5, random_state=0)
    fitted = DensityOutlierDetector(stack, trim=0.1).fit(X)
    assert fitted.models_[0].kept[:20].sum() <= 1
    assert np.isfinite(fitted.held_out_scores_).all()


def test_typicality_flags_rows_that_are_too_likely():
    """In 50 columns no inlier is near the mode, where the density is highest."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((500, 50))
    mode = np.zeros((1, 50))
    flags = {
        statistic: detector(statistic=statistic, alpha=0.05).fit(X).predict(mode)[0]
        for statistic in ("log_density", "typicality")
    }
    assert flags == {"log_density": 1, "typicality": -1}


def test_batch_p_value_finds_shifts_that_single_rows_do_not_show():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((500, 5))
    fitted = detector(alpha=0.01).fit(X)
    inliers = [rng.standard_normal((50, 5)) for _ in range(100)]
    p_values = [fitted.batch_p_value(rows, n_resamples=99) for rows in inliers]
    assert (np.array(p_values) <= 0.1).sum() <= stats.binom.interval(0.99, 100, 0.1)[1]
    for scale in (0.85, 1.15):  # too likely, too unlikely
        rows = scale * rng.standard_normal((200, 5))
        assert fitted.batch_p_value(rows) < 0.01
        assert (fitted.predict(rows) == 1).mean() > 0.9


def test_batch_p_value_is_valid_for_batches_larger_than_the_calibration_set():
    p_values = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        density = FrozenEstimator(Normal().fit(rng.standard_normal((50, 2))))
        fitted = DensityOutlierDetector(density, calibration="conformal")
        fitted.fit(rng.standard_normal((30, 2)))
        p_values.append(fitted.batch_p_value(rng.standard_normal((300, 2)), n_resamples=99))
    for alpha in (0.05, 0.2):
        n_alarms = (np.array(p_values) <= alpha).sum()
        low, high = stats.binom.interval(0.99, 100, alpha)
        assert low <= n_alarms <= high


def test_batch_p_value_where_the_density_is_zero():
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


@pytest.mark.parametrize("calibration", [None, "conformal", "empirical_null"])
def test_rows_where_the_density_is_zero_are_outliers(calibration):
    rng = np.random.default_rng(0)
    fitted = DensityOutlierDetector(
        KernelDensity(kernel="epanechnikov", bandwidth=1.5),
        calibration=calibration,
        cv=5,
    ).fit(rng.standard_normal((400, 3)))
    assert np.isneginf(fitted.score_samples([[50.0, 50.0, 50.0]])).all()
    assert fitted.predict([[50.0, 50.0, 50.0]]) == -1
    assert np.isfinite(fitted.offset_)
    if calibration:
        assert fitted.p_values([[50.0, 50.0, 50.0]]) < 0.01
    assert fitted.explain(np.zeros((1, 3))).shape == (1, 3)


def test_flag_of_invalid_p_values_is_an_error():
    fitted = detector(fdr=0.2).fit(skewed(np.random.default_rng(0), 50))
    for value in (np.nan, 2.0):
        with pytest.raises(ValueError, match="p_values must lie between 0 and 1"):
            fitted.flag([0.5, value])


def test_flag_before_fit_is_an_error():
    with pytest.raises(NotFittedError):
        detector(fdr=0.2).flag([0.5])


def test_too_few_calibration_rows_for_fdr_give_a_warning():
    rng = np.random.default_rng(0)
    fitted = detector(fdr=0.05).fit(skewed(rng, 60))
    rows = np.concatenate([skewed(rng, 300), [[1e6, -1e6]]])
    with pytest.warns(
        UserWarning, match="p-value, 0.016, .* for 3 of 301 rows, fdr=0.05 needs 0.0005"
    ):
        assert (fitted.predict(rows) == 1).all()


def test_mixture_holds_out_all_rows_that_are_judged_or_needed():
    of_any = DensityOutlierDetector(calibration="empirical_null")
    assert of_any._with_folds(AutoDensity(), 50_000).cv == 5
    assert of_any._with_folds(AutoDensity(cv=3), 500).cv == 3
    of_clean = of_any.set_params(calibration="conformal")
    assert of_clean._with_folds(AutoDensity(), 1_200).cv == 5  # or the least p-value were 1 / 181
    assert of_clean._with_folds(AutoDensity(), 50_000).cv == "auto"
    assert of_any.set_params(calibration=None)._with_folds(AutoDensity(), 500).cv == "auto"


def test_refit_removes_p_values():
    rng = np.random.default_rng(0)
    fitted = DensityOutlierDetector(Normal(), calibration="empirical_null")
    assert np.isfinite(fitted.fit(rng.standard_normal((100, 2))).p_values_).all()
    fitted.set_params(calibration=None).fit(rng.standard_normal((100, 2)))
    assert not hasattr(fitted, "p_values_")


def test_a_false_discovery_rate_needs_p_values():
    with pytest.raises(ValueError, match=r"fdr=0\.1 needs p-values: set calibration"):
        detector(calibration=None, fdr=0.1).fit(skewed(np.random.default_rng(0), 50))


def test_p_values_without_calibration_are_an_error():
    fitted = DensityOutlierDetector(Normal()).fit(skewed(np.random.default_rng(0), 50))
    for method in (fitted.p_values, fitted.batch_p_value):
        with pytest.raises(ValueError, match="calibration=None: there are no p-values"):
            method(np.ones((2, 2)))


def test_alpha_below_the_smallest_p_value_gives_a_warning():
    with pytest.warns(UserWarning, match="smallest p-value is 0.02"):
        fitted = detector(alpha=0.01).fit(skewed(np.random.default_rng(0), 50))
    assert (fitted.predict([[1e6, -1e6]]) == 1).all()


# Ties


def test_false_alarm_rate_of_tied_scores_is_at_most_alpha():
    """Rows of few values have tied scores, equal up to rounding: all of a tie count, or none."""
    rng = np.random.default_rng(0)
    alpha, n_draws, n = 0.1, 2000, 99
    flagged = naive = 0
    for _ in range(n_draws):
        scores = -rng.choice([0.3, 1.7, 9.1], n + 1, p=[0.7, 0.12, 0.18])
        held_out, new = scores[:n], scores[n] * (1 + 1e-15)
        flagged += Ranks.fit(held_out).p_values(np.array([new]))[0] <= alpha
        naive += (
            Ranks(np.sort(held_out), np.arange(len(held_out) + 1)).p_values(np.array([new]))[0]
            <= alpha
        )
    spread = np.sqrt(alpha * (1 - alpha) / n_draws)
    assert flagged / n_draws <= alpha + 3 * spread
    assert naive / n_draws > alpha + 3 * spread  # what a comparison of bits would do


@pytest.mark.parametrize("cv", [SPLIT, 3])
def test_p_values_of_tied_rows_do_not_depend_on_the_batch(cv):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 3, (120, 2)).astype(float)
    estimator = small("nsf", max_iter=10)
    fitted = DensityOutlierDetector(
        estimator, calibration="conformal", alpha=0.2, cv=cv, random_state=0
    ).fit(X)
    rows = np.unique(X, axis=0)
    batch = np.tile(rows, (200, 1))  # several chunks
    p_values, labels = fitted.p_values(batch), fitted.predict(batch)
    for i, row in enumerate(rows):
        same = slice(i, None, len(rows))
        assert set(p_values[same]) == {fitted.p_values(row[None])[0]}
        assert set(labels[same]) == {fitted.predict(row[None])[0]}
    np.testing.assert_array_equal(labels == -1, p_values <= 0.2)


def test_batch_of_tied_rows_like_those_of_the_fit_is_not_odd():
    X = np.random.default_rng(0).integers(0, 2, (400, 2)).astype(float)
    fitted = detector(cv=SPLIT).fit(X)
    assert fitted.batch_p_value(X[:100] * (1 + 1e-15)) > 0.05
