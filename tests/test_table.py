"""TableDensity as an estimator: checks, errors, files, weights, interrupts and time limits."""

import itertools
import pickle
from unittest.mock import Mock

import numpy as np
import pandas as pd
import polars as pl
import pytest
from _tables import N, density, few_components, mixed_table, quick, schema_of, table  # noqa: F401
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

import skflows
from skflows import DensityClassifier, DensityOutlierDetector, TableDensity, TableImputer
from skflows.columns.checks import ColumnWarning
from skflows.table import _columns, _components
from skflows.training import data_parallel


@parametrize_with_checks(
    [quick(max_iter=1, n_orders=1), TableImputer(quick(max_iter=1, n_orders=1), random_state=0)],
    expected_failed_checks=lambda estimator: (
        {"check_sample_weight_equivalence_on_dense_data": "other rows are held out"}
        if isinstance(estimator, TableDensity)
        else {}
    ),
)
def test_check_estimator(estimator, check, one_class):
    check(estimator)


def test_pickles_and_files(density, table, tmp_path):
    scores = density.score_samples(table[:9])
    assert (pickle.loads(pickle.dumps(density)).score_samples(table[:9]) == scores).all()
    density.save(tmp_path / "model.skflows")
    loaded = skflows.load(tmp_path / "model.skflows")
    assert (loaded.score_samples(table[:9]) == scores).all()
    pd.testing.assert_frame_equal(
        loaded.sample(3, random_state=0), density.sample(3, random_state=0)
    )


def test_polars(density, table):
    frame = pl.DataFrame(
        {
            "kind": pl.Series(["a", "b", None] * 40),
            "n": pl.Series([1, None, 3] * 40),
            "x": np.random.default_rng(0).normal(size=120),
            "on": pl.Series([True, False, None] * 40),
            "day": pl.Series(pd.date_range("2024-01-01", periods=120).date.tolist()),
        }
    )
    own = quick().fit(frame)
    drawn = own.sample(7, random_state=0)
    assert drawn.schema == frame.schema
    assert np.isfinite(own.score_samples(frame)).all()
    with pytest.warns(ColumnWarning, match="where 'kind' is 'b'"):
        assert own.impute(frame).null_count().sum_horizontal()[0] == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda t: quick(columns={"id": "categorical"}, handle_unknown="error").fit(
                t.assign(id=[f"n{i}" for i in range(len(t))])
            ),
            "leave it out",
        ),
        (lambda t: quick(columns={"nobody": "count"}).fit(t), "nobody"),
        (lambda t: quick(columns={"sex": "cuont"}).fit(t), "choose among"),
        (lambda t: quick(columns={"sex": []}).fit(t), "choose among"),
        (lambda t: quick(columns={"hour": ("circular", "24")}).fit(t), "positive number"),
        (lambda t: quick(columns={"hour": ("circular", 0)}).fit(t), "positive number"),
        (lambda t: quick(columns={"size": ("bounded", "a")}).fit(t), "bounds and values"),
        (lambda t: quick(columns={"size": "count"}).fit(t), "choose 'continuous'"),
        (lambda t: quick(columns={"size": ("bounded", 0, 1)}).fit(t), "move the bounds out"),
        (lambda t: quick(columns={"age": ("count", 30)}).fit(t), "within its bounds 30 and inf"),
        (lambda t: quick(columns={"age": ("count", 0, 9, 1)}).fit(t), "which do not fit"),
        (
            lambda t: quick(columns={"since": ("datetime", None, "2024-02-01")}).fit(t),
            "within its bounds -inf and 2024-02-01: move the bounds out, or drop the row",
        ),
        (
            lambda t: quick(columns={"on": ("datetime", "2024-01-02", "2024-01-05")}).fit(
                t.assign(on=pd.Timestamp("2024-01-03"))
            ),
            "less than a week apart",
        ),
        (lambda t: quick(columns={"since": ("datetime", "May")}).fit(t), "'May'.*bounds are texts"),
        (
            lambda t: quick(columns={"since": ("datetime", t["since"].min())}).fit(t),
            r"with \[Timestamp.*\] .*; bounds are texts .*, such as '2024-12-31' or",
        ),
        (
            lambda t: quick(columns={"since": ("datetime", None, "2024-01-03T00:00+09:00")}).fit(t),
            r"'2024-01-03T00:00\+09:00' has a time zone\); .* in the local time of the column",
        ),
        (
            lambda t: quick(columns={"since": ("datetime", "2020-01-01", None, None)}).fit(t),
            r"the arguments \('2020-01-01', None, None\), which do not fit",
        ),
        (
            lambda t: quick(columns={"since": ("datetime", "2026-01-01", "2020-01-01")}).fit(t),
            r"\['2026-01-01', '2020-01-01'\], but the first bound must be less",
        ),
        (lambda t: quick(columns={"age": ("count", 90, 18)}).fit(t), r"\[90, 18\], .* swap them"),
        (lambda t: quick(columns={"size": ("bounded", 1, 1)}).fit(t), "first bound must be less"),
        (lambda t: quick(columns={"rain": ("atoms", [0], 2, 1)}).fit(t), "must be less than"),
        (lambda t: quick(columns={"age": ("count", np.nan)}).fit(t), "numbers other than NaN"),
        (lambda t: quick(columns={"rain": ("atoms", [np.nan])}).fit(t), "numbers other than NaN"),
        (lambda t: quick(columns={"rain": ("atoms", None)}).fit(t), "without the values"),
        (lambda t: quick(columns={"rain": "atoms"}).fit(t), "without the values"),
        (lambda t: quick().fit(t).sample(True), "must be an integer"),
        (lambda t: quick().fit(t).marginal(["age", "age"]), "names a column twice"),
        (lambda t: quick().columns_, "not fitted yet"),
        (lambda t: quick().rules_, "not fitted yet"),
        (lambda t: quick().fit(t.assign(size=np.inf)), "infinity"),
    ],
)
def test_errors_of_fit(table, make, message):
    with pytest.raises(ValueError, match=message):
        make(table)


def test_columns_without_values_only_are_an_error(table):
    with (
        pytest.warns(UserWarning, match="'size' has no known value in"),
        pytest.raises(ValueError, match="have no known value, which are left out"),
    ):
        quick().fit(table[["size"]].assign(size=np.nan))


def test_a_type_error_of_our_own_is_not_blamed_on_the_arguments_of_a_kind(monkeypatch):
    monkeypatch.setitem(_columns.MAKERS, "continuous", lambda column, setting: len(3, "argument"))
    with pytest.raises(TypeError, match="takes exactly one argument"):
        schema_of(np.array([[0.5], [0.7]]), {0: "continuous"})


def test_unfitted():
    with pytest.raises(NotFittedError):
        TableDensity().sample()


def test_weights_of_0_and_equal_weights(table, density):
    rows = table.loc[:59, ["sex", "size", "rain"]]
    weight = np.where(np.arange(60) % 3, 2.0, 0.0)
    fitted = quick(max_iter=1).fit(rows, sample_weight=weight)
    plain = quick(max_iter=1).fit(rows[weight > 0])
    np.testing.assert_array_equal(fitted.score_samples(rows[:9]), plain.score_samples(rows[:9]))
    assert np.isnan(fitted.held_out_scores_[weight == 0]).all()
    assert np.isfinite(fitted.held_out_scores_[weight > 0]).all()


def test_copies_of_a_row_are_held_out_together(table):
    """Otherwise kernels would see the held-out rows. Rows of categories are equal by chance."""
    repeated = pd.concat(3 * [table[["size", "sex"]]], ignore_index=True)
    has_size = repeated["size"].notna().to_numpy()
    density = quick(max_iter=1, n_orders=1).fit(repeated)
    rows = density._schema.encode(repeated)
    copy_of = _components.first_copies(density._schema, rows)
    expected = np.where(has_size, np.tile(np.arange(N), 3), np.arange(3 * N))
    np.testing.assert_array_equal(copy_of, expected)
    for cv in (2, 5, "auto"):
        for train, held_out in _components.make_splits(cv, copy_of, 0):
            assert not set(copy_of[train]) & set(copy_of[held_out])
            assert len(train) + len(held_out) == 3 * N
    # If all rows are copies of one, folds are those of other rows.
    assert [len(part) for part in _components.make_splits(3, np.zeros(9, int), 0)[0]] == [6, 3]


def test_a_row_of_weight_3_counts_as_three(one_class):
    """Up to priors, shrinkage and the rows that are held out."""
    table = mixed_table(300)[["sex", "size", "rain"]]
    weight = np.where(table["sex"] == "male", 3.0, 1.0)
    repeated = table.loc[table.index.repeat(weight.astype(int))]
    test = mixed_table(300, seed=1)[list(table)]
    fits = [
        quick(max_iter=5).fit(rows, sample_weight=w)
        for rows, w in ((table, weight), (repeated, None), (table, None))
    ]
    ours, theirs, plain = (each.score(test) for each in fits)
    assert abs(ours - theirs) < 0.1 < 0.2 < abs(plain - theirs)
    ours, theirs, plain = (each.predict_proba("sex", {"rain": 1.0})[0, 1] for each in fits)
    assert abs(ours - theirs) < 0.08 < 0.15 < abs(plain - theirs)


@pytest.fixture
def all_gain(monkeypatch):
    """Fit networks to all folds, also if they are of no use."""
    monkeypatch.setattr("skflows.table._density.can_gain", lambda weight, others, scores: True)


@pytest.mark.parametrize(("cv", "names"), [(2, {"network on pairs"}), (3, set())])
def test_an_interrupt_keeps_what_is_fitted(interrupt, table, cv, names, all_gain):
    """The third epoch is in the second fold of the only network: a third fold is not begun."""
    own, table = quick(cv=cv), table[["size", "visits"]]
    with pytest.warns(UserWarning, match="The fit was interrupted after"):
        own.fit(table)
    assert len(interrupt) == 3
    assert {name for name in own.component_names_ if "network" in name} == names
    assert np.isfinite(own.score_samples(table)).all()


def test_a_single_column_needs_no_network(table, all_gain):
    """A network is for what columns say of one another, and one that is constant says nothing."""
    own = quick().fit(table[["size"]].assign(same="word"))
    assert not [name for name in own.leaderboard_["component"] if "network" in name]
    assert "network on pairs" in quick().fit(table[["size", "visits"]]).leaderboard_["component"]


def test_a_refit_that_fails_leaves_nothing_fitted(monkeypatch, table):
    """The old members would score the variables of the new table."""
    own = quick().fit(table[["size", "visits"]])
    monkeypatch.setattr("skflows.table._density.run_mixture", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        own.fit(table[["visits", "size"]])
    with pytest.raises(NotFittedError):
        own.score_samples(table[["size", "visits"]])


def test_components_that_a_time_limit_leaves_out(table, all_gain):
    """The classes that would start late; networks share the rest."""

    class Ticking(data_parallel.SingleProcess):
        """A process in which a second passes at every look at the clock."""

        looks = itertools.count()

        def clock(self):
            return next(self.looks)

    whole = quick().fit(table[["size", "visits"]])
    message = r"time_limit=60 left no time for \d of 5 components"
    with data_parallel.in_group(Ticking()), pytest.warns(UserWarning, match=message):
        own = quick(time_limit=60).fit(table[["size", "visits"]])
    assert own.component_names_[0] == "quantile classes of 1"
    assert "network on pairs" in own.component_names_
    assert set(own.component_names_) < set(whole.component_names_)
    scores = [
        dict(zip(*map(each.leaderboard_.get, ("component", "score")), strict=True))
        for each in (own, whole)
    ]
    name = own.component_names_[1]  # what has been fitted is as without a limit
    assert name.endswith("classes of 4") and scores[0][name] == scores[1][name]


def test_names_of_rows_are_pointed_out(table):
    """A category of each row, which a density of rare categories takes."""
    frame = table[["size", "sex"]].assign(id=[f"row {i}" for i in range(len(table))])
    detector = DensityOutlierDetector(quick(handle_unknown="rare", max_iter=1), calibration=None)
    with pytest.warns(ColumnWarning, match="'id' seems to name the rows") as warned:
        detector.fit(frame)
    assert not any("--kind" in str(each.message) for each in warned)


@pytest.mark.parametrize("estimator", [TableDensity(), DensityOutlierDetector(TableDensity())])
def test_columns_of_one_name(estimator, table):
    with pytest.raises(ValueError, match="X has more than one column 'size'; rename them"):
        estimator.fit(table[["size", "sex", "size"]])


@pytest.mark.parametrize("verbose", ["auto", 1])
def test_a_long_fit_says_how_long_it_takes(monkeypatch, capsys, verbose):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("skflows.table._density.expected_duration", lambda *args: 11)
    monkeypatch.setattr("skflows.table._duration.free_share", lambda: 1.0)
    table = np.random.default_rng(0).normal(size=(40, 2))
    density = TableDensity(max_iter=1, cv=2, verbose=verbose).fit(table)
    out, err = capsys.readouterr()
    text = "fitting 40 rows takes about 15 seconds on one core"
    told = f"skflows: {text} (verbose=False prints no progress)\n"
    assert err == told * (verbose == "auto") and out.startswith(text) == (verbose == 1)
    density.set_params(verbose="auto")
    DensityClassifier(density, classifiers=False).fit(table, table[:, 0] > 0)
    assert capsys.readouterr() == ("", told)
    DensityOutlierDetector(density, calibration="conformal", cv=2).fit(table)
    assert capsys.readouterr() == ("", "")
