"""The kinds of rules that hold between the columns of a table, in all rows or nearly all.

A rule of the kind "function" tells a column, its target, by one or two others, the determinants.
So do rules of the kinds "linear", as a sum of others, up to a step if it was rounded apart from
them, "product", also with a factor for each value of a column, "quotient", and "span", a date as an
earlier one plus the time between them. A rule may say nothing beside some values. One of the kind
"order" says that one column is at most another. Rules are about encoded rows (n, n_columns).
"""

from typing import NamedTuple

import numpy as np

from ..columns.arrays import listed
from ..columns.checks import MAX_NAMED
from ..columns.dates import calendar_part, start_of_day

LEAST_BROKEN = 1e-12  # probability that a member gives to all values that break a rule
RESOLUTION = 1e-6  # of the range of a number without rounding: closer numbers are equal
ROUNDING = 1e-9  # relative error of sums of weights


class Target(NamedTuple):
    """The column that a rule tells."""

    column: int
    variables: np.ndarray  # those that hold its value
    tolerance: float  # within which values are equal
    log_width: float  # of a value with a density, 0 for probabilities

    @classmethod
    def of(cls, schema, i):
        """Return column i of a schema as a target."""
        column = schema.columns[i]
        variables = schema.of_column[i][column.has_flag :]
        tolerance, width = 0.25, 1.0  # of places of categories
        if column.kind == "datetime":  # the time of day has a density per second
            tolerance = 0.5
        elif column.is_number:
            (variable,) = column.value_variables
            step = variable.step
            if variable.has_number and step is None:
                low, high = variable.seen
                width = variable.unit or RESOLUTION * ((high - low) or 1.0)
                tolerance = width / 2 if variable.unit is None else width / 4
            else:
                tolerance = step / 4
        return cls(i, variables, tolerance, float(np.log(width)))

    def split(self, schema, expected):
        """Return the variables of encoded values, ``(n, n_variables)``."""
        column = schema.columns[self.column]
        parts = column.split(expected)[column.has_flag :]
        return np.stack(parts[: len(self.variables)], axis=1)

    def place(self, schema, expected):
        """Return the places of encoded values among levels, -1 for others."""
        variable = schema.variables[self.variables[-1]]
        values = self.split(schema, expected)[:, -1]
        code = variable.code(values)
        is_level = (code < variable.n_levels) & ~variable.is_between(values, code)
        return np.where(is_level, code, -1)


class Counts(NamedTuple):
    """What the rows of a fit say of a rule."""

    share: float  # of exceptions
    n_rows: int  # that tell
    log_broken: float  # log-probability of an exception in scores
    log_holds: float

    @classmethod
    def of(cls, share, is_exception, weight):
        """Return the counts, given the rows that tell, as a rule that did not see each judges it.

        A row of weight 2, relative to the mean of the table, counts as two.
        """
        broken = (weight @ is_exception + 1) / (weight.sum() + 2)
        return cls(float(share), len(weight), float(np.log(broken)), float(np.log1p(-broken)))

    @classmethod
    def of_breaks(cls, is_broken, values, weight):
        """Return the counts of a rule without lists of rows, which rows with all values tell."""
        known = ~np.isnan(values).any(axis=1)
        is_broken, weight = is_broken[known], weight[known]
        share = np.average(is_broken, weights=weight) if len(weight) else 0.0
        return cls.of(share, is_broken, weight)


class Function:
    """Base of the rules that tell a column, their target, by others, their determinants.

    ``expected(rows)`` returns what the target should be, NaN where the rule says nothing.
    """

    @property
    def columns(self):
        """The determinants and the target."""
        return *self.determinants, self.target.column

    def error(self, rows):
        """Return how far the target is from its expected value, NaN where one is unknown."""
        return np.abs(rows[:, self.target.column] - self.expected(rows))

    def is_broken(self, rows):
        """Return which rows break the rule; none with an unknown value does."""
        return self.error(rows) > self.target.tolerance

    def is_open(self, rows):
        """Return in which rows the target is known, and not all determinants."""
        unknown = np.isnan(rows[:, self.determinants]).any(axis=1)
        return unknown & ~np.isnan(rows[:, self.target.column])

    def possible(self, expected):
        """Return the values of the target for which the rule holds, of shape (k, n)."""
        return expected[None]

    def log_share(self, rows):
        """Return the log-probability of a target for which the rule holds, among such values."""
        return np.zeros(len(rows))

    def drawn(self, rows, expected, random_state):
        """Return random values of the target for which the rule holds."""
        return expected

    def tells(self, schema, i):
        """Return whether the rule tells column i, given its other columns."""
        return i == self.target.column

    def target_of(self, schema, i):
        """Return column i as a target, such as a determinant that the rule tells."""
        return Target.of(schema, i)

    def told(self, schema, rows, i):
        """Return what column i, the target, should be, NaN where the rule says nothing."""
        return self.expected(rows)

    def all_told(self, schema, rows, i):
        """Return the values of column i for which the rule holds, (k, n), and their shares."""
        return self.told(schema, rows, i)[None], np.ones(1)

    def of_levels(self, schema, rows, i, levels):
        """Return the probabilities of the levels of a column that the rule tells."""
        told, shares = self.all_told(schema, rows, i)
        place = np.full(told.shape, -1)
        follows = np.flatnonzero(~np.isnan(told[0]))
        target = Target.of(schema, i)
        place[:, follows] = [target.place(schema, each[follows]) for each in told]
        follows = np.flatnonzero((place >= 0).any(axis=0))
        place, levels = place[:, follows], levels.copy()
        shares = shares[:, None] * (place >= 0)
        shares *= np.exp(self.counts.log_holds) / shares.sum(axis=0)
        levels[follows] = without_level(levels[follows], place) * np.exp(self.counts.log_broken)
        for each, share in zip(place, shares, strict=True):  # a share of 0 changes nothing
            levels[follows, each] += share
        return levels


class Lookup(Function):
    """A column as a function of one or two others, by a list of the combinations seen.

    Parameters
    ----------
    determinants : tuple of int
        The columns that determine the target.
    target : Target
        The column that they determine.
    rows : ndarray of shape (n, n_columns)
        Encoded rows.
    weight : ndarray of shape (n,)
        Weight of each row.
    """

    kind = "function"

    def __init__(self, determinants, target, rows, weight):
        self.determinants, self.target = determinants, target
        columns = [*determinants, target.column]
        known = ~np.isnan(rows[:, columns]).any(axis=1)
        rows, weight = rows[known], weight[known]
        self.seen = [np.unique(column) for column in self._columns(rows)]
        results, result = np.unique(rows[:, target.column], return_inverse=True)
        groups = Groups(self._key(rows), result.ravel(), len(results), weight)
        self.keys, self.results = groups.keys, results[groups.first]
        share = np.average(groups.is_exception, weights=weight) if len(rows) else 0.0
        tells = groups.tells
        self.counts = Counts.of(share, groups.is_unforeseen[tells], weight[tells])

    def _columns(self, rows):
        """Return what the rule sees of each determinant."""
        return [rows[:, j] for j in self.determinants]

    def _key(self, rows):
        """Return a number for each combination of determinants, -1 for one that was not seen."""
        key, is_seen = np.zeros(len(rows), dtype=int), np.ones(len(rows), dtype=bool)
        for column, seen in zip(self._columns(rows), self.seen, strict=True):
            place = np.searchsorted(seen, column).clip(max=max(len(seen) - 1, 0))
            is_seen &= seen[place] == column if len(seen) else False
            key = key * len(seen) + place
        return np.where(is_seen, key, -1)

    def expected(self, rows):
        """Return what the target should be in each row, NaN where the rule says nothing."""
        expected = np.full(len(rows), np.nan)
        if len(self.keys):
            key = self._key(rows)
            place = np.searchsorted(self.keys, key).clip(max=len(self.keys) - 1)
            is_seen = self.keys[place] == key
            expected[is_seen] = self.results[place[is_seen]]
        return expected

    def with_rows(self, rows, weight):
        """Return the same rule with the combinations of other rows."""
        return Lookup(self.determinants, self.target, rows, weight)

    def text(self, names):
        """Return the rule as text."""
        determinants = " and ".join(str(names[j]) for j in self.determinants)
        return f"{names[self.target.column]} follows from {determinants}"


class OfDate(Lookup):
    """A column as a function of the year, the month or another part of a date.

    Parameters
    ----------
    determinants, target, rows, weight
        As in `Lookup`, of which the only determinant is a date.
    part : str
        One of `CALENDAR`.
    zone : object
        The time zone of the date, or None.
    """

    def __init__(self, determinants, target, part, zone, rows, weight):
        self.part, self.zone = part, zone
        super().__init__(determinants, target, rows, weight)

    def _columns(self, rows):
        (j,) = self.determinants
        return [calendar_part(rows[:, j], self.part, self.zone, j)]

    def with_rows(self, rows, weight):
        """Return the same rule with the combinations of other rows."""
        return OfDate(self.determinants, self.target, self.part, self.zone, rows, weight)

    def text(self, names):
        """Return the rule as text."""
        (j,) = self.determinants
        return f"{names[self.target.column]} follows from the {self.part} of {names[j]}"


class ZeroWhere(Lookup):
    """A number that is 0 beside some categories; the rule says nothing about others.

    Parameters
    ----------
    determinants, target, rows, weight
        As in `Lookup`, of which the only determinant is a column of categories.
    places : ndarray of float
        The encoded categories.
    labels : list of str
        What they stand for.
    """

    def __init__(self, determinants, target, places, labels, rows, weight):
        self.places, self.labels = places, labels
        some = np.isin(rows[:, determinants[0]], places)
        super().__init__(determinants, target, rows[some], weight[some])

    def with_rows(self, rows, weight):
        """Return the same rule with the counts of other rows."""
        line = self.determinants, self.target, self.places, self.labels
        return ZeroWhere(*line, rows, weight)

    def text(self, names):
        """Return the rule as text."""
        column, target = (names[j] for j in self.columns)
        return f"{target} = 0 where {column} is {listed(self.labels, MAX_NAMED)}"


class Order:
    """One column is at most another.

    Parameters
    ----------
    low, high : int
        The columns.
    rows : ndarray of shape (n, n_columns)
        Encoded rows.
    weight : ndarray of shape (n,)
        Weight of each row.
    by_day : bool
        Whether the second column has days, and the first one times too, which do not count.
    """

    kind = "order"

    def __init__(self, low, high, rows, weight, by_day=False):
        self.low, self.high, self.by_day = low, high, by_day
        self.counts = Counts.of_breaks(self.is_broken(rows), rows[:, self.columns], weight)
        self.model = None  # the mixture's probabilities that the order is broken, and kept

    @property
    def columns(self):
        return self.low, self.high

    def is_broken(self, rows):
        """Return which rows break the order; none with an unknown value does."""
        low = rows[:, self.low]
        return (start_of_day(low) if self.by_day else low) > rows[:, self.high]

    def with_rows(self, rows, weight):
        """Return the same rule with the counts of other rows."""
        return Order(self.low, self.high, rows, weight, self.by_day)

    def weigh(self, rows):
        """Note how often samples of the mixture break the order, if both values are known."""
        known = ~np.isnan(rows[:, self.columns]).any(axis=1)
        n_broken, n = self.is_broken(rows).sum(), known.sum()
        broken = (n_broken + 1) / (n + 2)
        self.model = float(broken), float(1 - broken)

    @property
    def acceptance(self):
        """The share of drawn rows that break the order to keep: as many as in the fit."""
        broken, kept = self.model
        odds = self.counts.share / max(1 - self.counts.share, LEAST_BROKEN)
        return min(1.0, odds * kept / broken)

    def text(self, names):
        """Return the rule as text."""
        return f"{'day of ' if self.by_day else ''}{names[self.low]} <= {names[self.high]}"


class Groups:
    """Rows grouped by a key, and the most frequent result of each group.

    Parameters
    ----------
    key, result : ndarray of shape (n,) of int
        The group of each row, and its result.
    n_results : int
        Number of results.
    weight : ndarray of shape (n,), optional
        Weight of each row.

    Attributes
    ----------
    keys, first : ndarray of shape (n_groups,)
        The groups in order, and the most frequent result of each, by weight.
    n_groups : int
        Number of groups of at least two rows.
    tells : ndarray of shape (n,) of bool
        Which groups of rows have at least two: these rows tell.
    is_exception, is_unforeseen : ndarray of shape (n,) of bool
        Which rows have another result than the most frequent one of their group, and of the other
        rows of their group.
    """

    def __init__(self, key, result, n_results, weight=None):
        pairs, inverse = np.unique(key * n_results + result, return_inverse=True)
        total = np.bincount(inverse.ravel(), weight, len(pairs))
        keys, results = np.divmod(pairs, max(n_results, 1))
        order = np.lexsort((-total, keys))
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        self.keys, self.first = keys[starts], results[order[starts]]
        most, second = total[order[starts]], np.zeros(len(starts))
        has_second = np.diff(starts, append=len(keys)) > 1
        second[has_second] = total[order[starts[has_second] + 1]]
        group = np.searchsorted(self.keys, key)
        n_of_group = np.bincount(group, minlength=len(starts))
        self.tells, self.n_groups = (n_of_group > 1)[group], (n_of_group > 1).sum()
        self.is_exception = result != self.first[group]
        # Without a row of the most frequent result, another may be as frequent.
        rest = most[group] - (1 if weight is None else weight)
        self.is_unforeseen = self.is_exception | (rest <= (1 + ROUNDING) * second[group])


def without_level(levels, place):
    """Return the probabilities of levels given that it is none of certain ones in each row.

    Places are an array (n,) or (k, n); the ones below 0 are no level.
    """
    levels, others = levels.copy(), np.ones_like(levels)
    for each in np.atleast_2d(place):
        rows = np.flatnonzero(each >= 0)
        levels[rows, each[rows]] = others[rows, each[rows]] = 0.0
    total = levels.sum(axis=1, keepdims=True)
    others /= np.maximum(others.sum(axis=1, keepdims=True), 1.0)
    return np.where(total > LEAST_BROKEN, levels / np.maximum(total, LEAST_BROKEN), others)
