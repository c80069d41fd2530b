"""Which rare categories, pooled in one level, go with the other values of a row in samples."""

from typing import NamedTuple

import numpy as np

LEAST_PAIRS = 10  # of rows with the same rare category, to judge by
LEAST_DEVIATIONS = 4  # standard deviations by which they agree more often than by chance


class Companion(NamedTuple):
    """The column whose levels tell most of the rare categories of another.

    Attributes
    ----------
    variable : int
        The variable of the column that tells.
    codes, places, weights : ndarray of shape (n_pairs,)
        Pairs of its levels and of the places of rare categories, and the weight of their rows.
    """

    variable: int
    codes: np.ndarray
    places: np.ndarray
    weights: np.ndarray

    def drawn(self, codes, random_state):
        """Return the place of a rare category for each level, NaN beside levels that have none."""
        places = np.full(len(codes), np.nan)
        for code in np.unique(codes):
            seen, rows = self.codes == code, np.flatnonzero(codes == code)
            if seen.any():
                share = self.weights[seen] / self.weights[seen].sum()
                places[rows] = random_state.choice(self.places[seen], len(rows), p=share)
        return places


def companions_of(variables, values, weight):
    """Return the companion of each variable with pooled categories, by its place, if there is one.

    Rows of the same rare category must agree in the companion more often than by chance.

    Parameters
    ----------
    variables : list of Number and Levels
        The variables of a table.
    values : ndarray of shape (n, n_variables)
        The rows of the fit.
    weight : ndarray of shape (n,)
        Weight of each row.
    """
    companions = {}
    for j, variable in enumerate(variables):
        if variable.has_number or not variable.pooled:
            continue
        is_rare = (variable.code(values[:, j]) == variable.n_levels - 1) & (weight > 0)
        is_rare &= values[:, j] < variable.n_values
        rare, of_row = values[is_rare], weight[is_rare]
        best = 0.0
        for k, other in enumerate(variables):
            if k == j or other.has_number:
                continue
            code = other.code(rare[:, k])
            known = (code >= 0) & (code < other.n_levels)
            agreement = agreement_of(rare[known, j], code[known])
            if agreement > best:
                best = agreement
                pairs = np.stack([code[known], rare[known, j]], axis=1)
                pairs, place = np.unique(pairs, axis=0, return_inverse=True)
                weights = np.bincount(place.ravel(), of_row[known])
                companions[j] = Companion(k, pairs[:, 0], pairs[:, 1], weights)
    return companions


def agreement_of(categories, codes):
    """Return how often rows of the same category have the same code, 0 by chance and 1 always.

    It is 0 where few rows share a category, or where it may be chance.
    """

    def n_same(*columns):
        counts = np.unique(np.stack(columns), axis=1, return_counts=True)[1]
        return (counts * (counts - 1)).sum() / 2

    n_pairs = n_same(categories)
    if n_pairs < LEAST_PAIRS:
        return 0.0
    chance = n_same(codes) / n_same(np.zeros(len(codes)))
    share = n_same(categories, codes) / n_pairs
    if chance == 1 or share <= chance + LEAST_DEVIATIONS * np.sqrt(chance / n_pairs):
        return 0.0
    return (share - chance) / (1 - chance)
