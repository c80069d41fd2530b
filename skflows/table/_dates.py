"""The distribution of a column of dates in each row."""

from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from ..columns.arrays import check_integer
from ..columns.dates import (
    MICROSECONDS,
    datetimes_of,
    joined_moment,
    moments_of_months,
    start_of_day,
    start_of_week,
    time_of_day,
    utc_seconds,
)
from ..columns.types import Floats, RandomState
from ..distribution.distribution import broadcast_to_entries, checked_probabilities, in_blocks
from ..training.threads import in_one_thread
from ._columns import Weeks
from ._formulas import Elapsed, MonthsLater
from ._predictive import OneVariable, without
from ._variables import ROWS_AT_ONCE
from ._view import LEAST_MASS, TableView

TINY = 1e-8  # of a step: months are rounded
LEAST_Q = 1e-9  # within the mass of a value: quantiles of 0 and 1 may be infinite


class DateDistribution:
    """The distribution of a column of dates at each row, given the other known values.

    A date is its week, its weekday and its time of day, or its month, in this order: the
    distribution of each follows from the members given the parts before it. Dates are NumPy's
    ``datetime64[us]``: local times, or in UTC if the column has a time zone.

    `TableDensity.predict_distribution` returns one; it is not meant to be created by users.

    Parameters
    ----------
    density : TableDensity
        The fitted density.
    values : ndarray of shape (n, n_variables)
        The rows. The values of the column are ignored.
    i : int
        The column.
    """

    def __init__(self, density, values, i):
        self._density, self._schema = density, density._schema
        self._place, self._column = i, density._schema.columns[i]
        self._parts = self._schema.of_column[i][self._column.has_flag :]
        self._values = density._solved(without(values, self._schema, i))

    def __len__(self):
        return len(self._values)

    def __repr__(self):
        return f"<{type(self).__name__}: n_rows={len(self)}>"

    def cdf(self, dates: ArrayLike) -> Floats:
        """Return the probability of dates up to given ones.

        Parameters
        ----------
        dates : array-like of datetime64
            They broadcast against one entry per row.

        Returns
        -------
        probability : ndarray
            One entry per row.
        """
        try:
            dates = np.asarray(dates, dtype="datetime64[us]")
        except ValueError as error:
            raise ValueError(
                f"dates={dates!r}; give datetime64, or texts such as '2024-12-31T18:30'."
            ) from error
        seconds = dates.astype(np.int64) / MICROSECONDS
        return np.where(np.isnat(dates), np.nan, self._by_row(self._below, seconds))

    def ppf(self, q: ArrayLike) -> np.ndarray:
        """Return quantiles.

        Parameters
        ----------
        q : array-like
            Probabilities, more than 0 and less than 1, that broadcast against one entry per row:
            ``ppf([[0.1], [0.9]])`` has shape (2, n_samples).

        Returns
        -------
        dates : ndarray of datetime64
            Possible values of the column.
        """
        return self._by_row(self._quantiles, checked_probabilities(q, with_ends=False))

    quantile = ppf

    def median(self) -> np.ndarray:
        """Return the median.

        Returns
        -------
        median : ndarray of datetime64
            One entry per row.
        """
        return self.ppf(0.5)

    def interval(self, confidence: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the central interval of the given probability, which is not calibrated.

        Parameters
        ----------
        confidence : float
            The probability, more than 0 and less than 1.

        Returns
        -------
        low, high : ndarray of datetime64
            One entry per row.
        """
        if not 0 < confidence < 1:
            raise ValueError(f"{confidence=}; it must be more than 0 and less than 1.")
        return self.ppf((1 - confidence) / 2), self.ppf((1 + confidence) / 2)

    def mean(self) -> np.ndarray:
        """Return the mean, a moment that need not be a possible value.

        Returns
        -------
        mean : ndarray of datetime64
            One entry per row.
        """
        return self._by_row(lambda _, row: self._means(row), 0.0)

    def rvs(self, size: int = 1, random_state: RandomState = None) -> np.ndarray:
        """Draw dates.

        Parameters
        ----------
        size : int, default=1
            Number of draws for each row.

        random_state : int, RandomState instance or None, default=None
            Seed of the draw.

        Returns
        -------
        dates : ndarray of datetime64, of shape (size, n_samples)
            The draws.
        """
        check_integer("size", size)
        rows = np.tile(self._values, (size, 1))
        drawn = self._density._complete(rows, check_random_state(random_state))
        return datetimes_of(self._joined(drawn)).reshape(size, len(self))

    def _by_row(self, function, values):
        """Return a function of values, and of the rows to which they belong, which broadcast."""
        values = broadcast_to_entries(values, (len(self),), f"{len(self)} rows, entries")
        row = np.broadcast_to(np.arange(len(self)), values.shape)
        found = in_blocks(function, values.ravel(), row.ravel(), at_once=ROWS_AT_ONCE)
        return found.reshape(values.shape)

    def _quantiles(self, q, row):
        values = self._values[row]
        rows, spans = self._open_rows(values)
        is_open = np.zeros(values.shape, dtype=bool)
        is_open[np.ix_(rows, self._parts)] = True
        rest = q[rows]
        for j in self._parts if len(rows) else ():
            values[rows, j], rest = self._part(values, j, rows).quantile(rest)
        self._schema.rules.fill(self._schema, values, is_open)
        moments = self._joined(values)
        for some, j, unit, other, times in spans:
            is_later = unit > 0
            span, rest = 0.0, q[some]
            if j is not None:
                rest = rest if is_later else 1 - rest
                span, rest = self._part(values, j, some).quantile(rest)
                values[some, j] = span
            moments[some] = other + unit * span
            for time in times:
                rest = rest if is_later else 1 - rest
                moments[some] += self._part(values, time, some).quantile(rest)[0]
        return datetimes_of(moments)

    def _below(self, seconds, row):
        values = self._values[row]
        rows, spans = self._open_rows(values)
        below = (self._joined(values) <= seconds).astype(np.float64)
        for some, j, unit, other, times in spans:
            asked, is_later = start_of_day(seconds[some]) if times else seconds[some], unit > 0
            if j is None:
                before, up_to, is_possible = (asked > other), (asked >= other), (asked == other)
                before, up_to = before.astype(np.float64), up_to.astype(np.float64)
            else:
                part, x = self._part(values, j, some), (asked - other) / unit
                x, is_possible = part.nearest(x, np.floor if is_later else np.ceil)
                before, up_to = part.ends(x)
                values[some, j] = x
            below[some] = up_to if is_later else 1 - before
            for time in times:
                own = self._part(values, time, some)
                _, share = own.ends(own.nearest(time_of_day(seconds[some]), np.floor)[0])
                below[some] -= np.where(is_possible, (up_to - before) * (1 - share), 0.0)
        below[rows], mass = 0.0, np.ones(len(rows))
        asked = self._column.split(seconds[rows])[self._column.has_flag :]
        for j, x in zip(self._parts, asked, strict=True) if len(rows) else ():
            part = self._part(values, j, rows)
            nearest, is_possible = part.nearest(x, np.floor)
            low, high = part.ends(nearest)
            below[rows] += mass * np.where(is_possible, low, high)
            mass *= np.where(is_possible, high - low, 0.0)
            values[rows, j] = x
        below[rows] += mass
        return below

    def _means(self, row):
        values = self._values[row]
        moments, (rows, spans) = self._joined(values), self._open_rows(values)
        if len(rows):
            moments[rows] = self._mean_moments(values, rows)
        for some, j, unit, other, times in spans:
            span = 0.0 if j is None else self._part(values, j, some).mean()
            moments[some] = other + unit * span
            for time in times:
                moments[some] += self._part(values, time, some).mean()
        return datetimes_of(moments)

    def _mean_moments(self, values, rows):
        """Return the mean moments of some rows by the means of the parts."""
        first, *others = (self._part(values, j, rows).mean() for j in self._parts)
        if self._column.has_months:
            local = moments_of_months(first) + self._column.month_offset
        else:
            is_moment = isinstance(self._schema.variables[self._parts[0]], Weeks)
            local = first if is_moment else joined_moment(first)
            local = local + joined_moment(0.0, *others) - joined_moment(0.0)
        return utc_seconds(local, self._column.zone, self._column.name)

    def _open_rows(self, values):
        """Return the rows whose date nothing tells, and the ones that a span from another does.

        The latter are tuples of rows, the variable of the span, its unit in seconds, which is
        negative if the other date is the later one, the moments of the other date, or of the
        midnight before, and the variables of a time of day that the span does not tell. Without a
        variable, a rule tells the moment, or its midnight.
        """
        open_rows, spans = np.flatnonzero(np.isnan(values[:, self._parts[-1]])), []
        schema, place = self._schema, self._place
        rows = schema.rules.encoded(schema, values)
        rows[:, place] = 0.0  # a midnight
        rules = [rule for rule in schema.rules.functions if isinstance(rule, Elapsed)]
        rules = [rule for rule in rules if place in rule.columns]
        with_numbers = [rule for rule in rules if len(rule.determinants) > 1]
        with_numbers = [rule for rule in with_numbers if not isinstance(rule, MonthsLater)]
        with_numbers.sort(key=lambda rule: rule.kind != "span")

        def add(rule, moments, j=None, unit=1.0):
            nonlocal open_rows
            some = open_rows[~np.isnan(moments[open_rows])]
            if len(some):
                open_rows = np.setdiff1d(open_rows, some)
                times = self._parts[len(rule.target_of(schema, place).variables) :].tolist()
                spans.append((some, j, unit, moments[some], times))

        for rule in rules:
            add(rule, rule.told(schema, rows, place))
        for rule in with_numbers:
            number, is_later = rule.determinants[1], place == rule.target.column
            nothing, unit = rows.copy(), rule.coefficients[1]
            nothing[:, number] = np.where(np.isnan(rows[:, number]), 0.0, np.nan)
            moments = rule.total(nothing) if is_later else rule.rest(nothing, place)
            add(rule, moments, schema.of_column[number][-1], unit if is_later else -unit)
        return open_rows, spans

    def _joined(self, values):
        """Return the dates of rows in seconds."""
        return self._column.joined(values[:, self._schema.of_column[self._place]])

    @in_one_thread
    def _part(self, values, j, rows):
        """Return the distribution of one part of the dates of some rows."""
        view = TableView.of_conditions(self._schema, values[rows])
        log_weights = self._density._log_weights(view, view.known)
        return Part(OneVariable(self._density, view, j, log_weights), len(rows))


class Part:
    """The distribution of a part of a date in each row, in the order of dates.

    Parameters
    ----------
    one : OneVariable
        The distribution of the variable.
    n : int
        Number of rows.
    """

    def __init__(self, one, n):
        self.one, self.variable, self.rows = one, one.variable, np.arange(n)
        # A time of day is an angle, which is cut open anywhere.
        self.is_angle = self.variable.has_number and self.variable.period is not None

    def quantile(self, q):
        """Return the value at which the distribution function reaches q, and q within its mass."""
        variable = self.variable
        if self.is_angle:
            at_midnight, before, total = self._midnight
            q = q * total
            q = np.where(q <= total - before, q, q - total)
            return variable.value(variable.snap(self.one.quantile(at_midnight + q, self.rows))), q
        if variable.has_number:
            x = variable.snap(self.one.quantile(q, self.rows))
        else:
            values = variable.possible.values
            x = values[(self._sums[:, 1:] < q[:, None]).sum(axis=1).clip(max=len(values) - 1)]
        low, high = self.ends(x)
        return x, np.clip((q - low) / np.maximum(high - low, LEAST_MASS), LEAST_Q, 1 - LEAST_Q)

    def nearest(self, x, toward):
        """Return values, moved to possible ones by `numpy.floor` or `numpy.ceil`, and which were.

        There may be none, which is infinite.
        """
        variable, is_down = self.variable, toward is np.floor
        if variable.step is None or self.is_angle or isinstance(variable, Weeks):
            return x, np.ones(len(x), dtype=bool)
        shifted = x + variable.step * (TINY if is_down else -TINY)
        if variable.has_number:
            steps = (shifted - variable.origin) / variable.step
            nearest = variable.origin + variable.step * toward(steps)
        else:
            values = variable.possible.values
            place = np.searchsorted(values, shifted, "right" if is_down else "left") - is_down
            nearest = np.append(values, -np.inf if is_down else np.inf)[place]
        return nearest, np.abs(nearest - x) <= 2 * TINY * variable.step

    def ends(self, x):
        """Return the probabilities of values below x, and of values up to x."""
        variable = self.variable
        if self.is_angle:
            at_midnight, _, total = self._midnight
            unwrapped = variable.low + np.mod(x - variable.low, variable.period)
            below = self.one.below(unwrapped, self.rows) - at_midnight
            below = np.where(below < 0, below + total, below) / total
            return below, below
        if variable.has_number:
            x = start_of_week(x) if isinstance(variable, Weeks) else x
            half = (variable.step or 0.0) / 2
            return [self.one.below(x + shift, self.rows) for shift in (-half, half)]
        values, half = variable.possible.values, variable.step / 2
        places = [np.searchsorted(values, x + shift) for shift in (-half, half)]
        return [self._sums[self.rows, place] for place in places]

    def mean(self):
        """Return means."""
        if not self.variable.has_number:
            return self.one.probabilities @ self.variable.possible.values
        if not self.is_angle:
            return self.one.mean()
        x, weight = self.one.nodes()
        return (np.mod(x, self.variable.period) * weight).sum(axis=1)

    @cached_property
    def _sums(self):
        """The probabilities of the first k possible values, of shape (n, n_values + 1)."""
        return np.pad(np.cumsum(self.one.probabilities, axis=1), ((0, 0), (1, 0)))

    @cached_property
    def _midnight(self):
        """The distribution function of a time of day at midnight, and its growth from the cut to
        midnight and over a period.
        """
        cut, period = self.variable.low, self.variable.period
        places = cut, period * np.ceil(cut / period), cut + period
        first, middle, last = (
            self.one.below(np.full(len(self.rows), x), self.rows) for x in places
        )
        return middle, middle - first, last - first
