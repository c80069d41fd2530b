"""Latent classes of independent columns: levels, and bins of normal scores.

References
----------
Goodman, "Exploratory Latent Structure Analysis Using Both Identifiable and Unidentifiable Models",
1974.
"""

import numpy as np
from scipy.sparse import hstack
from scipy.special import ndtr, ndtri

from ._classes import Classes, exp_in_place
from ._latent_classes import indicators
from ._network import choose
from ._view import ALL, Histogram, Predictive

N_BINS = 20
N_STEPS = 100
TOLERANCE = 1e-4  # in nats per row
PRIOR_ROWS = 1.0  # of the marginal frequencies, in each class


class BinnedClasses(Classes):
    """A mixture of classes in which all columns are independent.

    The density of a number is a step function of its probability under a standard normal.

    Parameters
    ----------
    log_weights : ndarray of shape (n_classes,)
        Of the classes.
    tables : list of (ndarray of shape (n_classes, n_levels) or None, ndarray or None)
        Log-probabilities of the levels of each variable, and of the bins of its number.
    """

    space = "quantile"

    def __init__(self, log_weights, tables):
        self.log_weights = log_weights
        self.tables = tables

    def _joint(self, cells, known):
        """Yield all rows, and the log-probabilities of their known variables and each class."""
        joint = np.tile(self.log_weights, (len(known), 1))
        for j, (levels, bins) in enumerate(self.tables):
            code = cells.code[:, j]
            if levels is not None:
                has = known[:, j] & (code >= 0) & (code < levels.shape[1])
                joint[has] += levels[:, code[has]].T
            if bins is not None:
                has = known[:, j] & np.isfinite(cells.middle[:, j])
                low, y, high = (values[has, j] for values in (cells.low, cells.middle, cells.high))
                histogram = Histogram(np.exp(bins))
                joint[has] += histogram.log_mass(low, y, high).T
        yield ALL, joint

    def predictive(self, view, j, rows=ALL):
        """Return the distribution of a variable given the other known ones, as a `Predictive`."""
        share = self._shares_without(view, j, rows)
        levels, bins = self.tables[j]
        if bins is None:
            return Predictive(share @ np.exp(levels), None, None)
        map_ = view.schema.variables[j].maps[self.space]
        if levels is None:
            return Predictive(None, Histogram(share @ np.exp(bins)), map_)
        proba = share @ np.exp(levels)
        share = share * np.exp(levels[:, 0])
        share /= np.maximum(share.sum(axis=1, keepdims=True), 1e-300)
        return Predictive(proba, Histogram(share @ np.exp(bins)), map_)

    def sample(self, view, rows, random_state):
        """Return variables of rows, which may repeat, the unknown ones drawn given the others."""
        completed = view.values[rows]
        z = choose(self.posterior(view)[1], random_state, rows)
        for j, (levels, bins) in enumerate(self.tables):
            unknown = np.flatnonzero(~view.known[rows, j])
            code, y = np.full(len(unknown), -1), np.zeros(len(unknown))
            if levels is not None:
                code = choose(np.exp(levels), random_state, z[unknown])
            if bins is not None:
                bin_ = choose(np.exp(bins), random_state, z[unknown])
                y = ndtri((bin_ + random_state.uniform(size=len(unknown))) / bins.shape[1])
            completed[unknown, j] = view.schema.variables[j].decode(
                code, y, self.space, random_state
            )
        return completed


def fit_binned_classes(view, n_classes, random_state, start=None):
    """Fit a mixture by expectation-maximisation, leaving missing entries out.

    With another mixture as its start, it begins with its classes.
    """
    cells, variables = view.cells("quantile"), view.schema.variables
    blocks, kinds = [], []
    for j, variable in enumerate(variables):
        if variable.n_levels:
            blocks.append(indicators(cells.code[:, j], variable.n_levels))
            kinds.append((j, 0))
        if variable.has_number:
            bin_ = np.full(len(view), -1)
            has = np.isfinite(cells.middle[:, j])
            bin_[has] = (N_BINS * ndtr(cells.middle[has, j])).astype(int).clip(max=N_BINS - 1)
            blocks.append(indicators(bin_, N_BINS))
            kinds.append((j, 1))
    ends = np.cumsum([block.shape[1] for block in blocks])[:-1]
    one_hot = hstack(blocks, format="csr")
    by_level, weight = one_hot.T.tocsr(), view.weight[:, None]
    counts = np.split(by_level @ view.weight + 0.5, ends)
    prior = np.concatenate([PRIOR_ROWS * count / count.sum() for count in counts])
    if start is None:
        share = random_state.dirichlet(np.ones(n_classes), len(view)) * weight
    else:
        share = start.posterior(view)[1] * weight
    before = -np.inf
    for _ in range(N_STEPS):
        counts = (by_level @ share).T + prior
        logs = [
            np.log(table / table.sum(axis=1, keepdims=True)) for table in np.split(counts, ends, 1)
        ]
        log_weights = np.log((share.sum(axis=0) + 1e-3) / (share.sum() + 1e-3 * n_classes))
        share = one_hot @ np.concatenate(logs, axis=1).T + log_weights
        greatest = share.max(axis=1)
        share -= greatest[:, None]
        total = exp_in_place(share).sum(axis=1)
        share *= (view.weight / total)[:, None]
        score = np.average(greatest + np.log(total), weights=view.weight)
        if score - before < TOLERANCE:
            break
        before = score
    tables = [[None, None] for _ in variables]
    for (j, which), table in zip(kinds, logs, strict=True):
        tables[j][which] = table
    return BinnedClasses(log_weights, [tuple(pair) for pair in tables])
