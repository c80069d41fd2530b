"""Latent classes: a mixture of Gaussian numbers and independent levels, with exact conditionals.

References
----------
Hunt & Jorgensen, "Mixture Model Clustering for Mixed Data with Missing Information", 2003.
"""

from functools import cached_property

import numpy as np
import torch
from scipy.linalg import solve_triangular
from scipy.sparse import csr_array, hstack
from scipy.spatial.distance import cdist
from scipy.special import gammaln, softmax

from ..columns.arrays import some_rows
from ..distribution.normal import (
    LOG_SQRT_2PI,
    NARROW,
    SQRT_HALF,
    erfc,
    log_normal_mass,
    normal_mass,
)
from ..training.torch_state import one_thread
from ._classes import Classes
from ._network import choose
from ._view import ALL, Normals, Predictive

N_STEPS = 80
TOLERANCE = 3e-4  # in nats per row
MORE_CLASSES, STEPS_PER_REMOVAL = 6, 3  # extra classes at the start; EM steps between removals
CLASSES_WITH_MORE, WORK_WITH_MORE = 12, 9e6  # classes and products of a step, at most
MIN_VARIANCE = 1e-4
PRIOR_ROWS = 1.0  # of the marginal frequencies, in each class
STRENGTHS = 2.0 ** np.arange(-5, 11)  # rows that expected frequencies may count for
TILTED_LEVELS = 6  # ordered, at least: mean and variance say most of fewer
N_TILTS = 6  # steps of Newton's method, where no step of EM has gone before
LEAST_SHARE = 0.01  # of the marginal frequencies in tilted ones
MAX_PATTERNS = 300  # of missing numbers, beyond which a part of the rows is enough
SOME_ROWS = 2000
REPEATED = 250  # rows of patterns, which take less time than one more call
MANY_VALUES = 3e6  # of numbers and levels, beyond which k-means takes too long on all rows
WORK_AT_ONCE = 4e6  # products of classes, rows and numbers, to bound the memory
LEAST_VARIANCE = 1e-12  # of a number given others, which rounding errors may make negative
NEGLIGIBLE = 20.0  # nats below the likeliest class: bounds of 2,000 such err by less than 4e-6
LOG_LEAST = np.log(1e-290)  # of a mass that is a difference of two
SLACK = 4.0  # of a bound of the mass of a cell: where the bound is closest, in deviations
BLOCK = 2**17  # rows times classes at once, which fit in a processor's cache
MANY_SHARES = 0.35  # of classes and rows: with more, all are computed together
FEW_LEVELS = 256  # of all variables, up to which products with a dense matrix are quicker
LEFT_OUT = 1e-4  # share of the classes that the distribution of a number may leave out
SHRINKAGES = np.array([0.5, *4.0 ** -np.arange(1, 8)])  # of correlations
WORK_OF_SHRINKAGE = 10_000  # residuals
BANDWIDTHS = (0.18, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4)  # of kernels, times that of Scott's rule
SHARES = (0.003, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.8)  # of the marginal frequencies in kernels
ROWS_LEFT_OUT, N_ROUNDS = 200, 4  # by which bandwidth and shares are chosen, one after the other
# Rows for each column, in favour of the covariance within all classes.
PRIOR_OF_COVARIANCE = {"quantile": 2.0, "linear": 0.5}


class Patterns:
    """Rows grouped by which of their numbers are known."""

    def __init__(self, has):
        self.has = has
        unique, inverse = np.unique(has, axis=0, return_inverse=True)
        order = np.argsort(inverse.ravel(), kind="stable")
        ends = np.cumsum(np.bincount(inverse.ravel(), minlength=len(unique)))
        self.groups = [
            (rows, np.flatnonzero(pattern), np.flatnonzero(~pattern))
            for rows, pattern in zip(np.split(order, ends[:-1]), unique, strict=True)
        ]

    @cached_property
    def stacks(self):
        """Groups of nearly as many rows, ``(m, n_rows)``, and which of these are no repetitions.

        Calls take most of the time of a small table, so rows repeat until groups are as large.
        """
        stacks, groups = [], sorted((rows for rows, *_ in self.groups), key=len)
        while groups:
            sizes = np.array([*map(len, groups)])
            n_repeated = np.arange(1, len(sizes) + 1) * sizes - np.cumsum(sizes)
            some = groups[: np.searchsorted(n_repeated, REPEATED, side="right")]
            n_rows = len(some[-1])
            is_row = np.arange(n_rows) < np.array([*map(len, some)])[:, None]
            stacks.append((np.stack([np.resize(rows, n_rows) for rows in some]), is_row))
            groups = groups[len(some) :]
        return stacks

    def batches(self, n_classes):
        """Yield patterns ``(m, d)``, their rows ``(m, n_rows)``, and which of these are counted."""
        step = max(1, int(WORK_AT_ONCE / (n_classes * max(1, self.has.shape[1]) ** 2)))
        for rows, is_row in self.stacks:
            for start in range(0, len(rows), step):
                some = slice(start, start + step)
                yield self.has[rows[some, 0]], rows[some], is_row[some]

    def pieces(self, n_rows):
        """Return the groups in pieces of so few rows, but at least one."""
        step = max(1, n_rows)
        return [
            (rows[start : start + step], known, others)
            for rows, known, others in self.groups
            for start in range(0, len(rows), step)
        ]


@one_thread()
def conditional(means, covariances, y, known, others):
    """Return what the known numbers say of the others, in each class.

    Returns
    -------
    unit : ndarray of shape (n_classes, n, n_known)
        Standardised residuals of the known numbers, one by one.
    sd : ndarray of shape (n_classes, n_known)
        Standard deviation of each given the ones before.
    mean : ndarray of shape (n_classes, n, n_others)
        Conditional means of the others.
    covariance : ndarray of shape (n_classes, n_others, n_others)
        Their conditional covariances.
    """
    S = torch.from_numpy(covariances)
    mean_known, mean_others = means[:, known], means[:, others]
    factor = torch.linalg.cholesky(S[:, known][:, :, known])
    residual = torch.from_numpy(y[None] - mean_known[:, None]).mT
    unit = torch.linalg.solve_triangular(factor, residual, upper=False)
    cross = torch.linalg.solve_triangular(factor, S[:, known][:, :, others], upper=False)
    mean = torch.from_numpy(mean_others)[:, None] + (cross.mT @ unit).mT
    covariance = S[:, others][:, :, others] - cross.mT @ cross
    sd = torch.diagonal(factor, dim1=1, dim2=2)
    return unit.mT.numpy(), sd.numpy(), mean.numpy(), covariance.numpy()


def with_numbers(levels, means, covariances, y, below, above):
    """Return log-probabilities of classes with these numbers besides, each given those before it.

    Classes that have no share in a row may have an upper bound.

    Parameters
    ----------
    levels : ndarray of shape (n, n_classes)
        Log-probabilities without the numbers.
    means : ndarray of shape (n_classes, d)
        Of the numbers.
    covariances : ndarray of shape (n_classes or 1, d, d)
        Of the numbers in each class, or in all of them.
    y : ndarray of shape (n, d)
        Middles of cells.
    below, above : ndarray of shape (n, d)
        Distances of the ends of cells from their middles, 0 for points.
    """
    factor = np.linalg.cholesky(covariances)
    inverse = np.linalg.inv(factor)
    centres = (inverse @ means[:, :, None])[:, :, 0]
    sd = np.diagonal(factor, axis1=1, axis2=2)

    def cells(j, rows):
        """Return standardised middles and distances of ends of one number, ``(m, n_classes)``."""
        ends = (distance[rows, j, None] / sd[:, j] for distance in (below, above))
        return y[rows] @ inverse[:, j].T - centres[:, j], *ends

    joint = None
    if len(sd) == 1:
        units = y @ inverse[0].T, below / sd, above / sd
        joint = kernels_with_numbers(levels, centres, sd[0], *units)
    if joint is None:
        joint = levels.copy()
        for j in range(y.shape[1]):
            unit, low, high = cells(j, ALL)
            some = np.flatnonzero((low + high).max(axis=1) < NARROW)
            slope, constant = smooth_density(low[some] + high[some], sd[:, j])
            log_mass = log_density = constant - slope * unit[some] ** 2
            if len(some) < len(y):
                with np.errstate(divide="ignore"):
                    log_mass = np.log(normal_mass(unit, low, high))
                log_mass[some] = log_density
            joint += log_mass
    # Rows for which a mass may have vanished in a class that counts.
    of_points = np.maximum(-np.log(sd.min(axis=0)) - LOG_SQRT_2PI, 0.0) @ (below == 0).any(axis=0)
    far = np.flatnonzero(joint.max(axis=1) < LOG_LEAST + of_points + NEGLIGIBLE)
    if len(far):
        joint[far] = levels[far]
        for j in range(y.shape[1]):
            unit, low, high = cells(j, far)
            log_mass = log_normal_mass(unit - low, unit, unit + high, 0.0, 1.0)
            joint[far] += np.where(low > 0, log_mass, log_mass - np.log(sd[:, j]))
    return joint


def kernels_with_numbers(levels, centres, sd, y, low, high):
    """Return what `with_numbers` does for classes of equal covariances, unless rows are far out.

    All classes have an upper bound in one product of matrices, and those that may have a share in
    a row their probability; None if these are many.

    Parameters
    ----------
    levels : ndarray of shape (n, n_classes)
        Log-probabilities without the numbers.
    centres : ndarray of shape (n_classes, d)
        Standardised means.
    sd : ndarray of shape (d,)
        Standard deviations.
    y, low, high : ndarray of shape (n, d)
        Standardised middles of cells, and distances of their ends.
    """
    width, farthest = low + high, np.maximum(low, high)
    is_smooth, is_wide = width < NARROW, farthest > 1
    slope, constant = smooth_density(np.where(is_smooth, width, 0.0), sd)
    with np.errstate(divide="ignore", invalid="ignore"):
        # A cell from z - h to z + h has the mass of the one around 0 times exp(-z^2 / 2) and a mean
        # of cosh(zx) over the latter, which is less than the one of a uniform x, sinh(zh) / (zh),
        # and so less than exp(z^2 h^2 / 6).
        of_0 = np.log1p(-erfc(farthest * SQRT_HALF))
        # In a wide cell, the point x that is nearest to 0 is h away from z at most. Then
        # x^2 > z^2 / (1 + a) - h^2 / a for each a > 0, also for a = h / SLACK.
        of_wide = np.minimum(np.log(width) - LOG_SQRT_2PI, 0.0) + SLACK * farthest / 2
        slopes = slope, 0.5 / (1 + farthest / SLACK)
        slope = np.select([is_smooth, is_wide], slopes, 0.5 - farthest**2 / 6)
        constants = constant, 0.0, of_wide
        constant = np.select([is_smooth, np.isinf(width), is_wide], constants, of_0)
    joint = levels + (constant - slope * y**2).sum(axis=1, keepdims=True)
    joint += np.hstack([2 * slope * y, -slope]) @ np.hstack([centres, centres**2]).T
    if is_smooth.all():
        return joint

    def exact(log_prob, k, counts):
        """Return log-probabilities of some classes, so many of each row, from their bounds."""
        for j in np.flatnonzero(~is_smooth.all(axis=0)):
            row = (each[:, j] for each in (y, low, high, slope, constant))
            unit, below, above, of_square, start = (np.repeat(each, counts) for each in row)
            unit -= centres[:, j].copy()[k]
            with np.errstate(divide="ignore"):
                excess = start - of_square * unit**2 - np.log(normal_mass(unit, below, above))
            excess[np.repeat(is_smooth[:, j], counts)] = 0.0
            log_prob -= excess
        return log_prob

    first = joint.argmax(axis=1)
    least = exact(joint.max(axis=1), first, 1) - NEGLIGIBLE
    has_share = joint >= least[:, None]
    counts = np.count_nonzero(has_share, axis=1)
    if counts.sum() > MANY_SHARES * joint.size:
        return None
    some = np.flatnonzero(has_share)
    k = some - np.repeat(np.arange(len(y)) * len(centres), counts)
    joint.flat[some] = exact(joint.flat[some], k, counts)
    return joint


def smooth_density(width, sd):
    """Return a factor and a constant of the log-mass of a normal in narrow cells, or at points.

    The log-mass is the constant less the factor times the squared standardised middle. The density
    is taken as exponential within a cell.

    Parameters
    ----------
    width : ndarray of shape (n, k)
        Standardised widths of the cells, 0 for points.
    sd : ndarray of shape (k,)
        Standard deviations.
    """
    log_width = np.log(np.where(width > 0, width, 1 / sd))
    return 0.5 - width**2 / 24, log_width - width**2 / 24 - LOG_SQRT_2PI


class LatentClasses(Classes):
    """A mixture of classes; in each, numbers are jointly Gaussian and levels independent.

    Parameters
    ----------
    space : {"quantile", "linear"}
        The space of the numbers.
    log_weights : ndarray of shape (n_classes,)
        Of the classes.
    tables : dict of int to ndarray of shape (n_classes, n_levels)
        Log-probabilities of the levels of a variable.
    numbers : ndarray of shape (n_numbers,)
        The variables that are numbers.
    means : ndarray of shape (n_classes, n_numbers)
        Of the numbers.
    covariances : ndarray of shape (n_classes or 1, n_numbers, n_numbers)
        Of the numbers in each class, or in all of them.
    """

    def __init__(self, space, log_weights, tables, numbers, means, covariances):
        self.space = space
        self.log_weights = log_weights
        self.tables = tables
        self.numbers = numbers
        self.means, self.covariances = means, covariances

    def _joint(self, cells, known):
        """Yield some rows, and the log-probabilities of their known variables and each class."""
        levels, tables = self._known_levels(cells.code, known), self._joined_tables()
        low, middle, high = (
            values[:, self.numbers] for values in (cells.low, cells.middle, cells.high)
        )
        has = known[:, self.numbers] & np.isfinite(middle)
        for rows, seen, _ in Patterns(has).pieces(BLOCK // len(self.log_weights)):
            joint = levels[rows] @ tables + self.log_weights
            if len(seen):
                y, below, above = (ends[np.ix_(rows, seen)] for ends in (middle, low, high))
                moments = self.means[:, seen], self.covariances[:, seen][:, :, seen]
                joint = with_numbers(joint, *moments, y, y - below, above - y)
            yield rows, joint

    def _known_levels(self, code, known):
        """Return which levels the rows have, side by side, ``(n, n_levels)``."""
        one_hot = [
            indicators(np.where(known[:, j], code[:, j], -1), table.shape[1])
            for j, table in self.tables.items()
        ]
        if not one_hot:
            return np.zeros((len(known), 0))
        one_hot = hstack(one_hot, format="csr")
        return one_hot.toarray() if one_hot.shape[1] <= FEW_LEVELS else one_hot

    def _joined_tables(self):
        """Return the log-probabilities of all levels, side by side, ``(n_levels, n_classes)``."""
        empty = np.zeros((0, len(self.log_weights)))
        return np.concatenate([empty, *(table.T for table in self.tables.values())])

    def predictive(self, view, j, rows=ALL):
        """Return the distribution of a variable in some rows given the other known ones."""
        share = self._shares_without(view, j, rows)
        levels = None
        if j in self.tables:
            table = np.exp(self.tables[j])
            levels = share @ table
        if j not in self.numbers:
            return Predictive(levels, None, None)
        weights = share if levels is None else share * table[:, 0]
        weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)
        # Of each row by itself: answers must not depend on the rows beside it.
        is_kept = weights >= np.minimum(
            LEFT_OUT / weights.shape[1], weights.max(axis=1, keepdims=True)
        )
        row, k = np.nonzero(is_kept)
        means, scales = self._conditional_numbers(view, j, rows, row, k)
        weights, counts = weights[row, k], np.count_nonzero(is_kept, axis=1)
        total = np.add.reduceat(weights, np.cumsum(counts) - counts) if len(counts) else weights
        map_ = view.schema.variables[j].maps[self.space]
        return Predictive(
            levels, Normals(counts, weights / np.repeat(total, counts), means, scales), map_
        )

    def _conditional_numbers(self, view, j, rows, row, k):
        """Return means of a number in classes k, and scales, one for a row if its classes agree.

        Parameters
        ----------
        view : TableView
            The rows.
        j : int
            The variable.
        rows : ndarray of int or slice
            Some rows.
        row, k : ndarray of int
            Pairs of one of these, in order, and a class.
        """
        i = list(self.numbers).index(j)
        middle = view.cells(self.space).middle[rows][:, self.numbers]
        has = view.known[rows][:, self.numbers] & np.isfinite(middle)
        has[:, i] = False
        counts, means = np.bincount(row, minlength=len(has)), np.empty(len(row))
        is_shared = len(self.covariances) == 1
        scales = np.empty(len(has) if is_shared else len(row))
        for some, given, _ in Patterns(has).groups:
            S = self.covariances[:, given][:, :, given]
            cross = self.covariances[:, given, i]
            slopes = np.linalg.solve(S, cross[..., None])[..., 0]
            offsets = self.means[:, i] - (self.means[:, given] * slopes).sum(axis=1)
            variances = self.covariances[:, i, i] - (cross * slopes).sum(axis=1)
            sd = np.sqrt(variances.clip(LEAST_VARIANCE))
            is_some = np.zeros(len(has), dtype=bool)
            is_some[some] = True
            pairs = ALL if is_some.all() else np.flatnonzero(np.repeat(is_some, counts))
            y, of_class = middle[:, given][row[pairs]], k[pairs]
            if is_shared:
                means[pairs] = offsets[of_class] + y @ slopes[0]
                scales[some] = sd[0]
            else:
                means[pairs] = offsets[of_class] + (y * slopes[of_class]).sum(axis=1)
                scales[pairs] = sd[of_class]
        return means, scales

    def sample(self, view, rows, random_state):
        """Return variables of rows, which may repeat, the unknown ones drawn given the others."""
        completed, cells = view.values[rows], view.cells(self.space)
        missing, codes = ~view.known[rows], view.code[rows]
        z = choose(self.posterior(view)[1], random_state, rows)
        for j, table in self.tables.items():
            unknown = np.flatnonzero(missing[:, j])
            codes[unknown, j] = choose(np.exp(table), random_state, z[unknown])
        scores = np.zeros(completed.shape)
        if len(self.numbers):
            middle = cells.middle[rows][:, self.numbers]
            has = ~missing[:, self.numbers] & np.isfinite(middle)
            noise = random_state.standard_normal(has.shape)
            for index, given, unknown in Patterns(has).groups:
                if len(unknown):
                    y, normal = middle[np.ix_(index, given)], noise[np.ix_(index, unknown)]
                    drawn = self._drawn_numbers(z[index], y, normal, given, unknown)
                    scores[np.ix_(index, self.numbers[unknown])] = drawn
        for j, variable in enumerate(view.schema.variables):
            unknown = np.flatnonzero(missing[:, j])
            completed[unknown, j] = variable.decode(
                codes[unknown, j], scores[unknown, j], self.space, random_state
            )
        return completed

    def _drawn_numbers(self, z, y, noise, given, unknown):
        """Return unknown numbers of rows of classes z, from given ones and normal noise."""
        means, S = self.means[z], self.covariances
        cross = S[:, given][:, :, unknown]
        slopes = np.linalg.solve(S[:, given][:, :, given], cross)
        covariances = S[:, unknown][:, :, unknown] - np.swapaxes(slopes, 1, 2) @ cross
        factors = np.linalg.cholesky(covariances + LEAST_VARIANCE * np.eye(len(unknown)))
        if len(S) == 1:
            return means[:, unknown] + (y - means[:, given]) @ slopes[0] + noise @ factors[0].T
        residual = (y - means[:, given])[:, None] @ slopes[z]
        return means[:, unknown] + residual[:, 0] + (factors[z] @ noise[:, :, None])[:, :, 0]


class Training:
    """The rows of a fit: numbers, some of them missing, and indicators of levels.

    Parameters
    ----------
    view : TableView
        The rows.
    space : {"quantile", "linear"}
        The space of the numbers.
    random_state : RandomState
        Draws a point of each cell, so that covariances reflect all its points.
    """

    def __init__(self, view, space, random_state):
        cells, variables = view.cells(space), view.schema.variables
        self.space, self.weight = space, view.weight
        numbers = [j for j, variable in enumerate(variables) if variable.has_number]
        # Points come before cells: cells are exact given points, but not given other cells.
        self.numbers = np.array(
            sorted(numbers, key=lambda j: variables[j].step is not None), dtype=int
        )
        middle = cells.middle[:, self.numbers]
        noise = random_state.uniform(-0.5, 0.5, middle.shape)
        y, code = middle + noise * cells.width[:, self.numbers], cells.code
        self.rows = ALL
        if len(np.unique(np.isfinite(y), axis=0)) > MAX_PATTERNS and len(y) > SOME_ROWS:
            self.rows = some = random_state.permutation(len(y))[:SOME_ROWS]
            y, code, self.weight = y[some], code[some], view.weight[some]
        self.y, self.has = y, np.isfinite(y)
        self.patterns = Patterns(self.has)
        self.levels = {
            j: indicators(code[:, j], variable.n_levels)
            for j, variable in enumerate(variables)
            if variable.n_levels
        }
        # All variables side by side: each product with the classes is one operation.
        self.indicators = hstack([csr_array((len(y), 0)), *self.levels.values()], format="csr")
        self.by_level = self.indicators.T.tocsr()
        self.last_levels = np.cumsum([variables[j].n_levels for j in self.levels])[:-1]
        # Mean and variance say little of angles.
        self.scores = [
            None if variable.has_number or variable.period else variable.scores
            for variable in variables
        ]
        self.counts = {
            j: np.array(variables[j].levels)
            for j in self.levels
            if self.scores[j] is not None
            and variables[j].lattice
            and variables[j].lattice[:2] == (1, 0)
        }
        self.slopes = {}  # of `tilted`, for each variable, in the last step

    @cached_property
    def features(self):
        """Standardised numbers and levels, of equal weight for k-means."""
        mean, spread = marginal_moments(self.y, self.has)
        columns = [np.where(self.has, (self.y - mean) / np.sqrt(spread), 0.0)]
        for one_hot in map(csr_array.toarray, self.levels.values()):
            scale = np.sqrt(one_hot.var(axis=0).sum() + 1e-9)
            columns.append((one_hot - one_hot.mean(axis=0)) / scale)
        return np.concatenate(columns, axis=1)

    @cached_property
    def frequencies(self):
        """The frequencies of the levels of each variable in all rows."""
        counts = np.split(self.by_level @ self.weight + 0.5, self.last_levels)
        return {j: count / count.sum() for j, count in zip(self.levels, counts, strict=False)}

    def tables(self, share, is_last=False):
        """Return the log-probabilities of the levels in each class.

        They are shrunk to the frequencies in all rows, in the last step by as much as is likeliest.
        Ordered levels are shrunk to these, or to a Poisson distribution if they are counts, tilted
        to the mean and the variance of the class.
        """
        tables = {}
        counts = np.split(self.by_level @ share, self.last_levels) if self.levels else ()
        for j, count in zip(self.levels, counts, strict=True):
            frequencies, table = self.frequencies[j], np.ascontiguousarray(count.T)
            if self.scores[j] is not None and len(frequencies) >= TILTED_LEVELS:
                bases = [np.broadcast_to(np.log(frequencies), table.shape)]
                if j in self.counts:
                    bases.append(poisson(self.counts[j], table))
                slopes = self.slopes.get(j)
                n_steps = N_TILTS if is_last or slopes is None else 1
                expected, self.slopes[j] = tilted(
                    np.array(bases), frequencies, self.scores[j], table, slopes, n_steps
                )
                table = shrunk(table, expected)
            elif is_last:
                table = shrunk(table, [np.tile(frequencies, (len(table), 1))])
            else:
                table += PRIOR_ROWS * frequencies
            tables[j] = np.log(table / table.sum(axis=1, keepdims=True))
        return tables

    def expectation(self, log_weights, tables, means, covariances):
        """Return the mean log-likelihood, weighted classes of rows, and numbers filled in."""
        total = np.tile(log_weights, (len(self.y), 1))
        if tables:
            total += self.indicators @ np.concatenate([*tables.values()], axis=1).T
        filled = np.empty((len(means), *self.y.shape))
        spread = np.zeros_like(covariances)
        for has, rows, is_row in self.patterns.batches(len(means)):
            log_prob, filled[:, rows], covariance = completed_normals(
                means, covariances, self.y[rows], has
            )
            total[rows] += log_prob
            if covariance is not None:
                shares = softmax(total[rows], axis=2) * (is_row * self.weight[rows])[..., None]
                spread += np.einsum("mk,mkij->kij", shares.sum(axis=1), covariance)
        greatest = total.max(axis=1)
        share = np.exp(total - greatest[:, None])
        sums = share.sum(axis=1)
        share *= (self.weight / sums)[:, None]
        score = np.average(greatest + np.log(sums), weights=self.weight)
        return score, share, (filled, spread)

    def fit(self, share, n_more=0, has_covariances=False):
        """Return the mixture after expectation-maximisation.

        It begins with ``n_more`` classes that are then removed one by one, first the ones without
        which the likelihood falls least: k-means may find other classes than the mixture.

        Parameters
        ----------
        share : ndarray of shape (n, n_classes)
            The classes of rows at the start.
        n_more : int, default=0
            How many of these are removed.
        has_covariances : bool, default=False
            Whether the first classes have covariances too, or differ in their means alone.
        """
        share = share * self.weight[:, None]
        self.slopes = {}  # may be of other classes
        n_classes = share.shape[1] - n_more
        mean, variances = marginal_moments(self.y, self.has)
        filled = np.where(self.has, self.y, mean)
        means = share.T @ filled / (share.sum(axis=0)[:, None] + 1e-9)
        covariances = np.tile(np.diag(variances), (share.shape[1], 1, 1))
        group = complete_rows(self.y, self.has)
        before, completed = -np.inf, None
        if has_covariances:
            completed = np.where(self.has, self.y, means[:, None]), np.zeros_like(covariances)
        for step in range(N_STEPS + STEPS_PER_REMOVAL * n_more):
            if completed is not None:
                means, covariances = moments(share, *completed, group, self.space)
            count = share.sum(axis=0) + 1e-3
            model = np.log(count / count.sum()), self.tables(share), means, covariances
            score, share, completed = self.expectation(*model)
            if share.shape[1] > n_classes:
                if step % STEPS_PER_REMOVAL == STEPS_PER_REMOVAL - 1:
                    kept = self.needed(share)
                    share = share[:, kept] + 1e-9 * self.weight[:, None]
                    share *= self.weight[:, None] / share.sum(axis=1, keepdims=True)
                    completed = [each[kept] for each in completed]
                    self.slopes = {j: slopes[:, kept] for j, slopes in self.slopes.items()}
                continue
            if step > 1 and score - before < TOLERANCE:
                break
            before = score
        log_weights, _, *moments_ = model
        tables = self.tables(share, is_last=True)
        return LatentClasses(self.space, log_weights, tables, self.numbers, *moments_)

    def needed(self, share):
        """Return the classes, except that without which the likelihood falls least."""
        others = np.maximum(1 - share / self.weight[:, None], 1e-12)
        return np.delete(np.arange(share.shape[1]), (self.weight @ np.log(others)).argmax())


def poisson(levels, counts):
    """Return logarithms of Poisson frequencies with the mean of each class, up to a constant."""
    mean = (counts @ levels + 1e-3) / (counts.sum(axis=1) + 1e-3)
    return np.log(mean)[:, None] * levels - gammaln(levels + 1)


def tilted(bases, frequencies, scores, counts, slopes=None, n_steps=N_TILTS):
    """Return the exponential of each base and a parabola, with mean and variance of classes.

    Parameters
    ----------
    bases : ndarray of shape (n_bases, n_classes, n_levels)
        Logarithms of frequencies, up to a constant and a parabola.
    frequencies : ndarray of shape (n_levels,)
        Of the levels in all rows; a small share of them is mixed in.
    scores : ndarray of shape (n_levels,)
        Numbers of the levels.
    counts : ndarray of shape (n_classes, n_levels)
        Rows of each class.
    slopes : ndarray of shape (n_bases, n_classes, 2), default=None
        Coefficients of the parabolas, where Newton's method begins.
    n_steps : int
        Steps of Newton's method.

    Returns
    -------
    expected : ndarray of shape (n_bases, n_classes, n_levels)
    slopes : ndarray of shape (n_bases, n_classes, 2)
    """
    powers = scores ** np.arange(1, 5)[:, None]
    target = counts @ powers[:2].T / (counts.sum(axis=1, keepdims=True) + 1e-9)
    if slopes is None:
        slopes = np.zeros((len(bases), *target.shape))
    for _ in range(n_steps):
        tilt = bases + slopes @ powers[:2]
        proba = np.exp(tilt - tilt.max(axis=-1, keepdims=True))
        proba /= proba.sum(axis=-1, keepdims=True)
        moments_ = proba @ powers.T
        mean, square, cube, fourth = np.moveaxis(moments_, -1, 0)
        # Covariances of the number and its square.
        first, both, second = square - mean**2 + 1e-3, cube - mean * square, fourth - square**2
        second += 1e-3
        a, b = np.moveaxis(target - moments_[..., :2], -1, 0)
        step = np.stack([second * a - both * b, first * b - both * a], axis=-1)
        slopes = slopes + (step / (first * second - both**2)[..., None]).clip(-1, 1)
    return (1 - LEAST_SHARE) * proba + LEAST_SHARE * frequencies, slopes


def shrunk(counts, expected):
    """Return counts plus expected frequencies times the strength of a prior.

    Frequencies of each class have a Dirichlet prior around the expected ones. These, of several
    arrays, and its strength maximise the marginal likelihood.
    """
    prior = STRENGTHS[:, None, None] * np.asarray(expected)[:, None]
    evidence = (gammaln(counts + prior) - gammaln(prior)).sum(axis=(2, 3))
    evidence -= gammaln(counts.sum(axis=1) + STRENGTHS[:, None]).sum(axis=1)
    evidence += len(counts) * gammaln(STRENGTHS)
    return counts + prior[np.unravel_index(evidence.argmax(), evidence.shape)]


def fit_latent_classes(view, n_classes, space, random_state, start=None):
    """Fit a mixture by expectation-maximisation, which begins with more classes if it is quick.

    With another mixture as its start, it begins with its classes.
    """
    training = Training(view, space, random_state)
    if start is not None:
        return training.fit(start.posterior(view)[1][training.rows], has_covariances=True)
    n, d = training.y.shape
    work = n * (n_classes + MORE_CLASSES) * d**2 * len(training.patterns.groups)
    is_slow = work > WORK_WITH_MORE or training.features.size > MANY_VALUES
    n_more = 0 if is_slow or not 1 < n_classes <= CLASSES_WITH_MORE else MORE_CLASSES
    share = initial_shares(training.features, n_classes + n_more, random_state)
    return training.fit(share, n_more)


def fit_kernels(view, space, random_state, start=None):
    """Return kernels as a mixture with a class for each row, whatever the start.

    Their covariance is the rows', narrowed by a bandwidth. Missing numbers are conditional means,
    and the levels of a row are mixed with their marginal frequencies (Aitchison & Aitken, 1976).
    The bandwidth and the shares of the latter maximise the likelihood of rows that are left out,
    under equal parts of kernels and of a single class: other components model the rows that have no
    close ones.

    References
    ----------
    Aitchison & Aitken, "Multivariate Binary Discrimination by the Kernel Method", 1976.
    """
    training = Training(view, space, random_state)
    one = training.fit(np.ones((len(training.y), 1)))
    _, _, (filled, _) = training.expectation(
        one.log_weights, one.tables, one.means, one.covariances
    )
    n, d = training.y.shape
    covariances = n ** (-2 / (d + 4)) * one.covariances  # Scott's rule
    log_weights = np.log(training.weight / training.weight.sum())
    rows = random_state.permutation(n)[:ROWS_LEFT_OUT]
    factor = np.linalg.cholesky(covariances[0])
    unit = solve_triangular(factor, filled[0].T, lower=True).T
    distances = cdist(unit[rows], unit, "sqeuclidean")
    of_numbers = [log_weights - d * np.log(h) - distances / (2 * h**2) for h in BANDWIDTHS]
    group = complete_rows(training.y, training.has)
    is_copy = (group[rows, None] == group) & (group >= 0)
    is_copy[np.arange(len(rows)), rows] = True
    of_numbers = np.where(is_copy, -np.inf, of_numbers)
    of_levels = [
        smoothed(one_hot, np.exp(one.tables[j][0]), rows) for j, one_hot in training.levels.items()
    ]
    scott = n ** (-1 / (d + 4))
    centred = unit[rows] - solve_triangular(factor, one.means[0], lower=True)
    beside = d * np.log(scott) - 0.5 * scott**2 * (centred**2).sum(axis=1)
    for j, one_hot in training.levels.items():
        frequency = one_hot[rows].toarray() @ np.exp(one.tables[j][0])
        beside += np.log(np.where(frequency > 0, frequency, 1.0))
    bandwidth, *shares = likeliest([of_numbers, *of_levels], training.weight[rows], beside)
    tables = {}
    for (j, one_hot), share in zip(training.levels.items(), shares, strict=True):
        of_row = (1 - SHARES[share]) * one_hot.toarray()
        of_all = 1 - of_row.sum(axis=1, keepdims=True)
        tables[j] = np.log(of_row + of_all * np.exp(one.tables[j]))
    covariances *= BANDWIDTHS[bandwidth] ** 2
    return LatentClasses(space, log_weights, tables, training.numbers, filled[0], covariances)


def smoothed(one_hot, frequencies, rows):
    """Return the log-probability of the level of some rows given each row's level, by shares.

    Returns
    -------
    log_probs : ndarray of shape (n_shares, n_some_rows, n_rows)
        0 where a row has no level.
    """
    one_hot = one_hot.toarray()
    has = one_hot.any(axis=1)
    frequency = (one_hot[rows] @ frequencies)[:, None]
    frequency[~has[rows]] = 1.0
    is_same = one_hot[rows] @ one_hot.T > 0
    share = np.array(SHARES)[:, None, None]
    log_probs = np.where(is_same, np.log(1 - share + share * frequency), np.log(share * frequency))
    log_probs[:, :, ~has] = np.log(frequency)
    log_probs[:, ~has[rows]] = 0.0
    return log_probs


@one_thread()
def likeliest(terms, weight, beside):
    """Return one option of each term, so that their sum has the greatest likelihood.

    Options are improved one term after the other.

    Parameters
    ----------
    terms : list of ndarray of shape (n_options, n_rows, n_classes)
        Log-probabilities of rows in each class.
    weight : ndarray of shape (n_rows,)
        Of the rows.
    beside : ndarray of shape (n_rows,)
        Log-probabilities of rows under a model that has as much weight as all classes.
    """
    options = [len(term) // 2 for term in terms]
    terms, weight = [torch.from_numpy(term) for term in terms], torch.from_numpy(weight)
    beside = torch.from_numpy(beside)
    for _ in range(N_ROUNDS):
        before = list(options)
        for i, term in enumerate(terms):
            others = sum(terms[j][options[j]] for j in range(len(terms)) if j != i)
            kernels = [torch.logsumexp(others + option, 1) for option in term]
            scores = [weight @ torch.logaddexp(each, beside) for each in kernels]
            options[i] = int(np.argmax(scores))
        if options == before:
            break
    return options


def marginal_moments(y, has):
    count = has.sum(axis=0).clip(1)
    mean = np.where(has, y, 0.0).sum(axis=0) / count
    spread = np.where(has, (y - mean) ** 2, 0.0).sum(axis=0) / count
    return mean, spread + 0.01


def indicators(code, n_levels):
    """Return which level each row has, as a sparse matrix of shape (n, n_levels)."""
    has = (code >= 0) & (code < n_levels)
    ends = np.concatenate([[0], np.cumsum(has)])
    return csr_array((np.ones(ends[-1]), code[has], ends), shape=(len(code), n_levels))


def initial_shares(features, n_classes, random_state):
    """Return the classes of rows by k-means."""
    if n_classes == 1:
        return np.ones((len(features), 1))
    from sklearn.cluster import KMeans

    features = features + 1e-6 * random_state.standard_normal(features.shape)  # rows may be equal
    n_classes = min(n_classes, len(features))
    some = features
    if features.size > MANY_VALUES:
        some = features[some_rows(len(features), SOME_ROWS)]
    seed = random_state.randint(2**31 - 1)
    k_means = KMeans(n_classes, n_init=1, max_iter=20, random_state=seed).fit(some)
    labels = k_means.predict(features)
    return 0.9 * (labels[:, None] == np.arange(n_classes)) + 0.1 / n_classes


def completed_normals(means, covariances, y, has):
    """Return the log-density of known numbers in each class, and what they say of the others.

    Parameters
    ----------
    means : ndarray of shape (n_classes, d)
    covariances : ndarray of shape (n_classes, d, d)
    y : ndarray of shape (m, n, d)
        Rows of each pattern.
    has : ndarray of bool, of shape (m, d)
        Patterns: which numbers are known.

    Returns
    -------
    log_prob : ndarray of shape (m, n, n_classes)
    filled : ndarray of shape (n_classes, m, n, d)
        The rows, with conditional means of unknown numbers.
    covariance : ndarray of shape (m, n_classes, d, d) or None
        Conditional covariance of unknown numbers, 0 of others; None if there are none.
    """
    if has.all():
        return complete_normals(means, covariances, y)
    S, mean = torch.from_numpy(covariances), torch.from_numpy(means)[:, :, None]
    known = torch.from_numpy(has).double()[:, None]
    unknown = 1 - known
    # Rows and columns of unknown numbers are as in the identity.
    among_known = known[..., None] * S * known[..., None, :] + torch.diag_embed(unknown)
    factor = torch.linalg.cholesky(among_known)
    row = torch.from_numpy(np.where(has[:, None], y, 0.0)).mT[:, None]
    unit = torch.linalg.solve_triangular(factor, known[..., None] * (row - mean), upper=False)
    log_prob = -0.5 * unit.square().sum(2) - factor.diagonal(dim1=2, dim2=3).log().sum(2)[..., None]
    log_prob = log_prob - LOG_SQRT_2PI * known.sum(2)[..., None]
    cross = known[..., None] * S * unknown[..., None, :]
    cross = torch.linalg.solve_triangular(factor, cross, upper=False)
    filled = torch.where(known[..., None] > 0, row, mean + cross.mT @ unit)
    covariance = unknown[..., None] * S * unknown[..., None, :] - cross.mT @ cross
    return log_prob.mT.numpy(), filled.permute(1, 0, 3, 2).numpy(), covariance.numpy()


def complete_normals(means, covariances, y):
    """Return what `completed_normals` does if all numbers are known, in a quarter of its time."""
    factor = torch.linalg.cholesky(torch.from_numpy(covariances))
    residual = torch.from_numpy(y - means[:, None, None]).flatten(1, 2).mT
    unit = torch.linalg.solve_triangular(factor, residual, upper=False).numpy()
    constant = np.log(np.diagonal(factor.numpy(), axis1=1, axis2=2)).sum(1)
    constant += LOG_SQRT_2PI * y.shape[2]
    log_prob = (-0.5 * (unit**2).sum(1) - constant[:, None]).T
    filled = np.broadcast_to(y, (len(means), *y.shape))
    return log_prob.reshape(*y.shape[:2], len(means)), filled, None


def complete_rows(y, has):
    """Return a number for each complete row, the same for equal rows, and -1 for others."""
    is_complete = has.all(axis=1)
    group = np.full(len(y), -1)
    group[is_complete] = np.unique(y[is_complete], axis=0, return_inverse=True)[1].ravel()
    return group


def moments(share, filled, spread, group, space):
    """Return means and covariances, the latter shrunk to the covariance within all classes."""
    n_classes, _, d = filled.shape
    count = share.sum(axis=0)[:, None] + 1e-9
    means = np.einsum("nk,knd->kd", share, filled) / count
    residual = filled - means[:, None]
    scatter = spread.copy()
    for k in range(n_classes):
        scatter[k] += (share[:, k, None] * residual[k]).T @ residual[k]
    pooled = scatter.sum(axis=0) / share.sum()
    prior = PRIOR_OF_COVARIANCE[space] * d if n_classes > 1 else 0.0
    shrinkage = d / (d + len(share))
    # Incomplete rows cannot be left out: what fills them has been estimated with them.
    if d > 1 and (group >= 0).mean() > 0.5 and group.max() >= d:
        shrinkage = best_shrinkage(pooled, share, residual, group)
    pooled = (1 - shrinkage) * pooled + shrinkage * np.diag(np.diag(pooled))
    weight = np.maximum(share.sum(axis=0), 1e-9)[:, None, None]
    covariances = (scatter + prior * pooled) / (weight + prior)
    if n_classes == 1:
        covariances = pooled[None].copy()
    covariances += MIN_VARIANCE * np.eye(d)
    return means, covariances


def best_shrinkage(covariance, share, residual, group):
    """Return the shrinkage of correlations towards zero of greatest leave-one-out likelihood.

    It is close to 0 if columns are nearly collinear: more would blur them.

    Parameters
    ----------
    covariance : ndarray of shape (d, d)
        Weighted mean of the squares of the residuals.
    share : ndarray of shape (n, n_classes)
        Weighted classes of rows.
    residual : ndarray of shape (n_classes, n, d)
        Rows less the means of the classes.
    group : ndarray of shape (n,)
        What `complete_rows` returned. A row is left out with its copies.

    References
    ----------
    Hoffbeck & Landgrebe, "Covariance Matrix Estimation and Classification With Limited Training
    Data", 1996.
    """
    n, sd = share.sum(), np.sqrt(np.diag(covariance)) + 1e-9
    rows = np.flatnonzero(group >= 0)[:: 1 + share.size // WORK_OF_SHRINKAGE]
    copies = np.array([np.bincount(group + 1, shares)[group[rows] + 1] for shares in share.T])
    values, vectors = np.linalg.eigh(covariance / sd / sd[:, None])
    values = (1 - SHRINKAGES[:, None]) * values + SHRINKAGES[:, None]
    distance = ((residual[:, rows] / sd) @ vectors) ** 2 @ (1 / values).T
    left = 1 - (1 - SHRINKAGES) / n * copies[:, :, None] * distance
    share = share[rows].T[:, :, None]
    cost = (share * (np.log(left) + distance / left)).sum(axis=(0, 1)) / share.sum()
    return SHRINKAGES[(cost + np.log(values).sum(axis=1)).argmin()]
