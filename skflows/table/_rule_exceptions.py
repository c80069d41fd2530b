"""Whether the exceptions of a rule depend on other columns: then it is no rule."""

import numpy as np

MAX_EXCEPTIONS = 0.05  # share of the rows that tell
MAX_RELATIVE = 0.1  # exceptions, relative to the errors of the most frequent value
N_BINS, ROWS_OF_BIN = 8, 10  # of a column that exceptions may depend on; rows, at least
ENOUGH_EXCEPTIONS, FEW_EXCEPTIONS = 10, 0.01  # number; share of rows, below which fewer may do
N_DRAWS, P_RANDOM = 5_000, 0.05  # of the test whether exceptions are random


def codes_of(rows):
    """Return the place of each value among the values of its column, -1 for an unknown one."""
    codes = np.full(rows.shape, -1)
    for j, column in enumerate(rows.T):
        known = ~np.isnan(column)
        codes[known, j] = np.unique(column[known], return_inverse=True)[1].ravel()
    return codes


def are_random(is_exception, codes, few=FEW_EXCEPTIONS):
    """Return whether exceptions do not depend on any column: otherwise they tell of no rule."""
    n_exceptions = int(is_exception.sum())
    if n_exceptions < ENOUGH_EXCEPTIONS:  # too few to see a dependence, unless it is strong
        if n_exceptions > few * len(is_exception):
            return False
        if n_exceptions < 2:
            return True
    rng = np.random.default_rng(0)
    for code in codes.T:
        bins = binned(code)
        counts = np.bincount(bins)
        expected = n_exceptions * counts / len(bins)
        seen = np.bincount(bins[is_exception], minlength=len(counts))
        drawn = rng.multivariate_hypergeometric(counts, n_exceptions, N_DRAWS, method="marginals")
        common = counts >= ROWS_OF_BIN  # a value that hardly occurs may be the mistake itself
        seen, drawn, expected = seen[common], drawn[:, common], expected[common]
        statistic = ((seen - expected) ** 2 / expected).sum()
        by_chance = ((drawn - expected) ** 2 / expected).sum(axis=1)
        if ((by_chance >= statistic).sum() + 1) / (N_DRAWS + 1) < P_RANDOM / codes.shape[1]:
            return False
    return True


def binned(code):
    """Return a few bins of the values of a column, as numbers from 0 on."""
    ranks = np.searchsorted(np.sort(code), code, side="right") / len(code)
    bins = np.ceil(ranks * N_BINS)
    return np.unique(bins, return_inverse=True)[1].ravel()
