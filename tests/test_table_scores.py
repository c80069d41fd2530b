"""Scores of a table's members, against computations row by row and class by class."""

from itertools import product

import numpy as np
import pytest
import torch
from _tables import COLUMNS, mixed_table, schema_of
from scipy.special import log_ndtr, log_softmax, logsumexp
from scipy.stats import norm

from skflows.table._binned_classes import fit_binned_classes
from skflows.table._components import fit_network
from skflows.table._latent_classes import fit_kernels, fit_latent_classes
from skflows.table._view import TableView


def log_mass(low, middle, high, mean, scale):
    """Return the log-mass of normals in a cell, or their log-density at a point."""
    if low == high:
        return norm.logpdf(middle, mean, scale)
    low, high = (low - mean) / scale, (high - mean) / scale
    is_upper = low > -high  # differences keep their digits in the lower tail
    low, high = np.where(is_upper, -high, low), np.where(is_upper, -low, high)
    narrow = norm.logpdf(middle, mean, scale) + np.log((high - low) * scale)
    with np.errstate(divide="ignore", invalid="ignore"):
        wide = log_ndtr(high) + np.log1p(-np.exp(log_ndtr(low) - log_ndtr(high)))
    return np.where(high - low < 1e-6, narrow, wide)


def log_probs_of_classes(member, cells, i, known):
    """Return the log-probability of a row in each class."""
    total = member.log_weights.copy()
    for j, table in member.tables.items():
        if known[j] and 0 <= cells.code[i, j] < table.shape[1]:
            total += table[:, cells.code[i, j]]
    before = []
    for place, j in enumerate(member.numbers):
        if not (known[j] and np.isfinite(cells.middle[i, j])):
            continue
        S, m = member.covariances, member.means
        slopes = np.linalg.solve(S[:, before][:, :, before], S[:, before, place, None])[..., 0]
        residual = cells.middle[i, member.numbers[before]] - m[:, before]
        scale = np.sqrt(S[:, place, place] - (S[:, place, before] * slopes).sum(axis=1))
        ends = cells.low[i, j], cells.middle[i, j], cells.high[i, j]
        total += log_mass(*ends, m[:, place] + (slopes * residual).sum(axis=1), scale)
        before.append(place)
    return total


def plain_score(member, view, i, given):
    cells = view.cells(member.space)
    target = cells.known[i] & ~given
    known, given = (
        logsumexp(log_probs_of_classes(member, cells, i, mask))
        for mask in (cells.known[i], cells.known[i] & given)
    )
    return known - given + cells.log_scale[i, target].sum()


def plain_score_of_network(member, view, i, given):
    cells, network, layout = view.cells("quantile"), member.network, member.network.layout
    features = torch.from_numpy(view.features[[i]])
    categories, scores = network.values_of(features)
    totals = []
    for rank in member.rank:
        mask, total = given & view.known[i], 0.0
        for j in np.argsort(rank):
            if not view.known[i, j] or given[j]:
                continue
            total += cells.log_scale[i, j]
            seen = torch.from_numpy(mask & view.informative[i])[None]
            outputs = network.mlp(network.inputs(features, seen))
            outputs, n_levels = outputs[layout.slice_of(j)], layout.n_levels[j]
            if 0 <= cells.code[i, j] < n_levels:
                logits, levels = network.logits_of(categories, seen, j), outputs[:n_levels]
                levels = levels if logits is None else levels + logits
                total += log_softmax(levels[:, 0].numpy())[cells.code[i, j]]
            if j in layout.numbers and np.isfinite(cells.middle[i, j]):
                normals = network.normals_of(scores, seen, [layout.numbers.index(j)])
                mixture = network.mixtures(outputs[n_levels:], normals)
                weights, means, scales = (each[0, :, 0].numpy() for each in mixture)
                ends = cells.low[i, j], cells.middle[i, j], cells.high[i, j]
                total += logsumexp(weights + log_mass(*ends, means, np.exp(scales)))
            mask = mask | (np.arange(len(mask)) == j)
        totals.append(total)
    return logsumexp(totals) - np.log(len(totals))


@pytest.fixture(scope="module")
def views():
    """The training rows, and others of which many values are missing, or far from all others."""
    table, others = mixed_table(80), mixed_table(24, seed=1)
    schema = schema_of(table, COLUMNS, handle_unknown="warn", random_state=np.random.RandomState(0))
    values = schema.encode(others)
    values[6:12][np.random.default_rng(0).random((6, values.shape[1])) < 0.5] = np.nan
    values[12, 1:5] = [40.0, 7000.0, 600.0, 3e4]
    values[13, 1:5] = [-1e4, 0.0, 18.0, 1e-3]
    values[14, 2:5] = [4.5, 33.1, 9.999]  # between points of lattices
    values[15, 2:5] = [-5.0, -1.0, -2.0]  # beyond bounds
    values[16] = np.nan
    return TableView(schema, schema.encode(table)), TableView(schema, values)


def fit_small_network(view, random_state, has_backbone):
    settings = {"max_iter": 3, "n_orders": 4}
    seed = random_state.randint(1000)
    return fit_network(view, view, seed, None, settings=settings, has_backbone=has_backbone)


MEMBERS = {
    "quantile classes": lambda view, rs: fit_latent_classes(view, 3, "quantile", rs),
    "linear classes": lambda view, rs: fit_latent_classes(view, 3, "linear", rs),
    "one class": lambda view, rs: fit_latent_classes(view, 1, "quantile", rs),
    "quantile kernels": lambda view, rs: fit_kernels(view, "quantile", rs),
    "linear kernels": lambda view, rs: fit_kernels(view, "linear", rs),
    "binned classes": lambda view, rs: fit_binned_classes(view, 4, rs),
    "network": lambda view, rs: fit_small_network(view, rs, False),
    "network on pairs": lambda view, rs: fit_small_network(view, rs, True),
}


@pytest.fixture(scope="module", params=MEMBERS)
def member(request, views):
    return MEMBERS[request.param](views[0], np.random.RandomState(0))


def some_given(view):
    return np.random.default_rng(1).random(view.values.shape) < 0.4


def test_scores_equal_plain_computations(member, views):
    _, view = views
    if hasattr(member, "rank"):
        plain = plain_score_of_network
    elif hasattr(member, "numbers"):
        plain = plain_score
    else:
        pytest.skip("bins have no plain computation here")
    given = some_given(view)
    for mask, found in {
        False: member.log_prob(view),
        True: member.log_prob(view, given),
    }.items():
        expected = [plain(member, view, i, given[i] & mask) for i in range(len(view))]
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-8)


def test_the_score_of_a_row_depends_on_that_row_alone(member, views):
    _, view = views
    given = some_given(view)
    for mask in (None, given):
        alone = [
            member.log_prob(
                TableView(view.schema, view.values[[i]]), None if mask is None else mask[[i]]
            )[0]
            for i in range(len(view))
        ]
        np.testing.assert_allclose(member.log_prob(view, mask), alone, rtol=1e-11, atol=1e-9)


def test_conditionals_are_joint_minus_marginal(member, views):
    if hasattr(member, "rank"):
        pytest.skip("a network's density is a mean over orders")
    _, view = views
    given = some_given(view)
    marginal = TableView(view.schema, np.where(given, view.values, np.nan))
    expected = member.log_prob(view) - member.log_prob(marginal)
    np.testing.assert_allclose(member.log_prob(view, given), expected, rtol=1e-9, atol=1e-8)


def test_evidence_of_a_network_is_its_score_in_single_precision(member, views):
    if not hasattr(member, "rank"):
        pytest.skip("no network")
    _, view = views
    scores, evidence = member.log_prob(view), member.evidence(view)
    np.testing.assert_allclose(evidence, scores, rtol=1e-6, atol=1e-5)
    assert (evidence != scores).any()


def unknown_variable(view, j):
    values = view.values.copy()
    values[:, j] = np.nan
    return TableView(view.schema, values)


def test_answers_about_a_variable_depend_on_one_row_alone(member, views):
    """Probabilities of levels, distribution functions and means, some of them by tables."""
    _, view = views
    y, values = np.linspace(-8, 8, 400), np.exp(np.linspace(-3, 3, 399))
    for j in range(view.values.shape[1]):
        view_without = unknown_variable(view, j)
        together = member.predictive(view_without, j)
        for i in (0, 7, 10):
            alone = member.predictive(view_without, j, np.array([i]))
            single = TableView(view.schema, view_without.values[[i]])
            for found in (alone, member.predictive(single, j)):
                if found.levels is not None:
                    np.testing.assert_allclose(found.levels[0], together.levels[i], atol=1e-9)
                if found.number is not None:
                    below = together.number.cdf(y[None])
                    np.testing.assert_allclose(found.number.cdf(y[None])[0], below[i], atol=1e-9)
                    steps = np.diff(below[i])
                    mean = steps @ values / steps.sum()
                    np.testing.assert_allclose(found.number.mean(y, values)[0], mean, rtol=2e-3)


def test_levels_and_numbers_are_drawn_as_they_are_distributed(member, views):
    """Of one row, again and again, beside another one."""
    _, view = views
    few = TableView(view.schema, view.values[[0, 7]])
    for j, variable in enumerate(view.schema.variables):
        asked = unknown_variable(few, j)
        drawn = member.sample(asked, np.repeat([0, 1], 600), np.random.RandomState(0))[:, j]
        found = member.predictive(asked, j)
        for i, x in enumerate(np.split(drawn, 2)):
            code = variable.code(x)
            if found.levels is not None:
                shares = np.bincount(code, minlength=variable.n_levels)[: variable.n_levels] / 600
                assert np.abs(shares - found.levels[i]).max() < 0.09
            if found.number is not None and variable.step is None:
                scores = np.sort(variable.maps[member.space].forward(x[code <= 0])[0])
                below = found.number.take([i]).cdf(scores[None])[0]
                ranks = (np.arange(len(scores)) + 0.5) / len(scores)
                assert np.abs(below - ranks).max() < 2.0 / np.sqrt(len(scores))


def test_levels_are_drawn_together_as_they_are_scored(member, views):
    """Of one row, again and again, beside another one."""
    _, view = views
    variables = view.schema.variables
    unknown = [j for j, variable in enumerate(variables) if not variable.has_number][:3]
    values = view.values[[0, 7]].copy()
    values[:, unknown] = np.nan
    n = 3000
    drawn = member.sample(
        TableView(view.schema, values), np.repeat([0, 1], n), np.random.RandomState(0)
    )
    possible = np.array([*product(*(range(variables[j].n_levels) for j in unknown))])
    for row, own in zip(values, np.split(drawn, 2), strict=True):
        rows = np.tile(row, (len(possible), 1))
        for place, j in enumerate(unknown):
            rows[:, j] = variables[j].decode(possible[:, place])
        others = np.tile(~np.isnan(row), (len(rows), 1))
        expected = np.exp(member.log_prob(TableView(view.schema, rows), others))
        counts = (own[:, None, unknown] == rows[:, unknown]).all(axis=2).sum(axis=0)
        error = np.abs(counts - n * expected)
        assert (error < 4 * np.sqrt(n * expected) + 4).all()
