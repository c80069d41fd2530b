"""Missing values that count as 0, as sums show."""

import numpy as np
import pandas as pd
import pytest
from _tables import quick, two_components  # noqa: F401

from skflows import TableDensity, load
from skflows.columns.checks import ColumnWarning
from skflows.columns.encoding import Encoding
from skflows.table._blanks import blanks_of_sums

TERMS = {"discount": -1.0, "shipping": 1.0}


def orders(n=400, seed=0):
    """Return orders with a discount in some rows, and shipping unless they are from the store."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"channel": rng.choice(["web", "store"], n, p=[0.7, 0.3])})
    table["subtotal"] = np.round(rng.lognormal(4, 0.7, n), 2)
    discount = np.round(table["subtotal"] * rng.choice([0.05, 0.1, 0.2], n), 2)
    table["discount"] = discount.where(rng.uniform(size=n) < 0.3)
    table["shipping"] = pd.Series(rng.choice([4.9, 6.9, 9.9], n)).where(table["channel"] == "web")
    table["total"] = total_of(table)
    return table


def total_of(table):
    terms = sum(sign * table[name].fillna(0) for name, sign in TERMS.items())
    return np.round(table["subtotal"] + terms, 2)


@pytest.fixture(scope="module")
def density():
    with pytest.warns(ColumnWarning, match="'discount', 'shipping' counts as 0, as sums with"):
        return quick().fit(orders())


def test_sums_hold_in_samples_that_lack_a_term(density):
    drawn, table = density.sample(1000, random_state=0), orders()
    np.testing.assert_allclose(drawn["total"], total_of(drawn), atol=1e-6)
    shares = drawn.isna().mean() - table.isna().mean()
    assert shares.abs().max() < 0.07
    assert drawn.loc[drawn["channel"] == "store", "shipping"].isna().all()
    assert (drawn[["discount", "shipping"]] != 0).all(axis=None)  # they are blank
    assert "shipping = 0 where channel is 'store'" in set(density.rules_["rule"])


def test_complete_samples_have_zeros(density):
    drawn = density.sample(200, random_state=0, complete=True)
    assert drawn.notna().all(axis=None)
    assert (drawn.loc[drawn["channel"] == "store", "shipping"] == 0).all()


@pytest.mark.parametrize("method", ["mean", "median", "draw"])
def test_totals_are_imputed_without_what_is_blank(density, method):
    table = orders(60, seed=1)
    lacking = table.assign(total=np.nan)
    filled = density.impute(lacking, method, random_state=0)
    np.testing.assert_allclose(filled["total"], table["total"], atol=1e-6)
    pd.testing.assert_frame_equal(filled[[*TERMS]], table[[*TERMS]].fillna(0.0))
    blank = density.impute(lacking, method, keep_blanks=True, random_state=0)
    pd.testing.assert_frame_equal(blank[[*TERMS]], table[[*TERMS]])


@pytest.mark.parametrize("method", ["mean", "mode", "draw"])
def test_a_blank_is_imputed_as_its_total_tells(density, method):
    """The discount was lost; the shipping of orders from the store is 0."""
    table = orders(80, seed=3)
    lacking = table.assign(discount=np.nan)
    filled = density.impute(lacking, method, random_state=0)
    pd.testing.assert_frame_equal(filled[[*TERMS]], table[[*TERMS]].fillna(0.0))
    blank = density.impute(lacking, method, keep_blanks=True, random_state=0)
    pd.testing.assert_frame_equal(blank[[*TERMS]], table[[*TERMS]])


@pytest.mark.parametrize("method", ["median", "draw"])
def test_several_blanks_are_imputed_so_that_the_total_holds(density, method):
    table = orders(80, seed=3)
    filled = density.impute(table.assign(discount=np.nan, shipping=np.nan), method, random_state=0)
    np.testing.assert_allclose(filled["total"], total_of(filled), atol=1e-6)
    # A total that no discount explains leaves the blanks at 0.
    wrong = pd.DataFrame({"channel": ["store"], "subtotal": 50.0, "discount": 5.0, "total": 90.0})
    filled = density.impute(wrong.assign(shipping=np.nan)[[*table]], method, random_state=0)
    assert filled["shipping"].item() == 0


def test_blanks_of_other_sums_stay_0():
    """A total that no discount explains says nothing about extra minutes."""
    table, rng = orders(), np.random.default_rng(5)
    table["planned"] = np.round(rng.normal(300, 40, len(table)))
    extra = pd.Series(np.round(rng.gamma(2, 30, len(table))))
    table["extra"] = extra.where(rng.uniform(size=len(table)) < 0.4)
    table["minutes"] = table["planned"] + table["extra"].fillna(0)
    with pytest.warns(ColumnWarning, match="'discount', 'shipping', 'extra' counts as 0"):
        density = quick().fit(table)
    some = table[(table["channel"] == "web") & table["discount"].isna() & table["extra"].isna()]
    filled = density.impute(some.assign(total=some["total"] + 1, minutes=np.nan), "mean")
    assert (filled[["discount", "extra"]] == 0).all(axis=None)
    np.testing.assert_allclose(filled["minutes"], some["planned"])


def test_a_blank_is_told_by_way_of_an_unknown_sum():
    rng, n = np.random.default_rng(0), 500
    table = pd.DataFrame({"subtotal": np.round(rng.lognormal(4, 0.7, n), 2)})
    discount = np.round(table["subtotal"] * rng.choice([0.05, 0.1, 0.2], n), 2)
    table["discount"] = discount.where(rng.uniform(size=n) < 0.4)
    table["net"] = np.round(table["subtotal"] - table["discount"].fillna(0), 2)
    table["shipping"] = rng.choice([4.9, 6.9, 9.9], n)
    table["gross"] = np.round(table["net"] + table["shipping"], 2)
    with pytest.warns(ColumnWarning, match="counts as 0"):
        density = quick().fit(table)
    filled = density.impute(table.assign(discount=np.nan, net=np.nan))
    np.testing.assert_allclose(filled, table.fillna(0.0), atol=1e-6)


def test_a_blank_scores_as_0(density, tmp_path):
    table = orders(40, seed=2)
    scores = density.score_samples(table)
    np.testing.assert_array_equal(density.score_samples(table.fillna(0.0)), scores)
    density.save(tmp_path / "orders.skflows")
    np.testing.assert_array_equal(load(tmp_path / "orders.skflows").score_samples(table), scores)
    table["total"] += 1  # a wrong total, also where a term is blank
    assert (density.score_samples(table) < scores).all()


def test_a_row_that_lacks_all_other_terms_has_an_unknown_value(density):
    lacking = pd.DataFrame({name: [np.nan, 50.0] for name in ("subtotal", "total", "shipping")})
    lacking = lacking.assign(channel="web", discount=np.nan)
    values = density._variables(lacking[[*orders()]])
    of_discount = density._schema.of_column[density._schema.names.index("discount")]
    assert np.isnan(values[0, of_discount]).all() and values[1, of_discount] == 0


def test_known_zeros_are_written_as_zeros():
    table = orders()
    table.loc[table["discount"].isna() & (np.arange(len(table)) % 2 == 0), "discount"] = 0.0
    with pytest.warns(ColumnWarning, match="counts as 0"):
        drawn = quick().fit(table).sample(300, random_state=0)
    assert drawn["discount"].notna().all() and (drawn["discount"] == 0).mean() > 0.5
    np.testing.assert_allclose(drawn["total"], total_of(drawn), atol=1e-6)


@pytest.mark.parametrize(
    "settings", [{"columns": {"discount": "bounded", "shipping": "bounded"}}, {"rules": False}]
)
def test_blanks_are_unknown_values_if_the_user_says_so(settings):
    density = quick(max_iter=1, **settings).fit(orders(150))
    counts = density.columns_.set_index("column")["missing"]
    assert counts[[*TERMS]].tolist() == orders(150)[[*TERMS]].isna().sum().tolist()


def blanks_of(table):
    encoding, rows = Encoding.read(table, finds_identifiers=True)
    return {table.columns[j] for j in blanks_of_sums(encoding, rows)}


def test_values_missing_at_random_are_no_zeros():
    table, rng = orders(), np.random.default_rng(3)
    for name in ("total", "subtotal"):
        table[name] = table[name].where(rng.uniform(size=len(table)) < 0.85)
    assert blanks_of(table) == {"discount", "shipping"}
    full = orders().assign(shipping=5.0 + np.round(rng.gamma(2, 2, len(table)), 2))
    full["total"] = total_of(full)
    full["shipping"] = full["shipping"].where(rng.uniform(size=len(table)) < 0.7)
    assert blanks_of(full) == {"discount"}


def test_rows_without_any_amount_are_no_zeros():
    """Cancelled orders have no amounts: 0 = 0 - 0 + 0 says nothing of them."""
    table = orders()
    table.loc[:120, ["subtotal", "total", *TERMS]] = np.nan
    assert blanks_of(table) == {"discount", "shipping"}


def test_payslips_with_many_parts_that_may_be_blank():
    rng, n = np.random.default_rng(0), 500
    table = pd.DataFrame({"gross": np.round(rng.normal(3000, 600, n), 2)})
    table["tax"] = np.round(table["gross"] * rng.uniform(0.15, 0.25, n), 2)
    bonus, pension = (pd.Series(np.round(rng.gamma(2, scale, n), 2)) for scale in (200, 60))
    table["bonus"] = bonus.where(rng.uniform(size=n) < 0.1)
    table["pension"] = pension.where(table["bonus"].isna() & (rng.uniform(size=n) < 0.6))
    table["fee"] = pd.Series(12.5, index=table.index).where(rng.uniform(size=n) < 0.5)
    signs = {"gross": 1, "tax": -1, "bonus": 1, "pension": -1, "fee": -1}
    table["net"] = np.round(sum(s * table[name].fillna(0) for name, s in signs.items()), 2)
    # No row has all of them, and one has a single value.
    assert table.notna().all(axis=1).sum() == 0
    assert blanks_of(table) == {"bonus", "pension", "fee"}


def test_a_blank_counts_in_a_part_of_a_pipeline():
    """Folds of a wrapper share what all rows show."""
    from skflows import DensityOutlierDetector

    table = orders(300)
    detector = DensityOutlierDetector(TableDensity(max_iter=2, n_orders=2), cv=2, random_state=0)
    with pytest.warns(ColumnWarning, match="counts as 0"):
        detector.fit(table)
    wrong = table.iloc[:20].copy()
    wrong["total"] += 100
    assert (detector.score_samples(wrong) < detector.score_samples(table.iloc[:20])).all()


def test_alternatives_are_no_parts():
    """A patient has the outcome with or without treatment, and a ledger has both signs."""
    rng, n = np.random.default_rng(0), 300
    first, second = (pd.Series(np.round(rng.gamma(3, scale, n), 2)) for scale in (20, 30))
    is_first = rng.uniform(size=n) < 0.5
    table = pd.DataFrame({"treated": first.where(is_first), "control": second.where(~is_first)})
    assert blanks_of(table.assign(outcome=np.where(is_first, first, second))) == set()
    change = np.where(is_first, first, -second)
    assert blanks_of(table.assign(change=change)) == {"treated", "control"}


def test_a_sum_of_parts_may_be_blank_with_them():
    """The promotion is a part of the discount, which is a part of the total."""
    rng, n = np.random.default_rng(0), 600
    parts = {name: pd.Series(np.round(rng.gamma(2, 5, n), 2)) for name in ("promo", "coupon")}
    table = pd.DataFrame({k: x.where(rng.uniform(size=n) < 0.4) for k, x in parts.items()})
    table["discount"] = np.round(table.sum(axis=1, min_count=1), 2)
    table["subtotal"] = np.round(rng.gamma(5, 20, n) + 50, 2)
    table["total"] = np.round(table["subtotal"] - table["discount"].fillna(0), 2)
    with pytest.warns(ColumnWarning, match="counts as 0"):
        density = quick().fit(table)
    scores = density.score_samples(table)
    np.testing.assert_array_equal(density.score_samples(table.fillna(0.0)), scores)
    pd.testing.assert_frame_equal(density.impute(table), table.fillna(0.0))


def test_what_a_category_tells_is_not_only_that_it_is_0():
    rng, n = np.random.default_rng(0), 400
    table = pd.DataFrame({"channel": rng.choice(["web", "phone", "store"], n)})
    table["subtotal"] = np.round(rng.lognormal(4, 0.7, n), 2)
    table["shipping"] = table["channel"].map({"web": 4.9, "phone": 6.9})
    table["discount"] = np.round(table["subtotal"] / 10, 2).where(rng.uniform(size=n) < 0.5)
    table["total"] = total_of(table)
    with pytest.warns(ColumnWarning, match="counts as 0"):
        drawn = quick().fit(table).sample(500, random_state=0)
    expected = drawn["channel"].map({"web": 4.9, "phone": 6.9}).rename("shipping")
    pd.testing.assert_series_equal(drawn["shipping"], expected)
