"""How the unknown values of rows that were filled in one by one are made to follow the rules."""

import numpy as np

from ..columns.arrays import is_integer_dtype
from ._formulas import Elapsed, Formula, Linear, possible_numbers, rounded


class Filling:
    """Rows of which some values were unknown, and which may break rules; blanks are left out.

    Unknown targets become what rules expect of them, and of several unknown terms of a known
    target, the largest becomes what the others leave. An unknown value that breaks an order becomes
    equal to the known one. Two are exchanged if each may have the value of the other; otherwise the
    lower one becomes equal to the other.

    Parameters
    ----------
    rules : Rules
        The rules.
    schema : Schema
        The schema.
    values : ndarray of shape (n, n_variables)
        The rows, which are changed in place.
    is_unknown : ndarray of shape (n, n_variables) of bool
        Which values may change.
    are_means : bool
        Whether numbers are means, which need not be possible: sums of them are not rounded, unless
        their column holds integers.
    """

    def __init__(self, rules, schema, values, is_unknown, are_means):
        self.rules, self.schema = rules, schema
        self.values, self.is_unknown = values, is_unknown
        self.rows = rules.encoded(schema, values)
        # Columns that are known, or follow from known ones.
        self.is_set = np.stack([~is_unknown[:, parts[-1]] for parts in schema.of_column], axis=1)
        self.number_formulas = [
            rule for rule in rules.formulas if schema.columns[rule.target.column].is_number
        ]
        self.is_mean = np.zeros(len(schema.columns), dtype=bool)
        terms = {i for rule in self.number_formulas for i in rule.columns} if are_means else ()
        for i in terms:
            if not schema.columns[i].is_number:
                continue
            self.is_mean[i] = not is_integer_dtype(schema.columns[i].dtype)
            if not self.is_mean[i]:
                some = np.flatnonzero(~self.is_set[:, i])
                self._put(some, i, np.rint(self.rows[some, i]))

    def fill(self):
        """Change the values."""
        functions = self.rules.functions
        spans = [rule for rule in functions if isinstance(rule, Elapsed)]
        self._tell_earlier_dates(spans, self._follow(spans))  # before orders change times of day
        for _ in range(2):  # what orders change may tell a target, and the reverse
            self._keep_orders()
            self._tell_earlier_dates(spans, self._follow(functions))
        if spans:  # of several, one may have broken an order
            self._keep_orders()
            self._follow([rule for rule in functions if rule not in spans])
        self._agree_with_targets()
        self._follow(functions, only_open=True)  # from terms that have changed

    def _put(self, some, i, x):
        self.rows[some, i] = x
        self.schema.put(self.values, some, i, x)

    def _keep_orders(self):
        schema, rows = self.schema, self.rows
        for rule in self.rules.orders:
            broken = rule.is_broken(rows)
            low, high = rule.columns
            open_low, open_high = (
                self.is_unknown[:, schema.of_column[i][-1]] for i in rule.columns
            )
            is_exchanged = open_low & open_high & have_same_values(schema, rule)
            both = np.flatnonzero(broken & is_exchanged)
            put_low, put_high = rows[both, high], rows[both, low]
            self._put(both, low, put_low)
            self._put(both, high, put_high)
            for i, other, is_open, toward in (
                (low, high, open_low & ~is_exchanged, np.floor),
                (high, low, open_high & ~open_low, np.ceil),
            ):
                some = np.flatnonzero(broken & is_open)
                self._put(some, i, schema.columns[i].nearest(rows[some, other], toward))

    def _follow(self, functions, only_open=False):
        """Set unknown targets to the values expected by rules; return which columns are set.

        Terms of sums that agree, and what known values tell, may stay as they are.
        """
        told = np.zeros(self.rows.shape, dtype=bool)
        for rule in functions:
            target, expected = rule.target, rule.expected(self.rows)
            follows = self.is_unknown[:, target.variables[0]] & ~np.isnan(expected)
            if only_open:
                follows &= ~self.is_set[:, target.column]
            are_set = self.is_set[:, rule.determinants].all(axis=1)
            self.is_set[:, target.column] |= follows & are_set
            if self.is_mean[target.column] and isinstance(rule, Formula):
                expected = np.where(are_set, expected, rule.total(self.rows))
            self._put(np.flatnonzero(follows), target.column, expected[follows])
            told[:, target.column] |= follows
        return told

    def _tell_earlier_dates(self, spans, told):
        """Set unknown dates that a later, known one tells; one span is enough."""
        for rule in spans:
            low, target = rule.determinants[0], rule.target
            follows = self.is_unknown[:, self.schema.of_column[low][-1]] & ~told[:, low]
            follows &= ~self.is_unknown[:, target.variables[-1]]
            earlier = rule.told(self.schema, self.rows, low)
            follows &= ~np.isnan(earlier)
            self._put(np.flatnonzero(follows), low, earlier[follows])
            told[:, low] |= follows

    def _agree_with_targets(self):
        """Set the largest possible term of each known target to what the other terms leave.

        Where no term of a sum can take it, its unknown terms change in proportion before.
        """
        for rule in self.number_formulas[::-1]:  # a term may be the target of an earlier one
            is_open = ~self.is_set[:, rule.determinants]
            differs = self.is_set[:, rule.target.column] & is_open.any(axis=1)
            differs &= self.is_mean[list(rule.determinants)].any() | rule.is_broken(self.rows)
            self._set_largest(rule, is_open, differs)
            if isinstance(rule, Linear) and differs.any():
                before = self.rows[:, rule.determinants]
                self._scale(rule, np.flatnonzero(differs), is_open[differs])
                self._set_largest(rule, is_open, differs)
                some = np.flatnonzero(differs)  # which stay as they were
                for k, i in enumerate(rule.determinants):
                    self._put(some, i, before[some, k])
            # No other rule changes a term of a sum that agrees.
            some = np.flatnonzero(self.is_set[:, rule.target.column])
            self.is_set[np.ix_(some, rule.determinants)] = True

    def _set_largest(self, rule, is_open, differs):
        """Set the largest possible open term of rows that differ, which then do so no more."""
        for i, some in rule.largest_first(self.rows, self.schema, is_open):
            some = some[differs[some]]
            x = self._rest(rule, some, i)
            some, x = some[~np.isnan(x)], x[~np.isnan(x)]
            self._put(some, i, x)
            differs[some] = False

    def _scale(self, rule, some, is_open):
        """Multiply the open terms of a sum by a number with which they make its target."""
        rows = self.rows[some]
        terms, factors, _ = rule.terms(rows[:, rule.determinants], *rule.line)
        of_open = np.where(is_open, terms, 0.0) @ np.array(factors)
        rest = of_open + rows[:, rule.target.column] - rule.total(rows)
        can_scale = (rest > 0) & (of_open > 0)
        factor = rest[can_scale] / of_open[can_scale]
        for k, i in enumerate(rule.determinants):
            is_scaled = is_open[can_scale, k]
            x = (rows[can_scale, i] * factor)[is_scaled]
            if not self.is_mean[i]:
                x = possible_numbers(x, self.schema.variable_of(i))
            is_possible = ~np.isnan(x)
            self._put(some[can_scale][is_scaled][is_possible], i, x[is_possible])

    def _rest(self, rule, some, i):
        """Return what the other terms leave for a term in some rows, NaN if it is not possible."""
        rows = self.rows[some]
        if not self.is_mean[i]:
            return rule.told(self.schema, rows, i)
        x = rule.rest(rows, i)
        possible = rounded(x, self.schema.variable_of(i), 0.0)
        # 289.99999999999994 is 290.
        x = np.where(np.isclose(x, possible, rtol=1e-12, atol=0), possible, x)
        return np.where(np.isnan(possible), np.nan, x)


def have_same_values(schema, order):
    """Return whether each column of an order can have the values of the other."""
    low, high = (schema.columns[i].lattices for i in order.columns)
    return low == high
