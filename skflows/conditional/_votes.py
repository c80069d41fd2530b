"""Probabilities of a discrete output by trees, which mixtures take for a flow."""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.special import ndtr, ndtri
from sklearn.ensemble import ExtraTreesClassifier

from ..distribution.distribution import MAX_VALUES
from ..distribution.normal import LOG_SQRT_2PI
from ._trees import MANY_ROWS, Forest

LEAF_SIZES = (1, 10)
N_TREES = 20  # for each fold
SHARE_OF_ALL = 0.02  # of the values of all rows in the probabilities


class Votes(NamedTuple):
    """Probabilities of the values of a single, discrete output by extra trees.

    They know values that are more frequent than their neighbours, such as forty hours of work, and
    rows that are nearly the same as others, where flows are smooth. Within the cell of a value, the
    density is uniform.

    Attributes
    ----------
    forest : Forest
        The trees, whose nodes have no values of their own.
    leaf_shares, leaf_values, leaf_ends : ndarray
        The shares of the values in each node, as the data, indices and ends of rows of a sparse
        array of shape (n_nodes, n_values): few values occur in a leaf.
    start : float
        The lower end of the first cell.
    gap : float
        The width of all cells.
    share : ndarray of shape (n_values,)
        The shares of the values in all rows.
    """

    forest: Forest
    leaf_shares: np.ndarray
    leaf_values: np.ndarray
    leaf_ends: np.ndarray
    start: float
    gap: float
    share: np.ndarray

    @classmethod
    def fit(cls, context, y, weight, cells, least_in_leaf, random_state):
        """Return votes that are fitted to rows; `cells` are their start, gap and number."""
        start, gap, n_values = cells
        place = cell_of(y, start, gap)
        model = ExtraTreesClassifier(
            N_TREES, min_samples_leaf=least_in_leaf, random_state=random_state
        )
        forest = Forest.of(model.fit(context, place, weight))
        is_leaf = forest.nodes["left_child"] == -1
        shares = csr_array(np.where(is_leaf[:, None], forest.values[:, 0], 0.0))
        count = np.bincount(place, weight, n_values) + 1 / n_values  # none is impossible
        return cls(
            forest._replace(values=np.zeros((len(is_leaf), 1, 1))),
            shares.data,
            model.classes_[shares.indices],
            shares.indptr,
            start,
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
        ends = n_trees * np.arange(n + 1)
        votes = csr_array((np.full(leaves.size, 1 / n_trees), leaves.ravel(), ends), (n, shape[0]))
        probability = (1 - SHARE_OF_ALL) * (votes @ shares).toarray() + SHARE_OF_ALL * self.share
        below = np.cumsum(probability, axis=1)
        below = np.column_stack([np.zeros(len(below)), below / below[:, -1:]])
        return GivenVotes(self.start, self.gap, below, np.arange(len(below)))


class GivenVotes(NamedTuple):
    """A map of a discrete output to a normal, at n contexts: it maps arrays as a `GivenFlow` does.

    Attributes
    ----------
    start, gap : float
        See `Votes`.
    below : ndarray of shape (n_tables, n_values + 1)
        Probabilities below each end of a cell.
    table : ndarray of shape (n,)
        Which of these each context has.
    """

    start: float
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
        with np.errstate(invalid="ignore"):
            position = np.nan_to_num((y - self.start) / self.gap).clip(0, self.below.shape[1] - 1)
        low, high, cell = self._cells(position.astype(int))
        latent = ndtri(low + (high - low) * (position - cell))
        with np.errstate(divide="ignore", invalid="ignore"):
            log_slope = np.log((high - low) / self.gap) + latent**2 / 2 + LOG_SQRT_2PI
        return latent, log_slope

    def _inverse(self, latent):
        probability = ndtr(latent)
        ends = self.below[self.table, 1:-1]
        low, high, cell = self._cells((ends <= probability[..., None]).sum(axis=-1))
        with np.errstate(invalid="ignore"):
            inside = np.nan_to_num((probability - low) / (high - low)).clip(0, 1)
        y = self.start + self.gap * (cell + inside)
        return y, -self._forward(y)[1]

    def _cells(self, cell):
        """Return the probability below both ends of cells, and their places."""
        cell = np.minimum(cell, self.below.shape[1] - 2)
        return self.below[self.table, cell], self.below[self.table, cell + 1], cell


def fit_votes(parts, Y, gap, random_state):
    """Return `Votes` of each part, for one leaf size after another; none of too many values.

    Parameters
    ----------
    parts : list of tuple
        Rows of y and their context, with weights, of each fold.
    Y : ndarray of shape (n, 1)
        All values.
    gap : float
        Their distance.
    random_state : int
        Seeds the trees.
    """
    start = Y.min() - gap / 2
    n_values = int(cell_of(Y.max(), start, gap)) + 1
    if not 1 < n_values <= MAX_VALUES:
        return []
    cells, larger = (start, gap, n_values), -(-len(Y) // MANY_ROWS)
    return [
        Votes.fit(rows[:, 1:], rows[:, 0], weight, cells, size * larger, random_state)
        for size in LEAF_SIZES
        for rows, weight in parts
    ]


def cell_of(y, start, gap):
    """Return the place of the cell of each value."""
    return np.asarray((y - start) // gap, dtype=int)
