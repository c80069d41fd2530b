"""Ranks among the scores of unseen rows: p-values, conformal levels and discoveries."""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats
from sklearn.utils import gen_batches

from .thresholds import lowered

ROUNDING = 1e-12  # relative error of a sum of weights
PAIRS_AT_ONCE = 300_000  # of a known row and a new one


class Ranks(NamedTuple):
    """Scores of rows that the model has not seen, in ascending order (see `lowered`).

    A new row counts as one of these of weight 1, the largest that a row has.
    """

    scores: np.ndarray
    totals: np.ndarray  # weight of the first 0, 1, 2, ... of these rows

    @classmethod
    def fit(cls, scores, weight=None):
        order = np.argsort(scores, kind="stable")
        weight = np.ones(len(scores)) if weight is None else weight[order]
        return cls(lowered(scores[order]), np.concatenate([[0.0], np.cumsum(weight)]))

    def weight_below(self, scores):
        """Return the weight of the rows that score no higher than each of some scores."""
        return self.totals[np.searchsorted(self.scores, scores, side="right")]

    def p_values(self, scores):
        return (1 + self.weight_below(scores)) / (1 + self.totals[-1])

    def randomized_p_values(self, scores, random_state):
        """Return p-values that place a row at random among itself and the rows with its score."""
        lower = self.totals[np.searchsorted(self.scores, lowered(scores))]
        upper = 1 + self.weight_below(scores)
        place = random_state.uniform(size=len(scores))
        return (lower + place * (upper - lower)) / (1 + self.totals[-1])

    def log_p(self, scores, is_own=False):
        """Return logarithms of p-values, which go on falling below the lowest known score.

        Otherwise all rows that are odder than the known ones would have the same value.

        Parameters
        ----------
        scores : ndarray of shape (m,)
            NaN stays NaN.
        is_own : bool, default=False
            Whether these are the known rows, without weights: each is then a new row among the
            others.
        """
        below, lowest = self.weight_below(scores), self.scores[0]
        p = (1 + below) / (1 + self.totals[-1])
        if is_own:  # `below` counts the row itself, and the lowest row lies below the second
            p = below / self.totals[-1]
            lowest = np.where(below == 1, self.scores[:2][-1], lowest)
        finite = self.scores[np.isfinite(self.scores)]
        scale = np.median(finite) - finite[0] if len(finite) else 0.0
        with np.errstate(invalid="ignore"):  # -inf below -inf
            gap = np.nan_to_num(lowest - scores, nan=0.0)
        fall = np.log1p(np.maximum(gap, 0) / scale) if scale else 0.0
        return np.where(np.isnan(scores), np.nan, np.log(p) - fall)

    def threshold(self, alpha):
        """Return the score below which p-values are at most ``alpha``."""
        levels = (1 + self.totals[:-1]) / (1 + self.totals[-1])
        n_levels = np.searchsorted(levels, alpha, side="right")
        return float(self.scores[n_levels - 1]) if n_levels else -np.inf


def joint_p_values(known, new):
    """Return conformal p-values by two scores of each row: small if either is low.

    Rows are ordered by a power mean of their ranks in the two scores, among the known rows and the
    new one. Its exponent, -1/2, is between the ones of the product and of the lower rank. A row
    that is the lowest in the first score alone has the least p-value that there is. The mean is a
    score like any other: the p-values are valid because known rows have it too.

    Parameters
    ----------
    known : pair of ndarray of shape (n,)
        The scores of rows that the models have not seen.
    new : pair of ndarray of shape (m,)
        The scores of new rows.

    Returns
    -------
    p_values : ndarray of shape (m,)

    References
    ----------
    Vovk & Wang, "Combining p-Values via Averaging", 2020.
    """
    ranks, n = [Ranks.fit(scores) for scores in known], len(known[0])
    own = [each.weight_below(scores)[:, None] for each, scores in zip(ranks, known, strict=True)]
    below = [each.weight_below(scores) for each, scores in zip(ranks, new, strict=True)]
    oddness = _oddness(*(rank + 1 for rank in below))
    n_odder = np.empty(len(oddness))
    for some in gen_batches(len(n_odder), max(1, PAIRS_AT_ONCE // max(n, 1))):
        # A known row above the new one in a score has a rank there that is higher by one.
        places = (rank + (rank > end[some]) for rank, end in zip(own, below, strict=True))
        n_odder[some] = (_oddness(*places) >= oddness[some]).sum(axis=0)
    return (1 + n_odder) / (1 + n)


def _oddness(first, second):
    with np.errstate(divide="ignore"):
        return 1 / np.sqrt(np.where(first > 1, first, 0)) + 1 / np.sqrt(second)


def least_p_value(null):
    """Return the smallest p-value that a row can have, by `Ranks` or `Tails`."""
    return float(null.p_values(np.array([-np.inf]))[0])


def level(scores, coverage):
    """Return the level that a new row's score exceeds with a probability of 1 - coverage at most.

    Parameters
    ----------
    scores : ndarray of shape (n,) or (n, k)
        Scores from 0 to 1 of rows that the model has not seen.
    coverage : float
        The least probability of a score up to the level, over rows and calibration rows.

    Returns
    -------
    level : float or ndarray of shape (k,)
        1 if there are too few rows to tell.
    """
    # `Ranks.threshold` of 1 - coverage would round: 9 rows would no longer give a level of 0.9.
    rank = math.ceil((len(scores) + 1) * coverage)
    if rank > len(scores):
        return np.ones(np.shape(scores)[1:])
    return np.sort(scores, axis=0)[rank - 1]


def rows_needed(coverage):
    """Return the least number of unseen rows that tell a `level` below 1."""
    n = math.ceil(coverage / (1 - coverage))  # or one more, by a rounding error
    return n - (math.ceil(n * coverage) < n)


def pooled(scores, held_out, weights=None):
    """Return one score for each row from its scores under the models of several folds.

    Each row gets the rank of Vovk's cross-conformal p-value: the weight of the held-out rows, of
    all folds, that score no higher under the model that had not seen them. Its score is the mean
    over the models, clipped between the two held-out scores that have this rank.

    Parameters
    ----------
    scores : list of ndarray of shape (n,)
        Scores of the rows under each model.
    held_out : list of ndarray
        Scores of the rows that were held out from each model.
    weights : list of ndarray, optional
        The weights of these rows.

    Returns
    -------
    score : ndarray of shape (n,)
    """
    mean = np.mean(scores, axis=0)
    if len(scores) == 1:
        return mean
    weights = [np.ones(len(known)) for known in held_out] if weights is None else weights
    total = sum(
        Ranks.fit(known, weight).weight_below(row_scores)
        for known, weight, row_scores in zip(held_out, weights, scores, strict=True)
    )
    ranks = Ranks.fit(np.concatenate(held_out), np.concatenate(weights))
    rank = np.searchsorted(ranks.totals, total * (1 - ROUNDING))  # where the total is reached
    steps = np.concatenate([[-np.inf], ranks.scores, [np.inf]])
    # A rank within the weight of a row, or within a group of equal scores, is moved to its end.
    below = np.maximum(steps[rank], np.nextafter(steps[rank + 1], -np.inf))
    is_within = ranks.totals[rank] > total * (1 + ROUNDING)
    return np.clip(mean, steps[rank], np.where(is_within, steps[rank], below))


def discoveries(p_values, fdr, method, n_calibration=None):
    """Return which p-values are flagged at a false discovery rate.

    "adaptive" estimates the number of inliers by the p-values above one half (Storey, 2002). It
    holds for conformal p-values from `n_calibration` rows of a single split, as is proved in the
    documentation ("Mathematics").
    """
    if not len(p_values):
        return np.zeros(0, dtype=bool)
    if method != "adaptive":
        return stats.false_discovery_control(p_values, method=method) <= fdr
    half = (n_calibration + 1) // 2
    flagged = p_values <= half / (n_calibration + 1)
    n_low = flagged.sum()
    # n_inliers = (1 + n_high) / share; dividing by the usual 1 / 2 lets the rate rise above fdr.
    share = (n_calibration - half) / (n_calibration + 1)
    rate = fdr * n_low * share / (1 + len(p_values) - n_low)
    flagged[flagged] = discoveries(p_values[flagged], rate, "bh")
    return flagged
