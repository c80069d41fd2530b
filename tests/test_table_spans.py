"""The time between two dates of a row, which is a column of its own."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from _tables import few_components  # noqa: F401

from skflows import TableDensity, load
from skflows.table import _spans

pytestmark = pytest.mark.filterwarnings("ignore::skflows.columns.checks.ColumnWarning")
DAY = pd.Timedelta("1D")


@pytest.fixture
def no_network(keep_components):
    """Let densities have components without a network, which answers slowly."""
    keep_components(lambda component: not component.is_trained)


def stays(n=400, seed=0, times=False):
    """Stays in a hospital over three years: of a day or two, or of a week and more.

    Admitted in the daytime, with ``times``, patients are released at any time or, with
    ``times="mornings"``, between nine and eleven.
    """
    rng = np.random.default_rng(seed)
    ward = rng.choice(["surgery", "eyes"], n, p=[0.3, 0.7])
    days = np.where(ward == "surgery", 6 + rng.poisson(5, n), rng.integers(0, 3, n))
    admitted = pd.Timestamp("2022-01-01") + rng.integers(0, 1_000, n) * DAY
    span = pd.to_timedelta(days, unit="D")
    if times:
        admitted += pd.to_timedelta(rng.integers(7 * 3600, 18 * 3600, n), unit="s")
        span += pd.to_timedelta(rng.exponential(7_200, n).astype(int), unit="s")
    if times == "mornings":
        span += DAY - (admitted + span - (admitted + span).normalize())
        span += pd.to_timedelta(rng.integers(9 * 3600, 11 * 3600, n), unit="s")
    return pd.DataFrame({"admitted": admitted, "ward": ward, "released": admitted + span})


def quick(**params):
    return TableDensity(**{"max_iter": 5, "cv": 2, "random_state": 0} | params)


def days_of(table):
    return (table["released"] - table["admitted"]) / DAY


@cache
def fitted_to_stays(times=False):
    table = stays(times=times)
    table.attrs["times"] = times
    return table, quick().fit(table)


@pytest.fixture(params=[False, True, "mornings"], ids=str)
def fitted(request):
    return fitted_to_stays(request.param)


def test_spans_of_samples_are_those_of_rows(fitted):
    table, density = fitted
    assert "released = admitted + a span" in list(density.rules_["rule"])
    assert list(density.columns_["column"]) == list(table)
    drawn = density.sample(2_000, random_state=0)
    assert list(drawn) == list(table)
    for ward in ("surgery", "eyes"):
        real, synthetic = (days_of(rows[rows["ward"] == ward]) for rows in (table, drawn))
        quantiles = [0.1, 0.5, 0.9]
        assert synthetic.quantile(quantiles).to_numpy() == pytest.approx(
            real.quantile(quantiles).to_numpy(), abs=1.1
        )
        # Dates alone draw stays of months.
        assert synthetic.min() >= 0 and synthetic.quantile(0.99) < real.max() + 3


def test_spans_raise_the_likelihood_and_tell_rows_apart(fitted):
    table, density = fitted
    test = stays(seed=1, times=table.attrs["times"])
    assert density.score(test) > quick(rules=False).fit(table).score(test) + 0.3
    odd = test.copy()
    odd["released"] -= 30 * DAY
    assert (density.score_samples(odd) < density.score_samples(test) - 4).all()


def test_either_date_follows_from_the_other(fitted):
    table, density = fitted
    for given, other in (("admitted", "released"), ("released", "admitted")):
        row = table[table["ward"] == "surgery"].iloc[0]
        drawn = density.sample(50, given={given: row[given], "ward": "surgery"}, random_state=0)
        assert (drawn[given] == row[given]).all()
        assert days_of(drawn).between(3, 24).mean() > 0.9, other
        gaps = table.copy()
        gaps.loc[:49, other] = pd.NaT
        for method in ("median", "draw"):
            filled = density.impute(gaps, method, random_state=0)
            error = (filled[other] - table[other])[:50].abs() / DAY
            assert error.median() <= 1.5 and (days_of(filled) >= 0).all()
    # Where both are given, the time between them tells the ward.
    both = {"admitted": row["admitted"], "released": row["admitted"] + 14 * DAY}
    assert density.predict_proba("ward", both)[0, density.levels("ward").index("surgery")] > 0.9


def test_probabilities_of_a_date_sum_to_one():
    """Whichever of the dates is given, and whatever value a question holds for the other."""
    table, density = fitted_to_stays()
    row = table.iloc[0]
    days = pd.date_range(row["admitted"] - 120 * DAY, row["admitted"] + 120 * DAY)
    for given, other in (("admitted", "released"), ("released", "admitted")):
        for names in ([given], [given, "ward"]):
            asked = density.condition(row[names].to_dict())
            rest = [name for name in table if name not in names]
            if rest != [other]:
                asked = asked.marginal([other])
            total = np.exp(asked.score_samples(pd.DataFrame({other: days}))).sum()
            assert total == pytest.approx(1, abs=0.01)
            one = density.predict_distribution(other, pd.DataFrame([row[names]]))
            cumulated = np.cumsum(np.exp(asked.score_samples(pd.DataFrame({other: days}))))
            cdf = one.cdf(days.to_numpy()[:, None])[:, 0]
            assert cdf == pytest.approx(cumulated, abs=0.01)
        wrong = table.iloc[:5].assign(**{other: pd.Timestamp("2023-05-05")})
        dates = [density.quantile(other, rows, 0.5) for rows in (table.iloc[:5], wrong)]
        assert (dates[0] == dates[1]).all()
    joint = density.score_samples(table.iloc[:20])
    dates, ward = density.marginal(["admitted", "released"]), []
    for i in range(20):
        given = density.condition(table.iloc[i][["admitted", "released"]].to_dict())
        ward.append(given.score(table.iloc[[i]][["ward"]]))
    parts = dates.score_samples(table.iloc[:20][["admitted", "released"]]) + ward
    assert joint == pytest.approx(parts, abs=1)


def test_later_dates_keep_their_times_of_day(one_class):
    """Of which the densities, beside either date, integrate to one."""
    table = stays(times="mornings")
    density = quick().fit(table)
    drawn = density.sample(2_000, random_state=0)
    assert drawn["released"].dt.hour.isin([8, 9, 10, 11]).mean() > 0.95
    assert (drawn["admitted"] <= drawn["released"]).all()
    wide, step = 30 * DAY, pd.Timedelta("20min")
    for given, other in (("admitted", "released"), ("released", "admitted")):
        rows = table.iloc[:2][[given]]
        one = density.predict_distribution(other, rows)
        for k, (_, row) in enumerate(rows.iterrows()):
            moments = pd.date_range(row[given] - wide, row[given] + wide, freq=step)
            asked = density.condition(row.to_dict()).marginal([other])
            mass = np.exp(asked.score_samples(pd.DataFrame({other: moments + step / 2})))
            below = np.cumsum(mass) * step.total_seconds()
            assert below[-1] == pytest.approx(1, abs=0.02)
            cdf = one.cdf((moments + step).to_numpy()[:, None])[:, k]
            assert cdf == pytest.approx(below, abs=0.02)
        q = np.array([[0.1], [0.5], [0.9]])
        assert one.cdf(one.ppf(q)) == pytest.approx(np.repeat(q, 2, axis=1), abs=0.01)
        gaps = table[:100].assign(**{other: pd.NaT})
        for method in ("mean", "median", "draw"):
            filled = density.impute(gaps, method, random_state=0)
            assert filled["released"].dt.hour.between(7, 12).mean() > 0.95, method
            assert (filled["admitted"] <= filled["released"]).all()
            span = filled["released"] - filled["admitted"]
            assert (span % DAY != pd.Timedelta(0)).all(), method  # none has the other's time


def test_later_dates_keep_coarser_times_of_day(one_class):
    """Appointments at full half hours, on any of the days after a call at any minute."""
    rng = np.random.default_rng(0)
    called = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 180, 400), "D")
    days, half_hours = rng.integers(0, 6, 400), rng.integers(16, 36, 400)
    table = pd.DataFrame({"called": called + pd.to_timedelta(rng.integers(420, 480, 400), "min")})
    table["seen"] = called + pd.to_timedelta(days, "D") + pd.to_timedelta(30 * half_hours, "min")
    density = quick().fit(table)
    assert "seen = called + a span" in {*density.rules_["rule"]}
    drawn = density.sample(500, random_state=0)
    assert (drawn["seen"].dt.minute % 30 == 0).all()
    assert drawn["seen"].dt.hour.between(8, 17).all()
    # Two days later, to ten minutes: whole days would lose more than hours say.
    two_days = pd.to_timedelta(48 * 60 + rng.normal(0, 10, 400), "min")
    table["seen"] = (table["called"] + two_days).dt.round("h")
    drawn = quick().fit(table).sample(500, random_state=0)
    assert ((drawn["seen"] - drawn["called"]) / DAY).std() < 0.04


def test_spans_of_dates_with_and_without_times_have_whole_days(one_class):
    """The day of an order may be the day on which it is sent. Probabilities sum to one."""
    rng = np.random.default_rng(0)
    day = pd.Timestamp("2022-01-01") + rng.integers(0, 300, 400) * DAY
    booked = day - rng.integers(0, 5, 400) * DAY
    ordered = day + pd.to_timedelta(rng.integers(0, 86_400, 400), unit="s")
    table = pd.DataFrame({"booked": booked, "ordered": ordered})
    table["sent"] = day + rng.integers(0, 4, 400) * DAY
    density = quick().fit(table)
    rules = list(density.rules_["rule"])
    assert {"ordered = booked + a span", "sent = ordered + a span"} <= {*rules}
    assert {"booked <= ordered", "day of ordered <= sent"} <= {*rules}
    drawn = density.sample(500, random_state=0)
    late = (drawn["sent"] - drawn["ordered"].dt.normalize()) / DAY
    assert late.between(0, 3).mean() > 0.98 and (late == 0).mean() > 0.1
    days = pd.date_range(day.min() - 20 * DAY, day.max() + 20 * DAY)
    for name in ("booked", "sent"):
        asked = density.condition({"ordered": ordered[0]}).marginal([name])
        total = np.exp(asked.score_samples(pd.DataFrame({name: days}))).sum()
        assert total == pytest.approx(1, abs=0.02)


def test_numbers_of_days_between_dates_are_rules(one_class):
    """Whatever the times of day."""
    table = stays(times="mornings")
    table["days"] = (table["released"].dt.normalize() - table["admitted"].dt.normalize()) / DAY
    density = quick().fit(table)
    assert "day of released = day of admitted + days (days)" in list(density.rules_["rule"])
    for given in (None, {"days": 9.0}, {"released": table["released"][0]}):
        drawn = density.sample(200, given=given, random_state=0)
        days = drawn["released"].dt.normalize() - drawn["admitted"].dt.normalize()
        assert (days / DAY == drawn["days"]).all()
        assert (given and "released" in given) or drawn["released"].dt.hour.between(
            8, 11
        ).mean() > 0.95


def test_dates_have_the_distribution_of_an_unknown_number_of_days(no_network):
    """Beside the other date, as one with a span."""
    table = stays(times="mornings").drop(columns="ward")
    table["days"] = (table["released"].dt.normalize() - table["admitted"].dt.normalize()) / DAY
    density = quick().fit(table)
    for given, other, sign in (("admitted", "released", 1), ("released", "admitted", -1)):
        one = density.predict_distribution(other, table[[given]][:1])
        dates = one.ppf([[0.01], [0.5], [0.99]])[:, 0]
        days = sign * (pd.DatetimeIndex(dates) - table[given][0]) / DAY
        assert 0 < min(days) < max(days) < 21
        q = np.array([[0.1], [0.5], [0.9]])
        assert one.cdf(one.ppf(q)) == pytest.approx(q, abs=0.02)


def known_numbers(kind, n=300):
    """Return a later date that a number tells: of days, of days with times, or of months."""
    rng = np.random.default_rng(0)
    start = pd.Series(pd.Timestamp("2020-01-01") + rng.integers(0, 900, n) * DAY)
    k = rng.integers(1, 6, n)
    end = start + k * DAY
    if kind == "months":
        end = pd.Series(
            [day + pd.DateOffset(months=int(j)) for day, j in zip(start, k, strict=True)]
        )
    if kind == "times":
        start += pd.to_timedelta(rng.integers(13 * 60, 22 * 60, n), unit="min")
        end += pd.to_timedelta(rng.integers(8 * 60, 10 * 60, n), unit="min")
    return pd.DataFrame({"start": start, "end": end, "k": k})


@pytest.mark.parametrize("kind", ["days", "times", "months"])
def test_dates_that_a_known_number_tells(no_network, kind):
    """In distributions, and in imputed values whatever else is unknown."""
    table = known_numbers(kind)
    density = quick(max_iter=1).fit(table)
    (rule, *_) = density._schema.rules.functions
    for given, other in (("start", "end"), ("end", "start")):
        one = density.predict_distribution(other, table[[given, "k"]][:5])
        q = np.array([[0.1], [0.5], [0.9]])
        low, middle, high = one.ppf(q)
        assert (one.cdf(middle) >= 0.5 - 0.01).all()
        assert (high - low <= np.timedelta64(24, "h")).all()
        error = np.abs(one.mean() - table[other][:5].to_numpy())
        assert (error <= np.timedelta64(24 if kind == "times" else 0, "h")).all()
        day = np.timedelta64(24, "h")
        assert (one.cdf(middle - day) < 0.01).all() and (one.cdf(middle + day) > 0.99).all()
    for unknown in (["end"], ["start"], ["k"], ["start", "k"], ["end", "k"]):
        gaps = table[:40].astype({"k": float})
        for name in unknown:
            gaps[name] = np.nan if name == "k" else pd.NaT
        for method in ("mean", "median", "mode", "draw"):
            filled = density.impute(gaps, method, random_state=0)
            rows = density._schema.rules.encoded(density._schema, density._schema.encode(filled))
            # The 31st of December is three months after no day.
            most = 0.03 if kind == "months" and unknown == ["start", "k"] else 0
            assert rule.is_broken(rows).mean() <= most, (unknown, method)


@pytest.mark.parametrize("with_number", [False, True])
def test_dates_on_one_day_keep_their_order(with_number):
    rng = np.random.default_rng(0)
    day, k = rng.integers(0, 500, 400) * DAY, rng.integers(0, 3, 400) * with_number
    start = pd.Timestamp("2022-01-01") + day + pd.to_timedelta(rng.integers(480, 1020, 400), "min")
    end = start + pd.to_timedelta(rng.integers(1, 300, 400), "min") + k * DAY
    table = pd.DataFrame({"start": start, "end": end, "x": rng.normal(size=400)})
    table = table.assign(k=k) if with_number else table
    density = quick().fit(table)
    assert "start <= end" in list(density.rules_["rule"])
    for given in (None, {"start": start[0]}):
        drawn = density.sample(300, given=given, random_state=0)
        assert (drawn["start"] <= drawn["end"]).all()


def test_distribution_functions_of_days_grow(no_network):
    """Between the possible spans too, here every second day, and with full hours."""
    rng = np.random.default_rng(0)
    first = pd.DatetimeIndex(pd.Timestamp("2022-01-01") + rng.integers(0, 300, 300) * DAY)
    first += pd.to_timedelta(rng.integers(13 * 60, 23 * 60, 300), unit="min")
    last = first.normalize() + 2 * rng.integers(1, 15, 300) * DAY
    table = pd.DataFrame({"a": first, "b": last + pd.to_timedelta(rng.integers(9, 12, 300), "h")})
    density = quick(max_iter=1).fit(table)
    assert "b = a + a span" in list(density.rules_["rule"])
    one = density.predict_distribution("b", table[["a"]][:1])
    moments = pd.date_range(table["a"][0], periods=500, freq="2h")
    cdf = one.cdf(moments.to_numpy()[:, None])[:, 0]
    assert (np.diff(cdf) > -1e-12).all() and cdf[-1] == pytest.approx(1, abs=0.02)
    drawn = one.rvs(2_000, random_state=0)[:, 0]
    shares = (drawn <= moments.to_numpy()[:, None]).mean(axis=1)
    assert np.abs(cdf - shares).max() < 0.05


def test_chains_of_dates_have_probabilities_that_sum_to_one(one_class):
    """Also where some are missing, which is a part of the model then."""
    rng = np.random.default_rng(0)
    first = pd.Timestamp("2022-01-01") + rng.integers(0, 150, 400) * DAY
    second = first + rng.integers(0, 5, 400) * DAY
    table = pd.DataFrame({"a": first, "b": second, "c": second + rng.integers(1, 5, 400) * DAY})
    row = table.iloc[0]
    days = pd.date_range(row["a"] - 20 * DAY, row["a"] + 20 * DAY)
    pairs = pd.MultiIndex.from_product([days, days]).to_frame(index=False)
    gaps = table.mask(np.eye(3, dtype=bool)[np.arange(400) % 3])
    for missing, rows in (("ignore", table), ("model", gaps)):
        density = quick(missing=missing, cv=2).fit(rows)
        assert list(density.rules_["kind"]).count("span") == 2
        for given in (["a", "c"], ["a"], ["b"], ["c"], ["a", "b"]):
            rest = [name for name in table if name not in given]
            asked = pairs.set_axis(["x", "y"], axis=1)
            asked = pd.DataFrame({"x": days}) if len(rest) == 1 else asked
            asked.columns = rest
            one = density.condition(row[given].to_dict())
            total = np.exp(one.score_samples(asked)).sum()
            assert total <= 1.001 and (missing == "model" or total > 0.98), given
            if missing == "model" and len(rest) == 1:  # or the date is missing
                gap = one.score_samples(pd.DataFrame({rest[0]: [pd.NaT]}))
                assert total + np.exp(gap[0]) == pytest.approx(1, abs=0.01)
        drawn = density.sample(300, random_state=0, complete=True)
        assert ((drawn["b"] - drawn["a"]) / DAY).between(0, 4).all()
        assert ((drawn["c"] - drawn["b"]) / DAY).between(1, 4).all()


def test_spans_are_saved(fitted, tmp_path):
    table, density = fitted
    density.save(tmp_path / "stays.skflows")
    again = load(tmp_path / "stays.skflows")
    assert (again.score_samples(table) == density.score_samples(table)).all()
    pd.testing.assert_frame_equal(
        again.sample(20, random_state=0), density.sample(20, random_state=0)
    )


def test_missing_dates(one_class):
    """A stay that has not ended has no date of release, in rows and in samples."""
    table = stays()
    table.loc[table.index % 4 == 0, "released"] = pd.NaT
    for missing in ("ignore", "model"):
        density = quick(missing=missing).fit(table)
        assert "span" in set(density.rules_["kind"])
        assert np.isfinite(density.score_samples(table)).all()
        drawn = density.sample(400, random_state=0)
        assert drawn["released"].isna().mean() == pytest.approx(0.25, abs=0.06)
        assert days_of(drawn).dropna().between(0, 25).all()
        complete = density.sample(400, random_state=0, complete=True)
        assert days_of(complete).between(0, 25).all()


def test_spans_are_in_no_warning(one_class, recwarn):
    """No row with a span has a reason, but users do not know spans."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"applied": pd.Timestamp("2023-01-01") + pd.to_timedelta(range(400), "D")})
    is_paid = rng.random(400) < 0.7
    later = table["applied"] + pd.to_timedelta(rng.integers(0, 4, 400), "D")
    table["paid"] = later.where(is_paid)
    table["reason"] = pd.Series(rng.choice(["income", "score"], 400)).mask(is_paid)
    density = quick().fit(table)
    assert "paid = applied + a span" in {*density.rules_["rule"]}
    density.impute(table)
    assert not any("'span'" in str(each.message) for each in recwarn)


def test_which_dates_have_a_span(one_class):
    table = stays()
    rng = np.random.default_rng(1)
    table["born"] = pd.Timestamp("1930-01-01") + rng.integers(0, 25_000, 400) * DAY
    table["billed"] = table["released"] + rng.integers(3, 20, 400) * DAY
    rules = quick().fit(table).rules_
    spans = rules["rule"][rules["kind"] == "span"]
    # Not of the date of birth, and each date with the one before it.
    assert list(spans) == ["released = admitted + a span", "billed = released + a span"]
    drawn = quick().fit(table).sample(500, random_state=22)  # one in 200 draws lies beyond
    assert ((drawn["billed"] - drawn["released"]) / DAY).between(3, 19).all()
    rules = quick().fit(table.iloc[: _spans.LEAST_ROWS - 1]).rules_
    assert "span" not in set(rules["kind"])


def test_other_rules_hold_besides(one_class):
    """What follows from the later date, and what tells the earlier one."""
    table = stays()
    table["billed"] = table["released"] + 30 * DAY
    table["booked"] = table["admitted"] - 14 * DAY
    density = quick().fit(table)
    # Both would tell the date of admission.
    assert "released = booked + a span" in list(density.rules_["rule"])
    drawn = density.sample(300, random_state=0)
    assert (drawn["admitted"] - drawn["booked"] == 14 * DAY).all()
    assert (drawn["billed"] - drawn["released"] == 30 * DAY).all()
    assert days_of(drawn).between(0, 25).all()
    given = density.sample(50, given={"billed": table["billed"][0]}, random_state=0)
    assert (given["released"] == table["released"][0]).all() and days_of(given).between(0, 25).all()
    filled = density.impute(table.assign(admitted=pd.NaT))
    assert (filled["admitted"] == table["admitted"]).all()


def test_two_later_dates_of_one_have_probabilities_that_sum_to_one(one_class):
    rng = np.random.default_rng(0)
    first = pd.Timestamp("2022-01-01") + rng.integers(0, 120, 400) * DAY
    later = {name: first + rng.integers(0, 5, 400) * DAY for name in ("b", "c")}
    table = pd.DataFrame({"a": first, **later})
    density = quick().fit(table)
    assert list(density.rules_["kind"]).count("span") == 2
    row = table.iloc[0]
    days = pd.date_range(row["a"] - 15 * DAY, row["a"] + 15 * DAY)
    for given in table:
        rest = [name for name in table if name != given]
        pairs = (
            pd.MultiIndex.from_product([days, days]).to_frame(index=False).set_axis(rest, axis=1)
        )
        total = np.exp(density.condition({given: row[given]}).score_samples(pairs)).sum()
        assert total == pytest.approx(1, abs=0.02), given
    for name in table:  # each other date tells it, and orders are kept
        gaps = table.copy()
        gaps.loc[:100, name] = pd.NaT
        for method in ("median", "mode"):
            filled = density.impute(gaps, method)
            assert (filled["a"] <= filled["b"]).all() and (filled["a"] <= filled["c"]).all()


def test_days_over_a_change_of_summer_time_have_no_span(one_class):
    """They are no whole number of days, while all dates are midnights."""
    rng = np.random.default_rng(0)
    first = pd.Timestamp("2022-03-01") + rng.integers(0, 60, 300) * DAY
    table = pd.DataFrame({"a": first, "b": first + rng.integers(0, 5, 300) * DAY})
    zoned = table.apply(lambda dates: dates.dt.tz_localize("Europe/Berlin"))
    assert list(quick().fit(table).rules_["kind"]) == ["span", "order"]
    assert list(quick().fit(zoned).rules_["kind"]) == ["order"]


def test_draws_of_a_date_in_the_middle_keep_both_orders(one_class):
    rng = np.random.default_rng(0)
    ordered = pd.Timestamp("2022-01-01") + rng.integers(0, 700, 400) * DAY
    sent = ordered + rng.integers(0, 8, 400) * DAY
    arrived = sent + rng.integers(0, 20, 400) * DAY
    table = pd.DataFrame({"ordered": ordered, "sent": sent, "arrived": arrived})
    density = quick().fit(table[:300])
    assert (density.rules_["kind"] == "span").sum() == 2
    gaps = table[300:].assign(sent=pd.NaT)
    for days in (0, 60):  # no spans of the fit add up to 60 days
        asked = gaps[:20].assign(arrived=gaps["ordered"][:20] + days * DAY)
        drawn = density.impute(asked, "draw", random_state=0)
        assert (drawn["ordered"] <= drawn["sent"]).all()
        assert (drawn["sent"] <= drawn["arrived"]).all()
    for drawn in density.impute(gaps, "draw", n_draws=3, random_state=0):
        assert (drawn["ordered"] <= drawn["sent"]).all()
        assert (drawn["sent"] <= drawn["arrived"]).all()
        assert (drawn["sent"] < drawn["ordered"] + 8 * DAY).mean() > 0.9


def test_dates_that_only_a_group_has_are_beside_the_order_of_others(one_class):
    """Neither the order nor the span of two dates is left to one between them that rows lack."""
    rng = np.random.default_rng(0)
    booked = pd.Timestamp("2023-01-01") + rng.integers(0, 600, 400) * DAY
    lead = rng.gamma(1.2, 25, 400).astype(int) + 1
    status = rng.choice(["stayed", "cancelled"], 400, p=[0.85, 0.15])
    table = pd.DataFrame({"booked": booked, "arrival": booked + lead * DAY, "status": status})
    cancelled = booked + (rng.random(400) * lead).astype(int) * DAY
    table["cancelled"] = pd.Series(cancelled).where(status == "cancelled")
    density = quick().fit(table)
    found = {"arrival = booked + a span", "cancelled = booked + a span", "booked <= arrival"}
    assert found <= {*density.rules_["rule"]}
    assert (density.sample(1_000, random_state=0).eval("booked <= arrival")).all()
    one = pd.concat([table.iloc[[0]]] * 400).assign(status=None, cancelled=pd.NaT)
    chance = density.predict_proba("status", one[:1])[0, 0]  # of cancelled
    drawn = density.impute(one, "draw", random_state=0)
    assert (drawn["status"] == "cancelled").mean() == pytest.approx(chance, abs=0.06)


def test_a_later_date_that_few_rows_have_has_a_span(one_class):
    """Of one or two weeks, although each tells the earlier one of a few days."""
    rng = np.random.default_rng(0)
    day = pd.Timestamp("2024-09-09") + rng.choice([0, 14, 28, 49, 70, 91], 700) * DAY
    table = pd.DataFrame({"day": day + rng.integers(0, 3, 700) * DAY, "x": rng.normal(size=700)})
    again = table["day"] + rng.choice([7, 14], 700) * DAY
    table["again"] = again.where(rng.random(700) < 0.09)
    density = quick().fit(table)
    assert density.rules_["rule"].tolist() == ["again = day + a span", "day <= again"]
    drawn = density.sample(3_000, random_state=0).dropna()
    assert ((drawn["again"] - drawn["day"]) / DAY).isin([7, 14]).all() and len(drawn) > 100
