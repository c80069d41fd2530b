"""Rules by which a number is another one divided by a third."""

import numpy as np
import pandas as pd
import pytest
from _tables import quick, two_components  # noqa: F401

RULES = {
    "bmi = 10000 * weight / height**2",
    "per_metre = price / metres",
    "share = 100 * price / asked",
}


def flats_and_people(n=500, seed=0):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"weight": np.round(rng.normal(78, 14, n), 1)})
    table["height"] = np.round(rng.normal(172, 9, n))
    table["metres"] = np.round(rng.gamma(9, 10, n) + 20)
    table["asked"] = np.round(table["metres"] * rng.lognormal(8, 0.25, n), -2)
    table["price"] = np.round(table["asked"] * rng.uniform(0.8, 1, n), -2)
    return with_quotients(table)


def with_quotients(table):
    return table.assign(
        bmi=np.round(10_000 * table["weight"] / table["height"] ** 2, 1),
        per_metre=np.round(table["price"] / table["metres"]),
        share=np.round(100 * table["price"] / table["asked"], 2),
    )


def assert_kept(table):
    """Assert that quotients are right, up to halves that are rounded by the last bit."""
    for name, step in (("bmi", 0.1), ("per_metre", 1.0), ("share", 0.01)):
        error = np.abs(table[name] - with_quotients(table)[name])
        assert (error <= 1.01 * step).all() and (error > 0.01 * step).mean() < 0.01


@pytest.fixture(scope="module")
def density():
    return quick().fit(flats_and_people())


def test_quotients_are_found_and_kept_in_samples(density):
    rules = density.rules_
    assert set(rules.loc[rules["kind"] == "quotient", "rule"]) == RULES
    assert_kept(density.sample(500, random_state=0))


@pytest.mark.parametrize("given", [{"bmi": 30.0}, {"share": 95.0}, {"weight": 80.0, "bmi": 25.0}])
def test_samples_given_a_quotient_keep_it(density, given):
    drawn = density.sample(200, given=given, random_state=0)
    assert_kept(drawn)
    if len(given) == 2:
        np.testing.assert_allclose(drawn["height"], 179, atol=1)


@pytest.mark.parametrize("method", ["mean", "median", "draw"])
def test_quotients_and_what_is_divided_are_imputed(density, method):
    table = flats_and_people(60, seed=1)
    lacking = table.copy()
    lacking.loc[:19, ["bmi", "share"]] = np.nan
    lacking.loc[20:39, "weight"] = lacking.loc[40:, "price"] = np.nan
    filled = density.impute(lacking, method, random_state=0)
    assert_kept(filled.assign(share=with_quotients(filled)["share"]))
    np.testing.assert_allclose(filled["weight"], table["weight"], atol=0.3)  # a bmi is rounded
    np.testing.assert_allclose(filled["price"], table["price"], rtol=0.01)


def test_a_wrong_quotient_is_odd(density):
    table = flats_and_people(40, seed=2)
    wrong = table.assign(bmi=table["bmi"] + 1)
    assert (density.score_samples(wrong) < density.score_samples(table) - 4).all()


def test_a_total_of_few_pieces_is_a_product():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"price": np.round(rng.gamma(3, 10, 300) + 1, 2)})
    table["pieces"] = rng.integers(1, 9, 300)
    table["total"] = np.round(table["price"] * table["pieces"], 2)
    assert quick(max_iter=1).fit(table).rules_["rule"].tolist() == ["total = price * pieces"]


def test_divisors_of_0_and_indicators():
    """A share of nothing is missing, and nothing is divided by a flag."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"people": rng.poisson(3, 400), "flag": rng.integers(0, 2, 400)})
    table["members"] = rng.binomial(table["people"], 0.6)
    table["share"] = np.round(100 * table["members"] / table["people"].replace(0, np.nan), 1)
    table["amount"] = np.round(rng.gamma(3, 20, 400), 2)
    table["counted"] = table["amount"] * table["flag"]
    density = quick().fit(table)
    rules = density.rules_.set_index("rule")["kind"]
    assert rules["share = 100 * members / people"] == "quotient"
    assert rules["counted = flag * amount"] == "product"
    drawn = density.sample(400, random_state=0)
    some = drawn[(drawn["people"] > 0) & drawn["share"].notna()]
    np.testing.assert_allclose(some["share"], 100 * some["members"] / some["people"], atol=0.0501)
    assert np.isfinite(density.score_samples(drawn)).all()
