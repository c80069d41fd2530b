"""From scores to p-values, and from p-values to flags."""

from typing import NamedTuple

import numpy as np
from scipy import special, stats

from ..density._outlier_labels import TIE, lowered

# Levels of the quantiles, from the most normal end; the remaining rows may be outliers.
BULK = np.linspace(0.05, 0.75, 57)
SHAPES = np.geomspace(0.3, 300, 60)
CHANCE = 2.0  # divided by the number of rows: variance that a curve need not explain
TINY = 1e-290  # a survival function below it has lost digits
ROUNDING = 1e-12  # relative error of a sum of weights


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
    """Scores of rows that the density has not seen, in ascending order (see `lowered`).

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

    def threshold(self, alpha):
        """Return the score below which p-values are at most ``alpha``."""
        levels = (1 + self.totals[:-1]) / (1 + self.totals[-1])
        n_levels = np.searchsorted(levels, alpha, side="right")
        return float(self.scores[n_levels - 1]) if n_levels else -np.inf


class EmpiricalNull(NamedTuple):
    """Gamma distributions of surprise, the negative score, that fit the bulk of the rows.

    A p-value is the larger by two of them, the most and the least skewed that fit: few rows do not
    determine how fast the tail falls.
    """

    shapes: np.ndarray
    locations: np.ndarray
    scales: np.ndarray

    @classmethod
    def fit(cls, scores, weight=None):
        """Fit distributions whose quantiles match those of the bulk best, up to chance.

        Rows of density 0 are left out: they are not part of any bulk.
        """
        weight = np.ones(len(scores)) if weight is None else weight
        finite, weight = scores[np.isfinite(scores)], weight[np.isfinite(scores)]
        surprise = weighted_quantiles(-finite, weight, BULK) if len(finite) > 1 else np.zeros(1)
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
        n_effective = weight.sum() ** 2 / (weight**2).sum()  # Kish
        chance = CHANCE / n_effective
        fitting = np.flatnonzero(unexplained <= unexplained.min() + chance)
        # Shapes in between would raise a p-value by less than 1 %, and none below .05.
        return cls(*np.array(curves)[:, fitting[[0, -1]]])

    def p_values(self, scores):
        surprise = -np.asarray(scores)[:, None]
        return stats.gamma.sf(surprise, self.shapes, self.locations, self.scales).max(axis=1)

    def log_p_values(self, scores):
        """Return the logarithms of the p-values, also of those that are too small for a float."""
        surprise = -np.asarray(scores)[:, None]
        return log_survival((surprise - self.locations) / self.scales, self.shapes).max(axis=1)

    def threshold(self, alpha):
        """Return the score below which p-values are at most ``alpha``."""
        return float(-stats.gamma.isf(alpha, self.shapes, self.locations, self.scales).max())


def log_survival(x, shape):
    """Return the log of the survival function of standard gamma distributions."""
    x = np.maximum(x, 0)
    survival = special.gammaincc(shape, x)
    # Where the first terms of the asymptotic series are enough.
    far = np.clip(x, shape + 1, 1e300)
    log_far = (shape - 1) * np.log(far) - far - special.gammaln(shape)
    log_far += np.log1p(np.maximum((shape - 1) / far, -0.5))
    return np.where(survival > TINY, np.log(np.maximum(survival, TINY)), log_far)


def weighted_quantiles(values, weight, levels):
    """Return quantiles of weighted values; with equal weights, those of `numpy.quantile`."""
    order = np.argsort(values, kind="stable")
    middle = np.cumsum(weight[order]) - weight[order] / 2
    return np.interp(levels, (middle - middle[0]) / (middle[-1] - middle[0]), values[order])


NULLS = {"conformal": ConformalNull, "empirical_null": EmpiricalNull}


def least_p_value(null):
    """Return the smallest p-value that a row can have."""
    return float(null.p_values(np.array([-np.inf]))[0])


def pool_fold_scores(scores, calibration, weights=None):
    """Return one score for each row from its scores under the models of several folds.

    Each row gets the rank of Vovk's cross-conformal p-value: the weight of the held-out rows, of
    all folds, that score no higher under the model that had not seen them. Its score is the mean
    over the models, clipped between the two held-out scores that have this rank.

    Parameters
    ----------
    scores : list of ndarray of shape (n,)
        Scores of the rows under each model.
    calibration : list of ndarray
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
    weights = [np.ones(len(held_out)) for held_out in calibration] if weights is None else weights
    total = sum(
        ConformalNull.fit(held_out, weight).weight_below(row_scores)
        for held_out, weight, row_scores in zip(calibration, weights, scores, strict=True)
    )
    pooled = ConformalNull.fit(np.concatenate(calibration), np.concatenate(weights))
    rank = np.searchsorted(pooled.totals, total * (1 - ROUNDING))  # where the total is reached
    steps = np.concatenate([[-np.inf], pooled.scores, [np.inf]])
    # A rank within the weight of a row, or within a group of equal scores, is moved to its end.
    below = np.maximum(steps[rank], np.nextafter(steps[rank + 1], -np.inf))
    is_within = pooled.totals[rank] > total * (1 + ROUNDING)
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
    level = fdr * n_low * share / (1 + len(p_values) - n_low)
    flagged[flagged] = discoveries(p_values[flagged], level, "bh")
    return flagged
