"""The distribution of one column of a table, and of one variable, in each row."""

import copy
from functools import cached_property

import numpy as np

from ..columns.lattice import cell_ends
from ..distribution.distribution import in_blocks, plausible_ends
from ..training.threads import in_one_thread
from ._missing import rows_without
from ._variables import ROWS_AT_ONCE
from ._view import ALL, LEAST_MASS, TableView

# Normal scores of the numbers among which quantiles are looked for.
GRID = np.concatenate([[-8.0, -6.0], np.linspace(-5, 5, 321), [6.0, 8.0]])
N_BISECTIONS = 30
ROUNDING = 1e-6  # of a step of the grid
INSIDE = 1e-6  # of a cell, from its end on
HALF = 0.499  # of a step, so that the end of a cell is outside whatever its rounding error


def without(values, schema, i):
    """Return variables in which the value of a column is unknown, but not missing."""
    values, of_column = values.copy(), schema.of_column[i]
    is_flag = np.isin(of_column, list(schema.flag_of.values()))
    values[:, of_column] = np.where(is_flag, 0.0, np.nan)
    return schema.with_spans(values)


class OneVariable:
    """The distribution of one variable in each row, given the other known ones.

    Parameters
    ----------
    density : TableDensity
        The fitted density.
    view : TableView
        The rows, in which the variable is unknown.
    j : int
        The variable.
    log_weights : ndarray of shape (n, n_members)
        Of the members.
    rows : ndarray of int, optional
        The rows to answer for, all of them by default.
    """

    def __init__(self, density, view, j, log_weights, rows=ALL):
        self.variable = density._schema.variables[j]
        self.shares = np.exp(log_weights[rows]).T
        self.members = [member.predictive(view, j, rows) for member, _ in density._members]
        self.levels = None
        rules, values = density._schema.rules, view.original[rows]
        # Which values a rule expects of a number, (n, k), and with which probabilities.
        self.expected, self.p_expected = rules.expectation(density._schema, values, j)
        if self.members[0].levels is not None:
            self.levels = sum(
                share[:, None] * one.levels
                for share, one in zip(self.shares, self.members, strict=True)
            )
            self.levels = rules.probabilities(density._schema, values, j, self.levels)
            self.levels = self._given_known(density, values, j)

    def _given_known(self, density, values, j):
        """Return the probabilities of levels, small where all rows of the fit lack a known value.

        By the rule of succession.
        """
        schema = density._schema
        n_rows = rows_without(density._levels_without, schema, values, schema.place_of(j))
        if n_rows is None:
            return self.levels
        levels = self.levels * np.where(n_rows > 0, 1 / (n_rows + 2), 1.0)
        return levels / levels.sum(axis=1, keepdims=True)

    def take(self, rows):
        """Return the distributions in some rows, which may repeat."""
        some = copy.copy(self)
        vars(some).pop("_on_grid", None), vars(some).pop("_cells", None)
        some.shares, some.members = self.shares[:, rows], [one.take(rows) for one in self.members]
        some.levels = None if self.levels is None else self.levels[rows]
        some.expected, some.p_expected = self.expected[rows], self.p_expected[rows]
        return some

    def cdf(self, x):
        """Return the probability that the number is at most x, of shape (n, k) or (1, k)."""
        total = 0.0
        variable = self.variable
        has_heaps = variable.heaps is not None
        ends, places = variable.ends_below(x) if has_heaps else (x[None], x[None])
        of_degrees = variable.heaps.shares if has_heaps else [1.0]
        scores = {
            map_: map_.forward(places.ravel())[0].reshape(places.shape)
            for map_ in {one.map for one in self.members}
        }
        for share, one in zip(self.shares, self.members, strict=True):
            below = 0.0
            for of_degree, end, score in zip(of_degrees, ends, scores[one.map], strict=True):
                up_to = one.number.cdf(score)
                if has_heaps:
                    up_to = np.where(np.isinf(end), end > 0, up_to)
                below = below + of_degree * up_to
            if one.levels is not None:
                if variable.step is not None:  # outer cells are open, up to the atoms
                    below = np.where(x < variable.low - HALF * variable.step, 0.0, below)
                    below = np.where(x > variable.high + HALF * variable.step, 1.0, below)
                below = one.levels[:, :1] * below
                for k, atom in enumerate(variable.atoms, 1):
                    below = below + one.levels[:, k, None] * (x >= atom)
            total = total + share[:, None] * below
        if not self.p_expected.any():
            return total
        total = (1 - self.p_expected.sum(axis=1, keepdims=True)) * total
        for expected, probability in zip(self.expected.T, self.p_expected.T, strict=True):
            total = total + probability[:, None] * (x >= expected[:, None])
        return total

    def below(self, x, row):
        """Return the probability of values up to x in some rows, of shape (m,) as the values.

        The probability of a level is spread evenly over its cell.
        """
        if self.variable.has_number:
            return self.take(row).cdf(x[:, None])[:, 0]
        ends, below = self._cells
        x = np.clip(x, ends[0], ends[-1])
        cell = np.searchsorted(ends[1:-1], x)
        share = (x - ends[cell]) / (ends[cell + 1] - ends[cell])
        return below[row, cell] + share * (below[row, cell + 1] - below[row, cell])

    @property
    def probabilities(self):
        """The probabilities of the values that are listed as possible."""
        if not self.variable.has_number:
            return self.variable.of_possible(self.levels)
        below = self.cdf(self.variable.possible.ends[None, 1:-1])
        return np.maximum(np.diff(below, axis=1, prepend=0.0, append=1.0), 0.0)

    @cached_property
    def _cells(self):
        """The ends of the cells of possible numbers, and the probabilities below them."""
        numbers, half = self.variable.possible.values, self.variable.step / 2
        ends = cell_ends(numbers)
        ends[[0, -1]] = numbers[0] - half, numbers[-1] + half
        below = np.cumsum(self.probabilities, axis=1)
        return ends, np.concatenate([np.zeros((len(below), 1)), below], axis=1)

    def _numbers_on_grid(self):
        """Return the numbers at the scores of the grid, and these within bounds and between
        `plausible_ends`, for moments."""
        limit = np.finfo(float).max / 4
        x = np.nan_to_num(self.variable.maps["quantile"].inverse(GRID), posinf=limit, neginf=-limit)
        low, high = plausible_ends(*self.variable.seen)
        return x, np.clip(x, max(low, self.variable.low), min(high, self.variable.high))

    @cached_property
    def _on_grid(self):
        """Numbers, with the atoms among them, and the probability of being at most each."""
        x = np.union1d(self._numbers_on_grid()[0], self.variable.atoms)[None]
        return x[0], self.cdf(x)

    def quantile(self, q, row):
        """Return where `below` is q in some rows, of shape (m,) as the probabilities."""
        variable = self.variable
        if not variable.has_number:
            ends, below = self._cells
            cell = (below[row, 1:] < q[:, None]).sum(axis=1).clip(max=len(ends) - 2)
            mass = below[row, cell + 1] - below[row, cell]
            share = (q - below[row, cell]) / np.maximum(mass, LEAST_MASS)
            return ends[cell] + share.clip(0, 1) * (ends[cell + 1] - ends[cell])
        x, below = self._on_grid

        def n_below(q, row):
            return (below[row] < q[:, None]).sum(axis=1)

        first = in_blocks(n_below, q, row, each=len(x)).clip(1, len(x) - 1)
        low = x[first - 1]
        # The first number of the grid may be an atom.
        high = np.where(below[row, 0] >= q, low, x[first])
        some = self.take(row)
        for _ in range(N_BISECTIONS):
            middle = (low + high) / 2
            is_below = some.cdf(middle[:, None])[:, 0] < q
            low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
        # At an atom the distribution function jumps: the upper end stays on it.
        is_atom = np.isin(x[first], variable.atoms) & (
            np.abs(high - x[first]) <= ROUNDING * np.abs(x[first] - x[first - 1])
        )
        return np.where(is_atom, x[first], high)

    def median(self):
        """Return the median of each row, a possible value."""
        n = self.shares.shape[1]
        median = self.quantile(np.full(n, 0.5), np.arange(n))
        if self.variable.has_number:
            return self.variable.value(self.variable.snap(median))
        return self.variable.possible.round(median)

    def nodes(self):
        """Return numbers (n, p) and their weights, which are the steps of `cdf` on a grid."""
        variable = self.variable
        if not variable.has_number:
            ends, below = self._cells  # near both of each cell
            y = ends[:-1, None] + np.diff(ends)[:, None] * [INSIDE, 1 - INSIDE]
            weight = np.repeat(np.diff(below, axis=1) / 2, 2, axis=1)
            return np.broadcast_to(y.ravel(), weight.shape), weight
        x, inner = self._numbers_on_grid()
        total = 0.0
        for share, one in zip(self.shares, self.members, strict=True):
            weight = np.diff(one.number.cdf(one.map.forward(x)[0][None]), axis=1)
            weight = weight / np.maximum(weight.sum(axis=1, keepdims=True), LEAST_MASS)
            if one.levels is not None:
                weight = np.hstack([one.levels[:, :1] * weight, one.levels[:, 1:]])
            total = total + share[:, None] * weight
        total = (1 - self.p_expected.sum(axis=1, keepdims=True)) * total
        y = np.append((inner[1:] + inner[:-1]) / 2, variable.atoms)
        y, expected = np.broadcast_to(y, total.shape), np.nan_to_num(self.expected)
        return np.hstack([y, expected]), np.hstack([total, self.p_expected])

    def mean(self):
        """Return the mean of each row, of numbers over the steps of a grid."""
        variable = self.variable
        turn = None if variable.period is None else 2 * np.pi / variable.period

        def directions(x):
            return x if turn is None else np.exp(1j * turn * x)

        if variable.has_number:
            x, inner = self._numbers_on_grid()
            inner, total = directions((inner[1:] + inner[:-1]) / 2), 0.0
            for share, one in zip(self.shares, self.members, strict=True):
                mean = one.number.mean(one.map.forward(x)[0], inner)
                if one.levels is not None:
                    mean = one.levels[:, 0] * mean + one.levels[:, 1:] @ directions(variable.atoms)
                total = total + share * mean
            expected = directions(np.nan_to_num(self.expected))
            total = (1 - self.p_expected.sum(axis=1)) * total
            total = total + (self.p_expected * expected).sum(axis=1)
        else:
            _, below = self._cells
            total = np.diff(below, axis=1) @ directions(variable.possible.values)
        return total if turn is None else np.mod(np.angle(total) / turn, variable.period)


def log_prob_of_column(density, values, given, i):
    """Return the log-probability of column i, the only one of the known values not given.

    Given columns that follow from it, or that all rows of a level lack, tell of it.
    """
    schema = density._schema
    j, log_prob = schema.of_column[i][-1], density._log_prob(values, given)
    depends = schema.rules.are_of_determinant(i)
    depends |= any(each.other == i for each in density._levels_without)
    if not schema.columns[i].is_levels or not depends:
        return log_prob
    variable = schema.variables[j]
    code = variable.code(values[:, j])
    is_level = (code >= 0) & (code < variable.n_levels) & ~variable.is_between(values[:, j], code)
    rows = np.flatnonzero(is_level)
    some, code = values[rows], code[rows]
    some[:, j] = np.nan
    log_prob[rows] = density._log_prob(some, given[rows])  # that there is a value
    for start in range(0, len(rows), ROWS_AT_ONCE):
        chunk = slice(start, start + ROWS_AT_ONCE)
        view = TableView.of_conditions(schema, some[chunk])
        levels = OneVariable(density, view, j, density._log_weights(view, view.known)).levels
        log_prob[rows[chunk]] += np.log(levels[np.arange(len(view)), code[chunk]])
    return log_prob


class OneColumn:
    """The distribution of a column of numbers in each row, a `Source` of `distribution/`.

    What the members predict takes memory for rows times classes. It is computed for some rows
    at a time, and kept for the last of them.

    Parameters
    ----------
    density : TableDensity
        The fitted density.
    variables : ndarray of shape (n, n_variables)
        The rows. The values of the column are ignored.
    i : int
        The column.
    """

    n_outputs = 1

    def __init__(self, density, values, i):
        schema = density._schema
        self.density, self.i = density, i
        self.j = schema.of_column[i][-1]
        self.values = without(values, schema, i)
        # Where formulas tell the column, what they tell of other columns is known too. Exceptions
        # of formulas that tell these others are left out.
        solved = density._solved(self.values)
        is_told = ~np.isnan(solved[:, self.j])
        self.values[is_told] = without(solved[is_told], schema, i)
        self.variable = variable = schema.variables[self.j]
        self.n = len(values)
        self.possible = [variable.possible]
        self.period = np.array([np.inf if variable.period is None else variable.period])
        self.start = np.zeros(1)
        self.moment_ends = np.array([[-np.inf, np.inf]])  # nodes lie between `plausible_ends`
        self._last = None, None  # the first of some rows, and their distribution

    def _variable(self, start):
        """Return the distribution of the variable in some rows, from a first one on."""
        if self._last[0] != start:
            schema = self.density._schema
            view = TableView.of_conditions(schema, self.values[start : start + ROWS_AT_ONCE])
            log_weights = self.density._log_weights(view, view.known)
            self._last = start, OneVariable(self.density, view, self.j, log_weights)
        return self._last[1]

    @in_one_thread
    def _each(self, function, values, row):
        """Return a function of the distributions of some rows, and of values of these."""

        def of_block(values, row):
            starts = np.unique(row // ROWS_AT_ONCE * ROWS_AT_ONCE) if len(row) else [0]
            ends = np.searchsorted(row, starts[1:])  # rows come in order
            blocks = zip(starts, np.split(values, ends), np.split(row, ends), strict=True)
            answers = [function(self._variable(start), v, i - start) for start, v, i in blocks]
            return np.concatenate(answers)

        return in_blocks(of_block, values, row)

    def log_density(self, y, row):
        """Return the log-density of a value in some rows, a log-probability at an atom."""

        def of_block(y, row):
            schema, rows = self.density._schema, self.values[row]
            given = ~np.isnan(rows)
            rows[:, self.j] = schema.columns[self.i].split(y[:, 0])[-1]
            return log_prob_of_column(self.density, rows, given, self.i)

        log_prob, step = in_blocks(of_block, y, row), self.variable.step
        return log_prob if step is None else log_prob - np.log(step)

    def cdf(self, y, row):
        """Return the probability of values up to y."""
        if self.variable.period is None:
            return self._each(OneVariable.below, y, row)
        turns = np.floor((y - self._cut) / self.variable.period)
        below = self._each(OneVariable.below, y - turns * self.variable.period, row)
        first, total = self._each(self._turn, y, row).T
        return turns + (below - first) / total

    def ppf(self, q, row, low=None):
        """Return where `cdf` is q; of a circular column, in the turn that q tells."""
        if low is None:
            return self._each(OneVariable.quantile, q, row)
        turns = np.floor(q)
        first, total = self._each(self._turn, q, row).T
        quantile = self._each(OneVariable.quantile, first + (q - turns) * total, row)
        return quantile + turns * self.variable.period

    @property
    def _cut(self):
        """Where the variable of a circular column is cut open."""
        return self.variable.low if self.variable.has_number else -self.variable.step / 2

    def _turn(self, variable, values, row):
        """Return the probability up to the cut, which is not quite 0, and of a turn from there."""
        ends = [np.full(len(row), self._cut + turn) for turn in (0.0, self.variable.period)]
        first, last = (variable.below(end, row) for end in ends)
        return np.stack([first, last - first], axis=1)

    @in_one_thread
    def nodes(self):
        """Return numbers on a grid, and their weights."""
        starts = range(0, max(self.n, 1), ROWS_AT_ONCE)
        of_blocks = [self._variable(start).nodes() for start in starts]
        y, weight = (np.concatenate(each) for each in zip(*of_blocks, strict=True))
        return y, weight, None

    def sample(self, size, random_state):
        """Return random draws."""
        rows = np.repeat(self.values, size, axis=0)
        # The distribution function leaves orders out.
        drawn = self.density._complete(rows, random_state, keeps_orders=False)
        drawn = self.density._schema.joined(drawn)
        return drawn[:, self.i].reshape(self.n, size, 1)
