"""Increasing maps of numbers to normal scores, and to standardised numbers or their logits."""

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri

from ..distribution.normal import log_normal_mass
from ..preprocessing.validation import uneven

ROWS_PER_CELL = 4  # on average, from which on quantiles come from cells rather than from a spline
UNSEEN_STRETCH = 0.5  # rows that an empty stretch of a lattice counts for
N_KNOTS = 200
VALUES_AT_ONCE = 2**18  # that are mapped together: bounds the memory
OUTER = 0.05  # part of the range whose rows tell whether numbers end abruptly
N_ENDS = 2  # parameters of logits, by which their likelihood must be greater
N_ANGLES = 2000
LEAST_OF_UNIFORM = 1e-3  # share of the uniform angle's probability next to the cut that is ignored


class SmoothMap:
    """An increasing map of one number, by a bijection that is set from data, if there are any."""

    def __init__(self, bijection, x=None, weight=None):
        import torch

        self.bijection = bijection.requires_grad_(False)
        if x is None:
            return
        with torch.no_grad():
            weight = None if uneven(weight) is None else torch.from_numpy(weight)
            rows = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64))[:, None]
            steps = bijection.bijections if hasattr(bijection, "bijections") else [bijection]
            for step in steps:
                if step.set_from_data:
                    step.initialize(rows, weight)
                rows, _ = step(rows)

    def _map(self, method, values):
        import torch

        from ..training.torch_state import one_thread

        with one_thread(), torch.inference_mode():
            rows = torch.from_numpy(np.array(values, dtype=np.float64))
            mapped, log_slope = getattr(self.bijection, method)(rows)
        return mapped.numpy(), log_slope.numpy()

    def forward(self, x):
        y, log_slope = self._map("forward", x[:, None])
        return y[:, 0], log_slope

    def inverse(self, y):
        return self._map("inverse", y[:, None])[0][:, 0]


def forward_together(maps, columns):
    """Return what `SmoothMap.forward` does for columns ``(n, d)``, each with a map of one kind.

    One by one, each takes almost as long as all.
    """
    import torch

    joint = type(maps[0].bijection)(len(maps))
    buffers = [dict(each.bijection.named_buffers()) for each in maps]
    for name, joined in joint.named_buffers():  # columns are the first axis, or the second of more
        joined.copy_(torch.cat([each[name] for each in buffers], min(joined.ndim - 1, 1)))
    size = max(1, VALUES_AT_ONCE // len(maps))
    blocks = [columns[start : start + size] for start in range(0, max(1, len(columns)), size)]
    parts = [SmoothMap(joint)._map("forward_by_column", block) for block in blocks]
    return [np.concatenate(each) for each in zip(*parts, strict=True)]


class PiecewiseMap:
    """An increasing map of cells of one number to scores, linear between edges."""

    def __init__(self, edges, scores, step):
        self.edges, self.scores = edges, scores
        middle = np.interp(0.0, scores, edges)
        # Beyond the edges, the mean slope between them and the median.
        self.slopes = [
            scores[end] / (edges[end] - middle) if edges[end] != middle else 1 / step
            for end in (0, -1)
        ]

    def forward(self, x):
        y = np.interp(x, self.edges, self.scores)
        y = np.where(x < self.edges[0], y + self.slopes[0] * (x - self.edges[0]), y)
        y = np.where(x > self.edges[-1], y + self.slopes[1] * (x - self.edges[-1]), y)
        return y, np.zeros(len(y))

    def inverse(self, y):
        x = np.interp(y, self.scores, self.edges)
        x = np.where(y < self.scores[0], x + (y - self.scores[0]) / self.slopes[0], x)
        return np.where(y > self.scores[-1], x + (y - self.scores[-1]) / self.slopes[1], x)


def map_by_quantiles(index, weight, origin, step):
    """Return a map to normal scores by the frequencies of cells.

    A cell that holds many of the rows is wide in normal scores, so that a smooth density of scores
    can have a peak there.
    """
    cells, counts = counted(index, weight)
    edges = np.unique(np.concatenate([cells - 0.5, cells + 0.5]))
    mass = np.full(len(edges) - 1, UNSEEN_STRETCH)
    mass[np.searchsorted(edges, cells - 0.5)] = counts
    below = np.concatenate([[0.0], np.cumsum(mass)]) + UNSEEN_STRETCH
    scores = ndtri(below / (below[-1] + UNSEEN_STRETCH))
    return PiecewiseMap(origin + step * edges, scores, step)


def map_by_logits(x, weight, low, high, step):
    """Return a map to standardised logits of the position between a step below and above cells.

    Under a normal density of scores, numbers that end abruptly have little mass beyond.
    """
    span = high - low + 2 * step
    end = logit(step / 2 / span)
    scores = np.linspace(end, -end, N_KNOTS)  # the slope is steepest at the ends
    position = low - step + span * expit(scores)
    y = np.interp(x, position, scores)
    mean = np.average(y, weights=weight)
    sd = np.sqrt(np.average((y - mean) ** 2, weights=weight))
    return PiecewiseMap(position, (scores - mean) / sd, step)


def ends_abruptly(x, weight):
    """Return whether an outer part of the range has half its share of the rows, or more."""
    position = (x - x.min()) / np.ptp(x)
    shares = [weight @ (position < OUTER), weight @ (position > 1 - OUTER)]
    return max(shares) > OUTER / 2 * weight.sum()


def log_likelihood(map_, x, weight, step):
    """Return the log-likelihood of cells of which the scores are normal."""
    low, middle, high = (map_.forward(x + shift)[0] for shift in (-step / 2, 0, step / 2))
    return weight @ log_normal_mass(low, middle, high, 0.0, 1.0)


class CircularMap:
    """An increasing map of an angle, cut open, to normal scores that are finite at both ends.

    The probabilities of another map are mixed with a uniform angle's.
    """

    def __init__(self, inner, x, low, period):
        self.inner, self.low, self.period = inner, low, period
        self.weight = 1 / (len(x) + 1)  # of the uniform angle: one row
        # The inverse is interpolated between many angles, most of them where the rows are.
        u = (np.arange(N_ANGLES) + 0.5) / N_ANGLES
        angles = [low + period * u, inner.inverse(ndtri(u)), [low, low + period]]
        self.angles = np.clip(np.unique(np.concatenate(angles)), low, low + period)
        self.scores = self.forward(self.angles)[0]

    def forward(self, x):
        y, log_slope = self.inner.forward(x)
        u = (1 - self.weight) * ndtr(y) + self.weight * (x - self.low) / self.period
        least = LEAST_OF_UNIFORM * self.weight
        mapped = ndtri(np.clip(u, least, 1 - least))
        with np.errstate(invalid="ignore"):  # infinite scores at the ends
            log_density = np.nan_to_num(log_slope - 0.5 * y**2, nan=-np.inf)
        uniform = np.log(self.weight / self.period) + 0.5 * np.log(2 * np.pi)
        return mapped, np.logaddexp(np.log1p(-self.weight) + log_density, uniform) + mapped**2 / 2

    def inverse(self, y):
        return np.interp(y, self.scores, self.angles)


def counted(values, weight):
    """Return the distinct values, and the sum of the weights of each."""
    distinct, inverse = np.unique(values, return_inverse=True)
    return distinct, np.bincount(inverse.ravel(), weight, len(distinct))


def repeat(values):
    """Return whether the points of a lattice repeat so often that each has a probability."""
    return len(values) >= ROWS_PER_CELL * len(np.unique(values))


def fit_quantile_maps(columns, weight):
    """Return maps to normal scores by the quantiles of complete columns ``(n, d)``.

    They are fitted together: one by one, each takes almost as long as all.
    """
    import torch

    from ..bijections import MarginalQuantile

    together = MarginalQuantile(columns.shape[1])
    with torch.no_grad():
        weight = None if uneven(weight) is None else torch.from_numpy(weight)
        together.initialize(torch.from_numpy(np.ascontiguousarray(columns)), weight)
    bijections = [MarginalQuantile(1) for _ in columns.T]
    for name, values in together.named_buffers():
        of_columns = values.split(1, min(values.ndim - 1, 1))
        for bijection, of_column in zip(bijections, of_columns, strict=True):
            getattr(bijection, name).copy_(of_column)
    return [SmoothMap(bijection) for bijection in bijections]


def fit_maps(
    x, weight, step, origin, low, high, random_state, period=None, quantile=None, cells=None
):
    """Return maps to normal scores by quantiles, and to standardised numbers or their logits.

    The former may be given, if it has been fitted already; and the ends of the cells of a lattice,
    if they are not half a step away.
    """
    from ..bijections import Bounded, Chain, MarginalQuantile, Standardize

    if step is not None:
        index = np.rint((x - origin) / step)
        points = origin + step * index
        noise = random_state.uniform(-0.5, 0.5, len(x))
        x = x + step * noise if cells is None else cells[0] + (cells[1] - cells[0]) * (0.5 + noise)
    bounds = [Bounded([(low, high)])] if np.isfinite([low, high]).any() else []

    def smooth(last):
        map_ = SmoothMap(Chain([*bounds, last]) if bounds else last, x, weight)
        return map_ if period is None else CircularMap(map_, x, low, period)

    linear = smooth(Standardize(1))
    if step is not None and cells is None and repeat(index):
        quantile = map_by_quantiles(index, weight, origin, step)
        if not bounds and ends_abruptly(x, weight):
            logits = map_by_logits(x, weight, points.min(), points.max(), step)
            gain = log_likelihood(logits, points, weight, step)
            gain -= log_likelihood(linear, points, weight, step)
            linear = logits if gain > N_ENDS else linear
    elif quantile is None:
        # A heavy tail of logarithms would have absurdly large samples.
        tails = "gaussian" if np.isfinite(low) != np.isfinite(high) else "auto"
        quantile = smooth(MarginalQuantile(1, tails=tails))
    return {"quantile": quantile, "linear": linear}
