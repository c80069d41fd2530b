"""Explanations of a score: contributions of the columns that add up to it."""

import numpy as np
from sklearn.utils import check_random_state

N_REFERENCE = 500  # rows, at most, with which explanations compare
EXCLUDED = 0.1  # fraction of these with the lowest scores, which may be outliers
FAR = 1.0  # scaled difference in a column beyond which rows are equally far
ROWS_AT_ONCE = 20_000
QUICK_ORDERS = 4  # for each of two densities


def reference_rows(X, score_rows, random_state):
    """Return normal rows to compare with: a sample of rows without those of the lowest scores."""
    few = X[random_state.permutation(len(X))[:N_REFERENCE]]
    order = np.argsort(score_rows(few), kind="stable")
    return few[order[int(EXCLUDED * len(few)) :]]


def contributions(model, X, reference, n_orders, random_state):
    """Return the contribution of each column to the score of each row.

    A similar normal row takes the values of the row to be explained, column by column; the change
    of the score is the contribution of that column. The sum telescopes, so it is exact for every
    density. Conditional densities add up to the log-density too, but they blame the columns that
    depend on the odd one: given it, they seem odd as well.

    Parameters
    ----------
    model : ScoredDensity
        Computes the score.
    X : ndarray of shape (n, d)
        The rows to explain.
    reference : ndarray of shape (m, d)
        Normal rows to compare with.
    n_orders : int
        Orders of the columns over which contributions are averaged.
    random_state : RandomState
        Draws the orders.

    Returns
    -------
    contributions : ndarray of shape (n, d)
        They add up to the score, up to rounding.
    """
    from ..density._evaluation import column_scale  # imports torch

    orders = column_orders(X.shape[1], n_orders, random_state)
    scale = column_scale(reference)
    found = np.empty(X.shape)
    size = max(1, ROWS_AT_ONCE // (len(orders) * (X.shape[1] + 1)))
    for start in range(0, len(X), size):
        rows = X[start : start + size]
        similar = nearest(rows / scale, reference / scale, len(orders))
        found[start : start + size] = along_orders(model, rows, reference[similar], orders)
    return found


def quick_contributions(X, reference):
    """Return contributions to the scores of rows under two simple densities.

    One is normal in the columns, the other in their quantiles: the first families that
    `AutoDensity` pools, fitted to the reference rows only.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        The rows to explain.
    reference : ndarray of shape (m, d)
        Normal rows to compare with.

    Returns
    -------
    contributions : ndarray of shape (n, d)
        The oddest column has the lowest one.
    """
    from ..density import TransformedDensity
    from ..ensemble._portfolio import SPACES
    from ..ensemble._simple_densities import StandardNormal

    densities = [
        TransformedDensity(
            StandardNormal(), preprocessing=SPACES[space], discrete=None, contamination=None
        ).fit(reference)
        for space in ("whitened", "copula")
    ]
    rng = check_random_state(0)
    return np.mean(
        [contributions(density, X, reference, QUICK_ORDERS, rng) for density in densities], axis=0
    )


def column_orders(d, n_orders, random_state):
    """Return random orders, each followed by its reverse: early in one is late in the other."""
    orders = [random_state.permutation(d) for _ in range((n_orders + 1) // 2)]
    return [order for pair in orders for order in (pair, pair[::-1])][:n_orders]


def nearest(X, reference, k):
    """Return the indices of the k most similar reference rows, insensitive to a single odd
    column."""
    distance = np.array([np.minimum(np.abs(reference - row), FAR).sum(axis=1) for row in X])
    distance[distance == 0] = np.inf  # the row itself, which explains nothing
    ranks = np.argsort(distance, axis=1, kind="stable")
    return ranks[:, np.arange(k) % len(reference)]


def along_orders(model, X, starts, orders):
    """Return the mean contributions over orders; ``starts`` has a row for each row of X and
    order."""
    n, d = X.shape
    steps = np.empty((len(orders), d + 1, n, d))
    for i, order in enumerate(orders):
        steps[i, 0] = starts[:, i]
        for k, column in enumerate(order):
            steps[i, k + 1] = steps[i, k]
            steps[i, k + 1, :, column] = X[:, column]
    scores = model.score_samples(steps.reshape(-1, d)).reshape(len(orders), d + 1, n)
    with np.errstate(invalid="ignore"):
        changes = np.diff(scores, axis=1)
    changes[np.isnan(changes)] = 0.0  # from density 0 to density 0
    found = np.zeros((n, d))
    for order, change in zip(orders, changes, strict=True):
        found[:, order] += change.T
    return (found + (scores[:, 0].sum(axis=0) / d)[:, None]) / len(orders)
