"""Numbers that are rounded to multiples of larger steps."""

import io

import numpy as np
import pandas as pd
import pytest
from _tables import few_components, quick  # noqa: F401
from numpy.testing import assert_allclose

import skflows
from skflows.table._heaps import Heaps


def prices(n=600, seed=0):
    """Return prices of which 10 % are exact, 20 % rounded to 5 and the others to 10, and sizes."""
    rng = np.random.default_rng(seed)
    size = rng.normal(size=n)
    exact = np.exp(5 + 0.5 * size + 0.3 * rng.normal(size=n))
    step = rng.choice([1, 5, 10], n, p=[0.1, 0.2, 0.7])
    price = step * np.rint(exact / step)
    return pd.DataFrame({"price": price.astype(int), "size": np.round(size, 3)})


@pytest.fixture(scope="module")
def density():
    return quick(columns={"price": ("count", 0, 990)}).fit(prices())


def test_steps_and_their_shares_are_found():
    price = prices(2000)["price"].to_numpy().astype(float)
    heaps = Heaps.of(price, np.ones(len(price)))
    assert heaps.steps.tolist() == [1, 5, 10]
    # Of the exact ones, a tenth and a fifth are multiples by chance; every second of the fives.
    assert_allclose(heaps.shares, [0.08, 0.11, 0.81], atol=0.02)


def test_chance_makes_no_heaps():
    rng = np.random.default_rng(0)
    found = [Heaps.of(np.rint(rng.normal(0, 300, 200)), np.ones(200)) for _ in range(200)]
    assert sum(each is not None for each in found) <= 1


def test_numbers_that_are_frequent_on_their_own_make_no_heaps():
    price = prices(2000)["price"].to_numpy().astype(float)
    price[::4] = 99
    assert Heaps.of(price, np.ones(len(price))) is None
    few = np.random.default_rng(0).choice(np.unique(price)[::2], 600)  # such as fixed tariffs
    assert Heaps.of(few, np.ones(len(few))).repeats(few) > 1.3
    assert Heaps.of(price[1::4], np.ones(500)).repeats(price[1::4]) < 1.2


def test_small_counts_make_no_heaps():
    """Hardly any is a multiple of 25, except for zeros."""
    rng = np.random.default_rng(0)
    for counts in (rng.poisson(np.exp(rng.normal(1, 2, 1000))), rng.geometric(0.02, 1000) - 1):
        assert Heaps.of(counts.astype(float), np.ones(1000)) is None


@pytest.mark.parametrize(("low", "high"), [(-np.inf, np.inf), (3, 47), (0, 50), (-20, np.inf)])
def test_cells_of_each_degree_divide_the_line(low, high):
    heaps = Heaps(np.array([1.0, 5.0, 10.0]), np.array([0.2, 0.3, 0.5]))
    numbers = np.arange(max(low, -100), min(high, 100) + 1)
    below, above = heaps.cells(numbers, low, high)
    assert ((below < numbers) & (numbers < above)).all()
    degree = heaps.degree(numbers)
    for k in range(3):
        some = degree == k
        assert (below[some][1:] == above[some][:-1]).all()
        assert np.isinf(below[some][0]) == np.isfinite(low)
        assert np.isinf(above[some][-1]) == np.isfinite(high)
    x = np.random.default_rng(0).uniform(numbers[0], numbers[-1], 5000)
    drawn = heaps.drawn(x, low, high, np.random.RandomState(0))
    assert (low <= drawn).all() and (drawn <= high).all()
    assert_allclose(np.bincount(heaps.degree(drawn)) / 5000, heaps.shares, atol=0.03)
    below, above = heaps.cells(drawn, low, high)
    assert ((below <= x) & (x <= above)).all()  # each was the nearest one of its degree


def test_probabilities_sum_to_one(density):
    variable = density._schema.variables[0]
    assert variable.heaps.steps.tolist() == [1, 5, 10]
    assert density.columns_["reason"][0].endswith("often multiples of 5, 10")
    every = pd.DataFrame({"price": np.arange(991), "size": np.nan})
    assert np.exp(density.marginal(["price"]).score_samples(every[["price"]])).sum() == (
        pytest.approx(1, abs=1e-9)
    )


def test_samples_are_rounded_as_the_rows(density):
    drawn = density.sample(3000, random_state=0)["price"]
    for step in (5, 10):
        assert (drawn % step == 0).mean() == pytest.approx(
            (prices()["price"] % step == 0).mean(), abs=0.03
        )
    assert drawn.between(0, 990).all()


def test_probabilities_of_values_are_the_scores(density):
    given = prices()[:3][["size"]]
    listed = density.predict_proba("price", given, as_frame=True)
    assert_allclose(listed.sum(axis=1), 1, atol=1e-9)
    for price in (0, 37, 45, 50):
        scores = density.condition(given).score_samples(pd.DataFrame({"price": [price] * 3}))
        assert_allclose(listed[price], np.exp(scores), rtol=1e-5, atol=1e-9)


def test_distributions_are_rounded_too(density):
    given = prices()[:3][["size"]]
    listed = density.predict_proba("price", given)
    distribution = density.predict_distribution("price", given)
    for price in (0, 37, 50, 988, 990):
        assert_allclose(
            distribution.cdf(price + 0.5), listed[:, : price + 1].sum(axis=1), atol=1e-9
        )
    median = density.quantile("price", prices(200, seed=1)[["size"]], 0.5)
    assert (median % 10 == 0).mean() > 0.6


@pytest.mark.parametrize(("factor", "shift"), [(0.01, 0.0), (0.05, 0.0), (1.0, -300.0)])
def test_other_steps_and_negative_numbers(factor, shift):
    table = pd.DataFrame({"x": np.round(factor * (prices()["price"] + shift), 2)})
    own = quick().fit(table)
    variable = own._schema.variables[0]
    assert variable.heaps.steps.tolist() == [1, 5, 10]
    drawn = own.sample(2000, random_state=0)["x"].to_numpy()
    assert_allclose(drawn, np.round(drawn, 2), atol=1e-12)
    tens = np.abs(np.rint(drawn / factor) % 10) == 0
    assert tens.mean() == pytest.approx(0.8, abs=0.05)
    every = np.round(factor * np.arange(-400 if shift else 0, 4000), 2)
    assert np.exp(own.score_samples(pd.DataFrame({"x": every}))).sum() == pytest.approx(1, abs=1e-3)


def test_frequent_ends_are_apart_from_heaps():
    table = prices(160)
    table.loc[::4, "price"] = 0
    own = quick().fit(table)
    variable = own._schema.variables[0]
    assert variable.atoms.tolist() == [0] and variable.heaps is not None
    drawn = own.sample(2000, random_state=0)["price"]
    assert (drawn == 0).mean() == pytest.approx(0.25, abs=0.05)
    assert (drawn[drawn > 0] % 10 == 0).mean() == pytest.approx(0.8, abs=0.08)


def test_held_out_prices_are_likelier_than_without_heaps(density, monkeypatch):
    monkeypatch.setattr(Heaps, "of", lambda numbers, weight: None)
    without = quick(columns={"price": ("count", 0, 990)}).fit(prices())
    others = prices(seed=1).query("price <= 990")
    assert density.score(others) > without.score(others) + 0.7


def test_files_hold_heaps(density):
    file = io.BytesIO()
    density.save(file)
    file.seek(0)
    loaded = skflows.load(file)
    assert (loaded.score_samples(prices()) == density.score_samples(prices())).all()
    assert loaded.sample(20, random_state=0).equals(density.sample(20, random_state=0))


def test_dates_have_no_heaps():
    """Though most are tenths of months since 1970."""
    number = np.random.default_rng(0).choice(np.arange(0, 600, 10), 90)
    number[:9] += 1
    assert Heaps.of(number.astype(float), np.ones(90)) is not None
    months = number.astype("datetime64[M]").astype("datetime64[ns]")
    own = quick(max_iter=1).fit(pd.DataFrame({"month": months, "x": np.arange(90) % 7}))
    assert own.columns_["modelled as"][0] == "month"
    assert own._schema.variables[0].heaps is None
