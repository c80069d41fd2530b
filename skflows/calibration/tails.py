"""P-values by gamma distributions of the more normal rows."""

from typing import NamedTuple

import numpy as np
from scipy import special, stats

from .thresholds import effective_number

# Levels of the quantiles, from the most normal end; the remaining rows may be outliers.
BULK = np.linspace(0.05, 0.75, 57)
SHAPES = np.geomspace(0.3, 300, 60)
CHANCE = 2.0  # divided by the number of rows: variance that a curve need not explain
TINY = 1e-290  # a survival function below it has lost digits


class Tails(NamedTuple):
    """Gamma distributions of surprise, the negative score, that fit the bulk of the rows.

    A p-value is the larger by two of them, the most and the least skewed that fit: few rows do not
    determine how fast the tail falls.
    """

    shapes: np.ndarray
    locations: np.ndarray
    scales: np.ndarray

    @classmethod
    def fit(cls, scores, weight=None):
        """Fit distributions whose quantiles match the quantiles of the bulk best, up to chance.

        Rows of density 0 are left out: they are not part of any bulk.
        """
        weight = np.ones(len(scores)) if weight is None else weight
        surprise = bulk_of(scores, weight)
        is_finite = np.isfinite(scores)
        if not np.ptp(surprise):
            raise ValueError(
                f"calibration='empirical_null' needs scores that differ: of {len(scores)} "
                f"held-out rows {is_finite.sum()} have a finite score, most of them the same. Are "
                "the rows constant, or is the density 0 at rows it has not seen?"
            )
        fits = [
            (line.rvalue, shape, line.intercept, line.slope)
            for shape in SHAPES
            for line in [stats.linregress(stats.gamma.ppf(BULK, shape), surprise)]
        ]
        correlation, *curves = np.array(fits).T
        unexplained = 1 - correlation**2
        chance = CHANCE / effective_number(weight[is_finite])
        fitting = np.flatnonzero(unexplained <= unexplained.min() + chance)
        # Shapes in between would raise a p-value by less than 1 %, and none below .05.
        return cls(*np.array(curves)[:, fitting[[0, -1]]])

    def p_values(self, scores):
        surprise = -np.asarray(scores)[:, None]
        return stats.gamma.sf(surprise, self.shapes, self.locations, self.scales).max(axis=1)

    def log_p(self, scores, is_own=False):
        """Return the logarithms of the p-values, also of those that are too small for a float.

        It makes no difference whether `fit` has seen these rows.
        """
        surprise = -np.asarray(scores)[:, None]
        return log_survival((surprise - self.locations) / self.scales, self.shapes).max(axis=1)

    def threshold(self, alpha):
        """Return the score below which p-values are at most ``alpha``."""
        return float(-stats.gamma.isf(alpha, self.shapes, self.locations, self.scales).max())


def bulk_of(scores, weight=None):
    """Return quantiles of the surprise of the more normal rows; if they are equal, no tail fits."""
    is_finite = np.isfinite(scores)
    if is_finite.sum() < 2:
        return np.zeros(1)
    weight = np.ones(len(scores)) if weight is None else weight
    return weighted_quantiles(-scores[is_finite], weight[is_finite], BULK)


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
    """Return quantiles of weighted values; with equal weights, as `numpy.quantile`."""
    order = np.argsort(values, kind="stable")
    middle = np.cumsum(weight[order]) - weight[order] / 2
    return np.interp(levels, (middle - middle[0]) / (middle[-1] - middle[0]), values[order])
