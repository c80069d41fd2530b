"""How much work a density of a table does, counted in calls rather than in seconds."""

import gc
import tracemalloc
import weakref
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from _tables import quick, schema_of, view_of
from numpy.testing import assert_allclose
from sklearn.cluster import KMeans

from skflows import TableDensity
from skflows.bijections import MarginalQuantile
from skflows.distribution import distribution
from skflows.table import (
    _binned_classes,
    _components,
    _latent_classes,
    _network,
    _predictive,
    _schema,
)
from skflows.table._network import MaskedLikelihood
from skflows.table._schema import Schema
from skflows.table._view import TableView


@pytest.fixture
def few_components(keep_components):
    """Fit two kinds of classes only: what is counted does not depend on the others."""
    names = "quantile classes of 1", "quantile classes of 2"
    keep_components(lambda component: component.name in names)


@pytest.mark.parametrize("column", ["x", "rain", "n", "angle"])
def test_all_quantile_levels_are_bisected_together(few_components, column, monkeypatch):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "x": rng.normal(size=80),
            "rain": np.where(rng.random(80) < 0.3, 0.0, rng.gamma(2.0, size=80)),
            "n": rng.poisson(3, 80),
            "angle": rng.uniform(0, 360, 80),
        }
    )
    density = quick(columns={"angle": ("circular", 360)}).fit(table)
    rows, q = table[:3].drop(columns=column), np.linspace(0.01, 0.99, 8)
    expected = np.stack([density.quantile(column, rows, one) for one in q], axis=1)
    calls, cdf = [], _predictive.OneVariable.cdf

    def counted(self, x, *row):
        calls.append(x.shape)
        return cdf(self, x, *row)

    monkeypatch.setattr(_predictive.OneVariable, "cdf", counted)
    np.testing.assert_array_equal(density.quantile(column, rows, q), expected)
    assert len(calls) <= 6 + _predictive.N_BISECTIONS  # six ends of the turns of circular ones
    monkeypatch.setattr(distribution, "ROWS_AT_ONCE", 6)  # quantiles at once
    np.testing.assert_array_equal(density.quantile(column, rows, q), expected)


def mixed_table(n, n_categories):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "kind": rng.integers(n_categories, size=n).astype(str),
            "x": rng.normal(size=n),
            "size": pd.Categorical(rng.integers(8, size=n).astype(str), ordered=True),
        }
    )
    return table.mask(rng.random(table.shape) < 0.1)


def test_a_step_of_latent_classes_does_not_multiply_indicators():
    view = view_of(mixed_table(400, 30), handle_unknown="rare")
    training = _latent_classes.Training(view, "quantile", np.random.RandomState(0))
    share = np.random.default_rng(1).dirichlet(np.ones(3), 400)
    tables = training.tables(share)
    for j, one_hot in training.levels.items():
        assert one_hot.nnz <= 400  # not one value for each level
        dense = one_hot.toarray()
        np.testing.assert_allclose(one_hot.T @ share, dense.T @ share, rtol=1e-12)
        if training.scores[j] is None:
            frequencies = (dense.sum(axis=0) + 0.5) / (dense + 0.5 / 400).sum()
            counts = share.T @ dense + frequencies
            expected = np.log(counts / counts.sum(axis=1, keepdims=True))
            np.testing.assert_allclose(tables[j], expected, rtol=1e-9)


def test_patterns_of_few_rows_are_completed_in_few_calls():
    rng = np.random.default_rng(0)
    n_rows = [*range(1, 30), 300, 301]  # of each pattern
    unique = np.array(list(np.ndindex(2, 2, 2, 2, 2)), dtype=bool)[: len(n_rows)]
    has = np.repeat(unique, n_rows, axis=0)[rng.permutation(sum(n_rows))]
    batches = list(_latent_classes.Patterns(has).batches(n_classes=3))
    assert len(batches) <= 3
    for patterns, rows, _ in batches:
        np.testing.assert_array_equal(has[rows], np.repeat(patterns[:, None], rows.shape[1], 1))
    every = np.concatenate([rows[is_row] for _, rows, is_row in batches])
    np.testing.assert_array_equal(np.sort(every), np.arange(len(has)))


def test_many_rows_of_many_categories_are_clustered_by_a_part_of_them(monkeypatch):
    fitted, predicted = [], []

    def fit(self, X, fit=KMeans.fit):
        fitted.append(len(X))
        return fit(self, X)

    def predict(self, X, predict=KMeans.predict):
        predicted.append(len(X))
        return predict(self, X)

    monkeypatch.setattr(KMeans, "fit", fit)
    monkeypatch.setattr(KMeans, "predict", predict)
    monkeypatch.setattr(_latent_classes, "SOME_ROWS", 50)
    view = view_of(mixed_table(400, 30), handle_unknown="rare")
    for limit, rows in {3e6: [400], 1e3: [50]}.items():
        monkeypatch.setattr(_latent_classes, "MANY_VALUES", limit)
        fitted.clear(), predicted.clear()
        _latent_classes.fit_latent_classes(view, 2, "quantile", np.random.RandomState(0))
        assert fitted == rows and predicted == [400] * len(rows)


@pytest.mark.parametrize("dtype", ["ordered", "number"])
def test_too_many_ordered_levels_are_an_error_before_the_fit(dtype, keep_components):
    keep_components(lambda component: pytest.fail("the fit began"))
    values = np.arange(1_001) / 7
    column = pd.Categorical(values.astype(str), ordered=True) if dtype == "ordered" else values
    with pytest.raises(ValueError, match=r"'a' has 1001 ordered levels; at most 1000 .* codes"):
        TableDensity({"a": "ordinal"}).fit(pd.DataFrame({"a": column}))


def test_quantile_maps_of_many_columns_are_fitted_together(few_components, monkeypatch):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(60, 5))).add_prefix("x")
    table["n"], table["gap"] = rng.poisson(300, 60), table["x0"].mask(table["x1"] > 1)
    table["positive"] = rng.gamma(1.0, size=60)
    density = TableDensity(max_iter=1, n_orders=1, random_state=0)
    one_by_one = density.fit(table).score_samples(table)
    widths, initialize = [], MarginalQuantile.initialize

    def counted(self, x, *args):
        widths.append(x.shape[1])
        return initialize(self, x, *args)

    monkeypatch.setattr(MarginalQuantile, "initialize", counted)
    monkeypatch.setattr(_schema, "FITTED_TOGETHER", 5)
    together = density.fit(table).score_samples(table)
    np.testing.assert_allclose(together, one_by_one, rtol=1e-9)
    # All numbers in the schema, whatever their kinds; the five columns in each of five folds.
    assert [width for width in widths if width > 1] == [7, *5 * [5]]
    assert widths.count(1) <= 6 * 3


def test_rows_given_more_than_once_are_answered_once(few_components, monkeypatch):
    table = pd.DataFrame({"x": np.arange(80) % 7, "kind": np.arange(80) % 3 == 0})
    density = TableDensity(random_state=0).fit(table)
    n_rows, evidence = [], _latent_classes.LatentClasses.evidence

    def counted(self, view):
        n_rows.append(len(view))
        return evidence(self, view)

    monkeypatch.setattr(_latent_classes.LatentClasses, "evidence", counted)
    drawn = density.sample(300, random_state=0, given={"kind": True})
    assert n_rows and set(n_rows) == {1}
    assert len(drawn) == 300 and drawn["kind"].all() and drawn["x"].nunique() > 4


def test_large_tables_train_networks_in_larger_batches(keep_components, monkeypatch):
    keep_components(lambda component: component.is_trained)
    monkeypatch.setattr(_components, "HIDDEN", (8,))
    sizes, gradients = [], MaskedLikelihood.gradients

    def counted(self, network, packed, weight, n):
        sizes.append(len(packed))
        return gradients(self, network, packed, weight, n)

    monkeypatch.setattr(MaskedLikelihood, "gradients", counted)
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(9_000, 2)), columns=["x", "y"])
    TableDensity(max_iter=1, n_orders=1, random_state=0).fit(table[:1_500])
    assert max(sizes) <= 128
    sizes.clear()
    TableDensity(max_iter=1, n_orders=1, random_state=0).fit(table)
    assert len(sizes) <= 24 and sum(sizes) >= 7_000


@pytest.mark.parametrize("n", [100, 3_000, 20_000, 1_000_000])
def test_the_patience_of_networks_is_in_steps_if_epochs_are_long(n):
    batches = _components.automatic_batches(n)
    patience = batches["n_iter_no_change"]
    n_steps = patience * n / batches["batch_size"]
    assert 12 <= patience <= 40 and (patience == 40 or n_steps >= 500)
    assert patience == 12 or n_steps <= 1_000


def test_members_see_a_part_of_many_rows(keep_components, monkeypatch):
    """Otherwise time and memory would grow with the rows."""
    monkeypatch.setattr(_components, "MAX_ROWS", 100)
    monkeypatch.setattr(_components, "HIDDEN", (8,))
    names = "quantile classes of 2", "binned classes of 4", "linear classes of 2"
    keep_components(lambda component: component.is_trained or component.name in names)
    n_rows, cells = [], Schema.cells

    def counted(self, values, code, space):
        n_rows.append(len(values))
        return cells(self, values, code, space)

    monkeypatch.setattr(Schema, "cells", counted)
    table = mixed_table(1_200, 3)
    density = TableDensity(max_iter=3, cv=2, n_orders=1, random_state=0).fit(table)
    assert n_rows.count(100) >= 2 * 6  # three kinds of classes and three epochs, in each fold
    assert density.stacked_score_ > -6


def test_epochs_take_rows_in_turn_as_often_as_their_weights_say(monkeypatch):
    drawn = []
    monkeypatch.setattr(_network, "Packing", lambda view, network: drawn.append(view) or view)
    monkeypatch.setattr(TableView, "offset", 0.0, raising=False)
    monkeypatch.setattr(TableView, "draw", lambda self, generator: self.values, raising=False)
    view = view_of(pd.DataFrame({"x": np.random.default_rng(0).normal(size=60)}))
    view.weight = np.tile([0.5, 1.0, 1.5], 20)
    epochs = _network.Epochs(view, None, 15, np.random.RandomState(0))
    assert torch.equal(epochs.weight, torch.ones(15))
    rows = np.concatenate([epochs.draw(epoch, None) for epoch in range(1, 9)])
    counts = (rows == view.values.T).sum(axis=0)
    assert counts.sum() == 8 * 15 and np.abs(counts - 2 * view.weight).max() <= 1
    np.testing.assert_array_equal(epochs.draw(2, None), rows[15:30])  # whatever was drawn before
    drawn.clear()
    epochs = _network.Epochs(view, None, 60, np.random.RandomState(0))
    assert drawn == [view] and epochs.weight.tolist() == view.weight.tolist()


def peak_megabytes(function):
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def test_memory_does_not_grow_with_levels_or_copies_of_columns(monkeypatch):
    monkeypatch.setattr(_binned_classes, "N_STEPS", 2)
    view = view_of(mixed_table(2_000, 200), handle_unknown="rare")
    view.cells("quantile")
    fit = partial(_binned_classes.fit_binned_classes, view, 2, np.random.RandomState(0))
    assert peak_megabytes(fit) < 2  # a value for each level would take 3.6
    rng = np.random.default_rng(0)
    schema = schema_of(pd.DataFrame(rng.normal(size=(30, 20))).add_prefix("x"))
    values = rng.normal(size=(2_000, 20))
    first_copies = partial(_components.first_copies, schema, values)
    assert peak_megabytes(first_copies) < 3 * values.nbytes / 1e6


def test_a_view_of_rows_goes_with_its_last_reference():
    """Arrays of each epoch and batch would pile up in a cycle."""
    view = view_of(mixed_table(30, 3))
    view.features, view.given(view.known)
    gone = weakref.ref(view)
    gc.disable()
    try:
        del view
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("space", ["quantile", "linear"])
def test_columns_that_are_mapped_together_have_the_cells_of_each(space):
    rng = np.random.default_rng(0)
    plain, sizes = rng.standard_t(3, size=(200, 3)), rng.gamma(2, 3, (200, 1))
    X = np.hstack([plain[:, :1], rng.poisson(3, (200, 1)), plain[:, 1:], sizes])
    schema = schema_of(X, random_state=np.random.RandomState(0))
    values = schema.encode(np.vstack([X, 1e6 * X[:3], np.full((1, 5), np.nan)]))
    values[5, 0] = np.nan
    code = schema.code(values)
    cells = schema.cells(values, code, space)
    for j, variable in enumerate(schema.variables):
        one = np.stack(variable.cells(values[:, j], code[:, j], space))
        assert_allclose(np.stack(cells[1:-1])[:, :, j], one, rtol=1e-12, atol=1e-12)
