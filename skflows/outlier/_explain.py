"""Which columns make a row odd: parts of a score that add up to it."""

from numbers import Integral

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ..density._validation import validate_rows

N_REFERENCE = 500  # rows, at most, with which explanations compare
ODD = 0.1  # of these, the fraction with the lowest scores: they are not what is normal
FAR = 1.0  # scaled difference in a column from which on it does not matter how far rows are
ROWS_AT_ONCE = 20_000
QUICK_ORDERS = 4  # of each of two densities


class ExplainedMixin:
    """Explanations, from the fitted ``models_`` and ``_reference``, normal rows to compare with."""

    def _set_reference(self, X, random_state):
        few = X[random_state.permutation(len(X))[:N_REFERENCE]]
        order = np.argsort(self._score_rows(few), kind="stable")
        self._reference = few[order[int(ODD * len(few)) :]]

    def explain(self, X, *, n_orders=8, random_state=None):
        """How much each column adds to the score of each row.

        Starting from a training row that resembles the row to be explained, the columns are put
        to its values one by one, in a random order and in the reverse of it; what the score
        changes by is the part of that column. The parts are means over the orders, each from
        another training row; the score of these rows themselves is shared by all columns.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        n_orders : int, default=8
            Number of orders.

        random_state : int, RandomState instance or None, default=None
            Seed of the orders. None is the same ones in each call.

        Returns
        -------
        contributions : ndarray of shape (n_samples, n_features)
            The rows of it add up to ``score_samples(X)``; the lowest is the oddest column.

        References
        ----------
        Strumbelj & Kononenko, "Explaining Prediction Models and Individual Predictions with
        Feature Contributions", 2014.
        """
        check_is_fitted(self)
        if not isinstance(n_orders, Integral) or n_orders < 1:
            raise ValueError(f"n_orders={n_orders!r}; it must be an integer of at least 1.")
        X = validate_rows(self, X, reset=False)
        rng = check_random_state(0 if random_state is None else random_state)
        parts = np.mean(
            [contributions(model, X, self._reference, n_orders, rng) for model in self.models_],
            axis=0,
        )
        if len(self.models_) == 1:
            return parts
        # Of several folds the score is a rank's, not quite the mean: all columns share that.
        scores, sums = self._score_rows(X), parts.sum(axis=1)
        rest = np.zeros(len(X))
        np.subtract(scores, sums, out=rest, where=np.isfinite(scores) & np.isfinite(sums))
        return parts + rest[:, None] / X.shape[1]


def contributions(model, X, reference, n_orders, random_state):
    """Parts of the score of each row, one for each column.

    A similar row takes the values of the row to be explained, column by column: what the score
    changes by is the part of that column. The sum telescopes, so it is exact for every density.
    Conditional densities, where a model has them, add up to its log-density as well, but blame
    the columns that go with the odd one: whatever is given it seems odd, too.

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
    scale = reference.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    parts = np.empty(X.shape)
    size = max(1, ROWS_AT_ONCE // (len(orders) * (X.shape[1] + 1)))
    for start in range(0, len(X), size):
        rows = X[start : start + size]
        similar = nearest(rows / scale, reference / scale, len(orders))
        parts[start : start + size] = along_orders(model, rows, reference[similar], orders)
    return parts


def quick_contributions(X, reference):
    """Parts of the scores of rows under two densities that are scored in no time.

    One is normal in the columns, the other in their quantiles: the first of the kinds that
    `AutoDensity` pools, fitted to the reference rows alone.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        The rows to explain.
    reference : ndarray of shape (m, d)
        Normal rows to compare with.

    Returns
    -------
    parts : ndarray of shape (n, d)
        The lowest is of the oddest column.
    """
    from .._portfolio import SPACES, StandardNormal
    from ..density import TransformedDensity

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
    """Random orders, each followed by its reverse: what comes early in one comes late in it."""
    orders = [random_state.permutation(d) for _ in range((n_orders + 1) // 2)]
    return [order for pair in orders for order in (pair, pair[::-1])][:n_orders]


def nearest(X, reference, k):
    """The most similar reference rows of each row: a single odd column must not hide them."""
    distance = np.array([np.minimum(np.abs(reference - row), FAR).sum(axis=1) for row in X])
    distance[distance == 0] = np.inf  # the row itself, from which it does not differ
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
