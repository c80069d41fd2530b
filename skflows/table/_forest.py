"""A forest of dependent pairs of variables: probabilities of levels given any others.

References
----------
Chow & Liu, "Approximating Discrete Probability Distributions with Dependence Trees", 1968.
"""

from itertools import pairwise, permutations

import numpy as np
import torch
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from scipy.special import gammaln, logsumexp, ndtri, softmax
from torch import nn

N_BINS = 6  # of a number, equally likely under a standard normal
STRENGTHS = 4.0 ** np.arange(-1, 8)  # rows that independence may count for
LEAST_EVIDENCE = 3.0  # nats in favour of dependence, for a pair to be joined
ROWS_OF_CATEGORY = 0.5  # that each category counts for in its frequency
LOG_ZERO = -1e4  # finite, so that differences of two of them are
LEAST_LOG, LEAST = -60.0, 1e-30  # of probabilities, relative to the greatest


class Categories(nn.Module):
    """The category of each variable, from the inputs of a network: its level, or a bin.

    Parameters
    ----------
    parts : list
        The variables. A number with atoms has bins, and then its atoms.
    """

    def __init__(self, parts):
        super().__init__()
        self.numbers = [j for j, part in enumerate(parts) if part.has_number]
        self.sizes = [
            N_BINS + max(part.n_levels - 1, 0) if part.has_number else part.n_levels
            for part in parts
        ]
        first = np.concatenate([[0], np.cumsum([part.n_features for part in parts])])
        self.scores = [int(first[j]) for j in self.numbers]
        is_level, category = np.zeros((2, first[-1], len(parts)))
        for j, part in enumerate(parts):
            start = first[j + 1] - part.n_levels if part.has_number else first[j]
            levels = start + np.arange(part.n_levels)
            is_level[levels, j] = 1.0
            category[levels, j] = np.arange(part.n_levels)
            if part.has_number:  # level 0 is the number
                category[levels[1:], j] += N_BINS - 1
        is_number = [part.n_levels == 0 for part in parts]
        cuts = ndtri(np.arange(1, N_BINS) / N_BINS)
        for name, values in {
            "is_level": is_level,
            "category": category,
            "is_number": np.array(is_number),
            "cuts": cuts,
        }.items():
            self.register_buffer(name, torch.from_numpy(values))

    def forward(self, features):
        """Return the categories ``(n, n_parts)`` of known variables, and whether they have one."""
        found = (features @ self.category).long()
        bins = torch.bucketize(features[:, self.scores], self.cuts)
        found[:, self.numbers] += bins * (found[:, self.numbers] == 0)
        return found, (features @ self.is_level > 0) | self.is_number


def fit_forest(view):
    """Return the `Forest` of the strongest dependence of pairs of variables."""
    categories = Categories(view.schema.parts)
    category, has_category = (each.numpy() for each in categories(torch.from_numpy(view.features)))
    has_category = has_category & view.rows.known
    indicators, marginals = [], []
    for j, size in enumerate(categories.sizes):
        own = (category[:, [j]] == np.arange(size)) & has_category[:, [j]]
        count = view.weight @ own + ROWS_OF_CATEGORY
        indicators.append(own.astype(float))
        marginals.append(count / count.sum())
    p = len(indicators)
    evidence, tables = np.zeros((p, p)), {}
    for i, j in permutations(range(p), 2):
        counts = (view.weight[:, None] * indicators[i]).T @ indicators[j]
        evidence[i, j], tables[i, j] = dependence(counts, marginals[j])
    evidence = (evidence + evidence.T) / 2
    tree = minimum_spanning_tree(np.where(evidence > LEAST_EVIDENCE, -evidence, 0.0))
    return Forest(categories, marginals, tables, *rooted(tree)).float()


def dependence(counts, marginal):
    """Return the evidence that a variable depends on another, and its probabilities given that.

    Given each category of the other, they have a Dirichlet prior around the marginal frequencies,
    of a strength that is one of a few. So a category of few rows may be an exception.

    Parameters
    ----------
    counts : ndarray of shape (n_others, n_categories)
        Rows of each pair of categories.
    marginal : ndarray of shape (n_categories,)
        Probabilities under independence.

    Returns
    -------
    evidence : float
        Logarithm of the marginal likelihood, less that of independence, in nats.
    table : ndarray of shape (n_others, n_categories)
        The expected probabilities.
    """
    n, prior = counts.sum(axis=1), STRENGTHS[:, None, None] * marginal
    evidence = (gammaln(counts + prior) - gammaln(prior)).sum(axis=2) - counts @ np.log(marginal)
    evidence += (gammaln(STRENGTHS) - gammaln(n[:, None] + STRENGTHS)).T
    tables = (counts + prior) / (n + STRENGTHS[:, None])[:, :, None]
    table = np.einsum("sk,skc->kc", softmax(evidence, axis=0), tables)
    return (logsumexp(evidence, axis=0) - np.log(len(STRENGTHS))).sum(), table


def rooted(tree):
    """Return the parent of each node, -1 for roots, and its distance from the root."""
    p = tree.shape[0]
    parent, depth = np.full(p, -1), np.full(p, -1)
    for root in range(p):
        if depth[root] < 0:
            order, before = breadth_first_order(tree, root, directed=False)
            depth[root] = 0
            for node in order[1:]:
                parent[node], depth[node] = before[node], depth[before[node]] + 1
    return parent, depth


class Forest(nn.Module):
    """A distribution of categories in which each variable depends on its parent, if it has one.

    Parameters
    ----------
    categories : Categories
        The categories.
    marginals : list of ndarray of shape (n_categories,)
        Probabilities of each variable.
    tables : dict of (int, int) to ndarray of shape (n_others, n_categories)
        Probabilities of the second variable given the first.
    parent, depth : ndarray of int, of shape (n_parts,)
        What `rooted` returned.
    """

    def __init__(self, categories, marginals, tables, parent, depth):
        super().__init__()
        self.categories, self.parent = categories, parent
        # Arrays have the variables by depth, so that those of one depth are a slice.
        self.order = np.argsort(depth, kind="stable")
        self.place = np.argsort(self.order)
        ends = np.cumsum(np.bincount(depth)).tolist()
        self.slices = [
            (slice(*own), torch.from_numpy(self.place[parent[self.order[slice(*own)]]]))
            for own in pairwise(ends)
        ]
        p, widest = len(parent), max(categories.sizes)
        log_prior = np.full((p, 1, widest), LOG_ZERO)
        given_parent = np.zeros((p, widest, widest))
        for k, j in enumerate(self.order):
            marginal = marginals[j]
            table = marginal[None] if parent[j] < 0 else tables[parent[j], j]
            rows, columns = table.shape
            given_parent[k, :, :columns] = marginal  # also of padded rows, to be positive
            given_parent[k, :rows, :columns] = table
            log_prior[k, :, :columns] = np.log(marginal) if parent[j] < 0 else 0.0
        self.register_buffer("log_prior", torch.from_numpy(log_prior))
        self.register_buffer("given_parent", torch.from_numpy(given_parent))

    def forward(self, features, given, only=None):
        """Return log-probabilities of the levels of unknown variables, up to constants.

        Parameters
        ----------
        features : Tensor of shape (n, n_features)
            Inputs of a network.
        given : Tensor of bool, of shape (n, n_parts)
            Which variables are known.
        only : int, optional
            The variable to return the levels of.

        Returns
        -------
        log_prob : Tensor of shape (n_logits, n)
            Those of all leveled variables, one below the other.
        """
        found, levels = self.log_probs(features, given, only), []
        for j in range(len(self.place)) if only is None else [only]:
            own, size = found[self.place[j]], self.categories.sizes[j]
            if j not in self.categories.numbers:
                levels.append(own[:, :size])
            elif size > N_BINS:  # level 0 is the number
                levels += [own[:, :N_BINS].logsumexp(1, keepdim=True), own[:, N_BINS:size]]
        return torch.cat(levels, 1).T

    def log_probs(self, features, given, only=None):
        """Return log-probabilities of the categories of unknown variables, up to constants.

        Messages go from the leaves of each tree to its root, and back.

        Parameters
        ----------
        features : Tensor of shape (n, n_features)
            Inputs of a network.
        given : Tensor of bool, of shape (n, n_parts)
            Which variables are known.
        only : int, optional
            The variable that is asked for; what is returned for others is something else then.

        Returns
        -------
        log_prob : Tensor of shape (n_parts, n, n_categories)
            By depth: that of variable j is at ``place[j]``. As many categories as the variable
            with most has.
        """
        category, has_category = self.categories(features)
        is_given = (given & has_category)[:, self.order].T[..., None]
        category = category[:, self.order].T[..., None]
        every = torch.arange(self.log_prior.shape[-1])
        found = self.log_prior + LOG_ZERO * (is_given & (category != every))
        to_parent = torch.empty_like(found)
        for own, parent in reversed(self.slices):
            to_parent[own] = log_matmul(found[own], self.given_parent[own].mT)
            found.index_add_(0, parent, to_parent[own])
        for own, parent in self.slices if only is None else self.path_to(only):
            found[own] += log_matmul(found[parent] - to_parent[own], self.given_parent[own])
        return found

    def path_to(self, j):
        """Return the places of the variables from a root to variable j, and those of parents."""
        path = []
        while (parent := self.parent[j]) >= 0:
            k = self.place[j]
            path.append((slice(k, k + 1), [self.place[parent]]))
            j = parent
        return reversed(path)


def log_matmul(log_x, y):
    """Return the logarithm of ``exp(log_x) @ y``, far from denormal numbers, which are slow."""
    greatest = log_x.amax(-1, keepdim=True)
    x = (log_x - greatest).clamp_(min=LEAST_LOG).exp_()
    return (x @ y).clamp_(min=LEAST).log_().add_(greatest)
