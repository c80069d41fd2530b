"""Kinds of the columns of a table: how they are chosen, lattices, dates, angles, dtypes."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from _tables import (  # noqa: F401
    COLUMNS,
    density,
    few_components,
    quick,
    schema_of,
    table,
    view_of,
)
from numpy.testing import assert_allclose, assert_array_equal

import skflows
from skflows import ConditionalDensity, DensityOutlierDetector, NSFDensity, TableDensity
from skflows.columns.checks import ColumnWarning
from skflows.columns.formats import find_format
from skflows.columns.frames import Column, read_frame, write_frame
from skflows.columns.kinds import decide
from skflows.columns.lattice import lattice_of
from skflows.inspection import ConditionalDensityDisplay
from skflows.table._latent_classes import LatentClasses, Training


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
    assert decide(column.values[column.known], column.role).name == kind


@pytest.mark.parametrize(
    ("decimals", "kind"), [(0, "count"), (1, "rounded"), (4, "bounded")], ids=str
)
def test_percentages_close_to_the_whole_do_not_exceed_it(decimals, kind):
    """Others may be rates of growth, for example."""
    rng = np.random.default_rng(0)
    close, other = 99.9 * rng.beta(9, 1, 1000), rng.uniform(20, 60, 1000)
    for values, ends in ((close, (0.0, 100.0)), (other, ())):
        x = np.round(values, decimals)
        format = find_format([f"{each:.{decimals}f}%" for each in x])
        assert decide(x, "number", format).arguments == ends
        if ends:
            assert decide(x, "number", format).name == kind
            assert decide(x / 100, "number").arguments == (0.0, 1.0)


@pytest.mark.parametrize("unit", ["kg", "€"])
def test_amounts_near_1_are_no_shares(unit):
    x = np.round(0.999 * np.random.default_rng(0).beta(9, 1, 1000), 2)
    assert decide(x, "number", find_format([f"{each:.2f} {unit}" for each in x])).arguments == ()


def test_percentages_in_steps_do_not_exceed_the_whole():
    x = 5 * np.rint(20 * np.random.default_rng(0).beta(6, 1.5, 300))
    format = find_format([f"{each:.0f}%" for each in x])
    assert decide(x, "number", format)[:2] == ("rounded", (0.0, 100.0))


@pytest.mark.parametrize(
    ("n_values", "n", "is_listed"),
    [
        (2, 12, True),
        (6, 60, False),
        (6, 90, True),
        (22, 150, False),
        (22, 1000, True),
        (31, 9000, False),
    ],
)
def test_few_values_in_many_rows_are_listed(n_values, n, is_listed):
    """Otherwise correlations with other numbers say more than a probability for each value."""
    values = np.arange(n) % n_values
    (part,) = schema_of(values[:, None], random_state=np.random.RandomState(0)).variables
    assert part.has_number != is_listed


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
    (part,) = schema_of(price[:, None], random_state=np.random.RandomState(0)).variables
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


@pytest.mark.parametrize(("form", "pattern"), [("%Y-%m-%d", "2024"), ("%d/%m/%Y", "01/01/2024")])
def test_dates_as_texts_are_pointed_out(form, pattern):
    days = pd.Series(pd.date_range("2024-01-01", periods=100)).dt.strftime(form)
    days[3], days[5] = None, "6 Jan 2024"  # of another format
    table = pd.DataFrame({"day": days, "x": np.linspace(0, 1, 100)})
    with pytest.warns(UserWarning, match=f"'day' holds dates as texts, .*{pattern}.*to_datetime"):
        density = quick(handle_unknown="rare", max_iter=1).fit(table)
    reason = density.columns_["reason"][0]
    assert reason.startswith("99 distinct texts") and "to_datetime" in reason
    quick(columns={"day": "categorical"}, handle_unknown="rare", max_iter=1).fit(table)  # is silent


def test_numbers_as_texts_are_pointed_out():
    prices = [f"${1000 + 7 * i:,}" for i in range(100)]
    table = pd.DataFrame({"price": [*prices[1:], "2 for $9"], "x": np.linspace(0, 1, 100)})
    with pytest.warns(UserWarning, match="1 of 100 values of column 'price', '2 for .9', has ano"):
        quick(handle_unknown="rare", max_iter=1).fit(table)
    mixed = [f"${x:,}" if x % 2 else f"{x:,}" for x in range(1000, 2000, 5)]
    table = pd.DataFrame({"price": mixed, "x": np.linspace(0, 1, 200)})
    with pytest.warns(UserWarning, match="'price' holds numbers as texts, such as '.1,0"):
        quick(handle_unknown="rare", max_iter=1).fit(table)


OTHER_FORMS = {
    "amounts": ([f"${i},100.00" for i in range(101, 141)], ["5-6", "1?"], "such as '5-6', have"),
    "brackets": (["($37.50)"] * 40, ["12 each"], "'12 each', has another form than '..37.50"),
    "times": ([f"{i % 12 + 1}:{i:02d} AM" for i in range(40)], ["12 noon"], "than '1:00 AM'"),
    "days": ([f"{i} days" for i in range(40)], ["3 weeks"], "'3 weeks', has"),
    "named dates": ([f"{i} May 2024" for i in range(1, 31)], ["May 24"], "'May 24', has another"),
    "many words": ([f"${i}.50" for i in range(40)], ["none", "?"] * 3, "6 of 46 values"),
    "shares": ([f"{i}.5 %" for i in range(40)], ["0.12"], "'0.12', has another form"),
    "many plain": ([f"${i}.50" for i in range(40)], list("123456789"), "9 of 49 values"),
    "no plain form": ([f"${i}.50" for i in range(40)], ["007"], "1 of 41 values .* '007', has"),
}


@pytest.mark.parametrize("texts", OTHER_FORMS)
def test_texts_of_another_form_than_most_are_pointed_out(texts):
    """They name no rows, and the warning shows what to rewrite."""
    values, others, message = OTHER_FORMS[texts]
    values = [*values[:20], *others, *values[20:]]
    table = pd.DataFrame({"text": values, "x": np.linspace(0, 1, len(values)) ** 2})
    with pytest.warns(UserWarning, match=message) as caught:
        density = quick(handle_unknown="rare", max_iter=1).fit(table)
    assert density.columns_["kind"][0] == "categorical"
    assert not any("name the rows" in str(warning.message) for warning in caught)


@pytest.mark.parametrize(
    ("values", "plain", "numbers"),
    [
        ([f"${i},000.00" for i in range(101, 141)], ["38000", "-5.5"], [38000, -5.5]),
        ([f"(${i}.50)" for i in range(40)], ["12"], [12]),
        ([f"{i}.243,50 €" for i in range(1, 41)], ["38000", "1.000,25"], [38000, 1000.25]),
        ([f"{i},243" for i in range(1, 41)], ["38000"], [38000]),
        ([f"{i} days" for i in range(40)], ["7"], [7]),
    ],
)
def test_a_few_plain_numbers_are_of_the_form_of_the_others(values, plain, numbers, tmp_path):
    """Known ones stay as they are; samples have the form of the others."""
    values = [*plain, *values]
    table = pd.DataFrame({"pay": values, "x": np.linspace(0, 1, len(values)) ** 2})
    table.loc[5, "x"] = table.loc[6, "pay"] = None
    with warnings.catch_warnings():
        warnings.simplefilter("error", ColumnWarning)
        density = quick(max_iter=1).fit(table)
        density.save(tmp_path / "m")
        density = skflows.load(tmp_path / "m")
        assert density.columns_["kind"][0] != "categorical"
        assert density._encoding.encode(table)[: len(plain), 0].tolist() == numbers
        filled = density.impute(table)
    is_known = table["pay"].notna()
    assert filled["pay"][is_known].tolist() == table["pay"][is_known].tolist()
    assert not set(density.sample(20, random_state=0)["pay"].dropna()) & set(plain)
    plain_fit = find_format(values[len(plain) :])
    assert plain_fit.fits(density.sample(20, random_state=0)["pay"].dropna().tolist())


@pytest.mark.parametrize("form", ["${:,}", "{} kg", "2024-05-01 18:{:02d}", "{:d}"])
def test_a_few_words_among_numbers_are_missing(form, one_class):
    values = [form.format(i % 60 + 10 * i * ("," in form)) for i in range(120)]
    numbers = pd.DataFrame({"x": values, "y": np.linspace(0, 1, 120) ** 2})
    table = numbers.copy()
    table.loc[[3, 50], "x"] = "negotiable"
    table.loc[70, "x"] = "?"
    message = r"'negotiable', '\?' in 3 of 120 rows: read as missing"
    with pytest.warns(ColumnWarning, match=message):
        density = quick(max_iter=1).fit(table)
    assert density.columns_["missing"].tolist() == [3, 0]
    scores = density.score_samples(table)
    rest = table.assign(x=numbers["x"].where(table["x"] == numbers["x"]))
    np.testing.assert_array_equal(scores, density.score_samples(rest))
    assert not set(density.sample(50, random_state=0)["x"].dropna()) & {"negotiable", "?"}
    filled = density.impute(table)
    assert not {"negotiable", "?"} & set(filled["x"]) and filled["x"][0] == table["x"][0]
    density.score_samples(table.assign(x="call us"))
    with pytest.raises(ValueError, match=r"held .* in fit; now it holds '3 or 4'"):
        density.score_samples(table.assign(x="3 or 4"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ColumnWarning)
        stated = quick(max_iter=1, columns={"x": "categorical"}, handle_unknown="rare").fit(table)
    assert "negotiable" in set(stated._schema.columns[0].value_variables[0].names)


def test_words_among_few_plain_numbers_are_codes(one_class):
    """Among many they are missing: see above."""
    codes = pd.DataFrame({"x": [*["1", "2", "3", "4"] * 20, "A"]})
    assert "A" in quick(max_iter=1).fit(codes).levels("x")


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
        (3.0, "'day' held dates in fit; now it holds 3.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            density.condition({"day": value})


@pytest.mark.parametrize(("freq", "months"), [("MS", {*range(1, 13)}), ("YS", {1})])
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_dates_that_begin_months_do_so_in_samples(freq, months, zone):
    """Other dates are rare, whether the user states that these are dates or not."""
    days = pd.date_range("2000-01-01", periods=40, freq=freq, tz=zone).repeat(3)
    table = pd.DataFrame({"day": days, "x": np.arange(120) + 0.5})
    table.loc[7, "day"] = pd.NaT
    density = quick(columns={"day": "datetime"} if zone else None, max_iter=1).fit(table)
    assert density.columns_["modelled as"][0] == "month"
    drawn = density.sample(200, random_state=0)["day"]
    assert drawn.dtype == table["day"].dtype and len(set(drawn)) > 10
    assert set(drawn.dropna().dt.day) == {1} and set(drawn.dropna().dt.month) == months
    assert not drawn.dropna().dt.hour.any()
    assert density.impute(table)["day"].dt.day.tolist() == [1] * 120
    middle = pd.Timestamp("2001-01-15 12:30", tz=zone)
    with pytest.warns(ColumnWarning, match=r"2001-01-15 12:30:00 .* are dates every (12 )?month"):
        rare = density.score_samples(table.assign(day=middle))
    assert np.isfinite(rare).all() and (rare[20:30] < density.score_samples(table[20:30]) - 3).all()
    kept = density.sample(2, given={"day": middle}, random_state=0)["day"]
    assert kept.tolist() == [middle, middle]
    with pytest.raises(ValueError, match="'day' is datetime"):
        density.predict_proba("day", table)
    first, last = pd.to_datetime(density.quantile("day", table[:1], [0.01, 0.99])[0])
    first, last = (
        date if zone is None else date.tz_localize("UTC").tz_convert(zone) for date in (first, last)
    )
    assert {first.day, last.day} == {1} and first < last


@pytest.mark.parametrize(
    ("days", "is_possible"),
    [
        (pd.date_range("2000-01-31", periods=30, freq="ME"), lambda days: days.dt.is_month_end),
        (pd.date_range("2000-03-31", periods=9, freq="QE"), lambda days: days.dt.is_quarter_end),
        (pd.date_range("2000-01-01", periods=30, freq="MS") + pd.Timedelta("14D 12h"),
         lambda days: (days.dt.day == 15) & (days.dt.hour == 12)),
    ],
    ids=["month ends", "quarter ends", "15th at noon"],
)  # fmt: skip
def test_dates_once_a_month_are_so_in_samples(days, is_possible):
    """Their distribution function is one of steps."""
    table = pd.DataFrame({"day": days.repeat(9), "x": np.arange(9 * len(days)) + 0.5})
    density = quick(max_iter=1).fit(table)
    assert density.columns_["modelled as"][0] == "month"
    assert is_possible(density.sample(200, random_state=0)["day"]).all()
    one = density.predict_distribution("day", pd.DataFrame({"x": [50.0]}))
    day = days[5].to_datetime64()
    second = np.timedelta64(1, "s")
    before, at, later, next_ = one.cdf(
        np.array([[day - second], [day], [days[6].to_datetime64() - second], [days[6]]], "M8[us]")
    )[:, 0]
    assert before < at == later < next_
    assert one.ppf((before + at) / 2)[0] == day


def test_a_month_that_tells_another_column_is_found_from_it():
    """As any category that a rule makes a determinant."""
    days = pd.date_range("2000-01-01", periods=8, freq="MS").repeat(25)
    table = pd.DataFrame({"day": days, "half": np.where(days.month < 5, "first", "second")})
    density = quick(max_iter=1).fit(table)
    assert density.rules_["rule"].tolist() == ["half follows from day"]
    halves = pd.DataFrame({"half": ["first", "second"]})
    first, second = density.quantile("day", halves, [0.05, 0.95])
    assert first[1] < np.datetime64("2000-05-01") <= second[0]
    filled = density.impute(halves.assign(day=pd.NaT)[["day", "half"]].astype(table.dtypes))
    assert (filled["day"].dt.month < 5).tolist() == [True, False]


def test_a_day_that_begins_no_month_makes_weeks_of_dates():
    days = [*pd.date_range("2000-01-01", periods=39, freq="MS"), pd.Timestamp("2004-05-02")]
    density = quick(max_iter=1).fit(pd.DataFrame({"day": days * 3, "x": np.arange(120) + 0.5}))
    assert density.columns_["modelled as"][0] == "week and weekday"


@pytest.mark.parametrize(
    "days",
    [
        pd.date_range("2018-01-01", periods=48, freq="MS").repeat(12),
        pd.date_range("2018-03-01", "2021-12-31", 576).floor("D"),
    ],
)
def test_networks_learn_seasons_across_years(days, tmp_path):
    """A winter is like the others, though summers lie between them."""
    cold = np.cos(2 * np.pi * (days.day_of_year - 1) / 365.25)
    noise = np.random.default_rng(0).normal(size=len(days))
    table = pd.DataFrame({"day": days, "heating": np.round(50 + 30 * cold + 5 * noise, 1)})
    own = quick(max_iter=100).fit(table)
    assert own._schema.variables[0].season is not None
    drawn = own.sample(1000, random_state=0)
    of_months = drawn.groupby(drawn["day"].dt.month)["heating"]
    rest = (drawn["heating"] - of_months.transform("mean")).std()
    assert rest < 0.36 * drawn["heating"].std()  # of all rows: .23 and .27; without a season .43
    own.save(tmp_path / "own.skflows")
    loaded = skflows.load(tmp_path / "own.skflows")
    assert_array_equal(loaded.score_samples(table), own.score_samples(table))


@pytest.mark.parametrize(("n_years", "is_monthly"), [(0.5, False), (3, False), (3, True)])
def test_dates_after_the_fit_are_ones_of_its_last_year(n_years, is_monthly):
    """Or the last one, if there is no year; the samples have the dates as they are given."""
    rng = np.random.default_rng(0)
    days = pd.Timestamp("2020-01-01") + pd.to_timedelta(365 * n_years * rng.random(500), unit="D")
    days = days.to_period("M").start_time if is_monthly else days.floor("D")
    heat = 10 - 12 * np.cos(2 * np.pi * (days.day_of_year - 20) / 365) + rng.normal(size=500)
    density = quick(max_iter=60).fit(pd.DataFrame({"day": days, "heat": heat.round(1)}))
    later = pd.DataFrame({"day": pd.to_datetime(["2025-01-01", "2025-07-01", "2027-07-01"])})
    same = pd.DataFrame({"day": pd.to_datetime(["2022-01-01", "2022-07-01", "2022-07-01"])})
    if n_years < 1:
        same[:] = days.max()
    with pytest.warns(ColumnWarning, match="2025-01-01 .*the same time of the nearest year"):
        median = density.quantile("heat", later, 0.5)
    assert_allclose(median, density.quantile("heat", same, 0.5), atol=1.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drawn = density.sample(100, given=later, random_state=0)
        conditional = density.condition(later)
        joint = density.score_samples(later.assign(heat=median))
    assert (drawn["day"].to_numpy().reshape(3, 100) == later["day"].to_numpy()[:, None]).all()
    assert_allclose(drawn["heat"].to_numpy().reshape(3, 100).mean(axis=1), median, atol=2.5)
    heats = pd.DataFrame({"heat": median})
    scores = conditional.score_samples(heats)
    assert_allclose(scores, density.condition(same).score_samples(heats), atol=0.5)
    # The density of the date itself is small.
    assert (joint < density.score_samples(same.assign(heat=median)) - 1).all()


def test_dates_of_one_year_have_no_season():
    days = pd.date_range("2024-01-01", "2024-12-20")
    variables = view_of(pd.DataFrame({"day": days})).schema.variables
    assert [variable.season for variable in variables] == [None, None]


def test_dates_of_one_week():
    """The first cell of six weekdays is the last too."""
    days = pd.Series(pd.date_range("2024-01-03", "2024-01-10"), name="day").to_frame()
    own = quick(columns={"day": ("datetime", "2024-01-03", "2024-01-10")}, max_iter=1)
    own.fit(pd.concat([days] * 5))
    assert np.exp(own.score_samples(days)).sum() == pytest.approx(1, abs=1e-9)
    assert set(own.sample(200, random_state=0)["day"]) <= set(days["day"])


def test_lattices_that_leave_zero_out():
    """The first point above 0 is 0.05: 0 itself is none."""
    values = np.round(0.05 + 0.1 * np.arange(40).repeat(5), 2)
    own = quick(max_iter=1).fit(pd.DataFrame({"x": values}))
    assert own.columns_["reason"].tolist() == ["repeated multiples of 0.1"]
    assert np.isfinite(own.score_samples(pd.DataFrame({"x": [0.05, 0.15, 9.95]}))).all()
    assert np.isin(np.round(20 * own.sample(50, random_state=0)["x"]) % 2, 1).all()


def test_rare_categories(table):
    rare = table.copy()
    rare.loc[0, "sex"] = "unlisted"
    own = quick(handle_unknown="rare").fit(rare)
    assert own.levels("sex") == ["female", "male", "(rare)"]
    scores = own.score_samples(table[:5].assign(sex="never seen"))
    assert np.isfinite(scores).all()
    assert (scores < own.score_samples(table[:5].assign(sex="male"))).all()


def test_too_many_categories_are_pooled(one_class):
    """A file of a stranger fits without parameters, unless unseen categories are an error."""
    town = [f"town of {'abcdefghijklmnopqrstuvwxyz'[i % 26]}{'xyz'[i % 3]}{i}" for i in range(250)]
    town = np.array(town * 4 + town[:50] * 5)
    table = pd.DataFrame({"town": town, "x": np.arange(len(town)) % 7})
    message = r"'town' has 250 categories in 1250 rows: the rarest 50 count as one\."
    with pytest.warns(ColumnWarning, match=message):
        density = quick(max_iter=1).fit(table)
    assert len(density.levels("town")) == 201 and density.levels("town")[-1] == "(rare)"
    assert set(density.sample(300, random_state=0)["town"]) <= set(town)
    display = ConditionalDensityDisplay.from_estimator(density, table[100:101], column="town")
    (mark,) = display.axes_[0].lines
    assert display.grid[mark.get_xdata()[0]] == "(rare)"
    scores = density.marginal(["town"]).score_samples(table.drop_duplicates("town"))
    assert np.exp(scores).sum() == pytest.approx(1, abs=0.01)
    with pytest.raises(ValueError, match="'town' has 250 categories in 1250 rows: leave it"):
        quick(handle_unknown="error").fit(table)


@pytest.mark.filterwarnings("ignore::skflows.columns.checks.ColumnWarning")
@pytest.mark.parametrize(("n_rows", "n_kept"), [(5, 60), (10, 200)])
def test_few_rows_among_many_categories_are_pooled(n_rows, n_kept):
    """The most frequent of many categories alike are so by chance, and would take time."""
    n_villages = 4_600 // n_rows  # in 10,000 rows, so that fewer than 10 are rare
    town = np.repeat([f"town {k}" for k in range(60)], 90).tolist()
    town += np.repeat([f"village {k}" for k in range(n_villages)], n_rows).tolist()
    (word,) = schema_of(pd.DataFrame({"town": town}), handle_unknown="warn").variables
    assert len(word.levels) == n_kept + 1 and word.levels[-1] == "(rare)"


def test_a_message_says_that_all_categories_are_rare():
    table = pd.DataFrame({"town": [f"town {k % 70}" for k in range(100)]})
    message = "'town' has 70 categories in 100 rows: all are rare, and count as one"
    with pytest.warns(ColumnWarning, match=message):
        schema = schema_of(table, columns={"town": "categorical"}, handle_unknown="warn")
    assert schema.variables[0].levels == ["(rare)"]


def test_given_rare_categories_stay_as_they_are():
    table = pd.DataFrame({"kind": [*["a", "b"] * 20, "c", "d"], "x": np.arange(42) % 7})
    own = quick(handle_unknown="rare", max_iter=1).fit(table)
    for kind in ("c", "d", "never seen"):
        assert set(own.sample(5, given={"kind": kind}, random_state=0)["kind"]) == {kind}


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
    with (
        pytest.warns(ColumnWarning, match="'kind' has no known value in 2 rows"),
        pytest.raises(ValueError, match="or have no known value, which are left out"),
    ):
        quick()._share_columns(table.mask(weight[:, None] == 0), random_state, 1 - weight)


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
        assert sum_ == pytest.approx(1 - own._schema.variables[0].outside.share, abs=1e-6)
    grid = np.linspace(-8, 8, 8001)
    scores = own.condition({"n": 17}).score_samples(pd.DataFrame({"y": grid}))
    assert np.exp(scores).sum() * (grid[1] - grid[0]) == pytest.approx(1, abs=1e-3)


def test_columns_with_numbers_for_names():
    frame = pd.DataFrame(np.random.default_rng(0).normal([0, 100], size=(60, 2)))
    own = quick(max_iter=1).fit(frame)
    assert (own.score_samples(frame[[1, 0]]) == own.score_samples(frame)).all()


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
        view = view_of(X, columns=COLUMNS)
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
    cut = own._schema.variables[0].low
    assert np.isfinite(own.score_samples(pd.DataFrame({"hour": [cut, cut + 24]}))).all()
    x = np.linspace(8, 18, 9)
    for map_ in own._schema.variables[0].maps.values():
        assert map_.inverse(map_.forward(x)[0]) == pytest.approx(x, abs=1e-3)


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


def test_numbers_between_levels_look_like_numbers():
    table = pd.DataFrame({"n": [0, 1, 10] * 20})
    own = quick(max_iter=1).fit(table)
    features = view_of(pd.DataFrame({"n": [1, 2, 10]}), own._schema).features
    assert features[0, -1] < features[1, -1] < features[2, -1]


@pytest.mark.parametrize(
    ("numbers", "possible"),
    [
        (range(1955, 2010, 5), range(1955, 2010, 5)),
        ([0, 10, 20, 40, 50], range(0, 60, 10)),
        ([99, 1199, 5999], [99, 1199, 5999]),
        ([2, 4, 6], range(2, 7)),
        (range(0, 25 * 10**13, 10**13), range(0, 25 * 10**13, 10**13)),  # odds of 1e312
    ],
)
def test_numbers_between_listed_ones_have_their_step(numbers, possible):
    """Unless a few numbers may have it by chance."""
    schema = schema_of(pd.DataFrame({"x": np.tile([*numbers], 100)}))
    assert schema.columns[0].possible == [*possible]


def test_few_multiples_of_a_step_are_drawn_as_such(one_class):
    """Powers of cars are multiples of 5; a few numbers may have a step in common by chance."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "power": 5 * rng.integers(9, 30, 300),
            "price": rng.choice([20, 40, 80, 90], 300) * 10,
            "even": [2, 4, 8] * 100,
        }
    )
    density = TableDensity(max_iter=1, random_state=0).fit(table)
    kinds = density.columns_.set_index("column")["kind"]
    assert kinds["power"] == "rounded" and kinds["even"] == "count"
    drawn = density.sample(500, random_state=0)
    assert (drawn["power"] % 5 == 0).all() and len(set(drawn["power"])) > 15


def test_a_date_far_from_all_others_is_named(one_class):
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(300), unit="D")
    table = pd.DataFrame({"day": days, "x": np.arange(300) % 50 / 7})
    TableDensity(max_iter=1).fit(table)  # no warning
    table.loc[[5, 7], "day"] = pd.Timestamp("1924-02-05")
    far = "'day' has the date 1924-02-05 in 2 of 300 rows, far from all others, 2024-01-01 to 2024-"
    with pytest.warns(ColumnWarning, match=far):
        TableDensity(max_iter=1).fit(table)
    TableDensity(max_iter=1, columns={"day": "datetime"}).fit(table)  # no warning
    y = table["x"].to_numpy() % 7
    for fit in (
        lambda: DensityOutlierDetector(TableDensity(max_iter=1)).fit(table),
        lambda: ConditionalDensity(NSFDensity(max_iter=1)).fit(table, y),
    ):
        with pytest.warns(ColumnWarning, match=far):
            fit()
    # Dates that become rarer with their age have no gap.
    ages = np.random.default_rng(0).lognormal(4, 1.5, 1_000).round()
    old = pd.Timestamp("2024-12-31") - pd.to_timedelta(ages, unit="D")
    TableDensity(max_iter=1).fit(pd.DataFrame({"day": old, "x": ages % 7}))  # no warning


def test_numbers_of_rows_give_a_warning():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"employee": np.arange(5001, 5201), "age": rng.integers(20, 60, 200)})
    density = TableDensity(max_iter=1, cv=2, n_orders=1)
    with pytest.warns(ColumnWarning, match="seem to identify rows: 'employee'"):
        density.fit(table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        density.set_params(columns={"employee": "identifier"}).fit(table)
        density.set_params(columns={"employee": "count"}).fit(table)
