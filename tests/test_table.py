"""TableDensity: proper probabilities, exact references, gaps, dtypes and queries."""

import pickle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.special import gammaln, logit, logsumexp, ndtr
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils.estimator_checks import parametrize_with_checks

import skflows
from skflows import AutoDensity, DensityOutlierDetector, TableDensity, TableImputer
from skflows.columns.checks import ColumnWarning
from skflows.columns.encoding import Encoding
from skflows.columns.frames import Column, read_frame, write_frame
from skflows.inspection import ConditionalDensityDisplay, SamplesDisplay
from skflows.table import _components, _latent_classes, _parts
from skflows.table._columns import Schema, decide, lattice_of
from skflows.table._latent_classes import LatentClasses, Training, fit_kernels
from skflows.table._network import NetworkMember
from skflows.table._view import TableView
from skflows.training import data_parallel

N = 200


def quick(**params):
    return TableDensity(**{"max_iter": 2, "n_orders": 2, "cv": 2, "random_state": 0} | params)


def mixed_table(n=N, seed=0):
    """One column of each kind, with gaps; they depend on one another."""
    rng = np.random.default_rng(seed)
    size = rng.normal(size=n)
    sex = np.where(rng.uniform(size=n) < 1 / (1 + np.exp(-2 * size)), "male", "female")
    table = pd.DataFrame(
        {
            "sex": sex,
            "size": size + 0.3 * rng.normal(size=n),
            "visits": rng.poisson(np.exp(1 + 0.5 * size)),
            "age": rng.integers(18, 90, n),
            "pay": np.round(np.exp(2 + size), 2),
            "rain": np.where(rng.uniform(size=n) < 0.4, 0.0, rng.gamma(2.0, size=n)),
            "hour": rng.vonmises(1.0, 2.0, n) * 12 / np.pi % 24,
            "grade": pd.Categorical(
                rng.choice(["low", "mid", "high"], n), ["low", "mid", "high"], ordered=True
            ),
            "member": rng.uniform(size=n) < 0.3,
            "since": pd.Timestamp("2024-01-01")
            + pd.to_timedelta(rng.integers(0, 2 * 365 * 86400, n), unit="s"),
        }
    )
    table["age"] = table["age"].astype("Int64")
    for name, share in {"sex": 0.1, "size": 0.2, "age": 0.1}.items():
        table[name] = table[name].mask(rng.uniform(size=n) < share)
    return table


COLUMNS = {"hour": ("circular", 24)}


@pytest.fixture(scope="module", autouse=True)
def few_components():
    """Fewer components, which take less time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_components, "N_CLASSES", {"quantile": (1,), "linear": (4,)})
        patch.setattr(_components, "N_BINNED_CLASSES", (4,))
        patch.setattr(_components, "BANDWIDTHS", (0.5,))
        patch.setattr(_latent_classes, "N_RESTARTS", 1)
        yield


@pytest.fixture(scope="module")
def table():
    return mixed_table()


@pytest.fixture(scope="module")
def density(table):
    return quick(columns=COLUMNS).fit(table)


@parametrize_with_checks(
    [quick(max_iter=1, n_orders=1), TableImputer(quick(max_iter=1, n_orders=1), random_state=0)],
    expected_failed_checks=lambda estimator: (
        {"check_sample_weight_equivalence_on_dense_data": "other rows are held out"}
        if isinstance(estimator, TableDensity)
        else {}
    ),
)
def test_check_estimator(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.random.default_rng(0).normal(size=200), "continuous"),
        (np.random.default_rng(0).exponential(size=200), "bounded"),
        (np.random.default_rng(0).poisson(3, 200), "count"),
        (np.random.default_rng(0).integers(-40, 40, 200), "integer"),
        (np.round(np.random.default_rng(0).normal(size=2000), 2), "rounded"),
        (np.where(np.arange(200) % 3, np.random.default_rng(0).gamma(2, size=200), 0), "atoms"),
        (np.arange(200) % 4 / 2 + 0.5, "ordinal"),
        (["a", "b"] * 100, "categorical"),
        ([True, False] * 100, "categorical"),
        (pd.date_range("2020-01-01", periods=200), "datetime"),
        (pd.Categorical(["a", "b"] * 100, ordered=True), "ordinal"),
    ],
)
def test_kinds_are_recognised(values, kind):
    (column,) = read_frame(pd.DataFrame({"x": values})).columns
    assert decide(column).kind == kind


def test_decisions_are_told(density, table):
    told = density.columns_.set_index("column")
    assert told.index.tolist() == table.columns.tolist()
    assert told.loc["hour", ["kind", "reason"]].tolist() == [
        "circular",
        "given in columns: ('circular', 24)",
    ]
    assert told.loc["age", "missing"] == table["age"].isna().sum()


def test_skewed_whole_numbers_are_mapped_like_others():
    """A value that is far from the others by its logarithm alone is improbable."""
    price = np.rint(np.random.default_rng(0).lognormal(12, 0.5, 200))
    frame = read_frame(pd.DataFrame({"price": price}))
    (part,) = Schema(frame, ["price"], None, "error", False, np.random.RandomState(0)).parts
    assert part.step == 1
    for space in ("quantile", "linear"):
        low, median = part.maps[space].forward(np.array([12.0, np.median(price)]))[0]
        assert low < -8 and abs(median) < 0.5


def test_multiples_of_a_number_stay_multiples():
    rng = np.random.default_rng(0)
    price = 100 * np.rint(rng.lognormal(8, 0.5, 300)).astype(int)
    shifted = 50 + 100 * np.rint(rng.normal(50, 9, 300)).astype(int)
    density = TableDensity(max_iter=1, random_state=0)
    density.fit(pd.DataFrame({"price": price, "shifted": shifted}))
    assert density.columns_["reason"][0] == "multiples of 100"
    assert list(density.columns_["kind"]) == ["rounded", "count"]
    assert not (density.sample(200, random_state=0)["price"] % 100).any()


def test_samples_of_positive_numbers_stay_within_reason():
    price = np.append(np.random.default_rng(0).lognormal(0, 0.5, 999), 60.0)
    part = TableDensity(max_iter=1).fit(pd.DataFrame({"price": price}))._schema.parts[0]
    # The farthest of millions of draws.
    assert part.maps["quantile"].inverse(np.array([5.5]))[0] < 100 * price.max()


@pytest.mark.parametrize(("form", "pattern"), [("%Y-%m-%d", "2024"), ("%d/%m/%Y", "01/01/2024")])
def test_dates_as_texts_are_pointed_out(form, pattern):
    days = pd.Series(pd.date_range("2024-01-01", periods=100)).dt.strftime(form)
    days[3] = None
    table = pd.DataFrame({"day": days, "x": np.linspace(0, 1, 100)})
    with pytest.warns(UserWarning, match=f"'day' holds dates as texts, .*{pattern}.*to_datetime"):
        density = quick(handle_unknown="rare", max_iter=1).fit(table)
    reason = density.columns_["reason"][0]
    assert reason.startswith("99 distinct texts") and "to_datetime" in reason
    quick(columns={"day": "categorical"}, handle_unknown="rare", max_iter=1).fit(table)  # is silent


def test_numbers_as_texts_are_pointed_out():
    prices = [f"${1000 + 7 * i:,}" for i in range(100)]
    table = pd.DataFrame({"price": prices, "x": np.linspace(0, 1, 100)})
    with pytest.warns(UserWarning, match="'price' holds numbers as texts, such as '.1,000'"):
        quick(handle_unknown="rare", max_iter=1).fit(table)


def total_probability(density, name, values, width):
    """Return the sum over a grid of the conditional density of a column, given row 5."""
    given = density_row(density).drop(columns=[name])
    conditional = density.condition(given)
    own = pd.DataFrame({name: values})
    return np.exp(conditional.marginal([name]).score_samples(own)).sum() * width


def density_row(density):
    return mixed_table().iloc[[5]]


@pytest.mark.parametrize(
    ("name", "values", "width"),
    [
        ("sex", ["male", "female"], 1),
        ("grade", ["low", "mid", "high"], 1),
        ("visits", np.arange(200), 1),
        ("age", np.arange(300), 1),
        ("size", np.arange(-12, 12, 0.01), 0.01),
        ("hour", (np.arange(500) + 0.5) * 24 / 500, 24 / 500),
    ],
)
def test_conditionals_sum_to_one(density, name, values, width):
    tolerance = 2e-4 if width == 1 else 2e-3
    assert total_probability(density, name, values, width) == pytest.approx(1, abs=tolerance)


def test_atoms_and_density_sum_to_one(density):
    grid = (np.arange(4000) + 0.5) / 100
    atom = total_probability(density, "rain", [0.0], 1)
    assert 0.05 < atom < 0.9
    assert atom + total_probability(density, "rain", grid, 1 / 100) == pytest.approx(1, abs=1e-3)


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
    bases = [np.log(true.mean(axis=0)), _latent_classes.poisson(levels, counts)]
    expected = [_latent_classes.tilted(base, true.mean(axis=0), scores, counts) for base in bases]
    own = expected[is_poisson]
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
    schema = Schema(read_frame(X), [0, 1, 2], None, "error", False, random_state)
    training = Training(TableView(schema, schema.encode(read_frame(X))), "linear", random_state)
    plain, removed = (
        [training.fit(5, np.random.RandomState(seed), n_more)[0] for seed in range(3)]
        for n_more in (0, 6)
    )
    assert min(plain) < min(removed) - 0.2 and max(removed) - min(removed) < 0.01


@pytest.mark.parametrize(("excess", "n_fits"), [(0, 2), (1, 1)])
def test_the_bound_of_restarts_counts_their_extra_classes(monkeypatch, excess, n_fits):
    X, random_state = np.random.default_rng(0).normal(size=(40, 2)), np.random.RandomState(0)
    schema = Schema(read_frame(X), [0, 1], None, "error", False, random_state)
    calls, fit = [], Training.fit
    monkeypatch.setattr(Training, "fit", lambda *args: calls.append(args) or fit(*args))
    monkeypatch.setattr(_latent_classes, "N_RESTARTS", 2)
    work = 40 * (3 + _latent_classes.MORE_CLASSES) * 2**2
    monkeypatch.setattr(_latent_classes, "RESTARTED_WORK", work - excess)
    view = TableView(schema, schema.encode(read_frame(X)))
    _latent_classes.fit_latent_classes(view, 3, "linear", random_state)
    assert len(calls) == n_fits


@pytest.mark.parametrize(
    ("n", "n_folds", "n_epochs"),
    [(200, 5, 300), (1000, 5, 100), (1001, 1, 300), (2400, 1, 160), (4000, 1, 100), (9000, 1, 200)],
)
def test_automatic_epochs(n, n_folds, n_epochs):
    assert _components.automatic_epochs(n, n_folds) == n_epochs
    assert len(_components.make_splits("auto", np.arange(n), 0)) == n_folds


def test_a_bound_that_was_guessed():
    """It has a small density, unless it is named as a value."""
    table = pd.DataFrame({"x": np.random.default_rng(0).exponential(size=60)})
    zero = pd.DataFrame({"x": [0.0]})
    own = quick().fit(table)
    assert own.columns_["kind"].tolist() == ["bounded"]
    with pytest.warns(UserWarning, match="0 in column 'x', .* numbers strictly between 0 and inf"):
        assert -15 < own.score_samples(zero)[0] < -5
    named = quick(columns={"x": ("atoms", [0.0], 0, None)}).fit(table)
    assert 0 < np.exp(named.score_samples(zero)[0]) < 0.1


BOUNDS = {
    "age": ("count", 18, 90),
    "floor": ("integer", -5, None),
    "share": ("rounded", 0.04, 1.2),  # not on the lattice
    "rating": ("count", 1, 7),
    "day": ("datetime", "2024-01-03", "2024-12-26"),
    "at": ("datetime", None, "2024-05-30T12:00"),
}


def with_bounds(n=N):
    """Numbers and dates that fill the space between bounds."""
    rng = np.random.default_rng(0)
    day = pd.Timestamp("2024-01-03") + pd.to_timedelta(rng.integers(0, 359, n), "D")
    second = rng.integers(0, 50 * 86400, n)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 91, n),
            "floor": rng.geometric(0.05, n) - 6,
            "share": np.round(0.05 + 0.1 * rng.integers(0, 12, n), 2),
            "rating": rng.choice([2, 3, 4, 6], n),
            "day": day.where(rng.uniform(size=n) < 0.9),
            "at": pd.Timestamp("2024-05-30 12:00") - pd.to_timedelta(second, unit="s"),
        }
    )


@pytest.fixture(scope="module")
def density_with_bounds():
    return quick(columns=BOUNDS, missing="model").fit(with_bounds())


def test_samples_lie_within_bounds(density_with_bounds):
    drawn = density_with_bounds.sample(3000, random_state=0)
    assert (drawn["age"].min(), drawn["age"].max()) == (18, 90)
    assert drawn["floor"].min() == -5
    assert drawn["share"].dropna().between(0.05, 1.15).all()
    assert drawn["rating"].dropna().between(1, 7).all()
    assert drawn["day"].dropna().between("2024-01-03", "2024-12-26").all()
    assert drawn["at"].max() <= pd.Timestamp("2024-05-30 12:00")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("age", np.arange(18, 91)),
        ("share", np.round(0.05 + 0.1 * np.arange(12), 2)),
        ("rating", np.arange(1, 8)),
        ("day", pd.date_range("2024-01-03", "2024-12-26")),
    ],
)
def test_probabilities_within_bounds_sum_to_one(density_with_bounds, name, values):
    """Also of dates, whose bounds lie within a week, and in each member."""
    values = pd.Series(values, name=name).to_frame()
    values.loc[len(values)] = np.nan if name != "day" else pd.NaT
    own = density_with_bounds
    rows, _ = own._some_columns(values)
    for member, _ in own._members:
        total = np.exp(member.log_prob(TableView(own._schema, rows))).sum()
        assert total == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "inside", "outside", "why"),
    [
        ("age", 19, 17, "17 in column 'age', .* in steps of 1 between 18 and 90"),
        ("floor", 900, -6, "-6 in column 'floor', .* between -5 and inf"),
        ("share", 1.05, 1.25, "1.25 in column 'share', .* steps of 0.1 between 0.05 and 1.15"),
        ("rating", 7, 8, "8 in column 'rating', .* between 1 and 7"),
        ("day", "2024-01-03", "2024-01-02", "2024-01-02 in .* between 2024-01-03 and 2024-12-26"),
        ("day", "2024-12-26", "2024-12-27", "2024-12-27 in .* can occur, move the bounds that"),
        ("at", "2023-12-31", "2024-05-30 12:01", "12:01:00 in .* -inf and 2024-05-30 12:00:00"),
    ],
)
def test_values_out_of_bounds_are_impossible(density_with_bounds, name, inside, outside, why):
    own = density_with_bounds.marginal([name])
    values = pd.DataFrame({name: [inside, outside]})
    values = values.astype("datetime64[us]") if isinstance(inside, str) else values
    with pytest.warns(UserWarning, match=why):
        scores = own.score_samples(values)
    assert np.isfinite(scores[0]) and np.isneginf(scores[1])
    with pytest.raises(ValueError, match=why.split(",")[0].split(" in .*")[0]):
        density_with_bounds.condition(values[1:])


def schema_of(x, columns=None):
    """The variables of one column."""
    frame = read_frame(np.asarray(x)[:, None])
    return Schema(frame, [0], columns, "error", False, np.random.RandomState(0))


def is_possible(schema, x):
    rows = schema.encode(read_frame(np.asarray(x)[:, None]))
    (cells,) = (part.cells(*(each[:, 0] for each in rows), "quantile") for part in schema.parts)
    return np.isfinite(cells[-1])


@pytest.mark.parametrize(("n_levels", "last"), [(13, 1.2), (40, 3.9)], ids=["levels", "number"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_bounds_despite_rounding_errors(n_levels, last, dtype):
    """0.1 * 12, and 1.2 in float32, are greater than 1.2; both are on the bound."""
    steps = np.random.default_rng(0).integers(0, n_levels, N)
    on_bound = (0.1 * np.array([1 - n_levels, n_levels - 1])).astype(dtype)
    for seen in (steps, steps - n_levels + 1, np.minimum(steps, n_levels - 2)):
        own = schema_of((0.1 * seen).astype(dtype), {0: ("rounded", -last, last)})
        assert own.columns[0].is_levels == (n_levels == 13)
        assert is_possible(own, on_bound).all()
        assert not is_possible(own, on_bound + np.array([-0.1, 0.1])).any()


@pytest.mark.parametrize(
    ("kind", "inside", "outside"),
    [
        (("rounded", None, 6), 0.0, -0.1),
        (("rounded", -np.inf, 6), -9.9, 6.1),
        (("count", None, 60), 0, -1),
        (("count", -np.inf, 60), -9, 61),
        (("integer", None, 60), -9, 61),
    ],
)
def test_bounds_of_none_are_those_of_the_kind(kind, inside, outside):
    values = np.arange(10, 60).repeat(2) / (10 if kind[0] == "rounded" else 1)
    assert is_possible(schema_of(values, {0: kind}), [inside, outside]).tolist() == [True, False]


@pytest.mark.parametrize(
    ("value", "remedy"), [(60, "move the bounds that columns"), (9.5, "'continuous'")]
)
def test_the_remedy_for_impossible_values(value, remedy):
    schema = schema_of(np.arange(50), {0: ("count", 0, 50)})
    with pytest.warns(UserWarning, match=remedy):
        schema.warn_of_outside(schema.encode(read_frame(np.array([[value]]))))


def test_logits_over_a_long_range():
    """Nearly all numbers are in a small part of it, where the logit is steep."""
    x = np.floor(np.random.default_rng(0).exponential(2000, 5000))
    scores = _parts.map_by_logits(x, np.ones(len(x)), x.min(), x.max(), 1.0).forward(x)[0]
    exact = logit((x - x.min() + 1) / (np.ptp(x) + 2))
    assert np.allclose(scores, (exact - exact.mean()) / exact.std(), atol=0.01)


def test_stated_bounds_are_shown(density_with_bounds):
    shown = density_with_bounds.columns_.set_index("column")
    assert shown.loc["age", "reason"] == "given in columns: ('count', 18, 90)"


def test_bounds_of_zero_have_no_sign():
    """0.3 - 3 * 0.1 is -5.6e-17."""
    (part,) = schema_of((np.arange(3, 12) / 10).repeat(9)).parts
    assert f"{part.lattice[1]:g}" == "0"


def test_the_outermost_of_whole_numbers_get_their_share(density_with_bounds):
    """A normal of standardised uniform numbers has 3 times as much mass beyond them."""
    part = density_with_bounds._schema.columns[0].value_parts[0]
    (below, above), _ = part.maps["linear"].forward(np.array([18.5, 89.5]))
    assert ndtr(below) + ndtr(-above) == pytest.approx(2 / 73, rel=0.35)


def test_samples_are_multiples_of_the_unit_of_the_table():
    """Whole minutes, prices in steps of 0.05; an hour that rounds up to midnight is 0."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "at": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 5e5, 200), "min"),
            "price": np.round(0.05 * rng.integers(100, 10**6, 200), 2),
            "hour": np.round(rng.normal(0, 3, 200) % 24, 2) % 24,
        }
    )
    density = quick(columns=COLUMNS, max_iter=1).fit(table)
    assert density.columns_["modelled as"].tolist() == [
        "week and weekday and time",
        *["number"] * 2,
    ]
    drawn = density.sample(500, random_state=0)
    assert drawn["at"].nunique() > 400 and (drawn["at"].dt.second == 0).all()
    assert ((20 * drawn["price"]).round(6) % 1 == 0).all()
    assert (drawn["hour"].round(2) == drawn["hour"]).all() and drawn["hour"].max() < 24
    given = {"at": pd.Timestamp("2024-01-05T23:59:59.7"), "hour": 23.9999}
    drawn = density.sample(2, random_state=0, given=given)
    assert (drawn[["at", "hour"]] == pd.Series(given)).all(axis=None)


def test_samples_keep_their_unit_at_bounds():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "price": np.round(0.05 * (1 + rng.exponential(20, 200).astype(int)), 2),
            "angle": 7.0 * rng.integers(0, 52, 200),  # 364 would be 4
        }
    )
    kinds = {"price": ("bounded", 0), "angle": ("circular", 360)}
    drawn = quick(columns=kinds, max_iter=1).fit(table).sample(2000, random_state=0)
    assert drawn["price"].min() == 0.05 and ((20 * drawn["price"]).round(6) % 1 == 0).all()
    assert (drawn["angle"] % 1 == 0).all() and drawn["angle"].between(0, 359).all()


def test_dates_are_given_in_any_form():
    rng = np.random.default_rng(0)
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 300, 100), "D")
    density = quick(max_iter=1).fit(pd.DataFrame({"day": days, "x": rng.normal(size=100)}))
    forms = ["2024-05-01", np.datetime64("2024-05-01"), days[0].replace(month=5, day=1)]
    forms += [forms[-1].date(), forms[-1].to_pydatetime()]
    scores = [density.condition({"day": day}).score_samples({"x": 0.3}) for day in forms]
    assert np.ptp(scores) == 0
    some = pd.DataFrame({"day": [*days[:4].strftime("%Y-%m-%d"), None], "x": 0.3})
    as_dates = some.assign(day=pd.to_datetime(some["day"]))
    as_categories = some.assign(day=some["day"].astype("category"))
    expected = density.score_samples(as_dates)
    for form in (some, as_categories, pl.DataFrame(some)):
        np.testing.assert_array_equal(density.score_samples(form), expected)
    assert density.sample(2, given={"day": np.datetime64("NaT")}).notna().all(axis=None)
    for value, message in [
        ("May", "'day' held dates in fit; now it holds texts, .*'May'"),
        ("2024-05-01T00:00Z", "has a time zone"),
        (3.0, "'day' held dates in fit; now it does not"),
    ]:
        with pytest.raises(ValueError, match=message):
            density.condition({"day": value})


def test_dates_of_one_week():
    """The first cell of six weekdays is the last too."""
    days = pd.Series(pd.date_range("2024-01-03", "2024-01-10"), name="day").to_frame()
    own = quick(columns={"day": ("datetime", "2024-01-03", "2024-01-10")}, max_iter=1)
    own.fit(pd.concat([days] * 5))
    assert np.exp(own.score_samples(days)).sum() == pytest.approx(1, abs=1e-9)
    assert set(own.sample(200, random_state=0)["day"]) <= set(days["day"])


@pytest.mark.parametrize(
    ("shape", "is_stretched"),
    [
        (lambda z: 18 + 73 * ndtr(z), True),
        (lambda z: 25 * -np.log(ndtr(z)), True),  # only below
        (lambda z: 54 + 15 * z, False),
        (lambda z: np.where(z > 0, 70, 30) + 6 * (5 * z % 1 + z), False),
    ],
    ids=["uniform", "exponential", "normal", "bimodal"],
)
def test_whole_numbers_that_end_abruptly(shape, is_stretched):
    """A normal of their scores has little mass beyond them, though they have no bounds."""
    x = np.floor(shape(np.random.default_rng(0).normal(size=500)))
    (part,) = schema_of(x).parts
    ends = np.array([x.min() - 0.5, x.max() + 0.5])
    below, above = part.maps["linear"].forward(ends)[0]
    standardised = (ends - x.mean()) / x.std()
    assert np.allclose([below, above], standardised, atol=0.05) != is_stretched
    if is_stretched:
        assert ndtr(below) < 0.3 * ndtr(standardised[0])


def test_lattices_that_leave_zero_out():
    """The first point above 0 is 0.05: 0 itself is none."""
    values = np.round(0.05 + 0.1 * np.arange(40).repeat(5), 2)
    own = quick(max_iter=1).fit(pd.DataFrame({"x": values}))
    assert own.columns_["reason"].tolist() == ["repeated multiples of 0.1"]
    assert np.isfinite(own.score_samples(pd.DataFrame({"x": [0.05, 0.15, 9.95]}))).all()
    assert np.isin(np.round(20 * own.sample(50, random_state=0)["x"]) % 2, 1).all()


def test_score_of_unknown_values(density, table):
    """Unknown entries do not count, and a row without any known one scores 0."""
    empty = table[:3].copy()
    for name in empty:
        empty[name] = empty[name].mask([True] * 3)
    assert density.score_samples(empty).tolist() == [0, 0, 0]
    some = empty.copy()
    some["sex"], some["visits"] = "male", 3
    marginal = density.marginal(["sex", "visits"]).score_samples(some[["sex", "visits"]])
    assert density.score_samples(some) == pytest.approx(marginal)


def test_rows_and_columns_in_any_order(density, table):
    scores = density.score_samples(table[:40])
    assert density.score_samples(table[:40][::-1])[::-1] == pytest.approx(scores, rel=1e-12)
    assert density.score_samples(table[:40][sorted(table)]) == pytest.approx(scores, rel=1e-12)
    assert density.score_samples(table[7:8]) == pytest.approx(scores[7:8], rel=1e-12)


def test_joint_is_marginal_times_conditional(density, table):
    """Exactly for latent classes; the network's means over orders differ a little."""
    rows = table[:60]
    names = ["sex", "size", "visits"]
    exact = clone(density)
    exact.__dict__.update(vars(density))
    exact._members = [
        (own, weight)
        for own, weight in density._members
        if not hasattr(getattr(own, "member", own), "network")
    ]
    product = exact.marginal(names).score_samples(rows[names])
    product += exact.condition(rows[names]).score_samples(rows.drop(columns=names))
    assert product == pytest.approx(exact.score_samples(rows), abs=1e-8)


def test_samples_look_like_the_table(density, table):
    drawn = density.sample(300, random_state=0)
    assert (drawn.dtypes == table.dtypes).all()
    assert set(drawn["sex"]) <= {"male", "female"}
    assert (drawn["visits"] >= 0).all()
    assert (drawn["rain"] >= 0).all()
    assert (drawn["rain"] == 0).mean() == pytest.approx((table["rain"] == 0).mean(), abs=0.12)
    assert drawn["hour"].between(0, 24).all()
    assert (drawn["pay"].dropna().round(2) == drawn["pay"].dropna()).all()
    assert (drawn["since"] == drawn["since"].dt.floor("s")).all()
    assert drawn["size"].mean() == pytest.approx(table["size"].mean(), abs=0.25)
    again = density.sample(300, random_state=0)
    pd.testing.assert_frame_equal(drawn, again)


def test_samples_given_values(density):
    drawn = density.sample(200, given={"size": 2.0, "member": True}, random_state=0)
    assert (drawn["size"] == 2.0).all()
    assert drawn["member"].all()
    few = density.sample(200, given={"size": -2.0}, random_state=0)
    assert (drawn["sex"] == "male").mean() > (few["sex"] == "male").mean()
    each = density.sample(2, given=pd.DataFrame({"visits": [1, 9]}), random_state=0)
    assert each["visits"].tolist() == [1, 1, 9, 9]


@pytest.mark.parametrize("method", ["mean", "median", "mode", "draw"])
def test_imputation_fills_gaps_only(density, table, method):
    filled = density.impute(table[:50], method, random_state=0)
    assert not filled.isna().any(axis=None)
    known = table[:50].notna()
    for name in table:
        left, right = filled[name][known[name]], table[:50][name][known[name]]
        assert (left.astype(object) == right.astype(object)).all()


def test_several_draws(density, table):
    first, second = density.impute(table[:50], "draw", n_draws=2, random_state=0)
    assert not first.equals(second)


def test_mean_of_a_known_conditional():
    """Of y given x, where y is x plus noise, or 0."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=500)
    y = np.where(rng.uniform(size=500) < 0.3, 0.0, 5 + x + 0.1 * rng.normal(size=500))
    own = quick(max_iter=8).fit(pd.DataFrame({"x": x, "y": y}))
    filled = own.impute(pd.DataFrame({"x": [-1.0, 1.0], "y": [np.nan, np.nan]}))
    assert filled["y"].to_numpy() == pytest.approx([0.7 * 4, 0.7 * 6], rel=0.12)


def test_imputer(table):
    own = table[["sex", "size", "visits"]]
    imputer = TableImputer(quick(), sample_posterior=True, random_state=0).fit(own)
    first, second = imputer.transform(own), imputer.transform(own)
    assert not first.isna().any(axis=None)
    assert not first.equals(second)
    centre = TableImputer(quick(), random_state=0).fit(own)
    assert centre.transform(own).equals(centre.transform(own))


def test_predictions(density, table):
    proba = density.predict_proba("sex", table[:20])
    assert proba.sum(axis=1) == pytest.approx(np.ones(20))
    assert density.levels("sex") == ["female", "male"]
    quantiles = density.quantile("size", table[:20], [0.1, 0.5, 0.9])
    assert (np.diff(quantiles, axis=1) > 0).all()
    unconditional = density.predict_proba("sex", {})
    assert unconditional == pytest.approx(density.predict_proba("sex", {"size": np.nan}))
    names = density.condition({}).columns
    assert names == table.columns.tolist()
    # The probability of being at most the median is one half.
    grid = np.linspace(-8, quantiles[0, 1], 500)
    conditional = density.condition(table[:1].drop(columns=["size"]))
    below = np.exp(conditional.score_samples(pd.DataFrame({"size": grid}))).sum()
    assert below * (grid[1] - grid[0]) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("name", ["sex", "age", "hour", "rain"])
def test_display_of_a_conditional(density, table, name):
    """What it draws is the conditional density, and sums to 1 without atoms."""
    rows = table[:2].copy()
    display = ConditionalDensityDisplay.from_estimator(density, rows, column=name)
    spacing = 1 if display.is_discrete else np.gradient(display.grid)[:, None]
    atom = np.exp(density.condition(rows.drop(columns="rain")).score_samples(np.zeros((2, 1))))
    total = 1 - atom if name == "rain" else 1
    np.testing.assert_allclose((display.density * spacing).sum(axis=0), total, atol=0.02)
    if name == "sex":
        drawn = [bar.get_height() for bar in display.axes_[1].patches]
        np.testing.assert_allclose(drawn, density.predict_proba("sex", rows)[1])
    observed = table[name][1]
    marks = [line for line in display.axes_[1].lines if line.get_linestyle() == "--"]
    assert len(marks) == (not pd.isna(observed))
    assert display.axes_[0].get_xlabel() == name
    plt.close("all")


def test_displays_of_unknown_columns(density, table):
    with pytest.raises(ValueError, match="column names the columns \\['pie'\\]"):
        ConditionalDensityDisplay.from_estimator(density, table[:2], column="pie")
    with pytest.raises(ValueError, match="'since' is datetime"):
        ConditionalDensityDisplay.from_estimator(density, table[:2], column="since")
    with pytest.raises(ValueError, match=r"needs column: one of \['sex'"):
        ConditionalDensityDisplay.from_estimator(density, table[:2])
    with pytest.raises(ValueError, match="a table has the observed values in X"):
        ConditionalDensityDisplay.from_estimator(density, table[:2], column="sex", y=["male"] * 2)


def test_display_of_samples(density, table):
    """Categories have bars with their names; gaps are left out, and dates are in years."""
    names = ["sex", "grade", "age", "since"]
    display = SamplesDisplay.from_estimator(density, table, names, random_state=0)
    assert display.categories == {"sex": ["female", "male"], "grade": ["low", "mid", "high"]}
    bars, _ = display.axes_[0, 0].patches[:2]
    np.testing.assert_allclose(
        bars.get_data().values, table["sex"].value_counts(normalize=True).sort_index()
    )
    labels = [label.get_text() for label in display.axes_[-1, 1].get_xticklabels()]
    assert labels == ["low", "mid", "high"]
    assert np.isnan(display.X[:, 2]).sum() == table["age"].isna().sum()
    assert 2023.9 < display.X[:, 3].min() < display.X[:, 3].max() < 2026.1
    few = table.assign(grade=pd.Categorical(["mid"] * N), sex=None)
    display = SamplesDisplay.from_estimator(density, few, names[:2], random_state=0)
    assert display.categories["grade"] == ["low", "mid", "high"]
    assert (display.X[:, 1] == 1).all() and np.isnan(display.X[:, 0]).all()
    plt.close("all")


def test_pickles_and_files(density, table, tmp_path):
    scores = density.score_samples(table[:9])
    assert (pickle.loads(pickle.dumps(density)).score_samples(table[:9]) == scores).all()
    density.save(tmp_path / "model.skflows")
    loaded = skflows.load(tmp_path / "model.skflows")
    assert (loaded.score_samples(table[:9]) == scores).all()
    pd.testing.assert_frame_equal(
        loaded.sample(3, random_state=0), density.sample(3, random_state=0)
    )


def test_polars(density, table):
    frame = pl.DataFrame(
        {
            "kind": pl.Series(["a", "b", None] * 40),
            "n": pl.Series([1, None, 3] * 40),
            "x": np.random.default_rng(0).normal(size=120),
            "on": pl.Series([True, False, None] * 40),
            "day": pl.Series(pd.date_range("2024-01-01", periods=120).date.tolist()),
        }
    )
    own = quick().fit(frame)
    drawn = own.sample(7, random_state=0)
    assert drawn.schema == frame.schema
    assert np.isfinite(own.score_samples(frame)).all()
    assert own.impute(frame).null_count().sum_horizontal()[0] == 0


def test_arrays_with_gaps():
    X = np.random.default_rng(0).normal(size=(100, 3))
    X[::5, 1] = np.nan
    own = quick().fit(X)
    assert own.sample(4, random_state=0).shape == (4, 3)
    assert own.marginal(0).sample(4).shape == (4, 1)
    filled = own.impute(X)
    assert not np.isnan(filled).any()
    assert (filled[1] == X[1]).all()


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
    schema = Schema(read_frame(X), list(range(d)), kinds, "error", False, None)
    views = [TableView(schema, schema.encode(read_frame(rows))) for rows in (X, X_new)]
    training = Training(views[0], "linear", np.random.RandomState(0))
    _, mixture = training.fit(1, np.random.RandomState(0))
    independent = -0.5 * (X_new**2 + np.log(2 * np.pi)).sum(axis=1)
    assert mixture.log_prob(views[1]).mean() > independent.mean() - 0.3 * d


def test_kernels_are_a_density_with_exact_conditionals(table):
    """Of all kinds of columns, with gaps: each row is a class."""
    schema = quick().fit(table)._schema
    rows = schema.encode(read_frame(table))
    view = TableView(schema, rows)
    kernels = fit_kernels(view, 0.5, "quantile", np.random.RandomState(0))
    assert len(kernels.log_weights) == N
    given = rows.only(np.arange(rows.known.shape[1])[None] % 2 == 0)
    joint, marginal = kernels.log_prob(view), kernels.log_prob(TableView(schema, given))
    np.testing.assert_allclose(kernels.log_prob(view, given.known), joint - marginal, atol=1e-8)
    for j in (0, 1):  # sex and size
        found = kernels.predictive(view, j)
        total = found.levels.sum(axis=1) if found.number is None else found.number.weights.sum(1)
        np.testing.assert_allclose(total, 1)
    code = kernels.predictive(TableView(schema, rows.take(np.arange(9))), 0).levels
    without = rows.take(np.arange(9)).copy()
    without.known[:, 0] = True
    for k in (0, 1):
        without.code[:, 0] = k
        odds = kernels.log_prob(TableView(schema, without))
        without.known[:, 0] = False
        odds -= kernels.log_prob(TableView(schema, without))
        without.known[:, 0] = True
        seen = 1 - schema.parts[0].unseen
        np.testing.assert_allclose(np.exp(odds), seen * code[:, k], atol=1e-8)


def test_questions_without_an_answer_are_errors(density, table):
    with pytest.raises(ValueError, match="n_draws=0; it must be an integer of at least 1"):
        density.impute(table[:3], "draw", n_draws=0)
    with pytest.raises(ValueError, match="more than 0 and less than 1"):
        density.quantile("size", table[:3], [0, 0.5])
    with pytest.raises(ValueError, match=r"X has 0 feature\(s\)"):
        quick().fit(table[[]])


def test_modelled_gaps():
    """With missing="model" a gap where there hardly ever is one is odd."""
    table = mixed_table()[["sex", "size", "visits"]]
    table.loc[3:, "sex"] = table["sex"].fillna("male")[3:]
    table.loc[0, "sex"] = None
    own = quick(missing="model").fit(table)
    row = table[10:11].copy()
    gap = row.copy()
    gap["sex"] = gap["sex"].mask([True])
    assert own.score_samples(gap)[0] < own.score_samples(row)[0] - 1
    drawn = own.sample(300, random_state=0)
    assert drawn["size"].isna().mean() == pytest.approx(table["size"].isna().mean(), abs=0.12)
    # "visits" has no gap in fit: a first one is odd too, and all questions have values for answers.
    assert own.score_samples(row.assign(visits=np.nan))[0] < own.score_samples(row)[0] - np.log(
        N / 10
    )
    assert not own.impute(table[:50], "draw", random_state=0).isna().any(axis=None)
    assert not own.impute(table[:50]).isna().any(axis=None)
    assert own.sample(5, given={"sex": None, "size": 0.0})["sex"].notna().all()


def test_modelled_gaps_of_other_columns_are_evidence():
    rng = np.random.default_rng(1)
    kind = rng.choice(["p", "q"], 300)
    rating = pd.Series(rng.normal(size=300)).mask((kind == "q") & (rng.uniform(size=300) < 0.6))
    own = quick(missing="model", max_iter=30).fit(pd.DataFrame({"kind": kind, "rating": rating}))
    proba = own.predict_proba("kind", {"rating": None})[0, 1]
    pair = pd.DataFrame({"kind": ["p", "q"], "rating": [np.nan, np.nan]})
    joint = np.exp(own.score_samples(pair))
    assert proba == pytest.approx(joint[1] / joint.sum(), abs=0.05) and proba > 0.9
    assert own.predict_proba("kind", {"rating": 0.0})[0, 1] < 0.4


def test_modelled_gaps_sum_to_one():
    """In each member: a value comes after the variable that says whether there is one."""
    rng = np.random.default_rng(1)
    pair = {name: rng.choice(["p", "q", None], 200, p=[0.3, 0.3, 0.4]) for name in "ab"}
    own = quick(missing="model").fit(pd.DataFrame(pair))
    levels = (
        pd.Series(["p", "q", None], name="a")
        .to_frame()
        .merge(pd.Series(["p", "q", None], name="b"), how="cross")
    )
    view = TableView(own._schema, own._rows(levels))
    for member, _ in own._members:
        assert np.exp(member.log_prob(view)).sum() == pytest.approx(1, abs=2e-4)
    (network, *_) = [
        member for member, _ in own._members if isinstance(member.member, NetworkMember)
    ]
    drawn = network.sample(own._schema, own._nothing_known(50), np.random.RandomState(0))
    for value, flag in own._schema.flag_of.items():
        assert (drawn.known[:, value] == (drawn.code[:, flag] == 0)).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t: quick().fit(t.assign(id=[f"n{i}" for i in range(len(t))])), "leave it out"),
        (lambda t: quick(columns={"nobody": "count"}).fit(t), "nobody"),
        (lambda t: quick(columns={"sex": "cuont"}).fit(t), "choose among"),
        (lambda t: quick(columns={"hour": ("circular", "24")}).fit(t), "positive number"),
        (lambda t: quick(columns={"hour": ("circular", 0)}).fit(t), "positive number"),
        (lambda t: quick(columns={"size": ("bounded", "a")}).fit(t), "bounds and values"),
        (lambda t: quick(columns={"size": "count"}).fit(t), "choose 'continuous'"),
        (lambda t: quick(columns={"size": ("bounded", 0, 1)}).fit(t), "move the bounds out"),
        (lambda t: quick(columns={"age": ("count", 30)}).fit(t), "within its bounds 30 and inf"),
        (lambda t: quick(columns={"age": ("count", 0, 9, 1)}).fit(t), "which do not fit"),
        (
            lambda t: quick(columns={"since": ("datetime", None, "2024-02-01")}).fit(t),
            "within its bounds -inf and 2024-02-01: move the bounds out, or drop the row",
        ),
        (
            lambda t: quick(columns={"on": ("datetime", "2024-01-02", "2024-01-05")}).fit(
                t.assign(on=pd.Timestamp("2024-01-03"))
            ),
            "less than a week apart",
        ),
        (lambda t: quick(columns={"since": ("datetime", "May")}).fit(t), "'May'.*bounds are texts"),
        (
            lambda t: quick(columns={"since": ("datetime", t["since"].min())}).fit(t),
            r"with \[Timestamp.*\] .*; bounds are texts .*, such as '2024-12-31' or",
        ),
        (
            lambda t: quick(columns={"since": ("datetime", None, "2024-01-03T00:00+09:00")}).fit(t),
            r"'2024-01-03T00:00\+09:00' has a time zone\); .* in the local time of the column",
        ),
        (
            lambda t: quick(columns={"since": ("datetime", "2020-01-01", None, None)}).fit(t),
            r"the arguments \('2020-01-01', None, None\), which do not fit",
        ),
        (
            lambda t: quick(columns={"since": ("datetime", "2026-01-01", "2020-01-01")}).fit(t),
            r"\['2026-01-01', '2020-01-01'\], but the first bound must be less",
        ),
        (lambda t: quick(columns={"age": ("count", 90, 18)}).fit(t), r"\[90, 18\], .* swap them"),
        (lambda t: quick(columns={"size": ("bounded", 1, 1)}).fit(t), "first bound must be less"),
        (lambda t: quick(columns={"rain": ("atoms", [0], 2, 1)}).fit(t), "must be less than"),
        (lambda t: quick(columns={"age": ("count", np.nan)}).fit(t), "numbers other than NaN"),
        (lambda t: quick(columns={"rain": ("atoms", [np.nan])}).fit(t), "numbers other than NaN"),
        (lambda t: quick().fit(t.assign(none=np.nan)), "no known value"),
        (lambda t: quick().fit(t.assign(size=np.inf)), "infinity"),
    ],
)
def test_errors_of_fit(table, make, message):
    with pytest.raises(ValueError, match=message):
        make(table)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda d, t: d.score_samples(t.assign(member="perhaps")), "perhaps"),
        (lambda d, t: d.score_samples(t.drop(columns=["sex"])), "lacks the columns"),
        (lambda d, t: d.condition({"nobody": 1}), "nobody"),
        (lambda d, t: d.condition(t[:1]), "nothing is left"),
        (lambda d, t: d.score_samples(t.assign(since="May 2024")), "to_datetime"),
        (lambda d, t: d.predict_proba("size", t), "quantile"),
        (lambda d, t: d.quantile("sex", t), "predict_proba"),
        (lambda d, t: d.quantile("since", t), r"use sample\(given=...\) .* impute"),
        (lambda d, t: d.predict_proba("since", t), r"use sample\(given=...\) .* impute"),
        (lambda d, t: d.levels("since"), r"use sample\(given=...\) .* impute"),
        (lambda d, t: d.quantile("size", t, 1.5), "more than 0 and less than 1"),
        (lambda d, t: d.impute(t, "guess"), "choose"),
        (lambda d, t: d.impute(t, "mean", n_draws=3), "draw"),
        (lambda d, t: d.sample(0), "at least 1"),
    ],
)
def test_errors_of_questions(density, table, ask, message):
    with pytest.raises(ValueError, match=message):
        ask(density, table)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("visits", -2.0, "-2 in column 'visits', .* in steps of 1 between 0 and inf"),
        ("age", 494000.5, "494000.5 in column 'age', .* in steps of 1 between"),
    ],
)
def test_values_outside_of_an_inferred_kind_have_a_small_density(density, table, name, value, why):
    rows = table[:4].astype({name: float})
    expected = density.score_samples(rows)
    rows.loc[rows.index[1:3], name] = value
    with pytest.warns(UserWarning, match=why) as caught:
        scores = density.score_samples(rows)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert (scores[1:3] < expected[1:3] - 5).all() and np.isfinite(scores).all()
    assert scores[[0, 3]] == pytest.approx(expected[[0, 3]])
    with pytest.warns(UserWarning, match=why):
        assert (density.marginal([name]).score_samples(rows[[name]])[1:3] < -8).all()


def test_unfitted():
    with pytest.raises(NotFittedError):
        TableDensity().sample()


def test_rare_categories(table):
    rare = table.copy()
    rare.loc[0, "sex"] = "unlisted"
    own = quick(handle_unknown="rare").fit(rare)
    assert own.levels("sex") == ["female", "male", "(rare)"]
    scores = own.score_samples(table[:5].assign(sex="never seen"))
    assert np.isfinite(scores).all()
    assert (scores < own.score_samples(table[:5].assign(sex="male"))).all()


def test_rare_categories_of_little_weight():
    table = pd.DataFrame({"kind": ["a", "b"] * 20 + ["c", "d"]})
    asked = pd.DataFrame({"kind": ["c", "d", "never seen"]})
    weight = np.append(np.ones(40), [1e-9, 1.0])
    own = quick(handle_unknown="rare", max_iter=1).fit(table, sample_weight=weight)
    scores = own.score_samples(asked)
    assert scores[:2] == pytest.approx(scores[[1, 1]], abs=0.1)
    # Those that only rows of weight 0 have are as unlikely as one that no row has.
    weight[40:] = 0
    density, random_state = quick(handle_unknown="rare", max_iter=1), np.random.RandomState(0)
    own = density._share_columns(table, random_state, weight).fit(table[:40])
    scores = own.score_samples(asked)
    assert np.isfinite(scores).all() and np.ptp(scores) == 0
    assert set(own.sample(100, random_state=0)["kind"]) == {"a", "b"}
    with pytest.raises(ValueError, match="no known value in the 2 rows of this fit"):
        quick()._share_columns(table.mask(weight[:, None] == 0), random_state, 1 - weight)


def test_weights_of_0_and_equal_weights(table, density):
    rows = table.loc[:59, ["sex", "size", "rain"]]
    weight = np.where(np.arange(60) % 3, 2.0, 0.0)
    fitted = quick(max_iter=1).fit(rows, sample_weight=weight)
    plain = quick(max_iter=1).fit(rows[weight > 0])
    np.testing.assert_array_equal(fitted.score_samples(rows[:9]), plain.score_samples(rows[:9]))
    assert np.isnan(fitted.held_out_scores_[weight == 0]).all()
    assert np.isfinite(fitted.held_out_scores_[weight > 0]).all()


def test_copies_of_a_row_are_held_out_together(table):
    """Otherwise kernels would see the held-out rows. Rows of categories are equal by chance."""
    repeated = pd.concat(3 * [table[["size", "sex"]]], ignore_index=True)
    has_size = repeated["size"].notna().to_numpy()
    density = quick(max_iter=1, n_orders=1).fit(repeated)
    rows = density._schema.encode(density._read(repeated, reset=False))
    copy_of = _components.first_copies(density._schema, rows)
    expected = np.where(has_size, np.tile(np.arange(N), 3), np.arange(3 * N))
    np.testing.assert_array_equal(copy_of, expected)
    for cv in (2, 5, "auto"):
        for train, held_out in _components.make_splits(cv, copy_of, 0):
            assert not set(copy_of[train]) & set(copy_of[held_out])
            assert len(train) + len(held_out) == 3 * N
    # If all rows are copies of one, folds are those of other rows.
    assert [len(part) for part in _components.make_splits(3, np.zeros(9, int), 0)[0]] == [6, 3]


def test_a_row_of_weight_3_counts_as_three(monkeypatch):
    """Up to priors, shrinkage and the rows that are held out."""
    all_components = _components.components
    monkeypatch.setattr(_components, "components", lambda *args: all_components(*args)[:1])
    table = mixed_table(300)[["sex", "size", "rain"]]
    weight = np.where(table["sex"] == "male", 3.0, 1.0)
    repeated = table.loc[table.index.repeat(weight.astype(int))]
    test = mixed_table(300, seed=1)[list(table)]
    fits = [
        quick(max_iter=5).fit(rows, sample_weight=w)
        for rows, w in ((table, weight), (repeated, None), (table, None))
    ]
    ours, theirs, plain = (each.score(test) for each in fits)
    assert abs(ours - theirs) < 0.1 < 0.2 < abs(plain - theirs)
    ours, theirs, plain = (each.predict_proba("sex", {"rain": 1.0})[0, 1] for each in fits)
    assert abs(ours - theirs) < 0.08 < 0.15 < abs(plain - theirs)


def test_components_are_pickled(density):
    """For processes of multiprocessing, which do not take local functions."""
    found = _components.components(density._schema, N, {"max_iter": 1, "n_orders": 1})
    assert [c.name for c in pickle.loads(pickle.dumps(found))] == density.component_names_


def test_an_interrupt_keeps_what_is_fitted(monkeypatch, table):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(_components, "fit_network", interrupt)
    own = quick()
    with pytest.warns(UserWarning, match="interrupted after"):
        own.fit(table[["sex", "visits"]])
    assert "network" not in own.component_names_
    assert np.isfinite(own.score_samples(table[["sex", "visits"]])).all()


def test_an_interrupt_in_an_early_fold_ends_the_fit(monkeypatch, table):
    """Its other folds are not fitted: the network would not be whole without it."""
    fits = []

    def interrupted_fit(train, *args, **kwargs):
        fits.append(_latent_classes.fit_latent_classes(train, 1, "quantile", np.random))
        fits[-1].interrupted = True
        return fits[-1]

    monkeypatch.setattr(_components, "fit_network", interrupted_fit)
    own = quick(cv=3)
    with pytest.warns(UserWarning, match="interrupted after"):
        own.fit(table[["size", "visits"]])
    assert len(fits) == 1 and "network" not in own.component_names_


def test_folds_that_a_time_limit_leaves_out(table, monkeypatch):
    """A component without one of its folds is left out, except the first one."""
    monkeypatch.setattr(_components, "TIME_FOR_CLASSES", 0.0)
    own = quick(time_limit=60).fit(table[["size", "visits"]])
    assert own.component_names_ == ["quantile classes of 1", "network", "network on pairs"]


def test_networks_that_a_time_limit_leaves_out(table, monkeypatch):
    """A network does not begin too late; one that has begun is completed."""
    fit_network, now, seen = _components.fit_network, [0.0], []
    monkeypatch.setattr(data_parallel.SINGLE_PROCESS, "clock", lambda: now[0])

    def slow(train, held_out, seed, seconds, settings, has_backbone=False):
        seen.append(has_backbone)
        now[0] += 61.0
        return fit_network(train, held_out, seed, 1.0, settings, has_backbone)

    monkeypatch.setattr(_components, "fit_network", slow)
    own = quick(time_limit=60, cv=2).fit(table[["size", "visits"]])
    assert seen == [False, False]
    assert "network" in own.component_names_
    assert "network on pairs" not in own.component_names_


def test_outlier_detector(table):
    """A swapped pair of cells is odd, and explained by its column."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=300)
    frame = pd.DataFrame(
        {"x": x, "side": np.where(x > 0, "right", "left"), "z": rng.normal(size=300)}
    )
    frame["z"] = frame["z"].mask(rng.uniform(size=300) < 0.2)
    detector = DensityOutlierDetector(quick(max_iter=10), calibration="conformal", cv=2).fit(frame)
    odd = pd.DataFrame({"x": [2.0], "side": ["left"], "z": [0.1]})
    usual = odd.assign(side="right")
    assert detector.p_values(odd)[0] < 0.05 < detector.p_values(usual)[0]
    found = detector.explain(odd, as_frame=True)
    assert found.columns.tolist() == ["x", "side", "z"]
    assert found.sum(axis=1)[0] == pytest.approx(detector.score_samples(odd)[0])
    assert found.iloc[0].idxmin() in ("x", "side")
    copy = pickle.loads(pickle.dumps(detector))
    assert (copy.score_samples(frame[:5]) == detector.score_samples(frame[:5])).all()


def test_names_of_rows_are_pointed_out(table):
    """A category of each row, which a density of rare categories takes."""
    frame = table[["size", "sex"]].assign(id=[f"row {i}" for i in range(len(table))])
    detector = DensityOutlierDetector(quick(handle_unknown="rare", max_iter=1), calibration=None)
    with pytest.warns(ColumnWarning, match="identify rows: 'id'; leave them out, unless"):
        detector.fit(frame)


@pytest.mark.parametrize("estimator", [TableDensity(), DensityOutlierDetector(TableDensity())])
def test_columns_of_one_name(estimator, table):
    with pytest.raises(ValueError, match="X has more than one column 'size'; rename them"):
        estimator.fit(table[["size", "sex", "size"]])


def test_dependence(density, table):
    """The log-density minus those of the single columns; 0 if they are independent."""
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


@pytest.mark.parametrize("unit", [1e-8, 1e-3, 1.0], ids=["of 1e-8", "of 1e-3", "of 1"])
def test_units_of_any_size(unit):
    values = unit * np.random.default_rng(0).normal(size=60)
    assert lattice_of(np.unique(values)) is None


def test_lattices_of_single_precision():
    """Each value that makes a column a lattice is on it."""
    values = np.round(np.random.default_rng(0).uniform(0.1, 0.9, 60), 5).repeat(2)
    frame = pd.DataFrame({"x": values.astype(np.float32).astype(float)})
    own = quick().fit(frame)
    assert own.columns_["kind"].tolist() == ["rounded"]
    assert np.isfinite(own.score_samples(frame)).all()


def test_lattices_keep_numbers_apart():
    assert lattice_of(np.array([1000.0, 1000.0005, 1001.0])) == (0.0005, 4)
    assert lattice_of(np.array([0.3, 0.1 + 0.2, 0.5])) == (0.2, 1)  # rounding errors
    assert lattice_of(np.zeros(1)) == (1.0, 0)


def test_whole_numbers_given_and_of_points():
    """Latent classes: sums over whole numbers given a point, and integrals the other way."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=200)
    table = pd.DataFrame({"n": np.rint(30 * x).astype(int), "y": x + 0.02 * rng.normal(size=200)})
    own = quick().fit(table)
    own._members = [
        (member, weight)
        for member, weight in own._members
        if isinstance(getattr(member, "member", member), LatentClasses)  # kernels are of no fold
    ]
    whole = pd.DataFrame({"n": np.arange(-400, 401)})
    for y in (0.0, 0.017, 1.03):
        sum_ = np.exp(own.condition({"y": y}).score_samples(whole)).sum()
        assert sum_ == pytest.approx(1 - own._schema.parts[0].outside.share, abs=1e-6)
    grid = np.linspace(-8, 8, 8001)
    scores = own.condition({"n": 17}).score_samples(pd.DataFrame({"y": grid}))
    assert np.exp(scores).sum() * (grid[1] - grid[0]) == pytest.approx(1, abs=1e-3)


def test_the_median_may_be_the_least_value():
    rng = np.random.default_rng(0)
    rain = np.where(rng.uniform(size=200) < 0.8, 0.0, 5 + rng.gamma(2.0, size=200))
    own = quick(columns={"rain": ("atoms", [0.0], 0.0)}).fit(pd.DataFrame({"rain": rain}))
    assert own.quantile("rain", pd.DataFrame({"rain": [np.nan]}), [0.3, 0.5]).tolist() == [[0, 0]]


def test_columns_with_numbers_for_names():
    frame = pd.DataFrame(np.random.default_rng(0).normal([0, 100], size=(60, 2)))
    own = quick(max_iter=1).fit(frame)
    assert (own.score_samples(frame[[1, 0]]) == own.score_samples(frame)).all()


def test_means_are_possible():
    """Of counts, of angles among few, and of dates."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=300)
    table = pd.DataFrame(
        {
            "x": x,
            "n": rng.poisson(np.exp(1 + 1.5 * x)),
            "hour": np.where(rng.uniform(size=300) < 0.5, 23, 1),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(7 * rng.integers(0, 40, 300), "D"),
        }
    )
    own = quick(columns={"hour": ("circular", 24)}).fit(table)
    asked = pd.DataFrame({"x": [-3.0, 0.0], "n": np.nan, "hour": np.nan, "day": pd.NaT})
    filled = own.impute(asked)
    assert (filled["n"] >= 0).all()
    assert np.cos(filled["hour"] * np.pi / 12).min() > 0.8
    assert (filled["day"].dt.day_of_week == 0).all()


def test_few_angles_are_wrapped():
    table = pd.DataFrame({"hour": np.tile(np.arange(1, 25), 10)})
    own = quick(columns=COLUMNS).fit(table)
    scores = own.score_samples(pd.DataFrame({"hour": [0, 24, 12, 36]}))
    assert scores[[0, 2]] == pytest.approx(scores[[1, 3]])
    assert np.exp(own.score_samples(table[:24])).sum() == pytest.approx(1, abs=0.01)
    few = quick(columns=COLUMNS).fit(pd.DataFrame({"hour": [1, 23] * 40}))
    assert np.exp(few.score_samples(table[:24])).sum() == pytest.approx(1, abs=2e-4)


def test_few_angles_may_be_turned():
    """The levels of a class of few rows are shrunk alike wherever the circle is cut."""
    hours = np.concatenate([np.repeat(np.arange(24), 10), [9, 10, 11, 12]])
    share = (np.arange(len(hours)) >= 240)[:, None].astype(float)

    def table(turn):
        X = pd.DataFrame({"hour": (hours + turn) % 24})
        schema = Schema(read_frame(X), ["hour"], COLUMNS, "error", False, None)
        view = TableView(schema, schema.encode(read_frame(X)))
        return Training(view, "quantile", np.random.RandomState(0)).tables(share)[0][0]

    assert np.roll(table(0), 12) == pytest.approx(table(12))


def test_angles_have_a_density_everywhere():
    rng = np.random.default_rng(0)
    hour = rng.uniform(8, 18, 200)
    own = quick(columns=COLUMNS, max_iter=8).fit(pd.DataFrame({"hour": hour}))
    grid = np.arange(24000) / 1000
    scores = own.score_samples(pd.DataFrame({"hour": grid}))
    assert scores.min() > -40
    assert np.exp(scores).sum() / 1000 == pytest.approx(1, abs=1e-3)
    cut = own._schema.parts[0].low
    assert np.isfinite(own.score_samples(pd.DataFrame({"hour": [cut, cut + 24]}))).all()
    x = np.linspace(8, 18, 9)
    for map_ in own._schema.parts[0].maps.values():
        assert map_.inverse(map_.forward(x)[0]) == pytest.approx(x, abs=1e-3)


def test_imputation_keeps_known_values_exactly():
    """Even those that microseconds cannot hold."""
    n = 60
    moments = pd.Series(pd.date_range("2024-10-26", periods=n, freq="37min", tz="Europe/Berlin"))
    table = pd.DataFrame(
        {
            "id": pd.array([2**53, 5, None] * 20, dtype="Int64"),
            "at": (moments + pd.Timedelta(1, "ns")).mask(np.arange(n) % 7 == 0),
            "x": np.random.default_rng(0).normal(size=n),
        }
    )
    filled = quick(max_iter=1).fit(table).impute(table)
    assert not filled.isna().any(axis=None)
    pd.testing.assert_frame_equal(filled.where(table.notna()), table)
    frame = pl.DataFrame({"id": [2**53, 5, None] * 20, "x": table["x"].to_numpy()})
    filled = quick(max_iter=1).fit(frame).impute(frame)
    assert filled["id"][:2].to_list() == [2**53, 5]
    assert filled.null_count().sum_horizontal()[0] == 0


@pytest.mark.parametrize("dtype", ["uint8", "UInt8"])
def test_values_stay_within_integer_dtypes(dtype):
    columns = [Column(np.array([-3.0, 7.4, 300.0]), np.ones(3, dtype=bool), "number", dtype)]
    assert write_frame(columns, ["n"], "pandas")["n"].tolist() == [0, 7, 255]
    assert write_frame(columns, ["n"], "numpy", "uint8").ravel().tolist() == [0, 7, 255]
    as_polars = [columns[0]._replace(dtype="UInt8")]
    assert write_frame(as_polars, ["n"], "polars")["n"].to_list() == [0, 7, 255]


@pytest.mark.parametrize("handle_unknown", ["error", "rare"])
def test_categories_of_any_dtype(handle_unknown):
    """Samples and imputed values have the dtypes and the values of the table."""
    rng = np.random.default_rng(0)
    code = rng.integers(1, 4, 90)
    table = pd.DataFrame(
        {
            "whole": code,
            "Int": pd.array(code, dtype="Int64"),
            "real": code / 4,
            "date": pd.Timestamp("2024-01-01") + pd.to_timedelta(code, "D"),
            "flag": code > 1,
            "text": pd.Series(code).map({1: "a", 2: "b", 3: "c"}),
        }
    )
    kinds = dict.fromkeys(["whole", "Int", "real", "date"], "categorical")
    own = quick(columns=kinds, handle_unknown=handle_unknown, max_iter=1).fit(table)
    asked = table[:8].copy()
    for name in asked:
        asked[name] = asked[name].mask(np.arange(8) % 2 == 0)
    drawn, filled = own.sample(300, random_state=0), own.impute(asked, "draw", random_state=0)
    assert (drawn.dtypes == table.dtypes).all()
    for name in table:
        assert set(drawn[name]) | set(filled[name]) <= set(table[name])
    with pytest.raises(ValueError, match="predict_proba"):
        own.quantile("real", asked)
    assert own.levels("flag") == [False, True]


def test_truth_values_with_gaps_as_objects():
    values = pd.Series([True, pd.NA, False, None], dtype=object)
    (column,) = read_frame(pd.DataFrame({"on": values})).columns
    assert column.role == "bool"
    assert column.values[column.known].tolist() == [True, False]


def test_texts_that_became_numbers():
    table = pd.DataFrame({"zip": ["01234", "01235", "10117"] * 20})
    own = quick(handle_unknown="rare", max_iter=1).fit(table)
    with pytest.raises(ValueError, match="held texts in fit"):
        own.score_samples(pd.DataFrame({"zip": [1234, 1235]}))


def test_detectors_of_tables(table):
    """They use the held-out scores of the density, and take categories that a fold lacks."""
    own = table[["sex", "size", "member"]].assign(code=["only"] + ["usual"] * (N - 1))
    detector = DensityOutlierDetector(quick(handle_unknown="rare"), calibration="conformal")
    detector.fit(own)
    (model,) = detector.models_
    scores = model.density.estimator.held_out_scores_
    assert (detector.held_out_scores_ == scores).all()
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
        found._schema.columns[1].parts[0].maps["quantile"]
        for found in (folds.models_[0].density.estimator, alone)
    ]
    sizes = np.array(own["size"].dropna())
    assert np.array_equal(*(found.forward(sizes)[0] for found in maps))


def test_texts_in_a_column_of_numbers_are_named_by_detectors():
    encoding, _ = Encoding.read(pd.DataFrame({"code": [1, 2]}))
    with pytest.raises(
        ValueError, match=r"'code' held numbers in fit; now it holds 'A0': .*to_numeric"
    ):
        encoding.encode(pd.DataFrame({"code": ["A0", "1"]}))


def test_numbers_between_levels_look_like_numbers():
    table = pd.DataFrame({"n": [0, 1, 10] * 20})
    own = quick(max_iter=1).fit(table)
    features = TableView(own._schema, own._rows(pd.DataFrame({"n": [1, 2, 10]}))).features
    assert features[0, -1] < features[1, -1] < features[2, -1]


def test_chunks_of_rows(monkeypatch, density, table):
    """Rows are answered some at a time."""
    whole = density.impute(table[:7]), density.quantile("size", table[:7])
    monkeypatch.setattr(_parts, "ROWS_AT_ONCE", 3)
    pd.testing.assert_frame_equal(density.impute(table[:7]), whole[0])
    assert density.quantile("size", table[:7]) == pytest.approx(whole[1])
    assert len(density.sample(7)) == 7


def test_held_out_rows_score_like_new_ones():
    """The cell of a single value would be wide if its row had a part in the maps that score it."""
    rng = np.random.default_rng(2)
    tens, others = 10.0 * rng.integers(0, 10, 1300), np.round(np.exp(rng.normal(3, 1, 1300)))
    X = np.where(rng.uniform(size=1300) < 0.6, tens, others)[:, None]
    density = TableDensity(max_iter=1, n_orders=1, random_state=0).fit(X[:300])
    known, new = density.held_out_scores_.clip(-10), density.score_samples(X[300:]).clip(-10)
    assert known.mean() < new.mean() + 0.15


def test_samples_have_the_written_values_of_single_precision():
    rates = np.float32([3.1, 3.2, 3.9, 10.6]).astype(float)
    X = np.random.default_rng(0).choice(rates, 80)[:, None]
    density = TableDensity(max_iter=1, n_orders=1, random_state=0).fit(X)
    assert np.isin(density.sample(50, random_state=0), rates).mean() > 0.9
    assert np.isfinite(density.score_samples(np.round(rates, 1)[:, None])).all()


def test_detector_sees_new_categories_of_a_categorical_column():
    """They are not taken for missing, which is ordinary."""
    rng = np.random.default_rng(0)
    kind = pd.Categorical(rng.choice(list("abc"), 90))
    table = pd.DataFrame({"kind": kind, "x": rng.normal(size=90)})
    detector = DensityOutlierDetector(quick(handle_unknown="rare")).fit(table)
    new = pd.DataFrame({"kind": pd.Categorical(["new", None]), "x": [0.0, 0.0]})
    odd, ordinary = detector.score_samples(new)
    assert odd < ordinary - 2


def test_answers_about_rows_with_impossible_values_warn(density_with_bounds):
    row = with_bounds()[:1].assign(age=17, share=np.nan)
    for ask in (
        lambda: density_with_bounds.predict_proba("rating", row),
        lambda: density_with_bounds.quantile("floor", row),
        lambda: density_with_bounds.impute(row),
    ):
        with pytest.warns(UserWarning, match="X has 17 in column 'age', .* unreliable"):
            ask()


def test_kinds_may_be_lists():
    table = with_bounds()[["age"]]
    own = quick(columns={"age": ["count", 18, 90]}, max_iter=1).fit(table)
    assert own.sample(500, random_state=0)["age"].between(18, 90).all()
