"""Outlier thresholds, and comparisons of scores that hold up to rounding errors."""

import math
from numbers import Real

import numpy as np

SURE = 3  # standard deviations
LOWEST = np.finfo(float).min / 4  # stands for a density of 0 in quantiles
TIE = 1e-9  # relative difference of two scores that are equal up to rounding


def lowered(scores):
    """Return scores to compare others with, each lower by more than a rounding error.

    A row's score may differ by a rounding error between two batches. Rows with equal values have
    equal scores up to that: a comparison must be true for all of them or for none. With lower
    scores to compare with, such rows are inliers, and p-values are larger, so they stay valid.
    """
    scores = np.asarray(scores, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # infinite scores stay as they are
        lower = scores - TIE * np.maximum(1, np.abs(scores))
    return np.where(np.isfinite(scores), lower, scores)


def equalized(scores):
    """Return scores in which those that differ by rounding errors are equal."""
    order = np.argsort(scores, kind="stable")
    ascending = scores[order]
    with np.errstate(invalid="ignore"):
        size = np.where(np.isfinite(ascending), np.abs(ascending), 0)[1:]
        gaps = np.diff(ascending) > TIE * np.maximum(1, size)
    groups = np.concatenate([[0], np.cumsum(gaps)])
    equal = np.empty(len(scores))
    equal[order] = groups
    return equal


def effective_number(weight):
    """Return the effective number of weighted rows (Kish)."""
    return weight.sum() ** 2 / (weight**2).sum()


def flags_more(scores, threshold, fraction, weight=None):
    """Whether a threshold flags more than a fraction of rows with these scores, beyond chance."""
    weight = np.ones(len(scores)) if weight is None else weight
    if not len(scores):
        return False
    chance = SURE * math.sqrt(fraction * (1 - fraction) / effective_number(weight))
    return bool(np.average(scores < threshold, weights=weight) > fraction + chance)


def weighted_percentile(values, weight, rank):
    """Return a percentile of weighted values, or the mean of the two that it lies between.

    This is `numpy.percentile` with ``method="averaged_inverted_cdf"``, which takes no weights.
    """
    kept = weight > 0
    values, weight = values[kept], weight[kept]
    if not len(values):
        return np.nan
    order = np.argsort(values)
    below = np.cumsum(weight[order])
    target = rank / 100 * below[-1]
    place = min(np.searchsorted(below, target), len(order) - 1)
    value = values[order[place]]
    if below[place] - target > np.finfo(float).eps or place == len(order) - 1:
        return value
    return (value + values[order[place + 1]]) / 2


def lower_fence(scores, weight):
    """Return the lower Tukey fence of weighted scores, Q1 - 1.5 (Q3 - Q1)."""
    first, third = (weighted_percentile(scores, weight, rank) for rank in (25, 75))
    return float(lowered(first - 1.5 * (third - first)))


def by_contamination(contamination, scores, weight):
    """Return the threshold that the parameter `contamination` sets on weighted scores."""
    if contamination is None:
        return -np.inf
    if isinstance(contamination, str):  # "auto"
        return lower_fence(scores, weight)
    return float(lowered(weighted_percentile(scores, weight, 100 * contamination)))


def by_held_out(contamination, held_out, weight, scores_of_fit):
    """Return the threshold that `contamination` sets where models score rows they have not seen.

    "auto" is the fence of the held-out scores. A fraction is the quantile of the scores of the rows
    of `fit`, as in scikit-learn, unless it would flag many more of the rows that were held out,
    because the model fits the others better. Then it is the quantile of the held-out scores.

    Parameters
    ----------
    contamination : "auto", float or None
        The parameter of an estimator.
    held_out, weight : ndarray of shape (m,)
        Scores of rows by models that have not seen them, and their weights.
    scores_of_fit : callable
        Returns the scores of the rows of `fit`, and their weights. It is called for a fraction, and
        if no held-out score is finite.

    Returns
    -------
    threshold : float
        The score below which a row is an outlier.
    judges_held_out : bool
        Whether the rows of `fit` are to be labelled by their held-out scores.
    """
    if not isinstance(contamination, Real):
        is_finite = np.isfinite(held_out)
        known = held_out[is_finite], weight[is_finite]
        if contamination is not None and not len(known[0]):
            known = scores_of_fit()
        return by_contamination(contamination, *known), False
    threshold = by_contamination(contamination, *scores_of_fit())
    contradicts = flags_more(held_out, threshold, contamination, weight)
    if contradicts:
        threshold = by_contamination(contamination, np.maximum(held_out, LOWEST), weight)
    return threshold, contradicts
