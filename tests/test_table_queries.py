"""Questions to a density of a table: conditionals, samples, imputation, displays."""

import sys
from functools import partial

import numpy as np
import pandas as pd
import polars as pl
import pytest
from _tables import (  # noqa: F401
    N,
    density,
    few_components,
    mixed_table,
    quick,
    schema_of,
    table,
    view_of,
)
from sklearn.base import clone

import skflows
from skflows import TableImputer
from skflows.columns.checks import ColumnWarning
from skflows.inspection import ConditionalDensityDisplay, SamplesDisplay
from skflows.table._view import TableView


def total_probability(density, name, values, width):
    """Return the sum over a grid of the conditional density of a column, given row 5."""
    given = density_row(density).drop(columns=[name])
    conditional = density.condition(given)
    own = pd.DataFrame({name: values})
    return np.exp(conditional.marginal([name]).score_samples(own)).sum() * width


def density_row(density):
    return mixed_table().iloc[[5]]


@pytest.mark.parametrize(
    ("name", "values", "width"),
    [
        ("sex", ["male", "female"], 1),
        ("grade", ["low", "mid", "high"], 1),
        ("visits", np.arange(200), 1),
        ("age", np.arange(600), 1),
        ("size", np.arange(-12, 12, 0.01), 0.01),
        ("hour", (np.arange(500) + 0.5) * 24 / 500, 24 / 500),
    ],
)
def test_conditionals_sum_to_one(density, name, values, width):
    tolerance = 2e-4 if width == 1 else 2e-3
    assert total_probability(density, name, values, width) == pytest.approx(1, abs=tolerance)


def test_atoms_and_density_sum_to_one(density):
    grid = (np.arange(4000) + 0.5) / 100
    atom = total_probability(density, "rain", [0.0], 1)
    assert 0.05 < atom < 0.9
    assert atom + total_probability(density, "rain", grid, 1 / 100) == pytest.approx(1, abs=1e-3)


def test_score_of_unknown_values(density, table):
    """Unknown entries do not count, and a row without any known one scores 0."""
    empty = table[:3].copy()
    for name in empty:
        empty[name] = empty[name].mask([True] * 3)
    assert density.score_samples(empty).tolist() == [0, 0, 0]
    some = empty.copy()
    some["sex"], some["visits"] = "male", 3
    marginal = density.marginal(["sex", "visits"]).score_samples(some[["sex", "visits"]])
    assert density.score_samples(some) == pytest.approx(marginal)


def test_rows_and_columns_in_any_order(density, table):
    scores = density.score_samples(table[:40])
    assert density.score_samples(table[:40][::-1])[::-1] == pytest.approx(scores, rel=1e-12)
    assert density.score_samples(table[:40][sorted(table)]) == pytest.approx(scores, rel=1e-12)
    assert density.score_samples(table[7:8]) == pytest.approx(scores[7:8], rel=1e-12)


def test_joint_is_marginal_times_conditional(density, table):
    """Exactly for latent classes; the network's means over orders differ a little."""
    rows = table[:60]
    names = ["sex", "size", "visits"]
    exact = clone(density)
    exact.__dict__.update(vars(density))
    exact._members = [
        (own, weight)
        for own, weight in density._members
        if not hasattr(getattr(own, "member", own), "network")
    ]
    product = exact.marginal(names).score_samples(rows[names])
    product += exact.condition(rows[names]).score_samples(rows.drop(columns=names))
    assert product == pytest.approx(exact.score_samples(rows), abs=1e-8)


def test_samples_look_like_the_table(density, table):
    drawn = density.sample(300, random_state=0)
    assert (drawn.dtypes == table.dtypes).all()
    assert set(drawn["sex"].dropna()) <= {"male", "female"}
    assert (drawn["visits"] >= 0).all()
    assert (drawn["rain"] >= 0).all()
    assert (drawn["rain"] == 0).mean() == pytest.approx((table["rain"] == 0).mean(), abs=0.12)
    assert drawn["hour"].between(0, 24).all()
    assert (drawn["pay"].dropna().round(2) == drawn["pay"].dropna()).all()
    assert (drawn["since"] == drawn["since"].dt.floor("s")).all()
    assert drawn["size"].mean() == pytest.approx(table["size"].mean(), abs=0.25)
    again = density.sample(300, random_state=0)
    pd.testing.assert_frame_equal(drawn, again)


def test_samples_given_values(density):
    drawn = density.sample(200, given={"size": 2.0, "member": True}, random_state=0)
    assert (drawn["size"] == 2.0).all()
    assert drawn["member"].all()
    few = density.sample(200, given={"size": -2.0}, random_state=0)
    assert (drawn["sex"] == "male").mean() > (few["sex"] == "male").mean()
    each = density.sample(2, given=pd.DataFrame({"visits": [1, 9]}), random_state=0)
    assert each["visits"].tolist() == [1, 1, 9, 9]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"size": 30.0}, "30 in column 'size', far from its values in fit: -2.+ to 2.+Check its"),
        ({"age": 500}, "500 in column 'age', far from its values in fit: 18 to 89.+Check its"),
        ({"since": pd.Timestamp("2060-01-01")}, "2060-01-01 in column 'since', far from .*: 2024"),
    ],
)
def test_known_values_far_from_the_fit_give_one_warning(density, table, value, text):
    with pytest.warns(ColumnWarning, match=f"^given has {text}"):
        density.sample(1, given=value, random_state=0)
    (name,) = value
    rows = table[:2].assign(**{name: [*value.values()] * 2, "grade": None})
    text = text.replace(",", " in 2 of 2 rows,", 1)
    for ask in (density.impute, partial(density.predict_distribution, "visits")):
        with pytest.warns(ColumnWarning, match=f"^X has {text}") as record:
            ask(rows)
        assert len(record) == 1
    density.impute(table[:40])  # no value of the fit is


def test_numbers_between_and_next_to_few_levels_are_not_far():
    schema = schema_of(np.repeat([[2007.0], [2009.0], [2010.0]], 20, axis=0))
    values = np.array([[2008.0], [2011.0], [2012.0], [1975.0], [np.nan]])
    (text,) = schema.far(values, schema.names)
    assert text.startswith("2012 in column 0 in 2 of 5 rows, far from")


def test_given_values_are_in_samples_as_they_are_or_an_error():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"n": rng.integers(0, 9, 60), "x": rng.normal(size=60)})
    table["pay"] = [f"${x:.2f}" for x in rng.gamma(3, 5, 60)]
    for X in (table, pl.DataFrame(table)):
        fitted = quick(max_iter=1).fit(X)
        message = "2.5 in column 'n'; the column held whole numbers .*: give one such as 2 or 3"
        with pytest.raises(ValueError, match=message):
            fitted.sample(2, given={"n": 2.5})
        with pytest.raises(
            ValueError, match=r"1.234 in column 'pay'; .*: give one such as '\$1.23'"
        ):
            fitted.sample(2, given={"pay": "$1.234"})
        drawn = fitted.sample(2, given={"n": 2.0, "x": 0.1234567, "pay": "$1.23"}, random_state=0)
        assert list(drawn["n"]) == [2, 2]
        assert list(drawn["x"]) == [0.1234567] * 2
        assert list(drawn["pay"]) == ["$1.23"] * 2
    assert fitted.condition({"n": 2.5}).sample(1).shape == (1, 2)  # it does not write the value
    whole = quick(max_iter=1).fit(rng.integers(0, 9, (60, 2)))
    with pytest.raises(ValueError, match="in column 0; the column held whole numbers"):
        whole.sample(1, given=np.array([[2.5, np.nan]]))


@pytest.mark.parametrize("method", ["mean", "median", "mode", "draw"])
def test_imputation_fills_gaps_only(density, table, method):
    filled = density.impute(table[:50], method, random_state=0)
    assert not filled.isna().any(axis=None)
    known = table[:50].notna()
    for name in table:
        left, right = filled[name][known[name]], table[:50][name][known[name]]
        assert (left.astype(object) == right.astype(object)).all()


def test_values_that_no_row_of_a_category_has_are_filled_in_with_a_warning(tmp_path):
    rng = np.random.default_rng(0)
    status = rng.choice(["paid", "open", "late"], 200, p=[0.7, 0.15, 0.15])
    own = pd.DataFrame({"status": status, "means": rng.choice(["card", "cash"], 200)})
    own["fee"], own["days"] = rng.normal(size=200), rng.normal(size=200)
    own.loc[status != "paid", ["means", "days"]] = None
    own.loc[::2, "fee"] = None  # at random
    density = quick().fit(own)
    density.save(tmp_path / "model")
    n = (status != "paid").sum()
    message = f"X has {n} missing values in column 'means' where 'status' is 'late', 'open'.*1 more"
    for each in (density, skflows.load(tmp_path / "model")):
        with pytest.warns(ColumnWarning, match=message):
            each.impute(own)
    with pytest.warns(ColumnWarning, match=r"Samples have \d+ values .*'late', 'open'.*1 more"):
        density.sample(50, complete=True)
    density.sample(50, given={"status": "paid"}, complete=True)
    density.impute(own[status == "paid"])
    status[np.flatnonzero(status == "open")[:2]] = "void"  # too few rows to tell
    own["status"] = status
    with pytest.warns(ColumnWarning, match=r"'late', 'open'\. "):
        quick().fit(own).impute(own)


def test_several_draws(density, table):
    first, second = density.impute(table[:50], "draw", n_draws=2, random_state=0)
    assert not first.equals(second)


def test_mean_of_a_known_conditional():
    """Of y given x, where y is x plus noise, or 0."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=500)
    y = np.where(rng.uniform(size=500) < 0.3, 0.0, 5 + x + 0.1 * rng.normal(size=500))
    own = quick(max_iter=8).fit(pd.DataFrame({"x": x, "y": y}))
    filled = own.impute(pd.DataFrame({"x": [-1.0, 1.0], "y": [np.nan, np.nan]}))
    assert filled["y"].to_numpy() == pytest.approx([0.7 * 4, 0.7 * 6], rel=0.12)


def test_imputer(table):
    own = table[["sex", "size", "visits"]]
    imputer = TableImputer(quick(), sample_posterior=True, random_state=0).fit(own)
    first, second = imputer.transform(own), imputer.transform(own)
    assert not first.isna().any(axis=None)
    assert not first.equals(second)
    centre = TableImputer(quick(), random_state=0).fit(own)
    assert centre.transform(own).equals(centre.transform(own))
    centre.fit(own[["size", "visits"]].to_numpy()).set_output(transform="pandas")
    assert not hasattr(centre, "feature_names_in_")
    assert centre.transform(own[["size", "visits"]].to_numpy()).columns.tolist() == ["x0", "x1"]


def test_the_imputer_seeds_a_density_without_a_seed(table):
    own, unseeded = table[["size", "visits"]], quick(random_state=None)
    first, second = (
        TableImputer(unseeded, random_state=0).fit(own).transform(own) for _ in range(2)
    )
    pd.testing.assert_frame_equal(first, second)
    assert unseeded.random_state is None
    assert TableImputer(quick(), random_state=1).fit(own).density_.random_state == 0


LABELS = {
    "amounts": ["$9", "$10"],
    "times": ["12:00 AM", "12:00 PM"],
    "integers": [2007, 2008],
    "dates": [pd.Timestamp("2024-01-01"), pd.Timestamp("2024-01-02")],
    "texts": ["a", "b"],
}


@pytest.mark.parametrize("library", ["pandas", "polars", "numpy"])
@pytest.mark.parametrize("values", LABELS)
def test_probabilities_are_labelled_with_the_values_of_the_table(values, library):
    kinds = {"value": "categorical"} if values == "dates" else None
    table = pd.DataFrame({"value": LABELS[values] * 30, "paid": ["yes", "no", "no"] * 20})
    X = pl.DataFrame(table.to_dict("list")) if library == "polars" else table
    if library == "numpy":
        X, kinds = table.to_numpy(dtype=object), kinds and {0: "categorical"}
    density = quick(columns=kinds, max_iter=1).fit(X)
    key = 0 if library == "numpy" else "value"
    framed = density.predict_proba(key, X, as_frame=True)
    assert isinstance(framed, pd.DataFrame) and framed.columns.tolist() == LABELS[values]
    if library != "numpy":  # whose samples have floats
        assert framed.columns.map(type).tolist() == [type(label) for label in LABELS[values]]
    drawn = density.sample(20, random_state=0)
    assert set(drawn[:, 0] if library == "numpy" else drawn["value"]) <= {*framed.columns}


@pytest.mark.parametrize("value", [(5000, None), [1, 2], slice(1, 2), np.arange(2)])
def test_a_condition_is_one_value(density, value):
    message = "column 'visits' is given as .*; a condition is one value, not a range"
    for ask in (
        lambda: density.sample(2, given={"visits": value}),
        lambda: density.condition({"visits": value}),
        lambda: density.predict_proba("sex", {"visits": value}),
    ):
        with pytest.raises(ValueError, match=message):
            ask()


@pytest.mark.parametrize("n", [60, 600])  # few rows for a number, many for levels
def test_probabilities_of_counts_agree_with_pmf_and_scores(n):
    rng = np.random.default_rng(0)
    visits = rng.poisson(4, n)
    visits[visits > 10] = 11
    visits[0] = 13  # 12 lies between listed numbers
    density = quick(max_iter=1).fit(pd.DataFrame({"visits": visits, "x": rng.normal(size=n)}))
    asked = pd.DataFrame({"x": [0.5]})
    (proba,), levels = density.predict_proba("visits", asked), density.levels("visits")
    assert levels[:14] == list(range(14)) and proba.sum() == pytest.approx(1)
    distribution = density.predict_distribution("visits", asked)
    assert proba == pytest.approx(np.concatenate([distribution.pmf([k]) for k in levels]))
    marginal = density.condition(asked).marginal(["visits"])
    scores = marginal.score_samples(pd.DataFrame({"visits": levels[:14]}))
    assert proba[:14] == pytest.approx(np.exp(scores), rel=0.01)
    framed = density.predict_proba("visits", asked, as_frame=True)
    assert framed.columns.tolist() == levels


def test_the_mode_is_a_single_category_not_all_rare_ones_together():
    towns = [*(["Aberdeen", "Berlin"] * 8), *map("{} Town".format, range(60))]
    table = pd.DataFrame({"town": towns, "x": np.arange(76.0) % 7})
    columns = {"town": "categorical"}  # most texts differ
    density = quick(columns=columns, handle_unknown="rare", max_iter=1).fit(table)
    asked = table.assign(town=None)[:20]
    assert (density.predict_proba("town", asked)[:, -1] > 0.5).all()
    for method in ("mean", "mode"):
        assert set(density.impute(asked, method)["town"]) <= {"Aberdeen", "Berlin"}


def test_rare_levels_are_labelled():
    table = pd.DataFrame({"year": [2007, 2008] * 20 + [1999], "x": np.linspace(0, 1, 41) ** 2})
    density = quick(columns={"year": "categorical"}, handle_unknown="rare", max_iter=1).fit(table)
    framed = density.predict_proba("year", table, as_frame=True)
    assert framed.columns.tolist() == [2007, 2008, "(rare)"]


def test_a_frame_without_pandas(monkeypatch, density):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="as_frame=True returns a DataFrame of pandas, which is"):
        density.predict_proba("sex", {}, as_frame=True)


def test_predictions(density, table):
    proba = density.predict_proba("sex", table[:20])
    assert proba.sum(axis=1) == pytest.approx(np.ones(20))
    assert density.levels("sex") == ["female", "male"]
    framed = density.predict_proba("sex", table[5:20], as_frame=True)
    assert framed.columns.tolist() == ["female", "male"] and framed.columns.name == "sex"
    assert framed.index.equals(table[5:20].index)
    assert framed["male"].to_numpy() == pytest.approx(proba[5:, 1])
    quantiles = density.quantile("size", table[:20], [0.1, 0.5, 0.9])
    assert (np.diff(quantiles, axis=1) > 0).all()
    unconditional = density.predict_proba("sex", {})
    assert unconditional == pytest.approx(density.predict_proba("sex", {"size": np.nan}))
    names = density.condition({}).columns
    assert names == table.columns.tolist()
    # The probability of being at most the median is one half.
    grid = np.linspace(-8, quantiles[0, 1], 500)
    conditional = density.condition(table[:1].drop(columns=["size"]))
    below = np.exp(conditional.score_samples(pd.DataFrame({"size": grid}))).sum()
    assert below * (grid[1] - grid[0]) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("name", ["sex", "age", "hour", "rain"])
def test_display_of_a_conditional(density, table, name):
    """What it draws is the conditional density, and sums to 1 without atoms."""
    rows = table[:2].copy()
    display = ConditionalDensityDisplay.from_estimator(density, rows, column=name)
    spacing = 1 if display.is_discrete else np.gradient(display.grid)[:, None]
    atom = np.exp(density.condition(rows.drop(columns="rain")).score_samples(np.zeros((2, 1))))
    total = 1 - atom if name == "rain" else 1
    np.testing.assert_allclose((display.density * spacing).sum(axis=0), total, atol=0.02)
    if name == "sex":
        drawn = [bar.get_height() for bar in display.axes_[1].patches]
        np.testing.assert_allclose(drawn, density.predict_proba("sex", rows)[1])
    observed = table[name][1]
    marks = [line for line in display.axes_[1].lines if line.get_linestyle() == "--"]
    assert len(marks) == (not pd.isna(observed))
    assert display.axes_[0].get_xlabel() == name


def test_displays_of_unknown_columns(density, table):
    with pytest.raises(ValueError, match="column names the columns \\['pie'\\]"):
        ConditionalDensityDisplay.from_estimator(density, table[:2], column="pie")
    with pytest.raises(ValueError, match="'since' is datetime"):
        ConditionalDensityDisplay.from_estimator(density, table[:2], column="since")
    with pytest.raises(ValueError, match=r"needs column: one of \['sex'"):
        ConditionalDensityDisplay.from_estimator(density, table[:2])
    with pytest.raises(ValueError, match="a table has the observed values in X"):
        ConditionalDensityDisplay.from_estimator(density, table[:2], column="sex", y=["male"] * 2)


def test_display_of_samples(density, table):
    """Categories have bars with their names; gaps are left out, and dates are in years."""
    names = ["sex", "grade", "age", "since"]
    display = SamplesDisplay.from_estimator(density, table, names, random_state=0)
    assert display.categories == {"sex": ["female", "male"], "grade": ["low", "mid", "high"]}
    bars, _ = display.axes_[0, 0].patches[:2]
    np.testing.assert_allclose(
        bars.get_data().values, table["sex"].value_counts(normalize=True).sort_index()
    )
    labels = [label.get_text() for label in display.axes_[-1, 1].get_xticklabels()]
    assert labels == ["low", "mid", "high"]
    assert np.isnan(display.X[:, 2]).sum() == table["age"].isna().sum()
    assert 2023.9 < display.X[:, 3].min() < display.X[:, 3].max() < 2026.1
    few = table.assign(grade=pd.Categorical(["mid"] * N), sex=None)
    display = SamplesDisplay.from_estimator(density, few, names[:2], random_state=0)
    assert display.categories["grade"] == ["low", "mid", "high"]
    assert (display.X[:, 1] == 1).all() and np.isnan(display.X[:, 0]).all()


def test_arrays_with_gaps():
    X = np.random.default_rng(0).normal(size=(100, 3))
    X[::5, 1] = np.nan
    own = quick().fit(X)
    assert own.sample(4, random_state=0).shape == (4, 3)
    assert own.marginal(0).sample(4).shape == (4, 1)
    filled = own.impute(X)
    assert not np.isnan(filled).any()
    assert (filled[1] == X[1]).all()


def test_questions_without_an_answer_are_errors(density, table):
    with pytest.raises(ValueError, match="n_draws=0; it must be an integer of at least 1"):
        density.impute(table[:3], "draw", n_draws=0)
    with pytest.raises(ValueError, match="more than 0 and less than 1"):
        density.quantile("size", table[:3], [0, 0.5])
    with pytest.raises(ValueError, match=r"X has 0 feature\(s\)"):
        quick().fit(table[[]])


def test_modelled_gaps():
    """With missing="model" a gap where there hardly ever is one is odd."""
    table = mixed_table()[["sex", "size", "visits"]]
    table.loc[3:, "sex"] = table["sex"].fillna("male")[3:]
    table.loc[0, "sex"] = None
    own = quick(missing="model").fit(table)
    row = table[10:11].copy()
    gap = row.copy()
    gap["sex"] = gap["sex"].mask([True])
    assert own.score_samples(gap)[0] < own.score_samples(row)[0] - 1
    drawn = own.sample(300, random_state=0)
    assert drawn["size"].isna().mean() == pytest.approx(table["size"].isna().mean(), abs=0.12)
    # "visits" has no gap in fit: a first one is odd too, and all questions have values for answers.
    assert own.score_samples(row.assign(visits=np.nan))[0] < own.score_samples(row)[0] - np.log(
        N / 10
    )
    assert not own.impute(table[:50], "draw", random_state=0).isna().any(axis=None)
    assert not own.impute(table[:50]).isna().any(axis=None)
    given = {"sex": None, "size": 0.0}
    assert own.sample(50, given=given, complete=True)["sex"].notna().all()
    drawn = own.sample(300, given={"sex": "male"}, random_state=0)
    assert drawn["sex"].notna().all() and 0.05 < drawn["size"].isna().mean() < 0.35
    drawn = own.condition({"sex": "male"}).sample(100, random_state=0, complete=True)
    assert drawn.notna().all(axis=None)


def test_modelled_gaps_of_other_columns_are_evidence():
    rng = np.random.default_rng(1)
    kind = rng.choice(["p", "q"], 300)
    rating = pd.Series(rng.normal(size=300)).mask((kind == "q") & (rng.uniform(size=300) < 0.6))
    own = quick(missing="model", max_iter=30).fit(pd.DataFrame({"kind": kind, "rating": rating}))
    proba = own.predict_proba("kind", {"rating": None})[0, 1]
    pair = pd.DataFrame({"kind": ["p", "q"], "rating": [np.nan, np.nan]})
    joint = np.exp(own.score_samples(pair))
    assert proba == pytest.approx(joint[1] / joint.sum(), abs=0.05) and proba > 0.9
    assert own.predict_proba("kind", {"rating": 0.0})[0, 1] < 0.4


@pytest.mark.parametrize("component", ["network on pairs", "quantile classes of 1"])
def test_modelled_gaps_sum_to_one(keep_components, component):
    """In each member: a value comes after the variable that says whether there is one."""
    keep_components(lambda each: each.name == component)
    rng = np.random.default_rng(1)
    pair = {name: rng.choice(["p", "q", None], 200, p=[0.3, 0.3, 0.4]) for name in "ab"}
    own = quick(missing="model").fit(pd.DataFrame(pair))
    levels = (
        pd.Series(["p", "q", None], name="a")
        .to_frame()
        .merge(pd.Series(["p", "q", None], name="b"), how="cross")
    )
    view = view_of(levels, own._schema)
    for member, _ in own._members:
        assert np.exp(member.log_prob(view)).sum() == pytest.approx(1, abs=2e-4)
    if component != "network":
        return
    network, *_ = [member for member, _ in own._members]
    unknown = TableView(own._schema, own._nothing_known(50))
    drawn = network.sample(unknown, np.arange(50), np.random.RandomState(0))
    for value, flag in own._schema.flag_of.items():
        assert (np.isfinite(drawn[:, value]) == (drawn[:, flag] == 0)).all()


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda d, t: d.score_samples(t.assign(member="perhaps")), "perhaps"),
        (
            lambda d, t: d.score_samples(t.drop(columns=["sex"])),
            "lacks the columns.*missing values",
        ),
        (lambda d, t: d.condition({"nobody": 1}), "nobody"),
        (
            lambda d, t: d.marginal(["size"]).score_samples({"size": 1.0, "nobody": 1}),
            r"X names the columns \['nobody'\], .* leave them out: it has \['sex', ",
        ),
        (lambda d, t: d.quantile("size", t[:0], 0.5), "X has 0 samples"),
        (lambda d, t: d.sample(2, given=t[["sex"]][:0]), "given has 0 samples"),
        (lambda d, t: d.marginal(["size"]).score_samples({}), r"\['size'\], whose density this is"),
        (
            lambda d, t: d.marginal(["size"]).score_samples(t[["sex"]]),
            r"X lacks the columns \['size'\], whose density this is",
        ),
        (lambda d, t: d.condition(t[:1]), "nothing is left"),
        (lambda d, t: d.score_samples({"size": 1.0}), r"a dict; give .* pandas.DataFrame\(\[X\]\)"),
        (lambda d, t: d.score_samples(t.assign(since="May 2024")), "to_datetime"),
        (lambda d, t: d.predict_proba("size", t), "without values that are listed; use quantile"),
        (lambda d, t: d.quantile("sex", t), "predict_proba"),
        (lambda d, t: d.predict_proba("since", t), "'since' is datetime, .*; use quantile"),
        (lambda d, t: d.levels("since"), "'since' is datetime, .*; use quantile"),
        (
            lambda d, t: d.predict_distribution("since", t[:3]).ppf([0.1, 0.9]),
            r"of shape \(2,\) do not fit 3 rows",
        ),
        (lambda d, t: d.predict_distribution("since", t[:3]).ppf(0), "more than 0"),
        (lambda d, t: d.quantile("size", t, 1.5), "more than 0 and less than 1"),
        (lambda d, t: d.impute(t, "guess"), "choose"),
        (lambda d, t: d.impute(t, "mean", n_draws=3), "draw"),
        (lambda d, t: d.sample(0), "at least 1"),
    ],
)
def test_errors_of_questions(density, table, ask, message):
    with pytest.raises(ValueError, match=message):
        ask(density, table)


def test_the_median_may_be_the_least_value():
    rng = np.random.default_rng(0)
    rain = np.where(rng.uniform(size=200) < 0.8, 0.0, 5 + rng.gamma(2.0, size=200))
    own = quick(columns={"rain": ("atoms", [0.0], 0.0)}).fit(pd.DataFrame({"rain": rain}))
    assert own.quantile("rain", pd.DataFrame({"rain": [np.nan]}), [0.3, 0.5]).tolist() == [[0, 0]]


def test_means_are_possible():
    """Of counts, of angles among few, and of dates."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=300)
    table = pd.DataFrame(
        {
            "x": x,
            "n": rng.poisson(np.exp(1 + 1.5 * x)),
            "hour": np.where(rng.uniform(size=300) < 0.5, 23, 1),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(7 * rng.integers(0, 40, 300), "D"),
        }
    )
    own = quick(columns={"hour": ("circular", 24)}).fit(table)
    asked = pd.DataFrame({"x": [-3.0, 0.0], "n": np.nan, "hour": np.nan, "day": pd.NaT})
    filled = own.impute(asked)
    assert (filled["n"] >= 0).all()
    assert np.cos(filled["hour"] * np.pi / 12).min() > 0.8
    assert (filled["day"].dt.day_of_week == 0).all()


def test_imputation_keeps_known_values_exactly():
    """Even those that microseconds cannot hold."""
    n = 60
    moments = pd.Series(pd.date_range("2024-10-26", periods=n, freq="37min", tz="Europe/Berlin"))
    table = pd.DataFrame(
        {
            "id": pd.array([2**53, 5, None] * 20, dtype="Int64"),
            "at": (moments + pd.Timedelta(1, "ns")).mask(np.arange(n) % 7 == 0),
            "x": np.random.default_rng(0).normal(size=n),
        }
    )
    filled = quick(max_iter=1).fit(table).impute(table)
    assert not filled.isna().any(axis=None)
    pd.testing.assert_frame_equal(filled.where(table.notna()), table)
    frame = pl.DataFrame({"id": [2**53, 5, None] * 20, "x": table["x"].to_numpy()})
    filled = quick(max_iter=1).fit(frame).impute(frame)
    assert filled["id"][:2].to_list() == [2**53, 5]
    assert filled.null_count().sum_horizontal()[0] == 0


def test_chunks_of_rows(small_blocks, density, table):
    """Rows are answered some at a time."""

    def answers():
        distribution = density.predict_distribution("size", table[:7])
        y = [[0.1], [0.7]]
        return distribution.cdf(y), distribution.mean(), distribution.logpdf(y), distribution.ppf(y)

    whole = density.impute(table[:7]), answers()
    small_blocks()
    pd.testing.assert_frame_equal(density.impute(table[:7]), whole[0])
    for found, expected in zip(answers(), whole[1], strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-9)
    assert len(density.sample(7)) == 7


def test_distributions_of_dates_answer_in_dates(density, table):
    """A date with a time of day, which is cut open at the emptiest time."""
    q, rows = np.array([[0.1], [0.5], [0.9]]), table[:3]
    distribution = density.predict_distribution("since", rows)
    dates = distribution.ppf(q)
    assert (
        dates.dtype == "datetime64[us]" and (np.diff(dates, axis=0) > np.timedelta64(1, "D")).all()
    )
    np.testing.assert_allclose(distribution.cdf(dates), np.broadcast_to(q, (3, 3)), atol=1e-4)
    np.testing.assert_array_equal(density.quantile("since", rows, q[:, 0]), dates.T)
    np.testing.assert_array_equal(density.quantile("since", rows), distribution.median())
    np.testing.assert_array_equal(distribution.interval(0.8)[1], dates[2])
    drawn = distribution.rvs(400, random_state=0)
    assert drawn.shape == (400, 3)
    np.testing.assert_allclose((drawn <= dates[1]).mean(axis=0), 0.5, atol=0.1)
    away = np.abs(distribution.mean() - drawn.astype("int64").mean(axis=0).astype("datetime64[us]"))
    assert (away < np.timedelta64(30, "D")).all()
    early, late = distribution.cdf(np.array([["1990-01-01"], ["2090-01-01"]], "datetime64[us]"))
    np.testing.assert_allclose(np.stack([early, late - 1]), 0, atol=1e-6)


def test_distributions_answer_as_scores_quantiles_and_draws_do(density, table):
    some, rows = table[:4].drop(columns="size"), table[:4]
    distribution = density.predict_distribution("size", some)
    own = density.condition(some).score_samples(pd.DataFrame({"size": [0.3] * 4}))
    np.testing.assert_allclose(distribution.logpdf(0.3), own, atol=1e-9)
    np.testing.assert_allclose(distribution.ppf(0.3), density.quantile("size", some, 0.3))
    np.testing.assert_array_equal(
        distribution.cdf(0.3), density.predict_distribution("size", rows).cdf(0.3)
    )
    visits = density.predict_distribution("visits", rows)
    assert visits.rvs(3, random_state=0).shape == (3, 4) and visits.support[0] == 0
    np.testing.assert_allclose(visits.pmf(np.arange(60)[:, None]).sum(axis=0), 1, atol=1e-6)
    with pytest.raises(ValueError, match="'sex' is categorical, without numbers or dates"):
        density.predict_distribution("sex", rows)
    with pytest.raises(ValueError, match=r"wrong order; the call is predict_distribution\("):
        density.predict_distribution(rows, "size")


def test_the_probability_of_an_atom_stands_above_its_density(density, table):
    display = ConditionalDensityDisplay.from_estimator(density, table[5:6], column="rain")
    expected = total_probability(density, "rain", [0.0], 1)
    assert display.atoms[0.0] == pytest.approx(expected, abs=1e-6)
