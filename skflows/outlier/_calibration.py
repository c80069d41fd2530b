"""From scores to p-values, and from p-values to flags."""

from typing import NamedTuple

import numpy as np
from scipy import stats

# Of the scores' quantiles, from the most normal end: the rest may hold outliers.
BULK = np.linspace(0.05, 0.75, 57)
SHAPES = np.geomspace(0.3, 300, 60)
CHANCE = 2.0  # over the number of rows: variance that a curve need not explain
PLENTY = 0.5  # p-values above it are taken for those of inliers when their share is estimated


class ConformalNull(NamedTuple):
    """Scores of rows that the density has not seen, in ascending order."""

    scores: np.ndarray

    def p_values(self, scores):
        below = np.searchsorted(self.scores, scores, side="right")
        return (1 + below) / (len(self.scores) + 1)

    def threshold(self, alpha):
        """The score below which p-values are at most ``alpha``."""
        levels = np.arange(1, len(self.scores) + 1) / (len(self.scores) + 1)
        n_levels = np.searchsorted(levels, alpha, side="right")
        return float(self.scores[n_levels - 1]) if n_levels else -np.inf


class EmpiricalNull(NamedTuple):
    """Gamma distributions of surprise, the negative score, that fit the bulk of the rows.

    A p-value is the largest of theirs: few rows leave it open how fast the tail falls.
    """

    shapes: np.ndarray
    starts: np.ndarray
    scales: np.ndarray

    @classmethod
    def fit(cls, scores):
        """Those whose quantiles lie closest to a line with those of the bulk, up to chance.

        Rows of density 0 are left out: they are no part of any bulk.
        """
        known = scores[np.isfinite(scores)]
        surprise = np.quantile(-known, BULK) if len(known) else np.zeros(1)
        if not np.ptp(surprise):
            raise ValueError(
                f"calibration='empirical_null' needs scores that differ: of {len(scores)} "
                f"held-out rows {len(known)} have a finite score, most of them the same. Are the "
                "rows constant, or is the density 0 at rows it has not seen?"
            )
        fits = [
            (line.rvalue, shape, line.intercept, line.slope)
            for shape in SHAPES
            for line in [stats.linregress(stats.gamma.ppf(BULK, shape), surprise)]
        ]
        correlation, *curves = np.array(fits).T
        unexplained = 1 - correlation**2
        chance = CHANCE / len(known)
        return cls(*np.array(curves)[:, unexplained <= unexplained.min() + chance])

    def p_values(self, scores):
        surprise = -np.asarray(scores)[:, None]
        return stats.gamma.sf(surprise, self.shapes, self.starts, self.scales).max(axis=1)

    def threshold(self, alpha):
        """The score below which p-values are at most ``alpha``."""
        return float(-stats.gamma.isf(alpha, self.shapes, self.starts, self.scales).max())


def least_p_value(null):
    """The p-value of a row than which none can be odder."""
    return float(null.p_values(np.array([-np.inf]))[0])


def pooled(scores, calibration):
    """One score for each row from the scores of the models of several folds.

    Each row gets the rank that Vovk's cross-conformal p-value gives it: the number of held-out
    rows, of all folds, that score no higher under the model that had not seen them. Its score
    is the mean over the models, moved between the two held-out scores that have this rank.

    Parameters
    ----------
    scores : list of ndarray of shape (n,)
        Of the rows under each model.
    calibration : list of ndarray
        Of the rows that were held out from each model, in ascending order.

    Returns
    -------
    score : ndarray of shape (n,)
    """
    mean = np.mean(scores, axis=0)
    if len(scores) == 1:
        return mean
    rank = sum(
        np.searchsorted(held_out, row_scores, side="right")
        for held_out, row_scores in zip(calibration, scores, strict=True)
    )
    steps = np.concatenate([[-np.inf], np.sort(np.concatenate(calibration)), [np.inf]])
    # Of held-out scores that are equal, a rank may fall between: it goes to their end.
    below = np.maximum(steps[rank], np.nextafter(steps[rank + 1], -np.inf))
    return np.clip(mean, steps[rank], below)


def discoveries(p_values, fdr, method):
    """Which p-values are flagged when at most ``fdr`` of the flags are to be false, on average."""
    if not len(p_values):
        return np.zeros(0, dtype=bool)
    adaptive = method == "adaptive"
    adjusted = stats.false_discovery_control(p_values, method="bh" if adaptive else method)
    share = 1.0
    if adaptive:
        share = min(1.0, (1 + (p_values > PLENTY).sum()) / (len(p_values) * (1 - PLENTY)))
    flagged = adjusted * share <= fdr
    return flagged & (p_values <= PLENTY) if adaptive else flagged
