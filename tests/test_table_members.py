"""Members of a density of a table: latent classes, kernels, correlations, networks."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from _tables import N, density, few_components, quick, schema_of, table  # noqa: F401
from scipy.special import gammaln, logit, logsumexp
from scipy.stats import norm

from skflows import TableDensity
from skflows.distribution.normal import log_normal_mass
from skflows.table import _components, _latent_classes, _maps, _network
from skflows.table._binned_classes import fit_binned_classes
from skflows.table._latent_classes import (
    Training,
    fit_kernels,
    fit_latent_classes,
    initial_shares,
    with_numbers,
)
from skflows.table._view import TableView


@pytest.mark.parametrize(
    ("rates", "n_levels", "is_poisson", "gain"),
    [((2, 5), 12, False, 0.8), ((2, 6, 14), 30, True, 0.6)],
)
def test_counts_of_classes_are_smoothed(rates, n_levels, is_poisson, gain):
    """Towards the shape of all rows or of Poisson counts, as far as they differ by chance."""
    rng = np.random.default_rng(0)
    levels, rates = np.arange(n_levels), np.array(rates)
    true = np.exp(levels * np.log(rates)[:, None] - gammaln(levels + 1))
    true /= true.sum(axis=1, keepdims=True)
    counts = np.stack([rng.multinomial(300, p) for p in true])
    scores = (levels - levels.mean()) / levels.std()
    all_rows = np.tile(np.log(true.mean(axis=0)), (len(rates), 1))
    bases = np.stack([all_rows, _latent_classes.poisson(levels, counts)])
    some, slopes = _latent_classes.tilted(bases, true.mean(axis=0), scores, counts, n_steps=3)
    expected, _ = _latent_classes.tilted(bases, true.mean(axis=0), scores, counts)
    # A fit takes up the steps of Newton's method where it left off.
    after, _ = _latent_classes.tilted(bases, true.mean(axis=0), scores, counts, slopes, 3)
    assert after == pytest.approx(expected)
    assert some != pytest.approx(expected)
    own = expected[int(is_poisson)]
    assert own.sum(axis=1) == pytest.approx(np.ones(len(rates)))
    assert own @ levels == pytest.approx(counts @ levels / 300, rel=0.03)
    table = _latent_classes.shrunk(counts, expected[: 1 + is_poisson])
    error, raw = (
        np.abs(each / each.sum(axis=1, keepdims=True) - true).sum() for each in (table, counts)
    )
    assert error < gain * raw


def test_classes_that_k_means_does_not_find():
    """More of them at the start have a place for each."""
    rng = np.random.default_rng(4)
    means, factors = 2 * rng.normal(size=(5, 3)), rng.normal(size=(5, 3, 3)) / 3**0.5
    own = rng.integers(5, size=600)
    X = means[own] + np.einsum("nij,nj->ni", factors[own], rng.normal(size=(600, 3)))
    random_state = np.random.RandomState(0)
    schema = schema_of(X, random_state=random_state)
    view = TableView(schema, schema.encode(X))
    training = Training(view, "linear", random_state)

    def score(seed, n_more):
        share = initial_shares(training.features, 5 + n_more, np.random.RandomState(seed))
        return training.fit(share, n_more).log_prob(view).mean()

    plain, removed = ([score(seed, n_more) for seed in range(3)] for n_more in (0, 6))
    assert min(plain) < min(removed) - 0.2 and max(removed) - min(removed) < 0.01


@pytest.mark.parametrize("fit", [fit_latent_classes, fit_binned_classes])
def test_classes_of_all_rows_begin_with_the_classes_of_a_fold(monkeypatch, fit):
    """Another start leads to a poorer optimum: equal classes stay equal."""
    rng, settings = np.random.default_rng(0), {}
    X = 4 * rng.integers(2, size=(300, 1)) + rng.normal(scale=0.5, size=(300, 2))
    schema = schema_of(X, random_state=np.random.RandomState(0))
    all_rows, fold = (TableView(schema, schema.encode(rows)) for rows in (X, X[:250]))
    if fit is fit_latent_classes:
        settings["space"] = "linear"
    start = fit(fold, n_classes=2, random_state=np.random.RandomState(0), **settings)

    class Poor(np.random.RandomState):
        def dirichlet(self, alpha, n):
            return np.full((n, len(alpha)), 1 / len(alpha))

    monkeypatch.setattr(_latent_classes, "MORE_CLASSES", 0)
    monkeypatch.setattr(_latent_classes, "initial_shares", lambda *_: np.full((300, 2), 0.5))
    again, poor = (
        fit(all_rows, n_classes=2, random_state=Poor(0), start=each, **settings)
        for each in (start, None)
    )
    good, found, lower = (each.log_prob(all_rows).mean() for each in (start, again, poor))
    assert found > good - 0.01 > lower + 0.2


@pytest.mark.parametrize("seed", [0, 7])
def test_overlapping_classes_of_all_rows_are_no_poorer_than_those_of_a_fold(seed):
    """They begin with the covariances of the fold too, by which classes of one place differ."""
    rng = np.random.default_rng(seed)
    means, factors = 0.7 * rng.normal(size=(6, 4)), rng.normal(size=(6, 4, 4))
    own = rng.integers(6, size=900)
    X = means[own] + np.einsum("nij,nj->ni", factors[own], rng.normal(size=(900, 4)))
    schema = schema_of(X, random_state=np.random.RandomState(0))
    all_rows, fold = (TableView(schema, schema.encode(rows)) for rows in (X, X[:765]))
    start = fit_latent_classes(fold, 6, "linear", np.random.RandomState(seed))
    again = fit_latent_classes(all_rows, 6, "linear", np.random.RandomState(0), start=start)
    assert again.log_prob(all_rows).mean() > start.log_prob(all_rows).mean()


def test_components_with_weight_are_fitted_to_all_rows_from_their_fold(monkeypatch):
    X, starts = np.random.default_rng(0).normal(size=(60, 2)), []
    fit = _latent_classes.fit_latent_classes

    def noted(view, *args, start=None, **settings):
        starts.append((len(view), start))
        return fit(view, *args, start=start, **settings)

    monkeypatch.setattr(_latent_classes, "fit_latent_classes", noted)
    density = TableDensity(max_iter=1, random_state=0)
    density._fit_held_out(X, None, np.arange(60) < 12)
    of_all = [start for n, start in starts if n == 60]
    assert of_all and all(start.schema is not density._schema for start in of_all)
    assert all(start is None for n, start in starts if n < 60)


@pytest.mark.parametrize(("excess", "n_more"), [(0, _latent_classes.MORE_CLASSES), (1, 0)])
def test_the_bound_of_work_counts_the_extra_classes(monkeypatch, excess, n_more):
    X, random_state = np.random.default_rng(0).normal(size=(40, 2)), np.random.RandomState(0)
    schema = schema_of(X, random_state=random_state)
    calls, fit = [], Training.fit
    monkeypatch.setattr(Training, "fit", lambda *args: calls.append(args) or fit(*args))
    work = 40 * (3 + _latent_classes.MORE_CLASSES) * 2**2
    monkeypatch.setattr(_latent_classes, "WORK_WITH_MORE", work - excess)
    view = TableView(schema, schema.encode(X))
    _latent_classes.fit_latent_classes(view, 3, "linear", random_state)
    assert [args[-1] for args in calls] == [n_more]


@pytest.mark.parametrize(
    ("n", "n_folds", "n_epochs"),
    [(200, 5, 100), (1000, 5, 50), (1001, 1, 100), (1600, 1, 64), (4000, 1, 50), (9000, 1, 100)],
)
def test_automatic_epochs(n, n_folds, n_epochs):
    assert _components.automatic_epochs(n, n_folds) == n_epochs
    assert len(_components.make_splits("auto", np.arange(n), 0)) == n_folds


def test_logits_over_a_long_range():
    """Nearly all numbers are in a small part of it, where the logit is steep."""
    x = np.floor(np.random.default_rng(0).exponential(2000, 5000))
    scores = _maps.map_by_logits(x, np.ones(len(x)), x.min(), x.max(), 1.0).forward(x)[0]
    exact = logit((x - x.min() + 1) / (np.ptp(x) + 2))
    assert np.allclose(scores, (exact - exact.mean()) / exact.std(), atol=0.01)


def test_levels_of_classes_are_shrunk_as_far_as_they_agree():
    """Hardly where each class has its own level, and to all rows where classes are alike."""
    rng = np.random.default_rng(0)
    own = np.repeat(np.arange(3), 50)
    table = pd.DataFrame({"x": rng.normal(size=150), "pure": np.array(["a", "b", "c"])[own]})
    table["other"] = rng.choice(["a", "b", "c"], 150)
    random_state = np.random.RandomState(0)
    schema = schema_of(table, random_state=random_state)
    training = Training(TableView(schema, schema.encode(table)), "linear", random_state)
    pure, other = np.exp(list(training.tables(np.eye(3)[own], is_last=True).values()))
    assert np.diag(pure).min() > 0.999
    assert np.abs(other - other.mean(axis=0)).max() < 0.01


@pytest.mark.parametrize("n_covariances", [1, 40])
def test_numbers_far_from_all_classes_keep_their_probability(n_covariances):
    """Masses that are differences of two vanish there, and are computed in another way."""
    rng = np.random.default_rng(0)
    n, k, d = 200, 40, 3
    y, means = rng.normal(scale=80, size=(n, d)), rng.normal(scale=20, size=(k, d))
    sd = np.exp(rng.normal(size=(n_covariances, d)))
    below = above = np.exp(rng.normal(scale=3, size=(n, d)))
    below, above = below.copy(), above.copy()
    below[:50, 0], above[50:100, 1] = np.inf, np.inf
    below[:, 2] = above[:, 2] = 0.0
    unit = (y - means[:, None]) / sd[:, None]
    low, high = unit - below / sd[:, None], unit + above / sd[:, None]
    flip = low > 0  # so that differences keep their digits
    low, high = np.where(flip, -high, low), np.where(flip, -low, high)
    with np.errstate(divide="ignore"):
        mass = norm.logcdf(high) + np.log(-np.expm1(norm.logcdf(low) - norm.logcdf(high)))
    mass[..., 2] = norm.logpdf(unit[..., 2]) - np.log(sd[:, None, 2])
    levels = rng.normal(size=(n, k))
    expected = logsumexp(levels + mass.sum(axis=2).T, axis=1)
    covariances = np.stack([np.diag(each**2) for each in sd])
    found = logsumexp(with_numbers(levels, means, covariances, y, below, above), axis=1)
    assert expected.min() < -800
    assert found == pytest.approx(expected, rel=1e-10)


def test_kernels_far_from_a_row_keep_a_bound_of_their_probability():
    """Bounds are never below the probability, and rows with them score the same."""
    rng = np.random.default_rng(0)
    n, k, d = 100, 400, 4
    means = rng.normal(scale=3, size=(k, d))
    y = means[:n] + rng.normal(size=(n, d))
    below = np.exp(rng.normal(-1, 1.5, size=(n, d)))
    above = below.copy()
    above[:20, 0] = np.inf
    levels, covariances = np.zeros((n, k)), 0.3 * np.eye(d)[None] + 0.1
    inverse = np.linalg.inv(np.linalg.cholesky(covariances[0]))
    unit = (y[:, None] - means) @ inverse.T
    low, high = (unit + (e - y)[:, None] * np.diag(inverse) for e in (y - below, y + above))
    exact = log_normal_mass(low, unit, high, 0.0, 1.0).sum(axis=2)
    found = with_numbers(levels, means, covariances, y, below, above)
    assert (found > exact - 1e-9).all()
    assert (found > exact + 0.1).mean() > 0.3  # otherwise, there is no bound to test
    assert np.abs(logsumexp(found, axis=1) - logsumexp(exact, axis=1)).max() < 1e-6


def test_known_mixture():
    """The conditionals of two well-known normals, from 600 rows."""
    rng = np.random.default_rng(0)
    z = rng.integers(2, size=600)
    X = rng.normal(size=(600, 2)) + 4 * z[:, None]
    table = pd.DataFrame({"z": np.where(z, "up", "down"), "x": X[:, 0], "y": X[:, 1]})
    own = quick(max_iter=10).fit(table)
    at = pd.DataFrame({"x": [-1.0, 2.0, 5.0]})
    truth = np.stack([-0.5 * at["x"] ** 2, -0.5 * (at["x"] - 4) ** 2], 1)
    truth = np.exp(truth - logsumexp(truth, axis=1, keepdims=True))
    found = own.predict_proba("z", at)
    assert found[[0, 2]] == pytest.approx(truth[[0, 2]], abs=0.05)
    assert found[1] == pytest.approx(truth[1], abs=0.35)  # between the two, where few rows are
    y = np.array([-1.0, 0.0, 4.0])
    joint = [truth[:, k] * np.exp(-0.5 * (y - 4 * k) ** 2) / np.sqrt(2 * np.pi) for k in (0, 1)]
    found = own.condition(at).marginal(["y"]).score_samples(pd.DataFrame({"y": y}))
    assert np.abs(np.exp(found) - sum(joint)).max() < 0.12


@pytest.mark.parametrize(("noise", "least", "most"), [(0.01, 0.0, 0.001), (3.0, 0.2, 0.5)])
@pytest.mark.parametrize("n_distinct", [40, 20])
def test_correlations_are_shrunk_by_leave_one_out_likelihood(n_distinct, noise, least, most):
    """Hardly at all if columns are nearly linear functions of others, which it would blur."""
    rng = np.random.default_rng(0)
    group = np.arange(40) % n_distinct
    x = rng.normal(size=(40, 8))[group]
    x[:, 4:] = x[:, :4] + noise * x[:, 4:]
    share = (rng.uniform(0.5, 1.5, (40, 1)) * rng.dirichlet([1.0, 2.0], 40))[group]
    residual = np.stack([x, x + 0.1])
    n, scatter = share.sum(), np.einsum("nk,kni,knj->knij", share, residual, residual)
    covariance = scatter.sum(axis=(0, 1)) / n
    diagonal = np.diag(np.diag(covariance))
    without = covariance - (40 // n_distinct) * scatter / n  # nor copies of the row
    scores = []
    for shrinkage in _latent_classes.SHRINKAGES:
        others = (1 - shrinkage) * without + shrinkage * diagonal
        distance = np.einsum("kni,knij,knj->kn", residual, np.linalg.inv(others), residual)
        scores.append(-(share.T * (distance + np.linalg.slogdet(others)[1])).sum())
    best = _latent_classes.SHRINKAGES[np.argmax(scores)]
    assert least <= best <= most
    assert _latent_classes.best_shrinkage(covariance, share, residual, group) == best
    # A row with a gap is not left out.
    group[:5] = -1
    assert least <= _latent_classes.best_shrinkage(covariance, share, residual, group) <= most


@pytest.mark.parametrize(("n", "d", "gaps"), [(100, 20, 0.6), (30, 60, 0.0)])
def test_correlations_of_few_rows_or_many_gaps_do_not_hide_the_columns(n, d, gaps):
    """The normals are hardly worse than independent ones for independent columns."""
    rng = np.random.default_rng(0)
    X, X_new = rng.normal(size=(2, n, d))
    X[rng.uniform(size=X.shape) < gaps] = np.nan
    kinds = dict.fromkeys(range(d), "continuous")
    schema = schema_of(X, kinds)
    views = [TableView(schema, schema.encode(rows)) for rows in (X, X_new)]
    training = Training(views[0], "linear", np.random.RandomState(0))
    mixture = training.fit(np.ones((n, 1)))
    independent = -0.5 * (X_new**2 + np.log(2 * np.pi)).sum(axis=1)
    assert mixture.log_prob(views[1]).mean() > independent.mean() - 0.3 * d


def test_kernels_are_a_density_with_exact_conditionals(table):
    """Of all kinds of columns, with gaps: each row is a class."""
    schema = quick().fit(table)._schema
    variables = schema.encode(table)
    view = TableView(schema, variables)
    kernels = fit_kernels(view, "quantile", np.random.RandomState(0))
    assert len(kernels.log_weights) == N
    given = np.where(np.arange(variables.shape[1]) % 2 == 0, variables, np.nan)
    joint, marginal = kernels.log_prob(view), kernels.log_prob(TableView(schema, given))
    conditional = kernels.log_prob(view, ~np.isnan(given))
    np.testing.assert_allclose(conditional, joint - marginal, atol=1e-8)
    for j in (0, 1):  # sex and size
        found = kernels.predictive(view, j)
        weights = found.levels if found.number is None else found.number.cdf(np.full((1, 1), 99.0))
        np.testing.assert_allclose(weights.sum(axis=1), 1)
    code = kernels.predictive(TableView(schema, variables[:9]), 0).levels
    some = variables[:9].copy()
    for k in (0, 1):
        some[:, 0] = k
        odds = kernels.log_prob(TableView(schema, some))
        some[:, 0] = np.nan
        odds -= kernels.log_prob(TableView(schema, some))
        seen = 1 - schema.variables[0].unseen
        np.testing.assert_allclose(np.exp(odds), seen * code[:, k], atol=1e-8)


def test_kernels_are_as_narrow_as_the_rows_that_have_close_ones():
    """The others are left to other components of the mixture."""
    rng = np.random.default_rng(0)
    wide, close = rng.normal(size=(150, 3)), rng.normal(size=(75, 3))
    rows = np.concatenate([wide, close, close + 0.05 * rng.normal(size=(75, 3))])
    view = TableView(schema_of(pd.DataFrame(rows)), rows)
    kernels, one = (
        fit(view, "linear", np.random.RandomState(0))
        for fit in (fit_kernels, lambda view, *args: fit_latent_classes(view, 1, *args))
    )
    times = np.sqrt(kernels.covariances[0, 0, 0] / one.covariances[0, 0, 0]) * 300 ** (1 / 7)
    assert times == pytest.approx(_latent_classes.BANDWIDTHS[0])  # alone, 1 is likelier


def test_kernels_keep_to_a_category_that_tells_something():
    """How much levels are smoothed is up to rows that are left out, column by column."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 2, 300)
    table = pd.DataFrame(
        {
            "x": 6 * kind + rng.normal(size=300),
            "kind": np.where(kind, "b", "a"),
            "coin": rng.choice(["heads", "tails"], 300),
        }
    )
    schema = TableDensity(max_iter=1).fit(table)._schema
    kernels = fit_kernels(
        TableView(schema, schema.encode(table)), "linear", np.random.RandomState(0)
    )
    unknown = TableView(schema, np.full((2000, 3), np.nan))
    drawn = kernels.sample(unknown, np.arange(2000), np.random.RandomState(1))
    assert ((drawn[:, 0] > 3) != drawn[:, 1]).mean() < 0.02
    share_of_other = np.exp(kernels.tables[2]).min(axis=1)
    assert share_of_other.min() > 0.2


def test_the_weights_of_given_variables_say_nothing_of_the_unknown_ones():
    """Rows that know all variables, and rows that lack some, give each part the same weight."""
    known = torch.ones(160_000, 5, dtype=bool)
    known[:120_000, 3:] = False
    known[:20_000, 0] = False
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(len(known), 6, generator=generator)
    patterns = _network.common_patterns(known)
    given, weight = _network.random_given(known, uniform, generator, patterns)
    assert (known | ~given).all() and (given != known).any(axis=1).all()
    totals = {}
    for rows in (slice(20_000, 120_000), slice(120_000, None)):
        parts, place = torch.unique(given[rows], dim=0, return_inverse=True)
        total = torch.bincount(place, weight[rows].double()) / len(weight[rows])
        for part, value in zip(parts.tolist(), total.tolist(), strict=True):
            totals.setdefault(tuple(part), []).append(value)
    shared = [pair for pair in totals.values() if len(pair) == 2]
    assert len(shared) == 7  # all parts of three variables but the three
    for few, many in shared:
        assert few == pytest.approx(many, rel=0.1)
    given, weight = _network.random_given(known[120_000:], uniform[120_000:], generator)
    np.testing.assert_allclose(weight, 5 / (5 - given.sum(1)))


def test_weights_of_many_given_variables_are_finite():
    known = torch.ones(400, 300, dtype=bool)
    known[:100, :150] = False
    uniform, generator = torch.rand(400, 301), torch.Generator().manual_seed(0)
    patterns = _network.common_patterns(known)
    _, weight = _network.random_given(known, uniform, generator, patterns)
    assert (weight > 0).all() and (weight <= 300).all()


def test_values_that_are_missing_at_random_make_no_groups():
    known = torch.rand(400, 20, generator=torch.Generator().manual_seed(0)) < 0.8
    assert _network.common_patterns(known) is None


def test_components_are_pickled(density):
    """For processes of multiprocessing, which do not take local functions."""
    found = _components.components(density._schema, N, {"max_iter": 1, "n_orders": 1})
    names = [component.name for component in pickle.loads(pickle.dumps(found))]
    assert names == [component.name for component in found]
    assert set(density.component_names_) <= set(names)


def test_held_out_rows_score_like_new_ones():
    """The cell of a single value would be wide if its row had a part in the maps that score it."""
    rng = np.random.default_rng(2)
    tens, others = 10.0 * rng.integers(0, 10, 1300), np.round(np.exp(rng.normal(3, 1, 1300)))
    X = np.where(rng.uniform(size=1300) < 0.6, tens, others)[:, None]
    density = TableDensity(max_iter=1, n_orders=1, random_state=0).fit(X[:300])
    known, new = density.held_out_scores_.clip(-10), density.score_samples(X[300:]).clip(-10)
    assert known.mean() < new.mean() + 0.15
