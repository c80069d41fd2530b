"""Dates that are another date plus a span of time for each value of a column."""

import numpy as np
import pandas as pd
import pytest
from _tables import quick, two_components  # noqa: F401

from skflows import load
from skflows.columns.checks import ColumnWarning

ENDS = {
    "trial": pd.DateOffset(days=14),
    "monthly": pd.DateOffset(months=1),
    "yearly": pd.DateOffset(months=12),
}
RULE = "end = start + a span for each plan"


def subscriptions(n=400, seed=0, custom=0.0):
    """Return subscriptions of four plans, of which the custom one may end at any time."""
    rng = np.random.default_rng(seed)
    shares = np.array([0.2, 0.5, 0.3]) * (1 - custom)
    table = pd.DataFrame({"plan": rng.choice([*ENDS, "custom"], n, p=[*shares, custom])})
    table["start"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 700, n), "D")
    table["end"] = expected_end(table)
    is_custom = table["plan"] == "custom"
    days = pd.to_timedelta(rng.integers(20, 300, is_custom.sum()), "D")
    table.loc[is_custom, "end"] = table.loc[is_custom, "start"] + days
    table["seats"] = 1 + rng.poisson(np.where(table["plan"] == "yearly", 9, 2))
    return table


def expected_end(table):
    end = pd.Series(pd.NaT, index=table.index, dtype=table["start"].dtype)
    for plan, span in ENDS.items():
        some = table["plan"] == plan
        end[some] = table.loc[some, "start"] + span
    return end


def assert_ends_follow(table):
    some = table["plan"] != "custom"
    assert some.any()
    assert (table["end"] == expected_end(table))[some].all()


@pytest.fixture(scope="module")
def density():
    return quick().fit(subscriptions(custom=0.1))


def test_rule_says_nothing_of_values_without_a_span(density):
    rules = density.rules_.set_index("rule")
    n_custom = (subscriptions(custom=0.1)["plan"] == "custom").sum()
    assert rules.loc[RULE].tolist() == ["linear", 0.0, 400 - n_custom]
    assert "start <= end" in rules.index  # which the spans of custom plans do not say


def test_samples_follow(density):
    drawn = density.sample(1000, random_state=0)
    assert_ends_follow(drawn)
    assert (drawn["start"] <= drawn["end"]).all()
    ends = subscriptions(60, seed=1)[["end"]]
    drawn = density.sample(given=ends, random_state=0)
    assert_ends_follow(drawn)
    assert (drawn["end"].to_numpy() == ends["end"].to_numpy()).all()


@pytest.mark.parametrize("method", ["mean", "draw"])
@pytest.mark.parametrize("column", ["plan", "start", "end"])
def test_each_column_is_told_by_the_others(density, column, method):
    table = subscriptions(60, seed=1)
    lacking = table.assign(**{column: None if column == "plan" else pd.NaT})
    filled = density.impute(lacking, method, random_state=0)
    assert_ends_follow(filled)
    if column != "start":  # of which several may be a month before the last day of one
        assert (filled[column] == table[column]).all()


def test_probabilities_and_quantiles(density):
    table = subscriptions(40, seed=2)
    probabilities = density.predict_proba("plan", table.assign(plan=None))
    levels = np.array(density.levels("plan"))
    assert (levels[probabilities.argmax(axis=1)] == table["plan"]).all()
    ends = pd.to_datetime(density.quantile("end", table, 0.3))
    assert (ends == table["end"]).all()
    later = table.assign(
        **{name: table[name] + pd.DateOffset(years=9) for name in ("start", "end")}
    )
    with pytest.warns(ColumnWarning, match="far from its values"):
        probabilities = density.predict_proba("plan", later.assign(plan=None))
    assert (levels[probabilities.argmax(axis=1)] == table["plan"]).all()


def test_wrong_ends_score_less(density, tmp_path):
    table = subscriptions(40, seed=2)
    scores = density.score_samples(table)
    later = table.assign(end=table["end"] + pd.Timedelta(days=1))
    assert (density.score_samples(later) < scores - 2).all()
    density.save(tmp_path / "plans.skflows")
    np.testing.assert_array_equal(load(tmp_path / "plans.skflows").score_samples(table), scores)


def test_a_rare_plan_counts_months_as_the_others():
    """The months in which its rows begin have 31 days."""
    table = subscriptions(custom=0.4)
    is_rare = table.index >= len(table) - 4
    table.loc[is_rare, "plan"] = "half"
    table.loc[is_rare, "start"] = pd.to_datetime(["2024-07-03", "2024-07-20", "2024-08-01"] * 2)[:4]
    table.loc[is_rare, "end"] = table.loc[is_rare, "start"] + pd.DateOffset(months=1)
    density = quick(max_iter=1).fit(table)
    given = {"plan": "half", "start": pd.Timestamp("2025-02-10"), "end": pd.NaT, "seats": 3}
    filled = density.impute(pd.DataFrame([given])[[*table]])
    assert filled["end"].item() == pd.Timestamp("2025-03-10")


def test_days_that_follow_at_other_times_of_day():
    table = subscriptions()
    table = table[table["plan"] != "custom"].replace({"plan": {"yearly": "trial"}})
    table["end"] = table["start"] + pd.to_timedelta(np.where(table["plan"] == "trial", 14, 30), "D")
    minutes = np.random.default_rng(0).integers(500, 1100, len(table))
    table["start"] += pd.to_timedelta(minutes, "min")
    density = quick().fit(table)
    rule = "day of end = day of start + a span for each plan"
    assert rule in set(density.rules_["rule"])
    drawn = density.sample(300, random_state=0)
    days = (drawn["end"] - drawn["start"].dt.normalize()).dt.days
    assert (days == np.where(drawn["plan"] == "trial", 14, 30)).all()
    filled = density.impute(table.head(50).assign(start=pd.NaT))
    assert (filled["start"].dt.normalize() == table["start"].head(50).dt.normalize()).all()


def test_spans_that_do_not_depend_on_a_column_have_no_rule():
    """A few wrong dates are no reason for a span for each value of some column."""
    table, rng = subscriptions(), np.random.default_rng(0)
    table["end"] = table["start"] + pd.Timedelta(days=14)
    table.loc[:3, "end"] += pd.Timedelta(days=2)
    table["branch"] = rng.choice([*"abcdefghijklmnopqrstuvwxyz"], len(table))
    assert quick(max_iter=1).fit(table).rules_["rule"].tolist() == ["end = start + 2 weeks"]
    table["end"] = table["start"] + pd.to_timedelta(rng.integers(1, 4, len(table)), "D")
    rules = quick(max_iter=1).fit(table).rules_["rule"]
    assert not rules.str.contains("for each").any()


def test_a_number_that_is_the_span_says_more():
    table = subscriptions().assign(plan="yearly")
    table["days"] = np.random.default_rng(0).choice([14, 30, 60], len(table))
    table["end"] = table["start"] + pd.to_timedelta(table["days"], "D")
    assert "end = start + days (days)" in set(quick(max_iter=1).fit(table).rules_["rule"])
