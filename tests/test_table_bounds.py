"""Possible values of the columns of a table: bounds, samples within them, values outside."""

import numpy as np
import pandas as pd
import pytest
from _tables import COLUMNS, N, density, few_components, quick, schema_of, table  # noqa: F401
from scipy.special import ndtr

from skflows import TableDensity
from skflows.columns.checks import ColumnWarning
from skflows.table._view import TableView


def test_samples_of_positive_numbers_stay_within_reason():
    price = np.append(np.random.default_rng(0).lognormal(0, 0.5, 999), 60.0)
    part = TableDensity(max_iter=1).fit(pd.DataFrame({"price": price}))._schema.variables[0]
    # The farthest of millions of draws.
    assert part.maps["quantile"].inverse(np.array([5.5]))[0] < 100 * price.max()


def test_a_bound_that_was_guessed():
    """It has a small density, unless it is named as a value."""
    table = pd.DataFrame({"x": np.random.default_rng(0).exponential(size=60)})
    zero = pd.DataFrame({"x": [0.0]})
    own = quick().fit(table)
    assert own.columns_["kind"].tolist() == ["bounded"]
    with pytest.warns(UserWarning, match="0 in column 'x'.* numbers above 0[.]"):
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
        ("age", 19, 17, "17 in column 'age'.* whole numbers from 18 to 90"),
        ("floor", 900, -6, "-6 in column 'floor'.* whole numbers of at least -5"),
        (
            "share",
            1.05,
            1.25,
            "1.25 in column 'share'.* steps of 0.1 from 0.05 to 1.15",
        ),
        ("rating", 7, 8, "8 in column 'rating'.* whole numbers from 1 to 7"),
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


def schema_of_one(x, columns=None):
    """The variables of one column."""
    return schema_of(np.asarray(x)[:, None], columns, random_state=np.random.RandomState(0))


def is_possible(schema, x):
    variables = schema.encode(np.asarray(x)[:, None])
    cells = schema.cells(variables, schema.code(variables), "quantile")
    return np.isfinite(cells.log_scale[:, 0])


@pytest.mark.parametrize(("n_levels", "last"), [(13, 1.2), (40, 3.9)], ids=["levels", "number"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_bounds_despite_rounding_errors(n_levels, last, dtype):
    """0.1 * 12, and 1.2 in float32, are greater than 1.2; both are on the bound."""
    steps = np.random.default_rng(0).integers(0, n_levels, 400)
    on_bound = (0.1 * np.array([1 - n_levels, n_levels - 1])).astype(dtype)
    for seen in (steps, steps - n_levels + 1, np.minimum(steps, n_levels - 2)):
        own = schema_of_one((0.1 * seen).astype(dtype), {0: ("rounded", -last, last)})
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
    schema = schema_of_one(values, {0: kind})
    assert is_possible(schema, [inside, outside]).tolist() == [True, False]


@pytest.mark.parametrize(
    ("value", "remedy"), [(60, "move the bounds that columns"), (9.5, "'continuous'")]
)
def test_the_remedy_for_impossible_values(value, remedy):
    schema = schema_of_one(np.arange(50), {0: ("count", 0, 50)})
    with pytest.warns(UserWarning, match=remedy):
        schema.warn_of_outside(schema.encode(np.array([[value]])))


def test_stated_bounds_are_shown(density_with_bounds):
    shown = density_with_bounds.columns_.set_index("column")
    assert shown.loc["age", "reason"] == "given in columns: ('count', 18, 90)"


def test_bounds_of_zero_have_no_sign():
    """0.3 - 3 * 0.1 is -5.6e-17."""
    (part,) = schema_of_one((np.arange(3, 12) / 10).repeat(18)).variables
    assert f"{part.lattice[1]:g}" == "0"


def test_the_outermost_of_whole_numbers_get_their_share(density_with_bounds):
    """A normal of standardised uniform numbers has 3 times as much mass beyond them."""
    part = density_with_bounds._schema.columns[0].value_variables[0]
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
    (part,) = schema_of_one(x).variables
    ends = np.array([x.min() - 0.5, x.max() + 0.5])
    below, above = part.maps["linear"].forward(ends)[0]
    standardised = (ends - x.mean()) / x.std()
    assert np.allclose([below, above], standardised, atol=0.05) != is_stretched
    if is_stretched:
        assert ndtr(below) < 0.3 * ndtr(standardised[0])


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("visits", -2.0, "-2 in column 'visits'.* whole numbers of at least 0"),
        ("age", 494000.5, "494000.5 in column 'age'.* whole numbers of at least 0"),
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


def test_samples_have_the_written_values_of_single_precision():
    rates = np.float32([3.1, 3.2, 3.9, 10.6]).astype(float)
    X = np.random.default_rng(0).choice(rates, 80)[:, None]
    density = TableDensity(max_iter=1, n_orders=1, random_state=0).fit(X)
    assert np.isin(density.sample(50, random_state=0), rates).mean() > 0.9
    assert np.isfinite(density.score_samples(np.round(rates, 1)[:, None])).all()


def test_answers_about_rows_with_impossible_values_warn(density_with_bounds, small_blocks):
    row = with_bounds()[:1].assign(age=17, share=np.nan)
    for ask in (
        lambda: density_with_bounds.predict_proba("rating", row),
        lambda: density_with_bounds.quantile("floor", row),
        lambda: density_with_bounds.impute(row),
    ):
        with pytest.warns(UserWarning, match="X has 17 in column 'age'.* unreliable"):
            ask()
    small_blocks()
    with pytest.warns(UserWarning, match="in 7 of 7 rows") as caught:
        density_with_bounds.predict_proba("rating", pd.concat(7 * [row]))
    assert len(caught) == 1


def test_kinds_may_be_lists():
    table = with_bounds()[["age"]]
    own = quick(columns={"age": ["count", 18, 90]}, max_iter=1).fit(table)
    assert own.sample(500, random_state=0)["age"].between(18, 90).all()


@pytest.mark.parametrize("unit", ["D", "MS"])
def test_later_dates_than_all_of_fit_are_warned_of(unit):
    """Such rows are unlike all others, whatever their other values."""
    day = pd.date_range("2019-01-01", periods=90, freq=unit)
    table = pd.DataFrame({"day": day, "x": np.random.default_rng(0).normal(size=90)})
    own = quick().fit(table[20:70])
    for rows, where in ((table[:20], "before"), (table[78:], "after")):
        message = (
            f"dates {where} all dates of fit in column 'day' in .* rows; they were {day[20]:%F}"
        )
        with pytest.warns(ColumnWarning, match=message):
            own.score_samples(rows)
    own.score_samples(table[40:])  # most are among the dates of the fit
