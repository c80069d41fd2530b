"""From scores to p-values, and from p-values to flags."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from ..density._outlier_labels import TIE, lowered

# Levels of the quantiles, from the most normal end; the remaining rows may be outliers.
BULK = np.linspace(0.05, 0.75, 57)
SHAPES = np.geomspace(0.3, 300, 60)
CHANCE = 2.0  # divided by the number of rows: variance that a curve need not explain
INLIERS_ABOVE = 0.5  # p-values above it are those of inliers when the share of inliers is estimated


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


class ConformalNull(NamedTuple):
    """Scores of rows that the density has not seen, in ascending order (see `lowered`)."""

    scores: np.ndarray

    @classmethod
    def fit(cls, scores):
        return cls(np.sort(lowered(scores)))

    def p_values(self, scores):
        below = np.searchsorted(self.scores, scores, side="right")
        return (1 + below) / (len(self.scores) + 1)

    def threshold(self, alpha):
        """Return the score below which p-values are at most ``alpha``."""
        levels = np.arange(1, len(self.scores) + 1) / (len(self.scores) + 1)
        n_levels = np.searchsorted(levels, alpha, side="right")
        return float(self.scores[n_levels - 1]) if n_levels else -np.inf


class EmpiricalNull(NamedTuple):
    """Gamma distributions of surprise, the negative score, that fit the bulk of the rows.

    A p-value is the largest over these distributions: few rows do not determine how fast the tail
    falls.
    """

    shapes: np.ndarray
    locations: np.ndarray
    scales: np.ndarray

    @classmethod
    def fit(cls, scores):
        """Fit distributions whose quantiles match those of the bulk best, up to chance.

        Rows of density 0 are left out: they are not part of any bulk.
        """
        finite = scores[np.isfinite(scores)]
        surprise = np.quantile(-finite, BULK) if len(finite) else np.zeros(1)
        if not np.ptp(surprise):
            raise ValueError(
                f"calibration='empirical_null' needs scores that differ: of {len(scores)} "
                f"held-out rows {len(finite)} have a finite score, most of them the same. Are the "
                "rows constant, or is the density 0 at rows it has not seen?"
            )
        fits = [
            (line.rvalue, shape, line.intercept, line.slope)
            for shape in SHAPES
            for line in [stats.linregress(stats.gamma.ppf(BULK, shape), surprise)]
        ]
        correlation, *curves = np.array(fits).T
        unexplained = 1 - correlation**2
        chance = CHANCE / len(finite)
        return cls(*np.array(curves)[:, unexplained <= unexplained.min() + chance])

    def p_values(self, scores):
        surprise = -np.asarray(scores)[:, None]
        return stats.gamma.sf(surprise, self.shapes, self.locations, self.scales).max(axis=1)

    def threshold(self, alpha):
        """Return the score below which p-values are at most ``alpha``."""
        return float(-stats.gamma.isf(alpha, self.shapes, self.locations, self.scales).max())


NULLS = {"conformal": ConformalNull, "empirical_null": EmpiricalNull}


def least_p_value(null):
    """Return the smallest p-value that a row can have."""
    return float(null.p_values(np.array([-np.inf]))[0])


def pool_fold_scores(scores, calibration):
    """Return one score for each row from its scores under the models of several folds.

    Each row gets the rank of Vovk's cross-conformal p-value: the number of held-out rows, of all
    folds, that score no higher under the model that had not seen them. Its score is the mean over
    the models, clipped between the two held-out scores that have this rank.

    Parameters
    ----------
    scores : list of ndarray of shape (n,)
        Scores of the rows under each model.
    calibration : list of ndarray
        Scores of the rows that were held out from each model, in ascending order.

    Returns
    -------
    score : ndarray of shape (n,)
    """
    mean = np.mean(scores, axis=0)
    if len(scores) == 1:
        return mean
    calibration = [np.sort(lowered(held_out)) for held_out in calibration]
    rank = sum(
        np.searchsorted(held_out, row_scores, side="right")
        for held_out, row_scores in zip(calibration, scores, strict=True)
    )
    steps = np.concatenate([[-np.inf], np.sort(np.concatenate(calibration)), [np.inf]])
    # Within a group of equal held-out scores, the rank is moved to its end.
    below = np.maximum(steps[rank], np.nextafter(steps[rank + 1], -np.inf))
    return np.clip(mean, steps[rank], below)


def discoveries(p_values, fdr, method):
    """Return which p-values are flagged at a false discovery rate."""
    if not len(p_values):
        return np.zeros(0, dtype=bool)
    is_adaptive = method == "adaptive"
    adjusted = stats.false_discovery_control(p_values, method="bh" if is_adaptive else method)
    if not is_adaptive:
        return adjusted <= fdr
    n_inliers = (1 + (p_values > INLIERS_ABOVE).sum()) / (1 - INLIERS_ABOVE)
    share = min(1.0, n_inliers / len(p_values))
    return (adjusted * share <= fdr) & (p_values <= INLIERS_ABOVE)
