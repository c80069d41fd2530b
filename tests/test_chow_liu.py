"""The forest of pairs of variables that networks of a table start from."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from _tables import view_of

from skflows import TableDensity
from skflows.table import _components
from skflows.table._chow_liu import N_BINS, dependence, fit_chow_liu
from skflows.table._network import OrderAgnosticNetwork, Packing


def dependent_table(rng, n=400):
    a = rng.choice(list("abc"), n)
    b = np.where(rng.uniform(size=n) < 0.8, a, rng.choice(list("abc"), n))
    table = pd.DataFrame({"a": a, "b": b})
    table["number"] = rng.normal(size=n) + 2 * (a == "a")
    table["atoms"] = np.where(rng.uniform(size=n) < 0.4, 0, rng.exponential(size=n) + (b == "b"))
    table["count"] = rng.poisson(2, n) + 2 * (b == "c")
    table["alone"] = rng.choice(["yes", "no"], n)
    table.loc[::7, "b"] = None
    return table


def test_probabilities_are_those_of_the_joint_distribution():
    rng = np.random.default_rng(0)
    view = view_of(dependent_table(rng))
    forest = fit_chow_liu(view).double()
    sizes, parent = forest.categories.sizes, forest.parent
    assert sum(i >= 0 for i in parent) == 4 and parent[5] == -1
    rows = np.array(list(itertools.product(*map(range, sizes))))
    log_joint = np.zeros(len(rows))
    for j, own in enumerate(rows.T):
        of_parent = rows[:, parent[j]] if parent[j] >= 0 else 0
        log_joint += np.log(getattr(forest, f"table_{j}").numpy()[of_parent, own])
    joint = np.exp(log_joint)
    assert joint.sum() == pytest.approx(1)
    categories = forest.categories(torch.from_numpy(view.features))
    category, has_category = categories.numpy(), (categories >= 0).numpy()
    given = view.known & has_category & (rng.uniform(size=category.shape) < 0.5)
    found = forest.log_probs(categories, torch.from_numpy(given), forest.trees)
    found = {j: own.softmax(1).numpy() for j, own in found.items()}
    logits = forest(categories, torch.from_numpy(given)).numpy()
    for i in range(20):
        possible = (rows == category[i])[:, given[i]].all(axis=1)
        for j, size in enumerate(sizes):
            expected = np.bincount(rows[possible, j], joint[possible], size)
            np.testing.assert_allclose(found[j][i], expected / expected.sum(), atol=1e-12)
    # Levels of "a", "b", "atoms" (a number or 0), and so on.
    assert len(logits) == sum(part.n_levels for part in view.schema.variables)
    bins = found[3][:, :N_BINS].sum(axis=1)
    np.testing.assert_allclose(torch.from_numpy(logits[6:8]).softmax(0)[0], bins, atol=1e-12)
    # One variable alone, where others are known in some rows, in all, or in none.
    ends = np.cumsum([variable.n_levels for variable in view.schema.variables])[:-1]
    for known in (given, view.known & has_category & np.array([1, 0, 1, 0, 1, 0], bool), 0 * given):
        known = torch.from_numpy(known.astype(bool))
        of_variables = np.split(forest(categories, known).numpy(), ends)
        for j in (0, 1, 3, 4, 5):
            alone = forest(categories, known, j).softmax(0).numpy()
            together = torch.from_numpy(of_variables[j]).softmax(0).numpy()
            np.testing.assert_allclose(np.broadcast_to(alone, together.shape), together, atol=1e-12)


def test_columns_that_few_rows_know_leave_frequencies_as_they_are():
    """While nothing is known, a status is as likely as in all rows, not as in theirs."""
    rng = np.random.default_rng(0)
    status = rng.choice(["open", "paid", "closed"], 600, p=[0.6, 0.25, 0.15])
    table = pd.DataFrame({"status": status, "amount": rng.normal(size=600)})
    late = pd.Series(np.where(rng.uniform(size=600) < 0.8, status == "paid", status == "closed"))
    table["late"] = late.astype(str).where(status != "open")
    view = view_of(table)
    forest = fit_chow_liu(view).double()
    assert forest.parent[2] == 0  # they depend on each other
    categories = forest.categories(torch.from_numpy(view.features))
    nothing = torch.zeros(view.known.shape, dtype=bool)
    found = forest(categories, nothing, 0).softmax(0)[:, 0].numpy()
    levels = view.schema.variables[0].levels
    np.testing.assert_allclose(found, [(status == level).mean() for level in levels], atol=0.01)
    late = torch.from_numpy(view.known.copy())
    late[:, :2] = False
    found = forest(categories, late, 0).softmax(0)[levels.index("open")].numpy()
    assert found[view.known[:, 2]].max() < 0.05


def test_evidence_is_for_dependence_only():
    marginal = np.full(2, 0.5)
    joined, table = dependence(np.array([[50.0, 0.0], [0.0, 50.0]]), marginal)
    apart, same = dependence(np.full((2, 2), 25.0), marginal)
    assert joined > 50 and table[0, 1] < 0.02
    assert apart < 0 and same == pytest.approx(np.full((2, 2), 0.5))


def test_few_rows_may_be_an_exception():
    counts = np.array([[300.0, 300.0], [0.0, 20.0]])
    _, table = dependence(counts, counts.sum(axis=0) / counts.sum())
    assert abs(table[0, 1] - 0.5) < 0.01 and table[1, 1] > 0.95


def test_rule_of_few_rows_is_kept_beside_unrelated_columns(keep_components):
    rng = np.random.default_rng(3)
    kind = rng.choice(list("abcd"), 500, p=[0.7, 0.12, 0.1, 0.08])
    payment = np.where(kind == "d", "x", rng.choice(list("xyz"), 500))
    table = pd.DataFrame({"kind": kind, "payment": payment})
    table = table.assign(**{f"noise_{i}": rng.normal(size=500) for i in range(5)})
    keep_components(lambda component: component.name == "network on pairs")
    density = TableDensity(max_iter=6, cv=2, random_state=0).fit(table)
    proba = density.predict_proba("payment", pd.DataFrame({"kind": list("abcd")}))
    assert proba[3, 0] > 0.9 and proba[:3, 0].max() < 0.6


def test_held_out_rows_are_points_of_their_cells(monkeypatch):
    """The density at the middles of cells would prefer a network with peaks there."""
    rows = []

    def stop(phases, network, train, held_out, **settings):
        rows.append(network.unpacked(held_out.y))
        raise KeyboardInterrupt

    monkeypatch.setattr("skflows.training.trainer.train_in_phases", stop)
    view = view_of(pd.DataFrame({"count": np.random.default_rng(0).poisson(400, 600)}))
    with pytest.raises(KeyboardInterrupt):
        _components.fit_network(view, view, 0, None, {"max_iter": 1, "n_orders": 1})
    cells = view.cells("quantile")
    y = rows[0][3][1].double().numpy().reshape(-1, len(view))  # each row is drawn several times
    position = (y - cells.middle[:, 0]) / cells.width[:, 0]
    assert np.abs(position).max() <= 0.5 + 1e-6 and position.std() > 0.2


def test_many_rows_have_one_network():
    schema = view_of(dependent_table(np.random.default_rng(0))).schema

    def networks(n):
        components = _components.components(schema, n, {"max_iter": 1, "n_orders": 1})
        return [each.name for each in components if each.is_trained]

    assert networks(4000) == ["network", "network on pairs"]
    assert networks(4001) == ["network on pairs"]


@pytest.mark.parametrize("has_backbone", [False, True])
def test_gradients_of_a_network_are_those_of_its_likelihood(has_backbone):
    """In every output, and for atoms, cells and missing values."""
    rng = np.random.default_rng(0)
    table = dependent_table(rng, 200)
    table["many"] = rng.poisson(400, 200)
    view = view_of(table.mask(rng.random(table.shape) < 0.1))
    backbone = _components.backbone_of(view, np.random.RandomState(0)) if has_backbone else {}
    network = OrderAgnosticNetwork(
        view.schema.variables, view.code, view.weight, (8,), 3, **backbone
    )
    generator = torch.Generator().manual_seed(0)
    rows = Packing(view, network).draw(generator).double()
    _, _, *rest = network.unpacked(rows)
    outputs = torch.randn(network.layout.n_outputs, 200, generator=generator).double()
    weight = torch.rand(200, generator=generator).double()
    log_prob, pullback = network.log_prob_vjp(outputs.requires_grad_(), *rest)
    (expected,) = torch.autograd.grad(weight @ log_prob, outputs)
    with torch.no_grad():
        torch.testing.assert_close(pullback(weight), expected)
    assert (expected.abs().amax(dim=1) > 0).all()
