"""Probabilities of the values of a discrete output by trees, which mixtures take for a flow."""

import warnings
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array, vstack
from scipy.special import ndtr, ndtri
from sklearn.ensemble import ExtraTreesClassifier

from ..columns.lattice import nearest_index
from ..distribution.distribution import MAX_VALUES
from ..distribution.normal import LOG_SQRT_2PI
from ._trees import Forest, least_in_leaf

LEAF_SIZES = (1, 10)
N_TREES = 20  # for each fold
SHARE_OF_ALL = 0.02  # of the values of all rows in the probabilities
ROWS_PER_VALUE = 4  # on average, at least: trees learn little about values that hardly repeat


class ValueProbabilities(NamedTuple):
    """Probabilities of the values of a single, discrete output by extra trees.

    They know values that are more frequent than their neighbours, such as forty hours of work, and
    rows that are nearly the same as others, where flows are smooth. The density is uniform from
    half a gap below a value to half a gap above it.

    Attributes
    ----------
    forest : Forest
        The trees, whose nodes have no values of their own.
    leaf_shares, leaf_values, leaf_ends : ndarray
        The shares of the values in each node, as the data, indices and ends of rows of a sparse
        array of shape (n_nodes, n_values): few values occur in a leaf.
    values : ndarray of shape (n_values,)
        The values, in ascending order.
    gap : float
        The least distance of values.
    share : ndarray of shape (n_values,)
        The shares of the values in all rows.
    """

    forest: Forest
    leaf_shares: np.ndarray
    leaf_values: np.ndarray
    leaf_ends: np.ndarray
    values: np.ndarray
    gap: float
    share: np.ndarray

    @classmethod
    def fit(cls, context, y, weight, values, gap, leaf, random_state):
        """Return probabilities that are fitted to rows."""
        place = nearest_index(values, y)
        model = ExtraTreesClassifier(N_TREES, min_samples_leaf=leaf, random_state=random_state)
        with warnings.catch_warnings():  # numbers may have as many values as classes never have
            warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
            model.fit(context, place, weight)
        trees = [each.tree_ for each in model.estimators_]
        leaves = [
            np.where(tree.children_left[:, None] == -1, tree.value[:, 0], 0) for tree in trees
        ]
        shares = vstack([*map(csr_array, leaves)], format="csr")
        count = np.bincount(place, weight, len(values)) + 1 / len(values)  # none is impossible
        return cls(
            Forest.of(model, has_values=False),
            shares.data,
            model.classes_[shares.indices],
            shares.indptr,
            values,
            gap,
            count / count.sum(),
        )

    def buffers(self):
        """Return no tensors, as of a flow on a CPU."""
        return iter(())

    def given(self, context):
        """Return the map of the output at contexts (n, n_context)."""
        leaves = self.forest.leaves(context)
        n, n_trees = leaves.shape
        shape = len(self.forest.nodes), len(self.share)
        shares = csr_array((self.leaf_shares, self.leaf_values, self.leaf_ends), shape)
        shares.check_format(full_check=True)  # compiled code follows the indices without a check
        ends = n_trees * np.arange(n + 1)
        of_rows = csr_array(
            (np.full(leaves.size, 1 / n_trees), leaves.ravel(), ends), (n, shape[0])
        )
        of_trees = (of_rows @ shares).toarray()
        below = np.cumsum((1 - SHARE_OF_ALL) * of_trees + SHARE_OF_ALL * self.share, axis=1)
        below = np.column_stack([np.zeros(n), below / below[:, -1:]])
        return GivenProbabilities(self.values, self.gap, below, np.arange(n))


class GivenProbabilities(NamedTuple):
    """A map of a discrete output to a normal, at n contexts: it maps arrays as a `GivenFlow` does.

    Attributes
    ----------
    values : ndarray of shape (n_values,)
        See `ValueProbabilities`.
    gap : float
        See `ValueProbabilities`.
    below : ndarray of shape (n_tables, n_values + 1)
        The probabilities of the first 0, 1, 2, ... values.
    table : ndarray of shape (n,)
        Which of these each context has.
    """

    values: np.ndarray
    gap: float
    below: np.ndarray
    table: np.ndarray

    def take(self, index):
        """Return the map at some of the contexts, by their indices, which may repeat."""
        return self._replace(table=self.table[index])

    def map(self, method, rows):
        """Map values "forward", or latent ones "inverse": rows (k, n, 1), and log-slopes (k, n)."""
        rows, log_slope = getattr(self, f"_{method}")(rows[..., 0])
        return rows[..., None], log_slope

    def _forward(self, y):
        place = nearest_index(self.values, y)
        position = (y - self.values[place]) / self.gap + 0.5
        low, high = self._ends(place)
        latent = ndtri(low + (high - low) * np.clip(position, 0, 1))
        is_inside = (position >= 0) & (position <= 1)
        return latent, self._log_slope(np.where(is_inside, high - low, 0), latent)

    def _inverse(self, latent):
        probability = ndtr(latent)
        ends = self.below[self.table, 1:-1]
        place = (ends <= probability[..., None]).sum(axis=-1)
        low, high = self._ends(place)
        with np.errstate(invalid="ignore"):
            inside = np.nan_to_num((probability - low) / (high - low)).clip(0, 1)
        y = self.values[place] + self.gap * (inside - 0.5)
        return y, -self._log_slope(high - low, latent)

    def _log_slope(self, probability, latent):
        """Return the log-slope of the map where values have a probability."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log(probability / self.gap) + latent**2 / 2 + LOG_SQRT_2PI

    def _ends(self, place):
        """Return the probability of smaller values than the ones at places, and with these."""
        return self.below[self.table, place], self.below[self.table, place + 1]


def fit_value_probabilities(parts, Y, gap, random_state):
    """Return probabilities for each part, of one leaf size after another; none of many values.

    Parameters
    ----------
    parts : list of tuple
        Rows of y and their context, with weights, of each fold.
    Y : ndarray of shape (n, 1)
        All values of y.
    gap : float
        The least distance of values.
    random_state : int
        Seeds the trees.
    """
    values = np.unique(Y)
    if not 1 < len(values) <= min(MAX_VALUES, len(Y) // ROWS_PER_VALUE):
        return []
    return [
        ValueProbabilities.fit(rows[:, 1:], rows[:, 0], weight, values, gap, leaf, random_state)
        for leaf in (least_in_leaf(size, len(Y)) for size in LEAF_SIZES)
        for rows, weight in parts
    ]
