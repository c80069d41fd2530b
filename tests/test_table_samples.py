"""Samples of tables look like the rows: their missing values, tails and names."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from _tables import few_components, keep_components, quick  # noqa: F401

import skflows
from skflows import DensityClassifier, DensityOutlierDetector
from skflows.columns.checks import ColumnWarning
from skflows.inspection import ConditionalDensityDisplay
from skflows.table import _missing
from skflows.table._network import NetworkMember, OrderAgnosticNetwork
from skflows.table._reach import UpperTail
from skflows.table._view import TableView

MANY = 4_000  # samples


@pytest.fixture(scope="module")
def incomplete():
    """A table whose missing values depend on other columns, come together, or are random."""
    rng = np.random.default_rng(0)
    n = 600
    a = rng.normal(size=n)
    table = pd.DataFrame(
        {
            "a": a,
            "b": a + rng.normal(size=n),
            "c": rng.normal(size=n),
            "d": rng.choice(list("xyz"), n),
            "e": rng.normal(size=n),
        }
    )
    table["b"] = table["b"].mask((a > 0) & (rng.uniform(size=n) < 0.8))
    table.loc[rng.uniform(size=n) < 0.3, ["c", "d"]] = None
    table["e"] = table["e"].mask(rng.uniform(size=n) < 0.56)
    return table


@pytest.fixture(scope="module")
def density_of_incomplete(incomplete):
    return quick().fit(incomplete)


def test_samples_have_missing_values_as_the_table(density_of_incomplete, incomplete):
    drawn = density_of_incomplete.sample(MANY, random_state=0)
    missing = drawn.isna()
    shares = missing.mean() - incomplete.isna().mean()
    assert shares.abs().max() < 0.03
    assert not missing["a"].any()
    # Of b, where a > 0 only.
    expected = incomplete["b"].isna()[incomplete["a"] > 0].mean()
    assert missing["b"][drawn["a"] > 0].mean() == pytest.approx(expected, abs=0.04)
    assert missing["b"][drawn["a"] < 0].mean() < 0.01
    # Of c and d together; of e whatever the other columns.
    assert (missing["c"] == missing["d"]).all()
    groups = missing["e"].groupby([missing["c"], drawn["a"] > 0])
    assert groups.mean().between(0.45, 0.65).all()


def test_complete_samples(density_of_incomplete):
    density = density_of_incomplete
    assert density.sample(100, random_state=0, complete=True).notna().all(axis=None)
    given = density.condition({"a": 1.0})
    assert given.sample(100, random_state=0, complete=True).notna().all(axis=None)
    assert given.sample(100, random_state=0)["b"].isna().mean() > 0.5


def test_given_values_are_not_missing(density_of_incomplete):
    """A column that is missing together with a given one is known too."""
    drawn = density_of_incomplete.sample(500, given={"c": 0.0, "a": 1.0}, random_state=0)
    missing = drawn.isna().mean()
    assert missing["c"] == missing["d"] == 0 and missing["b"] > 0.5
    asked = pd.DataFrame({"c": [0.0, np.nan]})
    drawn = density_of_incomplete.sample(300, given=asked, random_state=0)
    known = drawn["c"].notna().to_numpy()
    assert known[:300].all() and 0.5 < known[300:].mean() < 0.9


def test_what_given_values_tell_may_be_missing():
    """The sum of given terms, and the status that a given reason implies, as often as in rows."""
    rng = np.random.default_rng(0)
    n = 500
    status = rng.choice(["active", "on leave", "left"], n, p=[0.7, 0.1, 0.2])
    table = pd.DataFrame({"status": status, "net": np.round(rng.lognormal(4, 0.8, n), 2)})
    table["reason"] = pd.Series(rng.choice(["moved", "retired"], n)).where(status == "left")
    table["fee"] = np.round(rng.lognormal(2, 0.5, n), 2)
    table["total"] = np.round(table["net"] + table["fee"], 2).mask(rng.random(n) < 0.4)
    table["status"] = table["status"].mask(rng.random(n) < 0.4)
    density = quick(max_iter=20).fit(table)
    assert density.rules_["rule"].tolist() == ["total = net + fee"]
    drawn = density.sample(MANY, given={"reason": "moved", "net": 50.0, "fee": 8.0}, random_state=0)
    for name, value in ("status", "left"), ("total", 58.0):
        assert drawn[name].isna().mean() == pytest.approx(0.4, abs=0.08)
        assert (drawn[name].dropna() == value).all()


def test_missing_values_agree_with_what_rules_tell(keep_components):
    """A code tells its chapter, and only rows of a chapter have a result, as only its codes do."""
    keep_components(lambda component: component.is_trained)
    rng = np.random.default_rng(0)
    chapter = {"E1": "E", "E2": "E", "I1": "I", "J1": "J", "J2": "J", "M1": "M"}
    table = pd.DataFrame({"code": rng.choice([*chapter], 400, p=[0.1, 0.1, 0.3, 0.2, 0.2, 0.1])})
    table["chapter"], is_e = table["code"].map(chapter), table["code"].str.startswith("E")
    table["result"] = pd.Series(rng.normal(size=400)).where(is_e)
    density = quick().fit(table)
    assert "chapter follows from code" in density.rules_["rule"].tolist()
    drawn = density.sample(1_000, random_state=0)
    assert (drawn["result"].notna() == drawn["code"].str.startswith("E")).all()


def test_rows_that_break_orders_keep_what_given_values_tell():
    """Although the values that they have drawn, which stay, may be missing."""
    rng = np.random.default_rng(0)
    n = 600
    status = rng.choice(["active", "on leave", "left"], n, p=[0.7, 0.1, 0.2])
    table = pd.DataFrame({"status": pd.Series(status).mask(rng.random(n) < 0.4)})
    stage = rng.normal(size=n)
    for k in range(4):
        table[f"stage {k}"] = stage.round(3)
        stage = stage + rng.gamma(0.5, 0.1, n)
    table["reason"] = pd.Series(rng.choice(["moved", "retired"], n)).where(status == "left")
    density = quick(max_iter=1).fit(table)
    assert (density.rules_["kind"] == "order").sum() >= 3
    drawn = density.sample(2_000, given={"reason": "moved"}, random_state=0)["status"]
    assert set(drawn.dropna()) == {"left"}
    assert drawn.isna().mean() == pytest.approx(0.4, abs=0.08)


def test_conditions_in_place_of_a_seed_are_an_error(density_of_incomplete):
    with pytest.raises(TypeError, match="give conditions by name"):
        density_of_incomplete.sample(2, {"a": 1.0})
    with pytest.raises(TypeError, match="DataFrame; give conditions by name"):
        density_of_incomplete.sample(2, pd.DataFrame({"a": [1.0]}))


def test_no_sample_lacks_all_values():
    """Even if all columns have missing values, most of them."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2))
    X[np.arange(400), rng.integers(0, 2, 400)] = np.nan  # one of two
    X[:4] = np.nan
    density = quick(max_iter=1).fit(X)
    assert (np.isnan(density.sample(1000, random_state=0)).sum(axis=1) == 1).all()


def test_missing_values_of_a_stored_density(density_of_incomplete, tmp_path):
    density_of_incomplete.save(tmp_path / "m")
    drawn = skflows.load(tmp_path / "m").sample(200, random_state=0)
    pd.testing.assert_frame_equal(drawn, density_of_incomplete.sample(200, random_state=0))


@pytest.mark.parametrize("has_dates", [False, True])
def test_networks_do_not_prefer_rows_with_known_values(keep_components, has_dates):
    """A column that only some rows have does not change the distribution of the others.

    Not even dates with seasons, which networks draw first otherwise.
    """
    keep_components(lambda component: component.is_trained)
    rng = np.random.default_rng(0)
    n = 500
    kind = rng.choice(["p", "q"], n, p=[0.3, 0.7])
    table = pd.DataFrame({"a": rng.normal(size=n), "kind": kind, "b": rng.normal(size=n)})
    if has_dates:
        table["a"] = pd.date_range("2020-01-01", "2023-12-31", n).floor("D")
    table["a"] = table["a"].where(kind == "p")
    drawn = quick(max_iter=40).fit(table).sample(MANY, random_state=0)
    assert (drawn["kind"] == "p").mean() == pytest.approx((kind == "p").mean(), abs=0.06)
    assert (drawn["a"].notna() == (drawn["kind"] == "p")).mean() > 0.98


def test_dates_with_seasons_come_first_beside_missing_values(keep_components):
    """What a network draws after the date follows the season, whatever other columns lack."""
    keep_components(lambda component: component.is_trained)
    rng = np.random.default_rng(0)
    n = 800
    day = pd.Series(pd.date_range("2019-01-01", "2023-12-31", n).floor("D"))
    quarter = day.dt.quarter.to_numpy()
    table = pd.DataFrame({"day": day})
    for name in "ab":
        table[name] = np.where(rng.random(n) < 0.9, quarter, rng.integers(1, 5, n)).astype(str)
    table["x"] = pd.Series(rng.normal(size=n)).mask(rng.random(n) < 0.3)
    drawn = quick(max_iter=40).fit(table).sample(MANY, random_state=0)
    same = drawn["a"] == drawn["day"].dt.quarter.astype(str)
    assert same.mean() > 0.67  # of the rows .92; with the date last .56


def test_rows_of_two_sorts_in_one_table():
    """Doses and measurements: what only one sort has does not change the shares of both."""
    rng = np.random.default_rng(0)
    n = 800
    patient, is_dose = rng.integers(0, 20, n), rng.random(n) < 0.6
    table = pd.DataFrame({"patient": patient, "time": np.round(rng.exponential(60, n), 1)})
    weight = 60 + 2.5 * patient
    table["level"] = np.round(rng.gamma(6, 0.4, n), 1)
    table["dose"] = rng.choice([83, 100, 166, 201, 249, 300], n) + 10 * (patient > 12)
    table["weight"] = np.round(weight)
    table["level"] = table["level"].mask(is_dose)
    table["dose"] = table["dose"].where(is_dose)
    drawn = quick().fit(table).sample(MANY, random_state=0)
    assert (drawn["level"].isna() == drawn["dose"].notna()).mean() > 0.99
    assert drawn["dose"].notna().mean() == pytest.approx(is_dose.mean(), abs=0.04)


def test_numbers_outside_of_ranges_do_not_become_missing():
    """Rows are drawn again until their numbers lie within the ranges of their category."""
    rng = np.random.default_rng(0)
    n = 600
    is_rare = np.arange(n) % 20 == 0
    table = pd.DataFrame({"kind": np.where(is_rare, "rare", "common")})
    for name in "xyz":
        table[name] = np.where(is_rare, rng.uniform(4, 4.5, n), rng.normal(0, 3, n))
    numbers = table.iloc[:, 1:].mask(rng.random((n, 3)) < 0.3)
    table = table[["kind"]].join(numbers)
    density = quick(max_iter=1, n_orders=1).fit(table)
    drawn = density.sample(MANY, random_state=0, given={"kind": "rare"}).iloc[:, 1:]
    assert drawn.isna().mean(axis=None) == pytest.approx(numbers.isna().mean(axis=None), abs=0.03)


@pytest.fixture(scope="module")
def employees():
    """Employees: only those who left have a day and a reason of leaving."""
    rng = np.random.default_rng(0)
    n = 400
    status = rng.choice(["active", "on leave", "left"], n, p=[0.7, 0.1, 0.2])
    table = pd.DataFrame({"age": rng.integers(20, 65, n), "status": status})
    days = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 1400, n), unit="D")
    table["left_on"] = pd.Series(days).where(status == "left")
    table["reason"] = pd.Series(rng.choice(["moved", "retired"], n)).where(status == "left")
    return table


@pytest.fixture(scope="module")
def density_of_employees(employees):
    return quick().fit(employees)


@pytest.mark.parametrize("method", ["mode", "draw"])
def test_blanks_stay_where_no_row_of_a_category_has_a_value(
    density_of_employees, employees, method
):
    """Also where the category is imputed; other missing values are filled in."""
    gaps = employees.assign(status=employees["status"].where(employees.index % 7 > 0), age=np.nan)
    filled = density_of_employees.impute(gaps, method, keep_blanks=True, random_state=0)
    assert filled[["age", "status"]].notna().all(axis=None)
    for name in "left_on", "reason":
        assert (filled[name].notna() == (filled["status"] == "left")).all()
        known = gaps[name].notna()
        assert (filled[name][known] == gaps[name][known]).all()
    with pytest.warns(ColumnWarning, match="leave it by keep_blanks=True"):
        complete = density_of_employees.impute(gaps[:3], method, random_state=0)
    assert complete.notna().all(axis=None)


@pytest.mark.parametrize("given", [{"left_on": pd.Timestamp("2021-03-01")}, {"reason": "moved"}])
def test_a_known_value_rules_out_levels_whose_rows_all_lack_it(
    density_of_employees, employees, given
):
    density, known = density_of_employees, pd.DataFrame(given, index=range(3)).assign(age=40)
    table = known.reindex(columns=employees.columns)
    assert (density.sample(500, given=given, random_state=0)["status"] == "left").all()
    assert (density.impute(table)["status"] == "left").all()
    proba = density.predict_proba("status", table, as_frame=True)
    assert (proba["left"] > 0.95).all()
    assert (proba > 0).all(axis=None)  # one row of fit would be enough
    condition = density.condition(known).marginal("status")
    for level in proba:
        scores = condition.score_samples(pd.DataFrame({"status": [level] * 3}))
        np.testing.assert_allclose(scores, np.log(proba[level]), rtol=1e-9)


def test_unknown_or_contradictory_values_rule_out_no_level(density_of_employees, employees):
    shares = employees["status"].value_counts(normalize=True)
    drawn = density_of_employees.sample(MANY, given={"left_on": None}, random_state=0)
    drawn = drawn["status"].value_counts(normalize=True)
    assert (drawn - shares).abs().max() < 0.06
    given = {"reason": "moved", "status": "active"}
    with pytest.warns(ColumnWarning, match="'reason' where 'status' is 'active': all .* lack it"):
        drawn = density_of_employees.sample(20, given=given)
    assert (drawn["status"] == "active").all()


def test_a_rule_outweighs_a_known_value_that_contradicts_it():
    """The code of an active employee tells the status, whatever reason of leaving is known."""
    rng = np.random.default_rng(0)
    code = rng.choice([*"ABCD"], 500)
    status = pd.Series(code).map({"A": "active", "B": "active", "C": "on leave", "D": "left"})
    table = pd.DataFrame({"code": code, "status": status})
    table["reason"] = pd.Series(rng.choice(["moved", "retired"], 500)).where(status == "left")
    density = quick(max_iter=10).fit(table)
    with pytest.warns(ColumnWarning, match="'reason' where 'code' is 'A'"):
        drawn = density.sample(300, given={"code": "A", "reason": "moved"}, random_state=0)
    assert (drawn["status"] == "active").all()
    drawn = density.sample(300, given={"reason": "moved"}, random_state=0)
    assert (drawn["status"] == "left").all()


def test_what_only_a_group_has_does_not_change_its_share(keep_components):
    """Neither in answers given a few columns, nor by the ranges of numbers that the group has."""
    keep_components(lambda component: component.is_trained)
    rng = np.random.default_rng(0)
    n = 600
    age = np.where(rng.random(n) < 0.75, rng.integers(18, 80, n), rng.integers(0, 18, n))
    is_adult = age >= 18
    table = pd.DataFrame({"age": age, "group": np.where(is_adult, "adult", "child")})
    for name in "abcd":
        table[name] = rng.choice([*"xy"], n)
    for name in "pqrs":
        table[name] = pd.Series(rng.choice(["yes", "no"], n)).where(is_adult)
    density = quick(max_iter=60).fit(table)
    share = is_adult.mean()
    proba = density.predict_proba("group", table[[*"abcd"]], as_frame=True)
    assert proba["adult"].mean() == pytest.approx(share, abs=0.08)
    drawn = density.sample(1000, random_state=0)
    assert (drawn["age"] >= 18).mean() == pytest.approx(share, abs=0.08)
    assert (drawn["group"] == "adult").mean() == pytest.approx(share, abs=0.08)


def test_ranges_hold_for_numbers_that_are_missing_at_random():
    rng = np.random.default_rng(0)
    kind = np.where(np.arange(600) % 20 == 0, "rare", "common")
    x = np.where(kind == "rare", rng.uniform(4, 4.5, 600), rng.normal(0, 3, 600))
    table = pd.DataFrame({"kind": kind, "x": x, "y": rng.normal(size=600)})
    table.loc[rng.random(600) < 0.3, "x"] = np.nan
    seen = table["x"][kind == "rare"]
    density = quick(max_iter=1, n_orders=1).fit(table)
    for complete in (False, True):
        drawn = density.sample(1000, random_state=0, given={"kind": "rare"}, complete=complete)["x"]
        assert drawn.dropna().between(seen.min(), seen.max()).mean() > 0.7


def test_draws_lie_no_further_out_than_what_is_given():
    """Relative to the width of what is within reach, although the model extrapolates."""
    rng = np.random.default_rng(0)
    x = rng.gamma(2.0, size=400)
    table = pd.DataFrame({"x": x.round(2), "y": np.exp(2 * x + rng.normal(size=400)).round(1)})
    density = quick(max_iter=1).fit(table)
    _, widest = density._schema.reach(200)
    with pytest.warns(ColumnWarning, match="far from"):
        drawn = density.sample(200, given={"x": 40.0}, random_state=0)
    assert (drawn["x"] == 40).all()
    assert drawn["y"].between(0, 40 / widest[0] * 1.1 * widest[1]).all()


def test_weights_count_for_missing_values():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2))
    X[:100, 1] = np.nan
    weight = np.where(np.isnan(X[:, 1]), 4.0, 1.0)
    drawn = quick(max_iter=1).fit(X, sample_weight=weight).sample(2000, random_state=0)
    assert np.isnan(drawn[:, 1]).mean() == pytest.approx(400 / 600, abs=0.05)


def test_a_table_with_the_rows_of_many_patterns(monkeypatch):
    """Of many rows, a sample of both complete and incomplete ones gives the shares."""
    monkeypatch.setattr(_missing, "MAX_ROWS", 100)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, 2))
    X[:100, 1] = np.nan
    drawn = quick(max_iter=1).fit(X).sample(4000, random_state=0)
    assert np.isnan(drawn[:, 1]).mean() == pytest.approx(100 / 1500, abs=0.015)


@pytest.mark.parametrize(
    ("draw", "low", "high"),
    [
        (lambda rng, n: rng.normal(size=n), 3.5, 8),
        (lambda rng, n: np.round(rng.normal(size=n), 1), 3.2, 8),
        (lambda rng, n: rng.uniform(size=n), 1, 1.1),
        (lambda rng, n: rng.lognormal(size=n), 40, 1000),
        (lambda rng, n: rng.standard_t(3, n), 25, 500),
    ],
)
def test_how_far_draws_reach(draw, low, high):
    """The largest of 20,000 draws is mostly within, and an absurd value is not.

    Limits from 1,000 rows are uncertain, above all those of heavy tails.
    """
    reaches = []
    for seed in range(20):
        x = draw(np.random.default_rng(seed), 1000)
        tail = UpperTail(x, np.ones(1000))
        assert tail.reach(20_000) >= tail.reach(100) >= x.max()
        reaches.append(tail.reach(20_000))
    assert low < np.quantile(reaches, 0.1) and np.quantile(reaches, 0.9) < high


def test_a_tail_of_few_rows_or_equal_values():
    """Few values show no limit; a tail of equal ones ends near them."""
    assert UpperTail(np.arange(10.0), np.ones(10)).reach(100) == np.inf
    x = np.repeat([0.0, 1.0], [50, 10])
    assert 1 <= UpperTail(x, np.ones(60)).reach(1000) < 10
    assert UpperTail(np.ones(60), np.ones(60)).reach(1000) == np.inf


@pytest.fixture(scope="module")
def heavy():
    rng = np.random.default_rng(2)
    a = rng.standard_t(2, 200)
    return pd.DataFrame({"a": a, "b": a + 0.1 * rng.normal(size=200)})


@pytest.fixture(scope="module")
def density_of_heavy(heavy):
    return quick().fit(heavy)


def test_no_sample_is_absurdly_far_out(density_of_heavy, heavy):
    low, high = density_of_heavy._schema.reach(20_000)
    assert (low > 100 * heavy.min()).all() and (high < 100 * heavy.max()).all()
    drawn = density_of_heavy.sample(20_000, random_state=0)
    assert ((drawn >= low) & (drawn <= high)).all(axis=None)
    quarters = [0.25, 0.5, 0.75]
    np.testing.assert_allclose(
        drawn["a"].quantile(quarters), heavy["a"].quantile(quarters), atol=0.3
    )
    filled = density_of_heavy.impute(
        pd.DataFrame({"a": np.repeat(np.nan, 2000), "b": 0.0}), "draw", random_state=0
    )
    assert filled["a"].between(low[0], high[0]).all()


def test_given_values_may_lie_far_out(density_of_heavy):
    """They stay, and so do values that depend on them."""
    far = 100 * density_of_heavy._schema.reach(20)[1][0]
    with pytest.warns(ColumnWarning, match="far from its values in fit"):
        drawn = density_of_heavy.sample(20, given={"a": far}, random_state=0)
    assert (drawn["a"] == far).all()
    assert drawn["b"].max() > density_of_heavy._schema.reach(20)[1][1]


def named_table(n=120):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "name": [f"Person {i} of {i % 7}" for i in range(n)],
            "size": rng.normal(size=n),
            "city": rng.choice([f"city {i}" for i in range(50)], n),
            "code": [f"0{1000 + i}" for i in range(n)],
        }
    )
    table["code"] = table["code"].where(table["size"] > -0.5)
    return table


@pytest.fixture(scope="module")
def density_of_names():
    message = r"'name', 'code' seem to name the rows \('name': \d+ of \d+ texts differ, 'code': "
    with pytest.warns(ColumnWarning, match=message):
        return quick().fit(named_table())


def test_texts_that_hardly_repeat_are_identifiers(density_of_names):
    decisions = density_of_names.columns_.set_index("column")
    assert decisions["kind"].tolist() == ["identifier", "continuous", "categorical", "identifier"]
    assert decisions["modelled as"]["name"] == "left out"
    assert decisions["missing"]["code"] == named_table()["code"].isna().sum()


def test_identifiers_do_not_count(density_of_names):
    """For scores and what else is asked of rows; they need not be there."""
    table = named_table()
    scores = density_of_names.score_samples(table)
    changed = table.assign(name="somebody", code=None)
    np.testing.assert_array_equal(density_of_names.score_samples(changed), scores)
    given = density_of_names.condition({"name": "somebody", "size": 1.0})
    assert given.columns == ["city"] and given.sample(3, random_state=0).shape == (3, 1)
    assert density_of_names.predict_proba("city", {"code": "x", "size": 1.0}).shape[0] == 1
    for ask in (
        density_of_names.marginal,
        lambda name: density_of_names.predict_proba(name, table),
    ):
        with pytest.raises(ValueError, match="leaves out, because they name the rows"):
            ask("name")


def test_samples_have_placeholders(density_of_names, tmp_path):
    """Numbered, and missing where identifiers are; no text of the fit is stored."""
    drawn = density_of_names.sample(300, random_state=0)
    assert drawn["name"].tolist() == [f"Name {i}" for i in range(1, 301)]
    known = drawn["code"].dropna()
    assert known.tolist() == [f"Code {i + 1}" for i in known.index]
    assert drawn["code"].isna()[drawn["size"] < -0.6].mean() > 0.9
    assert drawn["code"].isna()[drawn["size"] > -0.4].mean() < 0.1
    given = density_of_names.sample(2, given={"name": "somebody", "size": 1.0}, random_state=0)
    assert given["name"].tolist() == ["somebody"] * 2
    density_of_names.save(tmp_path / "m")
    loaded = skflows.load(tmp_path / "m")
    pd.testing.assert_frame_equal(loaded.sample(300, random_state=0), drawn)
    assert "Person" not in str(vars(loaded._encoding))


@pytest.mark.parametrize("method", ["mean", "draw"])
def test_imputation_leaves_identifiers(density_of_names, method):
    table = named_table()
    table.loc[3, ["size", "name"]] = None
    filled = density_of_names.impute(table, method, random_state=0)
    pd.testing.assert_frame_equal(filled[["name", "code"]], table[["name", "code"]])
    assert filled["size"].notna().all()


def test_kinds_of_identifiers_can_be_stated():
    """Either way, also for numbers."""
    table = named_table().drop(columns="code").assign(number=np.arange(120) % 100)
    kinds = {"name": "categorical", "number": "identifier"}
    density = quick(columns=kinds, handle_unknown="rare", max_iter=1).fit(table)
    assert density.columns_["kind"].tolist()[::3] == ["categorical", "identifier"]
    drawn = density.sample(50, random_state=0)
    assert drawn["number"].tolist() == list(range(1, 51))
    assert drawn["number"].dtype == table["number"].dtype
    assert set(drawn["name"]) <= set(table["name"])


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("values", ["number", "text", "date", "boolean", "categorical", "zoned"])
def test_placeholders_of_any_dtype(values, library):
    """Of what is no number, they are texts; given values stay."""
    table = pd.DataFrame({"id": range(60), "size": np.linspace(0, 1, 60) ** 2})
    days = pd.date_range("2024-01-01", periods=60)
    table["id"] = {
        "number": table["id"],
        "text": [f"a{i}" for i in range(60)],
        "date": days,
        "boolean": table["id"] % 3 == 0,
        "categorical": pd.Categorical([f"a{i % 7}" for i in range(60)]),
        "zoned": days.tz_localize("Europe/Berlin"),
    }[values]
    X = table
    if library == "polars":
        X = pytest.importorskip("polars").DataFrame(table.astype({"id": object}).to_dict("list"))
    density = quick(columns={"id": "identifier"}, max_iter=1).fit(X)
    expected = [1, 2, 3] if values == "number" else ["Id 1", "Id 2", "Id 3"]
    assert list(density.sample(3, random_state=0)["id"]) == expected
    some = X[3:5]
    given = density.sample(1, given=some, random_state=0)
    assert list(given["id"]) == list(some["id"])
    mixed = table[3:5].astype({"id": object})
    mixed.loc[3, "id"] = None
    drawn = list(density.sample(1, given=mixed, random_state=0)["id"])
    assert drawn == [expected[0], table["id"][4] if values == "number" else str(table["id"][4])]


def test_placeholders_of_arrays_of_dates_and_booleans():
    numbers = np.arange(60)
    for X in (
        np.stack([numbers % 3 == 0, numbers % 2 == 0], axis=1),
        np.datetime64("2024-01-01") + np.stack([numbers, numbers**2 % 101], axis=1),
    ):
        density = quick(columns={0: "identifier"}, max_iter=1).fit(X)
        drawn = density.sample(2, random_state=0)
        assert drawn[:, 0].tolist() == ["X0 1", "X0 2"]
        assert set(drawn[:, 1]) <= {True, False} or np.all(
            drawn[:, 1] > np.datetime64("2023-01-01")
        )


def test_placeholders_of_arrays_and_polars():
    table = named_table().drop(columns=["city", "code"])
    with pytest.warns(ColumnWarning, match="column '0' seems to name the rows"):
        density = quick(max_iter=1).fit(table.to_numpy(dtype=object))
    assert density.sample(2, random_state=0)[:, 0].tolist() == ["X0 1", "X0 2"]
    pl = pytest.importorskip("polars")
    with pytest.warns(ColumnWarning, match="column 'name' seems to name the rows"):
        density = quick(max_iter=1).fit(pl.DataFrame(table.to_dict("list")))
    drawn = density.sample(2, random_state=0)
    assert drawn["name"].to_list() == ["Name 1", "Name 2"]


def test_a_table_of_identifiers_only_is_an_error():
    with (
        pytest.warns(ColumnWarning, match="column 'name' seems to name"),
        pytest.raises(ValueError, match="only columns that name the rows"),
    ):
        quick().fit(named_table()[["name"]])


@pytest.mark.parametrize("library", ["pandas", "polars", "numpy"])
def test_columns_without_a_value_are_left_out(library, one_class, tmp_path):
    """Samples have them, without a value; later values are ignored."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"none": None, "x": rng.normal(size=60), "nan": np.nan, "y": range(60)})
    table.loc[::9, "y"] = np.nan
    make = {
        "pandas": lambda t: t,
        "polars": pl.DataFrame,
        "numpy": lambda t: t.drop(columns="none").to_numpy(float),
    }[library]
    with pytest.warns(ColumnWarning, match="no known value in 60 rows: .* missing in samples"):
        density = quick(max_iter=1).fit(make(table))
    density.save(tmp_path / "m")
    density = skflows.load(tmp_path / "m")
    drawn = density.sample(30, random_state=0)
    assert type(drawn) is type(make(table)) and drawn.shape == (30, make(table).shape[1])
    is_missing = pd.DataFrame(np.array(drawn, dtype=float)).isna().mean().tolist()[-3:]
    assert is_missing[0] == 0 and is_missing[1] == 1 and 0 < is_missing[2] < 1
    if library == "numpy":
        return
    scores = density.score_samples(make(table))
    np.testing.assert_array_equal(
        density.score_samples(make(table.assign(none="x", nan=1.0))), scores
    )
    assert density.sample(9, given={"x": 0.5, "none": None}, complete=True)["y"].shape == (9,)
    with pytest.raises(ValueError, match="have no known value"):
        density.sample(9, given={"none": "x"})
    filled = pd.DataFrame(np.array(density.impute(make(table)), dtype=float)).isna().sum()
    assert filled.tolist() == [60, 0, 60, 0]


def test_few_or_repeated_texts_are_no_identifiers():
    """Twenty rows show it, of which half differ, whether rare ones are pooled or not."""
    table = named_table(19)[["name", "size"]]
    assert quick(max_iter=1).fit(table).columns_["kind"][0] == "categorical"
    table = named_table()[["name", "size"]]
    table["name"] = table["name"].where(table.index % 5 > 0, "nobody")
    for unknown in ("warn", "rare"):
        match = "'name' seems to name .* since 97 of 120 texts differ"
        with pytest.warns(UserWarning, match=match):
            density = quick(max_iter=1, handle_unknown=unknown).fit(table)
        decided = density.columns_.iloc[0]
        assert (decided["kind"], decided["reason"]) == ("identifier", "97 of 120 texts differ")
    table["name"] = table["name"].where(table.index % 5 > 3, "nobody")
    assert quick(max_iter=1).fit(table).columns_["kind"][0] == "categorical"


def test_wrappers_take_identifiers():
    table = named_table()
    estimator = quick(max_iter=1)
    with pytest.warns(ColumnWarning, match="seem to name the rows"):
        classifier = DensityClassifier(estimator).fit(table, table["size"] > 0)
    changed = table.assign(name="somebody", code=None)
    proba = classifier.predict_proba(table)
    np.testing.assert_array_equal(classifier.predict_proba(changed), proba)
    assert classifier.score(table, table["size"] > 0) > 0.9
    with pytest.warns(ColumnWarning, match="seem to name the rows"):
        detector = DensityOutlierDetector(estimator).fit(table)
    contributions = detector.explain(table[:5])
    np.testing.assert_allclose(contributions[:, 0], contributions[:, 3])  # the shared base
    np.testing.assert_allclose(contributions.sum(axis=1), detector.score_samples(table[:5]))


def test_rare_categories_go_with_the_rest_of_a_row_as_in_the_data(tmp_path):
    """Most towns of two rows have both in the same state; nothing else goes with them."""
    rng = np.random.default_rng(0)
    state = np.repeat(rng.choice(list("ABCDEF"), 150), 2)
    state[::2] = np.where(rng.uniform(size=150) < 0.3, rng.choice(list("ABCDEF"), 150), state[::2])
    town = [f"town {k // 2}" for k in range(300)]
    table = pd.DataFrame({"town": town, "state": state, "luck": rng.choice(list("xyz"), 300)})
    density = quick(handle_unknown="rare", max_iter=1).fit(table)
    assert density.rules_.empty
    seen = set(zip(table["town"], table["state"], strict=True))
    density.save(tmp_path / "towns.skflows")
    for one in (density, skflows.load(tmp_path / "towns.skflows")):
        drawn = one.sample(500, random_state=0)
        assert set(zip(drawn["town"], drawn["state"], strict=True)) <= seen
        assert drawn["town"].nunique() > 100
    luck = pd.crosstab(drawn["town"], drawn["luck"]).gt(0).sum(axis=1)
    assert (luck > 1).mean() > 0.5
    given = density.sample(200, given={"state": "B"}, random_state=0)
    assert set(given["town"]) <= set(table["town"][state == "B"])
    assert (density.sample(9, given={"town": "town 7"}, random_state=0)["town"] == "town 7").all()
    filled = density.impute(table.assign(town=None), "draw", random_state=0)
    assert set(zip(filled["town"], filled["state"], strict=True)) <= seen


def test_rare_categories_that_go_with_nothing_are_drawn_by_their_shares():
    rng = np.random.default_rng(0)
    town = np.repeat(np.arange(150), 2).astype(str)
    table = pd.DataFrame({"town": town, "state": rng.choice(list("ABCDEF"), 300)})
    drawn = quick(handle_unknown="rare", max_iter=1).fit(table).sample(500, random_state=0)
    unseen = set(zip(drawn["town"], drawn["state"], strict=True))
    assert len(unseen - set(zip(table["town"], table["state"], strict=True))) > 100


def test_numbers_leave_the_range_of_their_category_as_rarely_as_rows_do(monkeypatch):
    """Classes of independent columns mix the rare category with others."""
    keep_components(monkeypatch, lambda each: each.name == "binned classes of 4")
    rng = np.random.default_rng(0)
    kind = np.repeat(["plain", "better", "first"], [120, 64, 16])
    price = np.repeat([100.0, 160.0, 700.0], [120, 64, 16]) * rng.lognormal(0, 0.2, 200)
    table = pd.DataFrame({"kind": kind, "price": price, "other": rng.normal(size=200)})
    density = quick(max_iter=1).fit(table)
    own = table.loc[table["kind"] == "first", "price"]

    def outside(rows):
        assert set(rows["kind"]) == {"first"}
        return 1 - rows["price"].between(own.min(), own.max()).mean()

    drawn = density.sample(2_000, given={"kind": "first"}, random_state=0)
    everything = density.sample(2_000, random_state=0)
    ranges = density._schema.ranges
    assert outside(drawn) < 0.27  # 2 of 17, and what 2,000 draws leave open
    # Shares of categories stay.
    assert abs((everything["kind"] == "first").mean() - 0.08) < 0.03
    # The numbers that conditions state are not drawn, however far out.
    given = density.sample(5, given={"kind": "first", "price": 100.0}, random_state=0)
    assert given["price"].tolist() == [100.0] * 5
    monkeypatch.setattr(type(ranges), "__bool__", lambda self: False)
    assert outside(density.sample(2_000, given={"kind": "first"}, random_state=0)) > 0.7


@pytest.fixture(scope="module")
def often_at_an_end():
    """A fee that is 0 or 15 and more, full marks, and a balance that is often the largest one."""
    rng = np.random.default_rng(0)
    n = 400
    minutes = rng.gamma(20.0, size=n)
    is_paid = rng.uniform(size=n) < 0.4
    return pd.DataFrame(
        {
            "minutes": minutes,
            "fee": np.where(is_paid, np.round(15 + 1.5 * minutes + rng.normal(size=n), 2), 0.0),
            "marks": np.where(rng.uniform(size=n) < 1 / 6, 100, np.rint(rng.normal(50, 9, n))),
            "balance": np.rint(rng.normal(0, 60, n)).clip(max=80),
        }
    )


@pytest.fixture(scope="module")
def density_of_ends(often_at_an_end):
    return quick().fit(often_at_an_end)


ENDS = {"fee": 0.0, "marks": 100.0, "balance": 80.0}


def test_a_frequent_end_of_a_lattice_is_drawn_as_often_and_nothing_near_it(
    density_of_ends, often_at_an_end
):
    reasons = density_of_ends.columns_.set_index("column").reason
    drawn = density_of_ends.sample(MANY, random_state=0)
    for name, end in ENDS.items():
        assert reasons[name].endswith(f"often exactly {end:g}")
        share = (often_at_an_end[name] == end).mean()
        assert (drawn[name] == end).mean() == pytest.approx(share, abs=0.03)
    assert ((drawn["fee"] > 0) & (drawn["fee"] < 15)).mean() < 0.01
    assert ((drawn["marks"] > 80) & (drawn["marks"] < 100)).mean() < 0.01


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("fee", np.arange(12_001) / 100),
        ("marks", np.arange(101.0)),
        ("balance", np.arange(-400.0, 81)),
    ],
)
def test_distributions_with_a_frequent_end_are_the_scores(
    density_of_ends, often_at_an_end, name, values
):
    row = often_at_an_end[:1].drop(columns=name)
    conditional = density_of_ends.condition(row).marginal([name])
    expected = np.exp(conditional.score_samples(pd.DataFrame({name: values})))
    assert expected.sum() == pytest.approx(1, abs=1e-3)
    distribution = density_of_ends.predict_distribution(name, row)
    np.testing.assert_allclose(distribution.pmf(values[:, None])[:, 0], expected, atol=1e-4)
    end = ENDS[name]
    display = ConditionalDensityDisplay.from_estimator(density_of_ends, row, column=name)
    (probability,) = expected[values == end]
    assert display.atoms[end] == pytest.approx(probability, abs=1e-4)
    assert f"exactly {end:g}: {probability:.0%}" in display.axes_[0].get_title()


def test_quantiles_with_a_frequent_end(density_of_ends, often_at_an_end):
    rows = often_at_an_end[:3].drop(columns="fee")
    fee = density_of_ends.predict_distribution("fee", rows)
    assert ((fee.median() == 0) == (fee.pmf(0.0) > 0.5)).all() and (fee.ppf(0.1) == 0).all()
    assert (density_of_ends.quantile("fee", rows, 0.1) == 0).all()
    assert (fee.ppf(0.9) > 30).all()


def test_a_frequent_end_close_to_points_that_hardly_repeat():
    rng = np.random.default_rng(3)
    subtotal = np.rint(rng.lognormal(3.5, 0.8, 900))
    rate = rng.choice([0.0, 0.05, 0.1, 0.2], 900, p=[0.6, 0.2, 0.1, 0.1])
    discount = np.round(rate * subtotal, 2)  # multiples of .05
    table = pd.DataFrame({"subtotal": subtotal, "discount": discount})
    own = quick().fit(table)
    assert "often exactly 0" in own.columns_.reason[1]
    drawn = own.sample(MANY, random_state=0)["discount"]
    assert (drawn == 0).mean() == pytest.approx((discount == 0).mean(), abs=0.03)
    assert ((drawn > 0) & (drawn < np.min(discount[discount > 0]))).mean() < 0.01
    # Where a few numbers repeat, as losses for taxes do, their frequencies say more.
    losses = rng.choice([1485, 1590, 1672, 1740, 1848, 1887, 1902, 1977], 60) + rng.integers(
        3, size=60
    )
    table["discount"] = np.r_[np.zeros(840), losses]
    assert "often exactly" not in quick().fit(table).columns_.reason[1]


@pytest.mark.parametrize("noise", ["float32", "sum"])
def test_a_frequent_end_may_have_rounding_errors(noise):
    rng = np.random.default_rng(0)
    x = np.where(rng.uniform(size=300) < 0.3, -0.3, np.round(rng.gamma(9.0, size=300), 2) + 3)
    if noise == "sum":
        table = pd.DataFrame({"x": np.where(np.arange(300) % 2, x, x - 0.3 + 0.1 + 0.2)})
    else:
        table = pd.DataFrame({"x": x.astype(np.float32)})
    own = quick().fit(table)
    assert own.columns_.reason[0].endswith("often exactly -0.3")
    scores = own.score_samples(table)
    is_end = np.isclose(x, -0.3)
    assert np.exp(scores[is_end]) == pytest.approx(is_end.mean(), abs=0.03)
    assert np.exp(own.score_samples(pd.DataFrame({"x": [-0.3]}))) == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("missing", ["ignore", "model"])
def test_networks_add_drawn_values_to_the_sums_of_their_first_layer(missing, monkeypatch):
    keep_components(monkeypatch, lambda each: "network" in each.name)
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "a": rng.normal(size=300),
            "b": rng.choice(["x", "y", "z"], 300),
            "c": np.where(rng.random(300) < 0.4, 0, rng.lognormal(size=300)),
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 700, 300), "D"),
        }
    )
    table.loc[::5, "a"] = np.nan
    density = quick(missing=missing).fit(table)
    ends = np.cumsum([variable.n_features for variable in density._schema.variables])[:-1]
    first_sums, distribution = NetworkMember._sums, NetworkMember._distribution
    set_values, errors, seen = OrderAgnosticNetwork.set_values, [], {}

    def watched_sums(self, mlp, features, masks):
        seen["features"] = features.copy()
        return first_sums(self, mlp, features, masks)

    def watched_distribution(self, mlp, sums, values, masks, j):
        seen["call"] = self, mlp, sums, values, masks
        return distribution(self, mlp, sums, values, masks, j)

    def watched_set_values(self, values, rows, j, features):
        if not isinstance(rows, slice):  # those of the call before
            member, mlp, sums, values_of_rows, masks = seen["call"]
            features_of_rows = seen["features"][rows]
            errors.append(np.abs(sums - first_sums(member, mlp, features_of_rows, masks)).max())
            masks = masks, masks[:, self.layout.numbers]
            expected = member._values(features_of_rows)
            for mask, own, other in zip(masks, values_of_rows, expected, strict=True):
                if own is not None:
                    np.testing.assert_array_equal(own.numpy()[mask], other.numpy()[mask])
            np.split(seen["features"], ends, axis=1)[j][rows] = features
        set_values(self, values, rows, j, features)

    monkeypatch.setattr(NetworkMember, "_sums", watched_sums)
    monkeypatch.setattr(NetworkMember, "_distribution", watched_distribution)
    monkeypatch.setattr(OrderAgnosticNetwork, "set_values", watched_set_values)
    nothing = TableView(density._schema, np.full((1, len(ends) + 1), np.nan))
    for member, _ in density._members:
        for seed in range(20):
            member.sample(nothing, np.array([0]), np.random.RandomState(seed))
    assert len(errors) > 100 and max(errors) < 1e-5
