"""Samples of tables look like the rows: their missing values, tails and names."""

import numpy as np
import pandas as pd
import pytest
from _tables import few_components, quick  # noqa: F401

import skflows
from skflows.table import _missing

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
