"""Ensembles of outlier detectors: p-values of each, merged, and calibrated again."""

import copy
import tracemalloc

import numpy as np
import pytest
from scipy.stats import hmean
from sklearn.covariance import LedoitWolf
from sklearn.ensemble import IsolationForest
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skflows import AdaptiveKernelDensity, DensityOutlierDetector, StackedDensity
from skflows.calibration.ranks import Ranks
from skflows.outlier import OutlierEnsemble
from skflows.outlier._ensemble import ColumnHistograms, ShrunkGaussian, default_views

RNG = np.random.default_rng(0)
X = RNG.standard_normal((200, 3))
X_new = RNG.standard_normal((220, 3))
X_new[200:, 0] += 4
IS_ODD = np.arange(len(X_new)) >= 200
FOREST = IsolationForest(n_estimators=5)


@parametrize_with_checks(
    [
        OutlierEnsemble(random_state=0),
        OutlierEnsemble([("kernels", KernelDensity(bandwidth=0.5))], random_state=0),
        DensityOutlierDetector(random_state=0),
    ]
)
def test_check_estimator(estimator, check):
    check(estimator)


def test_score_is_the_log_of_the_harmonic_mean_p_value():
    members = [("kernels", AdaptiveKernelDensity()), ("mixture", GaussianMixture())]
    fitted = OutlierEnsemble(members, random_state=0).fit(X)
    inside = np.zeros((1, 3))  # above the lowest known score of each
    p_values = []
    for member, null in zip(fitted.estimators_, fitted._nulls, strict=True):
        below = (null.scores <= member.score_samples(inside)).sum()
        p_values.append((1 + below) / (1 + len(X)))
    assert np.exp(fitted.score_samples(inside)) == pytest.approx(hmean(p_values))
    assert (fitted.score_samples(X_new) <= 0).all()


def test_p_values_among_outliers_are_those_of_the_bulk():
    rng = np.random.default_rng(0)
    rows = np.vstack([rng.standard_normal((400, 3)), rng.standard_normal((20, 3)) + 8])
    fitted = OutlierEnsemble(contaminated=True, random_state=0).fit(rows)
    # By ranks, the outliers would have p-values up to 5 %.
    assert (fitted.held_out_scores_[400:] < np.log(0.002)).all()
    assert np.exp(fitted.held_out_scores_[:400]).mean() == pytest.approx(0.4, abs=0.1)
    constant = np.ones((50, 2))
    assert np.isfinite(OutlierEnsemble(contaminated=True).fit(constant).held_out_scores_).all()


def test_scores_go_on_falling_beyond_the_known_rows():
    far = np.array([[10.0, 0, 0], [20.0, 0, 0], [1e6, 0, 0]])
    assert (np.diff(OutlierEnsemble(random_state=0).fit(X).score_samples(far)) < 0).all()


TABLES = {
    "normal": (100, lambda rng, n: rng.standard_normal((n, 4))),
    "as many columns as rows": (30, lambda rng, n: rng.standard_normal((n, 30))),
    "rare events": (200, lambda rng, n: (rng.uniform(size=(n, 20)) < 0.01) * 1.0),
    "constant columns": (
        100,
        lambda rng, n: np.column_stack([rng.standard_normal((n, 2)), np.ones((n, 3))]),
    ),
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.filterwarnings("ignore:alpha")
def test_p_values_are_valid(table):
    n, draw = TABLES[table]
    shares = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        rows, new = draw(rng, n), draw(rng, 1000)
        detector = DensityOutlierDetector(calibration="conformal", random_state=seed).fit(rows)
        p_values = detector.p_values(new)
        shares.append([(p_values <= alpha).mean() for alpha in (0.1, 0.2)])
    # Ties make them larger, never smaller.
    assert (np.mean(shares, axis=0) <= [0.125, 0.24]).all()
    if table == "normal":
        assert np.mean(shares, axis=0) == pytest.approx([0.1, 0.2], rel=0.3)


def test_equal_rows_are_inliers():
    rows = np.column_stack([RNG.uniform(size=100) < 0.02, np.ones((100, 5))]).astype(float)
    assert (OutlierEnsemble(random_state=0).fit_predict(rows) == -1).sum() < 10


def test_frozen_members_keep_their_fit_and_are_judged_by_the_rows():
    other = RNG.standard_normal((80, 3)) + 1
    frozen = FrozenEstimator(AdaptiveKernelDensity(random_state=0).fit(other))
    fitted = OutlierEnsemble([("kernels", frozen)]).fit(X)
    expected = Ranks.fit(frozen.score_samples(X)).log_p(frozen.score_samples(X), is_own=True)
    np.testing.assert_allclose(fitted.held_out_scores_, expected)


def test_ensemble_is_no_density():
    with pytest.raises(TypeError, match="OutlierEnsemble is an outlier detector"):
        StackedDensity([("a", OutlierEnsemble()), ("b", KernelDensity())]).fit(X)


@pytest.mark.parametrize("contaminated", [False, True])
def test_density_of_zero_is_the_lowest_score(contaminated):
    kernels = KernelDensity(kernel="tophat", bandwidth=0.8)
    fitted = OutlierEnsemble([("tophat", kernels)], contaminated=contaminated).fit(X)
    assert not np.isnan(fitted.held_out_scores_).any()
    scores = fitted.score_samples(np.vstack([X[:5], [[50.0, 0, 0]]]))
    assert (scores[-1] <= scores[:-1]).all() and (scores[-1] < scores[:-1]).any()


def test_views_find_what_one_of_them_misses():
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((800, 6))
    rows[:, 0] = np.exp(5 * rows[:, 0])  # its distances between ordinary values are tiny or huge
    rows, inliers = rows[:400], rows[400:]
    odd = inliers[:100].copy()
    odd[:, 0] = 1e-4 * odd[:, 0]  # far off in ranks alone
    odd[:, 1] *= 1.5
    new, labels = np.vstack([inliers, odd]), np.repeat([0, 1], [400, 100])
    alone = AdaptiveKernelDensity(
        n_neighbors=5, preprocessing="standardize", discrete=None, random_state=0
    ).fit(rows)
    ensemble = OutlierEnsemble(random_state=0).fit(rows)
    auc = [roc_auc_score(labels, -each.score_samples(new)) for each in (alone, ensemble)]
    assert auc[1] > auc[0] + 0.01


def test_wide_kernels_see_a_group_of_outliers():
    rows = np.vstack([RNG.standard_normal((300, 2)), 0.1 * RNG.standard_normal((12, 2)) + 6])
    is_odd = np.arange(len(rows)) >= 300
    auc = [
        roc_auc_score(is_odd, -OutlierEnsemble(contaminated=c).fit(rows).held_out_scores_)
        for c in (False, True)
    ]
    assert auc[1] > 0.99 and auc[1] > auc[0]


def test_histograms_leave_the_row_out():
    fitted = ColumnHistograms().fit(X)
    for i in (0, int(X[:, 0].argmax())):
        alone = copy.deepcopy(fitted)
        bins = fitted._bins(X[[i]])
        for j, b in enumerate(bins[0]):
            alone.counts_[b, j] -= 1
        alone.n_samples_ -= 1
        assert alone.score_samples(X[[i]])[0] == pytest.approx(fitted.held_out_scores_[i])
    beyond = fitted.score_samples(np.array([X.max(axis=0) + 1, X.min(axis=0) - 1, [0.0] * 3]))
    assert beyond[0] == beyond[1] < beyond[2]
    assert np.isfinite(ColumnHistograms().fit(np.ones((3, 2))).held_out_scores_).all()


def test_parameters_of_named_members():
    ensemble = OutlierEnsemble([("scaled", make_pipeline(StandardScaler(), KernelDensity()))])
    ensemble.set_params(scaled__kerneldensity__bandwidth=2.0)
    assert ensemble.get_params()["scaled__kerneldensity__bandwidth"] == 2.0
    assert OutlierEnsemble().set_params(contaminated=True).get_params()["contaminated"]
    with pytest.raises(ValueError, match="not unique"):
        OutlierEnsemble([("a", FOREST), ("a", FOREST)]).fit(X)


@pytest.mark.parametrize("estimators", [[], [FOREST], [("forest", IsolationForest)]])
def test_unusable_members_are_an_error(estimators):
    with pytest.raises((TypeError, ValueError), match=r"\(name, estimator\)|score_samples"):
        OutlierEnsemble(estimators).fit(X)


def test_members_without_held_out_scores_of_all_rows():
    class Half(GaussianMixture):
        def fit(self, X, y=None):
            super().fit(X)
            self.held_out_scores_ = np.where(np.arange(len(X)) % 2, self.score_samples(X), np.nan)
            return self

    fitted = OutlierEnsemble([("half", Half())], random_state=0).fit(X)
    np.testing.assert_array_equal(np.isnan(fitted.held_out_scores_), np.arange(200) % 2 == 0)
    assert roc_auc_score(IS_ODD, -fitted.score_samples(X_new)) > 0.9


def test_a_mixture_is_judged_by_its_pool():
    stack = StackedDensity([("kernels", KernelDensity()), ("mixture", GaussianMixture())])
    fitted = OutlierEnsemble([("stack", stack)], random_state=0).fit(X)
    (member,), (null,) = fitted.estimators_, fitted._nulls
    np.testing.assert_allclose(fitted.score_samples(X_new), null.log_p(member._pool_rows(X_new)))


def test_memory_of_scores_does_not_grow_with_the_rows():
    rng = np.random.default_rng(0)
    ensemble = OutlierEnsemble(random_state=0).fit(rng.standard_normal((50, 10)))
    X = rng.standard_normal((100_000, 10))
    tracemalloc.start()
    scores = ensemble.score_samples(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < X.nbytes
    np.testing.assert_allclose(scores[-10:], ensemble.score_samples(X[-10:]))


@pytest.mark.parametrize(
    "n, d, expected", [(2, 3, 2), (500, 3, 500), (5000, 62, 1000), (5000, 1555, 64), (9, 10**6, 2)]
)
def test_ranks_of_wide_tables_have_few_quantiles(n, d, expected):
    members = dict(default_views(n, d, contaminated=False))
    assert members["ranks"][0].n_quantiles == expected


@pytest.mark.parametrize("shape", [(30, 80), (80, 30)])
def test_shrunk_gaussian_is_that_of_ledoit_and_wolf(shape):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal(shape) @ rng.standard_normal((shape[1], shape[1]))
    new = 3 * rng.standard_normal((5, shape[1]))
    expected = -LedoitWolf().fit(rows).mahalanobis(new)
    np.testing.assert_allclose(ShrunkGaussian().fit(rows).score_samples(new), expected)
    assert np.isfinite(ShrunkGaussian().fit(np.ones(shape)).score_samples(new)).all()


@pytest.mark.parametrize("contaminated", [False, True])
def test_wide_tables_have_a_gaussian_view(contaminated):
    """Columns that depend on few factors: a row off their plane is far away in no column."""
    rng = np.random.default_rng(0)
    loadings = rng.standard_normal((4, 150))

    def draw(n):
        return rng.standard_normal((n, 4)) @ loadings + 0.3 * rng.standard_normal((n, 150))

    rows, new = draw(80), np.vstack([draw(60), draw(60) + 0.5 * rng.standard_normal((60, 150))])
    is_odd = np.repeat([0, 1], 60)
    aucs = []
    for estimators in (default_views(80, 150, contaminated), None):
        fitted = OutlierEnsemble(estimators, contaminated=contaminated, random_state=0).fit(rows)
        aucs.append(roc_auc_score(is_odd, -fitted.score_samples(new)))
    assert aucs[1] > aucs[0] + 0.1 and aucs[1] > 0.95
    assert len(OutlierEnsemble().fit(rows[:, :10]).estimators_) == 4
