"""Conditional densities: likelihoods, distributions, and what X and y may be."""

import numpy as np
import pandas as pd
import pytest
import torch
from _densities import NAMES, AtEpochEnd, few_trees
from scipy import stats
from scipy.integrate import trapezoid
from sklearn.feature_selection import SelectKBest, f_regression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    PolynomialFeatures,
    StandardScaler,
)
from sklearn.utils.estimator_checks import parametrize_with_checks

import skflows
from skflows import CNFDensity, ConditionalDensity, FlowRegressor, NSFDensity
from skflows.bijections._conditional import Conditional
from skflows.columns.checks import ColumnWarning
from skflows.conditional._context import ContextEncoder
from skflows.density import ARCHITECTURES
from skflows.model_selection import FlowGridSearchCV


def quick(max_iter=20, **params):
    """Return a flow that fits in a fraction of a second."""
    defaults = {"n_transforms": 1, "hidden_layer_sizes": (16,), "dropout": 0.0}
    return NSFDensity(**defaults | {"max_iter": max_iter, "learning_rate_init": 1e-2} | params)


def heteroscedastic(n, seed=0):
    """Return rows of one column, and y that is normal given them: mean x, deviation 1 + x / 2."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, (n, 1))
    return X, X[:, 0] + (1 + X[:, 0] / 2) * rng.standard_normal(n)


@pytest.fixture(scope="module")
def fitted():
    return ConditionalDensity(quick(), cv=3, random_state=0).fit(*heteroscedastic(600))


# Seeds, and one column of whole numbers in y, whose noise differs between repeats and weights.
@parametrize_with_checks(
    [ConditionalDensity(quick(max_iter=2, discrete=None, learning_rate_init=1e-4), random_state=0)]
)
def test_check_estimator(estimator, check):
    check(estimator)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "cnf"])
def test_context_rides_beside_the_rows(name):
    """The wrapper maps rows and context as the bijection does, and passes its gradients on."""
    bijection = ARCHITECTURES[name](n_transforms=2)._build_bijection(3, 2).double()
    torch.manual_seed(0)
    for parameter in bijection.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    rows = torch.randn(5, 5, dtype=torch.float64)
    wrapped = Conditional(bijection, 3).eval()
    z, log_det = wrapped(rows)
    expected = bijection(rows[:, :3], rows[:, 3:])
    torch.testing.assert_close((z, log_det), expected)
    at_contexts = wrapped.given_others(rows[:, 3:]).forward(rows[None, :, :3])
    torch.testing.assert_close((at_contexts[0][0], at_contexts[1][0]), expected)
    moved = torch.cat([rows[:, :3], rows[:, 3:] + 1], 1)
    assert not torch.allclose(wrapped(moved)[0], z)
    (z, log_det), pullback = wrapped.vjp(rows)
    _, gradients = pullback(z, -torch.ones(5, dtype=torch.float64), to_x=False)
    loss = (expected[0].square() / 2).sum() - expected[1].sum()
    by_autograd = torch.autograd.grad(loss, list(bijection.parameters()), materialize_grads=True)
    torch.testing.assert_close(list(gradients), list(by_autograd))


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("cnf", "waveflow")])  # slow
def test_each_flow_is_a_density_of_y(name):
    X, y = heteroscedastic(60)
    flow = ARCHITECTURES[name](max_iter=2)
    density = ConditionalDensity(flow, cv=2, random_state=0).fit(X, y)
    grid = np.linspace(-15, 15, 1501)[:, None]
    distribution = density.predict_distribution(X[:2])
    assert np.allclose(trapezoid(distribution.pdf(grid), grid, axis=0), 1, atol=4e-3)
    q = np.array([[0.01], [0.3], [0.5], [0.9]])
    assert np.allclose(distribution.cdf(distribution.ppf(q)), q, atol=1e-6)


@pytest.mark.parametrize("objective", ["flow_matching", "likelihood", "both"])
def test_continuous_flow_learns_from_its_context(objective):
    rng = np.random.default_rng(0)
    X = rng.choice([-2.0, 2.0], (300, 1))
    y = X[:, 0] + 0.5 * rng.standard_normal(300)
    flow = CNFDensity(
        objective=objective,
        solver="rk4",
        n_steps=2,
        max_iter=8,
        hidden_layer_sizes=(16,),
        learning_rate_init=3e-2,
    )
    density = ConditionalDensity(flow, cv=None, random_state=0).fit(X, y)
    marginal = -stats.differential_entropy(y)
    assert density.score(X, y) > marginal + 0.3
    low, high = density.sample([[-2.0], [2.0]], 200, 0).mean(axis=(1, 2))
    assert high - low > 2


@pytest.mark.parametrize("calibration", ["auto", 0.6])
def test_few_rows_calibrate_a_flow_whose_scores_take_a_solver(monkeypatch, calibration):
    """With all rows, calibration takes many times as long as training."""
    monkeypatch.setattr("skflows.conditional._regressor.FEW_ROWS", 30)
    monkeypatch.setattr("skflows.conditional._regressor.FEW_DRAWS", 30)
    X, y = heteroscedastic(100)
    flow = CNFDensity(solver="rk4", n_steps=2, max_iter=1, hidden_layer_sizes=(4,))
    density = ConditionalDensity(flow, cv=2, random_state=0)
    regressor = FlowRegressor(density, calibration=calibration, random_state=0).fit(X, y)
    assert [len(scores) for scores in regressor.calibration_scores_.values()] == [30, 30]
    low, high = regressor.predict_interval(X[:5]).T
    assert (low < high).all()


def test_continuous_flow_with_probes():
    X, y = heteroscedastic(60)
    flow = CNFDensity(objective="likelihood", trace="hutchinson", jacobian_penalty=0.1, max_iter=1)
    density = ConditionalDensity(flow, cv=None, random_state=0).fit(X, np.column_stack([y, y]))
    Y = np.column_stack([y, y])
    alone = density.log_prob(X[:1], Y[:1])
    assert np.allclose(density.log_prob(X, Y)[:1], alone, atol=1e-6)
    with pytest.raises(ValueError, match="needs coupling='independent'"):
        ConditionalDensity(CNFDensity(coupling="optimal_transport")).fit(X, y)


def test_learns_the_conditional_density():
    X, y = heteroscedastic(2000)
    density = ConditionalDensity(quick(max_iter=30), cv=None, random_state=0).fit(X, y)
    X, y = heteroscedastic(2000, seed=1)
    truth = stats.norm(X[:, 0], 1 + X[:, 0] / 2)
    divergence = truth.logpdf(y).mean() - density.score(X, y)
    assert divergence < 0.03
    distribution = density.predict_distribution(X)
    assert np.abs(distribution.mean() - truth.mean()).mean() < 0.15
    assert np.abs(distribution.std() - truth.std()).mean() < 0.15


def test_distribution_agrees_with_its_samples(fitted):
    X = np.array([[-0.9], [0.0], [0.9]])
    distribution = fitted.predict_distribution(X)
    assert len(distribution) == 3
    assert repr(distribution) == "<ConditionalDistribution: n_rows=3, n_outputs=1>"
    y = fitted.sample(X, 2000, random_state=0)
    assert y.shape == (3, 2000, 1)
    assert np.allclose(y[..., 0].mean(axis=1), distribution.mean(), atol=0.1)
    assert np.allclose(y[..., 0].std(axis=1), distribution.std(), atol=0.1)
    for draws, row in zip(y[..., 0], X, strict=True):
        own = fitted.predict_distribution([row])
        assert stats.kstest(draws, lambda values, own=own: own.cdf(values[:, None])[:, 0])[1] > 1e-3
    assert np.array_equal(distribution.rvs(2, random_state=3), fitted.sample(X, 2, 3)[..., 0].T)
    assert np.allclose(distribution.sf(0.0), 1 - distribution.cdf(0.0))
    assert np.array_equal(distribution.quantile(0.5), distribution.median())
    low, high = distribution.interval(0.8)
    assert np.allclose(distribution.cdf(high) - distribution.cdf(low), 0.8)
    assert np.allclose(distribution.logpdf([1.0, 2.0, 3.0]), fitted.log_prob(X, [1.0, 2.0, 3.0]))


def test_few_draws_and_no_values(fitted):
    # With several flows, some of them have no draw.
    assert len(fitted.flows_) > 1
    assert all(fitted.sample([[0.0]], 1, seed).shape == (1, 1, 1) for seed in range(5))
    assert fitted.predict_distribution([[0.0]]).cdf(np.empty((0, 1))).shape == (0, 1)


def test_many_flows():
    X, y = heteroscedastic(60)
    density = ConditionalDensity(quick(1), cv=2, random_state=0).fit(X, y)
    expected = density.predict_distribution(X[:2])
    density.flows_, density._signs = 65 * density.flows_, 65 * density._signs
    density.weights_ = np.full(130, 1 / 130)
    distribution = density.predict_distribution(X[:2])
    assert np.allclose(distribution.mean(), expected.mean(), atol=1e-2)
    assert np.isfinite(distribution._histogram()[1]).all()


def test_mean_where_quantiles_jump():
    """Of y near -5 and 5: nearly none lies between."""
    X, y = heteroscedastic(500)
    y = np.where(np.arange(500) % 4, 5, -5) + 0.1 * y
    density = ConditionalDensity(quick(60), cv=None, random_state=0).fit(0 * X, y)
    distribution = density.predict_distribution([[0.0]])
    fine = distribution.ppf((np.arange(2000)[:, None] + 0.5) / 2000)
    assert abs(distribution.mean()[0] - fine.mean()) < 0.03
    assert abs(distribution.std()[0] - fine.std()) < 0.03


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_heavy_tails_have_moments_within_a_range_of_the_values_seen(n_outputs):
    X, _ = heteroscedastic(100)
    Y = np.column_stack(n_outputs * [np.random.default_rng(0).standard_cauchy(100) ** 3])
    distribution = ConditionalDensity(quick(1), random_state=0).fit(X, Y).predict_distribution(X)
    low, high = 2 * Y.min() - Y.max(), 2 * Y.max() - Y.min()
    farthest = distribution.ppf(1 - 1e-9)
    assert (farthest > high).any()  # quantiles have no ends
    assert (low < distribution.mean()).all() and (distribution.mean() < high).all()
    assert (distribution.std() < high - low).all()


@pytest.mark.parametrize("scale", [0.5, 100])
def test_moments_of_discrete_values_are_within_their_support(scale):
    X, y = heteroscedastic(300)
    y = np.rint(scale * (X[:, 0] + 0.2 * y)).clip(0)
    density = ConditionalDensity(quick(30), cv=None, random_state=0).fit(X, y)
    mean, std = density.predict_distribution(X).mean(), density.predict_distribution(X).std()
    assert 0 <= mean.min() and mean.max() <= y.max()
    draws = density.sample(X[:20], 3000, 0)[..., 0]
    assert np.allclose(draws.mean(axis=1), mean[:20], atol=0.1 * y.std())
    assert np.allclose(draws.std(axis=1), std[:20], atol=0.1 * y.std())


def test_blocks_of_rows_change_nothing(fitted, small_blocks):
    X, _ = heteroscedastic(7, seed=2)
    distribution = fitted.predict_distribution(X)
    q = np.array([[0.1], [0.5]])
    expected = distribution.ppf(q), distribution.pdf(q), distribution.mean()
    small_blocks()
    found = distribution.ppf(q), distribution.pdf(q), distribution.mean()
    assert all(np.allclose(a, b, atol=1e-9) for a, b in zip(found, expected, strict=True))


def test_a_row_is_scored_alone(fitted):
    X, y = heteroscedastic(50, seed=2)
    alone = [fitted.log_prob(X[i : i + 1], y[i : i + 1])[0] for i in range(5)]
    assert np.allclose(fitted.log_prob(X, y)[:5], alone, atol=1e-10)


def test_whole_numbers_have_exact_probabilities():
    X, y = heteroscedastic(300)
    k = np.rint(3 * y)
    density = ConditionalDensity(quick(), cv=2, random_state=0).fit(X, k)
    distribution = density.predict_distribution(X[:4])
    values = np.arange(-60, 61)[:, None]
    probability = distribution.pmf(values)
    assert np.allclose(probability.sum(axis=0), 1, atol=1e-5)
    assert np.allclose(np.cumsum(probability, axis=0), distribution.cdf(values), atol=1e-5)
    assert np.allclose(distribution.cdf(2.5), distribution.cdf(2))
    assert np.allclose((probability * values).sum(axis=0), distribution.mean(), atol=0.02)
    median = distribution.median()
    assert np.array_equal(median, np.rint(median))
    assert (distribution.cdf(median) >= 0.5).all() and (distribution.cdf(median - 1) < 0.5).all()
    assert set(density.sample(X, 3, 0).ravel() % 1) == {0.0}
    with pytest.raises(ValueError, match="single, discrete output"):
        ConditionalDensity(quick(1), random_state=0).fit(X, y).predict_distribution(X).pmf(0)


def test_bounds_hold():
    X, y = heteroscedastic(200)
    density = ConditionalDensity(quick(5, bounds=[(0, None)]), cv=None, random_state=0)
    density.fit(X, np.exp(y))
    assert density.sample(X[:50], 20, 0).min() > 0
    assert (density.predict_distribution(X[:2]).cdf([[-1.0], [0.0]]) == 0).all()
    assert np.isneginf(density.log_prob(X[:2], [0.0, -1.0])).all()
    k = np.rint(np.exp(y)).clip(0, 5)
    density.set_params(estimator__bounds=[(0, 5)]).fit(X, k)
    distribution = density.predict_distribution(X[:2])
    assert np.allclose(distribution.pmf(np.arange(6)[:, None]).sum(axis=0), 1, atol=1e-9)
    assert (distribution.cdf(5) == 1).all()
    with pytest.raises(ValueError, match=r"y\[.*not within bounds"):
        density.fit(X, y)


def test_several_outputs(small_blocks):
    X, y = heteroscedastic(300)
    Y = pd.DataFrame({"a": y, "b": np.rint(2 * y)})
    density = ConditionalDensity(quick(bounds={"b": (-50, 50)}), cv=2, random_state=0).fit(X, Y)
    assert density.discrete_ == {"b": 1.0}
    assert density.sample(X[:4], 5, 0).shape == (4, 5, 2)
    distribution = density.predict_distribution(X[:4])
    assert distribution.mean().shape == distribution.std().shape == (4, 2)
    assert np.corrcoef(density.sample(X, 1, 0)[:, 0].T)[0, 1] > 0.5
    q = np.array([0.1, 0.5, 0.9]).reshape(3, 1, 1)
    quantiles = distribution.ppf(q)
    assert quantiles.shape == (3, 4, 2)
    assert np.allclose(distribution.cdf(quantiles)[..., 0], q[..., 0], atol=0.01)
    assert (distribution.cdf(quantiles)[..., 1] >= q[..., 0] - 0.01).all()
    assert distribution.logpdf(Y[:4]).shape == (4,)
    small_blocks()
    assert np.allclose(density.predict_distribution(X[:4]).ppf(q), quantiles)
    with pytest.raises(ValueError, match="y has 1 columns"):
        density.log_prob(X, y)


def table(n=200, seed=0):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "number": rng.standard_normal(n),
            "gaps": np.where(rng.random(n) < 0.3, np.nan, rng.standard_normal(n)),
            "few": rng.choice(["a", "b"], n),
            "many": rng.choice([f"c{i}" for i in range(20)], n),
            "kind": pd.Categorical(rng.integers(0, 3, n)),
        }
    )
    X.loc[:9, "few"] = None
    y = 3 * (X["few"] == "a") + X["many"].str[1:].astype(float) + rng.standard_normal(n)
    return X, y.to_numpy()


def test_categories_and_gaps():
    X, y = table()
    density = ConditionalDensity(quick(), random_state=0).fit(X, y)
    assert list(density.feature_names_in_) == list(X.columns)
    new = X.iloc[:2].assign(few=["never seen", None], many=["never seen", "c3"], gaps=[np.nan, 0])
    assert np.isfinite(density.log_prob(new, y[:2])).all()
    both = X.iloc[[0, 0]].assign(many=["c0", "c19"])
    low, high = density.predict_distribution(both).mean()
    assert high > low + 8


def test_encoded_columns():
    X, y = table()
    encoder = ContextEncoder()
    context = encoder.fit_transform(X, y)
    # Two numbers, an indicator, "a", "b" and a gap, the mean of y for "many", and three kinds.
    assert context.shape == (200, 2 + 1 + 3 + 3 + 1)
    assert np.allclose(context[:, 0].mean(), 0, atol=0.05)
    assert np.array_equal(context[:, 2], X["gaps"].isna())
    assert (context[X["gaps"].isna(), 1] == 0).all()
    assert np.corrcoef(context[:, -1], X["many"].str[1:].astype(float))[0, 1] > 0.95
    # Means of y are cross-fitted on the rows of fit, and those of all rows on others.
    assert not np.allclose(encoder.transform(X)[:, -1], context[:, -1])
    assert np.allclose(encoder.transform(X)[:, :-1], context[:, :-1])
    as_objects = X.to_numpy(dtype=object)
    as_objects[:, 4] = as_objects[:, 4].astype(str)
    assert np.allclose(ContextEncoder().fit_transform(as_objects, y), context)


@pytest.mark.parametrize(
    "column",
    [[7, 8], [7.0, 8.0], ["7", "8"], np.array([7, 8], object), pd.Categorical([7, 8])],
    ids=["ints", "floats", "texts", "objects", "categories"],
)
def test_categories_whatever_their_dtype(column):
    """A column of texts, or of the categorical dtype, may come as numbers later."""
    table = pd.DataFrame({"code": pd.Categorical([7, 8, 9, None]), "x": [0.5, 1.0, 2.0, 3.0]})
    encoder = ContextEncoder().fit(table)
    new = pd.DataFrame({"code": column, "x": [0.5, 1.0]})
    assert np.array_equal(encoder.transform(new), encoder.transform(table[:2]))


def test_texts_that_hardly_repeat_are_named():
    texts = [f"Person {i} of {i % 7}" for i in range(38)] + ["Person 0 of 0"] * 2
    table = pd.DataFrame({"who": texts, "x": np.arange(40.0)})
    table["code"] = [*(f"{i:03d}" for i in range(39)), "lost"]
    with pytest.warns(ColumnWarning, match="rows: 'who', 'code'; leave them out") as caught:
        ContextEncoder().fit(table)
    assert len(caught) == 1
    few = table.assign(who=[text[-1] for text in texts]).drop(columns="code")
    ContextEncoder().fit(few)  # without a warning, which would be an error


def test_warns_of_columns_that_are_unknown():
    X, y = table(60)
    encoder = ContextEncoder().fit(X, y)
    with pytest.warns(UserWarning, match=r"60 of 60 values of column 'few' of X, such as 'A'"):
        encoder.transform(X.assign(few="A"))
    encoder.transform(X.assign(few=None))  # missing values are no categories


def test_booleans_are_categories():
    table = pd.DataFrame({"flag": [True, False, True], "x": [0.5, 1.0, 2.0]})
    expected = ContextEncoder().fit_transform(table)
    assert expected.shape == (3, 3)
    assert np.array_equal(ContextEncoder().fit(table).transform(table.astype(object)), expected)
    assert ContextEncoder().fit_transform(table[["flag"]].to_numpy()).tolist() == [
        [0, 1],
        [1, 0],
        [0, 1],
    ]


def test_dates_are_days_seasons_weekdays_and_clocks():
    days = pd.Series(pd.date_range("2023-01-02", periods=400).append(pd.DatetimeIndex([None])))
    table = pd.DataFrame({"day": days, "n": pd.array([*range(400), None], dtype="Int64")})
    encoder = ContextEncoder().fit(table)
    n, day, season, week, clock = encoder.transform(table).T[:5]
    assert np.allclose(day[:400], n[:400])
    assert np.allclose(week[7:400], week[:393]) and not np.allclose(week[1:400], week[:399])
    assert np.abs(season[365:400] - season[:35]).max() < 0.02 < np.ptp(season)
    assert np.ptp(clock) == 0  # at midnight
    assert encoder.transform(table)[-1, -2:].tolist() == [1, 1]  # gaps
    as_dates = table.assign(day=table["day"].dt.date)
    assert np.array_equal(encoder.transform(as_dates), encoder.transform(table))
    with pytest.raises(ValueError, match=r"'day' held dates in fit; now .* 'x': .*to_datetime"):
        encoder.transform(table.assign(day="x"))
    texts = table.assign(day=days.dt.strftime("%d/%m/%Y"))
    assert np.array_equal(ContextEncoder().fit(texts).transform(texts), encoder.transform(table))
    categories = texts.astype({"day": "category"})  # which is a choice: no warning
    assert not ContextEncoder().fit(categories, np.arange(401.0)).is_date_.any()
    objects = table.astype(object).to_numpy()
    objects[:, 0] = days.to_numpy()  # np.datetime64
    of_array = ContextEncoder().fit(objects)
    assert np.array_equal(of_array.transform(objects), encoder.transform(table))
    with pytest.raises(ValueError, match=r"^column 0 held dates in fit; now it holds 0\.0:"):
        of_array.transform(np.zeros((1, 2)))


def test_dates_keep_the_time_zone_of_fit():
    at = pd.Series(pd.date_range("2024-10-20", periods=60, freq="5h", tz="Europe/Berlin"))
    table = pd.DataFrame({"at": at.mask(np.arange(60) == 3), "x": np.arange(60.0)})
    encoder = ContextEncoder().fit(table)
    expected = encoder.transform(table)
    utc = table.assign(at=table["at"].dt.tz_convert("UTC"))
    for same in (utc, utc.astype({"at": object})):
        assert np.array_equal(encoder.transform(same), expected)
    naive = table.assign(at=table["at"].dt.tz_localize(None))
    assert np.array_equal(ContextEncoder().fit_transform(naive), expected)
    with pytest.raises(ValueError, match="'at' had the time zone Europe/Berlin in fit; now"):
        encoder.transform(naive)
    with pytest.raises(ValueError, match=r"'at' had no time zone in fit; now .* UTC"):
        ContextEncoder().fit(naive).transform(utc)
    mixed = table.assign(at=[*table["at"][:30], *utc["at"][30:]])
    with pytest.raises(ValueError, match=r"different time zones \(Europe/Berlin, UTC\)"):
        ContextEncoder().fit(mixed)


def test_dtypes_of_arrow_are_encoded():
    pa = pytest.importorskip("pyarrow")
    at = pd.Series(pd.date_range("2024-10-20", periods=60, freq="5h"))
    plain = pd.DataFrame({"at": at, "kind": pd.Categorical([3, 5] * 30), "n": np.arange(60)})
    table = pd.DataFrame(
        {
            "at": at.astype(pd.ArrowDtype(pa.timestamp("us"))),
            "kind": pd.Series(
                pd.arrays.ArrowExtensionArray(pa.array([3, 5] * 30).dictionary_encode())
            ),
            "n": plain["n"].astype(pd.ArrowDtype(pa.decimal128(30, 2))),
        }
    )
    for names in (["at"], ["kind"], ["at", "kind", "n"]):
        expected = ContextEncoder().fit_transform(plain[names])
        assert np.array_equal(ContextEncoder().fit_transform(table[names]), expected)


def test_time_differences_are_an_error():
    with pytest.raises(TypeError, match=r"column 0 holds .* timedelta64; .* such as to seconds"):
        ContextEncoder().fit(np.arange(20)[:, None].astype("timedelta64[s]"))


def test_dates_of_polars_are_dates():
    pl = pytest.importorskip("polars")
    day = pd.Series(pd.date_range("2024-01-01", periods=60, freq="13h"))
    day[3] = None
    for columns in ({}, {"n": np.arange(60.0)}, {"kind": ["x", "y"] * 30}):
        table = pd.DataFrame({"day": day} | columns)
        frame = pl.DataFrame({"day": day.astype(object).where(day.notna(), None)} | columns)
        encoder, expected = ContextEncoder().fit(frame), ContextEncoder().fit_transform(table)
        assert encoder.is_date_[0]
        assert np.array_equal(encoder.transform(frame), expected)


def test_values_that_are_no_numbers():
    X, y = table(60)
    density = ConditionalDensity(quick(1), cv=None, random_state=0)
    with pytest.raises(TypeError, match=r"column 'since' holds .* Timedelta; .*dt\.total_seconds"):
        density.fit(X.assign(since=pd.to_timedelta(np.arange(60), "D")), y)
    with pytest.raises(ValueError, match="Input y contains NaN: drop the rows without a value"):
        density.fit(X, np.where(np.arange(60) == 3, np.nan, 1.0))
    with pytest.raises(ValueError, match=r"'one'.*\. y must be numbers: for classes"):
        density.fit(X, np.full(60, "one"))
    with pytest.raises(ValueError, match="'number' held numbers in fit; now it holds 'x'"):
        density.fit(X, y).log_prob(X.assign(number="x"), y)
    with pytest.raises(ValueError, match="infinity"):
        density.log_prob(X.assign(number=np.inf), y)
    numbers = np.random.default_rng(0).normal(size=(60, 2))
    with pytest.raises(ValueError, match="1 features, but ConditionalDensity is expecting 2"):
        density.fit(numbers, y).log_prob(numbers[:, :1], y)
    with pytest.raises(ValueError, match="ConditionalDensity takes rows: flatten images"):
        density.fit(np.zeros((60, 2, 2)), y)


@pytest.mark.parametrize("encoder", ["auto", FunctionTransformer()])
def test_means_of_categories_do_not_know_rows_of_a_group_that_is_held_out(encoder):
    """Each of 15 categories is in one group only, so that no mean is known of unseen rows."""
    category, y = np.repeat(np.arange(15), 8), np.repeat(np.arange(15.0), 8)
    X = pd.DataFrame({"shop": pd.Categorical(category)})
    noise = 0.1 * np.random.default_rng(0).normal(size=120)
    splits = list(GroupKFold(3).split(X, groups=category))
    params = {"encoder": encoder, "trees": False, "random_state": 0}
    *_, context = fit_begun(ConditionalDensity(quick(), cv=3, **params), X, y + noise)
    assert np.corrcoef(context[:, 0], y)[0, 1] > 0.9
    *_, context = fit_begun(ConditionalDensity(quick(), cv=splits, **params), X, y + noise)
    assert all(np.ptp(context[held_out]) < 1e-9 for _, held_out in splits)


def fit_begun(density, X, y):
    """Return what a density prepares for its training."""
    return density._begin(density._read(X, y, None))


def test_trees_beside_means_of_categories(monkeypatch):
    few_trees(monkeypatch)
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"shop": pd.Categorical(rng.integers(0, 15, 90)), "x": rng.normal(size=90)})
    density = ConditionalDensity(quick(), cv=2, trees=True, random_state=0)
    *_, context = fit_begun(density, X, X["x"].to_numpy() > 0)
    assert context.shape == (90, 3)
    assert np.corrcoef(context[:, -1], X["x"] > 0)[0, 1] > 0.9


def test_weights_of_the_encoder():
    X = np.array([[0.0], [1.0], [5.0]])
    weighted = ContextEncoder().fit(X, sample_weight=np.array([1.0, 2.0, 0.0]))
    repeated = ContextEncoder().fit(X[[0, 1, 1]])
    assert np.allclose(weighted.transform(X), repeated.transform(X))


def test_outlying_conditions_are_squashed():
    X, _ = heteroscedastic(100)
    assert np.abs(ContextEncoder().fit(X).transform([[1e9]])).max() < 100


def test_an_encoder_may_be_given():
    X, y = heteroscedastic(100)
    encoder = make_pipeline(StandardScaler(), PolynomialFeatures(3))
    density = ConditionalDensity(quick(2), encoder=encoder, random_state=0).fit(X, y)
    assert density.n_features_in_ == 1
    assert density.log_prob(X, y).shape == (100,)


def test_an_encoder_may_be_supervised_and_sparse():
    X, y = heteroscedastic(60)
    X = np.column_stack([X, np.rint(3 * X)])
    best = SelectKBest(f_regression, k=1)  # takes y as a single column
    for encoder in (best, OneHotEncoder(handle_unknown="ignore")):
        density = ConditionalDensity(quick(1), encoder=encoder, cv=None, random_state=0)
        assert np.isfinite(density.fit(X, y).log_prob(X, y)).all()


@pytest.mark.parametrize("search", [GridSearchCV, FlowGridSearchCV])
def test_search_over_the_parameters_of_the_flow(search):
    X, y = heteroscedastic(300)
    grid = {"estimator__max_iter": [1, 15]}
    density = ConditionalDensity(quick(), cv=2, random_state=0)
    search = search(density, grid, cv=2).fit(X, y)
    assert search.best_params_ == {"estimator__max_iter": 15}
    assert search.score(X, y) == pytest.approx(search.best_estimator_.log_prob(X, y).mean())


def test_weights():
    X, y = heteroscedastic(400)
    y_other = np.where(np.arange(400) % 2, y + 10, y)
    weight = np.where(np.arange(400) % 2, 0.0, 1.0)
    density = ConditionalDensity(quick(5), random_state=0)
    density.fit(X, y_other, sample_weight=weight)
    only = ConditionalDensity(quick(5), random_state=0).fit(X[::2], y[::2])
    assert density.score(X, y) == pytest.approx(only.score(X, y))
    assert density.score(X, y, weight) == pytest.approx(density.score(X[::2], y[::2]))


def test_rows_of_weight_0_contribute_nothing():
    X, y = heteroscedastic(100)
    weight = np.arange(100) % 2
    table = pd.DataFrame({"x": np.where(weight, X[:, 0], np.nan), "kind": weight.astype(str)})
    y = np.where(weight, np.rint(3 * y), 1000.5)
    density = ConditionalDensity(quick(1, bounds=[(-50, 50)]), cv=None, random_state=0)
    weighted = density.fit(table, y, sample_weight=weight).log_prob(table[1::2], y[1::2])
    assert density.discrete_ == {0: 1.0}
    only = density.fit(table[1::2], y[1::2]).log_prob(table[1::2], y[1::2])
    assert np.allclose(weighted, only)


def test_dates_without_a_known_value_are_allowed():
    """Such as days of what happened only in rows without y."""
    X = pd.DataFrame({"a": np.arange(60) % 7, "day": pd.Series([pd.NaT] * 60)})
    density = ConditionalDensity(NSFDensity(max_iter=1)).fit(X, np.random.default_rng(0).random(60))
    assert np.isfinite(density.log_prob(X, np.full(60, 0.5))).all()


def test_columns_without_a_known_value_change_nothing():
    X, y = heteroscedastic(60)
    X = np.column_stack([X, np.full(60, np.nan)])
    density = ConditionalDensity(quick(1), cv=None, random_state=0).fit(X, y)
    assert density.encoder_.transform(X)[:, 1:].tolist() == [[0, 1]] * 60
    assert np.isfinite(density.log_prob(X, y)).all()


def test_callbacks_see_the_density_and_may_stop_it():
    X, y = heteroscedastic(200)
    scores = []

    def act(epoch, fitted):
        scores.append(fitted.score(X, y))
        return epoch == 3

    density = ConditionalDensity(quick(), cv=2, random_state=0)
    density.set_callbacks(AtEpochEnd(act)).fit(X, y)
    assert len(scores) == 3
    assert [len(history["loss"]) for history in density.histories_] == [3, 3]
    assert np.isfinite(scores).all()


def test_folds_stop_early():
    X, y = heteroscedastic(100)
    flow = quick(max_iter=200, n_iter_no_change=3)
    density = ConditionalDensity(flow, random_state=0).fit(X, y)
    assert len(density.flows_) == 5
    # All at one epoch, by the mean of their scores.
    (scores,) = {tuple(own["validation_score"]) for own in density.histories_}
    assert len(scores) < 100
    assert sorted(np.concatenate(density.held_out_)) == list(range(100))


def test_saved_and_loaded(tmp_path):
    X, y = table()
    density = ConditionalDensity(quick(1), cv=2, random_state=0).fit(X, y)
    density.save(tmp_path / "density.skflows")
    loaded = skflows.load(tmp_path / "density.skflows")
    assert np.array_equal(loaded.log_prob(X, y), density.log_prob(X, y))


def test_a_seed_of_the_flow_is_kept():
    X, y = heteroscedastic(60)
    density = ConditionalDensity(quick(1, random_state=3), cv=None)
    assert density.fit(X, y).score(X, y) == density.fit(X, y).score(X, y)


def test_errors_about_y_name_it():
    X, y = heteroscedastic(60)
    with pytest.raises(ValueError, match=r"^y\[0, 0\] is 1e\+306"):
        ConditionalDensity(quick(1)).fit(X, np.where(np.arange(60) == 0, 1e306, y))


def test_constant_y():
    X, _ = heteroscedastic(60)
    with pytest.warns(UserWarning, match="y has a single value in column 0"):
        density = ConditionalDensity(quick(1, discrete=None), random_state=0).fit(X, np.ones(60))
    assert np.isfinite(density.log_prob(X, np.ones(60))).all()
    np.testing.assert_allclose(density.predict_distribution(X).median(), 1, atol=0.1)
    # A single whole number has a probability.
    density = ConditionalDensity(quick(1), random_state=0).fit(X, np.ones(60))
    assert (density.predict_distribution(X).median() == 1).all()


@pytest.mark.parametrize("name", ["dtype", "columns", "name"])
def test_columns_may_be_named_like_attributes(name):
    z, u = np.random.default_rng(0).standard_normal((2, 40))
    flow = NSFDensity(n_transforms=1, max_iter=1)
    density = ConditionalDensity(flow, cv=None, random_state=0)
    X = pd.DataFrame({name: z, "u": u})
    assert np.isfinite(flow.fit(X).score_samples(X)).all()
    labelled = pd.Series(u, index=[name, *range(39)])
    for given, y in [(X[[name]], u), (X[["u"]], X[[name]]), (X, labelled)]:
        arrays = given.to_numpy(), np.asarray(y)
        expected = density.fit(*arrays).log_prob(*arrays)
        np.testing.assert_array_equal(density.fit(given, y).log_prob(given, y), expected)


def test_quantiles_beside_steep_peaks_are_exact():
    """Where a step of Newton's method leaves the interval, though the value is found."""
    rng, n = np.random.RandomState(0), 400
    X = rng.normal(size=(n, 1))
    peaks = 10.0 * rng.randint(1, 4, n) * (1 + (rng.rand(n) < 0.15) * rng.rand(n))
    y = np.where(rng.rand(n) < 0.5, peaks, np.exp(X[:, 0] + rng.normal(size=n) + 2))
    density = ConditionalDensity(NSFDensity(n_transforms=1, max_iter=60), cv=4, random_state=0)
    distribution = density.fit(X, y).predict_distribution(rng.normal(size=(300, 1)))
    q = np.linspace(0.02, 0.98, 49)[:, None] + np.zeros(300)
    np.testing.assert_allclose(distribution.cdf(distribution.ppf(q)), q, atol=1e-7)
