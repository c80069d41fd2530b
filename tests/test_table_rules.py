"""Tests of the rules that a table's density finds and keeps."""

import doctest
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from _tables import quick, schema_of, two_components  # noqa: F401
from pandas.testing import assert_frame_equal
from scipy.special import logsumexp

from skflows import DensityClassifier, DensityOutlierDetector, TableDensity, load
from skflows.columns.checks import ColumnWarning
from skflows.columns.dates import months_later
from skflows.table import _formula_search, _rule_search
from skflows.table._formulas import RoundedSum
from skflows.table._rule_kinds import Order, Target
from skflows.table._rules import Rules, nearest_numbers

SEASONS = np.array(["winter", "spring", "summer", "autumn"])


def season_of(month):
    return SEASONS[(np.asarray(month) % 12) // 3]


def orders(n=500, seed=0):
    """Orders: the postcode tells the city, and the month tells the season in 98 % of the rows."""
    rng = np.random.default_rng(seed)
    code, month = rng.integers(0, 30, n), rng.integers(1, 13, n)
    season = season_of(month)
    odd = rng.permutation(n)[: n // 50]
    season[odd] = season_of(month[odd] + rng.choice([3, 6, 9], len(odd)))
    return pd.DataFrame(
        {
            "city": [f"city {k // 2}" for k in code],
            "postcode": [f"{10_000 + 97 * k}" for k in code],
            "month": month,
            "season": season,
            "quantity": 1 + rng.poisson(3, n),
        }
    )


@pytest.fixture(scope="module")
def table():
    return orders()


@pytest.fixture(scope="module")
def density(table):
    return quick().fit(table)


def test_functions_of_a_column_are_found_with_their_exceptions(density):
    found = density.rules_.set_index("rule")
    assert found.index.tolist() == ["city follows from postcode", "season follows from month"]
    assert found["exceptions"].tolist() == pytest.approx([0, 0.02])
    assert (found["kind"] == "function").all() and (found["rows"] == 500).all()


def test_samples_keep_functions_as_often_as_the_rows_do(density, table):
    drawn = density.sample(3_000, random_state=0)
    pairs = set(zip(table["city"], table["postcode"], strict=True))
    assert set(zip(drawn["city"], drawn["postcode"], strict=True)) <= pairs
    share = (drawn["season"] == season_of(drawn["month"])).mean()
    assert 0.97 < share < 0.99


@pytest.mark.parametrize("handle_unknown", ["rare", "warn"])
@pytest.mark.filterwarnings("ignore:X has", "ignore:given has")
def test_categories_that_no_row_has_tell_nothing(handle_unknown, table):
    density = quick(handle_unknown=handle_unknown).fit(table)
    assert "city follows from postcode" in density.rules_["rule"].tolist()
    given = {"postcode": "99999"}
    levels = density.predict_proba("city", given, as_frame=True).iloc[0]
    assert levels.max() < 0.2
    drawn = density.sample(300, given=given, random_state=0)
    assert drawn["city"].nunique() > 10


def test_probabilities_of_all_rows_sum_to_1():
    rng = np.random.default_rng(0)
    first = rng.choice(["a", "b", "c", "d"], 500)
    second = np.where(np.isin(first, ["a", "b"]), "left", "right")
    second[:4] = np.where(second[:4] == "left", "right", "left")
    columns = {"first": first, "second": second, "third": rng.choice(["x", "y"], 500)}
    density = quick(handle_unknown="error").fit(pd.DataFrame(columns))
    assert len(density.rules_) == 1
    rows = product("abcd", ["left", "right"], "xy")
    every = pd.DataFrame(rows, columns=["first", "second", "third"])
    assert logsumexp(density.score_samples(every)) == pytest.approx(0, abs=1e-8)
    # The same holds given a column, and of any column given the others.
    given = density.condition({"third": "x"})
    half = every.loc[every["third"] == "x", ["first", "second"]]
    assert logsumexp(given.score_samples(half)) == pytest.approx(0, abs=1e-8)
    for name in every:
        others = every[every[name] == every[name][0]].drop(columns=name)
        totals = logsumexp(
            [
                density.condition(others).score_samples(others.assign(**{name: value}))
                for value in every[name].unique()
            ],
            axis=0,
        )
        assert totals == pytest.approx(0, abs=1e-8)


def test_scores_of_exceptions_are_finite_and_low(density, table):
    usual = density.score_samples(table)
    wrong = table.assign(city=np.roll(table["city"], 1))
    is_wrong = (wrong["city"] != table["city"]).to_numpy()
    lower = usual[is_wrong] - density.score_samples(wrong)[is_wrong]
    assert np.isfinite(lower).all() and np.median(lower) > np.log(len(table))
    assert np.isfinite(density.held_out_scores_).all()


def test_unknown_targets_follow_their_rule(density, table):
    unknown = table[["postcode", "month", "quantity"]].assign(city=None, season=None)
    filled = density.impute(unknown[table.columns.tolist()])
    assert (filled["city"] == table["city"]).all()
    assert (filled["season"] == season_of(table["month"])).all()
    proba = density.predict_proba("season", unknown[["month"]])
    best = np.array(density.levels("season"))[proba.argmax(axis=1)]
    assert (best == season_of(table["month"])).all()
    assert proba.sum(axis=1) == pytest.approx(1)
    eps = 1 - proba.max(axis=1)
    assert eps == pytest.approx(np.full(len(table), 11 / 502))
    drawn = density.condition({"postcode": "10097"}).sample(50, random_state=0)
    assert set(drawn["city"]) == {"city 0"}


def test_determinants_of_a_given_target_agree_with_it(density, table):
    drawn = density.sample(300, random_state=0, given={"city": "city 3"})
    postcodes = set(table.loc[table["city"] == "city 3", "postcode"])
    assert len(postcodes) == 2 and set(drawn["postcode"]) == postcodes
    proba = density.predict_proba("postcode", {"city": "city 3"})[0]
    assert proba[np.isin(density.levels("postcode"), [*postcodes])].sum() > 0.95
    filled = density.impute(table.assign(postcode=None))
    pairs = set(zip(table["city"], table["postcode"], strict=True))
    assert set(zip(filled["city"], filled["postcode"], strict=True)) <= pairs


def test_rules_are_optional_and_mutual_functions_end():
    rng = np.random.default_rng(0)
    code = rng.integers(0, 12, 300)
    table = pd.DataFrame({"code": code, "name": [f"n{k}" for k in code], "group": code % 4})
    table["group"] = table["group"].map({0: "p", 1: "q", 2: "r", 3: "s"})
    assert quick(rules=False).fit(table).rules_.empty
    density = quick().fit(table)
    assert density.rules_["rule"].tolist() == ["name follows from code", "group follows from code"]
    drawn = density.sample(500, random_state=0)
    assert (drawn["name"] == [f"n{k}" for k in drawn["code"]]).all()


def test_columns_that_nearly_determine_another_by_their_size_are_no_rule():
    """Exceptions close to a threshold are not random: they tell of classes that overlap."""
    rng = np.random.default_rng(0)
    kind = rng.choice(["a", "b"], 400)
    size = np.round(rng.normal(np.where(kind == "a", 0.0, 4.0)), 1)
    table = pd.DataFrame({"kind": kind, "size": size, "other": rng.integers(0, 5, 400)})
    assert quick().fit(table).rules_.empty


def test_the_example_of_the_guide_runs():
    guide = Path(__file__).parents[1] / "docs" / "user_guide" / "tables.rst"
    result = doctest.testfile(str(guide), module_relative=False)
    assert result.attempted and not result.failed


def test_rows_of_little_weight_do_not_hide_rules():
    rng = np.random.default_rng(1)
    noise = pd.DataFrame(
        {
            "city": rng.choice([f"city {k}" for k in range(15)], 60),
            "postcode": rng.choice([f"{10_000 + 97 * k}" for k in range(30)], 60),
            "done": rng.integers(0, 9, 60),
            "planned": rng.integers(0, 9, 60),
        }
    )
    table = pd.concat([orders(300), dated(300)], axis=1)[noise.columns.tolist()]
    both = pd.concat([table, noise], ignore_index=True)
    weight = np.where(np.arange(360) < 300, 1.0, 1e-9)
    alone, density = quick().fit(table), quick().fit(both, sample_weight=weight)
    expected = ["city follows from postcode", "done <= planned"]
    assert alone.rules_["rule"].tolist() == density.rules_["rule"].tolist() == expected
    assert density.rules_["exceptions"].tolist() == pytest.approx([0, 0], abs=1e-6)
    for one, other in zip(alone._schema.rules, density._schema.rules, strict=True):
        assert other.counts.log_broken == pytest.approx(one.counts.log_broken, abs=0.2)
    drawn = density.sample(300, random_state=0)
    pairs = set(zip(table["city"], table["postcode"], strict=True))
    assert set(zip(drawn["city"], drawn["postcode"], strict=True)) <= pairs


def test_wrappers_share_rules_with_the_densities_of_small_classes():
    """A rule that only a large class shows would make rows of the others improbable."""
    table = orders(300)
    y = np.where(np.arange(300) < 270, "many", "few")
    detector = DensityOutlierDetector(quick(), calibration=None)
    classifier = DensityClassifier(detector, random_state=0).fit(table, y)
    densities = [one.models_[0].density.estimator for one in classifier.estimators_]
    names = [density.rules_["rule"].tolist() for density in densities]
    assert names[0] == names[1] and "city follows from postcode" in names[0]


def dated(n=400, n_exceptions=0):
    """Dates and counts of two events; the second date is the later one in nearly all rows."""
    rng = np.random.default_rng(0)
    start = rng.integers(0, 200, n)
    end = start + rng.integers(0, 30, n)
    end[:n_exceptions] = start[:n_exceptions] - rng.integers(1, 20, n_exceptions)
    done = rng.integers(0, 7, n)
    return pd.DataFrame(
        {
            "start": pd.Timestamp("2024-01-01") + pd.to_timedelta(start, unit="D"),
            "end": pd.Timestamp("2024-01-01") + pd.to_timedelta(end, unit="D"),
            "done": done,
            "planned": done + rng.integers(0, 3, n),
        }
    )


@pytest.mark.parametrize("n_exceptions", [0, 8])
def test_samples_keep_orders_as_often_as_the_rows_do(n_exceptions):
    table = dated(n_exceptions=n_exceptions)
    density = quick().fit(table)
    found = density.rules_.set_index("rule")
    assert sorted(found.index) == ["done <= planned", "end = start + a span", "start <= end"]
    assert found.loc["start <= end", "exceptions"] == pytest.approx(n_exceptions / 400)
    drawn = density.sample(2_000, random_state=0)
    assert (drawn["done"] <= drawn["planned"]).all()
    assert (drawn["start"] > drawn["end"]).mean() == pytest.approx(n_exceptions / 400, abs=0.01)
    given = density.sample(200, random_state=0, given={"end": "2024-02-01"})
    assert (given["start"] <= given["end"]).mean() > 0.85
    unordered = quick(rules=False).fit(table)
    assert density.stacked_score_ > unordered.stacked_score_
    assert density.held_out_scores_.mean() == pytest.approx(density.stacked_score_)


def test_centres_of_missing_values_keep_orders():
    """The mean of one column may lie beyond a known value of the other."""
    table = dated(300)
    density = quick(max_iter=2).fit(table)
    assert list(density.rules_["kind"]) == ["span", "order", "order"]
    masked = table.mask(np.random.default_rng(1).uniform(size=table.shape) < 0.4)
    for method in ("mean", "median", "mode"):
        filled = density.impute(masked, method)
        assert (filled["start"] <= filled["end"]).all(), method
        assert (filled["done"] <= filled["planned"]).all(), method
        pd.testing.assert_frame_equal(filled.where(masked.notna()), masked, check_dtype=False)


@pytest.mark.parametrize(
    "kinds, row, expected",
    [
        (("count", ("rounded", 0)), (20, 17.5), (17, 17.5)),  # not (17.5, 20)
        (("count", "count"), (20, 17), (17, 20)),
        (("ordinal", "ordinal"), (10, 4), (4, 10)),
        (("ordinal", "count"), (10, 9), (4, 9)),
        (("count", "rounded"), (20, 17.5), (17, 17.5)),  # the same steps, of other values
    ],
)
def test_unknown_values_that_break_an_order_are_exchanged_if_possible(kinds, row, expected):
    levels = np.tile([1, 2, 4, 10], 25)
    high = {("rounded", 0): levels + levels % 3 / 2, "rounded": levels + 0.5}
    table = pd.DataFrame({"low": levels, "high": high.get(kinds[1], levels)})
    schema = schema_of(table, columns=dict(zip(table, kinds, strict=True)))
    rows = schema.encoding.encode(table)
    rules = Rules([], [Order(0, 1, rows, np.ones(100))])
    values = schema.split(np.array([row], dtype=float))
    rules.fill(schema, values, np.ones(values.shape, dtype=bool))
    assert schema.joined(values).tolist() == [list(expected)]


@pytest.mark.parametrize("known, expected", [("high", [2, 4]), ("low", [4, 5])])
def test_numbers_moved_to_keep_an_order_stay_levels(known, expected):
    """An unknown number beside 4 is one of the levels 1, 2, 5 and 10."""
    table = pd.DataFrame({"low": np.arange(100) % 10, "high": np.tile([1, 2, 5, 10], 25)})
    if known == "high":
        table = table[["high", "low"]].set_axis(["low", "high"], axis=1)
    levelled = "low" if known == "high" else "high"
    schema = schema_of(table, columns={levelled: "ordinal"}, random_state=np.random.RandomState(0))
    rules = Rules([], [Order(0, 1, schema.encoding.encode(table), np.ones(100))])
    values = schema.split(np.array([[10.0, 4.0] if known == "high" else [4.0, 1.0]]))
    is_unknown = np.zeros(values.shape, dtype=bool)
    is_unknown[:, schema.of_column[known == "low"]] = True
    rules.fill(schema, values, is_unknown)
    assert schema.joined(values).tolist() == [expected]


def test_probabilities_of_rows_that_keep_or_break_an_order_sum_to_1():
    rng = np.random.default_rng(0)
    low = rng.integers(0, 4, 500)
    table = pd.DataFrame({"low": low, "high": low + rng.integers(0, 3, 500)})
    density = quick().fit(table)
    assert density.rules_["rule"].tolist() == ["low <= high"]
    every = pd.DataFrame(product(range(4), range(6)), columns=["low", "high"])
    scores = density.score_samples(every)
    assert logsumexp(scores) == pytest.approx(0, abs=0.02)
    is_broken = (every["low"] > every["high"]).to_numpy()
    assert logsumexp(scores[is_broken]) == pytest.approx(np.log(1 / 502), abs=0.5)


def test_numbers_that_are_mostly_in_an_order_by_chance_are_no_rule():
    rng = np.random.default_rng(0)
    size = rng.normal(0, 30, 500)
    weight = np.round(100 + size + rng.normal(0, 8, 500), 1)
    length = np.round(126 + size + rng.normal(0, 8, 500), 1)
    table = pd.DataFrame({"weight": weight, "length": length})
    assert 0 < (weight > length).sum() < 7
    assert quick().fit(table).rules_.empty
    # Nearly all differences of these are at least 0.
    paid = np.round(length * rng.uniform(size=500), 1)
    paid[:2] = length[:2] * 1.5
    found = quick().fit(pd.DataFrame({"paid": paid, "price": length})).rules_
    assert found["rule"].tolist() == ["paid <= price"]


def test_missing_values_do_not_count_as_rows_that_keep_an_order():
    rng = np.random.default_rng(0)
    low = rng.integers(0, 4, 500)
    table = pd.DataFrame({"low": low, "high": low + rng.integers(0, 3, 500)})
    table["high"] = table["high"].mask(rng.uniform(size=500) < 0.7)
    density = quick(missing="model").fit(table)
    assert density.rules_["rule"].tolist() == ["low <= high"]
    every = pd.DataFrame(product(range(4), range(6)), columns=["low", "high"])
    scores = density.score_samples(every)
    is_broken = (every["low"] > every["high"]).to_numpy()
    n_known = table["high"].count()
    assert logsumexp(scores) == pytest.approx(np.log(n_known / 500), abs=0.1)
    share = logsumexp(scores[is_broken]) - logsumexp(scores)
    assert share == pytest.approx(np.log(1 / (n_known + 2)), abs=0.4)


def amounts(n=300, seed=0):
    """Amounts of money that are sums and multiples of others, rounded to cents."""
    rng = np.random.default_rng(seed)
    net, tax, rebate = (np.round(rng.gamma(2, size, n), 2) for size in (50, 8, 5))
    total = np.round(net + tax - rebate, 2)
    return pd.DataFrame(
        {
            "net": net,
            "tax": tax,
            "rebate": rebate,
            "total": total,
            "dollars": np.round(total / 0.85, 2),
            "parcels": 1 + rng.poisson(1, n),
        }
    )


def test_sums_and_multiples_are_found_and_kept():
    table = amounts()
    table.loc[table.index[::10], "tax"] = np.nan
    density = quick().fit(table)
    assert density.rules_["rule"].tolist() == [
        "total = net + tax - rebate",
        "dollars = total / 0.85",
    ]
    assert (density.rules_["kind"] == "linear").all()
    drawn = density.sample(500, complete=True, random_state=0)
    total = np.round(drawn["net"] + drawn["tax"] - drawn["rebate"], 2)
    assert np.allclose(drawn["total"], total, atol=1e-9)
    assert np.allclose(drawn["dollars"], np.round(drawn["total"] / 0.85, 2), atol=0.0051)
    given = density.sample(100, complete=True, random_state=0, given={"total": 100.0})
    assert (given["total"] == 100).all() and given["net"].nunique() > 50
    assert np.allclose(given["net"] + given["tax"] - given["rebate"], 100)
    filled = density.impute(table)
    assert np.allclose(filled["tax"], amounts()["tax"])
    told = density.predict_distribution("total", filled[["net", "tax", "rebate"]])
    assert np.allclose(told.median(), amounts()["total"])
    assert np.allclose(told.mean(), amounts()["total"], atol=1)
    assert np.allclose(
        told.cdf(amounts()["total"] + 0.004) - told.cdf(amounts()["total"] - 0.004), 1, atol=0.01
    )
    without_total = density.impute(amounts().assign(total=np.nan, dollars=np.nan))
    assert np.allclose(without_total[["total", "dollars"]], amounts()[["total", "dollars"]])


@pytest.mark.parametrize("method", ["mean", "median", "draw"])
def test_imputed_terms_have_the_known_sum(method):
    table = amounts()[["net", "tax", "rebate", "total"]]
    density = quick().fit(table)
    gaps = table.astype(float)
    gaps.loc[::3, ["net", "rebate"]] = np.nan
    gaps.loc[1::3, ["net", "tax", "rebate"]] = np.nan
    gaps.loc[2::3, ["net", "total"]] = np.nan
    filled = density.impute(gaps, method, random_state=0)
    known = gaps.notna()
    assert np.array_equal(filled.to_numpy()[known], gaps.to_numpy()[known])
    total = filled["net"] + filled["tax"] - filled["rebate"]
    assert np.allclose(filled["total"], total, atol=1e-9)


@pytest.mark.parametrize("method", ["mean", "mode"])
def test_a_known_sum_comes_before_what_a_category_tells_of_its_terms(method):
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 5, 400)
    fee = np.array([10.0, 25.0, 40.0, 60.0, 95.0])[kind]
    hours = np.round(rng.gamma(4, 20, 400), 1)
    table = pd.DataFrame({"kind": kind.astype(str), "fee": fee, "hours": hours})
    table["total"] = table["fee"] + table["hours"]
    density = quick().fit(table)
    assert sorted(density.rules_["rule"])[-1].startswith("total = ")
    filled = density.impute(table.assign(kind=None, fee=np.nan, hours=np.nan), method)
    holds = np.abs(filled["total"] - filled["fee"] - filled["hours"]) < 1e-9
    assert holds.mean() > 0.98  # where the likeliest fee is beyond the total, no hours fit


@pytest.mark.parametrize("method", ["mean", "median"])
def test_sums_that_share_a_term_and_what_follows_from_terms_agree(method):
    rng = np.random.default_rng(0)
    a, b, c = (rng.poisson(mean, 400) for mean in (25, 65, 9))
    table = pd.DataFrame({"a": a, "b": b, "c": c, "ab": a + b, "ac": a + c, "twice": 2 * c})
    density = quick().fit(table)
    filled = density.impute(table.astype(float).assign(a=np.nan, b=np.nan, c=np.nan), method)
    assert (filled["a"] + filled["b"] == filled["ab"]).all()
    assert (filled["a"] + filled["c"] == filled["ac"]).all()
    assert (filled[["a", "b", "c"]] % 1 == 0).all(axis=None)  # as their columns hold integers


def taxed(n=400):
    """Return net amounts, taxes by a rate that is sometimes 0, postage, and their sums."""
    rng = np.random.default_rng(0)
    rate, net = rng.choice([0, 0.07, 0.19], n), np.round(rng.lognormal(5, 0.9, n), 2)
    tax, postage = np.round(net * rate, 2), np.round(rng.uniform(0.01, 4, n), 2)
    gross = np.round(net + tax + postage, 2)
    return pd.DataFrame({"rate": rate, "net": net, "tax": tax, "postage": postage, "gross": gross})


@pytest.mark.parametrize("method", ["mean", "median", "draw"])
def test_a_sum_and_a_rate_tell_two_terms_together(method):
    table = taxed()
    density = quick().fit(table)
    assert density.rules_["rule"].tolist() == ["tax = rate * net", "gross = net + tax + postage"]
    filled = density.impute(table.assign(net=np.nan, tax=np.nan), method, random_state=0)
    assert np.allclose(filled, table, atol=1e-9)
    known = table[["rate", "postage", "gross"]]
    told = density.predict_distribution("net", known)
    assert np.allclose(told.median(), table["net"], atol=1e-6)
    impossible = known.assign(rate=0.19, postage=1.0, gross=60.47)  # 49.97 makes it 60.46
    assert np.isfinite(density.predict_distribution("net", impossible).median()).all()


def charged(n=400):
    """Return stays: nights at a rate, other costs, their sum, and a discount of it."""
    rng = np.random.default_rng(0)
    nights, rate = 1 + rng.poisson(3, n), rng.choice([290, 355, 410], n)
    drugs, lab = (np.round(rng.gamma(2, size, n), 2) for size in (60, 20))
    total, discount = np.round(nights * rate + drugs + lab, 2), rng.choice([0, 5, 10, 25], n)
    return pd.DataFrame(
        {
            "nights": nights,
            "rate": rate,
            "board": nights * rate,
            "drugs": drugs,
            "lab": lab,
            "total": total,
            "discount": discount,
            "to_pay": np.round(total * (1 - discount / 100), 2),
        }
    )


def breaks_of_charges(table):
    """Return in how many rows each rule of `charged` is broken."""
    errors = {
        "board": table["board"] - table["nights"] * table["rate"],
        "total": table["total"] - table[["board", "drugs", "lab"]].sum(axis=1),
        "to_pay": table["to_pay"] - table["total"] * (1 - table["discount"] / 100),
    }
    return {name: int((error.abs() > 0.0051).sum()) for name, error in errors.items()}


@pytest.fixture(scope="module")
def density_of_charges():
    return quick().fit(charged())


@pytest.mark.parametrize("given", [{"total": 2000.0}, {"to_pay": 1500.0}, {"to_pay": 855.0}])
def test_samples_beside_a_total_keep_the_rules_of_its_terms(density_of_charges, given):
    drawn = density_of_charges.sample(60, random_state=0, given=given)
    assert breaks_of_charges(drawn) == {"board": 0, "total": 0, "to_pay": 0}
    assert drawn["nights"].nunique() > 1 and drawn["discount"].nunique() > 1


@pytest.mark.parametrize(
    "unknown",
    [["total", "discount"], ["board", "lab"], ["drugs", "lab"], ["lab", "total", "discount"]],
    ids="-".join,
)
@pytest.mark.parametrize("method", ["mean", "median", "draw"])
def test_imputed_values_keep_rules_that_share_columns(density_of_charges, method, unknown):
    table = charged()[:60].astype(float)
    filled = density_of_charges.impute(
        table.assign(**dict.fromkeys(unknown, np.nan)), method, random_state=0
    )
    assert breaks_of_charges(filled) == {"board": 0, "total": 0, "to_pay": 0}
    if len(unknown) == 2 and "drugs" not in unknown:  # the known values tell them
        assert np.allclose(filled, table, atol=1e-9)


@pytest.mark.parametrize("unknown", [["price", "net"], ["quantity", "price"]], ids="-".join)
@pytest.mark.parametrize("method", ["median", "draw"])
def test_a_product_and_a_rounded_tax_leave_possible_prices(method, unknown):
    rng = np.random.default_rng(0)
    quantity, price = 1 + rng.poisson(2, 400), np.round(rng.lognormal(4, 0.5, 400), 2)
    net, rate = np.round(quantity * price, 2), rng.choice([0.07, 0.19], 400)
    table = pd.DataFrame({"quantity": quantity, "price": price, "net": net, "rate": rate})
    table["tax"] = np.round(net * rate, 2)
    density = quick().fit(table)
    some = table[:60].astype(float).assign(**dict.fromkeys(unknown, np.nan))
    filled = density.impute(some, method, random_state=0)
    assert np.allclose(filled["net"], filled["quantity"] * filled["price"], atol=0.0051)
    assert np.allclose(filled["tax"], filled["net"] * filled["rate"], atol=0.0051)


@pytest.mark.parametrize("method", ["mean", "median", "draw"])
def test_what_known_values_tell_exactly_comes_before_what_they_tell_roughly(method):
    table = taxed().drop(columns="postage")
    table["gross"] = np.round(table["net"] + table["tax"], 2)
    table["commission"] = np.round(0.02 * table["net"], 2)
    density = quick().fit(table)
    filled = density.impute(table.assign(net=np.nan, tax=np.nan), method, random_state=0)
    assert np.allclose(filled, table, atol=1e-9)


@pytest.mark.parametrize("method", ["median", "mode"])
def test_terms_of_a_known_sum_are_listed_values(method):
    rng = np.random.default_rng(0)
    a, b = rng.choice([2, 5, 10, 20, 50], 400), rng.choice([3, 7, 15, 30], 400)
    c = rng.poisson(40, 400)
    table = pd.DataFrame({"a": a, "b": b, "c": c, "total": a + b + c})
    density = quick().fit(table)
    filled = density.impute(table.astype(float).assign(a=np.nan, b=np.nan), method)
    assert filled["a"].isin(a).all() and filled["b"].isin(b).all()
    assert (filled[["a", "b", "c"]].sum(axis=1) == table["total"]).all()


def test_two_terms_may_be_missing_together():
    table = taxed(390)
    is_missing = (table["gross"] > 150) & (np.arange(len(table)) % 2 == 0)
    table.loc[is_missing, ["net", "tax"]] = np.nan
    density = quick(missing="model").fit(table)
    known = table[["rate", "postage", "gross"]]
    drawn = density.condition(known).sample(random_state=0)
    share = drawn["net"].isna()[(table["gross"] > 150).to_numpy()].mean()
    assert 0.3 < share < 0.7


def test_two_terms_that_several_pairs_fit_are_not_told():
    rng = np.random.default_rng(0)
    q, k = rng.integers(-40, 40, 400), rng.choice([0, 3, 5, 7], 400)
    table = pd.DataFrame({"q": q, "k": k, "p": q + k, "t": q * (q + k)})
    density = quick().fit(table)
    assert density.rules_["rule"].tolist() == ["p = q + k", "t = q * p"]
    told = density.predict_distribution("q", pd.DataFrame({"k": [3], "t": [4]}))
    probability = told.cdf([[1], [-4]]) - told.cdf([[0], [-5]])
    assert (probability > 0.01).all()


def test_terms_of_a_known_sum_are_told_by_all_queries():
    table = amounts()[["net", "tax", "rebate", "total"]]
    density = quick().fit(table)
    known = table.drop(columns="net")
    told = density.predict_distribution("net", known)
    assert np.allclose(told.median(), table["net"], atol=1e-6)
    assert np.allclose(density.quantile("net", known, [0.1, 0.9]), table[["net"]], atol=1e-6)
    log_holds = np.log(1 - 1 / 302) - np.log(0.01)  # per cent
    assert np.allclose(told.logpdf(table["net"]), log_holds)
    assert np.allclose(density.condition(known).score_samples(table[["net"]]), log_holds)
    wrong = density.condition(known).score_samples(table[["net"]] + 1)
    assert np.isfinite(wrong).all() and (wrong < log_holds - 5).all()


def test_sums_of_multiples_are_found_and_kept():
    rng = np.random.default_rng(0)
    won, drawn, goals = rng.integers(0, 90, (3, 200))
    table = pd.DataFrame({"won": won, "drawn": drawn, "points": 3 * won + drawn, "goals": goals})
    density = quick().fit(table)
    assert density.rules_["rule"].tolist() == ["points = 3 * won + drawn"]
    sample = density.sample(100, random_state=0)
    assert (sample["points"] == 3 * sample["won"] + sample["drawn"]).all()
    filled = density.impute(table.assign(won=np.nan))
    assert (filled["won"] == won).all()
    match = r"given breaks the rule 'points = 3 \* won \+ drawn'\. All 200 rows"
    with pytest.warns(ColumnWarning, match=match):
        density.sample(2, given={"won": 2, "drawn": 1, "points": 50}, random_state=0)


def test_sums_whose_columns_were_rounded_on_their_own_are_found_and_kept():
    rng = np.random.default_rng(0)
    rent, food = rng.gamma(3, 20, 300), rng.gamma(2, 30, 300)
    table = pd.DataFrame({"rent": rent, "food": food, "all": rent + food}).round(1)
    density = quick().fit(table)
    assert density.rules_["rule"].tolist() == ["all = rent + food +/- 0.1"]
    terms = ["rent", "food"]
    for rows in (table, density.sample(300, random_state=0)):
        steps = ((rows["all"] - rows[terms].sum(axis=1)) / 0.1).round(6)
        assert steps.abs().max() == 1
        assert 0.65 < (steps == 0).mean() < 0.85
    assert np.allclose(density.impute(table[terms].assign(all=np.nan)), table, atol=0.11)
    # Given the terms, the probabilities of all totals sum to 1, and the rule holds with the
    # probability that 300 rows without an exception give it.
    every = pd.DataFrame({"all": np.arange(1, 4_000) / 10})
    given = pd.DataFrame([table.loc[0, terms]] * len(every)).reset_index(drop=True)
    scores = density.condition(given).score_samples(every) + np.log(0.1)
    is_kept = (every["all"] - given.sum(axis=1)).abs() < 0.11
    assert logsumexp(scores[is_kept]) == pytest.approx(np.log(301 / 302), abs=1e-6)
    assert logsumexp(scores[~is_kept]) == pytest.approx(np.log(1 / 302), abs=1e-3)
    assert np.isfinite(scores).all()
    told = density.predict_distribution("all", table[terms][:2])
    ends = table[terms].sum(axis=1).to_numpy()[:2] + 0.1 * np.arange(-1.5, 2)[:, None]
    drawn = density.sample(2_000, given=table[terms][:2], random_state=0)["all"]
    drawn = drawn.to_numpy().reshape(2, -1)
    assert told.cdf(ends) == pytest.approx((drawn <= ends[..., None]).mean(axis=2), abs=0.03)
    assert told.cdf(ends)[[0, -1]] == pytest.approx(np.array([[0, 0], [1, 1]]), abs=5e-3)
    assert told.std().max() < 5  # a term has a deviation of 35


def test_levels_may_be_a_step_off_a_sum_that_was_rounded_apart():
    rows = np.array([[a, b, a + b + c] for a in (0, 1, 2) for b in (0, 1) for c in (-1, 0, 0, 1)])
    rows = np.tile(rows.astype(float), (4, 1))
    schema, weight = schema_of(rows), np.ones(len(rows))
    target, variable = Target.of(schema, 2), schema.variables[2]
    rule = RoundedSum((0, 1), target, (1.0, 1.0), 0.0, variable, 0.0, rows, weight)
    assert rule.tells(schema, 2) and not rule.tells(schema, 1)
    asked = np.array([[1.0, 1.0, np.nan], [1.0, np.nan, np.nan]])
    levels = np.full((2, variable.n_levels), 1 / variable.n_levels)
    of_levels = rule.of_levels(schema, asked, 2, levels)
    holds = np.exp(rule.counts.log_holds)
    place = [variable.levels.index(each) for each in (1, 2, 3)]
    assert of_levels[0, place] == pytest.approx(holds * rule.shares)
    assert of_levels.sum(axis=1) == pytest.approx(1)
    np.testing.assert_array_equal(of_levels[1], levels[1])


def test_sums_of_multiples_have_factors_of_few_digits():
    rng = np.random.default_rng(0)
    rows = rng.gamma(3, 50, size=(300, 5)).round(2)
    rows[:, 3] = (1.19 * rows[:, 0] + 0.5 * rows[:, 1] - 4.9).round(2)
    rows[rng.permutation(300)[:6], 3] += 20  # exceptions
    rows[:, 4] = (np.pi * rows[:, 0] + np.e * rows[:, 2]).round(2)
    sums = _formula_search.multiples_of(rows, [*range(5)], dict.fromkeys(range(5), 0.01))
    found = {determinants: (*factors, constant) for determinants, _, factors, constant in sums}
    assert found.pop((0, 1)) == pytest.approx((1.19, 0.5, -4.9), abs=0.006)
    assert not any(4 in determinants for determinants in found)


def bills(n=400):
    """Amounts of orders, of which a few are unknown."""
    rng = np.random.default_rng(0)
    price, quantity = np.round(rng.gamma(2, 20, n) + 1, 2), rng.integers(0, 6, n)
    rate = rng.choice([7, 19], n)
    amount = np.round(price * quantity, 2)
    tax = np.round(amount * rate / 100 + 1e-9, 2)
    return pd.DataFrame(
        {"price": price, "quantity": quantity, "amount": amount, "rate": rate, "tax": tax}
    )


def test_sums_of_three_are_found_among_24_columns():
    rows = np.random.default_rng(0).integers(0, 1000, size=(100, 24)).astype(float)
    rows[:, 23] = rows[:, 2] + rows[:, 5] + rows[:, 11]
    found = [*_formula_search.sums_of(rows, [*range(24)], dict.fromkeys(range(24), 1.0))]
    assert ((2, 5, 11), 23, (1.0, 1.0, 1.0), 0.0) in found


def test_sums_of_many_columns_are_found_and_kept():
    """Beside a short sum of the same total, and exceptions."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(np.round(rng.gamma(3, 20, (300, 5)), 2), columns=[*"abcde"])
    table["total"] = (table[[*"abcd"]].sum(axis=1) - table["e"] + 5).round(2)
    table.loc[:2, "total"] += 7
    table["tip"] = rng.gamma(2, 3, 300).round(2)
    table["paid"] = (table["total"] + table["tip"]).round(2)
    density = quick().fit(table)
    exceptions = density.rules_.set_index("rule")["exceptions"]
    assert exceptions["paid = total + tip"] == 0
    assert exceptions["total = a + b + c + d - e + 5"] == pytest.approx(0.01)
    clean = quick().fit(table[3:])
    drawn = clean.sample(200, random_state=0)
    total = drawn[[*"abcd"]].sum(axis=1) - drawn["e"] + 5
    assert (total - drawn["total"]).abs().max() < 1e-6
    assert (drawn["total"] + drawn["tip"] - drawn["paid"]).abs().max() < 1e-6
    filled = clean.impute(table[3:].assign(c=np.nan))
    assert (filled["c"] - table["c"][3:]).abs().max() < 1e-6


def test_copies_of_terms_do_not_hide_a_long_sum():
    rng = np.random.default_rng(0)
    rows = np.round(rng.gamma(3, 20, (100, 8)), 2)
    rows[:, 4] = rows[:, :4].sum(axis=1)
    rows[:, 5], rows[:, 6], rows[:, 7] = 100 * rows[:, 0], rows[:, 4], 1
    steps = dict.fromkeys(range(8), 0.01)
    found = [*_formula_search.long_sums_of(rows, [*range(8)], steps, range(8), [])]
    assert [each[:3] for each in found if each[1] == 4] == [((0, 1, 2, 3), 4, (1, 1, 1, 1))]


def test_shares_add_up_in_samples():
    """A draw whose rest is negative is drawn again."""
    rng = np.random.default_rng(0)
    cash = np.round(100 * rng.beta(1.2, 3, 400), 1)
    card = np.round((100 - cash) * rng.beta(3, 1.2, 400), 1)
    table = pd.DataFrame({"cash": cash, "card": card, "app": np.round(100 - cash - card, 1)})
    density = quick().fit(table)
    for given in (None, {"cash": 80.0}):
        drawn = density.sample(300, given=given, random_state=0)
        assert np.allclose(drawn.sum(axis=1), 100) and (drawn >= 0).all(axis=None)
    with pytest.warns(ColumnWarning, match=r"break the rule 'app = - cash - card \+ 100'"):
        density.sample(3, given={"cash": 70.0, "card": 40.0}, random_state=0)


def test_sums_tell_terms_before_rounded_products_do():
    """Several net amounts give the same tax."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"net": np.round(rng.gamma(2, 300, 300), 2)})
    table["rate"] = rng.choice([0, 7, 19], 300)
    table["tax"] = np.round(table["net"] * table["rate"] / 100 + 1e-9, 2)
    table["gross"] = (table["net"] + table["tax"]).round(2)
    density = quick(max_iter=1).fit(table)
    filled = density.impute(table.assign(net=np.nan))
    assert (filled["net"] - table["net"]).abs().max() < 1e-9
    drawn = density.sample(200, random_state=0)["tax"]
    assert not np.signbit(drawn).any() and (drawn == 0).any()


def test_draws_beside_the_last_of_a_chain_of_totals_keep_the_first():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"nights": rng.integers(1, 6, 300), "rate": rng.integers(60, 200, 300)})
    table["room"] = table["nights"] * table["rate"]
    table["breakfast"] = 12 * rng.integers(0, 4, 300)
    table["total"] = table["room"] + table["breakfast"]
    density = quick().fit(table)
    for given in ({"total": 500}, {"total": 500, "nights": 2}):
        drawn = density.sample(100, given=given, random_state=0)
        assert (drawn["nights"] * drawn["rate"] == drawn["room"]).all()
        assert (drawn["room"] + drawn["breakfast"] == 500).all()


def test_products_are_found_and_kept():
    table = bills()
    table.loc[::10, "amount"] = np.nan
    density = quick().fit(table)
    rules = ["amount = price * quantity", "tax = 0.01 * amount * rate"]
    assert density.rules_["rule"].tolist() == rules
    assert (density.rules_["kind"] == "product").all() and not density.rules_["exceptions"].any()
    drawn = density.sample(500, complete=True, random_state=0)
    assert np.allclose(drawn["amount"], np.round(drawn["price"] * drawn["quantity"], 2), atol=1e-9)
    assert np.allclose(drawn["tax"], drawn["amount"] * drawn["rate"] / 100, atol=0.0051)
    filled = density.impute(bills().assign(amount=np.nan, tax=np.nan))
    assert np.allclose(filled, bills(), atol=1e-9)
    scores = density.score_samples(bills())
    wrong = density.score_samples(bills().assign(tax=np.round(bills()["tax"] + 1, 2)))
    assert np.isfinite(wrong).all() and (wrong < scores - 5).all()


def discounted(n=200):
    """Return prices less a discount in per cent, and with taxes, which are shares."""
    rng = np.random.default_rng(0)
    price, quantity = np.round(rng.lognormal(4, 0.5, n), 2), rng.integers(1, 6, n)
    discount, tax = rng.choice([0, 5, 10, 50, 100], n), rng.choice([0.07, 0.19], n)
    table = pd.DataFrame({"price": price, "quantity": quantity, "discount": discount, "tax": tax})
    table["total"] = np.round(1.19 * price * quantity * (1 - discount / 100), 2)
    table["gross"] = np.round(price * (1 + tax), 2)
    return table


def test_discounts_and_taxes_are_found_and_kept():
    table = discounted()
    density = quick().fit(table)
    assert density.rules_["rule"].tolist() == [
        "gross = price * (1 + tax)",
        "total = 1.19 * price * quantity * (1 - discount / 100)",
    ]
    drawn = density.sample(300, random_state=0)
    total = 1.19 * drawn["price"] * drawn["quantity"] * (1 - drawn["discount"] / 100)
    assert np.allclose(drawn["total"], total, atol=0.0051)
    assert np.allclose(drawn["gross"], drawn["price"] * (1 + drawn["tax"]), atol=0.0051)
    rows = table[table["discount"] < 100][:20]  # of free orders, the quantity is not told
    for name in ("discount", "quantity", "total", "gross"):
        filled = density.impute(rows.astype({name: float}).assign(**{name: np.nan}), "median")
        np.testing.assert_allclose(filled[name], rows[name], atol=1e-9)


def test_a_rate_that_rounding_hides_is_no_rule():
    """One in some exceptions would be told by chance."""
    for seed in range(100, 120):
        rng = np.random.default_rng(seed)
        ordered = rng.integers(1, 20, 400)
        table = pd.DataFrame({"ordered": ordered, "age": rng.integers(18, 90, 400)})
        for name, mean in {"returns": 0.7, "visits": 1, "calls": 1.5}.items():
            table[name] = rng.poisson(mean, 400)
        table["shipped"] = np.where(rng.uniform(size=400) < 0.03, ordered - 1, ordered)
        schema = schema_of(table, random_state=np.random.RandomState(0))
        rows = schema.encode(table)
        rules = _rule_search.find_rules(schema, rows, np.ones(400), np.arange(400))
        assert not any("(1 " in rule.text(schema.names) for rule in rules)


def test_most_rows_may_be_free():
    """With the rate at its median, every product is 0."""
    rng = np.random.default_rng(0)
    price = np.round(rng.lognormal(3, 0.5, 300), 2)
    table = pd.DataFrame({"price": price, "free": (rng.uniform(size=300) < 0.6).astype(int)})
    table["total"] = np.round(price * (1 - table["free"]), 2)
    assert quick().fit(table).rules_["rule"].tolist() == ["total = price * (1 - free)"]


def test_rates_that_totals_do_not_tell_apart_are_seen_ones():
    rng = np.random.default_rng(1)
    price = np.round(rng.lognormal(1, 0.7, 300), 2)
    rate = rng.choice([6, 6.25, 6.5, 7, 7.25, 8.875], 300)
    table = pd.DataFrame({"price": price, "rate": rate})
    table["gross"] = np.round(price * (1 + rate / 100), 2)
    density = quick().fit(table)
    assert density.rules_["rule"].tolist() == ["gross = price * (1 + rate / 100)"]
    drawn = density.impute(table[:40].assign(rate=np.nan), "draw", random_state=0)
    assert drawn["rate"].isin(rate).all()
    assert np.allclose(drawn["price"] * (1 + drawn["rate"] / 100), drawn["gross"], atol=0.0051)


def stays(n=120):
    """Return stays whose end is some days after their start; reminders are 36 hours later."""
    rng = np.random.default_rng(0)
    start = pd.Timestamp("2024-01-31") + pd.to_timedelta(rng.integers(0, 300, n), "D")
    days = rng.poisson(4, n) + 1
    end = start + pd.to_timedelta(days - 1, "D")
    table = pd.DataFrame({"start": start, "end": end, "days": days})
    return table.assign(reminder=end + pd.Timedelta("36h"), guests=rng.integers(1, 5, n))


def test_dates_that_are_some_time_after_others_are_found_and_kept():
    table = stays()
    density = quick(max_iter=1).fit(table)
    assert density.rules_["rule"].tolist() == [
        "end = start + days (days) - 1 days",
        "reminder = end + 36 hours",
    ]

    def follow(rows):
        days = pd.to_timedelta(rows["days"] - 1, "D")
        after = rows["reminder"] - rows["end"]
        return (rows["end"] == rows["start"] + days) & (after == pd.Timedelta("36h"))

    assert follow(density.sample(100, random_state=0)).all()
    given = {"end": pd.Timestamp("2024-07-01"), "guests": 2}
    assert follow(density.sample(100, given=given, random_state=0)).mean() > 0.95
    for name in ("start", "end", "days", "reminder"):
        unknown = table.head(10).assign(**{name: None})
        filled = density.impute(unknown.astype({name: table[name].dtype} if name != "days" else {}))
        assert (filled[name].to_numpy() == table[name].head(10).to_numpy()).all()
    late = table.head(10).assign(end=table["end"].head(10) + pd.Timedelta("1D"))
    assert (density.score_samples(late) < density.score_samples(table.head(10)) - 5).all()


def loans(n=300, begin=False):
    """Return loans that end some months after they are issued, and insurances of a year."""
    rng = np.random.default_rng(0)
    issued = pd.Series(pd.Timestamp("2019-01-01") + pd.to_timedelta(rng.integers(0, 900, n), "D"))
    issued = issued.dt.to_period("M").dt.start_time if begin else issued
    table = pd.DataFrame({"issued": issued, "term": rng.choice([12, 24, 36], n)})
    table["due"] = [
        day + pd.DateOffset(months=k) for day, k in zip(issued, table["term"], strict=True)
    ]
    table["insured"] = [day + pd.DateOffset(years=1, days=-1) for day in issued]
    return table.assign(amount=rng.gamma(3, 1000, n).round(-2))


@pytest.mark.parametrize("begin", [False, True], ids=["days", "months"])
def test_dates_that_are_some_months_after_others_are_found_and_kept(begin):
    table = loans(begin=begin)
    density = quick(max_iter=1).fit(table)
    assert sorted(density.rules_["rule"]) == [
        "due = issued + term (months)",
        "insured = issued + 12 months - 1 days",
    ]

    def follow(rows):
        due = [day + pd.DateOffset(months=k) for day, k in rows[["issued", "term"]].values]
        insured = [day + pd.DateOffset(years=1, days=-1) for day in rows["issued"]]
        return (rows["due"] == due) & (rows["insured"] == insured)

    assert follow(density.sample(200, random_state=0)).all()
    for given in ({"due": table["due"][0]}, {"insured": table["insured"][0], "term": 24}):
        assert follow(density.sample(50, given=given, random_state=0)).mean() > 0.95
    for name in ("issued", "term", "due", "insured"):
        unknown = table.head(20).astype({"term": float})
        unknown[name] = np.nan if name == "term" else pd.NaT
        assert density.impute(unknown)[name].tolist() == table[name].head(20).tolist()
    late = table.head(10).assign(due=table["due"].head(10) + pd.DateOffset(months=1))
    assert (density.score_samples(late) < density.score_samples(table.head(10)) - 5).all()


def test_dates_that_the_first_rows_lack_follow_too():
    table = loans(500).assign(amount=1.0)
    table.loc[:299, "due"] = pd.NaT
    schema = schema_of(table, random_state=np.random.RandomState(0))
    rules = _rule_search.find_rules(schema, schema.encode(table), np.ones(500), np.arange(500))
    assert "due = issued + term (months)" in [rule.text(schema.names) for rule in rules]


def test_months_later_is_at_most_the_last_day_of_a_month():
    rng = np.random.default_rng(0)
    moments = pd.Timestamp("1960-01-31 12:30") + pd.to_timedelta(rng.integers(0, 30_000, 300), "D")
    months = rng.integers(-40, 40, 300).astype(float)
    seconds = moments.astype("datetime64[us]").astype(np.int64) / 1e6
    expected = [day + pd.DateOffset(months=int(k)) for day, k in zip(moments, months, strict=True)]
    later = months_later(seconds.to_numpy(), months)
    assert pd.to_datetime(later, unit="s").tolist() == expected
    assert np.isnan(months_later(np.array([np.nan, 0.0]), np.array([1.0, np.nan]))).all()


def test_products_beside_columns_with_gaps_are_found():
    rng, table = np.random.default_rng(0), bills()
    for k in range(10):  # no row is complete
        table[f"x{k}"] = np.where(rng.random(len(table)) < 0.5, np.nan, rng.normal(size=len(table)))
    found = quick(max_iter=1).fit(table).rules_
    assert found["rule"].tolist()[:2] == ["amount = price * quantity", "tax = 0.01 * amount * rate"]


def test_products_of_three_are_found_and_kept():
    table = bills(200).drop(columns="amount")
    density = quick(max_iter=1).fit(table)
    assert density.rules_["rule"].tolist() == ["tax = 0.01 * price * quantity * rate"]
    drawn = density.sample(200, random_state=0)
    product = drawn["price"] * drawn["quantity"] * drawn["rate"] / 100
    assert np.allclose(drawn["tax"], product, atol=0.0051)
    table = table[table["quantity"] > 0]
    assert (density.impute(table.assign(rate=np.nan))["rate"] == table["rate"]).all()


def test_products_with_wrong_rows_are_told_from_lookups():
    """Few prices and quantities determine the amount: each wrong row has a pair of its own."""
    rng = np.random.default_rng(0)
    price = rng.choice([0.47, 1.8, 1.87, 2.9, 3.02, 4.5], 400)
    quantity = rng.integers(1, 11, 400).astype(float)
    table = pd.DataFrame({"price": price, "quantity": quantity})
    table["amount"] = (price * quantity).round(2)
    table.loc[[5, 9], ["price", "quantity"]] = [[35, 10], [1.87, 600]]
    found = quick(max_iter=1).fit(table).rules_
    assert found["rule"].tolist() == ["amount = price * quantity"]
    assert found["exceptions"].tolist() == pytest.approx([0.005])


@pytest.fixture(scope="module")
def density_of_bills():
    return quick().fit(bills()[["price", "quantity", "amount"]])


def test_factors_of_a_known_product_are_told_unless_the_other_is_0(density_of_bills):
    table, density = bills()[["price", "quantity", "amount"]], density_of_bills
    asked, is_0 = table.copy(), (table["quantity"] == 0).to_numpy()
    asked["price"] = np.nan
    filled = density.impute(asked)["price"]
    assert np.allclose(filled[~is_0], table["price"][~is_0], atol=1e-6)
    assert filled[is_0].between(1, 200).all()
    asked = table.assign(quantity=np.nan)
    assert (density.impute(asked)["quantity"] == table["quantity"]).all()
    proba, levels = density.predict_proba("quantity", asked), density.levels("quantity")
    assert np.array_equal(np.array(levels)[proba.argmax(axis=1)], table["quantity"])
    drawn = density.sample(100, given={"amount": 60.0}, random_state=0)
    assert np.allclose(drawn["price"] * drawn["quantity"], 60, atol=0.0051)
    assert drawn["quantity"].nunique() > 2


def test_products_are_kept_beside_given_values_that_no_row_has():
    """Although 0 is beyond the amounts of the rows, and a large one too far out for a draw."""
    table = bills()[["price", "quantity", "amount"]].query("quantity > 0")
    density = quick(max_iter=1).fit(table)
    none = density.sample(20, given={"quantity": 0}, random_state=0)
    assert (none["amount"] == 0).all()
    with pytest.warns(ColumnWarning, match="900 in column 'price', far from"):
        many = density.sample(20, given={"quantity": 5, "price": 900.0}, random_state=0)
    assert np.allclose(many["amount"], 4500)
    table = pd.DataFrame({"quantity": [0, 0], "price": 9.5, "amount": [0.0, 9.5]})
    with pytest.warns(ColumnWarning, match="numbers above 0"):
        right, wrong = density.score_samples(table)
    assert wrong < right - 3


def test_rules_with_exceptions_have_as_many_in_draws_beside_a_total(one_class):
    rng, n = np.random.default_rng(0), 800
    table = pd.DataFrame({"pieces": 1 + rng.poisson(1.5, n), "price": rng.gamma(9, 3, n).round(1)})
    table["net"], table["freight"] = table["pieces"] * table["price"], rng.choice([0, 4.9, 9.9], n)
    table["discount"] = rng.gamma(2, 2, n).round(1)
    table["gross"] = table["net"] + table["freight"] - table["discount"]
    for name, first in (("net", 7), ("gross", 20)):
        table.loc[first::50, name] *= rng.choice([0.5, 1.1, 1.5], 16)
    table = table.round(2)
    own = quick().fit(table)
    exceptions = own.rules_.set_index("rule")["exceptions"]
    texts = ["net = pieces * price", "gross = net + freight - discount"]
    assert exceptions[texts].tolist() == pytest.approx([0.02, 0.04])

    def breaks(rows):
        total = rows["net"] + rows["freight"] - rows["discount"]
        errors = rows["pieces"] * rows["price"] - rows["net"], total - rows["gross"]
        return np.mean([np.abs(error) > 0.006 for error in errors], axis=1)

    rows = table[["gross"]][::2]
    drawn = own.sample(given=rows, random_state=0)
    for share in (breaks(drawn), breaks(own.sample(len(rows), random_state=0))):
        assert (0.001 < share).all() and (share < 0.08).all()


@pytest.mark.parametrize("hours", [160, 40])
def test_frequent_values_of_terms_stay_where_the_target_allows(one_class, hours):
    rng, n = np.random.default_rng(0), 600
    table = pd.DataFrame({"hours": np.where(rng.random(n) < 0.6, hours, rng.integers(20, 170, n))})
    table["rate"] = (14 + rng.gamma(4, 2, n)).round(2)
    table["overtime"] = np.where(rng.random(n) < 0.6, 0, rng.gamma(4, 90, n) + 20).round(2)
    table["gross"] = (table["hours"] * table["rate"] + table["overtime"]).round(2)
    own = quick().fit(table)
    assert "gross = hours * rate + overtime" in set(own.rules_["rule"])
    drawn = own.sample(200, given={"gross": hours * 20.5}, random_state=0)
    assert np.abs(drawn["hours"] * drawn["rate"] + drawn["overtime"] - hours * 20.5).max() < 0.006
    assert 0.1 < (drawn["overtime"] == 0).mean() < 0.9


@pytest.fixture(scope="module")
def payroll():
    rng, n = np.random.default_rng(0), 400
    table = pd.DataFrame(
        {"hours": np.where(rng.random(n) < 0.5, 160, rng.integers(120, 340, n) / 2)}
    )
    table["rate"] = (14 + rng.gamma(4, 2, n)).round(2)
    table["overtime"] = np.where(rng.random(n) < 0.6, 0, rng.gamma(4, 90, n) + 20).round(2)
    table["gross"] = (table["hours"] * table["rate"] + table["overtime"] + 1e-9).round(2)
    table["pct"] = rng.normal(25, 3, n).round(1)
    table["tax"] = (table["gross"] * table["pct"] / 100 + 1e-9).round(2)
    table["net"] = (table["gross"] - table["tax"]).round(2)
    return table


@pytest.fixture(scope="module")
def density_of_payroll(payroll):
    return quick().fit(payroll)


def breaks_payroll(rows):
    total = rows["hours"] * rows["rate"] + rows["overtime"]
    errors = total - rows["gross"], rows["gross"] * rows["pct"] / 100 - rows["tax"]
    return np.abs([*errors, rows["gross"] - rows["tax"] - rows["net"]]).max(axis=0) > 0.0051


def test_an_exact_sum_replaces_a_product_that_it_implies(density_of_payroll, payroll):
    assert set(density_of_payroll.rules_["rule"]) == {
        "gross = hours * rate + overtime",
        "tax = 0.01 * gross * pct",
        "net = gross - tax",  # rather than gross * (1 - pct / 100)
    }
    gaps = payroll.assign(gross=np.nan, hours=np.nan)
    assert_frame_equal(density_of_payroll.impute(gaps, "median"), payroll)
    drawn = density_of_payroll.sample(100, given={"net": payroll["net"][0]}, random_state=0)
    for rows in (drawn, density_of_payroll.sample(1_000, random_state=0)):
        assert not breaks_payroll(rows).any()


def test_centres_of_two_factors_are_possible_values(density_of_payroll, payroll):
    filled = density_of_payroll.impute(payroll.assign(hours=np.nan, rate=np.nan), "median")
    assert not breaks_payroll(filled).any()
    assert (filled["hours"] == payroll["hours"]).mean() > 0.5  # few hours leave whole cents
    alone = density_of_payroll.impute(payroll[:1].assign(hours=np.nan, rate=np.nan), "median")
    assert_frame_equal(alone, filled[:1])


def test_a_term_that_no_rule_tells_may_give_a_total(one_class):
    rng, n = np.random.default_rng(0), 400
    table = pd.DataFrame({"amount": rng.lognormal(9, 0.4, n).round(-2)})
    table["months"], table["rate"] = rng.choice([12, 24, 36, 48], n), rng.normal(6, 1, n).round(2)
    interest = table["amount"] * table["rate"] * table["months"] / 1200
    table["interest"], table["fee"] = (interest + 1e-9).round(2), rng.gamma(9, 9, n).round(2)
    table["total"] = table[["amount", "interest", "fee"]].sum(axis=1).round(2)
    own = quick().fit(table)
    assert set(own.rules_["rule"]) == {
        "interest = amount * months * rate / 1200",
        "total = amount + interest + fee",
    }
    drawn = own.sample(50, given={"total": 9_876.54}, random_state=0)  # amounts are hundreds
    interest = drawn["amount"] * drawn["rate"] * drawn["months"] / 1200
    assert np.abs(interest - drawn["interest"]).max() < 0.0051
    total = drawn[["amount", "interest", "fee"]].sum(axis=1)
    np.testing.assert_allclose(total, 9_876.54)
    assert drawn["fee"].between(table["fee"].min(), table["fee"].max()).all()


def test_sums_are_as_often_a_frequent_value_as_in_the_rows(one_class):
    rng, n = np.random.default_rng(0), 600
    table = pd.DataFrame(
        {"opening": rng.poisson(rng.gamma(2, 60, n)), "received": rng.poisson(40, n)}
    )
    sum_ = table["opening"] + table["received"]
    table["shipped"] = np.rint(sum_ * np.where(rng.random(n) < 0.2, 1, rng.beta(2, 3, n)))
    table["closing"] = sum_ - table["shipped"]
    own = quick().fit(table)
    assert own.rules_["rule"].tolist() == ["closing = opening + received - shipped"]
    drawn = own.sample(2_000, random_state=0)
    assert (drawn["closing"] == 0).mean() == pytest.approx(0.2, abs=0.05)  # sold out
    assert (drawn["closing"] == drawn["opening"] + drawn["received"] - drawn["shipped"]).all()
    given = own.sample(200, given={"shipped": 100}, random_state=0)
    assert (given["shipped"] == 100).all() and (given["closing"] == 0).mean() > 0.1
    assert (given["closing"] == given["opening"] + given["received"] - 100).all()


def test_numbers_are_within_their_ranges_beside_given_values_that_nothing_fits(one_class):
    rng, n = np.random.default_rng(0), 600
    group = rng.integers(3, size=n)
    table = pd.DataFrame(
        {"group": np.array([*"abc"])[group], "x": 100 * group + 50 * rng.random(n)}
    )
    table["p"], table["q"] = rng.gamma(3, 8, (2, n)).round(1)
    table["s"] = (table["p"] + table["q"]).round(1)
    own = quick().fit(table)
    assert own.rules_["rule"].tolist() == ["s = p + q"]
    with pytest.warns(ColumnWarning, match="perhaps no others fit"):
        drawn = own.sample(300, given={"p": 30, "s": 5}, random_state=0)
    low = 100 * drawn["group"].map({"a": 0, "b": 1, "c": 2})
    assert (~drawn["x"].between(low, low + 50)).mean() < 0.05


def test_given_values_that_hardly_fit_an_order_alone(one_class):
    rng = np.random.default_rng(0)
    low = rng.uniform(10, 50, 300)
    own = quick().fit(pd.DataFrame({"low": low, "high": low + rng.gamma(2, 2, 300)}))
    assert set(own.rules_["kind"]) == {"order"}
    drawn = own.sample(300, given={"high": 0.3}, random_state=0)
    assert (drawn["high"] == 0.3).all() and (drawn["low"] <= 0.3).all()


def test_numbers_nearest_to_a_centre_are_within_the_fit():
    hours = np.arange(60, 170.5, 0.5)
    wages = np.r_[np.zeros(300), np.arange(5_755, 6_755).repeat(2) / 100]
    table = pd.DataFrame({"hours": np.resize(hours, len(wages)), "fee": wages})
    hours, fee = schema_of(table, random_state=np.random.RandomState(0)).variables
    assert nearest_numbers(hours, np.array([100.3]))[0, :4].tolist() == [100.5, 100, 101, 99.5]
    assert nearest_numbers(hours, np.array([169.7])).max() == 170
    (near,) = nearest_numbers(fee, np.array([31.0]))
    assert 0 in near and not ((near > 0) & (near < 57.55)).any()


def test_products_are_kept_where_absurd_factors_are_clipped(density_of_bills, monkeypatch):
    drawn_by_members = TableDensity._drawn_by_members

    def with_absurd_prices(density, values, random_state):
        drawn = drawn_by_members(density, values, random_state)
        drawn[np.isnan(values[:, 0]), 0] = 1e6
        return drawn

    monkeypatch.setattr(TableDensity, "_drawn_by_members", with_absurd_prices)
    highest = density_of_bills._schema.reach(400)[1][0]
    drawn = density_of_bills.sample(50, random_state=0)
    assert (drawn["price"] == highest).all() and drawn["quantity"].nunique() > 3
    assert np.allclose(drawn["amount"], highest * drawn["quantity"], atol=0.0051)


def test_clipping_breaks_no_rule_with_a_given_value(density_of_bills):
    """Five times the highest plausible price is less than 1,400."""
    assert density_of_bills._schema.reach(400)[1][0] < 280
    for given in ({"amount": 1400.0}, {"amount": 1400.0, "quantity": 2}):
        drawn = density_of_bills.sample(5, given=given, random_state=0)
        assert np.allclose(drawn["price"] * drawn["quantity"], 1400, atol=0.0255)


def test_overlapping_ranges_of_a_number_are_no_function():
    """Where most values have one category, repeated ones agree without a rule."""
    rng = np.random.default_rng(0)
    kind = np.repeat(["a", "b"], 300)
    size = np.rint(np.where(kind == "a", rng.normal(200, 25, 600), rng.normal(400, 35, 600)))
    size[[0, 300, 301]] = 340  # an exception among values that occur more than once
    size[[1, 302]] = 330.5, 250.5
    table = pd.DataFrame({"kind": kind, "size": size})
    grade = pd.cut(size, [0, 150, 220, 300, 380, 1000], labels=[*"ABCDE"]).astype(str)
    density = quick().fit(table.assign(grade=grade))
    assert density.rules_["rule"].tolist() == ["grade follows from size"]


def test_orders_leave_the_shares_of_categories(keep_components):
    """Although draws of one category break the order in half of the rows, of the other never."""
    keep_components(lambda component: component.name == "linear kernels")
    rng = np.random.default_rng(0)
    n = 400
    kind = np.where(np.arange(n) % 5 < 2, "close", "apart")
    low = rng.normal(size=n).round(2)
    high = low + np.where(kind == "close", rng.exponential(0.05, n), 5 * rng.uniform(size=n) + 1)
    table = pd.DataFrame({"kind": kind, "low": low, "high": high.round(2)})
    density = TableDensity(random_state=0).fit(table)
    assert density.rules_["rule"].tolist() == ["low <= high"]
    drawn = density.sample(2000, random_state=0)
    assert (drawn["low"] <= drawn["high"]).all()
    assert (drawn["kind"] == "close").mean() == pytest.approx(0.4, abs=0.04)


def test_given_values_that_nothing_fits_are_said(density_of_bills):
    """An amount of 37.51 is no whole number of cents times 3."""
    given = {"quantity": 3, "amount": 37.51}
    match = r"Draws beside the known values break the rule 'amount = price \* quantity' in 5 of 5"
    with pytest.warns(ColumnWarning, match=match):
        density_of_bills.sample(5, given=given, random_state=0)
    asked = pd.DataFrame({"price": [np.nan, 4.5], "quantity": 3, "amount": [37.51, 13.5]})
    with pytest.warns(ColumnWarning, match=r"in 1 of 2 rows, although all"):
        density_of_bills.impute(asked, method="draw", random_state=0)


def test_a_finer_term_than_its_rounded_sum_has_several_values():
    rng = np.random.default_rng(0)
    price = np.round(rng.gamma(2, 50, 400), 2)
    table = pd.DataFrame({"price": price, "euros": np.rint(price)})
    density = quick().fit(table)
    assert density.rules_["rule"].tolist() == ["euros = price"]
    low, high = density.quantile("price", {"euros": 80}, [0.1, 0.9])[0]
    assert high - low > 0.1


def places(n=600):
    """Postcodes, of which a city follows, of which a state follows."""
    rng = np.random.default_rng(0)
    code = rng.integers(0, 12, n)
    return pd.DataFrame(
        {
            "zip": [f"{10_000 + 97 * k}" for k in code],
            "city": [f"city {k // 2}" for k in code],
            "state": [f"state {k // 6}" for k in code],
        }
    )


def test_what_follows_further_from_a_determinant_tells_of_it():
    table = places()
    density = quick().fit(table)
    assert (density.rules_["kind"] == "function").all() and len(density.rules_) == 2
    for name in ("zip", "city"):
        levels = density.levels(name)
        proba = density.predict_proba(name, {"state": "state 1"})[0]
        possible = np.isin(levels, table.loc[table["state"] == "state 1", name].unique())
        assert proba[possible].sum() > 0.99
        one = density.condition({"state": "state 1"}).marginal([name])
        scores = one.score_samples(pd.DataFrame({name: levels}))
        assert np.exp(scores) == pytest.approx(proba)


def test_rows_that_break_a_sum_score_less_than_rows_that_keep_it():
    table = amounts()
    density = quick().fit(table)
    wrong = table.assign(total=np.round(table["total"] + 1, 2))
    scores, lower = density.score_samples(table), density.score_samples(wrong)
    assert np.isfinite(lower).all() and (lower < scores - np.log(len(table))).all()
    assert density.stacked_score_ > quick(rules=False).fit(table).stacked_score_


def test_probabilities_of_sums_sum_to_1():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"first": rng.integers(0, 4, 500), "second": rng.integers(0, 4, 500)})
    table["both"] = table["first"] + table["second"]
    density = quick().fit(table)
    assert density.rules_["rule"].tolist() == ["both = first + second"]
    every = pd.DataFrame(product(range(4), range(4), range(7)), columns=table.columns)
    assert logsumexp(density.score_samples(every)) == pytest.approx(0, abs=1e-2)


def test_lines_are_looked_for_in_the_rows_of_the_rarer_column():
    rng = np.random.default_rng(0)
    rows = rng.normal(100, 30, size=(2_000, 4)).round(2)
    rows[:, 1] = (rows[:, 0] * 1.19).round(2)
    rows[:, 3] = np.where(np.arange(2_000) % 40 == 0, (0.5 - 2 * rows[:, 0]).round(2), np.nan)
    rows[::7, 0] = np.nan
    lines = {
        (*determinants, target): (*factors, constant)
        for determinants, target, factors, constant in _formula_search.lines_of(
            rows, [0, 1, 2, 3], dict.fromkeys(range(4), 0.01)
        )
    }
    assert sorted(lines) == [(0, 1), (0, 3), (1, 0), (1, 3), (3, 0), (3, 1)]
    assert lines[0, 1] == pytest.approx((1.19, 0.0), abs=0.01)
    assert lines[0, 3] == pytest.approx((-2.0, 0.5), abs=0.01)
    assert lines[3, 0] == pytest.approx((-0.5, 0.25), abs=0.01)


def test_a_line_that_turns_out_flat_is_refined_to_finite_slopes():
    x = np.repeat([0.0, 1.0, 2.0], [40, 40, 20])
    y = np.where(x == 2.0, 1.0, 0.0)
    lines = _formula_search.refinements(y, x, 0.1, 0.0, 0.3)
    assert np.isfinite([(*factors, constant) for factors, constant in lines]).all()


def test_lines_among_multiples_take_time_in_proportion_to_their_number(monkeypatch):
    rng = np.random.default_rng(0)
    cents = rng.permutation(5_000)[:300]
    table = pd.DataFrame({f"times {k}": cents * k for k in range(1, 13)})
    schema = schema_of(table, random_state=np.random.RandomState(0))
    tried = []

    def refinements(y, x, *args):
        tried.append(len(y))
        return all_refinements(y, x, *args)

    all_refinements = _formula_search.refinements
    monkeypatch.setattr(_formula_search, "refinements", refinements)
    values, weight = schema.encode(table), np.ones(300)
    rules = _rule_search.find_rules(schema, values, weight, np.arange(300))
    assert len(rules.functions) == 11 and {rule.kind for rule in rules} == {"linear"}
    assert len(tried) < 36


def test_numbers_that_are_close_or_sum_up_by_chance_are_no_rule():
    rng = np.random.default_rng(0)
    size = np.round(rng.gamma(2, 30, 300), 2)
    counts = dict(zip("abcd", rng.poisson(0.2, (4, 300)), strict=True))
    table = pd.DataFrame({"size": size, "again": np.round(size + rng.normal(0, 0.02, 300), 2)})
    assert quick().fit(table.assign(**counts)).rules_.empty


@pytest.mark.parametrize("sign", [1, -1])
def test_product_and_a_third_column(one_class, sign, tmp_path):
    rng = np.random.default_rng(0)
    hours, rate = rng.choice(np.arange(0.5, 8, 0.25), 400), rng.choice([92.0, 98.0, 118.0], 400)
    material = np.round(rng.gamma(2, 20, 400), 2)
    table = pd.DataFrame({"hours": hours, "rate": rate, "material": material})
    table["net"] = np.round(hours * rate + sign * material, 2)
    table.loc[7, "net"] += 50.0  # an exception
    density = quick().fit(table)
    (text,) = density.rules_["rule"]
    assert text == f"net = hours * rate {'+' if sign > 0 else '-'} material"
    drawn = density.sample(400, random_state=0)

    def error(rows):
        return (rows["net"] - rows["hours"] * rows["rate"] - sign * rows["material"]).abs()

    assert (error(drawn) < 0.006).mean() > 0.98
    given = density.sample(100, given={"net": 300.0}, random_state=0)
    assert (given["net"] == 300).all() and (error(given) < 0.006).mean() > 0.9
    rest = table.drop(index=7)
    for name in table:
        gaps = rest.copy()
        gaps.loc[:50, name] = np.nan
        filled = density.impute(gaps)
        np.testing.assert_allclose(filled[name], rest[name], atol=1e-9)
    scores = density.score_samples(table)
    assert scores[7] < np.median(scores) - 4
    density.save(tmp_path / "table.skflows")
    assert (load(tmp_path / "table.skflows").score_samples(table) == scores).all()


def test_a_number_that_others_tell_tells_its_multiple(one_class):
    """The reverse, for which fewer or no halves are rounded, leaves the others without a rule."""
    rng = np.random.default_rng(0)
    work, material = np.round(rng.gamma(2, 40, (2, 500)), 2)
    net = np.round(work + material, 2)
    # Halves of a cent are rounded up or down.
    gross = np.round(1.19 * net + rng.choice([-1e-6, 1e-6], 500), 2)
    for names in (["work", "material", "net", "gross"], ["gross", "net", "material", "work"]):
        table = pd.DataFrame({"work": work, "material": material, "net": net, "gross": gross})
        density = quick().fit(table[names])
        rules = density.rules_[density.rules_["kind"] != "order"]
        assert {*rules["rule"]} <= {
            "net = work + material",
            "net = material + work",
            "gross = 1.19 * net",
        }
        assert len(rules) == 2 and (rules["exceptions"] == 0).all()
        drawn = density.sample(200, random_state=0)
        assert ((drawn["gross"] - 1.19 * drawn["net"]).abs() <= 0.00501).all()


def test_halves_are_rounded_as_in_the_rows(one_class):
    """Up in all rows, or up in some and down in others, each with its probability."""
    rng = np.random.default_rng(0)
    x, z = rng.integers(1, 200, 600), rng.normal(size=600)
    sides = {"up": np.ones(600, dtype=bool), "mixed": rng.uniform(size=600) < 0.7}
    for is_up in sides.values():
        y = np.where(is_up, np.ceil(x / 2), np.floor(x / 2)).astype(int)
        density = quick().fit(pd.DataFrame({"x": x, "y": y, "z": z}))
        (rule,) = density.rules_.to_dict("records")
        assert rule["rule"] == "y = 0.5 * x" and rule["exceptions"] == 0
        given = density.condition({"x": 51}).marginal(["y"])
        p = np.exp(given.score_samples(pd.DataFrame({"y": np.arange(99)})))
        assert p.sum() == pytest.approx(1, abs=0.01)
        share = is_up[x % 2 == 1].mean()
        assert p[[25, 26]] == pytest.approx([1 - share, share], abs=0.01)
        distribution = density.predict_distribution("y", {"x": 51})
        assert distribution.cdf(25.4)[0] == pytest.approx(1 - share, abs=0.01)
        drawn = density.sample(1_000, random_state=0).query("x % 2 == 1")
        assert (drawn["y"] > drawn["x"] / 2).mean() == pytest.approx(share, abs=0.06)


def test_categories_tell_terms_in_chains_of_rules(one_class):
    """The vehicle tells the rate, and this, the material and the gross amount tell the hours."""
    rng = np.random.default_rng(0)
    rate = {"van": 110.0, "car": 84.0, "truck": 125.0}
    vehicle = rng.choice([*rate], 300)
    table = pd.DataFrame({"vehicle": vehicle, "rate": pd.Series(vehicle).map(rate)})
    table["hours"] = rng.choice(np.arange(0.5, 8, 0.25), 300)
    table["material"] = np.round(rng.gamma(2, 20, 300), 2)
    table["net"] = np.round(table["hours"] * table["rate"] + table["material"], 2)
    table["gross"] = np.round(1.19 * table["net"], 2)
    density, known = quick().fit(table), table[["vehicle", "material", "gross"]][:20]
    found = density.quantile("hours", known, [0.1, 0.5, 0.9])
    np.testing.assert_allclose(found, np.repeat(table[["hours"]][:20], 3, axis=1))
    drawn = density.sample(1, given=known, random_state=0)
    np.testing.assert_allclose(drawn["hours"], table["hours"][:20])


@pytest.fixture
def sales():
    """Sales at a price of each product, which is no column, with an exception; some have none."""
    rng = np.random.default_rng(0)
    price = {"chair": 149.99, "desk": 399.5, "lamp": 24.95}
    product = rng.choice([*price], 400, p=[0.5, 0.2, 0.3])
    table = pd.DataFrame({"product": product, "quantity": rng.integers(1, 40, 400)})
    table["total"] = np.round(table["quantity"] * table["product"].map(price), 2)
    table["days"] = rng.poisson(3, 400)
    table.loc[7, "total"] += 10
    table.loc[300:, "total"] = np.nan
    return table


def test_a_factor_for_each_category(one_class, sales, tmp_path):
    density = quick(handle_unknown="rare").fit(sales)
    rules = density.rules_[density.rules_["kind"] == "product"].to_numpy().tolist()
    assert rules == [["total = quantity * a factor of product", "product", 1 / 300, 300]]
    chair, desk = 149.99, 399.5
    drawn = density.sample(400, random_state=0)
    known = drawn[drawn["total"].notna() & (drawn["product"] == "chair")]
    assert (known["total"] == np.round(chair * known["quantity"], 2)).mean() > 0.95
    assert drawn["total"].isna().mean() == pytest.approx(0.25, abs=0.08)
    given = density.sample(50, given={"product": "desk", "total": 3 * desk}, random_state=0)
    assert (given["quantity"] == 3).all()
    rest = sales[:300].drop(index=7)
    for name in "product", "quantity":  # targets of a rule with an exception are not told for sure
        gaps = rest.assign(**{name: rest[name].where(rest.index > 50)})
        assert (density.impute(gaps, "median")[name] == rest[name]).all()
    scores = density.score_samples(sales)
    assert scores[7] < np.median(scores) - 4
    lamp = pd.DataFrame({"product": ["rug", "lamp"], "quantity": 2, "total": 49.9, "days": 3})
    assert np.isfinite(density.score_samples(lamp)).all()  # the rule says nothing of rugs
    density.save(tmp_path / "table.skflows")
    assert (load(tmp_path / "table.skflows").score_samples(sales) == scores).all()


@pytest.mark.parametrize("method", ["mean", "median", "draw"])
def test_factors_without_exceptions_tell_totals(one_class, sales, method):
    density = quick().fit(sales.drop(index=7))
    gaps = sales[:300].assign(total=np.nan)
    filled = density.impute(gaps, method, random_state=0).drop(index=7)["total"]
    np.testing.assert_allclose(filled, sales["total"][:300].drop(index=7), atol=1e-9)


def test_values_with_a_factor_of_zero_are_most_frequent(one_class, sales):
    """Such as channels without a commission."""
    rate = {"chair": 0.0, "desk": 0.15, "lamp": 0.0, "sofa": 0.1}
    product = sales["product"].mask(sales.index % 10 == 0, "sofa")
    total = np.round(np.random.default_rng(0).gamma(2, 150, len(sales)) + 20, 2)
    table = pd.DataFrame({"product": product, "total": total})
    table["fee"] = np.round(table["total"] * product.map(rate), 2)
    assert quick().fit(table).rules_["rule"].tolist() == ["fee = total * a factor of product"]


def test_totals_that_most_rows_lack_have_factors(one_class, sales):
    sales.loc[150:, "total"] = np.nan
    assert "total = quantity * a factor of product" in quick().fit(sales).rules_["rule"].tolist()


def test_products_of_the_same_price(one_class, sales):
    """A total leaves these alone possible, as likely as they are beside the quantity."""
    is_sofa = (sales["product"] == "chair") & (sales.index % 5 == 0)
    sales["product"] = sales["product"].mask(is_sofa, "sofa")
    density = quick().fit(sales.drop(index=7))
    asked = pd.DataFrame({"quantity": [3, 3, 3], "total": [3 * 149.99, 3 * 399.5, 100.0]})
    given, _, other = density.predict_proba("product", asked, as_frame=True).to_numpy()
    chair, desk, lamp, sofa = given
    assert desk + lamp < 0.01 and chair > 2 * sofa > 0.1
    assert (other > 0.01).all()  # no product has such a total, which rules out none
    gaps = sales[:300].drop(index=7).assign(product=None)
    drawn = density.impute(gaps, "draw", random_state=0)["product"]
    price = drawn.map({"chair": 149.99, "sofa": 149.99, "desk": 399.5, "lamp": 24.95})
    np.testing.assert_allclose(gaps["quantity"] * price, gaps["total"], atol=0.01)


def test_factors_whose_inverse_has_few_digits(one_class):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"paid": rng.choice(["monthly", "quarterly", "weekly"], 600)})
    table["yearly"] = np.round(rng.gamma(3, 200, 600), 2)
    times = table["paid"].map({"monthly": 12, "quarterly": 4, "weekly": 52})
    table["premium"] = np.round(table["yearly"] / times, 2)
    rules = quick().fit(table).rules_
    assert rules["rule"].tolist() == ["premium = yearly * a factor of paid"]
    assert rules["exceptions"].tolist() == [0]


def test_a_value_of_one_row_has_no_factor(one_class):
    """It would fit whatever the row says: a wrong tax, and noise in cities of one row."""
    rng = np.random.default_rng(0)
    net = np.round(rng.lognormal(4, 0.8, 400), 2)
    table = pd.DataFrame({"city": rng.choice(["a", "b", "c"], 400), "net": net})
    table["tax"] = np.round(0.19 * net, 2)
    table.loc[5, ["city", "tax"]] = "x", table["tax"][5] + 10
    density = quick(handle_unknown="rare").fit(table)
    assert density.rules_["rule"].tolist() == ["tax = 0.19 * net"]
    assert density.score_samples(table).argmin() == 5
    noise = table[:100].copy()
    noise["city"] = ["a"] * 60 + [*map(str, range(40))]
    noise.loc[60:, "tax"] = np.round(rng.lognormal(3, 0.8, 40), 2)
    assert quick(handle_unknown="rare").fit(noise).rules_.empty


def test_numbers_that_a_category_scales_with_noise_have_no_factors(one_class, sales):
    noise = np.random.default_rng(1).uniform(0.97, 1.03, len(sales))
    sales["total"] = (sales["total"] * noise).round(2)
    assert quick().fit(sales).rules_.empty


def test_small_counts_are_no_product_and_a_third_column_by_chance(one_class):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.poisson([3, 1, 2, 4, 20, 25], (300, 6)), columns=list("abcdef"))
    assert "product" not in set(quick().fit(table).rules_["kind"])


def test_rules_are_saved_with_the_density(tmp_path):
    table = pd.concat(
        [
            amounts(),
            bills(300).add_prefix("bill ")[["bill price", "bill quantity", "bill amount"]],
            dated(300),
            orders(300),
        ],
        axis=1,
    )
    density = quick().fit(table)
    assert set(density.rules_["kind"]) == {"function", "linear", "product", "span", "order"}
    density.save(tmp_path / "table.skflows")
    again = load(tmp_path / "table.skflows")
    pd.testing.assert_frame_equal(again.rules_, density.rules_)
    assert np.array_equal(again.score_samples(table), density.score_samples(table))
    pd.testing.assert_frame_equal(again.sample(9, 0), density.sample(9, 0))


@pytest.mark.parametrize("zone", [None, "America/New_York"])
def test_columns_that_follow_from_a_part_of_a_date(zone):
    """Of dates that are all different, of which no two tell the same."""
    days = pd.date_range("2021-01-01 23:30", periods=500, tz=zone)
    table = pd.DataFrame(
        {
            "day": days,
            "year": days.year,
            "month": days.month_name(),
            "is_weekend": days.day_of_week > 4,
            "x": np.random.default_rng(0).normal(size=500),
        }
    )
    table.loc[7, "month"] = "May"
    density = quick().fit(table)
    assert sorted(density.rules_["rule"]) == [
        "is_weekend follows from the weekday of day",
        "month follows from the month of day",
        "year follows from the year of day",
    ]
    drawn = density.sample(400, complete=True, random_state=0)
    at = drawn["day"].dt
    assert (at.month_name() == drawn["month"]).mean() > 0.98
    assert ((at.day_of_week > 4) == drawn["is_weekend"]).all()
    seen = at.year.isin([2021, 2022])
    assert (at.year == drawn["year"])[seen].all()
    given = density.sample(60, given={"month": "March"}, random_state=0)
    assert (given["day"].dt.month == 3).mean() > 0.95
    filled = density.impute(table.assign(month=None), "mode")
    assert (filled["month"] == days.month_name()).all()
    wrong = density.score_samples(table[:5].assign(is_weekend=~table["is_weekend"][:5]))
    assert (wrong < density.score_samples(table[:5]) - 5).all()


def test_dates_whose_parts_tell_nothing_make_no_rule():
    rng = np.random.default_rng(0)
    days = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 1500, 300), unit="D")
    table = pd.DataFrame({"day": days, "kind": rng.choice(list("abc"), 300)})
    assert not len(quick(max_iter=1).fit(table).rules_)


def test_rules_hold_where_their_columns_have_values():
    """Neither rows without a determinant nor ones without an earlier time are rejected."""
    rng = np.random.default_rng(0)
    n = 600
    codes = {"fever": "D1", "high fever": "D1", "pain": "D2", "rash": "D3", "itch": "D3"}
    term = pd.Series(rng.choice([*codes], n))
    code = term.map(codes).where(rng.random(n) < 0.4, "none")
    end = np.ceil(rng.exponential(500, n) + 20)
    event = pd.Series(np.ceil(end * rng.random(n))).where(rng.random(n) < 0.4)
    table = pd.DataFrame({"code": code, "term": term.where(code != "none")})
    table = table.assign(group=rng.choice(["a", "b"], n), end=end, event=event)
    density = quick(max_iter=40).fit(table)
    assert density.rules_["rule"].tolist() == ["code follows from term", "event <= end"]
    drawn = density.sample(2000, random_state=0)
    assert (drawn["code"] == "none").mean() == pytest.approx((code == "none").mean(), abs=0.06)
    assert (drawn["term"].isna() == (drawn["code"] == "none")).all()
    assert (drawn["term"].map(codes) == drawn["code"])[drawn["term"].notna()].all()
    assert drawn["event"].isna().mean() == pytest.approx(event.isna().mean(), abs=0.06)
    quantiles = [0.1, 0.5, 0.9]
    np.testing.assert_allclose(drawn["end"].quantile(quantiles), np.quantile(end, quantiles), 0.2)
    assert not (drawn["event"] > drawn["end"]).any()
    complete = density.sample(200, random_state=0, complete=True)
    assert not complete.isna().any(axis=None)
    assert not (complete["event"] > complete["end"]).any()


def test_a_sum_replaces_the_multiple_that_it_implies():
    """Samples would be a cent off otherwise, as taxes and totals are rounded apart."""
    rng = np.random.default_rng(0)
    net = np.round(rng.lognormal(4, 0.8, 400), 2)
    tax = np.round(0.19 * net, 2)
    table = pd.DataFrame({"net": net, "tax": tax, "total": np.round(net + tax, 2)})
    density = quick(max_iter=1).fit(table)
    assert density.rules_["rule"].tolist() == ["tax = 0.19 * net", "total = net + tax"]
    drawn = density.sample(2000, random_state=0)
    assert np.abs(drawn["net"] + drawn["tax"] - drawn["total"]).max() < 0.005
    filled = density.impute(table.assign(net=np.nan, tax=np.nan), "median")
    np.testing.assert_allclose(filled, table, atol=0.005)


def test_terms_that_are_nearly_constant_are_in_rules():
    """A few rows of another rate or with a fee tell, as the target varies."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"net": np.round(rng.lognormal(4, 0.8, 300), 2), "rate": 19, "fee": 0.0})
    table.loc[:6, "rate"], table.loc[7:13, "fee"] = 7, np.round(rng.lognormal(2, 0.5, 7), 2)
    table["tax"] = np.round(table["net"] * table["rate"] / 100, 2)
    table["total"] = np.round(table["net"] + table["fee"], 2)
    rules = quick(max_iter=1).fit(table).rules_
    assert {*rules["rule"]} >= {"tax = 0.01 * net * rate", "total = net + fee"}


def test_columns_that_are_nearly_constant_have_no_rule():
    """Up to their precision: a few huge values are no evidence of a sum of all others."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"value": rng.normal(size=300), "error": rng.lognormal(size=300)})
    table["digits"] = rng.integers(7, 13, 300)
    table.loc[:4, "value"] = 1e12 * np.arange(1, 6)
    table.loc[:4, "error"] = 1e9 * np.arange(1, 6)
    assert quick(max_iter=1).fit(table).rules_.empty


def test_two_wrong_values_leave_both_functions_of_a_column(one_class):
    """Both would be evidence that the two tell the first, without exceptions."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"form": rng.choice(["8a", "8b", "9a", "9b", "9c", "10a"], 600)})
    table["year"] = table["form"].str[:-1].astype(int)
    teacher = {"8a": "M", "8b": "G", "9a": "M", "9b": "O", "9c": "G", "10a": "S"}
    table["teacher"] = table["form"].map(teacher)
    table.loc[(table["form"] == "8a").idxmax(), "year"] = 10
    table.loc[(table["form"] == "9b").idxmax(), "teacher"] = "S"
    rules = quick().fit(table).rules_
    assert {*rules["rule"]} == {"year follows from form", "teacher follows from form"}
    assert rules["exceptions"].tolist() == [1 / 600, 1 / 600]


def test_a_term_that_changes_no_total_is_none(one_class, monkeypatch):
    """It agrees with two wrong values by chance."""
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"points": rng.integers(0, 80, 600) / 2, "part": rng.integers(0, 21, 600)})
    table["share"] = np.round(2.5 * table["points"], 1)
    table.loc[3, "share"] += 10
    table.loc[20, "points"] += 1
    assert quick().fit(table).rules_["rule"].tolist() == ["share = 2.5 * points"]
    terms, points = (1, 2), 0  # of points = 0.001 * part + 0.4 * share, which fits as often
    candidates = [(terms, points, (0.001, 0.4), 0.0)]
    monkeypatch.setattr(_formula_search, "multiples_of", lambda *_: iter(candidates))
    schema = schema_of(table, random_state=np.random.RandomState(0))
    rows = table.to_numpy(dtype=float)
    targets = [Target.of(schema, i) for i in range(3)]
    found = _formula_search.formulas_of(schema, rows, targets)
    assert found and all(len(determinants) == 1 for _, determinants, *_ in found)


def test_halves_are_rounded_by_their_last_bit(one_class, tmp_path):
    """As NumPy rounds them, where all rows agree with that."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"points": rng.integers(0, 80, 600) / 2, "x": rng.normal(size=600)})
    table["share"] = np.round(2.5 * table["points"], 1)
    drawn = quick().fit(table).sample(2_000, random_state=0)
    assert (drawn["share"] == np.round(2.5 * drawn["points"], 1)).all()
    table["share"] = np.round(table["points"] / 40 * 100, 1)  # of which 28.75 is a bit less
    density = quick().fit(table)
    drawn = density.sample(2_000, random_state=0).query("points < 40")  # as in the fit
    assert (drawn["share"] == np.round(drawn["points"] / 40 * 100, 1)).all()
    other = table.assign(share=28.8)[table["points"] == 11.5]
    density.save(tmp_path / "table.skflows")
    assert (
        load(tmp_path / "table.skflows").score_samples(other) == density.score_samples(other)
    ).all()
    assert (density.score_samples(other) < density.score_samples(table)[other.index] - 4).all()


@pytest.fixture
def orders_of_shop():
    """Orders with or without postage, of which some were refunded and others have a deposit."""
    rng = np.random.default_rng(0)
    n = 600
    table = pd.DataFrame({"goods": np.round(rng.lognormal(3.3, 0.8, n), 2)})
    table["postage"] = np.where(rng.random(n) < 0.4, 0.0, 4.9)
    table["total"] = np.round(table["goods"] + table["postage"], 2)
    table["status"] = rng.choice(["paid", "refunded", "deposit"], n, p=[0.8, 0.1, 0.1])
    table["refund"] = table["total"].where(table["status"] == "refunded")
    deposit = np.round(table["total"] * rng.uniform(0.2, 0.8, n), 2)
    table["deposit"] = deposit.where(table["status"] == "deposit")
    table["rest"] = np.round(table["total"] - table["deposit"], 2)
    return table


def test_sums_with_a_term_of_two_values_and_of_columns_that_few_rows_have(
    one_class, orders_of_shop
):
    """Even if no row has all columns."""
    rules = set(quick().fit(orders_of_shop).rules_["rule"])
    assert {"total = goods + postage", "refund = total"} <= rules
    assert rules & {"rest = total - deposit", "total = deposit + rest"}


def test_what_rules_tell_is_no_evidence_that_it_is_there(orders_of_shop):
    """A total tells the refund, which only refunded orders have."""
    density = quick().fit(orders_of_shop)
    gaps = orders_of_shop.head(300).assign(status=None, refund=np.nan, deposit=np.nan, rest=np.nan)
    chance = density.predict_proba("status", gaps).mean(axis=0)
    drawn = density.impute(gaps, "draw", random_state=0)
    for status, share in zip(density.levels("status"), chance, strict=True):
        assert (drawn["status"] == status).mean() == pytest.approx(share, abs=0.07)
    assert (drawn["refund"] == drawn["total"]).all()
    assert (density.impute(gaps, "mode")["status"] == "paid").mean() > 0.95
    given = density.sample(500, given={"total": 30.0}, random_state=0)
    assert (given["status"] == "refunded").mean() == pytest.approx(0.1, abs=0.06)
    assert (given["refund"].dropna() == 30).all()
    assert (given["refund"].notna() == (given["status"] == "refunded")).all()


def test_samples_follow_rules_beside_a_determinant_that_is_missing_at_random():
    rng, n = np.random.default_rng(0), 500
    table = pd.DataFrame({"job": rng.choice(["van", "car"], n), "hours": rng.integers(1, 30, n)})
    table["labour"] = table["hours"] * table["job"].map({"van": 95.0, "car": 80.0})
    table["hours"] = table["hours"].where(rng.uniform(size=n) < 0.8)
    drawn = quick().fit(table).sample(400, random_state=0)
    assert 40 < drawn["hours"].isna().sum() < 130
    assert (drawn["labour"] % drawn["job"].map({"van": 95.0, "car": 80.0}) == 0).all()


def staff(n=600, seed=0):
    """Return staff, of which salaried ones, mostly of the office, have no hours and no rate."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {"contract": rng.choice(["free", "hourly", "salaried"], n, p=[0.2, 0.3, 0.5])}
    )
    has_rate = table["contract"] != "salaried"
    in_plant = rng.uniform(size=n) < np.where(has_rate, 0.9, 0.1)
    table["dept"] = np.where(in_plant, "plant", "office")
    rate = np.where(table["contract"] == "free", rng.normal(60, 5, n), rng.normal(20, 2.5, n))
    table["rate"] = pd.Series(np.round(rate * 2) / 2).where(has_rate)
    table["hours"] = pd.Series(np.round(rng.normal(150, 15, n))).where(has_rate)
    salary = np.round(rng.normal(3_000, 400, n) / 10) * 10
    table["base"] = (table["hours"] * table["rate"]).fillna(pd.Series(salary))
    return table


def test_imputed_blanks_are_no_evidence_of_their_category():
    """Hours and a rate that give a salary would make the salaried staff hourly."""
    density = quick().fit(staff())
    rules = set(density.rules_["rule"])
    assert rules >= {"contract follows from rate", "base = rate * hours"}
    salaried = staff(200, seed=1).query("contract == 'salaried'").assign(contract=None)
    is_likely = density.predict_proba("contract", salaried).argmax(axis=1) == 2
    assert 0.8 < is_likely.mean() < 1
    for method, share in (("median", is_likely.mean()), ("mode", is_likely.mean()), ("draw", 0.8)):
        filled = density.impute(salaried, method, keep_blanks=True, random_state=0)
        is_salaried = filled["contract"] == "salaried"
        assert is_salaried.mean() >= share
        assert filled.loc[is_salaried, ["hours", "rate"]].isna().all(axis=None)
        paid = filled[~is_salaried]
        np.testing.assert_allclose(paid["base"], paid["hours"] * paid["rate"], rtol=0.1)
    filled = density.impute(salaried, "draw", random_state=0)
    assert filled.notna().all(axis=None)
    assert (filled["contract"] == "salaried").mean() > 0.8


@pytest.mark.parametrize("method", ["mean", "draw"])
def test_blanks_depend_on_the_category_that_a_rule_tells(method):
    """Only rows of one country have a postcode, and the city tells the country."""
    rng, n = np.random.default_rng(0), 500
    city = pd.Series(rng.choice([f"city {i}" for i in range(12)], n))
    table = pd.DataFrame({"country": np.where(city < "city 3", "US", "DE"), "city": city})
    table["postcode"] = pd.Series(rng.normal(50, 5, n)).where(table["country"] == "US")
    table["sales"] = rng.lognormal(3, 0.5, n)
    table.loc[rng.uniform(size=n) < 0.3, "city"] = None
    density = quick().fit(table)
    assert "country follows from city" in set(density.rules_["rule"])
    lacking = pd.DataFrame(None, index=range(100), columns=[*table]).assign(sales=20.0)
    filled = density.impute(lacking, method, keep_blanks=True, random_state=0)
    assert filled[["country", "city"]].notna().all(axis=None)
    assert (filled["postcode"].notna() == (filled["country"] == "US")).all()


def test_rules_tell_nothing_of_what_a_category_lacks():
    """The gross amount would tell a temp's pension, which is none, and this the net amount."""
    rng = np.random.default_rng(0)
    n = 600
    table = pd.DataFrame({"kind": rng.choice(["staff", "temp"], n, p=[0.7, 0.3])})
    table["gross"] = np.round(rng.gamma(8, 350, n), 2)
    table["tax"] = np.round(table["gross"] * rng.uniform(0.05, 0.15, n), 2)
    table["pension"] = np.round(0.3 * table["gross"], 2).where(table["kind"] == "staff")
    table["net"] = np.round(table["gross"] - table["tax"] - table["pension"].fillna(0), 2)
    density = quick(columns={"pension": "bounded"}).fit(table)  # its blanks are unknown values
    assert "pension = 0.3 * gross" in set(density.rules_["rule"])
    given = pd.DataFrame({"kind": ["staff", "temp"], "gross": 2500.0, "tax": 250.0})
    staff, temp = density.quantile("net", given, 0.5)
    assert staff == 1500 and temp > 1700  # rows: 2,250; two components are coarse
    with pytest.warns(ColumnWarning, match="in column 'pension' counts as 0"):
        density = quick().fit(table)  # as the sum shows
    assert density.quantile("net", given, 0.5).tolist() == [1500, 2250]


def test_what_remains_of_a_rounded_budget_is_exact():
    """The nearest budget of full thousands would be a sum of any parts."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"spent": np.round(rng.gamma(4, 5_000, 300), 2)})
    table["budget"] = np.ceil(table["spent"] * rng.uniform(0.9, 1.3, 300) / 1_000) * 1_000
    table["remaining"] = np.round(table["budget"] - table["spent"], 2)
    drawn = quick().fit(table).sample(200, random_state=0)
    assert (drawn["budget"] % 1_000 == 0).all()
    np.testing.assert_allclose(drawn["spent"] + drawn["remaining"], drawn["budget"], atol=1e-6)
