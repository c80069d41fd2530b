"""How often draws lie outside of the ranges that numbers have in rows of the same category."""

import numpy as np

from ..columns.arrays import some_rows
from ._variables import ROWS_AT_ONCE

MAX_ROWS = 20_000  # of the fit, whose ranges are narrow enough
N_DRAWS = 2_000  # that tell how often the mixture leaves the ranges
MAX_TRIES = 30  # to draw a row again whose numbers are outside of their ranges
ROWS_OF_TRIES = 500  # drawn at once at least


class Ranges:
    """The ranges of numbers in the rows of each category, which draws leave as rarely as new rows.

    A new row lies below n others with a probability of 1 / (n + 1) at most, and above them as
    often, if all come from the same distribution, whatever that is. A mixture leaves the ranges of
    categories with few rows more often. Such draws are accepted with a probability that makes up
    for it.

    Parameters
    ----------
    variables : list of Number and Levels
        The variables of a table.
    values : ndarray of shape (n, n_variables)
        The rows of the fit.
    """

    def __init__(self, variables, values):
        is_number = [
            variable.period is None and (variable.has_number or variable.lattice is not None)
            for variable in variables
        ]
        self.numbers = np.flatnonzero(is_number)
        self.levels = [
            j
            for j, variable in enumerate(variables)
            if not is_number[j] and variable.period is None and variable.n_levels > 1
        ]
        # Of each of these, ends (2, n_levels, n_numbers), and probabilities outside of each end.
        self.ends, self.expected, self.accepted = [], [], None
        if len(values) > MAX_ROWS:
            values = values[some_rows(len(values), MAX_ROWS)]
        for j in self.levels:
            x, code = self._of_known(variables[j], values, j)[1:]
            order, shape = np.argsort(code, kind="stable"), (variables[j].n_levels, x.shape[1])
            ends, count = np.full((2, *shape), np.nan), np.zeros(shape)
            if len(order):
                seen, first = np.unique(code[order], return_index=True)
                ends[0, seen] = np.fmin.reduceat(x[order], first)
                ends[1, seen] = np.fmax.reduceat(x[order], first)
                count[seen] = np.add.reduceat(~np.isnan(x[order]), first, dtype=float)
            self.ends.append(ends)
            self.expected.append(1 / (count + 1))

    def __bool__(self):
        return bool(self.levels) and len(self.numbers) > 0

    def _of_known(self, variable, values, j):
        """Return the rows that have a level of a variable, and their numbers and levels."""
        code = variable.code(values[:, j])
        rows = np.flatnonzero((code >= 0) & (code < variable.n_levels))
        return rows, values[np.ix_(rows, self.numbers)], code[rows]

    def _outside(self, variables, values):
        """Yield, of each variable of levels, which known rows have which number beyond which end.

        These are arrays of rows, ends, levels and places of numbers, after the levels of all rows
        and which of their numbers are known.
        """
        for j, (low, high) in zip(self.levels, self.ends, strict=True):
            rows, x, code = self._of_known(variables[j], values, j)
            end, row, number = np.nonzero([x < low[code], x > high[code]])
            yield code, ~np.isnan(x), (rows[row], end, code[row], number)

    def calibrate(self, variables, drawn):
        """Note with which probability draws outside are accepted, from draws of the mixture."""
        self.accepted = []
        outside = self._outside(variables, drawn)
        for expected, (code, are_known, (_, *places)) in zip(self.expected, outside, strict=True):
            count, n = np.zeros((2, *expected.shape)), np.zeros(expected.shape)
            np.add.at(count, tuple(places), 1.0)
            np.add.at(n, code, are_known)
            # Less one standard error: few draws do not prove that a range is left too often.
            share = ((count - np.sqrt(count)) / np.maximum(n, 1)).clip(0, 1)
            # The share of accepted draws that are outside is then as expected.
            accepted = np.ones(expected.shape)
            for _ in range(2):  # what is refused beyond one end raises the share beyond the other
                exceeds = share > expected * accepted
                others = 1 - np.where(exceeds, share, 0.0).sum(axis=0)
                accepted = others / (1 - np.where(exceeds, expected, 0.0).sum(axis=0))
            chance = expected * accepted / np.where(exceeds, share, 1.0)
            self.accepted.append(np.where(exceeds, chance.clip(max=1), 1.0))

    def refused(self, variables, values, is_open, random_state):
        """Return the rows to draw again, since open numbers are outside of their ranges."""
        chance = np.ones(len(values))
        for start in range(0, len(values), ROWS_AT_ONCE):
            some = slice(start, start + ROWS_AT_ONCE)
            outside = self._outside(variables, values[some])
            for accepted, (*_, (rows, *places)) in zip(self.accepted, outside, strict=True):
                open_ = is_open[start + rows, self.numbers[places[-1]]]
                of_number = np.where(open_, accepted[tuple(places)], 1.0)
                np.minimum.at(chance, start + rows, of_number)
        rows = np.flatnonzero(chance < 1)
        return rows[random_state.uniform(size=len(rows)) >= chance[rows]]
