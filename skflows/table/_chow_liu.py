"""A forest of dependent pairs of variables: probabilities of levels given any others.

References
----------
Chow & Liu, "Approximating Discrete Probability Distributions with Dependence Trees", 1968.
"""

from itertools import combinations

import numpy as np
import torch
from scipy.sparse.csgraph import (
    breadth_first_order,
    connected_components,
    minimum_spanning_tree,
)
from scipy.special import gammaln, ndtri
from torch import nn

N_BINS = 6  # of a number, equally likely under a standard normal
STRENGTHS = 4.0 ** np.arange(-1, 8)  # rows that independence may count for
LEAST_EVIDENCE = 3.0  # nats in favour of dependence, for a pair to be joined
ROWS_OF_CATEGORY = 0.5  # that each category counts for in its frequency
LOG_ZERO = -1e4  # finite, so that differences of two of them are
LEAST_LOG = -60.0  # of probabilities, relative to the greatest


def category_sizes(variables):
    """Return the number of categories of each variable: of its levels, bins, or bins and atoms."""
    return [
        N_BINS + max(variable.n_levels - 1, 0) if variable.has_number else variable.n_levels
        for variable in variables
    ]


class Categories(nn.Module):
    """The category of each variable, from its inputs of a network: its level, or a bin.

    Parameters
    ----------
    variables : list
        The variables. A number with atoms has bins, and then its atoms.
    are_missing : ndarray of shape (n_parts,) of bool
        Which variables some rows lack: they have one more category, for these rows.
    """

    def __init__(self, variables, are_missing):
        super().__init__()
        self.n_levels = [variable.n_levels for variable in variables]
        self.n_features = [variable.n_features for variable in variables]
        self.numbers = [j for j, variable in enumerate(variables) if variable.has_number]
        self.sizes_of_values = category_sizes(variables)
        sizes = zip(self.sizes_of_values, are_missing.tolist(), strict=True)
        self.sizes = [size + is_missing for size, is_missing in sizes]
        self.register_buffer("cuts", torch.from_numpy(ndtri(np.arange(1, N_BINS) / N_BINS)))

    def forward(self, features):
        """Return the categories ``(n, n_parts)`` of known variables, -1 where they have none."""
        parts = features.split(self.n_features, 1)
        return torch.stack([self.of_variable(j, part) for j, part in enumerate(parts)], 1)

    def of_variable(self, j, features):
        """Return the categories ``(n,)`` of a variable from its own features."""
        n_levels, is_number = self.n_levels[j], j in self.numbers
        level = torch.zeros(len(features), dtype=torch.long)
        if n_levels:
            levels = features[:, -n_levels:] if is_number else features[:, :n_levels]
            level = (levels @ torch.arange(1, n_levels + 1, dtype=levels.dtype)).long() - 1
        if not is_number:
            return level
        bins = torch.bucketize(features[:, 0].contiguous(), self.cuts)  # level 0 is the number
        return torch.where(level == 0, bins, level + (N_BINS - 1) * (level > 0))


def fit_chow_liu(view):
    """Return the forest that spans the pairs of variables with the most evidence of dependence.

    A missing value is a category too. Without it, a column that few rows know shifts the
    probabilities of others towards these rows, even where it is unknown.
    """
    categories = Categories(view.schema.variables, ~view.known.all(axis=0))
    category = categories(torch.from_numpy(view.features)).numpy()
    has_category = (category >= 0) & view.known
    indicators, marginals = [], []
    for j, size in enumerate(categories.sizes):
        is_category = (category[:, [j]] == np.arange(size)) & has_category[:, [j]]
        if size > categories.sizes_of_values[j]:
            is_category[:, -1] = ~view.known[:, j]
        count = view.weight @ is_category + ROWS_OF_CATEGORY
        indicators.append(is_category.astype(float))
        marginals.append(count / count.sum())
    p = len(indicators)
    evidence, tables = np.zeros((p, p)), {}
    for i, j in combinations(range(p), 2):
        counts = (view.weight[:, None] * indicators[i]).T @ indicators[j]
        evidence[i, j], tables[i, j] = dependence(counts, marginals[j])
        evidence[j, i], tables[j, i] = dependence(counts.T, marginals[i])
    evidence = (evidence + evidence.T) / 2
    joined = minimum_spanning_tree(np.where(evidence > LEAST_EVIDENCE, -evidence, 0.0))
    return ChowLiuForest(categories, marginals, tables, *rooted(joined)).float()


def dependence(counts, marginal):
    """Return the evidence that a variable depends on another, and its probabilities given that.

    Given each category of the other, they have a Dirichlet prior around the marginal frequencies,
    averaged over `STRENGTHS`. So a category of few rows may be an exception.

    Parameters
    ----------
    counts : ndarray of shape (n_others, n_categories)
        Rows of each pair of categories.
    marginal : ndarray of shape (n_categories,)
        Probabilities under independence.

    Returns
    -------
    evidence : float
        Log-ratio of the marginal likelihood to independence, in nats.
    table : ndarray of shape (n_others, n_categories)
        The expected probabilities.
    """
    n, prior = counts.sum(axis=1), STRENGTHS[:, None, None] * marginal
    evidence = (gammaln(counts + prior) - gammaln(prior)).sum(axis=2) - counts @ np.log(marginal)
    evidence += (gammaln(STRENGTHS) - gammaln(n[:, None] + STRENGTHS)).T
    tables = (counts + prior) / (n + STRENGTHS[:, None])[:, :, None]
    total = np.logaddexp.reduce(evidence, axis=0)
    table = np.einsum("sk,skc->kc", np.exp(evidence - total), tables)
    return (total - np.log(len(STRENGTHS))).sum(), table


def rooted(joined):
    """Return trees as lists of nodes, parents before children, and parents, -1 for roots."""
    trees, parent = [], np.full(joined.shape[0], -1)
    _, tree_of = connected_components(joined, directed=False)
    for k in range(tree_of.max() + 1):
        root = (tree_of == k).argmax()
        order, before = breadth_first_order(joined, root, directed=False)
        parent[order[1:]] = before[order[1:]]
        trees.append(order.tolist())
    return trees, parent.tolist()


class ChowLiuForest(nn.Module):
    """A distribution of categories in which each variable depends on its parent, if it has one.

    Parameters
    ----------
    categories : Categories
        The categories.
    marginals : list of ndarray of shape (n_categories,)
        Probabilities of each variable.
    tables : dict of (int, int) to ndarray of shape (n_others, n_categories)
        Probabilities of the second variable given the first.
    trees, parent : list
        What `rooted` returned.
    """

    def __init__(self, categories, marginals, tables, trees, parent):
        super().__init__()
        self.categories, self.trees, self.parent = categories, trees, parent
        self.neighbours = [[i] if i >= 0 else [] for i in parent]
        for j, i in enumerate(parent):
            if i >= 0:
                self.neighbours[i].append(j)
        for j, marginal in enumerate(marginals):
            table = marginal[None] if parent[j] < 0 else tables[parent[j], j]
            self.register_buffer(f"table_{j}", torch.from_numpy(table))

    def forward(self, category, given, only=None):
        """Return log-probabilities of the levels of unknown variables, up to constants.

        Parameters
        ----------
        category : Tensor of shape (n, n_parts)
            What ``categories`` returned.
        given : Tensor of bool, of shape (n, n_parts)
            Which variables are known.
        only : int, optional
            The variable to return the levels of.

        Returns
        -------
        log_prob : Tensor of shape (n_logits, n)
            Those of all leveled variables, one below the other.
        """
        if only is None:
            log_probs = self.log_probs(category, given, self.trees)
        else:
            log_probs = {only: self.log_probs_of(category, given, only)}
        levels = []
        for j in sorted(log_probs):
            log_prob = log_probs[j][:, : self.categories.sizes_of_values[j]]
            if j not in self.categories.numbers:
                levels.append(log_prob)
            elif log_prob.shape[1] > N_BINS:  # level 0 is the number
                levels += [log_prob[:, :N_BINS].logsumexp(1, keepdim=True), log_prob[:, N_BINS:]]
        return torch.cat(levels, 1).T

    def log_probs_of(self, category, given, j):
        """Return what `log_probs` does of one variable, ``(n, n_categories)``.

        Messages come from the variables around it, as far as ones that all rows know.
        """
        is_given = given & (category >= 0)
        are_given = is_given.all(0).tolist()
        order, toward = [j], {j: -1}
        for i in order:
            for k in self.neighbours[i] if i == j or not are_given[i] else ():
                if k != toward[i]:
                    toward[k] = i
                    order.append(k)
        log_probs = {}
        if is_given[:, j].any():
            is_other = category[:, [j]] != torch.arange(self.categories.sizes[j])
            log_probs[j] = LOG_ZERO * (is_given[:, [j]] & is_other).to(self.table_0.dtype)
        for i in reversed(order):
            log_prob, table = log_probs.get(i), getattr(self, f"table_{i}")
            if log_prob is None:  # rows of which nothing is known are all the same
                log_prob = table.new_zeros(1, table.shape[1])
            if self.parent[i] < 0:
                log_prob = log_prob + table.log()
            k = toward[i]
            if i == j:
                return log_prob.expand(len(category), -1)
            table = table.T if self.parent[i] == k else getattr(self, f"table_{k}")
            if are_given[i]:
                message = table.log()[category[:, i]]
            else:
                message = log_matmul(log_prob, table)
                if (is_known := is_given[:, [i]]).any():
                    message = torch.where(is_known, table.log()[category[:, i]], message)
            log_probs[k] = message if k not in log_probs else log_probs[k] + message

    def log_probs(self, category, given, trees):
        """Return log-probabilities of the categories of unknown variables, up to constants.

        They belong to the variables of some of the trees, as a dict of ``(n, n_categories)``.
        Messages go from the leaves of each tree to its root, and back.
        """
        is_given = given & (category >= 0)
        log_probs, to_parent = {}, {}
        for tree in trees:
            for j in tree:
                is_other = category[:, [j]] != torch.arange(self.categories.sizes[j])
                log_probs[j] = LOG_ZERO * (is_given[:, [j]] & is_other).to(self.table_0.dtype)
            for j in reversed(tree[1:]):
                i, table = self.parent[j], getattr(self, f"table_{j}")
                to_parent[j] = log_matmul(log_probs[j], table.T)
                log_probs[i] = log_probs[i] + to_parent[j]
            log_probs[tree[0]] = log_probs[tree[0]] + getattr(self, f"table_{tree[0]}").log()
            for j in tree[1:]:
                i, table = self.parent[j], getattr(self, f"table_{j}")
                log_probs[j] = log_probs[j] + log_matmul(log_probs[i] - to_parent[j], table)
        return log_probs


def log_matmul(log_x, y):
    """Return the logarithm of ``exp(log_x) @ y``, without denormal numbers, which are slow."""
    greatest = log_x.amax(1, keepdim=True)
    x = (log_x - greatest).clamp_(min=LEAST_LOG).exp_()
    return (x @ y).log_().add_(greatest)
