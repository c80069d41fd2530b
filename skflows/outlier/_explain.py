"""Which columns make a row odd: parts of a score that add up to it."""

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.special import logsumexp
from sklearn.mixture import GaussianMixture

from ._fit import is_frozen

FAR = 1.0  # scaled difference in a column from which on it does not matter how far rows are
ROWS_AT_ONCE = 20_000


def contributions(model, X, reference, n_orders, random_state):
    """Parts of the score of each row, one for each column.

    Parameters
    ----------
    model : ScoredDensity
        What gives the score.
    X : ndarray of shape (n, d)
        The rows to explain.
    reference : ndarray of shape (m, d)
        Normal rows to compare with.
    n_orders : int
        Orders of the columns over which parts are averaged.
    random_state : RandomState
        Draws the orders.

    Returns
    -------
    parts : ndarray of shape (n, d)
        They add up to the score, but for rounding.
    """
    orders = column_orders(X.shape[1], n_orders, random_state)
    density = model.density.estimator if is_frozen(model.density) else model.density
    if model.score == "log_density" and isinstance(density, GaussianMixture):
        return by_conditionals(density, X, orders)
    return by_replacement(model, X, reference, orders)


def column_orders(d, n_orders, random_state):
    """Random orders, each followed by its reverse: what comes early in one comes late in it."""
    orders = [random_state.permutation(d) for _ in range((n_orders + 1) // 2)]
    return [order for pair in orders for order in (pair, pair[::-1])][:n_orders]


def by_conditionals(mixture, X, orders):
    """Log-density of each column given those before it, averaged over orders."""
    covariances = full_covariances(mixture)
    parts = np.zeros(X.shape)
    for order in orders:
        # Rotated by the Cholesky factor of the ordered columns, the first k columns of each
        # component give its marginal: all marginals of the order come from one pass.
        joint = np.empty((len(covariances), len(X), len(order)))
        for i, (mean, covariance) in enumerate(zip(mixture.means_, covariances, strict=True)):
            factor = cholesky(covariance[np.ix_(order, order)], lower=True)
            z = solve_triangular(factor, (X - mean)[:, order].T, lower=True).T
            steps = -0.5 * (z**2 + np.log(2 * np.pi)) - np.log(np.diag(factor))
            joint[i] = np.cumsum(steps, axis=1) + np.log(mixture.weights_[i])
        marginals = logsumexp(joint, axis=0)
        parts[:, order] += np.diff(marginals, axis=1, prepend=0.0)
    return parts / len(orders)


def full_covariances(mixture):
    """One matrix for each component, whatever the kind of the mixture."""
    k, d = mixture.means_.shape
    kinds = {
        "full": lambda c: c,
        "tied": lambda c: np.broadcast_to(c, (k, d, d)),
        "diag": lambda c: c[:, None, :] * np.eye(d),
        "spherical": lambda c: c[:, None, None] * np.eye(d),
    }
    return kinds[mixture.covariance_type](mixture.covariances_)


def by_replacement(model, X, reference, orders):
    """Change of the score as a similar row takes the values of the row, column by column."""
    scale = reference.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    parts = np.empty(X.shape)
    size = max(1, ROWS_AT_ONCE // (len(orders) * (X.shape[1] + 1)))
    for start in range(0, len(X), size):
        rows = X[start : start + size]
        similar = nearest(rows / scale, reference / scale, len(orders))
        parts[start : start + size] = along_orders(model, rows, reference[similar], orders)
    return parts


def nearest(X, reference, k):
    """The most similar reference rows of each row: a single odd column must not hide them."""
    distance = np.array([np.minimum(np.abs(reference - row), FAR).sum(axis=1) for row in X])
    ranks = np.argsort(distance, axis=1, kind="stable")
    return ranks[:, np.arange(k) % len(reference)]


def along_orders(model, X, starts, orders):
    """Means of what each column changes; ``starts`` has a row for each row of X and order."""
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
    changes[np.isnan(changes)] = 0.0  # once the density is 0, it stays so
    parts = np.zeros((n, d))
    for order, change in zip(orders, changes, strict=True):
        parts[:, order] += change.T
    return (parts + (scores[:, 0].sum(axis=0) / d)[:, None]) / len(orders)
