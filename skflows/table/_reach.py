"""How far out draws of a column could plausibly lie."""

import numpy as np

OUTER = 0.1  # share of the values that a tail is fitted to, on each side
LEAST_ROWS, LEAST_OUTER = 20, 10  # of a column, and of a tail
USUAL_SHAPE, USUAL_ROWS = 0.2, 20  # as if so many more values of a tail had shown this shape
LEAST_SHAPE = -0.5  # with which the density falls to 0 at its end
EQUAL = 1e-6  # least difference of the values of a tail, relative to their mean
CHANCE = 0.01  # probability that one of all draws lies beyond
FAR = 0.5  # ranges beyond the values of the fit from which on a number is far from them


def are_far(x, seen, reach, step):
    """Return which numbers are beyond the reach of draws, and far from the range that was seen."""
    low, high = seen
    margin = max(FAR * (high - low), step or 0.0)
    least, largest = np.where(np.isfinite(reach), reach, seen)
    return (x < min(low - margin, least)) | (x > max(high + margin, largest))


class UpperTail:
    """A generalised Pareto distribution of the largest values, by probability-weighted moments.

    Parameters
    ----------
    x : ndarray of shape (n,)
        The values of the fit.
    weight : ndarray of shape (n,)
        Their weights, with a mean of 1.

    References
    ----------
    Hosking & Wallis, "Parameter and Quantile Estimation for the Generalized Pareto Distribution",
    1987.
    """

    def __init__(self, x, weight):
        self.n, self.largest, self.scale = weight.sum(), x.max(), np.inf
        order = np.argsort(x, kind="stable")
        x, weight = x[order], weight[order]
        n_larger = self.n - np.cumsum(weight)
        last = x[np.searchsorted(-n_larger, -max(OUTER * self.n, LEAST_OUTER))]
        is_outer = x > last
        n_outer = is_outer.sum()
        if len(x) < LEAST_ROWS or n_outer < LEAST_OUTER / 2:
            return
        x, weight = x[is_outer], weight[is_outer]
        self.start = (last + x[0]) / 2  # values may be rounded
        self.share = weight.sum() / self.n
        weight = weight / weight.sum()
        excess, rank = x - self.start, 1 - np.cumsum(weight) + weight / 2
        mean = weight @ excess
        half_difference = weight @ (excess * (1 - 2 * rank))  # of two values, on average
        shape = max(2 - mean / max(half_difference, EQUAL * mean), LEAST_SHAPE)
        self.shape = (n_outer * shape + USUAL_ROWS * USUAL_SHAPE) / (n_outer + USUAL_ROWS)
        self.scale = mean * (1 - self.shape)

    def reach(self, n_draws):
        """Return a value that hardly ever one of the draws, or of the rows of fit, exceeds."""
        if np.isinf(self.scale):
            return np.inf
        log_ratio = np.log(self.share * max(n_draws, self.n) / CHANCE)
        stretch = np.expm1(self.shape * log_ratio) / self.shape if self.shape else log_ratio
        return max(self.start + self.scale * stretch, self.largest)
